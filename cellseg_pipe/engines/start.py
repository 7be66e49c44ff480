"""Starts a run with the engine that is asked for, and shows how far it is."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from cellseg_pipe.config import Experiment, load_experiment
from cellseg_pipe.engines.submit import VARIABLE, hand_over
from cellseg_pipe.machine import end_of_job
from cellseg_pipe.stages.status import read_status

__all__ = ["run"]

log = logging.getLogger(__name__)

PROFILE = Path("profiles") / "local"
EVERY_S = 3.0
HAND_OVER_S = 120.0  # before the end of a job that runs the workflow manager


def run(
    config: Path,
    *,
    engine: str | None = None,
    cores: int | None = None,
    profile: Path | None = None,
    dry_run: bool = False,
) -> int:
    """Run an experiment, or go on with it.

    Parameters
    ----------
    config : path
        The experiment file.
    engine : {"process", "snakemake", "dask"}, optional
        Instead of what the file says.
    cores : int, optional
        Cores to use.
    profile : path, optional
        Of Snakemake.
    dry_run : bool
        Only say what would run.

    Returns
    -------
    int
        Exit status.
    """
    experiment = load_experiment(config)
    chosen = engine or experiment.engine
    if chosen == "snakemake":
        # A file of engine dask has Snakemake start clusters, unless Snakemake alone is asked for.
        changes = ["engine=snakemake"] if engine and experiment.engine == "dask" else []
        return _snakemake(
            config, experiment, changes=changes, cores=cores, profile=profile, dry_run=dry_run
        )
    if profile is not None:
        raise ValueError("--profile is for Snakemake. Leave it out, or use --engine snakemake.")
    if dry_run:
        return _listed(experiment)
    with _interruptible(), _shown(Path(experiment.output.dir)):
        if chosen == "dask":
            from cellseg_pipe.engines import dask

            dask.run(experiment, cores=cores)
        else:
            from cellseg_pipe.engines import process

            process.run(experiment, threads=cores)
    return 0


def _listed(experiment: Experiment) -> int:
    from cellseg_pipe.stages.layout import lay_out, open_stages

    layout, _ = lay_out(experiment)
    for unit, stage, batches in open_stages(layout):
        for batch in batches:
            print(f"{unit} {stage.name} {batch}")  # noqa: T201
    return 0


def _snakemake(
    config: Path,
    experiment: Experiment,
    *,
    changes: list[str],
    cores: int | None,
    profile: Path | None,
    dry_run: bool,
) -> int:
    from cellseg_pipe.engines.snakemake import SNAKEFILE

    if not SNAKEFILE.exists():
        raise FileNotFoundError(
            f"the workflow needs {SNAKEFILE}, which a clone of the repository has and an installed"
            " package has not. Run it from a clone, or with --engine process."
        )
    targets = ["all"] if experiment.evaluate is None else ["all", "evaluate"]
    command = [sys.executable, "-m", "snakemake", *targets, "--snakefile", str(SNAKEFILE)]
    command += ["--profile", str(profile or SNAKEFILE.parent / PROFILE)]
    command += ["--configfile", str(config.resolve())]
    command += ["--config", *changes] if changes else []
    command += ["--quiet", "rules"]
    command += ["--cores", str(cores)] if cores else []
    if dry_run:
        return subprocess.run([*command, "--dry-run"], check=False).returncode
    return _watched(command, Path(experiment.output.dir))


def _watched(command: list[str], folder: Path) -> int:
    """Run the workflow manager until it ends, or until the time of its own job is nearly up."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    end = end_of_job() if VARIABLE in os.environ else None
    with _interruptible(), _shown(folder):
        # A group of its own: an interrupt reaches it once, from here, and it stops cleanly.
        child = subprocess.Popen(command, env=environment, start_new_session=True)
        while True:
            try:
                return child.wait(
                    None if end is None else max(0.0, end - HAND_OVER_S - time.time())
                )
            except subprocess.TimeoutExpired:
                # Killed, it leaves its jobs at work; interrupted, it would cancel them.
                child.kill()
                child.wait()
                hand_over(folder)
                return 0
            except KeyboardInterrupt:
                log.warning("stopping; what is done is kept, the same command goes on")
                child.send_signal(signal.SIGINT)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Stop cleanly when interrupted or terminated.

    Slurm terminates its jobs, and what a script starts in the background is deaf to interrupts.
    """
    before = {
        number: signal.signal(number, signal.default_int_handler)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _shown(folder: Path) -> Iterator[None]:
    """Show how far a run is: a line that changes, or on no terminal one a minute."""
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(folder, stop), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def _watch(folder: Path, stop: threading.Event) -> None:
    terminal, began, last = sys.stderr.isatty(), time.monotonic(), 0.0
    while not stop.wait(EVERY_S):
        with contextlib.suppress(FileNotFoundError):
            status = read_status(folder)
            busy = [s for s in status.stages if s.n_tiles and s.n_done < s.n_jobs]
            now = time.monotonic()
            left = (now - began) * (1 - status.share) / max(status.share, 1e-3)
            at = ", ".join(
                f"{s.unit} {s.stage} {s.n_tiles} tiles {s.per_s:.2g}/s" for s in busy[:3]
            )
            line = f"{status.share:4.0%}  {at or 'starting'}, about {left / 60:.0f} min left"
            if terminal:
                width = shutil.get_terminal_size().columns - 1
                sys.stderr.write(f"\r{line[:width]:{width}}")
                sys.stderr.flush()
            elif now - last > 60:
                log.info("%s", line)
                last = now
    if terminal:
        sys.stderr.write("\n")
