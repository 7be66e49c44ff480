"""Which jobs of a run can start, as others are done. Names only: nothing runs here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cellseg_pipe.stages._run_layout import RunLayout, StageLayout

__all__ = ["Steps", "Todo", "steps_of"]

Step = tuple[str, str]  # unit and stage


@dataclass(frozen=True)
class Todo:
    """One batch of one stage of a unit.

    Parameters
    ----------
    unit : str
        Name of the unit.
    stage : str
        Name of the stage.
    batch : int
        Which batch.
    """

    unit: str
    stage: str
    batch: int

    def __str__(self) -> str:
        """Return how people call it."""
        return f"{self.unit}: {self.stage}, batch {self.batch}"


class Steps:
    """Stages that are open, each of which waits for those that it needs.

    Parameters
    ----------
    open_stages : iterable
        Unit, stage and batches to do, as `stages.layout.open_stages` gives them.
    """

    def __init__(self, open_stages: Iterable[tuple[str, StageLayout, list[int]]]) -> None:
        found = [(unit, stage, batches) for unit, stage, batches in open_stages]
        self._left = {(unit, stage.name): set(batches) for unit, stage, batches in found}
        self._batches = {(unit, stage.name): batches for unit, stage, batches in found}
        self._waits: dict[Step, set[Step]] = {}
        self._after: dict[Step, list[Step]] = {}
        for unit, stage, _ in found:
            step = (unit, stage.name)
            needs = {_step(need, unit) for need in stage.needs} & self._left.keys()
            self._waits[step] = needs
            for need in needs:
                self._after.setdefault(need, []).append(step)
        self._ready = [step for step, needs in self._waits.items() if not needs]

    def __len__(self) -> int:
        return sum(len(batches) for batches in self._left.values())

    def most(self) -> int:
        """Return the jobs of the largest stage, which may run side by side."""
        return max((len(batches) for batches in self._left.values()), default=0)

    def ready(self) -> Iterator[Todo]:
        """Yield the jobs that can start and were not yielded before."""
        ready, self._ready = self._ready, []
        for step in ready:
            del self._waits[step]
            yield from (Todo(*step, batch) for batch in self._batches[step])

    def done(self, todo: Todo) -> None:
        """Take a job from the list.

        Parameters
        ----------
        todo : Todo
            That has been yielded.
        """
        step = (todo.unit, todo.stage)
        self._left[step].discard(todo.batch)
        if not self._left[step]:
            del self._left[step]
            for after in self._after.get(step, []):
                self._waits[after].discard(step)
                if not self._waits[after]:
                    self._ready.append(after)

    def waiting(self) -> dict[str, str]:
        """Return the units that are left, each with the stage of another unit that it waits for."""
        found: dict[str, str] = {}
        for (unit, _), needs in self._waits.items():
            others = sorted(f"{name}: {stage}" for name, stage in needs if name != unit)
            if others:
                found.setdefault(unit, others[0])
        return found


def _step(need: str, unit: str) -> Step:
    other, _, stage = need.rpartition("/")
    return other or unit, stage


def steps_of(layout: RunLayout, unit: str, stage: str) -> Steps:
    """Return the jobs of one stage, which nothing keeps from starting.

    Parameters
    ----------
    layout : RunLayout
        The run.
    unit, stage : str
        Their names.

    Returns
    -------
    Steps
        Those that are not done.
    """
    names = layout.outputs(unit, stage)
    left = [n for n, name in enumerate(names) if not (layout.root / name).exists()]
    found = layout.unit(unit)
    return Steps([(found.name, found.stage(stage), left)] if left else [])
