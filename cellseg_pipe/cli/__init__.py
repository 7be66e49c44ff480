"""The command `cellseg`: one thin command per task; what a command needs is imported in it."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from cellseg_pipe import __version__
from cellseg_pipe.cli._pipeline import add_pipeline
from cellseg_pipe.cli._qc import add_qc
from cellseg_pipe.cli._report import add_report
from cellseg_pipe.cli._restore import add_restore
from cellseg_pipe.cli._segment import add_segment
from cellseg_pipe.cli._setup import add_setup
from cellseg_pipe.cli._train import add_train

__all__ = ["main"]

INTERRUPTED = 130  # as shells say it of a program that SIGINT has ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        What was typed after `cellseg`.

    Returns
    -------
    int
        Exit status: 0 done, 1 refused or failed, 2 misused, 130 stopped.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    try:
        return options.command(options) or 0
    except KeyboardInterrupt:
        print(f"cellseg {options.name}: stopped. The same command goes on.", file=sys.stderr)
        # An interrupt that came through text being evaluated, as in many imports, would have Python
        # end itself by the signal although it was caught here; evaluating any text forgets it.
        eval("None")
        return INTERRUPTED
    # What a user can mend, said in one line.
    except (MemoryError, OSError, OverflowError, TypeError, ValueError) as error:
        return _refused(options.name, error)
    except RuntimeError as error:
        from cellseg_pipe.ledger import LedgerError

        if not isinstance(error, LedgerError):
            raise
        return _refused(options.name, error)


def _refused(name: str, error: Exception) -> int:
    logging.getLogger(__name__).debug("traceback", exc_info=True)
    print(f"cellseg {name}: {error}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cellseg", description="Segment cells in images of any size, and judge the result."
    )
    parser.add_argument("--version", action="version", version=f"cellseg {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-v", "--verbose", action="store_true", help="log every step")
    commands = parser.add_subparsers(title="commands", dest="name", required=True)
    for add in (
        add_segment,
        add_setup,
        add_pipeline,
        add_train,
        add_restore,
        add_qc,
        add_report,
        _add_evaluate,
        _add_models,
        _add_synth,
    ):
        add(commands, common)
    return parser


def _add_evaluate(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    parser = commands.add_parser(
        "evaluate",
        parents=[common],
        help="score label images against a truth",
        description="Score label images (TIFF, PNG, NPY, OME-Zarr) against a truth: two files, or"
        " two folders whose file names pair up. Prints a table.",
    )
    parser.add_argument("pred", type=Path, help="predicted labels: a file or a folder")
    parser.add_argument("truth", type=Path, help="true labels: a file or a folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all scores as JSON")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write one row per image as CSV")
    parser.add_argument(
        "--thresholds", type=_numbers, metavar="A,B,..", help="IoU of a match (0.5,0.55,..,0.95)"
    )
    parser.add_argument(
        "--ignore-label", type=int, metavar="N", help="label in the truth that nobody annotated"
    )
    parser.add_argument(
        "--boundary-px", type=float, metavar="D", help="also score outlines, within this distance"
    )
    parser.add_argument("--pred-pattern", default="*", metavar="GLOB", help="files of PRED to take")
    parser.add_argument("--truth-pattern", default="*", metavar="GLOB", help="likewise of TRUTH")
    parser.set_defaults(command=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    from cellseg_pipe.metrics import IOU_THRESHOLDS, table
    from cellseg_pipe.stages import evaluate

    settings = evaluate.EvaluationSettings(
        thresholds=options.thresholds or IOU_THRESHOLDS,
        ignore_label=options.ignore_label,
        boundary_px=options.boundary_px,
        pred_pattern=options.pred_pattern,
        truth_pattern=options.truth_pattern,
    )
    result = evaluate.run(
        options.pred, options.truth, settings=settings, json_path=options.json, csv_path=options.csv
    )
    print(table(result.scores))


def _add_models(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    parser = commands.add_parser(
        "models",
        help="list models, look at one, add one, export one",
        description="Models lie in the folders of CELLSEG_MODELS: those of the site, the last one"
        " yours. Then come the shipped ones. Nothing is ever downloaded.",
    )
    tasks = parser.add_subparsers(title="tasks", dest="task", required=True)
    task = tasks.add_parser("list", parents=[common], help="all models, and where they lie")
    task.set_defaults(command=_list_models)
    task = tasks.add_parser("info", parents=[common], help="what is known of a model")
    task.add_argument("model", metavar="NAME", help="a name or a file")
    task.set_defaults(command=_show_model)
    task = tasks.add_parser("add", parents=[common], help="copy a model into your folder")
    task.add_argument("file", type=Path, help="ours, or one of Cellpose 1 to 3")
    task.add_argument("--name", dest="as_name", metavar="N", help="call it N")
    task.set_defaults(command=_add_model)
    task = tasks.add_parser(
        "export",
        parents=[common],
        help="write a package for bioimage.io",
        description="Write weights, architecture, a test and a description as one package that"
        " other programs of the bioimage.io format can run without this one.",
    )
    task.add_argument("model", metavar="MODEL", help="a name or a file")
    task.add_argument("out", metavar="OUT", type=Path, help="NAME.zip; an old one is replaced")
    task.set_defaults(command=_export_model)


def _list_models(_options: argparse.Namespace) -> None:
    from cellseg_pipe.stages import models

    print(models.listing())


def _show_model(options: argparse.Namespace) -> None:
    from cellseg_pipe.stages import models

    print(models.details(options.model))


def _add_model(options: argparse.Namespace) -> None:
    from cellseg_pipe.stages import models

    print(models.add(options.file, name=options.as_name))


def _export_model(options: argparse.Namespace) -> None:
    from cellseg_pipe.stages import export_model

    print(export_model.run(options.model, options.out))


def _add_synth(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    parser = commands.add_parser(
        "synth",
        parents=[common],
        help="make a synthetic image with exact truth",
        description="Render a synthetic microscopy image with exact truth, block by block. Any size"
        " fits in memory as .zarr; .tif gets its masks in files beside it.",
    )
    parser.add_argument("out", type=Path, help="NAME.zarr or NAME.tif; must not exist")
    parser.add_argument("--preset", default="nuclei", help="kind of image (default nuclei)")
    parser.add_argument("--shape", type=_integers, metavar="[Z,]Y,X", help="size in voxels")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another image")
    parser.add_argument(
        "--period", type=_integers, metavar="[Z,]Y,X", help="repeat seamlessly: huge and cheap"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change what the preset says, as in photons=20",
    )
    parser.add_argument("--pixel-um", type=float, default=0.5, help="pixel size (default 0.5)")
    parser.add_argument("--ngff", choices=("0.4", "0.5"), default="0.4", help="OME-Zarr version")
    parser.add_argument("--image-only", action="store_true", help="no truth in the OME-Zarr")
    parser.set_defaults(command=_synth)


def _synth(options: argparse.Namespace) -> None:
    from cellseg_pipe.stages import synth

    output = synth.Output(
        options.out,
        pixel_um=options.pixel_um,
        version=options.ngff,
        truth=not options.image_only,
    )
    changes = dict(_assignment(text) for text in options.set)
    changes["seed"] = options.seed
    if options.shape:
        changes["shape"] = options.shape
    if options.period:
        changes["period_px"] = options.period
    for path in synth.run(synth.spec_of(options.preset, changes), output):
        print(path)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _assignment(text: str) -> tuple[str, object]:
    """Return name and value of NAME=VALUE; the value a number where it is one."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set needs NAME=VALUE, got {text!r}.")
    try:
        return name, float(value)
    except ValueError:
        return name, value
