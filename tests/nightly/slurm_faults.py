"""Faults of chance on a real Slurm: python tests/nightly/slurm_faults.py [--faults 20] [--seed 0].

Each run meets one fault at a moment of chance, is started again until it ends well, and must give
labels and tables of a run that nobody disturbed, byte for byte. Exits 1 if not. Needs root.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import yaml

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.slurm import runs as on_slurm
from tests.slurm.cluster import Cluster, in_environment, kill
from tests.workflow import runs

PATIENCE_S = 1200
BATCHES = {"predict": 3, "masks": 3, "paint": 1}
STAGES = ("plan", "predict", "masks", "paint", "measure", "audit")
WORK = (" job ", "snakemake", "dask")  # in the command lines of what jobs run
STARVED_MB = 150  # less than any job takes
DASK = {
    "engine": "dask",
    "dask": {"cluster": "slurm", "workers": 2},
    "resources": {"threads": 1, "device": "cpu", "memory_gb": 2.5},
}


def programs(cluster, number):
    """Return the processes of a job that do its work: of ours, and what started them."""
    mine = [p for p in cluster.processes() if in_environment(p, SLURM_JOB_ID=str(number))]
    return [p for p in mine if any(word in " ".join(command_of(p)) for word in WORK)]


def command_of(process):
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def scancel_running(cluster, job, _start):
    cluster.ask("scancel", job["JobId"], check=False)


def scancel_all(cluster, _job, _start):
    for job in cluster.jobs("PENDING", "RUNNING"):
        cluster.ask("scancel", job["JobId"], check=False)


def kill_processes(cluster, job, _start):
    kill(programs(cluster, job["JobId"]))


def kill_controller(_cluster, _job, start):
    """Kill what a user has started: Snakemake, or dask's scheduler."""
    start.kill()


def kill_daemon(cluster, job, _start):
    node = job["NodeList"]
    cluster.kill_node(node)
    time.sleep(2)
    cluster.start_node(node)


def crash_node(cluster, job, _start):
    node = job["NodeList"]
    cluster.crash_node(node)
    cluster.wait_until(lambda: cluster.job(job["JobId"])["JobState"] != "RUNNING")
    cluster.start_node(node)


def restart_controller(cluster, _job, _start):
    cluster.stop_controller()
    time.sleep(2)
    cluster.start_controller()


def end_time(cluster, job, _start):
    """SIGTERM to all of a job, and SIGKILL some seconds later: what a wall-time is."""
    cluster.ask("scancel", "--signal=TERM", job["JobId"], check=False)
    time.sleep(3)
    cluster.ask("scancel", "--signal=KILL", job["JobId"], check=False)


def hit_time_limit(cluster, job, _start):
    """Have Slurm itself end a job whose time is over."""
    cluster.ask("scontrol", "update", f"JobId={job['JobId']}", "EndTime=now+1", check=False)
    ended(cluster, job)


def exceed_memory(cluster, job, _start):
    """Wait until a job is killed that was given too little."""
    ended(cluster, job)


def ended(cluster, job):
    cluster.wait_until(lambda: cluster.job(job["JobId"])["JobState"] != "RUNNING")


FAULTS = tuple(
    ("snakemake", fault)
    for fault in (
        *(scancel_running, scancel_all, kill_processes, kill_controller, kill_daemon, crash_node),
        *(restart_controller, end_time, hit_time_limit, exceed_memory),
    )
) + tuple(("dask", fault) for fault in (scancel_running, kill_processes, kill_controller))


def begin(config, folder, *, engine, starved=None):
    """Start a run, with too little memory for the jobs of a stage if one is named."""
    command = [sys.executable, "-m", "cellseg_pipe.cli", "run", str(config)]
    if engine == "snakemake":
        command = on_slurm.command(config, folder)
    if starved is not None:
        command += ["--set-resources", f"{starved}:mem_mb={STARVED_MB}"]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=runs.environment() | {"CELLSEG_ORPHANS": "wait"},
        stdout=(folder / "said.txt").open("a"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def disturbed(cluster, config, folder, *, fault, stage, delay_s):
    """Run until it is done, with a fault some time after the first job of a stage has begun."""
    engine, strike = fault
    struck, starts, began = "", 1, time.monotonic()
    start = begin(config, folder, engine=engine, starved=stage if strike is exceed_memory else None)
    while time.monotonic() - began < PATIENCE_S:
        if not struck:
            jobs = [
                job
                for job in on_slurm.jobs_of(cluster, folder)
                if job["JobState"] == "RUNNING"
                and (engine == "dask" or on_slurm.rule_of(job) == stage)
            ]
            if jobs:
                time.sleep(delay_s)
                if start.poll() is None:  # a small run may be done by then
                    strike(cluster, jobs[0], start)
                    struck = jobs[0]["JobId"]
        if start.poll() == 0:
            return struck, starts, time.monotonic() - began
        if start.poll() is not None:
            starts += 1
            start = begin(config, folder, engine=engine)
        time.sleep(0.2)
    start.kill()
    raise TimeoutError(f"not done after {starts} starts: {(folder / 'said.txt').read_text()}")


def experiment(image, folder, *, engine):
    """Write an experiment file."""
    config = runs.experiment(folder / "my.yaml", [image], "out", tiles={"batches": BATCHES})
    said = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump(said | (DASK if engine == "dask" else {})))
    return config


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engines", nargs="+", default=["snakemake", "dask"])
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name, Cluster() as cluster:
        os.environ.update({key: cluster.environment[key] for key in ("SLURM_CONF", "PATH")})
        folder = Path(name)
        (folder / "site.yaml").write_text("partition: cpu\nwalltime_minutes: 60\n")
        os.environ["CELLSEG_SITE"] = str(folder / "site.yaml")
        image = runs.picture(folder / "a.tif")
        calm = runs.experiment(folder / "calm.yaml", [image], "calm", tiles={"batches": BATCHES})
        runs.run(calm, cwd=folder)
        expected = runs.results(folder / "calm")
        bad, met = 0, Counter()
        faults = [fault for fault in FAULTS if fault[0] in options.engines]
        for number in range(options.faults):
            fault, stage = faults[number % len(faults)], chance.choice(STAGES)
            engine, strike = fault
            where = folder / f"run{number}"
            where.mkdir()
            config = experiment(image, where, engine=engine)
            delay_s = chance.uniform(0, 10 if engine == "dask" else 3)
            struck, starts, took_s = disturbed(
                cluster, config, where, fault=fault, stage=stage, delay_s=delay_s
            )
            same = runs.results(where / "out") == expected
            bad += not same
            met[strike.__name__] += bool(struck)
            moment = f"in {stage:8}" if engine == "snakemake" else "of dask    "
            print(
                f"{number + 1:3} {strike.__name__:18} {moment} after {delay_s:4.1f} s:"
                f" {starts} starts, {took_s:.0f} s, {'identical' if same else 'DIFFERENT'}"
                f"{'' if struck else ', too late'}",
                flush=True,
            )
            cluster.clear()
    print(f"{options.faults} faults, {sum(met.values())} met a job, {bad} results differ")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
