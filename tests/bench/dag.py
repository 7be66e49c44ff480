"""How long the workflow manager needs before the first job: python tests/bench/dag.py.

Dry runs of one image in many batches; no image is that large, so the numbers of jobs are set.
Seconds of CPU: the workflow manager plans in one thread, and other programs do not count.
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
    """Return the jobs that a dry run lists, and its seconds."""
    batches = dict.fromkeys(STAGES, n_jobs // 5)  # masks again as measure, paint as qc
    tiles = {"batches": batches}
    config = runs.experiment(folder / f"{n_jobs}.yaml", ["a.tif"], f"{n_jobs}", tiles=tiles)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = runs.planned(config, cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(found.values()), after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main():
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs.picture(folder / "a.tif")
        for n_jobs, limit_s in WANTED:
            n, seconds = measured(folder, n_jobs)
            bad += seconds > limit_s
            print(f"{n} jobs: {seconds:.1f} s (to be below {limit_s} s)", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
