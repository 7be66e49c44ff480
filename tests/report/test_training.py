"""The page of a training run: curves, scores by set, pictures, the card."""

import numpy as np
import pytest
from PIL import Image

from cellseg_pipe.cli import main
from cellseg_pipe.io.tables import read_table
from cellseg_pipe.report import write_report
from tests.report.browser import BROKEN, SIZES

SCORES = (  # step, image, set, AP .5, AP .75, cells there, cells found
    (100, "a", "tissue", 0.5, 0.2, 10, 12),
    (100, "b", "yeast", 0.7, "nan", 0, 3),
    (200, "a", "tissue", 0.9, 0.6, 10, 10),
    (200, "b", "yeast", 0.8, 0.5, 4, 4),
)


@pytest.fixture
def folder(tmp_path):
    lines = ["step,loss,flow,rate", *(f"{k},{1 / (1 + k)},0,0.001" for k in range(0, 300, 50))]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    rows = ["step,image,set,ap50,ap75,n_true,n_found", *(",".join(map(str, s)) for s in SCORES)]
    (tmp_path / "evaluation.csv").write_text("\n".join(rows) + "\n")
    test = [rows[0].removeprefix("step,"), "x,tissue,0.75,0.25,8,8"]
    (tmp_path / "test_true_diameter.csv").write_text("\n".join(test) + "\n")
    (tmp_path / "pictures").mkdir()
    Image.fromarray(np.zeros((8, 16, 3), np.uint8)).save(tmp_path / "pictures" / "tissue_best.png")
    (tmp_path / "mine.md").write_text("# mine\n\n<script>alert(1)</script>\n")
    return tmp_path


def test_what_a_training_run_left(folder, capsys):
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    text = (folder / "report.html").read_text()
    assert "Average precision 0.85 after 200 of 250 steps" in text
    assert "tissue best" in text and "&lt;script&gt;alert(1)" in text
    assert "Test images" in text and "0.750" in text
    curve = read_table(folder / "report" / "score-tissue.csv")
    assert curve["step"].tolist() == [100, 200] and curve["AP at .5"].tolist() == [0.5, 0.9]
    assert not (folder / "report" / "loss-flow.csv").exists()  # it is zero all along


def test_a_training_run_that_has_just_begun(tmp_path):
    (tmp_path / "log.csv").write_text("step,loss\n")
    assert "0 steps of training" in write_report(tmp_path).read_text()


@pytest.mark.chromium
def test_a_browser_shows_it(folder, page):
    page.events.clear()
    page.open(write_report(folder))
    for width in (360, 1280):
        page.resize(width)
        assert page.do(SIZES) == [width, width]
    assert page.do(BROKEN) == [] and page.complaints == [] and page.requests == []
