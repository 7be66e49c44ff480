"""What a batch takes on Slurm besides computing: python tests/bench/slurm.py [--arrays].

Batches of an image so small that nearly all of a job is its start: Slurm's, that of the workflow
manager in the job, and that of Python. Two nodes of one core each, as two are here. Needs root.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.slurm import runs as on_slurm
from tests.slurm.cluster import Cluster
from tests.workflow import runs

LIMIT_S = 15


def elapsed_s(job):
    """Return how long Slurm says that a job ran."""
    began, ended = (datetime.fromisoformat(job[name]) for name in ("StartTime", "EndTime"))
    return (ended - began).total_seconds()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--arrays", action="store_true", help="submit job arrays")
    options = parser.parse_args()
    arrays = ["--slurm-array-jobs", "predict,masks,paint,measure,qc"] if options.arrays else []
    batches = dict.fromkeys(("predict", "masks", "paint"), options.batches)
    with tempfile.TemporaryDirectory() as name, Cluster(cpus=1) as cluster:
        os.environ.update({key: cluster.environment[key] for key in ("SLURM_CONF", "PATH")})
        folder = Path(name)
        image = runs.picture(folder / "a.tif")
        config = runs.experiment(folder / "my.yaml", [image], "out", tiles={"batches": batches})
        began = time.monotonic()
        on_slurm.run(config, *arrays, cwd=folder)
        took_s = time.monotonic() - began
        jobs = on_slurm.jobs_of(cluster, folder)
    of_stage = {}
    for job in jobs:
        of_stage.setdefault(on_slurm.rule_of(job), []).append(elapsed_s(job))
    for stage, seconds in of_stage.items():
        print(f"{stage:10} {len(seconds):3} jobs, {statistics.median(seconds):5.1f} s each")
    each_s = statistics.mean(s for seconds in of_stage.values() for s in seconds)
    print(f"{len(jobs)} jobs in {took_s:.0f} s, {each_s:.1f} s each (to be below {LIMIT_S})")
    return int(each_s > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
