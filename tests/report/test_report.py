"""The page of a run: what it says, what it holds, and that a browser shows all of it."""

import base64
import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import cellseg_pipe as cs
from cellseg_pipe.cli import main
from cellseg_pipe.io.result import open_result
from cellseg_pipe.io.tables import read_table, write_table
from cellseg_pipe.nets.restore import restorer_for
from cellseg_pipe.plot import distinct_colors, outlines, to_grey8
from cellseg_pipe.report import write_report
from cellseg_pipe.report.counts import count_cells, distributions, mean_by_image
from cellseg_pipe.report.html import escape, number, short, table
from cellseg_pipe.report.samples import LINE
from cellseg_pipe.report.strips import GAP_PX
from cellseg_pipe.stages import networks
from tests.report.browser import BROKEN, SIZES

KINDS = ("cells", "empty", "small", "volume", "many", "restored")
STYLE = Path(__file__).parents[2] / "cellseg_pipe" / "report" / "style.css"


def text_of(folder):
    return write_report(folder).read_text()


def test_verdicts_come_first_and_in_words(made):
    text = text_of(made("cells"))
    summary = json.loads((made("cells") / "summary.json").read_text())
    n_cells, (unit,) = summary["n_cells"], summary["units"].values()
    assert n_cells > 5 and f"<h1>{n_cells} cells in 1 image</h1>" in text
    for verdict in unit["qc"]["verdicts"]:
        said = escape(verdict["text"].replace(" %", "\N{NO-BREAK SPACE}%"))
        assert 0 < text.index(said) < text.index("What was run")
    assert unit["models"][0]["sha256"][:16] in text
    titles = re.findall(r"<h2[^>]*>([^<]*)</h2>", text)
    order = ["What was run", "Cells", "Over the image", "At full resolution", "Seams"]
    assert [title for title in titles if title in order] == order


def test_names_are_escaped_and_files_have_safe_names(made):
    text = text_of(made("cells"))
    assert "a&amp;amp;&lt;b&gt;.tif" in text and "<b>.tif" not in text
    names = [path.name for path in (made("cells") / "report").iterdir()]
    assert all(re.fullmatch(r"[\w.+~-]+", name) for name in names)
    assert sum(name.endswith(".csv") for name in names) > 5


def test_pictures_are_the_published_labels_at_full_resolution(made):
    text = text_of(made("cells"))
    labels = np.asarray(open_result(made("cells")).labels()[...])
    images = {name: [] for name in ("image", "outlines", "fill", "flows", "probability")}
    for name, found in re.findall(
        r'<img class="(\w+)" [^>]*src="data:image/webp;base64,([^"]*)"', text
    ):
        with Image.open(io.BytesIO(base64.b64decode(found))) as picture:
            images[name].append(np.asarray(picture.convert("RGBA")))
    assert all(len(found) == 1 for found in images.values())  # the image is smaller than a region
    drawn = outlines(labels, color=LINE)
    np.testing.assert_array_equal(images["outlines"][0][..., 3], drawn[..., 3])
    inside = drawn[..., 3] > 0
    np.testing.assert_array_equal(images["outlines"][0][inside], drawn[inside])
    colours = distinct_colors(labels)
    np.testing.assert_array_equal(images["fill"][0][labels > 0], colours[labels > 0])
    sure = images["probability"][0][..., 0].astype(float)
    assert sure[labels > 0].mean() > 2 * sure[labels == 0].mean()


def test_places_are_pictures_of_their_own_with_all_layers_in_a_row(made):
    write_report(made("cells"))
    labels = np.asarray(open_result(made("cells")).labels()[...])
    (file,) = (made("cells") / "report").glob("*-place-1-densest.png")
    row = np.asarray(Image.open(file))
    height, width = labels.shape
    assert row.shape == (height, 5 * width + 4 * GAP_PX, 3)
    panels = [row[:, i * (width + GAP_PX) :][:, :width] for i in range(5)]
    drawn = outlines(labels, color=LINE)[..., 3] > 0
    assert (panels[1][drawn] == LINE).all()
    np.testing.assert_array_equal(panels[1][~drawn], panels[0][~drawn])
    changed = (panels[2] != panels[0]).any(axis=2)
    assert changed[labels > 0].mean() > 0.99 and not changed[labels == 0].any()


