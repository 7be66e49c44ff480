"""What one job of the workflow takes that has the workers of engine dask for a whole stage."""

from __future__ import annotations

import math
from typing import Any

from cellseg_pipe.engines._snakemake_needs import NETWORK, Needs
from cellseg_pipe.machine import available_threads
from cellseg_pipe.stages._run_layout import RunLayout, kind_of

__all__ = ["Spreading"]

CONTROLLER_MB = 1000  # of the process that gives the batches out
WORKERS = 4  # of a job on another machine, where the experiment does not tell
QUEUE_MINUTES = 720  # that workers with jobs of their own may wait for these


class Spreading:
    """Jobs that start a cluster each.

    Parameters
    ----------
    layout : RunLayout
        The run.
    needs : Needs
        What a batch takes.
    """

    def __init__(self, layout: RunLayout, needs: Needs) -> None:
        self._layout, self._needs = layout, needs

    @property
    def asked(self) -> bool:
        """Whether the run has such jobs."""
        return bool(self._layout.cluster)

    def inputs(self, wildcards: Any) -> list[str]:
        """Return what a stage needs.

        Parameters
        ----------
        wildcards : Wildcards
            Of the job.

        Returns
        -------
        list of str
            Files.
        """
        return self._layout.inputs(wildcards.unit, wildcards.stage)

    def threads(self, wildcards: Any) -> int:
        """Return the threads of a job.

        Parameters
        ----------
        wildcards : Wildcards
            Of the job.

        Returns
        -------
        int
            Of all its workers.
        """
        workers = self._workers(wildcards)
        if self._needs.is_local and workers:
            return available_threads()
        return max(1, workers * (self._layout.threads or 1))

    @property
    def resources(self) -> dict[str, Any]:
        """Memory and run time; the GPUs of what runs the network; what the site says."""
        place = self._needs.place(network=True)
        found = {"mem_mb": self._memory_mb, "runtime": self._minutes}
        if "gpu" in place:
            place["gpu"] = self._gpus
        return place | found

    def _batches(self, wildcards: Any) -> int:
        return self._layout.unit(wildcards.unit).stage(wildcards.stage).n_batches

    def _workers(self, wildcards: Any) -> int:
        """Return the workers that are processes of the job."""
        if self._layout.cluster != "local":
            return 0
        cores = available_threads() if self._needs.is_local else WORKERS
        return min(self._layout.workers or cores, self._batches(wildcards))

    def _memory_mb(self, wildcards: Any, attempt: int = 1) -> int:
        each = self._needs.memory_mb(wildcards.stage)(wildcards, attempt=attempt)
        return CONTROLLER_MB + self._workers(wildcards) * each

    def _minutes(self, wildcards: Any, attempt: int = 1) -> int:
        each = self._needs.minutes(wildcards.stage)(wildcards, attempt=attempt)
        workers = self._workers(wildcards) or self._layout.workers or WORKERS
        waits = 0 if self._layout.cluster == "local" else QUEUE_MINUTES
        return self._needs.capped(math.ceil(self._batches(wildcards) / workers) * each + waits)

    def _gpus(self, wildcards: Any) -> int:
        return self._workers(wildcards) if kind_of(wildcards.stage) in NETWORK else 0
