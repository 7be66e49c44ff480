"""Looks at what computes here: Python, libraries, GPU, CPU, compiled loops, models."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Iterator

from packaging.requirements import Requirement

from cellseg_pipe import __version__
from cellseg_pipe.config import Experiment
from cellseg_pipe.kernels._numba._jit import cache_folder
from cellseg_pipe.machine import available_bytes, available_threads
from cellseg_pipe.stages._finding import Finding, asked, error, fine, warning

__all__ = ["look_at_machine"]

LEAST_PYTHON = (3, 11)
NAMED = ("numpy", "numba", "torch", "zarr", "tensorstore", "tifffile", "dask", "snakemake")
INSTALL = "Run envs/setup.sh of a clone, or pip install -c envs/constraints.txt ."


def look_at_machine(experiment: Experiment | None) -> Iterator[Finding]:
    """Yield what was found of this machine.

    Parameters
    ----------
    experiment : Experiment, optional
        What is to be run here.

    Yields
    ------
    Finding
        One at least of each thing.
    """
    yield _python()
    yield from _libraries()
    yield from _torch(experiment)
    yield _loops()
    yield from _models(experiment)


def _python() -> Finding:
    said = f"{platform.python_version()} in {sys.prefix}, on {platform.platform()}"
    if sys.version_info < LEAST_PYTHON:
        return error("python", said, f"Python 3.11 or later is needed. {INSTALL}")
    return fine("python", said)


def _libraries() -> Iterator[Finding]:
    """Compare what is installed with what the package asks for."""
    try:
        lines = importlib.metadata.requires("cellseg_pipe") or []
    except importlib.metadata.PackageNotFoundError:
        yield warning("libraries", "the package is not installed here", INSTALL)
        return
    found, right = {}, True
    for needed in map(Requirement, lines):
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            found[needed.name] = importlib.metadata.version(needed.name)
        except importlib.metadata.PackageNotFoundError:
            right = False
            yield error(needed.name, "is not installed", f"pip install '{needed}'")
            continue
        if not needed.specifier.contains(found[needed.name], prereleases=True):
            right = False
            mend = f"pip install '{needed}'"
            yield error(needed.name, f"is {found[needed.name]}, {needed.specifier} is needed", mend)
    if right:
        said = ", ".join(f"{name} {found[name]}" for name in NAMED if name in found)
        yield fine("libraries", f"cellseg_pipe {__version__}; {said}")


def _torch(experiment: Experiment | None) -> Iterator[Finding]:
    """Look at what runs networks, and in which numbers."""
    try:
        import torch
    except (ImportError, OSError) as fault:  # a library of the system that is missing
        yield error("torch", f"cannot be loaded: {fault}", INSTALL)
        return
    yield fine("torch", f"{torch.__version__}, {_build(torch.version.cuda)}")
    wanted = "auto" if experiment is None else experiment.resources.device
    yield from _gpus(wanted)
    yield _cpu(None if experiment is None else experiment.resources.precision)


def _build(cuda: str | None) -> str:
    return f"built for CUDA {cuda}" if cuda else "built for the CPU"


def _gpus(wanted: str) -> Iterator[Finding]:
    import torch

    from cellseg_pipe.nets.fused import choose_precision

    driver = asked("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    version = driver.lines[0].rpartition(",")[2].strip() if driver and driver.right else "unknown"
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for number in range(there):
        about = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        yield fine(
            "gpu",
            f"{about.name}, compute {about.major}.{about.minor}, {free / 1e9:.1f} of"
            f" {total / 1e9:.1f} GB free, driver {version}; networks run in"
            f" {choose_precision('cuda')}",
        )
    if there:
        return
    if driver is not None and driver.right and driver.lines:
        yield warning(
            "gpu",
            f"the driver knows {driver.lines[0]}, and torch ({_build(torch.version.cuda)}) uses"
            " none",
            "TORCH=cuda envs/setup.sh installs the build for CUDA; with it, the driver may be too"
            " old, or CUDA_VISIBLE_DEVICES empty.",
        )
    elif wanted == "cuda" and shutil.which("sinfo") is None:
        yield error("gpu", "none, and resources.device is cuda", "Set it to auto or cpu.")
    else:
        yield fine("gpu", "none here; networks run on the CPU")


def _cpu(precision: str | None) -> Finding:
    import torch

    from cellseg_pipe.nets.fused import bf16_instructions, choose_precision

    width = torch.backends.cpu.get_cpu_capability()
    form = precision if precision not in (None, "auto") else choose_precision("cpu")
    memory = available_bytes()
    there = "" if memory is None else f", {memory / 1e9:.1f} GB of memory free"
    said = f"{available_threads()} threads{there}; {', '.join([width, *bf16_instructions()])};"
    said += f" networks run in {form}"
    if width == "DEFAULT":
        return warning("cpu", said, "No AVX2: networks are slow here. Use another kind of node.")
    return fine("cpu", said)


def _loops() -> Finding:
    """Look where compiled loops are kept."""
    folder = cache_folder()
    if folder.name.startswith("cellseg_pipe-"):  # one of this process alone
        return warning(
            "compiled loops",
            f"no folder for them can be written; each process compiles its own in {folder}",
            "Set CELLSEG_CACHE to a folder that jobs can write.",
        )
    n_ready = len(list(folder.glob("*.ready")))
    return fine("compiled loops", f"{n_ready} kept in {folder}")


def _models(experiment: Experiment | None) -> Iterator[Finding]:
    from cellseg_pipe.nets.catalog import SAM_PREFIX, list_models, resolve

    entries = list_models()
    usable = sorted({entry.name for entry in entries if entry.usable})
    for entry in entries:
        if not entry.usable:
            mend = f"Remove {entry.path}, or put a whole file there."
            yield warning("model", f"{entry.name}: {entry.summary[:120]}", mend)
    if usable:
        yield fine("models", ", ".join(usable))
    else:
        yield warning("models", "none found", "cellseg models add FILE, or set CELLSEG_MODELS.")
    targets = {} if experiment is None else experiment.targets
    for name, target in targets.items():
        for model in (target.model, target.side_model):
            if model is None or target.expand is not None:
                continue
            try:
                resolve(model.removeprefix(SAM_PREFIX))
            except (OSError, ValueError) as fault:
                yield error(f"model of {name}", str(fault), "cellseg models list shows them.")