@pytest.mark.parametrize("kind", ["restored", "bundled"])
def test_what_the_network_saw_is_beside_the_image(made, kind):
    text = text_of(made(kind))
    assert "Restored</span>" in text and "as the network saw it, each picture in its own" in text
    by = r"<dt>Restored by</dt><dd>denoise_nuclei <code>\w{16}</code>, which saw the image 0\.708"
    by += " times as large, no light below 20; "  # cells of the target have 24 px, it knows 17
    assert re.search(by, text)
    assert "intensities are those of the image as it is" in text
    image, seen = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(found))).convert("L"), np.float32)
        for found in (
            re.search(rf'<img class="{name}"[^>]*base64,([^"]+)"', text)[1]
            for name in ("image", "restored")
        )
    )
    raw, model = tifffile.imread(made(kind).parent / "r.tif"), made(kind).parent / "denoise_nuclei"
    whole = cs.restore(raw, model=model, offset=20.0, diameter_px=24, device="cpu")
    assert np.abs(seen - to_grey8(np.rint(whole.pixels))).mean() < 3  # but for the compression
    assert np.abs(seen - image).mean() > 5


def test_a_filter_is_named_and_a_run_without_one_is_as_before(made):
    assert "median filter, edge 5 px; intensities are those" in text_of(made("filtered"))
    text = text_of(made("cells"))
    assert "Restored" not in text and 'value="restored"' not in text


def test_without_its_network_the_restored_image_is_left_out(made, tmp_path):
    shutil.copytree(made("bundled").parent, tmp_path / "all")
    plan = tmp_path / "all" / "out" / "plan.json"
    gone = str(tmp_path / "gone" / "denoise_nuclei")
    plan.write_text(plan.read_text().replace(str(made("bundled").parent / "denoise_nuclei"), gone))
    text = text_of(tmp_path / "all" / "out")
    assert "Restored</span>" not in text and "Restored by</dt>" in text


@pytest.mark.parametrize("error", [RuntimeError("no GPU"), MemoryError("full"), OSError("gone")])
def test_where_restoring_fails_only_its_picture_is_left_out(made, monkeypatch, caplog, error):
    def failing(*args, **kwargs):
        raise error

    out = made("bundled")  # the run itself does not fail
    monkeypatch.setattr("cellseg_pipe.restoration.source.restored_box", failing)
    text = text_of(out)
    assert "Restored</span>" not in text and "Outlines</span>" in text
    assert f"the restored image is not shown: {error}" in caplog.text


def test_the_restored_image_is_shown_without_a_gpu(made, monkeypatch):
    def loaded(model, *, device, precision, threads):
        assert (device, precision) == ("cpu", "auto")
        return restorer_for(model, device=device, precision=precision, threads=threads)

    out = made("bundled")
    monkeypatch.setattr(networks, "restorer_for", loaded)
    networks._loaded_restorer.cache_clear()
    assert "Restored</span>" in text_of(out)


def test_without_scratch_and_image_the_page_says_so(made, tmp_path):
    shutil.copytree(made("cells"), tmp_path / "out")
    for folder in (tmp_path / "out" / "runs").glob("*/predict-*"):
        shutil.rmtree(folder)
    plan = tmp_path / "out" / "plan.json"
    plan.write_text(plan.read_text().replace("a&amp;<b>.tif", "gone.tif"))
    text = text_of(tmp_path / "out")
    assert "scratch was cleaned" in text and "cannot be read any more are grey" in text
    assert 'value="flows" disabled' in text and 'value="fill" disabled' not in text
    shutil.rmtree(tmp_path / "out" / "runs")
    assert "At full resolution" in text_of(tmp_path / "out")


def test_charts_tell_the_numbers_of_the_table(made):
    write_report(made("cells"))
    (unit,) = open_result(made("cells")).units
    cells = read_table(next(made("cells").glob("*/cells.parquet")))
    (file,) = (made("cells") / "report").glob("*diameter_um*.csv")
    with open(file) as lines:
        rows = list(csv.DictReader(lines))
    assert sum(int(row["cells"]) for row in rows) == len(cells["label"])
    assert float(rows[0]["from"]) <= cells["diameter_um"].min() + 1e-6
    (file,) = (made("cells") / "report").glob("*map-density.csv")
    assert len(file.read_text().splitlines()) > 2
    times = read_table(made("cells") / "report" / "stage-times.csv")
    assert {"predict", "masks", "paint"} <= set(times["stage"].tolist())
    jobs = read_table(made("cells") / "benchmarks.parquet")
    assert times["seconds"].sum() == pytest.approx(jobs["wall_s"].sum())
    assert times["memory_bytes"].max() == jobs["peak_bytes"].max()
    masks = times["stage"].tolist().index("masks")
    assert times["planned_seconds"][masks] > 0 and times["planned_bytes"][masks] > 0


def test_a_run_without_cells(made):
    text = text_of(made("empty"))
    assert "0 cells in 1 image" in text and "no cells were found" in text
    assert "nothing can be said of their sizes" in text and "nan" not in text.split("<style>")[0]


