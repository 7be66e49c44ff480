"""`cellseg segment`: what is written, skipped, refused and survived."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
import zarr

from cellseg_pipe.cli import main
from cellseg_pipe.geometry import Box
from cellseg_pipe.io.images import read_array
from cellseg_pipe.io.opening import open_image
from cellseg_pipe.io.results import write_labels
from cellseg_pipe.io.tables import read_table
from cellseg_pipe.metrics import evaluate
from cellseg_pipe.segmentation import segment
from cellseg_pipe.stages.segment import EXTRAS, jobs_for
from cellseg_pipe.synth import PRESETS, render

TINY = str(Path(__file__).parents[1] / "golden" / "models" / "tiny.safetensors")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    truths = {}
    for name, diameter in (("a", 30), ("b", 24)):
        spec = replace(PRESETS["nuclei"], shape=(200, 230), seed=3, diameter_px=diameter)
        piece = render(spec, Box.of(spec.shape))
        tifffile.imwrite(
            folder / f"{name}.tif",
            piece.image[0],
            imagej=True,
            resolution=(2, 2),
            metadata={"axes": "YX", "unit": "um"},
        )
        truths[name] = piece.labels
    return folder, truths


def run(*arguments):
    return main(["segment", *map(str, arguments), "--model", TINY, "--device", "cpu"])


def test_a_folder_with_everything_beside(pictures, tmp_path, capsys):
    folder, truths = pictures
    out = tmp_path / "out"
    assert run(folder, out, "--diameter-px", 27, "--save", ",".join(EXTRAS)) == 0
    assert "2 segmented, 0 done before, 0 failed" in capsys.readouterr().out
    for name, truth in truths.items():
        labels = read_array(out / f"{name}_labels.tif")
        assert evaluate(labels, truth).ap[0.5] > 0.8
        for ending in EXTRAS.values():
            assert (out / f"{name}{ending}").stat().st_size > 0
        table = read_table(out / f"{name}_cells.csv")
        assert len(table["label"]) == labels.max()
        record = json.loads((out / f"{name}_labels.cellseg.json").read_text())
        assert record["state"] == "done" and record["cells"] == labels.max()
    with tifffile.TiffFile(out / "a_labels.tif") as file:
        assert 'PhysicalSizeX="0.5"' in file.ome_metadata


def test_a_line_tells_of_each_image(pictures, tmp_path, caplog):
    """With the spread of a diameter that was measured."""
    image = pictures[0] / "a.tif"
    caplog.set_level("INFO")
    assert run(image, tmp_path / "given", "--diameter-px", 30) == 0
    told = re.search(r"a\.tif: (\d+) cells, diameter 30\.0 px, mode 2d", caplog.text)
    assert int(told[1]) == read_array(tmp_path / "given" / "a_labels.tif").max()
    assert run(image, tmp_path / "measured") == 0
    measured = re.search(r"([\d.]+) px \(([\d.]+) to ([\d.]+)\)", caplog.text)
    px, low, high = map(float, measured.groups())
    assert low <= px <= high and low < high and abs(px - 30) < 5


def test_files_of_the_peer_have_one_grid(pictures, tmp_path):
    """Also where flows were not brought to the image's pixels."""
    options = ("--diameter-px", 60, "--no-resample", "--save", "seg")
    assert run(pictures[0] / "a.tif", tmp_path, *options) == 0
    found = np.load(tmp_path / "a_seg.npy", allow_pickle=True).item()
    shapes = {np.shape(part)[-3:-1] for part in found["flows"][:1]}
    assert shapes == {(200, 230)} and found["masks"].shape == (200, 230)


def test_outlines_lie_on_the_channel_that_was_segmented(pictures, tmp_path):
    dark = np.zeros((200, 230), np.uint16)
    image = tmp_path / "two.tif"
    both = np.stack([dark, tifffile.imread(pictures[0] / "a.tif")])
    tifffile.imwrite(image, both, metadata={"axes": "CYX"})
    options = ("--channels", 1, "--diameter-px", 30, "--save", "overlay")
    assert run(image, tmp_path / "out", *options) == 0
    (path,) = (tmp_path / "out").glob("two*.png")
    grey = np.asarray(PIL.Image.open(path)).astype(int)
    plain = grey[np.ptp(grey[..., :3], axis=-1) == 0]
    assert plain.max() > 200  # cells, not darkness


