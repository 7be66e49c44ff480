"""Reading: what done files name, and nothing else; a lot of tiles in little memory."""

import json
import os
import pickle
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cellseg_pipe.ledger import Corrupt, NotDone, Records, open_batch, read_done
from cellseg_pipe.ledger._done import Done, Segment, checksum_of, keys_checksum_of, write_done
from cellseg_pipe.ledger._lines import Line, info_text, line_of, parse
from tests.ledger.worker import add, blob_of, info_of, keys_of, stage_of

N_BATCHES = 3
ALL = [key for number in range(N_BATCHES) for key in keys_of(number)]


@pytest.fixture
def stage(tmp_path):
    """Three batches, the second one in two attempts."""
    stage = stage_of(tmp_path)
    for number in range(N_BATCHES):
        for part in (4, None) if number == 1 else (None,):
            with open_batch(stage, number, keys_of(number)) as batch:
                for key in batch.missing[:part]:
                    add(batch, key)
                if part is None:
                    batch.finish()
    return stage


def batch_of(key):
    return key // 1000


@pytest.mark.parametrize("hint", [None, batch_of])
def test_all_is_read_back(stage, hint):
    with open_batch(stage, 7, [1]) as batch:  # not among those asked for
        batch.add(1, b"other")
    records = Records(stage, N_BATCHES, batch_of=hint)
    assert records.keys().dtype == np.int64
    assert records.keys().tolist() == sorted(ALL)
    assert len(records) == len(ALL)
    for key in ALL:
        assert key in records
        assert records.read(key) == blob_of(key)
        assert records.info(key) == info_of(key)
        assert records.is_blank(key) == (key % 4 == 0)
    assert 999 not in records
    for ask in (records.read, records.info, records.is_blank):
        with pytest.raises(KeyError, match="s1 masks has no tile 999"):
            ask(999)


def test_a_tile_needs_the_files_of_its_batch_only(stage):
    records = Records(stage, N_BATCHES, batch_of=batch_of)
    for number in (0, 2):
        stage.done(number).unlink()
    assert records.read(1007) == blob_of(1007)
    assert 1005 in records
    with pytest.raises(NotDone, match="batch 0 of s1 masks is not done.*Run it first"):
        records.read(7)
    with pytest.raises(NotDone, match="batch 0"):
        Records(stage, N_BATCHES).read(1007)


def test_records_travel_to_other_processes_and_threads(stage):
    records = Records(stage, N_BATCHES, batch_of=batch_of)
    assert records.read(1007) == blob_of(1007)
    copy = pickle.loads(pickle.dumps(records))
    assert len(pickle.dumps(records)) < 1000
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(copy.read, ALL * 10))
    assert found == [blob_of(key) for key in ALL * 10]


def test_few_files_stay_open_and_all_are_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    stage = stage_of(tmp_path)
    for number in range(50):
        with open_batch(stage, number, [number]) as batch:
            batch.add(number, b"%d" % number)
            batch.finish()
    before = len(os.listdir("/dev/fd"))
    records = Records(stage, 50)
    assert [records.read(key) for key in range(50)] == [b"%d" % key for key in range(50)]
    assert len(os.listdir("/dev/fd")) - before == 32
    del records
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("harm", ["bit", "short", "gone"])
def test_a_damaged_blob_is_named_and_made_again_alone(stage, harm):
    data = stage.data(1, 1)
    whole = data.read_bytes()
    sizes = [len(blob_of(key)) for key in keys_of(1)[:4]]
    if harm == "bit":
        data.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    elif harm == "short":
        os.truncate(data, sum(sizes[:3]))
    else:
        data.unlink()
    hit = {"bit": [1007], "short": [1001], "gone": [1007, 1001, 1004]}[harm]
    hit = [key for key in hit if blob_of(key)]
    records = Records(stage, N_BATCHES)
    for key in ALL:
        if key not in hit:
            assert records.read(key) == blob_of(key)
            continue
        with pytest.raises(Corrupt) as caught:
            records.read(key)
        assert "s1 masks: " in str(caught.value)
        assert str(data) in str(caught.value)
        assert f"Remove the file of this batch from {stage.done(0).parent}" in str(caught.value)
    stage.done(1).unlink()
    with open_batch(stage, 1, keys_of(1)) as batch:
        assert set(hit) <= set(batch.missing)
        assert set(batch.missing) <= {*hit, *(keys_of(1)[:4] if harm == "gone" else ())}
        for key in batch.missing:
            add(batch, key)
        batch.finish()
    records = Records(stage, N_BATCHES)
    assert {key: records.read(key) for key in ALL} == {key: blob_of(key) for key in ALL}


