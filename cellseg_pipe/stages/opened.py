"""Opens all the images of an experiment as far as that can be done; one that is bad stops none."""

from __future__ import annotations

import logging

from cellseg_pipe.config import Experiment, units_of
from cellseg_pipe.io.headers import Headers
from cellseg_pipe.stages.unit import UnitRun, open_unit

__all__ = ["FAILURES", "open_units"]

log = logging.getLogger(__name__)

# What a file may be the cause of: others are segmented all the same.
FAILURES = (OSError, TypeError, ValueError, MemoryError, OverflowError)


def open_units(
    experiment: Experiment, headers: Headers
) -> tuple[list[UnitRun], dict[str, Exception]]:
    """Open the images of all units, as far as that can be done.

    Parameters
    ----------
    experiment : Experiment
        Its images are found already.
    headers : Headers
        What is known of the images.

    Returns
    -------
    list of UnitRun
        In the order of the file.
    dict of str to Exception
        What is wrong with the others, by name.
    """
    found: list[UnitRun] = []
    failed: dict[str, Exception] = {}
    for unit in units_of(experiment):
        try:
            opened = open_unit(experiment, unit, headers=headers)
            # Asking for the mode refuses an image that the network cannot see.
            log.debug("%s: %s, mode %s", unit.name, opened.image.shape, opened.mode)
            found.append(opened)
        except FAILURES as error:
            failed[unit.name] = error
    return found, failed
