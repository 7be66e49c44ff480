"""Batches: what is added is there, and what goes wrong is said."""

import errno
import hashlib
import os
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cellseg_pipe.ledger import (
    Corrupt,
    LedgerError,
    NotDone,
    Records,
    Sync,
    _claims,
    open_batch,
    passing_over,
    read_done,
    tiles_found,
)
from tests.ledger.worker import add, blob_of, info_of, keys_of, stage_of

KEYS = keys_of(0)


@pytest.fixture
def stage(tmp_path):
    return stage_of(tmp_path)


@pytest.fixture
def quick(monkeypatch):
    """Without waiting for the disk."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def fill(stage, keys=KEYS, *, number=0, n_tiles=None):
    """Add tiles; finish if all are there."""
    with open_batch(stage, number, keys) as batch:
        for key in batch.missing[:n_tiles]:
            add(batch, key)
        return None if batch.missing else batch.finish()


def test_a_batch_from_nothing_to_done(stage):
    with open_batch(stage, 0, KEYS, job="17") as batch:
        assert (batch.done, batch.token, batch.adopted) == (False, 1, 0)
        for left in range(len(KEYS), 0, -1):
            assert batch.missing == tuple(KEYS[-left:])
            add(batch, batch.missing[0])
        assert not stage.done(0).exists()
        done = batch.finish()
        assert (batch.done, batch.missing) == (True, ())
        assert batch.finish() == done
    assert read_done(stage, 0) == done
    assert [segment.ledger for segment in done.segments] == ["ledger/0000.1.jsonl"]
    assert [segment.n_tiles for segment in done.segments] == [done.n_tiles] == [len(KEYS)]
    with open_batch(stage, 0, reversed(KEYS)) as batch:
        assert (batch.done, batch.token, batch.missing) == (True, None, ())
        assert batch.finish() == done
    assert stage.attempts() == {0: (1,)}


def test_the_checksum_is_that_of_the_spec(stage):
    """sha256 over key (int64) and crc32 (uint32), little endian, by key."""
    done = fill(stage)
    packed = b"".join(
        key.to_bytes(8, "little", signed=True) + zlib.crc32(blob_of(key)).to_bytes(4, "little")
        for key in sorted(KEYS)
    )
    assert done.checksum == hashlib.sha256(packed).hexdigest()


@pytest.mark.parametrize(
    ("blob", "content"),
    [
        (b"abc", b"abc"),
        (bytearray(b"abc"), b"abc"),
        (memoryview(b"abcdef")[::1], b"abcdef"),
        (np.array([[1, 2], [3, 258]], "<u2"), b"\x01\0\x02\0\x03\0\x02\x01"),
        (np.zeros((0, 5)), b""),
        ([b"a", np.array([98], np.uint8), memoryview(b"")], b"ab"),
        ((), b""),
    ],
)
def test_blobs_of_every_kind(stage, blob, content):
    with open_batch(stage, 0, [5]) as batch:
        batch.add(5, blob)
        batch.finish()
    assert Records(stage, 1).read(5) == content


@pytest.mark.parametrize("blob", [np.zeros((4, 6)).T, memoryview(b"abcdef")[::2]])
def test_blobs_need_c_order(stage, blob):
    with open_batch(stage, 0, [5]) as batch:
        with pytest.raises(ValueError, match="C order, got shape"):
            batch.add(5, blob)
        assert batch.missing == (5,)
        batch.add(5, b"later")
        batch.finish()


@pytest.mark.parametrize("info", [{"a": float("nan")}, {"a": np.float32(1)}, {"a": {1, 2}}])
def test_infos_are_plain(stage, info):
    with open_batch(stage, 0, [5]) as batch:
        with pytest.raises(ValueError, match="plain finite values, got .* for tile 5"):
            batch.add(5, b"", info=info)
        assert stage.ledger(0, 1).read_bytes() == b""


def test_wrong_tiles_are_refused(stage):
    with open_batch(stage, 0, [1, 2]) as batch:
        batch.add(1, b"x")
        for key in (1, 3):
            with pytest.raises(LedgerError, match=f"batch 0 of s1 masks .* got tile {key}"):
                batch.add(key, b"y")
        with pytest.raises(LedgerError, match=r"needs all its tiles.*got 1 missing tiles: \(2,\)"):
            batch.finish()
    with pytest.raises(LedgerError, match="while it is open, got tile 2"):
        batch.add(2, b"x")
    assert not stage.done(0).exists()


@pytest.mark.parametrize(("number", "keys"), [(-1, [1]), (0, [1, 2, 1])])
def test_wrong_batches_are_refused(stage, number, keys):
    with pytest.raises(ValueError, match="needs a number from 0 and distinct tiles"):
        open_batch(stage, number, keys)
    assert not stage.root.exists()


def test_an_empty_batch_is_done_at_once(stage):
    with open_batch(stage, 0, []) as batch:
        assert not batch.done
        assert batch.finish().n_tiles == 0
    assert Records(stage, 1).keys().tolist() == []


def test_another_cutting_into_batches_is_noticed(stage):
    fill(stage)
    with pytest.raises(LedgerError, match="another order or number of batches"):
        open_batch(stage, 0, KEYS[:-1])


def test_what_an_attempt_had_of_other_batches_is_passed_over(stage):
    """The number of batches was changed before this one was done."""
    fill(stage, [*KEYS[:3], 77, 78, 79], n_tiles=5)
    done = fill(stage)
    assert [(s.n_tiles, s.skip) for s in done.segments] == [(3, (77, 78)), (7, ())]
    assert Records(stage, 1).keys().tolist() == sorted(KEYS)


def test_an_error_leaves_what_was_added(stage):
    with pytest.raises(ZeroDivisionError), open_batch(stage, 0, KEYS) as batch:
        add(batch, KEYS[3])
        add(batch, KEYS[5])
        batch.add(KEYS[6], 1 / 0)
    with open_batch(stage, 0, KEYS) as batch:
        assert (batch.token, batch.adopted) == (2, 2)
        assert set(KEYS) - set(batch.missing) == {KEYS[3], KEYS[5]}


@pytest.mark.parametrize(
    ("sync", "synced"),
    [
        (Sync(every_tiles=4, every_s=1e9), [4, 8]),
        (Sync(every_tiles=10**9, every_s=0), list(range(1, 11))),
        (Sync(every_tiles=10**9, every_s=1e9), []),
    ],
)
def test_syncs_come_as_often_as_asked(stage, sync, synced):
    with open_batch(stage, 0, KEYS, sync=sync) as batch:
        found = []
        for n_tiles, key in enumerate(KEYS, 1):
            add(batch, key)
            if batch._attempt.unsynced == 0:
                found.append(n_tiles)
    assert found == synced


def test_threads_add_side_by_side(stage, quick):
    keys = list(range(400))
    with open_batch(stage, 0, keys, sync=Sync(every_tiles=7)) as batch:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: batch.add(key, b"%d" % key * 50, info={"key": key}), keys))
        batch.finish()
    records = Records(stage, 1)
    assert all(records.read(key) == b"%d" % key * 50 for key in keys)
    assert dict(records.infos()) == {key: {"key": key} for key in keys}


def test_a_ledger_torn_anywhere(stage, quick):
    """Cut after any byte, all lines before the cut count, and the torn one never does."""
    fill(stage, n_tiles=4)
    ledger = stage.ledger(0, 1)
    whole = ledger.read_bytes()
    ends = [place for place, byte in enumerate(whole) if byte == ord("\n")]
    assert len(ends) == 4
    for size in range(len(whole) + 1):
        for path in stage.claim(0, 2), stage.ledger(0, 2), stage.data(0, 2):
            path.unlink(missing_ok=True)
        ledger.write_bytes(whole[:size])
        with open_batch(stage, 0, KEYS) as batch:
            # A line that lacks nothing but its end is whole.
            assert batch.missing == tuple(KEYS[sum(end <= size for end in ends) :])


@pytest.mark.parametrize("byte", [0, 75, 76, 300, -1])
def test_a_damaged_blob_is_made_again_and_no_other(stage, byte, caplog):
    fill(stage, [1, 2, 3, 5], n_tiles=3)
    lengths = [len(blob_of(key)) for key in (1, 2, 3)]
    data = stage.data(0, 1)
    content = bytearray(data.read_bytes())
    assert len(content) == sum(lengths)
    content[byte] ^= 4
    data.write_bytes(content)
    hit = 1 + int(np.searchsorted(np.cumsum(lengths), byte % len(content), side="right"))
    with open_batch(stage, 0, [1, 2, 3, 5]) as batch:
        assert batch.missing == (hit, 5)
        assert "1 tiles are damaged and will be made again" in caplog.text
        for key in batch.missing:
            add(batch, key)
        done = batch.finish()
    assert [segment.skip for segment in done.segments] == [(hit,), ()]
    records = Records(stage, 1)
    assert {key: records.read(key) for key in (1, 2, 3, 5)} == {k: blob_of(k) for k in (1, 2, 3, 5)}


@pytest.mark.parametrize("kept", [0, 1, 1000])
def test_a_short_data_file_costs_what_it_lacks(stage, kept):
    fill(stage, n_tiles=6)
    data = stage.data(0, 1)
    os.truncate(data, kept)
    sizes = np.cumsum([len(blob_of(key)) for key in KEYS[:6]])
    with open_batch(stage, 0, KEYS) as batch:
        lost = [key for key, end in zip(KEYS, sizes, strict=False) if end > kept and blob_of(key)]
        assert set(batch.missing) == {*lost, *KEYS[6:]}
    data.unlink()
    with open_batch(stage, 0, KEYS) as batch:
        assert batch.missing == tuple(KEYS)


def test_three_attempts_are_read_as_one(stage):
    fill(stage, n_tiles=3)
    fill(stage, n_tiles=4)
    done = fill(stage)
    assert [segment.n_tiles for segment in done.segments] == [3, 4, 3]
    records = Records(stage, 1)
    assert {key: records.read(key) for key in KEYS} == {key: blob_of(key) for key in KEYS}
    assert {key: records.info(key) for key in KEYS} == {key: info_of(key) for key in KEYS}


def test_a_damaged_done_file_says_so(stage):
    fill(stage)
    for content in (b"", b"{}", b"[]", b'{"segments": [{}]}'):
        stage.done(0).write_bytes(content)
        with pytest.raises(Corrupt, match="is no done file .* finished tiles are kept"):
            open_batch(stage, 0, KEYS)
    stage.done(0).unlink()
    with pytest.raises(NotDone, match="batch 0 of s1 masks is not done: there is no .*0000.json"):
        read_done(stage, 0)
    with open_batch(stage, 0, KEYS) as batch:
        assert batch.missing == ()


def test_modes_follow_the_umask(stage):
    old = os.umask(0o027)
    try:
        fill(stage)
    finally:
        os.umask(old)
    paths = [stage.claim(0, 1), stage.data(0, 1), stage.ledger(0, 1), stage.done(0)]
    assert {oct(path.stat().st_mode & 0o777) for path in paths} == {"0o640"}
    assert {oct(path.parent.stat().st_mode & 0o777) for path in paths} == {"0o750"}


class FullDisk:
    """A disk that takes so many bytes more, the last ones in a short write."""

    def __init__(self, monkeypatch, room, number):
        self.room, self.number, self.write = room, number, os.write
        self.used = 0
        monkeypatch.setattr(os, "write", self)

    def __call__(self, handle, content):
        if self.room == 0:
            raise OSError(self.number, os.strerror(self.number))
        part = memoryview(content)[: self.room]
        self.room -= len(part)
        self.used += len(part)
        return self.write(handle, part)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("share", [0, 0.001, 0.02, 0.04, 0.1, 0.5, 0.8, 0.9, 0.93, 0.96, 0.999])
def test_a_full_disk_at_any_byte(stage, tmp_path, quick, monkeypatch, share, number):
    monkeypatch.setattr(_claims, "GRACE_S", 0.01)
    monkeypatch.setattr(time, "time", lambda: 1.7e9)  # so that both runs write as much
    with monkeypatch.context() as patch:
        needed = FullDisk(patch, 10**9, number)
        fill(stage_of(tmp_path / "elsewhere"))
    with monkeypatch.context() as patch:
        FullDisk(patch, int(share * needed.used), number)
        with pytest.raises(OSError, match="nothing finished is lost") as caught:
            fill(stage)
        assert caught.value.errno == number
        assert "cellseg clean" in str(caught.value)
        assert str(stage.root) in str(caught.value)
    kept = stage.ledger(0, 1).read_bytes().count(b"\n") if stage.ledger(0, 1).exists() else 0
    with open_batch(stage, 0, KEYS) as batch:
        assert batch.adopted == kept
        for key in batch.missing:
            add(batch, key)
        batch.finish()
    records = Records(stage, 1)
    assert {key: records.read(key) for key in KEYS} == {key: blob_of(key) for key in KEYS}


def test_an_attempt_that_failed_once_takes_no_more(stage, monkeypatch):
    """Behind half a blob, offsets would be wrong."""
    with open_batch(stage, 0, KEYS) as batch:
        add(batch, KEYS[1])
        with monkeypatch.context() as patch:
            FullDisk(patch, 10, errno.ENOSPC)
            with pytest.raises(OSError, match="the disk is full"):
                add(batch, KEYS[2])
        with pytest.raises(LedgerError, match="was not written to the end.*Open the batch again"):
            add(batch, KEYS[2])
    with open_batch(stage, 0, KEYS) as batch:
        assert batch.adopted == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_sync_that_failed_once_is_not_trusted(stage, monkeypatch, number, caplog):
    """After a failed fsync the system may call the same pages clean."""
    with open_batch(stage, 0, KEYS) as batch:
        add(batch, KEYS[1])

        def failing(handle):
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing)
            with pytest.raises(OSError) as caught:
                batch.sync()
            assert caught.value.errno == number
        with pytest.raises(LedgerError, match="was not written to the end"):
            add(batch, KEYS[2])
    assert "the last tiles may be made again" in caplog.text


@pytest.mark.parametrize(
    ("number", "said"), [(errno.EROFS, "read-only"), (errno.EACCES, "may not write here")]
)
@pytest.mark.parametrize("refused", ["mkdir", "open"])
def test_a_folder_that_cannot_be_written(stage, monkeypatch, number, said, refused):
    """As root, permissions do not hold: the system's answer is put in its place."""
    real = os.open

    def refuse(path, *args, **kwargs):
        if refused == "open" and "claims/" not in str(path):
            return real(path, *args, **kwargs)
        raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, refused, refuse)
        with pytest.raises(OSError, match=said) as caught:
            fill(stage)
    assert caught.value.errno == number
    assert "choose another output" in str(caught.value)
    assert str(stage.root.parent.parent.parent) in str(caught.value)
    assert fill(stage).n_tiles == len(KEYS)


def test_without_hard_links_a_batch_is_done_too(stage, monkeypatch):
    def refuse(*paths):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(os, "link", refuse)
    done = fill(stage)
    assert read_done(stage, 0) == done
    assert [path.name for path in stage.done(0).parent.iterdir()] == ["0000.json"]


@pytest.mark.parametrize(
    ("n", "first"), [(0, 3), (1, 4), (3, 6), (1000, 3 + 1000 % (len(KEYS) - 3))]
)
def test_tiles_may_be_passed_over_until_the_others_are_done(stage, n, first):
    fill(stage, n_tiles=3)
    with passing_over(n), open_batch(stage, 0, KEYS) as batch:
        assert batch.missing == (*KEYS[first:], *KEYS[3:first])
    assert tiles_found(stage, 0) == (2, frozenset(KEYS[:3]))
    with open_batch(stage, 0, KEYS) as batch:
        assert batch.missing == tuple(KEYS[3:])
