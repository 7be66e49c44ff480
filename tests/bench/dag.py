"""How long the workflow manager needs before the first job: python tests/bench/dag.py.

One image in many batches; no image is that large, so the numbers of jobs are set. Seconds of CPU:
the workflow manager plans in one thread, and other programs do not count. A dry run also writes a
few lines about each job, which a run does when it starts them.
"""

import resource
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.workflow import runs

WANTED = ((2_000, 10), (12_000, 30))
STAGES = ("predict", "masks", "paint")


def measured(folder, n_jobs):
    """Return how many jobs there are, and the seconds until that is known and of a dry run."""
    batches = dict.fromkeys(STAGES, n_jobs // 5)  # masks again as measure, paint as qc
    tiles = {"batches": batches}
    config = runs.experiment(folder / f"{n_jobs}.yaml", ["a.tif"], f"{n_jobs}", tiles=tiles)
    planned_s = cpu_s(lambda: runs.run(config, "--rulegraph", cwd=folder))
    found = {}
    listed_s = cpu_s(lambda: found.update(runs.planned(config, cwd=folder)))
    return sum(found.values()), planned_s, listed_s


def cpu_s(do):
    """Return the seconds of CPU of what a call starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    do()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main():
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs.picture(folder / "a.tif")
        for n_jobs, limit_s in WANTED:
            n, planned_s, listed_s = measured(folder, n_jobs)
            bad += planned_s > limit_s
            print(
                f"{n} jobs: {planned_s:.1f} s (to be below {limit_s} s); dry run {listed_s:.1f} s",
                flush=True,
            )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
