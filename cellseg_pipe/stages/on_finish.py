"""Runs the command that an experiment names for the end of a run."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
from collections.abc import Iterator, Sequence
from typing import Literal

from cellseg_pipe.stages._run_layout import RunLayout

__all__ = ["tell", "told"]

log = logging.getLogger(__name__)

PATIENCE_S = 600.0  # a mail server that hangs must not hold a controller's job


def tell(
    command: Sequence[str] | None, layout: RunLayout, *, status: Literal["finished", "failed"]
) -> str:
    """Run a command with the path of summary.json; what goes wrong with it is no error of the run.

    Parameters
    ----------
    command : sequence of str or None
        Its words; nothing is run without any.
    layout : RunLayout
        The run that has ended.
    status : {"finished", "failed"}
        How; after a failure there may be no summary.

    Returns
    -------
    str
        What went wrong with the command, for a warning; empty if nothing.
    """
    if command is None:
        return ""
    summary = str(layout.paths.summary.absolute())
    told = {"CELLSEG_SUMMARY": summary, "CELLSEG_STATUS": status}
    try:
        subprocess.run(
            [*command, summary],
            cwd=layout.root,
            env=os.environ | told,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"on_finish: {str(error).rstrip('.')}; the run itself has {status}"
    return ""


@contextlib.contextmanager
def told(command: Sequence[str] | None, layout: RunLayout) -> Iterator[None]:
    """Run a command when what is inside has ended, unless the run was finished before.

    Parameters
    ----------
    command : sequence of str or None
        Its words.
    layout : RunLayout
        The run.

    Yields
    ------
    None
        Nothing.
    """
    if layout.marker.exists():
        yield
        return
    status: Literal["finished", "failed"] = "failed"
    try:
        yield
        status = "finished"
    finally:
        if fault := tell(command, layout, status=status):
            log.warning("%s", fault)
