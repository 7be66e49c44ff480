"""Clusters of dask and their workers: on this machine, in jobs of Slurm, or somebody else's."""

from __future__ import annotations

import contextlib
import getpass
import json
import logging
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from cellseg_pipe.config import Experiment
from cellseg_pipe.engines._dask_needs import Needs
from cellseg_pipe.engines._dask_tls import credentials
from cellseg_pipe.ledger import write_whole
from cellseg_pipe.paths import RunPaths

if TYPE_CHECKING:
    from distributed import Client, Security

__all__ = ["Pool", "open_pool"]

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
CONNECT_S = 30
SETTINGS = {
    # A job whose worker died comes back at once: whether it is tried again is decided here.
    "distributed.scheduler.allowed-failures": 0,
    # Workers keep no results: nothing can be spilled, and one that pauses would pause for ever.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "critical",
}


@dataclass(frozen=True)
class Pool:
    """Workers that take jobs.

    Parameters
    ----------
    client : Client
        Gives them out.
    needs : Needs
        What the workers are.
    watch : callable
        To be called now and then with the number of open jobs: replaces workers that were lost.
    """

    client: Client
    needs: Needs
    watch: Callable[[int], None]


@contextlib.contextmanager
def open_pool(experiment: Experiment, needs: Needs, *, name: str) -> Iterator[Pool]:
    """Have workers for a while.

    Parameters
    ----------
    experiment : Experiment
        What is done.
    needs : Needs
        How many workers, of which size.
    name : str
        Of what says where the work is shown, see `RunPaths.dashboards`.

    Yields
    ------
    Pool
        Whose workers come as they start.
    """
    import dask
    import distributed  # noqa: F401  # sets how much it says, which is changed below

    paths = RunPaths(Path(experiment.output.dir))
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(SETTINGS))
        stack.enter_context(_quiet())
        if needs.cluster not in ("local", "slurm"):
            yield _connected(stack, needs)
            return
        security = stack.enter_context(credentials(paths.caches))
        if needs.cluster == "local":
            cluster = _local(needs, security, shows=experiment.dask.dashboard)
            watch = _watch_local(cluster)
        else:
            from cellseg_pipe.engines._dask_slurm import slurm_cluster, watch_slurm

            cluster = slurm_cluster(experiment, needs, security=security)
            watch = watch_slurm(cluster, needs)
        stack.enter_context(cluster)
        client = _client(stack, cluster)
        if experiment.dask.dashboard:
            stack.enter_context(_shown(cluster.dashboard_link, paths.dashboards / f"{name}.json"))
        yield Pool(client, needs, watch)


def _watch_local(cluster: Any) -> Callable[[int], None]:
    """Return what has new nannies: one whose worker died as it began does not start it again."""

    def watch(_n_open: int) -> None:
        cluster.scale(len(cluster.worker_spec))

    return watch


def _nothing_to_watch(_n_open: int) -> None:
    pass


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what dask says of workers that come and go, and of jobs that fail."""
    said = logging.getLogger("distributed")
    before = said.level
    said.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        said.setLevel(before)


def _local(needs: Needs, security: Security, *, shows: bool) -> Any:
    """Return a cluster of processes, each of which a nanny starts again when it dies."""
    from distributed import Nanny, Scheduler, SpecCluster

    common = {"host": LOOPBACK, "protocol": "tls://", "security": security}
    scheduler = {"dashboard": shows, "dashboard_address": f"{LOOPBACK}:0"}
    nanny = {"nthreads": 1, "memory_limit": needs.memory_bytes, "dashboard": False}
    workers = {
        number: {
            "cls": Nanny,
            "options": {**common, **nanny, "env": _environment(number, needs)},
        }
        for number in range(needs.workers)
    }
    return SpecCluster(
        workers=workers,
        scheduler={"cls": Scheduler, "options": {**common, "port": 0, **scheduler}},
        security=security,
        silence_logs=logging.ERROR,
    )


def _environment(number: int, needs: Needs) -> dict[str, str]:
    """Return what a worker is told: its GPU."""
    return {"CUDA_VISIBLE_DEVICES": str(number)} if needs.on_gpu else {}


def _client(stack: contextlib.ExitStack, cluster: Any) -> Client:
    from distributed import Client

    return stack.enter_context(Client(cluster, set_as_default=False))


def _connected(stack: contextlib.ExitStack, needs: Needs) -> Pool:
    """Return the workers of a scheduler that runs already."""
    from distributed import Client

    place = urlparse(needs.cluster)
    if place.scheme == "tcp" and place.hostname not in (LOOPBACK, "localhost"):
        log.warning(
            "%s is not encrypted: whoever reaches it can run programs as you. tls:// with"
            " distributed.comm.tls of dask's configuration mends that.",
            needs.cluster,
        )
    try:
        client = Client(needs.cluster, timeout=CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise OSError(
            f"dask.cluster needs a scheduler at {needs.cluster}, and none answers ({error}). Start"
            " one (dask scheduler), or set cluster to local or slurm."
        ) from None
    log.info("dashboard of %s: %s", needs.cluster, client.dashboard_link)
    return Pool(stack.enter_context(client), needs, _nothing_to_watch)


@contextlib.contextmanager
def _shown(link: str, file: Path) -> Iterator[None]:
    """Say where the work is shown, and how to see it from elsewhere."""
    port = urlparse(link).port
    address = f"http://{LOOPBACK}:{port}/status"  # the link names the scheduler's network
    where = f"{getpass.getuser()}@{socket.gethostname()}"
    tunnel = f"ssh -N -L {port}:{LOOPBACK}:{port} {where}"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps({"address": address, "tunnel": tunnel}, indent=1).encode())
    log.info("dashboard: %s (from another machine first: %s)", address, tunnel)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
