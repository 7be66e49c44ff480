"""Runs on the Slurm of the tests, as a user starts them."""

import contextlib
import subprocess

import yaml

from cellseg_pipe.cli import main
from tests.workflow import runs

PATIENCE_S = 900  # where many tests share two cores
QUICK = {"slurm-init-seconds-before-status-checks": 2, "latency-wait": 10}


def profile(folder):
    """Write the profile with less patience than on a real cluster needs."""
    said = yaml.safe_load((runs.CLONE / "profiles" / "slurm" / "config.yaml").read_text())
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(said | QUICK))
    return folder


def command(config, folder, *options):
    """What a user types."""
    words = runs.command("--configfile", config, *options)
    words[words.index("--profile") + 1] = str(profile(folder / "profile"))
    del words[words.index("--cores") : words.index("--cores") + 2]
    return words


@contextlib.contextmanager
def started(config, *options, cwd, **variables):
    """Start a run that goes on beside the test; what it says lies in `cwd/said.txt`."""
    with (cwd / "said.txt").open("w") as said:
        process = subprocess.Popen(
            command(config, cwd, *options),
            cwd=cwd,
            env=runs.environment() | variables,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def finish(process, cwd):
    """Wait for a run that must succeed; return what it said."""
    status, said = process.wait(PATIENCE_S), (cwd / "said.txt").read_text()
    assert status == 0, said
    return said


def run(config, *options, cwd, **variables):
    """Start, wait, and have it finished."""
    with started(config, *options, cwd=cwd, **variables) as process:
        return finish(process, cwd)


def cellseg(*words):
    """Run a command of ours here."""
    return main([str(word) for word in words])


def rule_of(job):
    """Return the rule of a job of Slurm."""
    return job.get("Comment", "").removeprefix("rule_").split("_")[0]


def jobs_of(cluster, folder):
    """Return the jobs whose logs lie in a folder: Slurm knows those of earlier tests, too."""
    return [job for job in cluster.jobs() if job["StdOut"].startswith(f"{folder}/")]


def wait_for(cluster, rule, state, process):
    """Wait until a job of a rule is in a state; return it."""

    def found():
        assert process.poll() is None
        jobs = [job for job in cluster.jobs() if rule_of(job) == rule and job["JobState"] == state]
        return jobs and jobs[0]

    return cluster.wait_until(found, PATIENCE_S)
