"""The command `cellseg qc`: scores the seams of a label image."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_qc"]


def add_qc(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the command.

    Parameters
    ----------
    commands : subparsers
        Of the program.
    common : ArgumentParser
        What all commands take.
    """
    parser = commands.add_parser(
        "qc",
        parents=[common],
        help="score the seams of a label image, of any program",
        description="Compare cells at the seams of tiles with those elsewhere: cut cells, slivers,"
        " neighbours too near, strips that are there twice, density, cover. Exit 1 if they differ.",
    )
    parser.add_argument("store", type=Path, help="OME-Zarr labels, a zarr array, TIFF, PNG, NPY")
    parser.add_argument(
        "--seams",
        type=_seams,
        required=True,
        metavar="N|[Z,]Y,X",
        help="edge of the tiles that were joined, or one per axis, 0 where there is no seam",
    )
    parser.add_argument(
        "--overlap-px", type=int, default=0, metavar="N", help="what tiles saw beyond their seams"
    )
    parser.add_argument("--diameter-px", type=float, metavar="D", help="of a cell; else measured")
    parser.set_defaults(command=_qc)


def _seams(text: str) -> int | tuple[int, ...]:
    numbers = tuple(int(part) for part in text.split(","))
    return numbers[0] if len(numbers) == 1 else numbers


def _qc(options: argparse.Namespace) -> int:
    from cellseg_pipe.stages import score_seams

    score = score_seams.run(
        options.store,
        options.seams,
        overlap_px=options.overlap_px,
        diameter_px=options.diameter_px,
    )
    print(score_seams.text_of(score))
    return 1 if score.score else 0
