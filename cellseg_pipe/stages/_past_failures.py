"""Does the rest of a batch first, where a tile of it cannot be done."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from cellseg_pipe.ledger import StageFiles, passing_over, tiles_found
from cellseg_pipe.stages.opened import FAILURES, is_of_image

__all__ = ["past_failures"]

log = logging.getLogger(__name__)

TRIES = 3  # in a row that get no further


def past_failures(work: Callable[[], object], files: StageFiles, batch: int) -> None:
    """Run a job; where a tile fails, run it again behind that tile as long as it gets further.

    Parameters
    ----------
    work : callable
        Does what is missing of the batch, tile by tile.
    files : StageFiles
        Of the stage.
    batch : int
        Which batch.
    """
    token, done = tiles_found(files, batch)
    in_vain = 0
    order: AbstractContextManager[None] = nullcontext()  # at first that of who runs the job
    while True:
        try:
            with order:
                work()
        except FAILURES as error:
            begun, known = token, done
            token, done = tiles_found(files, batch)
            in_vain = 0 if done > known else in_vain + 1
            # Refused before it began, or for what ends every tile: nothing else will help.
            if token == begun or not is_of_image(error) or in_vain == TRIES:
                raise
            order = passing_over(1 + in_vain)
            log.warning("%s. The rest of the batch is done first.", str(error).rstrip("."))
        else:
            return
