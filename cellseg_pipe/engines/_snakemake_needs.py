"""What a job of the rules asks of the machine that runs it: from its plan, once there is one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from cellseg_pipe.engines._snakemake_branches import workflow_error
from cellseg_pipe.machine import available_bytes, available_threads
from cellseg_pipe.paths import safe_name
from cellseg_pipe.site import Site
from cellseg_pipe.stages._run_layout import BUNDLE, SMALL, RunLayout, kind_of
from cellseg_pipe.stages.costs import planned_costs

__all__ = ["Needs", "container_of"]

LEAST_MB = 1500  # Python with its libraries, and what the workflow manager takes beside it
BESIDE_MB = 500
LEAST_MINUTES = 20
FIELDS_MINUTES = 60  # of a plan that measures diameters all over an image
PAGE_MB, PAGE_MINUTES = 2500, 60  # of the report, whatever the number of cells
MARGIN = 1.5  # of predicted minutes
GROWTH = 1.5  # of memory with each attempt
CLUSTER_THREADS = 4  # of a job, where the machine that starts it says nothing of those that run it
NETWORK = ("plan", "predict", "bundle", "train", "restore")
# Stages that are not predicted themselves, and those that they resemble.
LIKE = dict.fromkeys(("seams", "number", "link", "chain"), "masks") | {"rivals": "paint"}
LIKE |= {"level": "paint", "sift": "paint", "judge": "measure", "audit": "measure"}
LIKE |= {"overlap": "paint", "match": "masks", "compartments": "measure"}


NO_CONTAINER = (
    "--software-deployment-method apptainer needs an image: build one (envs/cellseg_pipe.def) and"
    " name it in the site file as container: /path/cellseg_pipe.sif, or leave the option out."
)


class Needs:
    """What jobs ask for.

    Parameters
    ----------
    layout : RunLayout
        The run.
    site : Site or None
        The cluster that they run on; None on this machine.
    """

    def __init__(self, layout: RunLayout, site: Site | None) -> None:
        self._layout, self._site = layout, site
        self._bundles: dict[str, Any] = {}
        self._known: dict[str, dict[str, Mapping[str, float]]] = {}

    @property
    def is_local(self) -> bool:
        """Whether jobs run on this machine."""
        return self._site is None

    def resources(self, stage: str) -> dict[str, Any]:
        """Return the resources of a rule.

        Parameters
        ----------
        stage : str
            Name of the stage.

        Returns
        -------
        dict
            Memory and run time; the GPU of what runs the network; what the site says.
        """
        found = {"mem_mb": self.memory_mb(stage), "runtime": self.minutes(stage)}
        return found | self.place(network=stage in NETWORK)

    def place(self, *, network: bool) -> dict[str, Any]:
        """Return where on its cluster a job runs.

        Parameters
        ----------
        network : bool
            Whether it runs the network.

        Returns
        -------
        dict
            Resources as the executor for Slurm names them.
        """
        site, gpus = self._site, self.gpus if network else 0
        if site is None:
            return {"gpu": gpus} if gpus else {}
        parts = [site.gpu, site] if gpus and site.gpu else [site]
        said: dict[str, Any] = {"gpu": gpus} if gpus else {}
        names = {"slurm_partition": "partition", "slurm_account": "account", "qos": "qos"}
        for resource, name in (names | {"slurm_extra": "extra"}).items():
            given = [value for part in parts if (value := getattr(part, name)) is not None]
            said |= {resource: given[0]} if given else {}
        if gpus and site.gpu and site.gpu.model:
            said["gpu_model"] = site.gpu.model
        return said

    @property
    def gpus(self) -> int:
        """GPUs of a job that runs the network."""
        if self._layout.device == "auto" and self._site is not None:
            return int(self._site.gpu is not None)
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
            if self._site is not None:
                return CLUSTER_THREADS
            cores = available_threads()
            n_jobs = sum(s.n_batches for _, s in self._layout.jobs() if s.kind == stage)
            if n_jobs <= 1:
                return cores
            memory = available_bytes() or math.inf
            fit = int(min(n_jobs, cores, memory / (self.memory_mb(stage)(wildcards) * 1e6)))
            return cores // max(1, fit)

        return needed

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
            least = FIELDS_MINUTES if self._measures_fields(wildcards, stage) else LEAST_MINUTES
            return self.capped(math.ceil(max(least, seconds / 60 * MARGIN) * attempt))

        return needed

    def page(self) -> dict[str, Any]:
        """Return the resources of the job that draws the report.

        Returns
        -------
        dict
            As of a stage.
        """

        def needed(_wildcards: Any, attempt: int = 1) -> int:
            return math.ceil(PAGE_MB * GROWTH ** (attempt - 1))

        said = {"mem_mb": needed, "runtime": self.capped(PAGE_MINUTES)}
        return said | self.place(network=False)

    def capped(self, minutes: int) -> int:
        """Return a run time that the site allows: what is not done by then, the next job does.

        Parameters
        ----------
        minutes : int
            What would be asked for.

        Returns
        -------
        int
            No more than the site's longest.
        """
        longest = self._site.walltime_minutes if self._site is not None else None
        return min(minutes, longest or minutes)

    def _measures_fields(self, wildcards: Any, stage: str) -> bool:
        """Return whether a job is the plan of a unit with several classes of diameters."""
        unit = wildcards.unit
        number: str = getattr(wildcards, "number", "")
        if stage != "plan" or number or unit not in self._layout.names:
            return False
        return any(s.name == "plan1" for s in self._layout.unit(unit).stages)

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
        # A class of diameters has stages of its own, with its number; of what is like one that all
        # classes have, the largest counts.
        known, like = self._known[unit], LIKE.get(stage, stage)
        for name in (f"{like}{getattr(wildcards, 'number', '')}", like):
            if name in known:
                return known[name]
        alike = [cost for name, cost in known.items() if kind_of(name) == like]
        return max(alike, key=lambda cost: cost["memory_bytes"], default={})

    def _planned_bundle(self, name: str) -> Mapping[str, float]:
        from cellseg_pipe.stages._bundle_costs import bundle_costs  # here: most runs do without

        self._bundles = self._bundles or bundle_costs(self._layout)
        return asdict(self._bundles[name]) if self._bundles else {}


def container_of(site: Site) -> str:
    """Return the image in which jobs run.

    Parameters
    ----------
    site : Site
        What the cluster is like.

    Returns
    -------
    str
        As Apptainer takes it; that there is none is an error.
    """
    if site.container is None:
        raise workflow_error(NO_CONTAINER)
    return site.container
