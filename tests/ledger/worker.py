"""A process that works on batches and may be killed. Run as `python -m tests.ledger.worker`."""

import importlib
import os
import sys
import zlib
from pathlib import Path

from cellseg_pipe.ledger import Fenced, RunLock, Sync, _crash, open_batch, write_whole
from cellseg_pipe.paths import RunPaths

DIGEST = "0123456789ab"
N_BATCHES = 3
PER_BATCH = 10
SYNC = Sync(every_tiles=4, every_s=1e9)


def stage_of(root):
    return RunPaths(root).unit("s1").stage("masks", DIGEST)


def keys_of(batch):
    """Not ascending, and apart: batch 1 has 1010, 1007, ... ."""
    return [1000 * batch + (7 * i) % PER_BATCH for i in range(PER_BATCH)]


def blob_of(key):
    """Every fourth tile is blank; the others have 1 to 3000 bytes."""
    if key % 4 == 0:
        return b""
    return (b"%d," % key) * (1 + 37 * key % 500)


def info_of(key):
    return {"n_cells": key % 7, "line": 'a"}\nb', "box": [[key, 0], [key + 1, 2]]}


def add(batch, key):
    blob = blob_of(key)
    half = len(blob) // 2
    batch.add(key, [blob[:half], memoryview(blob)[half:]], blank=not blob, info=info_of(key))


def work(root, log):
    """Do what is missing of all batches; the log tells what is computed, also after a kill."""
    stage = stage_of(root)
    for number in range(N_BATCHES):
        with open_batch(stage, number, keys_of(number), sync=SYNC) as batch:
            for key in batch.missing:
                os.write(log, b"%d\n" % key)
                add(batch, key)
            batch.finish()


def whole_ledger_keys(stage):
    """The tiles that ledgers tell of, read without the code under test."""
    found = set()
    for path in sorted((stage.root / "ledger").glob("*.jsonl")):
        for line in path.read_bytes().split(b"\n"):
            body, found_at, rest = line.rpartition(b',"line":"')
            if found_at and rest[8:] == b'"}' and int(rest[:8], 16) == zlib.crc32(body):
                found.add(int(body.split(b'"key":')[1].split(b",")[0]))
    return found


def hold(root):
    """Add three tiles, wait for a line of input, go on."""
    with open_batch(stage_of(root), 0, keys_of(0), job="holder", sync=SYNC) as batch:
        for key in batch.missing[:3]:
            add(batch, key)
        print("ready", flush=True)
        sys.stdin.readline()
        try:
            for key in batch.missing:
                add(batch, key)
            batch.finish()
        except Fenced as error:
            print(error, flush=True)


def race(root):
    """Do batch 0 whoever else does."""
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        with open_batch(stage_of(root), 0, keys_of(0), takeover=True) as batch:
            for key in batch.missing:
                add(batch, key)
            print("done", batch.finish().checksum, flush=True)
    except Fenced:
        print("fenced", flush=True)


def whole(root):
    for version in b"abcd":
        write_whole(Path(root) / "folder" / "file", bytes([version]) * 1000)


def lock(path):
    with RunLock(path):
        pass


def main(mode, root, crash=None):
    if crash is not None:  # in a process that has imported the ledger already
        os.environ["CELLSEG_CRASH"] = crash
        importlib.reload(_crash)
    if mode == "work":
        work(root, os.open(os.path.join(root, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    else:
        {"hold": hold, "race": race, "whole": whole, "lock": lock}[mode](root)


if __name__ == "__main__":
    main(*sys.argv[1:])
