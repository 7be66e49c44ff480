"""What can go wrong with a ledger, and what a ledger asks of a stage's paths."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

__all__ = ["Corrupt", "Fenced", "Held", "LedgerError", "NotDone", "StageFiles"]


class LedgerError(RuntimeError):
    """Something is not as the ledger needs it; the message says what to do."""


class Held(LedgerError):
    """Another process works on this batch or run."""


class Fenced(LedgerError):
    """Another process has taken this batch over."""


class NotDone(LedgerError):
    """A batch has no done file yet."""


class Corrupt(LedgerError):
    """What a done file names is not there, or not as it was written."""


class StageFiles(Protocol):
    """The file names that a ledger needs; `paths.StagePaths` has them."""

    @property
    def title(self) -> str:
        """What messages call the stage."""

    @property
    def root(self) -> Path:
        """Folder of the stage."""

    def claim(self, batch: int, token: int) -> Path:
        """Return the claim of an attempt."""

    def data(self, batch: int, token: int) -> Path:
        """Return the data file of an attempt."""

    def ledger(self, batch: int, token: int) -> Path:
        """Return the ledger of an attempt."""

    def done(self, batch: int) -> Path:
        """Return the done file of a batch."""

    def attempts(self) -> dict[int, tuple[int, ...]]:
        """Return the tokens of each batch, ascending."""
