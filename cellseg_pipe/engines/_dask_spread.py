"""Gives jobs to the workers of a pool, and those that fail again as long as they get further."""

from __future__ import annotations

import logging
import math
import queue
import time
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from cellseg_pipe.engines._dask_pool import Pool
from cellseg_pipe.engines._dask_steps import Steps, Todo
from cellseg_pipe.engines._dask_work import Call, in_turn

if TYPE_CHECKING:
    from distributed import Future

__all__ = ["Found", "Jobs", "Spread"]

log = logging.getLogger(__name__)

TRIES = 4  # of a batch that gets no further
BYSTANDER = 50  # deaths of workers that a job was given to and had not begun
WATCH_S = 5.0
SAID = 10  # tiles in a message


@dataclass(frozen=True)
class Found:
    """How far a job has come.

    Parameters
    ----------
    token : int
        Of its last attempt; 0 if nobody has begun.
    done : frozenset of int
        Its tiles that are done.
    """

    token: int = 0
    done: frozenset[int] = frozenset()


class Jobs(Protocol):
    """What the jobs are."""

    def call(self, todo: Todo) -> Call:
        """Return what runs a job, in a worker.

        Parameters
        ----------
        todo : Todo
            The job.

        Returns
        -------
        callable
            Without arguments.
        """

    def found(self, todo: Todo) -> Found | None:
        """Look how far a job has come.

        Parameters
        ----------
        todo : Todo
            The job.

        Returns
        -------
        Found or None
            None of those that are done in one go.
        """

    def keys(self, todo: Todo) -> Collection[int]:
        """Return the tiles of a job.

        Parameters
        ----------
        todo : Todo
            The job, which was begun.

        Returns
        -------
        collection of int
            As far as they are known.
        """


@dataclass
class Tries:
    """What became of a job so far."""

    found: Found
    missing: tuple[int, ...] = ()
    n: int = 0  # that it was given to a worker
    in_vain: int = 0  # attempts in a row that got no further
    bystander: int = 0
    passed_over: int = 0


class Spread:
    """Jobs on the workers of a pool.

    Parameters
    ----------
    pool : Pool
        The workers.
    jobs : Jobs
        What they do.

    Attributes
    ----------
    fatal : set of Todo
        Jobs that failed since they end their workers.
    """

    def __init__(self, pool: Pool, jobs: Jobs) -> None:
        self.fatal: set[Todo] = set()
        self._pool, self._jobs = pool, jobs
        self._name = uuid.uuid4().hex  # a scheduler may have other runs, and knows jobs by name
        self._ended: queue.SimpleQueue[tuple[Todo, Future]] = queue.SimpleQueue()
        self._futures: dict[Todo, Future] = {}
        self._tries: dict[Todo, Tries] = {}
        self._watched = -math.inf

    def all(self, steps: Steps) -> dict[Todo, str]:
        """Run all jobs; where one fails, all that do not need it.

        Parameters
        ----------
        steps : Steps
            What is to be done.

        Returns
        -------
        dict of Todo to str
            Those that failed, and why.
        """
        failed: dict[Todo, str] = {}
        while True:
            for todo in steps.ready():
                self._tries[todo] = Tries(self._jobs.found(todo) or Found())
                self._submit(todo)
            if not self._futures:
                return failed
            if time.monotonic() - self._watched > WATCH_S:
                self._pool.watch(len(self._futures))
                self._watched = time.monotonic()
            for todo, error in self._some_ended():
                if error is None:
                    del self._tries[todo]
                    steps.done(todo)
                elif self._again(todo, error):
                    why = "its worker died" if _is_death(error) else error
                    log.warning("%s is tried again: %s", todo, why)
                    self._submit(todo)
                else:
                    failed[todo] = self._said(todo, error)
                    log.error("%s: %s", todo, failed[todo])

    def _submit(self, todo: Todo) -> None:
        tries = self._tries[todo]
        tries.n += 1
        self._futures[todo] = future = self._pool.client.submit(
            in_turn,
            self._jobs.call(todo),
            passed_over=tries.passed_over,
            key=(todo.stage, todo.unit, todo.batch, tries.n, self._name),
            pure=False,
        )
        future.add_done_callback(lambda ended: self._ended.put((todo, ended)))

    def _some_ended(self) -> Iterator[tuple[Todo, BaseException | None]]:
        """Yield jobs that have ended, and why those ended that are not done."""
        wait = True
        while True:
            try:
                todo, future = self._ended.get(wait, WATCH_S)
            except queue.Empty:
                return
            wait = False
            del self._futures[todo]
            if future.status in ("cancelled", "lost"):
                raise OSError(
                    f"the scheduler at {self._pool.client.scheduler.address} is gone. What is done"
                    " is kept: start the run again when there is one."
                )
            yield todo, future.exception()

    def _again(self, todo: Todo, error: BaseException) -> bool:
        """Tell whether a job that failed may get further when it is run again."""
        tries, died = self._tries[todo], _is_death(error)
        found = self._jobs.found(todo)
        if found is None:
            tries.in_vain += 1
            return died and tries.in_vain < TRIES
        before, tries.found = tries.found, found
        if died and found.token == before.token:  # it was to be next on a worker that died
            tries.bystander += 1
            return tries.bystander < BYSTANDER
        tries.missing = tuple(key for key in self._jobs.keys(todo) if key not in found.done)
        tries.in_vain = 0 if found.done > before.done else tries.in_vain + 1
        tries.passed_over = 1 + tries.in_vain
        alone = len(tries.missing) <= 1 and not died
        return not alone and tries.in_vain < TRIES

    def _said(self, todo: Todo, error: BaseException) -> str:
        missing = self._tries[todo].missing
        tiles = ", ".join(map(str, missing[:SAID])) + (" ..." if len(missing) > SAID else "")
        if _is_death(error):
            self.fatal.add(todo)
            where = f" at tile {tiles}" if tiles else ""
            return (
                f"its worker died{where}, {self._tries[todo].n} times. It may have needed more"
                " memory than resources.memory_gb, or be cancelled by somebody."
            )
        text = str(error) if isinstance(error, OSError | ValueError | MemoryError) else repr(error)
        return f"{text} (tiles not done: {tiles})" if len(missing) > 1 else text


def _is_death(error: Any) -> bool:
    from distributed import KilledWorker

    return isinstance(error, KilledWorker)
