"""The site file: where it is looked for, what it says, and what it must not say."""

import pytest

from cellseg_pipe import site
from cellseg_pipe.config import ConfigError


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A site file with some content, which counts."""
    file = tmp_path / "site.yaml"

    def write(text):
        file.write_text(text)
        site._read.cache_clear()
        monkeypatch.setenv("CELLSEG_SITE", str(file))
        return file

    return write


def test_without_a_file_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.delenv("CELLSEG_SITE", raising=False)
    monkeypatch.setattr(site, "PLACES", (tmp_path / "none.yaml",))
    assert site.site_file() is None
    found = site.load_site()
    assert (found.partition, found.gpu, found.orphans) == (None, None, "refuse")


def test_the_file_of_the_user_goes_before_that_of_the_machine(tmp_path, monkeypatch):
    files = tmp_path / "a.yaml", tmp_path / "b.yaml", tmp_path / "c.yaml"
    monkeypatch.delenv("CELLSEG_SITE", raising=False)
    monkeypatch.setattr(site, "PLACES", files[:2])
    for file in reversed(files):
        file.write_text(f"partition: {file.stem}\n")
    assert site.load_site().partition == "a"
    files[0].unlink()
    assert site.load_site().partition == "b"
    monkeypatch.setenv("CELLSEG_SITE", str(files[2]))
    assert site.load_site().partition == "c"


def test_all_of_it_is_read(written):
    written(
        "partition: long\naccount: lab_7\nqos: normal\nextra: --exclude=n3\nmax_jobs: 80\n"
        "walltime_minutes: 240\norphans: wait\ngpu: {partition: gpu, model: a100}\n"
    )
    found = site.load_site()
    assert (found.partition, found.account, found.qos) == ("long", "lab_7", "normal")
    assert (found.extra, found.max_jobs, found.walltime_minutes) == ("--exclude=n3", 80, 240)
    assert found.orphans == "wait"
    assert found.gpu == site.Gpu(partition="gpu", model="a100")
    written("gpu:\n")  # a section whose keys are all commented out is there
    assert site.load_site() == site.Site(gpu=None)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("partition: long\nacount: lab\n", 2, "acount is no known key. Did you mean account?"),
        ("\n\nmax_jobs: none\n", 3, "max_jobs"),
        ("partition: 'long; rm x'\n", 1, "partition"),
        ("gpu:\n  modell: a100\n", 2, "gpu.modell is no known key. Did you mean model?"),
        ("partition: a\npartition: b\n", 2, "is given twice"),
        ("- a\n", 1, "needs keys with values"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(written, text, line, said):
    file = written(text)
    with pytest.raises(ConfigError) as caught:
        site.load_site()
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert said in str(caught.value)


def test_a_file_that_is_named_must_be_there(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLSEG_SITE", str(tmp_path / "none.yaml"))
    with pytest.raises(FileNotFoundError, match="CELLSEG_SITE needs the name of a site file"):
        site.load_site()
