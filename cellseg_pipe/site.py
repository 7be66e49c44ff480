"""The site file: what a cluster is like, written once by those who know it, for all its users."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import StringConstraints, ValidationError

from cellseg_pipe.config._kinds import Count, Factor, Section, Text
from cellseg_pipe.config._problems import ConfigError, Problem
from cellseg_pipe.config._wording import problems_in
from cellseg_pipe.config._yaml import plain, read_yaml

__all__ = ["PLACES", "Gpu", "Prices", "Site", "load_site", "site_file"]

VARIABLE = "CELLSEG_SITE"
PLACES = (Path("~/.config/cellseg_pipe/site.yaml"), Path("/etc/cellseg_pipe/site.yaml"))

# These become words of a command.
Name = Annotated[str, StringConstraints(strict=True, pattern=r"^[\w.,:@+-]+$")]
Options = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=1000)]


class Gpu(Section):
    """Where jobs run that use the network; what is left out is as for other jobs."""

    partition: Name | None = None
    """Partition with GPUs."""
    account: Name | None = None
    """Account that pays for them."""
    qos: Name | None = None
    """Quality of service."""
    model: Name | None = None
    """Kind of GPU, as Slurm calls it; any by default."""
    extra: Options | None = None
    """Further options of sbatch."""


class Prices(Section):
    """What is charged for the time that jobs were given."""

    cpu_hour: Factor = 0.0
    """Of one core for an hour."""
    gpu_hour: Factor = 0.0
    """Of one GPU for an hour, beside its cores."""
    currency: Text
    """In which money, as EUR."""


class Site(Section):
    """What a cluster is like. All of it may be left out."""

    partition: Name | None = None
    """Partition of jobs; that of the cluster by default."""
    account: Name | None = None
    """Account that pays; guessed from earlier jobs by default."""
    qos: Name | None = None
    """Quality of service."""
    extra: Options | None = None
    """Further options of sbatch, as --exclude=node7."""
    gpu: Gpu | None = None
    """The cluster has GPUs: jobs that use the network ask for one, unless they are to use CPUs."""
    max_jobs: Count | None = None
    """Jobs of a run in the queue at a time."""
    walltime_minutes: Count | None = None
    """The longest time a job may ask for: it stops before that, and the next one goes on."""
    orphans: Literal["refuse", "wait", "cancel"] = "refuse"
    """What a start does where jobs of an earlier one are left in the queue."""
    container: Text | None = None
    """Image of Apptainer in which jobs run if --software-deployment-method says apptainer."""
    prices: Prices | None = None
    """What is charged; with it summary.json says what a run cost."""


def site_file() -> Path | None:
    """Return the site file that counts; None if there is none."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    return next((path.expanduser() for path in PLACES if path.expanduser().is_file()), None)


def load_site() -> Site:
    """Read the site file that counts.

    Returns
    -------
    Site
        Without a file all defaults. What is wrong with a file is raised as one ConfigError.
    """
    file = site_file()
    return Site() if file is None else _read(file)


@cache
def _read(file: Path) -> Site:
    if not file.is_file():
        raise FileNotFoundError(
            f"{VARIABLE} needs the name of a site file, got {file}, which is none. Name another"
            f" one, or unset it."
        )
    source = read_yaml(file)
    data, problems = plain(source.data or {})
    problems = [*source.problems, *problems]
    try:
        site = Site.model_validate(data)
    except ValidationError as error:
        if isinstance(data, dict):
            problems += problems_in(error, data, Site.model_json_schema())
        else:
            problems.append(Problem((), f"needs keys with values, got {type(data).__name__}."))
    if problems:
        raise ConfigError.of(problems, file=file, lines=source.lines)
    return site
