"""The command `cellseg segment`: its options, a line of progress, one thin call."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["Bar", "add_segment", "file_options", "given", "several"]

# Options that are passed on as they are, if they are given: name, type, placeholder, help.
NUMBERS: tuple[tuple[str, type, str, str], ...] = (
    ("diameter-px", float, "D", "diameter of a typical cell in pixels; measured by default"),
    ("diameter-um", float, "D", "the same in µm; the image tells the size of a pixel"),
    ("diameter-classes", int, "N", "up to so many, each part of an image seen at its own (1)"),
    ("anisotropy", float, "A", "distance of planes over the edge of a pixel (the image's, or 1)"),
    ("cellprob-threshold", float, "T", "logit above which a pixel is in a cell (0)"),
    ("flow-threshold", float, "T", "cells with a larger flow error are dropped; 0: none (0.4)"),
    ("min-size-px", int, "N", "smallest area or volume of a cell (15)"),
    ("max-size-px", int, "N", "largest one (none)"),
    ("niter", int, "N", "steps along the flow (200 at the network's scale)"),
    ("reach-px", int, "N", "how far from its centre a cell may extend (2 diameters)"),
    ("stitch-threshold", float, "IOU", "joins cells of neighbouring planes, mode planes (0.25)"),
    ("flow-smooth-px", float, "S", "smooth the flow, mode 3d (0)"),
    ("smooth-px", float, "S", "smooth the image (0)"),
    ("sharpen-px", float, "S", "take a smoothed image away (0)"),
    ("local-px", int, "N", "edge of a block of --normalise local (256)"),
    ("window-px", int, "N", "edge of the network's windows (512)"),
    ("overlap-px", int, "N", "what windows share (48)"),
    ("threads", int, "N", "threads to use (all)"),
)
CHOICES = (
    ("mode", ("auto", "2d", "planes", "3d"), "how a volume is seen (auto)"),
    ("diameter-by", ("samples", "style"), "how the diameter is measured (samples)"),
    ("normalise", ("global", "local", "off"), "grey values over the image, in blocks, or not"),
    ("following", ("fast", "exact"), "how pixels follow the flow (fast)"),
    ("sampling", ("linear", "nearest"), "where they read it (linear)"),
    ("precision", ("auto", "fp32", "bf16"), "of the network; fp32 is the same on more machines"),
)
SWITCHES = (
    ("invert", "invert", True, "dark cells on bright ground"),
    ("augment", "augment", True, "average over mirror images: 4 times the work"),
    ("antialias", "antialias", True, "smooth before the image is made smaller"),
    ("no-resample", "resample", False, "follow the flow on the network's grid"),
    ("no-fill", "fill", False, "leave holes in cells"),
    ("drop-border", "keep_border", False, "drop cells that touch the border of the image"),
)
EXTRAS = ("csv", "parquet", "flows", "overlay", "figure", "outlines", "rois", "geojson", "seg")


def add_segment(
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
        "segment",
        parents=[common],
        help="segment images that fit in memory",
        description="Segment images (TIFF, PNG, JPEG, NPY, OME-Zarr) that fit in memory. What was"
        " done before with the same settings is skipped.",
    )
    parser.add_argument("images", nargs="+", metavar="IN", help="files, folders or patterns")
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder; for one image also a file")
    parser.add_argument("--model", default="nuclei", help="name or file of a model (nuclei)")
    parser.add_argument("--side-model", help="another one for the side views, mode 3d")
    parser.add_argument(
        "--channels", type=_channels, metavar="A,B", help="numbers from 0, names, grey, hematoxylin"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    for name, kind, placeholder, text in NUMBERS:
        parser.add_argument(f"--{name}", type=kind, metavar=placeholder, help=text)
    for name, choices, text in CHOICES:
        parser.add_argument(f"--{name}", choices=choices, help=text)
    for name, target, value, text in SWITCHES:
        parser.add_argument(f"--{name}", dest=target, action="store_const", const=value, help=text)
    for name, text in (("percentiles", "become 0 and 1 (1,99)"), ("value-range", "likewise")):
        what = "percentiles that" if name == "percentiles" else "grey values that"
        parser.add_argument(f"--{name}", type=_pair, metavar="LOW,HIGH", help=f"{what} {text}")
    _add_files(parser)
    parser.set_defaults(command=_segment)


def _add_files(parser: argparse.ArgumentParser) -> None:
    """Add the options on files."""
    files = file_options(parser)
    files.add_argument(
        "--save",
        type=lambda text: tuple(text.split(",")),
        default=("csv",),
        metavar="A,B,..",
        help=f"what else to write: {', '.join(EXTRAS)}; none (csv)",
    )
    files.add_argument(
        "--save-figure",
        action="store_true",
        help="write image, outlines, flow and probability side by side as a PNG",
    )
    files.add_argument("--show", action="store_true", help="the same, and open it on the screen")
    files.add_argument("--overwrite", action="store_true", help="replace other results")


def file_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options of all commands that read images and write a file for each.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of the command.

    Returns
    -------
    argparse group
        To add others to.
    """
    files = parser.add_argument_group("files")
    files.add_argument("--axes", help="a letter per axis of the files, as in zcyx")
    files.add_argument("--spacing-um", type=several, metavar="[Z,]Y,X", help="size of a voxel")
    files.add_argument("--series", type=int, help="which series of a file (0)")
    files.add_argument(
        "--format", default=".tif", metavar="SUFFIX", help=".tif, .png, .npy or .ome.zarr (.tif)"
    )
    files.add_argument("--recursive", action="store_true", help="search folders in folders")
    return files


