"""What a worker of dask does: one job as any engine runs it. Light to import."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from cellseg_pipe.ledger import Held, passing_over

__all__ = ["Call", "in_turn", "job"]

log = logging.getLogger(__name__)

Call = Callable[..., Any]
# A job that was given to another worker may still be ended here, which takes Slurm half a minute.
HELD_S, POLL_S = 120.0, 1.0


def job(config: str, unit: str, stage: str, *, batch: int, threads: int) -> None:
    """Run one job of a run.

    Parameters
    ----------
    config : str
        The experiment in effect.
    unit, stage : str
        Their names.
    batch : int
        Which batch.
    threads : int
        Threads to use.
    """
    from cellseg_pipe.stages.named_jobs import run_one

    run_one(config, unit, stage, batch=batch, threads=threads)


def in_turn(call: Call, *args: Any, passed_over: int, **settings: Any) -> None:
    """Call what works on a batch, when nobody on this machine works on it any more.

    Parameters
    ----------
    call : callable
        The work.
    *args : object
        Of it.
    passed_over : int
        How many of the missing tiles come last, see `ledger.passing_over`.
    **settings : object
        Of it.
    """
    end = time.monotonic() + HELD_S
    while True:
        try:
            with passing_over(passed_over):
                call(*args, **settings)
            return
        except Held as error:
            if time.monotonic() > end:
                raise
            log.info("%s", error)
            time.sleep(POLL_S)
