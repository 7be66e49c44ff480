"""What all tests share: programs that a test needs, and hypothesis without deadlines."""

import os
import shutil

import hypothesis
import pytest

# Workers side by side, each with a thread per CPU, stand in each other's way: four times slower.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

hypothesis.settings.register_profile("cellseg", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("cellseg")

# marker -> (programs, Debian packages that bring them)
PROGRAMS = {
    "slurm": (
        ("slurmctld", "slurmd", "sbatch", "munged"),
        "slurmctld slurmd slurm-client munge",
    ),
    "chromium": (("chromium",), "chromium"),
}


def pytest_collection_modifyitems(items):
    """Skip what lacks its program, with the line that installs it; fail where it is required."""
    required = set(os.environ.get("CELLSEG_REQUIRE", "").split(",")) - {""}
    if unknown := required - set(PROGRAMS):
        raise pytest.UsageError(
            f"CELLSEG_REQUIRE needs names out of {', '.join(PROGRAMS)}, got {', '.join(unknown)}."
        )
    for name in PROGRAMS:
        if (reason := reason_to_skip(name)) and name in required:
            raise pytest.UsageError(f"CELLSEG_REQUIRE names {name}, but {reason}")
        skip_marked(items, name, reason)
    skip_marked(items, "gpu", None if has_cuda() else "no CUDA device")


def reason_to_skip(name):
    programs, packages = PROGRAMS[name]
    missing = [program for program in programs if shutil.which(program) is None]
    return f"{', '.join(missing)} not found: apt-get install {packages}" if missing else None


def skip_marked(items, name, reason):
    for item in items:
        if reason and item.get_closest_marker(name):
            item.add_marker(pytest.mark.skip(reason=reason))


def has_cuda():
    return os.path.exists("/proc/driver/nvidia/version")
