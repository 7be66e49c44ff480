"""Random histories of a batch: deaths at any step, power cuts, damaged files. Nothing is lost."""

import json
import logging
import shutil
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from cellseg_pipe.ledger import CRASH_SITES, Records, Sync, open_batch
from cellseg_pipe.ledger._done import checksum_of
from tests.ledger.disk import Died, Disk
from tests.ledger.worker import add, blob_of, info_of, keys_of, stage_of

NUMBER = 1
KEYS = keys_of(NUMBER)
CHECKSUM = checksum_of({key: zlib.crc32(blob_of(key)) for key in KEYS})
SITES = [site for site in CRASH_SITES if not site.startswith("whole-")]


class Histories(RuleBasedStateMachine):
    """One batch through many lives.

    `safe` are the tiles that must not be asked for again, `synced` those that are so after a power
    cut too.
    """

    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.stage = stage_of(self.root)
        self.disk = Disk()
        self.batch = None
        self.safe = set()
        self.synced = set()
        self.written = set()
        self.finished = False
        logging.getLogger("cellseg_pipe.ledger").setLevel(logging.CRITICAL)

    def teardown(self):
        self.disk.arm("", 1)
        if self.batch is not None:
            self.batch.__exit__(None, None, None)
        self.run_to_the_end()
        self.disk.close()
        shutil.rmtree(self.root)
        logging.getLogger("cellseg_pipe.ledger").setLevel(logging.NOTSET)

    def run_to_the_end(self):
        with open_batch(self.stage, NUMBER, KEYS, takeover=True) as batch:
            assert not self.safe.intersection(batch.missing)
            for key in batch.missing:
                add(batch, key)
            assert batch.finish().checksum == CHECKSUM
        self.check_records()

    def check_records(self):
        records = Records(self.stage, NUMBER + 1, batch_of=lambda key: NUMBER)
        for key in KEYS:
            assert records.read(key) == blob_of(key)
            assert records.info(key) == info_of(key)
            assert records.is_blank(key) == (key % 4 == 0)

    def alive(self, action):
        """Do something; return whether the process lives on."""
        try:
            action()
        except Died:
            self.forget()
            return False
        return True

    def forget(self):
        """Close the files of a dead process, as the system does."""
        if self.batch is not None and self.batch._attempt is not None:
            self.batch._attempt.close()
        self.batch = None

    def after_death(self, cut):
        if cut is None:  # the process alone: what it has written is there
            self.disk.off = False
            self.safe |= self.written
        else:
            self.power_cut(cut)
        self.written = set()

    def power_cut(self, cut):
        self.disk.cut(self.root, cut)
        self.safe = set(self.synced)

    def all_is_synced(self):
        self.safe |= self.written
        self.synced = set(self.safe)

    @initialize()
    def folders(self):
        """A machine that has been up for a while."""
        self.disk.arm("", 1)
        for path in (self.stage.claim(0, 1), self.stage.done(0)):
            path.parent.mkdir(parents=True, exist_ok=True)

    @precondition(lambda self: self.batch is None)
    @rule(
        site=st.just("") | st.sampled_from(SITES),
        nth=st.integers(1, 6),
        cut=st.none() | st.integers(0, 999),
        every=st.sampled_from([1, 3, 100]),
    )
    def open(self, site, nth, cut, every):
        self.disk.arm(site, nth)
        self.next_cut = cut

        def action():
            sync = Sync(every_tiles=every, every_s=1e9)
            self.batch = open_batch(self.stage, NUMBER, KEYS, sync=sync, takeover=True)

        if not self.alive(action):
            self.after_death(cut)
            return
        assert self.batch.done or not self.finished
        assert not self.safe.intersection(self.batch.missing)
        assert list(self.batch.missing) == [key for key in KEYS if key in self.batch.missing]
        self.safe = set(KEYS) - set(self.batch.missing)
        self.all_is_synced()
        if self.batch.done:
            self.check_records()

    @precondition(lambda self: self.batch is not None and self.batch.missing)
    @rule(place=st.integers(0, 99), n_tiles=st.integers(1, 4))
    def add(self, place, n_tiles):
        """Add tiles, which may come in any order."""
        for _ in range(n_tiles):
            if self.batch is None or not self.batch.missing:
                return
            key = self.batch.missing[place % len(self.batch.missing)]
            if not self.alive(lambda key=key: add(self.batch, key)):
                self.after_death(self.next_cut)
                return
            self.written.add(key)
            if self.batch._attempt.unsynced == 0:
                self.all_is_synced()

    @precondition(lambda self: self.batch is not None and not self.batch.done)
    @rule()
    def sync(self):
        if self.alive(self.batch.sync):
            self.all_is_synced()
        else:
            self.after_death(self.next_cut)

    @precondition(lambda self: self.batch is not None and not self.batch.missing)
    @rule()
    def finish(self):
        if self.alive(self.batch.finish):
            self.finished = True
            self.all_is_synced()
            assert self.safe == set(KEYS)
            self.batch = None
        else:
            self.after_death(self.next_cut)

    @precondition(lambda self: self.batch is not None)
    @rule()
    def leave(self):
        """An error in the stage."""
        if self.alive(lambda: self.batch.__exit__(ValueError, ValueError(), None)):
            self.all_is_synced()
            self.batch, self.written = None, set()
        else:
            self.after_death(self.next_cut)

    @precondition(lambda self: self.batch is not None)
    @rule(cut=st.none() | st.integers(0, 999))
    def die(self, cut):
        self.forget()
        self.after_death(cut)

    @precondition(lambda self: self.batch is None)
    @rule(cut=st.integers(0, 999))
    def power_cut_while_idle(self, cut):
        self.power_cut(cut)

    @precondition(lambda self: self.batch is None and not self.stage.done(NUMBER).exists())
    @rule(which=st.integers(0, 99), place=st.integers(0, 99_999), bit=st.integers(0, 7))
    def damage(self, which, place, bit):
        """A bit of a stored blob turns over."""
        files = sorted(path for path in self.stage.root.glob("data/*.bin") if path.stat().st_size)
        if not files:
            return
        path = files[which % len(files)]
        content = bytearray(path.read_bytes())
        place %= len(content)
        content[place] ^= 1 << bit
        path.write_bytes(content)
        ledger = self.stage.root / "ledger" / f"{path.stem}.jsonl"
        for line in ledger.read_bytes().splitlines(keepends=True) if ledger.exists() else ():
            if line.endswith(b"}\n"):
                entry = json.loads(line)
                if entry["offset"] <= place < entry["offset"] + entry["bytes"]:
                    self.safe.discard(entry["key"])
                    self.synced.discard(entry["key"])

    @invariant()
    def done_is_forever(self):
        if self.finished:
            self.check_records()


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, derandomize=True, database=None
)


