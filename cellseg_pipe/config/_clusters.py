"""What does not fit together in where the engine dask has its workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cellseg_pipe.config._problems import Key, Problem
from cellseg_pipe.config._sections import Dask

if TYPE_CHECKING:
    from cellseg_pipe.config.experiment import Experiment

__all__ = ["cluster_problems"]

OF_SLURM = ("partition", "account", "walltime_minutes", "interface")
OF_OURS = ("workers", "dashboard")
CLUSTER: tuple[Key, ...] = (("dask", "cluster"),)


def cluster_problems(experiment: Experiment) -> Iterator[Problem]:
    """Yield what is wrong with keys that suit another kind of cluster.

    Parameters
    ----------
    experiment : Experiment
        Each key of it right by itself.

    Yields
    ------
    Problem
        In no order.
    """
    said = experiment.dask
    given = [key for key in said.model_fields_set if getattr(said, key) != getattr(Dask(), key)]
    if said.cluster != "slurm":
        for key in set(OF_SLURM) & set(given):
            text = f"needs cluster: slurm, got cluster: {said.cluster}. Leave it out."
            yield Problem(("dask", key), text, CLUSTER)
        if said.cluster != "local":
            for key in set(OF_OURS) & set(given):
                text = f"has no effect: {said.cluster} has workers and a page of its own."
                yield Problem(("dask", key), text, CLUSTER)
        return
    if said.workers == "auto":
        text = "needs a number with cluster: slurm, got auto: how many jobs of Slurm at a time."
        yield Problem(("dask", "workers"), text, CLUSTER)
    if experiment.resources.memory_gb == "auto":
        text = "needs a number with dask.cluster: slurm, got auto: it is asked of Slurm."
        yield Problem(("resources", "memory_gb"), text, CLUSTER)
