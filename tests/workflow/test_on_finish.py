"""Who is told when a run has ended: once, with the summary, and never part of the result."""

import json
import os

import pytest
import yaml

from cellseg_pipe.config import ConfigError, experiment_of, load_experiment
from cellseg_pipe.engines import process
from cellseg_pipe.stages.layout import lay_out
from tests.workflow import runs

LINE = 'echo "$CELLSEG_STATUS $(basename "$1") $(test -e "$1" && echo there) $PWD" >> {file}'
SAID = {"images": [{"path": "a.tif"}], "output": {"dir": "out"}}


def telling(file, *, then="true"):
    """A command that writes down what it is told."""
    return ["/bin/sh", "-c", f"{LINE.format(file=file)}; {then}", "sh"]


def with_command(config, command):
    """Add a command to an experiment file."""
    said = yaml.safe_load(config.read_text()) | {"on_finish": command}
    config.write_text(yaml.safe_dump(said))
    return config


def test_it_is_part_of_no_result(tmp_path):
    runs.picture(tmp_path / "a.tif", shape=(64, 64))
    said = {"images": [{"path": str(tmp_path / "a.tif")}], "output": {"dir": str(tmp_path / "out")}}
    plain, text = lay_out(experiment_of(said))
    other, same = lay_out(experiment_of(said | {"on_finish": "mail me"}))
    assert (other, same) == (plain, text)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("notify -s 'cells are done'", ("notify", "-s", "cells are done")),
        (["notify", "-s", "", "$HOME"], ("notify", "-s", "", "$HOME")),
        ("~/bin/notify", (os.path.expanduser("~/bin/notify"),)),
        (None, None),
    ],
)
def test_a_line_is_words_and_no_shell_reads_it(given, words):
    assert experiment_of(SAID | {"on_finish": given}).on_finish == words


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("bin/notify", "on_finish needs the name of a program or its whole path, got 'bin/notify'"),
        ("notify 'me", "on_finish needs quotes that are closed"),
        ("", "on_finish needs a command: a line, or a list of its words"),
        ([], "on_finish needs a command"),
        ([3], "on_finish needs a command"),
        (True, "on_finish needs a command"),
    ],
)
def test_what_could_never_run_is_refused(given, said):
    with pytest.raises(ConfigError) as refused:
        experiment_of(SAID | {"on_finish": given})
    assert said in str(refused.value).replace("on_finish: ", "on_finish ")


@pytest.fixture
def ended(finished, tmp_path):
    """A finished run, whose last job is to be done again; and where a command writes."""
    config, out = runs.copied(finished, tmp_path)
    return with_command(config, telling(tmp_path / "told")), out, tmp_path / "told"


def test_snakemake_tells_once_and_not_of_nothing(ended, tmp_path):
    config, out, told = ended
    runs.run(config, cwd=tmp_path)
    assert told.read_text() == f"finished summary.json there {out}\n"
    assert runs.planned(config, cwd=tmp_path) == {}
    runs.run(config, cwd=tmp_path)
    assert len(told.read_text().splitlines()) == 1
    for marker in (out / "runs").glob("finished-*.json"):
        marker.unlink()
    (out / "a" / "cells.parquet").rename(out / "gone")
    done = runs.snakemake("--configfile", config, cwd=tmp_path)
    assert done.returncode == 1
    assert told.read_text().splitlines()[1] == f"failed summary.json there {out}"


def test_a_command_that_fails_is_a_warning(ended, tmp_path):
    config, out, told = ended
    with_command(config, telling(told, then="exit 3"))
    said = runs.run(config, cwd=tmp_path)
    assert "on_finish" in said and "exit status 3; the run itself has finished" in said
    assert told.read_text().startswith("finished")
    assert json.loads((out / "summary.json").read_text())["complete"]


def test_one_process_tells_of_success_failure_and_not_of_nothing(tmp_path, monkeypatch, caplog):
    runs.picture(tmp_path / "a.tif", shape=(96, 96))
    config, told = tmp_path / "my.yaml", tmp_path / "told"
    runs.experiment(config, [tmp_path / "a.tif"], tmp_path / "out")
    chosen = load_experiment(with_command(config, telling(told)))
    with monkeypatch.context() as patch:
        patch.setattr(process, "finish", lambda config: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            process.run(chosen)
    assert told.read_text() == f"failed summary.json  {tmp_path / 'out'}\n"
    process.run(chosen)
    process.run(chosen)
    assert told.read_text().splitlines()[1:] == [f"finished summary.json there {tmp_path / 'out'}"]
    (marker,) = (tmp_path / "out" / "runs").glob("finished-*.json")
    marker.unlink()
    process.run(chosen.model_copy(update={"on_finish": ("no-such-program",)}))
    assert "on_finish" in caplog.text and "the run itself has finished" in caplog.text
    assert marker.exists()
