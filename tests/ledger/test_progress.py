"""How far a stage is, while it runs."""

import os
import time

import pytest

from cellseg_pipe.ledger import Active, open_batch, progress
from tests.ledger.test_claims import started, write_claim
from tests.ledger.worker import add, keys_of, stage_of

N_TILES = 30


@pytest.fixture
def stage(tmp_path):
    return stage_of(tmp_path)


def test_nothing_yet(stage):
    found = progress(stage, 3, N_TILES)
    assert (found.n_batches, found.n_tiles, found.batches_done, found.tiles_done) == (3, 30, 0, 0)
    assert (found.active, found.last_activity, found.tiles_per_s) == ((), None, 0.0)


def test_tiles_of_done_and_running_batches_count(stage):
    with open_batch(stage, 0, keys_of(0)) as batch:
        for key in batch.missing:
            add(batch, key)
        batch.finish()
    with open_batch(stage, 1, keys_of(1)) as batch:
        for key in batch.missing[:2]:
            add(batch, key)
    with open_batch(stage, 1, keys_of(1), job="17") as batch:
        for key in batch.missing[:3]:
            add(batch, key)
        found = progress(stage, 3, N_TILES)
        assert (found.batches_done, found.tiles_done) == (1, 15)
        (active,) = found.active
        assert (active.batch, active.token, active.alive) == (1, 2, True)
        assert (active.holder.pid, active.holder.job) == (os.getpid(), "17")
        assert abs(found.last_activity - time.time()) < 60
        # 14 tiles after the first one, within the time of this test.
        assert found.tiles_per_s > 14 / 60
    assert progress(stage, 3, N_TILES).active == ()


def test_a_tile_that_two_attempts_have_counts_once(stage):
    first = open_batch(stage, 0, keys_of(0))
    with first, open_batch(stage, 0, keys_of(0), takeover=True) as second:
        for batch in (first, second):
            add(batch, 7)
        add(first, 4)
        assert progress(stage, 1, 10).tiles_done == 2


def test_the_rate_is_of_the_last_minutes(stage, monkeypatch):
    start = time.time()
    with open_batch(stage, 0, keys_of(0)) as batch:
        for place, key in enumerate(batch.missing):
            monkeypatch.setattr(time, "time", lambda place=place: start - 100 + 10 * place)
            add(batch, key)
        for later, rate in ((0, 9 / 100), (50, 9 / 150), (245, 4 / 295), (10_000, 0)):
            now = start + later
            monkeypatch.setattr(time, "time", lambda now=now: now)
            assert progress(stage, 1, 10).tiles_per_s == pytest.approx(rate, rel=1e-3)


def test_holders_that_live_died_or_are_elsewhere(tmp_path, stage):
    with started("hold", tmp_path) as worker:
        write_claim(stage.claim(1, 4), host="elsewhere")
        write_claim(stage.claim(2, 1), pid=2**22 + 1)
        found = progress(stage, 3, N_TILES)
        assert found.tiles_done == 3
        assert [(a.batch, a.token, a.alive) for a in found.active] == [
            (0, 1, True),
            (1, 4, None),
            (2, 1, False),
        ]
        assert all(isinstance(active, Active) for active in found.active)
        assert found.active[0].holder.pid == worker.pid
        assert found.active[1].holder.since == 1.7e9
