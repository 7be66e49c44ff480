"""What an engine takes besides computing: python tests/bench/engines.py [--tiles N] [--batches N].

Tiles without pixels: each is kept in the ledger, and that is all.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from cellseg_pipe.config import experiment_of
from cellseg_pipe.engines._dask_needs import Needs
from cellseg_pipe.engines._dask_pool import open_pool
from cellseg_pipe.engines._dask_spread import Spread
from cellseg_pipe.engines._dask_steps import Steps
from cellseg_pipe.stages._run_layout import StageLayout
from tests.engines.simulated import DIGEST, Simulated, work

LIMIT_MS = 20
WORKERS = 2


def in_process(root, n_batches, n_tiles):
    """Seconds of one batch after the other in this process."""
    began = time.monotonic()
    for batch in range(n_batches):
        work(str(root), "masks", batch, n_tiles)
    return time.monotonic() - began


def in_dask(root, n_batches, n_tiles):
    """Seconds until there are workers, and of the batches on them."""
    said = {"images": [{"path": "a.tif"}], "output": {"dir": str(root)}}
    needs = Needs("local", WORKERS, 1, 2_000_000_000)
    began = time.monotonic()
    with open_pool(experiment_of(said), needs, name="bench") as pool:
        pool.client.wait_for_workers(WORKERS)
        ready = time.monotonic()
        todo = Steps([("a", StageLayout("masks", DIGEST, n_batches, ()), list(range(n_batches)))])
        failed = Spread(pool, Simulated(root, n_tiles=n_tiles)).all(todo)
        assert failed == {} and len(todo) == 0
        return ready - began, time.monotonic() - ready


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiles", type=int, default=10_000)
    parser.add_argument("--batches", type=int, default=100)
    said = parser.parse_args()
    n_tiles = said.tiles // said.batches
    with tempfile.TemporaryDirectory() as name:
        local = in_process(Path(name) / "process", said.batches, n_tiles)
        start, spread = in_dask(Path(name) / "dask", said.batches, n_tiles)
    each = {"process": local, "dask": spread, "dask with its start": start + spread}
    for engine, seconds in each.items():
        print(f"{engine}: {seconds:.1f} s, {1000 * seconds / said.tiles:.2f} ms per tile")
    return int(max(each.values()) * 1000 / said.tiles > LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())
