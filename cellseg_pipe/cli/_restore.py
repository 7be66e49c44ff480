"""The command `cellseg restore`: one thin call."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cellseg_pipe.cli._segment import Bar, file_options, given, several

__all__ = ["add_restore"]

OF_NETWORKS = ("device", "precision", "anisotropy")  # beside what experiment files know
NAMES = (
    "model", "method", "diameter_px", "diameter_um", "channels", "offset", "anisotropy",
    "sigma_px", "size_px", "clear_below", "window_px", "overlap_px", "spacing_um", "device",
    "precision", "threads",
)  # fmt: skip
NUMBERS = (
    ("diameter-px", float, "D", "diameter of a typical cell (the network sees the image as it is)"),
    ("diameter-um", float, "D", "the same in micrometres"),
    ("anisotropy", float, "R", "distance of planes over a pixel, for aniso models (from the file)"),
    ("sigma-px", float, "S", "of --method gaussian (1)"),
    ("size-px", int, "N", "edge of --method median, odd (3)"),
    ("clear-below", float, "S", "share of its range that noise of a clear channel has (model's)"),
    ("window-px", int, "N", "edge of the network's windows (512)"),
    ("overlap-px", int, "N", "what windows share (48)"),
    ("threads", int, "N", "threads to use (all)"),
)


def add_restore(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the command to those of `cellseg`.

    Parameters
    ----------
    commands : argparse action
        Takes the commands.
    common : argparse.ArgumentParser
        Options of every command.
    """
    parser = commands.add_parser(
        "restore",
        parents=[common],
        help="take noise and blur from images, or give them more pixels",
        description="Restore images (TIFF, PNG, JPEG, NPY, OME-Zarr) that fit in memory. Grey"
        " values keep their meaning. No file is replaced.",
    )
    parser.add_argument("images", nargs="+", metavar="IN", help="files, folders or patterns")
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder; for one image also a file")
    parser.add_argument("--model", help="name or file of a model that restores (one-click)")
    parser.add_argument(
        "--method", choices=("network", "gaussian", "median"), help="what restores (network)"
    )
    parser.add_argument(
        "--channels", type=_words, metavar="A,B", help="numbers from 0, or names; others stay (all)"
    )
    parser.add_argument(
        "--offset",
        type=several,
        metavar="V[,V..]",
        help="grey value of no light, per channel",
    )
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N (auto)")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), help="of the network")
    for name, kind, placeholder, text in NUMBERS:
        parser.add_argument(f"--{name}", type=kind, metavar=placeholder, help=text)
    files = file_options(parser)
    files.add_argument("--float", action="store_true", help="write float32, not the images' type")
    files.add_argument(
        "--skip-existing", action="store_true", help="leave out images whose result is there"
    )
    parser.set_defaults(command=_restore)


def _restore(options: argparse.Namespace) -> int:
    from cellseg_pipe.stages import restore

    jobs = restore.restore_jobs(
        options.images,
        options.out,
        image_format=options.format,
        recursive=options.recursive,
        skip_existing=options.skip_existing,
    )
    _check_method(options)
    if options.diameter_px is not None and options.diameter_um is not None:
        raise ValueError("a diameter needs one unit, got both --diameter-px and --diameter-um.")
    settings = {name: getattr(options, name) for name in NAMES}
    if settings["offset"] is not None and len(settings["offset"]) == 1:
        settings["offset"] = settings["offset"][0]
    reading = {name: getattr(options, name) for name in ("axes", "series")}
    outcomes = restore.run(
        jobs,
        settings=given(settings) | {"dtype": "float32" if options.float else "input"},
        reading=given(reading),
        progress=Bar() if sys.stderr.isatty() else None,
    )
    failed = [outcome for outcome in outcomes if not outcome.done]
    clear = sum(outcome.clear for outcome in outcomes)
    print(f"{len(outcomes) - len(failed) - clear} restored, {len(failed)} failed")
    if clear:
        print(f"{clear} clear: copied as they were (--clear-below 0 restores them, too)")
    for outcome in failed:
        print(f"failed: {outcome.text}", file=sys.stderr)
    return 1 if failed else 0


def _check_method(options: argparse.Namespace) -> None:
    """Refuse what the method would not look at."""
    from cellseg_pipe.config import keys_of_others

    chosen = options.method or "network"
    for key, method in keys_of_others(chosen):
        if getattr(options, key) is not None:
            flag = key.replace("_", "-")
            raise ValueError(f"--{flag} is of method {method}, got method {chosen}.")
    for key in OF_NETWORKS if chosen != "network" else ():
        if getattr(options, key) not in (None, "auto"):
            raise ValueError(f"--{key} is of method network, got method {chosen}.")


def _words(text: str) -> list[int | str]:
    parts = [part.strip() for part in text.split(",")]
    return [int(part) if part.isdecimal() else part for part in parts]
