"""One run at a time in an output folder."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import TracebackType

from cellseg_pipe.ledger._claims import Holder, create_claim, patient_holder, release_claim
from cellseg_pipe.ledger._errors import Held
from cellseg_pipe.ledger._files import make_folder

__all__ = ["RunLock"]

log = logging.getLogger(__name__)


class RunLock:
    """A lock on an output folder, to be used in a `with` statement.

    A holder that died on this machine is followed at once. Who holds it is written to `PATH.n`; the
    file with the highest n is never removed, so two that find a dead holder cannot both follow it.

    Parameters
    ----------
    path : path
        `RunPaths.run_lock`.
    job : str
        What the holder says of itself.
    """

    def __init__(self, path: Path | str, *, job: str = "") -> None:
        self._path = Path(path)
        self._job = job
        self._mine: Path | None = None

    def __enter__(self) -> RunLock:
        """Take the lock, or raise `Held`."""
        make_folder(self._path.parent)
        me = Holder.me(self._job)
        while True:
            number = max(self._numbers(), default=0)
            if number:
                self._check_free(self._file(number))
            mine = self._file(number + 1)
            if not create_claim(mine, me):
                continue
            if max(self._numbers(), default=0) == number + 1:
                break
            mine.unlink(missing_ok=True)  # others came and went since we looked: look again
        for old in self._numbers():
            if old <= number:
                self._file(old).unlink(missing_ok=True)
        self._mine = mine
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go."""
        if self._mine is not None:
            release_claim(self._mine)
        self._mine = None

    def holder(self) -> Holder | None:
        """Return who holds the lock; None if nobody does, or if the holder died here."""
        numbers = self._numbers() if self._path.parent.is_dir() else []
        holder = patient_holder(self._file(max(numbers))) if numbers else None
        if holder is None or holder.released or holder.alive is False:
            return None
        return holder

    def _file(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _numbers(self) -> list[int]:
        pattern = re.compile(re.escape(self._path.name) + r"\.(\d+)")
        found = (pattern.fullmatch(path.name) for path in self._path.parent.iterdir())
        return [int(match[1]) for match in found if match]

    def _check_free(self, path: Path) -> None:
        holder = patient_holder(path)
        if holder is None:
            log.warning("%s cannot be read, its maker died; going on", path)
            return
        if holder.released or holder.alive is False:
            return
        if holder.alive:
            raise Held(
                f"this output folder is in use by {holder}. Wait for it or end it, or choose"
                " another output folder."
            )
        raise Held(
            f"this output folder is in use by {holder}. That is another machine, so nobody here can"
            f" tell whether it still runs. If it does not, remove {path} and start again."
        )
