"""What a check of a store finds, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["KNOWN", "Finding", "Report"]

KNOWN = {"0.4": 2, "0.5": 3}  # and the Zarr format that each is written in


@dataclass(frozen=True)
class Finding:
    """Something that is not as the standard wants it.

    Parameters
    ----------
    level : {"error", "warning"}
        Against what must be, or what should be.
    where : str
        Group or array and the place in its metadata.
    what : str
        What was expected and what was found.
    mend : str
        What to do.
    """

    level: Literal["error", "warning"]
    where: str
    what: str
    mend: str

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.level}: {self.where}: {self.what}. {self.mend}"


class Report:
    """Collects findings of one group.

    Parameters
    ----------
    where : str
        The group.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.findings: list[Finding] = []

    def error(self, place: str, what: str, mend: str) -> None:
        """Note what must be otherwise."""
        self.findings.append(Finding("error", self._at(place), what, mend))

    def warning(self, place: str, what: str, mend: str) -> None:
        """Note what should be otherwise."""
        self.findings.append(Finding("warning", self._at(place), what, mend))

    def _at(self, place: str) -> str:
        return " ".join(part for part in (self.where, place) if part)