def _segment(options: argparse.Namespace) -> int:
    from cellseg_pipe.stages import segment

    if options.show:
        _check_screen()
    figure = ("figure",) if options.show or options.save_figure else ()
    extras = dict.fromkeys((*options.save, *figure))
    jobs = segment.jobs_for(
        options.images,
        options.out,
        label_format=options.format,
        extras=[name for name in extras if name not in ("", "none")],
        recursive=options.recursive,
    )
    names = [row[0].replace("-", "_") for row in NUMBERS] + [
        row[0].replace("-", "_") for row in CHOICES
    ]
    names += [target for _, target, *_ in SWITCHES]
    names += ["model", "side_model", "channels", "device", "percentiles", "value_range"]
    names += ["spacing_um"]
    reading = {name: getattr(options, name) for name in ("axes", "series")}
    outcomes = segment.run(
        jobs,
        settings=given({name: getattr(options, name) for name in names}),
        reading=given(reading),
        overwrite=options.overwrite,
        progress=Bar() if sys.stderr.isatty() else None,
    )
    counts = {state: sum(o.state == state for o in outcomes) for state in ("done", "skipped")}
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    print(f"{counts['done']} segmented, {counts['skipped']} done before, {len(failed)} failed")
    for outcome in failed:
        print(f"failed: {outcome.text}", file=sys.stderr)
    if options.show:
        for outcome in outcomes:
            _open_picture(outcome.job.extras["figure"])
    return 1 if failed else 0


def _check_screen() -> None:
    """Refuse before the long work what nobody could see."""
    named = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if sys.platform.startswith("linux") and not named:
        raise ValueError(
            "--show needs a screen, and neither DISPLAY nor WAYLAND_DISPLAY is set. Use"
            " --save-figure, and open the file where there is one."
        )


def _open_picture(path: Path) -> None:
    from PIL import Image

    if path.exists():  # not there if the image has failed
        with Image.open(path) as picture:
            picture.show(title=path.name)


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given.

    Parameters
    ----------
    options : dict of str
        All of them.

    Returns
    -------
    dict of str
        Those that are not None.
    """
    return {name: value for name, value in options.items() if value is not None}


class Bar:
    """A line on the terminal: windows done, rate, time left."""

    def __init__(self) -> None:
        self.name, self.began, self.shown = "", 0.0, 0.0

    def __call__(self, name: str, done: int, total: int) -> None:
        """Show how far one image is.

        Parameters
        ----------
        name : str
            Of the image.
        done, total : int
            Windows.
        """
        now = time.monotonic()
        if name != self.name:
            self.name, self.began, self.shown = name, now, 0.0
        if now - self.shown < 0.1 and done < total:
            return
        self.shown = now
        rate = done / max(now - self.began, 1e-9)
        left = (total - done) / rate if rate else 0.0
        full = 20 * done // max(total, 1)
        bar = "#" * full + "." * (20 - full)
        end = "\r\x1b[K" if done >= total else ""
        text = f"{name} [{bar}] {done}/{total} windows, {rate:.1f}/s, {left:.0f} s left"
        print(f"\r\x1b[K{text}{end}", end="", file=sys.stderr, flush=True)


def _channels(text: str) -> list[str | None]:
    """Return the channels of A,B: names or numbers, nothing for an input of zeros."""
    return [part.strip() or None for part in text.split(",")]


def _pair(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"needs two numbers LOW,HIGH, got {text!r}") from error
    return low, high


def several(text: str) -> tuple[float, ...]:
    """Return the numbers of A,B,..

    Parameters
    ----------
    text : str
        As it was typed.

    Returns
    -------
    tuple of float
        One or more.
    """
    return tuple(float(part) for part in text.split(","))
