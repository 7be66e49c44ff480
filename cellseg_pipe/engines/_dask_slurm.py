"""Workers of dask in jobs of Slurm, and new ones for those that are cancelled or lost."""

from __future__ import annotations

import logging
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellseg_pipe.config import Experiment
from cellseg_pipe.engines._dask_needs import Needs
from cellseg_pipe.paths import RunPaths
from cellseg_pipe.site import Site, load_site

if TYPE_CHECKING:
    from distributed import Security

__all__ = ["slurm_cluster", "watch_slurm"]

log = logging.getLogger(__name__)

WALLTIME_MINUTES = 240
STOP_MINUTES, STAGGER_MINUTES = 4, 2  # before the wall-time, not all at once
DEATH_TIMEOUT_S = 120  # what a worker waits for a scheduler that is gone
FUTILE = 5  # jobs in a row that ended before their worker had begun
PLAIN = re.compile(r"[\w./+~-]+")
ENVIRONMENT = (
    # As in `_dask_pool.SETTINGS`, which jobs do not inherit.
    "export DASK_DISTRIBUTED__WORKER__MEMORY__TARGET=False",
    "export DASK_DISTRIBUTED__WORKER__MEMORY__SPILL=False",
    "export DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE=False",
)


def slurm_cluster(experiment: Experiment, needs: Needs, *, security: Security) -> Any:
    """Return a cluster each of whose workers is a job of Slurm.

    Parameters
    ----------
    experiment : Experiment
        What is done.
    needs : Needs
        How many workers, of which size.
    security : Security
        Whose files all machines read.

    Returns
    -------
    SLURMCluster
        Whose jobs `watch_slurm` submits.
    """
    from dask_jobqueue import SLURMCluster

    said, paths = experiment.dask, RunPaths(Path(experiment.output.dir))
    if not PLAIN.fullmatch(str(paths.root)):
        raise ValueError(
            f"dask.cluster: slurm needs an output.dir of letters, digits and . _ + - ~ /, got"
            f" {str(paths.root)!r}: job scripts take no others. Choose another folder."
        )
    site = load_site()
    on = site.gpu if needs.on_gpu and site.gpu else site
    auto = said.walltime_minutes == "auto"
    minutes = site.walltime_minutes or WALLTIME_MINUTES if auto else int(said.walltime_minutes)
    lifetime = [
        *("--lifetime", f"{max(1, minutes - STOP_MINUTES - STAGGER_MINUTES)}m"),
        *("--lifetime-stagger", f"{min(STAGGER_MINUTES, minutes // 10)}m"),
    ]
    return SLURMCluster(
        cores=needs.threads,
        processes=1,
        memory=f"{needs.memory_bytes}B",
        job_name=f"cellseg-{paths.root.name}"[:60],
        queue=said.partition or on.partition or site.partition,
        account=said.account or on.account or site.account,
        walltime=f"{minutes // 60:02d}:{minutes % 60:02d}:00",
        interface=said.interface,
        security=security,
        nanny=True,
        death_timeout=DEATH_TIMEOUT_S,
        local_directory='"${TMPDIR:-/tmp}"',
        log_directory=str(paths.logs / "dask"),
        job_script_prologue=[*ENVIRONMENT, f"export OMP_NUM_THREADS={needs.threads}"],
        job_extra_directives=_directives(site, needs),
        worker_extra_args=["--no-dashboard", *lifetime, "--nthreads", "1"],
        scheduler_options={"dashboard": said.dashboard, "dashboard_address": "127.0.0.1:0"},
        silence_logs="error",
    )


def _directives(site: Site, needs: Needs) -> list[str]:
    """Return further options of sbatch."""
    gpu = site.gpu if needs.on_gpu else None
    model = gpu.model if gpu else None
    qos, extra = (gpu and gpu.qos) or site.qos, (gpu and gpu.extra) or site.extra
    found = [f"--gpus={model}:1" if model else "--gpus=1"] if needs.on_gpu else []
    return [*found, *([f"--qos={qos}"] if qos else []), *(shlex.split(extra) if extra else [])]


def watch_slurm(cluster: Any, needs: Needs) -> Callable[[int], None]:
    """Return what has as many workers in the queue or at work as there are jobs for them.

    Parameters
    ----------
    cluster : SLURMCluster
        Of `slurm_cluster`.
    needs : Needs
        How many workers at most.

    Returns
    -------
    callable
        To be called now and then with the number of open jobs. dask itself replaces no job that
        was cancelled or has failed.
    """
    begun: set[str] = set()
    futile: set[str] = set()

    def watch(n_open: int) -> None:
        known = {worker["name"] for worker in cluster.scheduler_info["workers"].values()}
        submitted = [(name, job.job_id) for name, job in list(cluster.workers.items())]
        queue = _queue()  # asked after that: who was submitted and is not in it has ended
        for name, job in submitted:
            if name in known:
                begun.add(job)
                futile.clear()
            elif queue is not None and job not in queue:
                log.warning("job %s of Slurm has ended; another one takes its place", job)
                futile.update({job} - begun)
                cluster.workers.pop(name, None)
        if len(futile) >= FUTILE * needs.workers:
            raise OSError(
                f"{len(futile)} jobs of Slurm in a row ended before their worker had begun. Their"
                f" logs are in {cluster._dummy_job.log_directory}."
            )
        cluster.scale(jobs=max(len(cluster.worker_spec), min(needs.workers, n_open)))

    return watch


def _queue() -> set[str] | None:
    """Return the jobs of this user that wait or run; None where Slurm does not answer."""
    command = ["squeue", "--noheader", "--me", "--format", "%i"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        log.warning("squeue: %s", done.stderr.strip())
        return None
    return set(done.stdout.split())