@pytest.mark.parametrize("text", ["1", "1,2,3", "a,b"])
def test_a_pair_is_two_numbers(text, capsys):
    with pytest.raises(SystemExit):
        run("a.tif", "out", "--percentiles", text)
    assert "needs two numbers LOW,HIGH" in capsys.readouterr().err


def test_what_is_done_is_skipped_and_never_replaced_unasked(pictures, tmp_path, capsys):
    folder, _ = pictures
    out = tmp_path / "out"
    assert run(folder / "a.tif", out, "--diameter-px", 30) == 0
    first = (out / "a_labels.tif").stat().st_mtime_ns
    assert run(folder, out, "--diameter-px", 30) == 0
    assert "1 segmented, 1 done before" in capsys.readouterr().out
    assert run(folder, out, "--diameter-px", 20) == 1
    assert "pass --overwrite" in capsys.readouterr().err
    assert (out / "a_labels.tif").stat().st_mtime_ns == first
    assert run(folder, out, "--diameter-px", 20, "--overwrite") == 0
    assert (out / "a_labels.tif").stat().st_mtime_ns > first


def test_no_output_of_other_settings_counts_as_done(pictures, tmp_path, capsys):
    folder, _ = pictures
    out = tmp_path / "out"
    first = (folder / "a.tif", out, "--diameter-px", 30)
    other = (*first, "--min-size-px", 900, "--overwrite")
    assert run(*first, "--save", "csv,parquet") == 0
    before = (out / "a_cells.csv").read_text()
    assert run(*other, "--save", "csv") == 0  # what the first run gave besides goes with it
    after = (out / "a_cells.csv").read_text()
    assert len(after) < len(before) and not (out / "a_cells.parquet").exists()
    assert run(*first, "--overwrite", "--save", "none") == 0
    assert not (out / "a_cells.csv").exists()
    assert run(*first, "--save", "csv") == 0
    assert (out / "a_cells.csv").read_text() == before
    assert run(*first, "--save", "none") == 0
    assert "1 done before" in capsys.readouterr().out.splitlines()[-1]
    assert run(*first, "--save", "geojson") == 0
    assert run(*first, "--save", "csv,geojson") == 0  # with the same settings nothing is stale
    assert "1 done before" in capsys.readouterr().out.splitlines()[-1]


def test_what_another_machine_has_done_is_done(pictures, tmp_path, monkeypatch, capsys):
    folder, _ = pictures
    assert run(folder / "a.tif", tmp_path / "out", "--diameter-px", 30) == 0
    from cellseg_pipe.nets.engine import Engine

    real = Engine.__init__

    def elsewhere(self, *args, **settings):
        real(self, *args, **settings)
        self.numerics = "cpu of another kind"

    monkeypatch.setattr(Engine, "__init__", elsewhere)
    assert run(folder / "a.tif", tmp_path / "out", "--diameter-px", 30) == 0
    assert "1 done before" in capsys.readouterr().out


def test_a_result_of_somebody_else_is_not_replaced(pictures, tmp_path, capsys):
    folder, _ = pictures
    mine = tmp_path / "labels.tif"
    mine.write_bytes(b"my own work")
    assert run(folder / "a.tif", mine, "--diameter-px", 30) == 1
    assert "exists and was made from another image" in capsys.readouterr().err
    assert mine.read_bytes() == b"my own work"


def test_a_run_that_was_cut_off_while_writing_goes_on(pictures, tmp_path, monkeypatch):
    folder, _ = pictures
    out = tmp_path / "out"

    def full(path, table):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cellseg_pipe.stages.segment.write_table", full)
    assert run(folder / "a.tif", out, "--diameter-px", 30) == 1
    assert json.loads((out / "a_labels.cellseg.json").read_text())["state"] == "writing"
    monkeypatch.undo()
    assert run(folder / "a.tif", out, "--diameter-px", 30) == 0
    assert json.loads((out / "a_labels.cellseg.json").read_text())["state"] == "done"
    assert (out / "a_cells.csv").exists()


