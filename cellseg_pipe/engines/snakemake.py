"""What the workflow's rules ask of a run: names of files, and what a job will take."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cellseg_pipe.engines._snakemake_branches import (
    Asked,
    Branches,
    ask,
    asked_before,
    workflow_error,
)
from cellseg_pipe.engines._snakemake_state import lock_of_run, log_in
from cellseg_pipe.ledger import Held, RunLock
from cellseg_pipe.machine import available_bytes, available_threads
from cellseg_pipe.paths import safe_name
from cellseg_pipe.stages._run_layout import BUNDLE, SMALL
from cellseg_pipe.stages.costs import planned_costs
from cellseg_pipe.stages.layout import forget_failures
from cellseg_pipe.stages.room import check_room

__all__ = ["SNAKEFILE", "Workflow"]

SNAKEFILE = Path(__file__).parents[2] / "Snakefile"
LEAST_MB = 1500  # Python with its libraries, and what the workflow manager takes beside it
BESIDE_MB = 500
LEAST_MINUTES = 20
MARGIN = 1.5  # of predicted minutes
GROWTH = 1.5  # of memory with each attempt
CLUSTER_THREADS = 4  # of a job, where the machine that starts it says nothing of those that run it
NO_DIRECTORY = (
    "--directory needs to be left out: a run keeps its state in its own folder, which is output.dir"
    " of the experiment file."
)
# Stages that are not predicted themselves, and those that they resemble.
LIKE = dict.fromkeys(("seams", "number", "link", "chain"), "masks")
LIKE |= {"level": "paint", "sift": "paint", "judge": "measure", "audit": "measure"}
LIKE |= {"overlap": "paint", "match": "masks", "compartments": "measure"}
NUMBERED = ("level", "bundle")  # the number of such a stage is a wildcard


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
        self._workflow = workflow
        self._lock: RunLock | None = None
        self._bundles: dict[str, Any] = {}
        self._known: dict[str, dict[str, Mapping[str, float]]] = {}
        self._asked = self._read(config)
        self._layout = self._asked.layout
        # Jobs are run by the program of this very environment, active or not.
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def _read(self, config: Mapping[str, Any]) -> Asked:
        """Return what is asked: laid out by the main process, read by its jobs on any node."""
        if not self._workflow.is_main_process:
            return asked_before()
        manager = self._workflow.logger_manager
        files = [str(file) for file in self._workflow.configfiles]
        try:
            if self._workflow.overwrite_workdir is not None:
                raise ValueError(NO_DIRECTORY)
            asked = ask(config, source=files[-1] if files else None)
        except (OSError, TypeError, ValueError) as error:
            log_in(None, manager)
            raise workflow_error(str(error)) from None
        log_in(asked.layout.root, manager)
        return asked

    @property
    def root(self) -> str:
        """Folder of the results: Snakemake keeps its own state there, too."""
        return str(self._layout.root)

    @property
    def config(self) -> str:
        """The experiment in effect."""
        return self._layout.inside(self._layout.config)

    @property
    def marker(self) -> str:
        """What says that the run is finished."""
        return self._layout.inside(self._layout.marker)

    @property
    def branches(self) -> Branches:
        """What trains and what scores."""
        return self._asked.branches

    @property
    def goal(self) -> str:
        """What a start without a target makes."""
        return self.branches.trained if self.branches.trains else self.marker

    @property
    def audits(self) -> list[str]:
        """What says that each unit is finished."""
        return self._layout.ends

    @property
    def gpus(self) -> int:
        """GPUs of a job that runs the network."""
        return int(self._layout.device == "cuda")

    def threads(self, stage: str) -> Callable[[Any], int]:
        """Return what gives the threads of a job.

        Several jobs of one thread each are faster than one of several threads, so on this machine
        a stage of many jobs has as many of them at a time as cores and memory allow.

        Parameters
        ----------
        stage : str
            Name of the stage.

        Returns
        -------
        callable
            From wildcards to what the experiment says, else a share of this machine, or a few
            threads of another one.
        """

        def needed(wildcards: Any) -> int:
            if self._layout.threads is not None:
                return self._layout.threads
            if not self._workflow.local_exec:
                return CLUSTER_THREADS
            cores = available_threads()
            n_jobs = sum(s.n_batches for _, s in self._layout.jobs() if s.kind == stage)
            if n_jobs <= 1:
                return cores
            memory = available_bytes() or math.inf
            fit = int(min(n_jobs, cores, memory / (self.memory_mb(stage)(wildcards) * 1e6)))
            return cores // max(1, fit)

        return needed

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
            Name of the stage; "level" and "bundle" take the number from the wildcards.

        Returns
        -------
        callable
            From wildcards to files.
        """

        def needed(wildcards: Any) -> list[str]:
            name = f"{stage}{wildcards.number}" if stage in NUMBERED else stage
            return self._layout.inputs(wildcards.unit, name)

        return needed

    @property
    def gate(self) -> str:
        """What stands for all outputs of a stage, with wildcards."""
        return self._layout.pattern("{stage}").replace("{batch}.json", "all")

    def gated(self, wildcards: Any) -> list[str]:
        """Return what a gate stands for.

        Parameters
        ----------
        wildcards : Wildcards
            Of the gate.

        Returns
        -------
        list of str
            Files.
        """
        return self._layout.outputs(wildcards.unit, wildcards.stage)

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
        return f"{self._logs}/{{unit}}/{stage}-{{digest}}{batch}.{ending}"

    @property
    def _logs(self) -> str:
        return self._layout.inside(self._layout.paths.logs)

    def file_of(self, name: str, ending: str) -> str:
        """Return the log or benchmark of a rule without wildcards.

        Parameters
        ----------
        name : str
            Of the rule.
        ending : {"log", "tsv"}
            Which one.

        Returns
        -------
        str
            The file.
        """
        return f"{self._logs}/{name}-{self._layout.digest}.{ending}"

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
            said = self._planned(wildcards, stage).get("memory_bytes", 0)
            return math.ceil(max(LEAST_MB, said / 1e6 + BESIDE_MB) * GROWTH ** (attempt - 1))

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
            said = self._planned(wildcards, stage)
            seconds = said.get("seconds", 0) / max(said.get("n_jobs", 1), 1)
            return math.ceil(max(LEAST_MINUTES, seconds / 60 * MARGIN) * attempt)

        return needed

    def _planned(self, wildcards: Any, stage: str) -> Mapping[str, float]:
        """Return what the plan of a unit predicts of a stage; nothing before it is made."""
        if stage == BUNDLE:
            return self._planned_bundle(f"{stage}{wildcards.number}")
        unit = wildcards.unit
        if unit not in self._known:
            if unit == safe_name(SMALL):
                return {}
            costs = planned_costs(self._layout.files(unit, "tiles"))
            if not costs:
                return {}
            self._known[unit] = {cost["stage"]: cost for cost in costs}
        return self._known[unit].get(LIKE.get(stage, stage), {})

    def _planned_bundle(self, name: str) -> Mapping[str, float]:
        from cellseg_pipe.stages._bundle_costs import bundle_costs  # here: most runs do without

        self._bundles = self._bundles or bundle_costs(self._layout)
        return asdict(self._bundles[name]) if self._bundles else {}

    def begin(self) -> None:
        """Keep other runs from this folder, and make it that of this one."""
        try:
            self._lock = lock_of_run(self._layout.paths)
            check_room(self._layout)
            forget_failures(self._layout)
        except (Held, ValueError) as error:
            self.end()
            raise workflow_error(str(error)) from None
        self._asked.keep()

    def fail(self) -> None:
        """Say what could not be segmented, and let other runs have the folder."""
        from cellseg_pipe.stages.audit import Incomplete  # here: most runs do without
        from cellseg_pipe.stages.summary import SomeFailed, finish

        try:
            finish(self._layout, self._layout.config.read_text())
        except SomeFailed as error:
            self._workflow.logger_manager.logger.error(str(error))
        except (Incomplete, OSError) as error:  # the next start goes on
            self._workflow.logger_manager.logger.debug(str(error))
        finally:
            self.end()

    def end(self) -> None:
        """Let other runs have it."""
        if self._lock is not None:
            self._lock.__exit__(None, None, None)
            self._lock = None
