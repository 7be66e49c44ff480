"""Killed anywhere, refused, out of room: nothing is lost, and nothing half calls itself whole."""

import contextlib
import errno
import os
import re
import signal
import time
from collections import Counter

import pytest

from cellseg_pipe.io import files
from cellseg_pipe.ledger import (
    CRASH_SITES,
    Records,
    RunLock,
    _files,
    open_batch,
    passing_over,
    tiles_found,
)
from cellseg_pipe.paths import RunPaths
from cellseg_pipe.stages import audit
from cellseg_pipe.stages._past_failures import past_failures
from cellseg_pipe.stages.jobs import jobs_of, run_job
from cellseg_pipe.stages.keys import keys_of
from cellseg_pipe.stages.opened import unit_runs
from tests.pipeline import worker
from tests.pipeline.conftest import scene
from tests.pipeline.worker import (
    compare,
    config_of,
    experiment,
    killed_run,
    ome_zarr,
    published,
    results_of,
    run,
    save_tiff,
    segment,
)

TILES = {"window_px": 64, "overlap_px": 16, "batches": {"predict": 2, "masks": 2, "paint": 2}}
SAID = {"reach_px": 12}
SHAPE = (60, 90)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    return save_tiff(tmp_path_factory.mktemp("picture") / "a.tif", scene(SHAPE)[0])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, picture):
    """Checksums of the results of a run that nobody disturbed."""
    with worker.small_tiles():
        folder = tmp_path_factory.mktemp("undisturbed")
        run(experiment(folder, [picture], segment=SAID, tiles=TILES))
        return results_of(folder / "out" / "a")


class Lives:
    """One run after another in one folder, each in a process of its own that is killed."""

    def __init__(self, folder, picture, expected):
        self.folder, self.picture, self.expected = folder, picture, expected
        self.n_runs = self.n_killed = 0
        self.begin()

    def begin(self):
        """Go on in a new folder."""
        self.root = self.folder / str(self.n_runs)
        self.root.mkdir()
        self.n_runs, self.n_killed = self.n_runs + 1, 0
        chosen = experiment(self.root, [self.picture], segment=SAID, tiles=TILES)
        self.config = config_of(chosen, self.root / "a.yaml")

    def live(self, crash="", patch=None):
        """Return whether this life ended before the run was done."""
        log = str(self.root / "computed")
        if killed := killed_run(self.config, crash, patch, log):
            self.n_killed += 1
            summary = self.root / "out" / "summary.json"
            assert not summary.exists() or (self.root / "out" / "a" / "cells.parquet").exists()
            return killed
        self.check()
        return killed

    def check(self):
        """Results are as if nothing had happened; no tile was made twice but those in flight."""
        assert results_of(self.root / "out" / "a") == self.expected
        computed = Counter((self.root / "computed").read_text().splitlines())
        assert len(computed) > 15
        assert sum(computed.values()) - len(computed) <= self.n_killed


def test_killed_at_each_step_of_the_protocol(tmp_path, picture, undisturbed):
    lives = Lives(tmp_path, picture, undisturbed)
    for number, site in enumerate(CRASH_SITES):
        if not lives.live(f"{site}:{1 + number % 4}"):
            lives.begin()
            assert lives.live(f"{site}:1"), site
    assert not lives.live()


def test_killed_where_a_stage_of_one_tile_has_it(tmp_path, picture):
    """The only tile is in the ledger, and the job did not come to say that it is done."""
    chosen = experiment(tmp_path, [picture], segment=SAID, tiles=TILES)
    (unit,) = unit_runs(chosen)
    for job in jobs_of(unit):
        if job.stage in ("plan", "predict", "tiles", "masks"):
            run_job(unit, job.stage, batch=job.batch)
    run_job(unit, "number", batch=0)
    done = unit.stage("number").done(0)
    before = Records(unit.stage("number"), 1).read(0)
    done.unlink()
    run_job(unit, "number", batch=0)
    assert done.exists()
    assert Records(unit.stage("number"), 1).read(0) == before


