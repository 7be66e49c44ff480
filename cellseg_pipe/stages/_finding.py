"""What a check has found, and what to do about it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import Literal

__all__ = ["Answer", "Finding", "asked", "error", "fine", "warning"]

PATIENCE_S = 20.0  # a server that does not answer must not hold the others up


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Parameters
    ----------
    what : str
        Name of the thing.
    level : {"ok", "warning", "error"}
        error: runs will fail.
    said : str
        What was found.
    mend : str
        What to do; empty if nothing.
    """

    what: str
    level: Literal["ok", "warning", "error"]
    said: str
    mend: str = ""


def fine(what: str, said: str) -> Finding:
    """Return a finding of something that is right."""
    return Finding(what, "ok", said)


def warning(what: str, said: str, mend: str) -> Finding:
    """Return a finding of something that may be wanted otherwise."""
    return Finding(what, "warning", said, mend)


def error(what: str, said: str, mend: str) -> Finding:
    """Return a finding of something that lets runs fail."""
    return Finding(what, "error", said, mend)


@dataclass(frozen=True)
class Answer:
    """What a program has said.

    Parameters
    ----------
    text : str
        Its output; the first line of its faults, if it failed.
    right : bool
        Whether it ended without a fault.
    """

    text: str
    right: bool = False

    @property
    def lines(self) -> list[str]:
        """Lines that are not empty."""
        return [line.strip() for line in self.text.splitlines() if line.strip()]


def asked(program: str, *arguments: str) -> Answer | None:
    """Ask a program.

    Parameters
    ----------
    program : str
        Its name.
    *arguments : str
        What it is asked.

    Returns
    -------
    Answer or None
        None where there is no such program.
    """
    path = shutil.which(program)
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            env=os.environ | {"LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return Answer(f"{program} did not answer within {PATIENCE_S:.0f} s")
    except OSError as fault:
        return Answer(str(fault))
    if done.returncode:
        said = (done.stderr or done.stdout).strip() or f"status {done.returncode}"
        return Answer(said.splitlines()[0])
    return Answer(done.stdout, right=True)
