"""Problems of an experiment file, in the order of its lines; what they say comes from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ConfigError", "Key", "Problem", "RuleError", "dotted"]

Key = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Parameters
    ----------
    path : tuple of str and int
        Keys that lead to it; numbers from 0 in lists.
    text : str
        What was expected and what was found.
    needs : tuple of tuple
        Further keys that it depends on: where one of these is wrong, this may be no problem.
    line : int, optional
        In the file, from 1, where it is known already.
    """

    path: Key
    text: str
    needs: tuple[Key, ...] = ()
    line: int | None = None


class ConfigError(ValueError):
    """What is wrong with an experiment file, a line for each problem.

    Parameters
    ----------
    message : str
        All of it.
    problems : sequence of Problem
        One by one.
    """

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)

    @classmethod
    def of(
        cls,
        problems: Iterable[Problem],
        *,
        file: Path | None = None,
        lines: Mapping[Key, int] | None = None,
    ) -> ConfigError:
        """Return the error that tells problems in the order of the file.

        Parameters
        ----------
        problems : iterable of Problem
            One or more.
        file : path, optional
            Where they are.
        lines : mapping, optional
            Line of each key.

        Returns
        -------
        ConfigError
            To raise.
        """
        placed = sorted(
            dict.fromkeys((problem.line or _line(problem.path, lines or {}), problem)
                          for problem in problems),
            key=lambda pair: pair[0],
        )  # fmt: skip
        rows = []
        for line, problem in placed:
            where = (f"{file}:{line}: " if line else f"{file}: ") if file else ""
            rows.append(f"{where}{dotted(problem.path)} {problem.text}".replace("  ", " "))
        if len(rows) == 1:
            return cls(rows[0].strip(), [placed[0][1]])
        name = file or "the experiment"
        return cls("\n  ".join([f"{len(rows)} problems in {name}:", *rows]), [p for _, p in placed])


class RuleError(ValueError):
    """Sections that are right one by one and do not fit together.

    Parameters
    ----------
    problems : sequence of Problem
        One or more.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{dotted(p.path)} {p.text}" for p in problems))
        self.problems = tuple(problems)


def dotted(path: Key) -> str:
    """Return keys as a user writes them, `images[0].path`.

    Parameters
    ----------
    path : tuple of str and int
        The keys.

    Returns
    -------
    str
        Nothing for the whole file.
    """
    shown = (k if isinstance(k, int) or k.isprintable() else ascii(k) for k in path)
    return "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in shown).removeprefix(".")


def _line(path: Key, lines: Mapping[Key, int]) -> int:
    """Return the line of a key, or of what holds it; 0 where nothing is known."""
    for end in range(len(path), -1, -1):
        if path[:end] in lines:
            return lines[path[:end]]
    return 0