def test_one_bad_file_does_not_stop_the_others(pictures, tmp_path, capsys):
    folder, _ = pictures
    bad = tmp_path / "in"
    bad.mkdir()
    (bad / "a0.tif").write_bytes(b"damaged")
    tifffile.imwrite(bad / "a1.tif", tifffile.imread(folder / "a.tif"))
    assert run(bad, tmp_path / "out", "--diameter-px", 30) == 1
    said = capsys.readouterr()
    assert "1 segmented, 0 done before, 1 failed" in said.out
    assert "a0.tif" in said.err and "cannot be read as TIFF" in said.err
    assert (tmp_path / "out" / "a1_labels.tif").exists()


@pytest.mark.parametrize("name", ["x.png", "x.npy", "x.ome.zarr"])
def test_one_image_into_one_file(pictures, tmp_path, name, capsys):
    folder, truths = pictures
    given = (folder / "a.tif", tmp_path / name, "--save", "none")
    assert run(*given, "--diameter-um", 15) == 0
    assert evaluate(read_array(tmp_path / name), truths["a"]).ap[0.5] > 0.8
    assert run(*given, "--diameter-um", 15) == 0
    assert "1 done before" in capsys.readouterr().out
    assert run(*given, "--diameter-um", 12) == 1
    assert run(*given, "--diameter-um", 12, "--overwrite") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.cellseg.json", name]


@pytest.mark.parametrize("where", [".", "a.tif", "s.ome.zarr", "s.ome.zarr/new"])
def test_no_image_is_written_over_whatever_is_asked_for(pictures, tmp_path, where, capsys):
    folder, _ = pictures
    image, store = tmp_path / "a.tif", tmp_path / "s.ome.zarr"
    image.write_bytes((folder / "a.tif").read_bytes())
    write_labels(store, np.ones((40, 50), np.uint32))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    source = store if where.startswith("s") else image
    safe = where == "."
    assert run(source, tmp_path / where, "--diameter-px", 30, "--overwrite") == (0 if safe else 1)
    assert safe or "over the image" in capsys.readouterr().err
    after = {path: path.stat().st_mtime_ns for path in before}
    assert {p: t for p, t in after.items() if p != tmp_path} == {
        p: t for p, t in before.items() if p != tmp_path
    }


def test_a_store_that_changed_is_segmented_again(tmp_path, capsys):
    store = tmp_path / "s.ome.zarr"
    write_labels(store, np.ones((40, 50), np.uint32))
    assert run(store, tmp_path / "out", "--diameter-px", 30) == 0
    zarr.open_group(str(store))["0"][:9] = 5
    assert run(store, tmp_path / "out", "--diameter-px", 30) == 1
    assert "pass --overwrite" in capsys.readouterr().err


def test_the_size_of_a_voxel_that_was_given_is_what_is_written(pictures, tmp_path):
    folder, _ = pictures
    out = tmp_path / "x.ome.zarr"
    assert run(folder / "a.tif", out, "--diameter-px", 30, "--spacing-um", "0.25,0.75") == 0
    assert open_image(out).spacing_um == (0.25, 0.75)


def test_a_volume_is_refused_before_it_is_segmented_where_it_cannot_be_written(
    tmp_path, monkeypatch, capsys
):
    tifffile.imwrite(tmp_path / "v.tif", np.zeros((6, 40, 40), np.uint16), metadata={"axes": "ZYX"})
    monkeypatch.setattr("cellseg_pipe.stages.segment.segment", None)
    monkeypatch.setattr("cellseg_pipe.stages.segment.in_memory", None)
    for more in (["--format", ".png"], ["--save", "rois"]):
        assert run(tmp_path / "v.tif", tmp_path / "out", "--diameter-px", 30, *more) == 1
        assert "this is a volume" in capsys.readouterr().err


def test_memory_that_is_not_enough_is_said_and_does_not_stop_the_others(
    pictures, tmp_path, monkeypatch, capsys
):
    folder, _ = pictures

    def short(pixels, **given):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr("cellseg_pipe.stages.segment.segment", short)
    assert run(folder, tmp_path / "out", "--diameter-px", 30) == 1
    assert "2 failed" in capsys.readouterr().out
    monkeypatch.setattr("cellseg_pipe.io.reading.available_bytes", lambda: 1000)
    assert run(folder, tmp_path / "out", "--diameter-px", 30) == 1
    assert "which works in tiles" in capsys.readouterr().err


