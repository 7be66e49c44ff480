"""Tiles without pixels: jobs that only keep their ledger, and some that fail or die at a tile."""

import os
import signal
import time
from functools import partial
from pathlib import Path

from cellseg_pipe.engines._dask_spread import Found
from cellseg_pipe.ledger import Sync, open_batch, tiles_found
from cellseg_pipe.paths import RunPaths

DIGEST = "0" * 12
SYNC = Sync(every_tiles=1000, every_s=60.0)


def stage_paths(root, stage):
    return RunPaths(Path(root)).unit("a").stage(stage, DIGEST)


def keys_of(batch, n_tiles):
    return range(batch * n_tiles, (batch + 1) * n_tiles)


def work(root, stage, batch, n_tiles, faults=()):
    """Do the tiles of a batch; the faults are pairs of a tile and what happens there."""
    faults = dict(faults)
    with open_batch(stage_paths(root, stage), batch, keys_of(batch, n_tiles), sync=SYNC) as found:
        if found.done:
            return
        for key in found.missing:
            match faults.get(key):
                case "raises":
                    raise ValueError(f"tile {key}: poisoned")
                case "dies":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "dies once":
                    die_once(Path(root) / f"died-{key}")
                case "waits":
                    wait_for(Path(root) / "go on", Path(root) / f"waits-{key}")
            found.add(key, b"%d" % key)
        found.finish()


def die_once(mark):
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def wait_for(file, mark):
    mark.write_text(str(os.getpid()))
    end = time.monotonic() + 120
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.02)


class Simulated:
    """Jobs as `Spread` takes them."""

    def __init__(self, root, *, n_tiles, faults=()):
        self.root, self.n_tiles, self.faults = root, n_tiles, tuple(faults)

    def call(self, todo):
        return partial(work, str(self.root), todo.stage, todo.batch, self.n_tiles, self.faults)

    def found(self, todo):
        return Found(*tiles_found(stage_paths(self.root, todo.stage), todo.batch))

    def keys(self, todo):
        return keys_of(todo.batch, self.n_tiles)
