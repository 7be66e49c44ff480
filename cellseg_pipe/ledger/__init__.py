"""Keeps the finished tiles of a batch through any crash: claims, data, ledgers, done files.

An attempt on a batch takes a claim with a fencing token and appends what it finishes to a data file
and a ledger of its own; the next attempt takes over all that is whole. Every step is on the disk
before the next one says so, so a process may be killed, or the power cut, between any two.
"""

from cellseg_pipe.ledger._batch import Batch, Sync, open_batch, passing_over
from cellseg_pipe.ledger._claims import Holder
from cellseg_pipe.ledger._crash import CRASH_SITES, crash_point
from cellseg_pipe.ledger._done import Done, Segment, read_done
from cellseg_pipe.ledger._errors import Corrupt, Fenced, Held, LedgerError, NotDone, StageFiles
from cellseg_pipe.ledger._files import write_whole
from cellseg_pipe.ledger._lock import RunLock
from cellseg_pipe.ledger._progress import Active, Progress, progress, tiles_found
from cellseg_pipe.ledger._records import Records
from cellseg_pipe.ledger._stop import STATUS, Stopped, stop_in_time

__all__ = [
    "CRASH_SITES",
    "Active",
    "Batch",
    "Corrupt",
    "Done",
    "Fenced",
    "Held",
    "Holder",
    "LedgerError",
    "NotDone",
    "Progress",
    "Records",
    "RunLock",
    "STATUS",
    "Segment",
    "StageFiles",
    "Stopped",
    "Sync",
    "crash_point",
    "open_batch",
    "passing_over",
    "progress",
    "read_done",
    "stop_in_time",
    "tiles_found",
    "write_whole",
]