@pytest.mark.parametrize("harm", ["bit", "short", "gone"])
def test_a_damaged_ledger_is_named(stage, harm):
    ledger = stage.ledger(1, 2)
    whole = ledger.read_bytes()
    if harm == "bit":
        ledger.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    elif harm == "short":
        os.truncate(ledger, len(whole) // 2)
    else:
        ledger.unlink()
    said = {"gone": f"{ledger} is gone"}.get(harm, "the ledgers of batch 1 give")
    with pytest.raises(Corrupt, match=said):
        Records(stage, N_BATCHES).keys()


def test_batches_of_two_plans_are_told_of(stage):
    with open_batch(stage, 3, [7, 5000]) as batch:
        for key in batch.missing:
            add(batch, key)
        batch.finish()
    with pytest.raises(Corrupt, match=r"tile 7 is in two batches, \[0, 3\]"):
        Records(stage, 4).keys()


KEYS_AND_INFOS = st.lists(
    st.tuples(
        st.integers(-(2**63), 2**63 - 1),
        st.integers(0, 2**62),
        st.integers(0, 2**32 - 1),
        st.dictionaries(st.text(), st.none() | st.text() | st.integers(), max_size=3),
    ),
    unique_by=lambda row: row[0],
    max_size=5,
)


@given(rows=KEYS_AND_INFOS, data=st.data())
@example(rows=[(1, 0, 0, {"x": '"},"line":"00000000"}\n{"key":1'})], data=None)
def test_lines_are_what_was_written_or_nothing(rows, data):
    """Any bytes of a ledger may change: a line that is accepted is one that was written."""
    lines = [
        line_of(Line(key, size, size, crc, key % 2 == 0, 1.5), info_text(key, info))
        for key, size, crc, info in rows
    ]
    text = b"".join(lines)
    assert [set(json.loads(line)) for line in text.splitlines()] == [
        {"key", "offset", "bytes", "crc", "blank", "time", "info", "line"}
    ] * len(rows)
    found = parse(text)
    assert found["key"].tolist() == [row[0] for row in rows]
    assert found["crc"].tolist() == [row[2] for row in rows]
    assert found["offset"].tolist() == found["bytes"].tolist() == [row[1] for row in rows]
    assert [
        json.loads(text[start : start + size])
        for start, size in zip(found["info_start"], found["info_bytes"], strict=True)
    ] == [row[3] for row in rows]
    if data is None or not text:
        return
    place = data.draw(st.integers(0, len(text) - 1))
    changed = bytearray(text)
    changed[place] ^= data.draw(st.integers(1, 255))
    hit = int(np.searchsorted(np.cumsum([len(line) for line in lines]), place, side="right"))
    kept = parse(bytes(changed))["key"].tolist()
    end_of_line = lines[hit][-1:] == b"\n" and place + 1 == sum(map(len, lines[: hit + 1]))
    spared = [row[0] for row in rows[:hit]] + [row[0] for row in rows[hit + 1 :]]
    if end_of_line:  # the line and the next one have become one
        spared = [row[0] for row in rows[:hit]] + [row[0] for row in rows[hit + 2 :]]
    assert set(spared) <= set(kept) <= {row[0] for row in rows}


def large_batch(stage, keys):
    """A done batch of many tiles, written in one piece."""
    blobs = [b"%d" % key for key in keys]
    crcs = dict(zip(keys, map(zlib.crc32, blobs), strict=True))
    offsets = np.concatenate([[0], np.cumsum([len(blob) for blob in blobs])]).tolist()
    text = b"".join(
        line_of(Line(key, offset, len(blob), crcs[key], False, 1.5), f'{{"n":{key}}}')
        for key, offset, blob in zip(keys, offsets[:-1], blobs, strict=True)
    )
    for path in (stage.data(0, 1), stage.ledger(0, 1), stage.done(0)):
        path.parent.mkdir(parents=True, exist_ok=True)
    stage.data(0, 1).write_bytes(b"".join(blobs))
    stage.ledger(0, 1).write_bytes(text)
    segment = Segment("ledger/0000.1.jsonl", "data/0000.1.bin", len(text), len(keys))
    done = Done(len(keys), (segment,), checksum_of(crcs), keys_checksum_of(keys))
    write_done(stage.done(0), done, name="1", check=lambda: None)
    return done


def test_a_hundred_thousand_tiles_take_80_bytes_each(tmp_path):
    stage = stage_of(tmp_path)
    keys = np.random.default_rng(0).permutation(300_000)[:100_000].tolist()
    assert large_batch(stage, keys) == read_done(stage, 0)
    tracemalloc.start()
    records = Records(stage, 1)
    assert records.keys().tolist() == sorted(keys)
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept_bytes < 85 * len(keys)
    for key in keys[::500]:
        assert records.read(key) == b"%d" % key
        assert records.info(key) == {"n": key}
    assert [key for key, _ in records.infos()] == sorted(keys)
    missing = sorted(set(range(300_000)) - set(keys))[::500]
    assert not any(key in records for key in missing)
