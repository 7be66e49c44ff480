"""Files that stand for all outputs of a stage, where many jobs wait for many."""

from __future__ import annotations

from typing import Any

from cellseg_pipe.stages._run_layout import RunLayout

__all__ = ["Gates"]

# The workflow manager compares each input of a gate with the gate, once for each job behind it: a
# gate of thousands of files before thousands of jobs has parts, and stands for these.
PART = 128


class Gates:
    """What stands for the jobs of a stage, and what for a part of them.

    Parameters
    ----------
    layout : RunLayout
        The run.
    """

    def __init__(self, layout: RunLayout) -> None:
        self._layout = layout

    @property
    def whole(self) -> str:
        """What stands for all outputs of a stage, with wildcards."""
        return self._layout.pattern("{stage}").replace("{batch}.json", "all")

    @property
    def part(self) -> str:
        """What stands for some of them."""
        return f"{self.whole}-{{part}}"

    def inputs(self, wildcards: Any) -> list[str]:
        """Return what a gate stands for.

        Parameters
        ----------
        wildcards : Wildcards
            Of the gate.

        Returns
        -------
        list of str
            Outputs of the stage, or the parts of the gate.
        """
        outputs = self._layout.outputs(wildcards.unit, wildcards.stage)
        if len(outputs) <= PART:
            return outputs
        gate = self._layout.gate(wildcards.unit, wildcards.stage)
        return [f"{gate}-{part}" for part in range(-(-len(outputs) // PART))]

    def inputs_of_part(self, wildcards: Any) -> list[str]:
        """Return what a part of a gate stands for.

        Parameters
        ----------
        wildcards : Wildcards
            Of the part.

        Returns
        -------
        list of str
            Outputs of the stage.
        """
        outputs = self._layout.outputs(wildcards.unit, wildcards.stage)
        first = int(wildcards.part) * PART
        return outputs[first : first + PART]
