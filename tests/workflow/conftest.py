"""One finished run for all: other tests only ask what it would do next, or run a part again."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.workflow import runs


@dataclass(frozen=True)
class Finished:
    """A run: folder of the user, experiment file, folder of the results, and what was published."""

    cwd: Path
    config: Path
    out: Path
    results: dict[str, str]


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("finished")
    runs.picture(cwd / "a.tif")
    config = runs.experiment(cwd / "my.yaml", ["a.tif"], "out")
    runs.run(config, cwd=cwd)
    return Finished(cwd, config, cwd / "out", runs.results(cwd / "out"))
