"""Jobs in a container: only where that is asked for, in the image that the site file names."""

import stat

import pytest

from tests.workflow import runs

# Does what Apptainer does, but for the container.
APPTAINER = """#!/bin/sh
if [ "$1" = --version ]; then echo "apptainer version 1.3.4"; exit; fi
echo "$@" >> {log}
while [ "$1" != bash ] && [ "$1" != sh ]; do shift; done
exec "$@"
"""
ASKED = ("--software-deployment-method", "apptainer")


@pytest.fixture
def apptainer(tmp_path, monkeypatch):
    """A program of that name; return what it was told."""
    log = tmp_path / "told.txt"
    program = tmp_path / "bin" / "apptainer"
    program.parent.mkdir()
    program.write_text(APPTAINER.format(log=log))
    program.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{program.parent}:{runs.environment()['PATH']}")
    return log


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The site file."""
    file = tmp_path / "site.yaml"
    monkeypatch.setenv("CELLSEG_SITE", str(file))
    return file


def test_jobs_run_in_the_image_that_the_site_file_names(finished, tmp_path, site, apptainer):
    config, out = runs.copied(finished, tmp_path)
    site.write_text("{}")
    refused = runs.snakemake("--configfile", config, "--dry-run", *ASKED, cwd=tmp_path)
    assert refused.returncode == 1 and "container: /path/cellseg_pipe.sif" in refused.stdout
    image = tmp_path / "cellseg_pipe.sif"
    image.touch()
    site.write_text(f"container: {image}")
    runs.run(config, *ASKED, cwd=tmp_path)
    summary, report = apptainer.read_text().splitlines()
    assert f"{image} bash -c" in summary and "cellseg job summary" in summary
    assert f"{image} bash -c" in report and "cellseg report" in report
    assert runs.results(out) == finished.results
    assert runs.planned(config, cwd=tmp_path) == {}  # whether in one or not is no part of a result


def test_snakemake_has_nothing_against_the_rules(finished, tmp_path, site):
    """Without an image it asks for an environment of each rule, which is that of Snakemake here."""
    site.write_text("container: cellseg_pipe.sif")
    done = runs.snakemake("--configfile", finished.config, "--lint", *ASKED, cwd=tmp_path)
    assert done.returncode == 0 and "Congratulations" in done.stdout, done.stdout