def test_channels_are_named_before_they_are_counted(tmp_path, monkeypatch):
    path = tmp_path / "n.ome.tif"
    pixels = np.random.default_rng(0).integers(0, 900, (2, 64, 64)).astype(np.uint16)
    about = {"axes": "CYX", "Channel": {"Name": ["405", "1"]}}
    tifffile.imwrite(path, pixels, ome=True, metadata=about)
    told = []
    monkeypatch.setattr(
        "cellseg_pipe.stages.segment.segment",
        lambda pixels, **given: told.append(segment(pixels, **given)) or told[-1],
    )
    for named in ("405", "1", "0"):
        assert run(path, tmp_path / named, "--diameter-px", 30, "--channels", named) == 0
    assert [one.plan.picks[0].index for one in told] == [0, 1, 0]


def test_channels_axes_and_mode_reach_the_segmentation(tmp_path):
    spec = replace(PRESETS["cells"], shape=(160, 170), seed=1, diameter_px=40)
    piece = render(spec, Box.of(spec.shape))
    np.save(tmp_path / "c.npy", piece.image)
    options = ["--axes", "cyx", "--channels", "1,0", "--diameter-px", 40]
    assert run(tmp_path / "c.npy", tmp_path / "c.tif", *options) == 0
    assert evaluate(read_array(tmp_path / "c.tif"), piece.labels).ap[0.5] > 0.5
    volume = np.repeat(piece.image[1][None], 6, axis=0)
    np.save(tmp_path / "v.npy", volume)
    options = ["--axes", "zyx", "--mode", "planes", "--diameter-px", 40, "--save", "none"]
    assert run(tmp_path / "v.npy", tmp_path / "v.tif", *options) == 0
    assert run(tmp_path / "v.npy", tmp_path / "w.tif", *options[:-1], "rois") == 1
    assert not (tmp_path / "w.tif").exists()
    labels = read_array(tmp_path / "v.tif")
    assert labels.shape == volume.shape and (labels[0] == labels[5]).all() and labels.max() > 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--diameter-px", "0"], "diameter_px needs a number above 0"),
        (["--diameter-um", "-1"], "diameter_um needs a number above 0"),
        (["--channels", "7"], "there is no channel 7"),
        (["--mode", "3d", "--diameter-px", "30"], "volume z, y, x"),
        (["--device", "cuda:99"], "needs a GPU that torch sees"),
        (["--model", "nowhere"], "no model 'nowhere'"),
        (["--save", "excel"], "further outputs are of"),
        (["--format", ".jpg"], "a label format is one of"),
        (["--threads", "0"], "threads needs a number of 1 or more"),
        (["--min-size-px", "100", "--max-size-px", "10"], "max_size_px needs min_size_px"),
        (["--percentiles", "1,200"], "two numbers from 0 to 100"),
        (["--percentiles", "1,98", "--value-range", "1,98"], "percentiles have no effect"),
        (["--diameter-px", "9", "--diameter-by", "style"], "diameter_by has no effect"),
    ],
)
def test_bad_settings_leave_nothing_behind(pictures, tmp_path, capsys, options, message):
    folder, _ = pictures
    arguments = ["segment", str(folder / "a.tif"), str(tmp_path / "out"), "--model", TINY, *options]
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert message in said
    if "diameter" in message:  # of no image: nothing was read
        assert "a.tif" not in said
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left == []


def test_a_file_for_many_images_is_refused(pictures, tmp_path):
    folder, _ = pictures
    with pytest.raises(ValueError, match="is one file, got 2 images"):
        jobs_for([folder], tmp_path / "x.tif")


def test_help_needs_no_torch():
    code = (
        "import sys\nfrom cellseg_pipe.cli import main\n"
        "try:\n    main(['segment', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'numba', 'zarr'} & set(sys.modules), 'slow imports'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--diameter-px" in done.stdout