def test_a_volume_has_slices_and_depth(made):
    text = text_of(made("volume"))
    assert "Cells over depth" in text
    assert text.count("Slice along y") == text.count("Slice along x") == text.count('class="stack"')
    file = next((made("volume") / "report").glob("*-depth.csv"))
    depth = read_table(file)
    assert depth["cells"].sum() == open_result(made("volume")).summary["n_cells"] > 0


def test_many_images_are_a_table_with_those_that_failed(made):
    text = text_of(made("many"))
    assert "Not complete:" in text and "Images that failed" in text and "bad" in text
    rows = re.search(r'<table class="sortable">.*?</table>', text)[0]
    assert rows.count("<tr ") == 17
    pictures = text.count('class="stack"')
    assert pictures == 6  # the three least sure and the three surest
    assert "small images and labels made from others keep no windows" in text
    means = mean_by_image(made("many") / "cells.parquet", ["confidence"])
    cells = read_table(made("many") / "cells.parquet")
    for name, own in means.items():
        mine = cells["image"] == name
        assert own["confidence"] == pytest.approx(cells["confidence"][mine].mean(), abs=1e-9)


def test_five_thousand_images(made, tmp_path):
    shutil.copytree(made("many"), tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    name, facts = next(iter(summary["units"].items()))
    summary["units"] = {f"{name}-{k}": facts for k in range(5000)}
    (tmp_path / "out" / "summary.json").write_text(json.dumps(summary))
    own = read_table(tmp_path / "out" / facts["table"])
    n = len(own["label"])
    columns = {column: np.tile(own[column], 5000) for column in ("confidence", "diameter_px")}
    names = np.repeat([*summary["units"]], n).astype(object)
    shutil.rmtree(tmp_path / "out" / "cells.parquet")
    write_table(tmp_path / "out" / "cells.parquet", {"image": names, **columns})
    text = text_of(tmp_path / "out")
    assert text.count("<tr data-level") == 5000 and text.count('class="stack"') == 6
    assert len(text) < 5e6 and f"{own['confidence'].mean():.3f}" in text


def test_scores_are_shown_if_they_are_of_these_results(made, tmp_path):
    shutil.copytree(made("small"), tmp_path / "out")
    scores = {"ap": {"0.5": 0.9, "0.75": None}, "pq": 0.8, "n_true": 12}
    (tmp_path / "out" / "evaluation.json").write_text(json.dumps(scores))
    text = text_of(tmp_path / "out")
    assert "Scores against the truth" in text and "0.800" in text
    (tmp_path / "out" / "summary.json").touch()
    assert "Scores against the truth" not in text_of(tmp_path / "out")


def test_the_same_run_gives_the_same_page(made):
    first = write_report(made("cells")).read_bytes()
    assert write_report(made("cells")).read_bytes() == first


def test_the_command(made, tmp_path, capsys):
    assert main(["report", str(made("small")), "--output", str(tmp_path / "a" / "b.html")]) == 0
    assert (tmp_path / "a" / "b.html").exists() and (tmp_path / "a" / "b").is_dir()
    assert main(["report", str(tmp_path)]) == 1
    assert "needs to be the folder of a run" in capsys.readouterr().err


def test_counts_equal_those_of_numpy(tmp_path):
    rng = np.random.default_rng(4)
    values = rng.gamma(3, 50, 40_000)
    values[::50] = np.nan
    columns = {
        "y_px": rng.uniform(0, 99, 40_000), "x_px": rng.uniform(0, 199, 40_000),
        "z_px": rng.integers(0, 7, 40_000).astype(float), "confidence": rng.random(40_000),
        "area_px": values, "none": np.full(40_000, np.nan),
    }  # fmt: skip
    write_table(tmp_path / "t.parquet", columns)
    (one,) = distributions(tmp_path / "t.parquet", ["area_px", "none"])
    known = values[np.isfinite(values)]
    assert one.n == one.counts.sum() == len(known)
    step = (known.max() - known.min()) / 8191
    assert abs(one.median - np.median(known)) <= 2 * step
    inner = one.counts[1:-1]
    np.testing.assert_allclose(inner, np.histogram(known, one.edges)[0][1:-1], atol=30)
    counts = count_cells(tmp_path / "t.parquet", axes="zyx", shape=(7, 100, 200), pitch_px=32)
    y, x = (np.floor(columns[name] + 0.5).astype(int) // 32 for name in ("y_px", "x_px"))
    expected = np.zeros((4, 7), int)
    np.add.at(expected, (y, x), 1)
    np.testing.assert_array_equal(counts.n_cells, expected)
    np.testing.assert_array_equal(counts.by_plane, np.bincount(columns["z_px"].astype(int)))
    assert counts.confidence.sum() == pytest.approx(columns["confidence"].sum())


def test_numbers_for_people():
    assert [number(v) for v in (0, 12, 1234.5, 0.5, 0.123456, float("nan"), None)] == [
        *("0", "12", "1,234", "0.500", "0.123"), "–", "–",
    ]  # fmt: skip
    assert [short(v) for v in (0.5, 1.25, -3.0, 2e-7)] == ["0.5", "1.25", "−3", "2.0e−07"]
    assert "<td>&lt;a&gt;</td>" in table(("A",), [("<a>",)])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_contrast(theme):
    style = STYLE.read_text()
    block = style.split(':root[data-theme="dark"] {')[theme == "dark"]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block.split("}")[0]))
    pairs = [(front, back) for front in ("ink", "soft", "accent") for back in ("ground", "paper")]
    pairs += [("warn", "warn-wash"), ("warn", "paper"), ("ok", "paper"), ("bad", "paper")]
    pairs += [("bad", "warn-wash"), ("ink", "wash"), ("ink", "warn-wash"), ("paper", "accent")]
    assert {pair: r for pair in pairs if (r := contrast(*(colours[c] for c in pair))) < 4.5} == {}


