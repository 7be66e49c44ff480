"""Jobs on real workers: in order, with tiles that fail or kill, with workers that are killed."""

import json
import os
import signal
import socket
import threading
import time
import urllib.request

import pytest

from cellseg_pipe.config import experiment_of
from cellseg_pipe.engines._dask_needs import Needs, needs_of
from cellseg_pipe.engines._dask_pool import open_pool
from cellseg_pipe.engines._dask_spread import TRIES, Spread
from cellseg_pipe.engines._dask_steps import Steps, Todo
from cellseg_pipe.ledger import Records, tiles_found
from cellseg_pipe.stages._run_layout import StageLayout
from tests.engines.simulated import DIGEST, Simulated, keys_of, stage_paths

N_TILES = 6


def steps(n_batches, *, stages=("masks",)):
    """Stages of as many batches, each of which needs the one before."""
    needs = zip(stages, [(), *((stage,) for stage in stages)], strict=False)
    return Steps(
        ("a", StageLayout(stage, DIGEST, n_batches, need), list(range(n_batches)))
        for stage, need in needs
    )


def experiment(root):
    return experiment_of({"images": [{"path": "a.tif"}], "output": {"dir": str(root)}})


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Two workers, and the folder where it is said how they are seen."""
    root = tmp_path_factory.mktemp("pool")
    needs = Needs("local", 2, 1, 2_000_000_000)
    with open_pool(experiment(root), needs, name="run") as found:
        found.client.wait_for_workers(2)
        yield found, root


def spread(pool, root, todo, faults=()):
    return Spread(pool[0], Simulated(root, n_tiles=N_TILES, faults=faults)).all(todo)


def stored(root, stage, n_batches):
    """What readers find: the blob of each tile."""
    records = Records(stage_paths(root, stage), n_batches)
    return {key: records.read(key) for b in range(n_batches) for key in keys_of(b, N_TILES)}


def test_stages_come_after_those_they_need():
    todo = steps(2, stages=("predict", "masks"))
    assert (len(todo), todo.most()) == (4, 2)
    assert list(todo.ready()) == [Todo("a", "predict", 0), Todo("a", "predict", 1)]
    todo.done(Todo("a", "predict", 1))
    assert list(todo.ready()) == []
    todo.done(Todo("a", "predict", 0))
    assert list(todo.ready()) == [Todo("a", "masks", 0), Todo("a", "masks", 1)]
    assert list(todo.ready()) == []
    assert todo.waiting() == {}


def test_a_unit_that_waits_for_another_one_says_for_what():
    stage = StageLayout("overlap", DIGEST, 1, ("paint", "a/paint"))
    todo = Steps([("a", StageLayout("paint", DIGEST, 1, ()), [0]), ("b", stage, [0])])
    assert list(todo.ready()) == [Todo("a", "paint", 0)]
    assert todo.waiting() == {"b": "a: paint"}


def test_every_tile_of_every_stage_is_done_once(pool, tmp_path):
    assert spread(pool, tmp_path, steps(5, stages=("predict", "masks"))) == {}
    expected = {key: b"%d" % key for key in range(5 * N_TILES)}
    assert stored(tmp_path, "predict", 5) == stored(tmp_path, "masks", 5) == expected
    for batch in range(5):
        assert tiles_found(stage_paths(tmp_path, "masks"), batch)[0] == 1


@pytest.mark.parametrize("tile", [0, 3, 5])
def test_a_tile_that_fails_is_named_and_all_others_are_done(pool, tmp_path, tile):
    failed = spread(pool, tmp_path, steps(2, stages=("masks", "paint")), [(tile, "raises")])
    assert failed == {Todo("a", "masks", 0): f"tile {tile}: poisoned"}
    done = tiles_found(stage_paths(tmp_path, "masks"), 0)[1]
    assert done == set(range(N_TILES)) - {tile}
    assert stage_paths(tmp_path, "masks").done(1).exists()
    assert not stage_paths(tmp_path, "paint").root.exists()
    # Once mended only that one is made.
    assert spread(pool, tmp_path, steps(2, stages=("masks", "paint"))) == {}
    assert stored(tmp_path, "paint", 2) == {key: b"%d" % key for key in range(2 * N_TILES)}


def test_two_tiles_that_fail_are_both_named(pool, tmp_path):
    (said,) = spread(pool, tmp_path, steps(1), [(1, "raises"), (2, "raises")]).values()
    assert said.endswith("(tiles not done: 1, 2)")
    assert tiles_found(stage_paths(tmp_path, "masks"), 0)[1] == {0, 3, 4, 5}


def test_a_tile_that_kills_its_worker_is_named_and_all_others_are_done(pool, tmp_path):
    failed = spread(pool, tmp_path, steps(4), [(2, "dies")])
    assert list(failed) == [Todo("a", "masks", 0)]
    assert failed[Todo("a", "masks", 0)].startswith("its worker died at tile 2, ")
    token, done = tiles_found(stage_paths(tmp_path, "masks"), 0)
    assert done == set(range(N_TILES)) - {2}
    assert TRIES < token <= TRIES + 3
    assert all(stage_paths(tmp_path, "masks").done(batch).exists() for batch in (1, 2, 3))


def test_workers_that_are_killed_are_replaced_and_nothing_is_made_twice(pool, tmp_path):
    faults = [(tile, "dies once") for tile in (1, 8, 9, 21)]
    assert spread(pool, tmp_path, steps(4), faults) == {}
    assert stored(tmp_path, "masks", 4) == {key: b"%d" % key for key in range(4 * N_TILES)}
    for batch in range(4):  # each attempt has what the others have not
        ledgers = stage_paths(tmp_path, "masks").root.glob(f"ledger/{batch:04d}.*.jsonl")
        lines = [json.loads(line) for file in ledgers for line in file.read_text().splitlines()]
        assert len(lines) == N_TILES


def test_the_work_is_shown_while_it_runs_to_this_machine_alone(pool, tmp_path):
    said = json.loads((pool[1] / "runs" / "dashboards" / "run.json").read_text())
    address, port = said["address"], said["address"].split(":")[2].split("/")[0]
    assert address == f"http://127.0.0.1:{port}/status"
    assert said["tunnel"].startswith(f"ssh -N -L {port}:127.0.0.1:{port} ")
    todo = steps(1)
    thread = threading.Thread(target=spread, args=(pool, tmp_path, todo, [(0, "waits")]))
    thread.start()
    try:
        while not (tmp_path / "waits-0").exists():
            time.sleep(0.02)
        for page, wanted in (("health", b"ok"), ("status", b"bokeh"), ("workers", b"bokeh")):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=60) as answer:
                assert answer.status == 200
                assert wanted in answer.read().lower()
    finally:
        (tmp_path / "go on").touch()
        thread.join()
    assert len(todo) == 0


def test_who_has_not_the_key_is_sent_away(pool):
    address = pool[0].client.scheduler.address
    assert address.startswith("tls://127.0.0.1:")
    host, port = address.removeprefix("tls://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as plain:
        plain.settimeout(30)
        plain.sendall(b"\0" * 64)
        try:
            answer = plain.recv(1024)
        except ConnectionResetError:
            answer = b""
    assert answer == b"" or answer[0] == 21  # an alert of TLS
    (folder,) = (pool[1] / "runs" / ".cache").glob("tls-*")
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_job_that_another_process_still_works_on_is_waited_for(pool, tmp_path):
    """The scheduler gave up a worker that is only slow: its batch is taken when it ends."""
    first = threading.Thread(target=spread, args=(pool, tmp_path, steps(1), [(2, "waits")]))
    first.start()
    while not (tmp_path / "waits-2").exists():
        time.sleep(0.02)
    slow = int((tmp_path / "waits-2").read_text())
    os.kill(slow, signal.SIGSTOP)
    second = threading.Thread(target=spread, args=(pool, tmp_path, steps(1)))
    second.start()
    time.sleep(3)
    assert second.is_alive()
    os.kill(slow, signal.SIGKILL)
    second.join()
    (tmp_path / "go on").touch()
    first.join()
    assert stored(tmp_path, "masks", 1) == {key: b"%d" % key for key in range(N_TILES)}


@pytest.mark.parametrize(
    ("sections", "n_jobs", "expected"),
    [
        ({"resources": {"threads": 2}}, 99, Needs("local", 4, 2, 3_500_000_000)),
        ({"dask": {"workers": 3}}, 99, Needs("local", 3, 2, 3_500_000_000)),
        ({"dask": {"workers": 3}}, 2, Needs("local", 2, 4, 3_500_000_000)),
        ({"resources": {"memory_gb": 1.0}}, 99, Needs("local", 8, 1, 2_000_000_000)),
        (
            {"dask": {"cluster": "slurm", "workers": 16}, "resources": {"device": "cuda"}},
            99,
            Needs("slurm", 16, 4, 3_500_000_000, on_gpu=True),
        ),
    ],
)
def test_workers_are_as_many_as_fit(monkeypatch, sections, n_jobs, expected):
    monkeypatch.setattr("cellseg_pipe.engines._dask_needs.available_bytes", lambda: 64 * 10**9)
    resources = {"device": "cpu"} | sections.get("resources", {})
    said = {"images": [{"path": "a.tif"}], "output": {"dir": "out"}}
    chosen = experiment_of(said | sections | {"resources": resources})
    assert needs_of(chosen, n_jobs=n_jobs, cores=8) == expected


def test_few_jobs_have_the_threads_of_several():
    needs = Needs("local", 8, 1, 0)
    assert [needs.threads_for(n) for n in (1, 2, 3, 8, 100)] == [8, 4, 2, 1, 1]
    assert Needs("slurm", 8, 4, 0).threads_for(1) == 4
