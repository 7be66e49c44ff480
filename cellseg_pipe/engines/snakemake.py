"""What the workflow's rules ask of a run: names of files, and what a job will take."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cellseg_pipe.ledger import RunLock
from cellseg_pipe.stages.layout import RunLayout, layout_of, read_layout

__all__ = ["SNAKEFILE", "Workflow"]

SNAKEFILE = Path(__file__).parents[2] / "Snakefile"
LAYOUT = "CELLSEG_LAYOUT"  # tells jobs which file to read
LEAST_MB = 1500  # Python with its libraries, and what the workflow manager takes beside it
LEAST_MINUTES = 20
MARGIN = 1.5  # of predicted minutes


class Workflow:
    """A run as the rules see it.

    Parameters
    ----------
    config : mapping
        What Snakemake has read.
    workflow : Workflow
        Snakemake's own.
    """

    def __init__(self, config: Mapping[str, Any], workflow: Any) -> None:
        self._lock: RunLock | None = None
        self._layout = self._read(config, workflow)

    def _read(self, config: Mapping[str, Any], workflow: Any) -> RunLayout:
        """Return the layout: made by the main process, read by its jobs on any node."""
        if workflow.is_main_process:
            files = [str(file) for file in getattr(workflow, "configfiles", [])]
            layout = layout_of(config, source=files[-1] if files else None)
            os.environ[LAYOUT] = str(layout.file)
            return layout
        return read_layout(os.environ.get(LAYOUT, Path.cwd()))

    @property
    def root(self) -> str:
        """Folder of the results: Snakemake keeps its own state there, too."""
        return str(self._layout.root)

    @property
    def config(self) -> str:
        """The experiment in effect."""
        return str(self._layout.config)

    @property
    def marker(self) -> str:
        """What says that the run is finished."""
        return str(self._layout.marker)

    @property
    def audits(self) -> list[str]:
        """What says that each unit is finished."""
        return [self._layout.outputs(unit.name, "audit")[0] for unit in self._layout.units]

    @property
    def threads(self) -> int:
        """Threads of a job."""
        said = self._experiment("resources").get("threads", "auto")
        return (os.cpu_count() or 1) if said == "auto" else int(said)

    @property
    def gpus(self) -> int:
        """GPUs of a job that runs the network."""
        return int(self._experiment("resources").get("device") == "cuda")

    def _experiment(self, section: str) -> dict[str, Any]:
        import yaml

        return yaml.safe_load(self._layout.config.read_text()).get(section) or {}

    def pattern(self, stage: str) -> str:
        """Return the output of a rule.

        Parameters
        ----------
        stage : str
            Name of the stage.

        Returns
        -------
        str
            With wildcards.
        """
        return self._layout.pattern(stage)

    def inputs(self, stage: str) -> Callable[[Any], list[str]]:
        """Return what gives the inputs of a rule.

        Parameters
        ----------
        stage : str
            Name of the stage; "level" takes the number from the wildcards.

        Returns
        -------
        callable
            From wildcards to files.
        """

        def needed(wildcards: Any) -> list[str]:
            name = f"level{wildcards.level}" if stage == "level" else stage
            return self._layout.inputs(wildcards.unit, name)

        return needed

    def log(self, stage: str) -> str:
        """Return the log of a rule.

        Parameters
        ----------
        stage : str
            Name of the stage.

        Returns
        -------
        str
            With the wildcards of its output.
        """
        return self._beside(stage, "log")

    def benchmark(self, stage: str) -> str:
        """Return the file of a rule's time and memory.

        Parameters
        ----------
        stage : str
            Name of the stage.

        Returns
        -------
        str
            With the wildcards of its output.
        """
        return self._beside(stage, "tsv")

    def _beside(self, stage: str, ending: str) -> str:
        batch = ".{batch}" if "{batch}" in self.pattern(stage) else ""
        return f"{self._layout.paths.logs}/{{unit}}/{stage}-{{digest}}{batch}.{ending}"

    def log_of(self, name: str) -> str:
        """Return the log of a rule without wildcards.

        Parameters
        ----------
        name : str
            Of the rule.

        Returns
        -------
        str
            The file.
        """
        return f"{self._layout.paths.logs}/{name}-{self._layout.digest}.log"

    def memory_mb(self, stage: str) -> Callable[..., int]:
        """Return what gives the memory of a job, from its plan where that is there.

        Parameters
        ----------
        stage : str
            Name of the stage.

        Returns
        -------
        callable
            From wildcards and attempt to MB; more with each attempt.
        """

        def needed(wildcards: Any, attempt: int = 1) -> int:
            said = self._planned(wildcards.unit).get(f"{stage}_bytes", 0)
            return math.ceil(max(LEAST_MB, said / 1e6 + LEAST_MB / 3) * 1.5 ** (attempt - 1))

        return needed

    def minutes(self, stage: str) -> Callable[..., int]:
        """Return what gives the run time of a job, from its plan where that is there.

        Parameters
        ----------
        stage : str
            Name of the stage.

        Returns
        -------
        callable
            From wildcards and attempt to minutes; more with each attempt.
        """

        def needed(wildcards: Any, attempt: int = 1) -> int:
            said = self._planned(wildcards.unit).get(f"{stage}_s", 0) / 60 * MARGIN
            return math.ceil(max(LEAST_MINUTES, said) * attempt)

        return needed

    def _planned(self, unit: str) -> dict[str, float]:
        """Return what the plans of a unit predict; nothing before they are made."""
        found: dict[str, float] = {}
        path = self._layout.files(unit, "tiles").plan
        for cost in json.loads(path.read_text())["predicted"] if path.exists() else ():
            found[f"{cost['stage']}_bytes"] = cost["memory_bytes"]
            found[f"{cost['stage']}_s"] = cost["seconds"] / cost["n_jobs"]
        return found

    def begin(self) -> None:
        """Keep other runs from this folder."""
        self._lock = RunLock(self._layout.paths.run_lock, job="snakemake")
        self._lock.__enter__()

    def end(self) -> None:
        """Let other runs have it."""
        if self._lock is not None:
            self._lock.__exit__(None, None, None)
            self._lock = None
