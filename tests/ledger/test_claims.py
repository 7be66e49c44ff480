"""Two at one batch or one output folder: who may go on, and what the other is told."""

import contextlib
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time

import psutil
import pytest

from cellseg_pipe.ledger import Fenced, Held, Records, RunLock, _claims, open_batch, read_done
from tests.ledger.worker import add, blob_of, keys_of, main, stage_of

KEYS = keys_of(0)


@pytest.fixture
def stage(tmp_path):
    return stage_of(tmp_path)


@contextlib.contextmanager
def started(mode, root):
    """A worker that has said it is ready."""
    command = [sys.executable, "-m", "tests.ledger.worker", mode, str(root)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def write_claim(path, **changes):
    """A claim of this process but for the changes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "job": "",
        "since": 1.7e9,
        "state": "held",
    }
    path.write_text(json.dumps(said | changes))


def test_a_claim_says_who(stage):
    with open_batch(stage, 0, KEYS, job="job 17"):
        said = json.loads(stage.claim(0, 1).read_text())
    assert said["host"] == socket.gethostname()
    assert said["pid"] == os.getpid()
    assert said["job"] == "job 17"
    assert abs(said["since"] - time.time()) < 60
    assert json.loads(stage.claim(0, 1).read_text())["state"] == "free"


def test_a_live_holder_is_not_disturbed_but_may_be_followed(tmp_path, stage):
    with started("hold", tmp_path) as holder:
        with pytest.raises(Held) as caught:
            open_batch(stage, 0, KEYS)
        for word in ("batch 0 of s1 masks", str(holder.pid), socket.gethostname(), "(holder)"):
            assert word in str(caught.value)
        assert stage.attempts() == {0: (1,)}
        with open_batch(stage, 0, KEYS, takeover=True) as batch:
            assert (batch.token, batch.missing) == (2, tuple(KEYS[3:]))
            for key in batch.missing:
                add(batch, key)
            done = batch.finish()
        said, _ = holder.communicate("\n")
        assert f"taken over by process {os.getpid()}" in said
        assert "(attempt 2, this is 1)" in said
    # It has added tiles before it noticed: they are in its ledger, and do not count.
    assert stage.ledger(0, 1).stat().st_size > done.segments[0].ledger_bytes
    assert read_done(stage, 0) == done
    records = Records(stage, 1)
    assert {key: records.read(key) for key in KEYS} == {key: blob_of(key) for key in KEYS}


def test_a_killed_holder_is_followed_at_once(tmp_path, stage):
    with started("hold", tmp_path) as holder:
        holder.kill()
        while psutil.Process(holder.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        with open_batch(stage, 0, KEYS) as batch:  # it has not even been waited for
            assert (batch.token, batch.adopted) == (2, 3)


def test_a_process_does_not_hold_a_batch_twice(stage):
    with open_batch(stage, 0, KEYS), pytest.raises(Held, match=f"process {os.getpid()} on"):
        open_batch(stage, 0, KEYS)
    with open_batch(stage, 0, KEYS) as batch:
        assert batch.token == 2


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({"pid": 2**22 + 1}, ""),
        ({"started": 1.0}, ""),
        ({"state": "free"}, ""),
        ({"host": "elsewhere"}, "claimed by process {pid} on elsewhere since 2023-11-1"),
        ({"pid": "x"}, "claim 4 cannot be read, its maker died"),
    ],
)
def test_claims_that_do_not_hold(stage, monkeypatch, caplog, changes, warned):
    """Gone, another process by now, let go, another machine, half written."""
    monkeypatch.setattr(_claims, "GRACE_S", 0.01)
    write_claim(stage.claim(0, 4), **changes)
    with open_batch(stage, 0, KEYS) as batch:
        assert batch.token == 5
    found = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(found) == bool(warned)
    assert warned.format(pid=os.getpid()) in "".join(found)


def test_a_claim_that_is_being_written_is_waited_for(stage, monkeypatch):
    path = stage.claim(0, 1)
    path.parent.mkdir(parents=True)
    path.touch()
    monkeypatch.setattr(time, "sleep", lambda seconds: write_claim(path))
    with pytest.raises(Held, match="2023-11-1"):
        open_batch(stage, 0, KEYS)


def test_tokens_go_on_where_any_file_left_off(stage):
    """A power cut may take a claim and leave the data."""
    stage.data(0, 6).parent.mkdir(parents=True)
    stage.data(0, 6).touch()
    with open_batch(stage, 0, KEYS) as batch:
        assert batch.token == 7


def test_a_fenced_attempt_stops_at_its_next_step(stage):
    first = open_batch(stage, 0, KEYS)
    with first:
        add(first, KEYS[0])
        with open_batch(stage, 0, KEYS, takeover=True) as second:
            add(first, KEYS[1])  # nobody has looked yet
            for step in (first.sync, first.finish):
                if step == first.finish:
                    for key in first.missing:
                        add(first, key)
                with pytest.raises(Fenced, match=r"batch 0 of s1 masks was taken over by process"):
                    step()
            assert not stage.done(0).exists()
            for key in second.missing:
                add(second, key)
            done = second.finish()
        with pytest.raises(Fenced):
            first.finish()
    assert [segment.n_tiles for segment in done.segments] == [1, 9]


def test_who_links_first_wins_and_the_other_agrees(stage, monkeypatch, caplog):
    """Between the last look at the fence and the link there is always a moment."""
    first = open_batch(stage, 0, KEYS)
    with first:
        for key in KEYS:
            add(first, key)
        second = open_batch(stage, 0, KEYS[::-1], takeover=True)
        with second:
            assert second.missing == ()
            monkeypatch.setattr(first, "_check_fence", lambda: None)
            done = first.finish()
            assert second.finish() == done == read_done(stage, 0)
            assert second.done
    assert "with other content" not in caplog.text
    assert [path.name for path in stage.done(0).parent.iterdir()] == ["0000.json"]


def test_an_attempt_with_other_numbers_is_told_of(stage, monkeypatch, caplog):
    first = open_batch(stage, 0, [1])
    with first, open_batch(stage, 0, [1], takeover=True) as second:
        first.add(1, b"one")
        second.add(1, b"two")
        monkeypatch.setattr(first, "_check_fence", lambda: None)
        done = first.finish()
        assert second.finish() == done
    assert "done by another attempt meanwhile, with other content" in caplog.text
    assert Records(stage, 1).read(1) == b"one"


@pytest.mark.parametrize("n_racers", [2, 3])
def test_a_race_has_one_winner(tmp_path, stage, n_racers):
    with contextlib.ExitStack() as stack:
        racers = [stack.enter_context(started("race", tmp_path)) for _ in range(n_racers)]
        for racer in racers:
            racer.stdin.write("\n")
            racer.stdin.flush()
        said = [racer.communicate()[0].split() for racer in racers]
    done = read_done(stage, 0)
    assert [path.name for path in stage.done(0).parent.iterdir()] == ["0000.json"]
    assert all(words in (["fenced"], ["done", done.checksum]) for words in said)
    assert ["done", done.checksum] in said
    records = Records(stage, 1)
    assert {key: records.read(key) for key in KEYS} == {key: blob_of(key) for key in KEYS}


def test_one_run_at_a_time(tmp_path):
    path = tmp_path / "runs" / ".locks" / "run"
    with RunLock(path, job="first"), pytest.raises(Held) as caught, RunLock(path):
        pass
    assert f"in use by process {os.getpid()} on {socket.gethostname()} (first) since" in str(
        caught.value
    )
    for _ in range(3):
        with RunLock(path):
            assert len(list(path.parent.iterdir())) == 1
    with pytest.raises(ZeroDivisionError), RunLock(path):
        _ = 1 / 0
    with RunLock(path):
        pass


def test_a_dead_run_is_followed(tmp_path):
    path = tmp_path / "run"
    write_claim(tmp_path / "run.3", pid=2**22 + 1)
    with RunLock(path):
        assert [file.name for file in tmp_path.iterdir()] == ["run.4"]


def test_a_run_elsewhere_is_not_followed(tmp_path):
    path = tmp_path / "run"
    write_claim(tmp_path / "run.3", host="elsewhere")
    with pytest.raises(Held, match=f"remove {tmp_path}/run.3 and start again"), RunLock(path):
        pass
    (tmp_path / "run.3").unlink()
    with RunLock(path):
        pass


def lock_and_count(path, barrier, held, found):
    """Take the lock as soon as all are ready; tell how many had it at once."""
    barrier.wait()
    try:
        with RunLock(path):
            with held.get_lock():
                held.value += 1
            time.sleep(0.05)
            found.put(held.value)
            with held.get_lock():
                held.value -= 1
    except Held:
        found.put(0)


def test_of_many_that_find_a_dead_run_one_follows(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.ledger.worker"])
    for attempt in range(5):
        path = tmp_path / f"run{attempt}"
        write_claim(tmp_path / f"run{attempt}.1", pid=2**22 + 1)
        barrier, held, found = context.Barrier(4), context.Value("i", 0), context.SimpleQueue()
        arguments = (path, barrier, held, found)
        racers = [context.Process(target=lock_and_count, args=arguments) for _ in range(4)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        counts = sorted(found.get() for _ in racers)
        assert max(counts) == 1


def test_a_killed_run_is_followed(tmp_path):
    context = multiprocessing.get_context("forkserver")
    racer = context.Process(target=main, args=("lock", str(tmp_path / "run"), "claim-synced"))
    racer.start()
    racer.join()
    assert (racer.exitcode, os.listdir(tmp_path)) == (-9, ["run.1"])
    with RunLock(tmp_path / "run"):
        assert os.listdir(tmp_path) == ["run.2"]