def die_before_job(number):
    """Kill the process when its n-th job begins."""
    from cellseg_pipe.engines import process

    real, passed = process.run_job, iter(range(number))

    def run_job(*args, **settings):
        if next(passed, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        real(*args, **settings)

    process.run_job = run_job


def die_after(name):
    """Kill the process when a step of the audit is done."""
    real = getattr(audit, name)

    def step(*args, **settings):
        real(*args, **settings)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(audit, name, step)


def test_killed_between_stages_and_between_steps_of_publishing(tmp_path, picture, undisturbed):
    lives = Lives(tmp_path, picture, undisturbed)
    n_lives = 0
    while lives.live(patch=(die_before_job, 2)) and n_lives < 30:
        n_lives += 1
    assert 3 < n_lives < 30
    lives.begin()
    for step in (
        *("check_stored", "withdraw", "publish", "write_tables", "replace"),
        *("write_table", "publish_results"),
    ):
        assert lives.live(patch=(die_after, step)), step
        assert not (lives.root / "out" / "summary.json").exists()
    assert not lives.live()


def hold(root, taken):
    """Hold the lock of a run."""
    with RunLock(RunPaths(root).run_lock, job="the other"):
        taken.set()
        time.sleep(60)


def test_two_runs_in_one_folder_refuse_each_other(tmp_path, picture):
    chosen = experiment(tmp_path, [picture], segment=SAID, tiles=TILES)
    taken = worker.context().Event()
    other = worker.context().Process(target=hold, args=(tmp_path / "out", taken))
    other.start()
    assert taken.wait(60)
    with pytest.raises(ValueError, match=rf"in use by process {other.pid} on .* \(the other\)"):
        run(chosen)
    assert not list((tmp_path / "out" / "runs").glob("a"))
    other.kill()
    other.join()
    run(chosen)  # who died is followed at once
    assert (tmp_path / "out" / "summary.json").exists()


def full(fails):
    """A write that finds the disk full where `fails` says so."""
    real = os.write

    def write(handle, content):
        if fails(os.readlink(f"/proc/self/fd/{handle}")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle, content)

    return write


def full_whole(fails):
    real = files.binary_whole

    def binary_whole(path):
        if fails(str(path)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path)

    return binary_whole


FULL = {
    "plan": ("/plan-", "plan.json"),
    "window": ("/predict-", "predict"),
    "tile": ("/masks-", "masks"),
    "numbers": ("/number-", "number"),
    "labels": ("labels.ome.zarr/0/", r"labels of box \d+, Box"),
    "level": ("labels.ome.zarr/1/", r"shard \d+ of level 1"),
    "table": ("cells.parquet", "/a"),
}


@pytest.mark.parametrize("name", FULL)
def test_a_full_disk(tmp_path, picture, undisturbed, monkeypatch, name):
    part, named = FULL[name]
    chosen = experiment(tmp_path, [picture], segment=SAID, tiles=TILES)
    left = iter(range(1 if name in ("window", "tile", "labels") else 0))  # some go through

    def fails(path):
        return part in path and next(left, None) is None

    with monkeypatch.context() as patch:
        patch.setattr(_files.os, "write", full(fails))
        for module in ("ledger._files", "io.shards", "stages.tables"):
            patch.setattr(f"cellseg_pipe.{module}.binary_whole", full_whole(fails))
        with pytest.raises(OSError, match="the disk is full. Free space") as error:
            run(chosen)
    assert error.value.errno == errno.ENOSPC
    assert re.search(named, str(error.value))
    assert not (tmp_path / "out" / "summary.json").exists()
    run(chosen)
    assert results_of(tmp_path / "out" / "a") == undisturbed


def test_an_output_that_cannot_be_written(tmp_path, picture, monkeypatch):
    chosen = experiment(tmp_path, [picture], segment=SAID, tiles=TILES)
    real = os.open

    def read_only(path, flags, *args, **settings):
        if str(path).startswith(str(tmp_path / "out")) and flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *args, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", read_only)
        with pytest.raises(OSError, match=r"read-only. Mount it for writing.*out"):
            run(chosen)
    assert not (tmp_path / "out" / "summary.json").exists()


@pytest.mark.parametrize(("version", "chunk"), [(2, "0/1.3"), (3, "0/c/1/3")])
def test_a_damaged_chunk_of_the_image(tmp_path, version, chunk):
    image = scene((60, 120))[0]
    store = ome_zarr(tmp_path / "a.zarr", image, version)
    chunk = store / chunk
    kept = chunk.read_bytes()
    chunk.write_bytes(kept[: len(kept) // 2])
    chosen = experiment(
        tmp_path,
        [store],
        segment=SAID,
        tiles=TILES,
        normalise={"range": [100, 2000]},  # or the plan reads this chunk
    )
    with pytest.raises(ValueError, match=r"window \([01], [23]\), pixels Box.*a\.zarr"):
        run(chosen)
    assert not (tmp_path / "out" / "summary.json").exists()
    assert not (tmp_path / "out" / "a").exists()
    done = list((tmp_path / "out" / "runs" / "a").glob("predict-*/ledger/*"))
    assert done  # what is finished is kept
    chunk.write_bytes(kept)
    run(chosen)
    whole = segment(image, value_range=(100, 2000), window_px=64, overlap_px=16, **SAID)
    compare(published(chosen, "a"), whole)
    assert whole.n_cells > 2


def test_tiles_that_cannot_be_done_cost_no_others(tmp_path, caplog):
    """Each batch does all that does not see the damaged chunk, and names what does."""
    store = ome_zarr(tmp_path / "a.zarr", scene((150, 200))[0], 2)
    chosen = experiment(
        tmp_path,
        [store],
        segment=SAID,
        tiles=TILES,
        normalise={"range": [100, 2000]},  # or the plan reads this chunk
    )
    (unit,) = unit_runs(chosen)
    run_job(unit, "plan", batch=0)
    chunk = store / "0" / "2.3"
    chunk.write_bytes(chunk.read_bytes()[:9])
    left, named, total = set(), set(), 0
    for batch in range(2):
        caplog.clear()
        with contextlib.suppress(ValueError):
            run_job(unit, "predict", batch=batch)
        keys = set(keys_of(unit, "predict", batch))
        total += len(keys)
        left |= keys - tiles_found(unit.stage("predict"), batch)[1]
        named |= set(re.findall(r"window (\(\d+, \d+\))", caplog.text))
    assert 0 < len(left) < total / 2
    assert len(named) == len(left)


class Tiles:
    """Tiles of a batch, of which some cannot be done."""

    def __init__(self, files, n, bad):
        self.files, self.keys, self.bad, self.begun = files, range(n), bad, []

    def work(self):
        with open_batch(self.files, 0, self.keys) as batch:
            for key in batch.missing:
                self.begun.append(key)
                if key in self.bad:
                    raise ValueError(f"tile {key} cannot be read")
                batch.add(key, b"x")
            batch.finish()


@pytest.mark.parametrize("bad", [{0}, {3}, {9}, {0, 1}, {2, 5, 7}, {8, 9}])
def test_the_rest_of_a_batch_is_done_before_it_fails(tmp_path, bad):
    files = RunPaths(tmp_path).unit("a").stage("masks", "0" * 12)
    tiles = Tiles(files, 10, bad)
    with pytest.raises(ValueError, match="tile . cannot be read"):
        past_failures(tiles.work, files, 0)
    assert tiles_found(files, 0)[1] == set(range(10)) - bad
    assert all(tiles.begun.count(key) == 1 for key in set(range(10)) - bad)
    assert len(tiles.begun) <= 10 + 6 * len(bad)
    tiles.bad = set()  # it is mended
    past_failures(tiles.work, files, 0)
    assert files.done(0).exists()


def test_who_runs_a_job_may_have_it_begin_later(tmp_path):
    files = RunPaths(tmp_path).unit("a").stage("masks", "0" * 12)
    tiles = Tiles(files, 5, {4})
    with pytest.raises(ValueError, match="tile 4"), passing_over(3):
        past_failures(tiles.work, files, 0)
    assert tiles.begun[:2] == [3, 4] and set(tiles.begun[2:]) == {0, 1, 2, 4}


def test_what_ends_all_tiles_is_said_at_once(tmp_path):
    files = RunPaths(tmp_path).unit("a").stage("masks", "0" * 12)
    full = OSError("the disk is full")
    full.__cause__ = OSError(errno.ENOSPC, "no space")
    calls = []

    def work():
        calls.append(1)
        with open_batch(files, 0, range(3)):
            raise full

    with pytest.raises(OSError, match="the disk is full"):
        past_failures(work, files, 0)
    assert len(calls) == 1