def contrast(one, other):
    """Of two colours, as WCAG 2 has it."""
    found = []
    for colour in (one, other):
        parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        found.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(found) + 0.05) / (min(found) + 0.05)


@pytest.mark.chromium
@pytest.mark.parametrize("kind", KINDS)
def test_a_browser_shows_all_of_it(made, page, kind):
    page.events.clear()
    page.prefer("light")
    page.resize(1280)
    page.open(write_report(made(kind)))
    assert page.do(BROKEN) == []
    for width in (360, 768, 1280, 1920):
        page.resize(width)
        assert page.do(SIZES) == [width, width]
    assert page.complaints == [] and page.requests == []


@pytest.mark.chromium
def test_light_and_dark(made, page):
    page.prefer("dark")
    page.open(write_report(made("cells")))
    theme = "document.documentElement.dataset.theme"
    ground = "getComputedStyle(document.body).backgroundColor"
    page.do("localStorage.clear()")
    page.open(made("cells") / "report.html")
    assert page.do(theme) == "dark" and page.do(ground) == "rgb(14, 17, 18)"
    page.prefer("light")  # the page follows the system until it is told otherwise
    page.wait(theme, "light")
    assert page.do(ground) == "rgb(247, 247, 245)"
    page.do("document.getElementById('theme').click()")
    assert page.do(theme) == "dark"
    page.open(made("cells") / "report.html")
    assert page.do(theme) == "dark"  # it is kept
    page.do("localStorage.clear()")
    assert page.complaints == []


@pytest.mark.chromium
def test_the_switch_by_mouse_and_keyboard(made, page):
    page.open(write_report(made("cells")))
    seen = "[...document.querySelector('.stack').children].filter((i) => i.checkVisibility())"
    names = f"{seen}.map((i) => i.className)"
    assert page.do(names) == ["image", "outlines"]
    for value in ("fill", "flows", "probability"):
        page.do(f"document.querySelector('.views input[value={value}]').click()")
        assert page.do(names) == ["image", value]
    page.do("document.querySelector('.views input[value=image]').focus()")
    page.do("document.querySelector('.views input[value=image]').click()")
    assert page.do(names) == ["image"]
    page.key("ArrowRight", 39)
    assert page.do(names) == ["image", "outlines"]
    page.do("document.querySelector('.stack').click()")
    assert page.do("document.getElementById('large').open")
    page.key("Escape", 27)
    assert not page.do("document.getElementById('large').open")


@pytest.mark.chromium
def test_the_switch_shows_the_restored_image(made, page):
    page.open(write_report(made("restored")))
    seen = "[...document.querySelector('.stack').children].filter((i) => i.checkVisibility())"
    page.do("document.querySelector('.views input[value=restored]').click()")
    assert page.do(f"{seen}.map((i) => i.className)") == ["image", "restored"]


@pytest.mark.chromium
def test_the_table_is_sorted_and_filtered(made, page):
    page.open(write_report(made("many")))
    cells = "[...document.querySelectorAll('.sortable tbody tr')].map((r) => +r.cells[1].dataset.v)"
    press = "document.querySelectorAll('.sortable th button')[1].click()"
    page.do(press)
    rising = page.do(cells)
    assert rising == sorted(rising) and len(rising) == 17
    page.do(press)
    assert page.do(cells) == rising[::-1]
    page.do(
        "(() => { const box = document.querySelector('.filter input'); box.value = 'i03';"
        " box.dispatchEvent(new Event('input')); })()"
    )
    shown = "[...document.querySelectorAll('.sortable tbody tr')].filter((r) => !r.hidden).length"
    assert page.do(shown) == 1
    assert page.do("document.querySelector('.filter output').textContent") == "1 of 17"
