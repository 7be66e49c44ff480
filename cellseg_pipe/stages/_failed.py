"""What a user is told of images that could not be segmented."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["message"]

SAID = 5  # failures in a message; the file has all


def message(failed: Mapping[str, str], *, n_units: int, file: Path) -> str:
    """Return what a user is told of units that failed.

    Parameters
    ----------
    failed : mapping of str to str
        Name of the unit, and why.
    n_units : int
        All of them.
    file : path
        That lists all.

    Returns
    -------
    str
        The first ones, one a line.
    """
    lines = [f"{name}: {reason}" for name, reason in list(failed.items())[:SAID]]
    lines += [f"and {len(failed) - SAID} more"] if len(failed) > SAID else []
    return (
        f"{len(failed)} of {n_units} images could not be segmented; the others are done. {file}"
        " lists them. Mend or remove them and start again: only these are done then.\n  "
        + "\n  ".join(lines)
    )
