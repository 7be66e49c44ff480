"""The jobs of a run as workers of dask take them."""

from __future__ import annotations

from functools import partial

from cellseg_pipe.config import Experiment, units
from cellseg_pipe.engines._dask_needs import Needs
from cellseg_pipe.engines._dask_spread import Found
from cellseg_pipe.engines._dask_steps import Todo
from cellseg_pipe.engines._dask_work import Call, job
from cellseg_pipe.ledger import tiles_found
from cellseg_pipe.stages._run_layout import SMALL, RunLayout, is_plan
from cellseg_pipe.stages.keys import keys_of
from cellseg_pipe.stages.opened import FAILURES, open_unit

__all__ = ["RunJobs"]


class RunJobs:
    """The jobs of a run.

    Parameters
    ----------
    layout : RunLayout
        The run.
    experiment : Experiment
        What is done.
    needs : Needs
        What the workers are.
    """

    def __init__(self, layout: RunLayout, experiment: Experiment, needs: Needs) -> None:
        self._layout, self._experiment, self._needs = layout, experiment, needs
        self._sizes: dict[str, int] = {}
        for _, stage in layout.jobs():
            self._sizes[stage.kind] = self._sizes.get(stage.kind, 0) + stage.n_batches

    def call(self, todo: Todo) -> Call:
        """Return what runs a job; see `Jobs`."""
        stage = self._layout.unit(todo.unit).stage(todo.stage)
        return partial(
            job,
            str(self._layout.config),
            todo.unit,
            todo.stage,
            batch=todo.batch,
            threads=self._needs.threads_for(self._sizes[stage.kind]),
        )

    def found(self, todo: Todo) -> Found | None:
        """Look how far a job has come; see `Jobs`."""
        if is_plan(todo.stage):
            return None
        return Found(*tiles_found(self._layout.files(todo.unit, todo.stage), todo.batch))

    def keys(self, todo: Todo) -> list[int]:
        """Return the tiles of a job; see `Jobs`."""
        if todo.unit == SMALL:
            return list(range(len(self._layout.unit(SMALL).stage(todo.stage).images)))
        found = {unit.name: unit for unit in units(self._experiment)}
        try:
            unit = open_unit(self._experiment, found[todo.unit])
            return list(keys_of(unit, todo.stage, todo.batch))
        except FAILURES:  # which has ended the job, too
            return []
