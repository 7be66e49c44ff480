"""`cellseg init --profiles`: where Snakemake finds them, and what of the user's stays."""

from pathlib import Path

import pytest

from cellseg_pipe.cli import main
from cellseg_pipe.engines import profiles
from tests.workflow import runs

SHIPPED = runs.CLONE / "profiles"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home of one's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "snakemake"


def test_snakemake_finds_them_by_name(home, capsys, monkeypatch, tmp_path):
    from snakemake import common
    from snakemake.cli import get_profile_dir

    monkeypatch.setattr(common, "APPDIRS", None)
    assert main(["init", "--profiles"]) == 0
    said = capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    for name in ("local", "slurm"):
        folder, file = get_profile_dir(name)
        assert (Path(folder), Path(file)) == (home / name, home / name / "config.yaml")
        assert Path(file).read_bytes() == (SHIPPED / name / "config.yaml").read_bytes()
        assert f"wrote {home / name / 'config.yaml'}" in said
        assert f"cellseg run CONFIG --profile {name}, " in said
    assert f"snakemake --snakefile {runs.CLONE / 'Snakefile'} --profile slurm" in said


def test_what_the_user_has_changed_stays_unless_forced(tmp_path, capsys):
    folder = tmp_path / "mine"
    file = folder / "slurm" / "config.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("jobs: 3\n")
    command = ["init", "--profiles", str(folder)]
    assert main(command) == 0
    assert file.read_text() == "jobs: 3\n"
    assert (
        f"{file} is not as it is shipped and stays: --force replaces it" in capsys.readouterr().out
    )
    assert main([*command, "--force"]) == 0
    said = capsys.readouterr().out
    assert "what it was is in config.yaml.old" in said and f"--profile {folder}/slurm" in said
    assert f"{folder / 'local' / 'config.yaml'} is there already" in said
    assert file.read_bytes() == (SHIPPED / "slurm" / "config.yaml").read_bytes()
    assert file.with_name("config.yaml.old").read_text() == "jobs: 3\n"


def test_it_is_that_or_images_and_a_clone_is_needed(tmp_path, monkeypatch, capsys):
    for words in ([], ["a.tif", "--profiles"], ["a.tif", "--force"]):
        assert main(["init", *words]) == 1
        assert "needs images to write an experiment file for, or --profiles" in (
            capsys.readouterr().err
        )
    monkeypatch.setattr(profiles, "SNAKEFILE", tmp_path / "Snakefile")
    assert main(["init", "--profiles", str(tmp_path / "there")]) == 1
    assert "an installed package has none" in capsys.readouterr().err
    assert not (tmp_path / "there").exists()


def test_a_run_takes_a_profile_by_its_name(finished, home, tmp_path, capfd):
    assert main(["init", "--profiles"]) == 0
    config, _ = runs.copied(finished, tmp_path)
    assert main(["run", str(config), "--profile", "local", "--cores", "1", "--dry-run"]) == 0
    assert runs.jobs_in(capfd.readouterr().out) == {"summary": 1, "report": 1}
