"""How many workers there are, of how many threads and how much memory: arithmetic only."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from cellseg_pipe.config import Experiment
from cellseg_pipe.machine import available_bytes, available_threads
from cellseg_pipe.site import load_site

__all__ = ["Needs", "needs_of"]

LEAST_BYTES = 1_500_000_000  # Python with its libraries, and what a network keeps
BESIDE_BYTES = 500_000_000
SLURM_THREADS = 4  # of a worker, where the experiment does not tell


@dataclass(frozen=True)
class Needs:
    """What a cluster is made of.

    Parameters
    ----------
    cluster : str
        "local", "slurm" or the address of a scheduler.
    workers : int
        Processes that work.
    threads : int
        Of each.
    memory_bytes : int
        Of each.
    on_gpu : bool
        Whether each has a GPU of its own.
    """

    cluster: str
    workers: int
    threads: int
    memory_bytes: int
    on_gpu: bool = False

    def threads_for(self, n_jobs: int) -> int:
        """Return the threads of a job of a stage: where there are few, one has those of several.

        Parameters
        ----------
        n_jobs : int
            Of the stage.

        Returns
        -------
        int
            One at least.
        """
        if self.cluster != "local":
            return self.threads
        return max(self.threads, self.workers * self.threads // max(1, n_jobs))


def needs_of(
    experiment: Experiment,
    *,
    n_jobs: int,
    cores: int | None,
    memory_bytes: int = 0,
    network: bool = True,
) -> Needs:
    """Return what cluster an experiment asks for.

    Parameters
    ----------
    experiment : Experiment
        What is done.
    n_jobs : int
        That could run side by side.
    cores : int or None
        Of this machine; None for all that this process may use.
    memory_bytes : int
        Of a job, where that is known; else what the experiment lets a job take.
    network : bool
        Whether one of the jobs runs the network.

    Returns
    -------
    Needs
        No more workers than jobs.
    """
    said, resources = experiment.dask, experiment.resources
    threads = 0 if resources.threads == "auto" else resources.threads
    limit = 0 if resources.memory_gb == "auto" else round(resources.memory_gb * 1e9)
    memory = max(LEAST_BYTES, memory_bytes or limit) + BESIDE_BYTES
    if said.cluster != "local":
        workers = n_jobs if said.workers == "auto" else min(n_jobs, said.workers)
        on_gpu = network and _asks_for_gpu(resources.device)
        return Needs(said.cluster, workers, threads or SLURM_THREADS, memory, on_gpu)
    cores = cores or available_threads()
    gpus = _gpus(resources.device) if network else 0
    if said.workers != "auto":
        most = said.workers
    else:
        fit = (available_bytes() or math.inf) // memory
        most = int(max(1, min(cores // max(1, threads), fit)))
    workers = max(1, min(most, n_jobs, gpus or most))
    found = Needs("local", workers, threads or max(1, cores // workers), memory, gpus > 0)
    # Nothing was said and nothing is known: a worker may take its share of the machine.
    share = (available_bytes() or 0) // workers
    return replace(found, memory_bytes=max(memory, share)) if not (memory_bytes or limit) else found


def _asks_for_gpu(device: str) -> bool:
    """Tell whether workers on other machines are to have GPUs."""
    return device == "cuda" or (device == "auto" and load_site().gpu is not None)


def _gpus(device: str) -> int:
    """Return the GPUs of this machine that the network may use."""
    if device == "cpu":
        return 0
    import torch  # here: it takes seconds, and is not needed where there is no question

    return torch.cuda.device_count()
