"""Looks at what spreads jobs: Slurm and what the site file says of it, Snakemake, dask."""

from __future__ import annotations

import getpass
import importlib.util
import socket
from collections.abc import Iterator

from cellseg_pipe.config import ConfigError
from cellseg_pipe.site import Site, load_site, site_file
from cellseg_pipe.stages._finding import Answer, Finding, asked, error, fine, warning

__all__ = ["look_at_cluster"]

SITE_MEND = "Correct the site file; docs/cluster.md lists its keys."


def look_at_cluster() -> Iterator[Finding]:
    """Yield what was found of the cluster that this machine belongs to, if to any.

    Yields
    ------
    Finding
        One at least of each thing.
    """
    site, found = _site()
    yield found
    yield from _slurm(site)
    yield _dask()


def _site() -> tuple[Site, Finding]:
    file = site_file()
    try:
        site = load_site()
    except (ConfigError, OSError) as fault:
        return Site(), error("site file", str(fault), SITE_MEND)
    if file is None:
        return site, fine("site file", "none, and none is needed on one machine")
    said = ", ".join(sorted(site.model_fields_set)) or "nothing"
    return site, fine("site file", f"{file} says {said}")


def _slurm(site: Site) -> Iterator[Finding]:
    partitions = asked("sinfo", "-h", "-o", "%R|%a|%l|%D|%G")
    if partitions is None:
        yield fine("slurm", "not on this machine; profiles/local runs here")
        return
    if not partitions.right:
        # Where nobody has written a site file, programs of Slurm may be there without a cluster.
        level = warning if site_file() is None else error
        mend = "Ask those who run the cluster, or use profiles/local."
        yield level("slurm", f"sinfo does not answer: {partitions.text}", mend)
        return
    known = [line.split("|") for line in partitions.lines if line.count("|") == 4]
    yield from _partitions(site, known)
    yield from _queue()
    yield from _accounts(site)


def _partitions(site: Site, known: list[list[str]]) -> Iterator[Finding]:
    """Compare partitions with those that the site file names."""
    up = {name: gres for name, state, _, _, gres in known if state == "up"}
    limits = {name: limit for name, _, limit, _, _ in known}
    if not up:
        yield error("partitions", "none is up", "Ask those who run the cluster.")
        return
    yield fine("partitions", ", ".join(f"{name} (up to {limits[name]})" for name in up))
    wanted = {"partition": site.partition}
    if site.gpu is not None:
        wanted["gpu.partition"] = site.gpu.partition
    for key, name in wanted.items():
        # Several may be named, separated by commas.
        for each in name.split(",") if name else ():
            if each not in up:
                yield error(key, f"{each} is no partition that is up", SITE_MEND)
    yield from _gpus(site, [name for name, gres in up.items() if "gpu" in gres])


def _gpus(site: Site, partitions: list[str]) -> Iterator[Finding]:
    if partitions:
        yield fine("gpus of slurm", f"in {', '.join(sorted(set(partitions)))}")
        if site.gpu is None:
            yield warning(
                "gpus of slurm",
                "no job will ask for one",
                "Add `gpu: {}` to the site file, or `gpu: {partition: NAME}`.",
            )
    elif site.gpu is not None:
        yield error("gpus of slurm", "the site file has gpu, no partition has one", SITE_MEND)


def _queue() -> Iterator[Finding]:
    queue = asked("squeue", "-h", "-u", getpass.getuser(), "-o", "%i")
    if queue is None or not queue.right:
        said = "is missing" if queue is None else f"does not answer: {queue.text}"
        yield error("squeue", said, "Jobs are followed by it: ask those who run the cluster.")
    else:
        yield fine("squeue", f"answers; {len(queue.lines)} jobs of yours are in the queue")
    history = asked("sacct", "-n", "-X", "-u", getpass.getuser(), "-o", "JobID")
    if history is None or not history.right:
        yield fine("sacct", "keeps no records; it is not needed")
    else:
        yield fine("sacct", "answers")


def _accounts(site: Site) -> Iterator[Finding]:
    said = asked("sacctmgr", "-n", "-P", "show", "assoc", f"user={getpass.getuser()}")
    accounts = _column(said)
    if not accounts:
        yield fine("accounts", "none are told")
        return
    yield fine("accounts", ", ".join(accounts))
    wanted = {"account": site.account, "gpu.account": site.gpu.account if site.gpu else None}
    for key, name in wanted.items():
        if name is not None and name not in accounts:
            yield error(key, f"{name} is no account of {getpass.getuser()}", SITE_MEND)


def _column(said: Answer | None) -> list[str]:
    """Return the accounts out of lines CLUSTER|ACCOUNT|USER|..."""
    lines = said.lines if said is not None and said.right else []
    return sorted({line.split("|")[1] for line in lines if line.count("|") >= 2} - {""})


def _dask() -> Finding:
    missing = [
        name
        for name in ("dask", "distributed", "dask_jobqueue")
        if not importlib.util.find_spec(name)
    ]
    if missing:
        mend = "pip install 'dask[distributed]' dask-jobqueue"
        return error("dask", f"{', '.join(missing)} cannot be found", mend)
    try:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
    except OSError as fault:
        mend = "Engine dask needs it: run with another engine."
        return warning("dask", f"no port of this machine can be opened: {fault}", mend)
    return fine("dask", "is there, and ports of this machine can be opened")