@pytest.fixture
def disk():
    disk = Disk()
    yield disk
    disk.close()


def dies(disk, site, nth, stage):
    """Work until the power fails, without a sync that nobody asked for."""
    disk.arm(site, nth)
    with pytest.raises(Died):
        batch = open_batch(stage, NUMBER, KEYS, sync=Sync(every_tiles=100, every_s=1e9))
        for key in KEYS:
            add(batch, key)
        batch.finish()
    if batch._attempt is not None:
        batch._attempt.close()


def check_all_read(stage):
    records = Records(stage, NUMBER + 1, batch_of=lambda key: NUMBER)
    assert {key: records.read(key) for key in KEYS} == {key: blob_of(key) for key in KEYS}


@pytest.mark.parametrize("seed", range(5))
def test_what_was_taken_over_outlasts_a_power_cut(tmp_path, disk, seed):
    """Killed before it was synced, taken over, done: now all of it must be on the disk."""
    stage = stage_of(tmp_path)
    dies(disk, "line-written", len(KEYS), stage)
    disk.arm("", 1)
    with open_batch(stage, NUMBER, KEYS, takeover=True) as batch:
        assert (batch.adopted, batch.missing) == (len(KEYS), ())
        assert batch.finish().checksum == CHECKSUM
    disk.cut(tmp_path, seed)
    check_all_read(stage)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("site", ["done-linked", "done-synced", "done-tidied"])
def test_a_done_file_speaks_of_what_is_on_the_disk(tmp_path, disk, site, seed):
    stage = stage_of(tmp_path)
    dies(disk, site, 1, stage)
    disk.cut(tmp_path, seed)
    if stage.done(NUMBER).exists() or site != "done-linked":
        check_all_read(stage)
    with open_batch(stage, NUMBER, KEYS, takeover=True) as batch:
        assert batch.missing == ()
