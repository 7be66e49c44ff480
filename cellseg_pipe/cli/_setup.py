"""The commands before a first run: an experiment file, profiles, and whether all is there."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

__all__ = ["add_setup"]

Commands = argparse._SubParsersAction


def add_setup(commands: Commands[argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    """Add the commands.

    Parameters
    ----------
    commands : subparsers
        Of the program.
    common : ArgumentParser
        What all commands take.
    """
    for add in (_add_init, _add_doctor):
        add(commands, common)


def _add_init(commands: Commands[argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "init",
        parents=[common],
        help="write an experiment file for images",
        description="Read what image files say of themselves and write an experiment file that"
        " suits them, with comments. With --profiles: make the profiles of the workflow known to"
        " Snakemake.",
    )
    parser.add_argument("images", nargs="*", help="files, stores, folders, patterns, URLs")
    parser.add_argument(
        "-o", "--config", type=Path, default=Path("cellseg.yaml"), help="the file to write"
    )
    parser.add_argument("--output", default="results", help="folder of the results")
    parser.add_argument("--model", default="nuclei", help="name or file of a model")
    parser.add_argument(
        "--profiles",
        nargs="?",
        const="",
        metavar="DIR",
        help="copy the profiles local and slurm into DIR (default: your folder of Snakemake)",
    )
    parser.add_argument("--force", action="store_true", help="replace profiles that were changed")
    parser.set_defaults(command=_init)


def _init(options: argparse.Namespace) -> None:
    for line in _begun(options):
        print(line)


def _begun(options: argparse.Namespace) -> Iterable[str]:
    if bool(options.images) == (options.profiles is not None) or (
        options.force and options.profiles is None
    ):
        raise ValueError(
            "needs images to write an experiment file for, or --profiles [DIR] (with --force if"
            " need be), and not both."
        )
    if options.profiles is None:
        from cellseg_pipe.stages import propose

        return propose.run(
            options.images, options.config, output_dir=options.output, model=options.model
        )
    from cellseg_pipe.engines import profiles

    asked = Path(options.profiles) if options.profiles else None
    return profiles.install(asked, force=options.force)


def _add_doctor(
    commands: Commands[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    parser = commands.add_parser(
        "doctor",
        parents=[common],
        help="what this machine lacks for runs; exit 1 if they would fail",
        description="Look at Python and its libraries, GPU and CPU, models, Slurm, and the file"
        " system of the results. Each finding says what to do.",
    )
    parser.add_argument(
        "place",
        type=Path,
        nargs="?",
        default=Path(),
        help="an experiment file, or the folder of results (default: this one)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from cellseg_pipe.stages import doctor

    findings = doctor.examine(options.place)
    print(doctor.as_json(findings) if options.json else doctor.text_of(findings))
    return 1 if any(each.level == "error" for each in findings) else 0
