"""Runs at full size, by hand before a release: bounds on memory, and figures for the docs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

EVALUATE = """
import json, resource, time
import numpy as np
import cellseg_pipe as cs

edge, pitch = 16_000, 16
rows, columns = np.arange(edge, dtype=np.uint32)[:, None], np.arange(edge, dtype=np.uint32)
truth = rows // pitch * (edge // pitch) + columns // pitch + 1
truth[(rows % pitch == 0) | (columns % pitch == 0)] = 0
pred = np.roll(truth, 2, axis=1)
start = time.perf_counter()
scores = cs.evaluate(pred, truth)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"n": scores.n_true, "ap": scores.ap[0.5], "seconds": seconds, "peak": peak}))
"""

LINKS = """
import json, resource, time
import numpy as np
from cellseg_pipe.kernels import union_find

n = 20_000_000
rng = np.random.default_rng(0)
left = rng.integers(0, n - 1, n // 5, dtype=np.uint32)
start = time.perf_counter()
component = union_find(n, left, left + np.uint32(1))
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
joined = n - len(np.unique(left))
n_components = int(np.count_nonzero(component == np.arange(n)))
print(json.dumps({"n": n_components, "expected": joined, "seconds": seconds, "peak": peak}))
"""


def run(code):
    command = [sys.executable, "-c", code]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    print(report)
    return report


@pytest.mark.slow
def test_a_million_objects_are_scored_within_4_gb():
    report = run(EVALUATE)
    assert report["n"] == 10**6 and report["ap"] == 1
    assert report["peak"] < 4e9


@pytest.mark.slow
def test_twenty_million_cells_are_linked_within_1_gb():
    report = run(LINKS)
    assert report["n"] == report["expected"] and report["peak"] < 1e9
