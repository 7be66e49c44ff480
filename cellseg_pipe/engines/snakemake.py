"""What the workflow's rules ask of a run: names of files, and what a job will take."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from cellseg_pipe.engines._queue import settle_orphans
from cellseg_pipe.engines._snakemake_branches import (
    Asked,
    Branches,
    ask,
    asked_before,
    workflow_error,
)
from cellseg_pipe.engines._snakemake_gates import Gates
from cellseg_pipe.engines._snakemake_needs import Needs, container_of
from cellseg_pipe.engines._snakemake_spread import Spreading
from cellseg_pipe.engines._snakemake_state import lock_of_run, log_in
from cellseg_pipe.ledger import Held, RunLock
from cellseg_pipe.site import Site, load_site
from cellseg_pipe.stages.layout import forget_failures
from cellseg_pipe.stages.on_finish import tell
from cellseg_pipe.stages.room import check_room

__all__ = ["SNAKEFILE", "Workflow", "on_cluster"]

SNAKEFILE = Path(__file__).parents[2] / "Snakefile"
NO_DIRECTORY = (
    "--directory needs to be left out: a run keeps its state in its own folder, which is output.dir"
    " of the experiment file."
)


def on_cluster(workflow: Any) -> bool:
    """Tell whether jobs run on other machines.

    The rules are read before the executor is known, but its settings are there: on a cluster jobs
    are limited, not cores, or the profile has defaults for jobs. Jobs of a cluster start the
    workflow manager again, which runs them as on a machine of its own.

    Parameters
    ----------
    workflow : Workflow
        Snakemake's own.

    Returns
    -------
    bool
        Whether there is a cluster.
    """
    settings = workflow.resource_settings
    if settings.nodes is None:
        return not workflow.is_main_process
    return settings.cores is None or settings.default_resources is not None


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
        self._inputs: dict[tuple[str, str], list[str]] = {}
        self._job = os.environ.get("SLURM_JOB_ID")  # the executor takes it out of the environment
        self._asked = self._read(config)
        self._layout = self._asked.layout
        self._site = self._read_site() if on_cluster(workflow) else None
        self._needs = Needs(self._layout, self._site)
        self.threads, self.resources = self._needs.threads, self._needs.resources
        self.page_resources = self._needs.page()
        self.spreading = Spreading(self._layout, self._needs)
        self.gates = Gates(self._layout)
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

    def resources_of_branch(self, name: str) -> dict[str, Any]:
        """Return the resources of a branch.

        Parameters
        ----------
        name : {"train", "evaluate"}
            Which one.

        Returns
        -------
        dict
            As of a stage.
        """
        minutes = self._needs.capped(self.branches.minutes(name))
        found = {"mem_mb": self.branches.memory_mb(name), "runtime": minutes}
        return found | self._needs.place(network=name == "train")

    def _read_site(self) -> Site:
        """Return what the cluster is like, and have no more jobs in its queue than it wants."""
        try:
            site = load_site()
        except (OSError, ValueError) as error:
            raise workflow_error(str(error)) from None
        known = self._workflow.global_resources
        if site.max_jobs is not None and self._workflow.is_main_process:
            known["_nodes"] = min(site.max_jobs, known["_nodes"].value)
        return site

    @property
    def container(self) -> str | None:
        """Image in which jobs run; None unless that is asked for."""
        methods = self._workflow.deployment_settings.deployment_method
        if not any(each.name == "APPTAINER" for each in methods):
            return None
        return container_of(self._read_site())

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
    def goals(self) -> list[str]:
        """What a start without a target makes."""
        return [self.branches.trained] if self.branches.trains else [self.marker, self.page]

    @property
    def page(self) -> str:
        """The page for people."""
        return self._layout.inside(self._layout.paths.report)

    @property
    def audits(self) -> list[str]:
        """What says that each unit is finished."""
        return self._layout.ends

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
            Name of the stage; its number, if it has one, is taken from the wildcards.

        Returns
        -------
        callable
            From wildcards to files.
        """

        def needed(wildcards: Any) -> list[str]:
            name = f"{stage}{getattr(wildcards, 'number', '')}"
            asked = wildcards.unit, name
            if asked not in self._inputs:  # of all jobs of a stage: there may be thousands
                self._inputs[asked] = self._layout.inputs(*asked)
            return self._inputs[asked]

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

    def begin(self) -> None:
        """Keep other runs from this folder, and make it that of this one."""
        try:
            self._lock = lock_of_run(self._layout.paths, settle=self._settle)
            check_room(self._layout)
            forget_failures(self._layout)
        except (Held, ValueError) as error:
            self.end()
            raise workflow_error(str(error)) from None
        self._asked.keep()

    def _settle(self) -> None:
        if self._site is not None:
            settle_orphans(self._layout.root, self._site.orphans, besides=self._job)

    def succeed(self) -> None:
        """Let other runs have the folder, and tell whom the experiment names."""
        self.end()
        self._tell("finished")

    def fail(self) -> None:
        """Say and show what could not be segmented, free the folder, and tell likewise."""
        try:
            self._say_failed()
        finally:
            self.end()
        self._tell("failed")

    def _tell(self, status: Literal["finished", "failed"]) -> None:
        if fault := tell(self._asked.on_finish, self._layout, status=status):
            self._workflow.logger_manager.logger.warning(fault)

    def _say_failed(self) -> None:
        from cellseg_pipe.stages.audit import Incomplete  # here: most runs do without
        from cellseg_pipe.stages.summary import SomeFailed, finish

        done = (self._layout.audit(name).plan.exists() for name in self._layout.audits)
        if not any(done):  # nothing to sum up: the job's own words say what is wrong
            return
        try:
            finish(self._layout, self._layout.config.read_text())
        except SomeFailed as error:
            self._workflow.logger_manager.logger.error(str(error))
            # A page of what was done, and of why the rest was not.
            program = [sys.executable, "-m", "cellseg_pipe.cli", "report", self.root]
            subprocess.run(program, check=False, capture_output=True)
        except (Incomplete, OSError) as error:  # the next start goes on
            self._workflow.logger_manager.logger.debug(str(error))

    def end(self) -> None:
        """Let other runs have it."""
        if self._lock is not None:
            self._lock.__exit__(None, None, None)
            self._lock = None
