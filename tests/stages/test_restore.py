"""`cellseg restore`: files of all kinds keep their axes, names and sizes; nothing is replaced."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

import cellseg_pipe as cs
from cellseg_pipe.cli import main
from cellseg_pipe.geometry import Box
from cellseg_pipe.io.opening import open_image
from cellseg_pipe.io.reading import Image, read_image
from cellseg_pipe.io.validate import validate
from cellseg_pipe.io.writing import write_image
from cellseg_pipe.nets.checkpoint import load, save
from cellseg_pipe.synth import PRESETS, render

TINY = Path(__file__).parents[1] / "golden" / "models" / "tiny.safetensors"
NET = Path(__file__).parents[1] / "golden" / "checkpoints" / "restoration"
FAST = ["--device", "cpu", "--precision", "fp32"]


def noisy(shape, seed=0, dtype=np.uint16):
    return np.random.default_rng(seed).poisson(20.0, shape).astype(dtype)


@pytest.fixture
def upsampler(tmp_path):
    """Return a model that enlarges, to cells of 30 px."""
    model = load(NET)
    info = replace(model.info, restores="upsample", origin="cellseg_pipe")
    return save(tmp_path / "large.safetensors", model.net, info, dtype="float32")


def test_a_folder_is_restored_into_another(tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(2):
        tifffile.imwrite(folder / f"n{n}.tif", noisy((40, 50), n))
    out = tmp_path / "out"
    command = ["restore", str(folder), str(out), "--model", str(NET), *FAST]
    assert main(command) == 0
    assert "2 restored, 0 failed" in capsys.readouterr().out
    found = read_image(out / "n1.tif")
    wanted = cs.restore(noisy((40, 50), 1), model=NET, dtype="input", device="cpu",
                        precision="fp32").pixels  # fmt: skip
    np.testing.assert_array_equal(found.pixels[0], wanted)
    before = (out / "n0.tif").read_bytes()
    assert main(command) == 1
    assert "exists. Name another folder" in capsys.readouterr().err
    assert (out / "n0.tif").read_bytes() == before


def test_one_bad_file_does_not_stop_the_others_and_the_rest_follows(tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in "ac":
        tifffile.imwrite(folder / f"{name}.tif", noisy((40, 50)))
    (folder / "b.tif").write_bytes(b"no image")
    command = ["restore", str(folder), str(out), "--method", "median"]
    assert main(command) == 1
    said = capsys.readouterr()
    assert "2 restored, 1 failed" in said.out and "failed: b.tif" in said.err
    assert sorted(path.name for path in out.iterdir()) == ["a.tif", "c.tif"]
    tifffile.imwrite(folder / "b.tif", noisy((40, 50)))
    before = (out / "a.tif").stat().st_mtime_ns
    assert main(command) == 1 and "--skip-existing" in capsys.readouterr().err
    assert main([*command, "--skip-existing"]) == 0
    assert "1 restored, 0 failed" in capsys.readouterr().out
    assert (out / "b.tif").exists() and (out / "a.tif").stat().st_mtime_ns == before


def test_masks_of_yes_and_no_are_filtered(tmp_path):
    np.save(tmp_path / "a.npy", noisy((30, 40)) > 20)
    out = tmp_path / "b.npy"
    assert main(["restore", str(tmp_path / "a.npy"), str(out), "--method", "median"]) == 0
    assert np.load(out).dtype == bool


def test_labels_of_an_enlarged_image_lie_where_its_cells_are(tmp_path, upsampler):
    """Size and place of a pixel go from the image over the enlarged one to its labels."""
    spec = replace(PRESETS["nuclei"], shape=(120, 140), diameter_px=12, seed=3)
    piece = render(spec, Box.of(spec.shape))
    source, large = tmp_path / "in.ome.zarr", tmp_path / "large.ome.zarr"
    about = Image(piece.image[:1], "yx", (), (0.8, 0.8), False, source)
    write_image(about, source, offset_um=(5.0, 6.0))
    options = ["--model", str(upsampler), "--diameter-px", "12", *FAST]
    assert main(["restore", str(source), str(large), *options]) == 0
    labels = tmp_path / "labels.ome.zarr"
    command = ["segment", str(large), str(labels), "--diameter-um", str(12 * 0.8)]
    assert main([*command, "--model", str(TINY), "--device", "cpu"]) == 0
    found, image = zarr.open_group(str(labels), mode="r"), open_image(large)
    assert image.shape == (300, 350) == found["0"].shape
    assert image.spacing_um == pytest.approx((0.32, 0.32))
    (said,) = found.attrs["multiscales"]
    scale, place = said["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == pytest.approx([0.32, 0.32])
    assert place["translation"] == pytest.approx([5 - 0.24, 6 - 0.24]) == list(image.offset_um)


@pytest.mark.parametrize("options", [[], ["--float"]])
def test_few_photons_are_not_rounded_without_a_word(tmp_path, caplog, options):
    tifffile.imwrite(tmp_path / "a.tif", noisy((60, 50)) // 10)  # 0 to 3 photons
    out = tmp_path / "b.tif"
    assert main(["restore", str(tmp_path / "a.tif"), str(out), "--method", "median", *options]) == 0
    told = [text for text in caplog.messages if "--float keeps what lies between" in text]
    assert len(told) == (not options) and read_image(out).pixels.dtype.kind == "uf"[bool(options)]


def test_a_given_spacing_moves_nothing(tmp_path, upsampler):
    source, out = tmp_path / "a.ome.zarr", tmp_path / "b.ome.zarr"
    about = Image(noisy((1, 60, 50)), "yx", (), (0.5, 0.5), False, source)
    write_image(about, source, offset_um=(3.0, 4.0))
    options = ["--model", str(upsampler), "--diameter-px", "15", "--spacing-um", "0.2,0.2", *FAST]
    assert main(["restore", str(source), str(out), *options]) == 0
    found = open_image(out)
    assert found.spacing_um == (0.1, 0.1) and found.offset_um == pytest.approx((2.95, 3.95))


def test_an_image_that_does_not_fit_is_not_read(tmp_path, monkeypatch, capsys):
    tifffile.imwrite(tmp_path / "a.tif", noisy((60, 50)))
    monkeypatch.setattr("cellseg_pipe.io.reading.available_bytes", lambda: 1000)
    command = ["restore", str(tmp_path / "a.tif"), str(tmp_path / "b.tif"), "--method", "median"]
    assert main(command) != 0 and not (tmp_path / "b.tif").exists()
    assert "in memory, got" in "".join(capsys.readouterr())


def test_a_store_keeps_channels_and_gets_levels_and_smaller_pixels(tmp_path, upsampler):
    pixels = noisy((2, 3, 300, 260))
    source = tmp_path / "in.ome.zarr"
    about = Image(pixels, "zyx", ("DAPI", "actin"), (2.0, 0.6, 0.6), False, source)
    write_image(about, source, offset_um=(0.0, 5.0, 6.0))
    out = tmp_path / "out.ome.zarr"
    options = ["--model", str(upsampler), "--diameter-px", "15", "--channels", "actin", *FAST]
    assert main(["restore", str(source), str(out), *options]) == 0
    found = open_image(out)
    assert found.shape == (3, 600, 520) and found.dtype == np.uint16 and found.n_levels == 2
    assert found.spacing_um == (2.0, 0.3, 0.3) and found.channel_names == ("DAPI", "actin")
    assert found.offset_um == pytest.approx((0.0, 4.85, 5.85))
    assert not [finding for finding in validate(out) if finding.level == "error"]
    group = zarr.open_group(str(out), mode="r")
    level_0, level_1 = (np.asarray(group[name][...]) for name in ("0", "1"))
    blocks = level_0.reshape(2, 3, 300, 2, 260, 2).mean((3, 5))
    np.testing.assert_allclose(level_1, blocks, atol=0.51)
    wanted = cs.restore(pixels, axes="czyx", model=upsampler, diameter_px=15, channels=1,
                        dtype="input", device="cpu", precision="fp32").pixels  # fmt: skip
    np.testing.assert_array_equal(level_0, wanted)


@pytest.mark.parametrize("ending", [".tif", ".png", ".npy", ".ome.zarr"])
@pytest.mark.parametrize(("shape", "rgb"), [((1, 40, 50), False), ((3, 40, 50), True)])
def test_each_kind_of_file_gives_its_pixels_back(tmp_path, ending, shape, rgb):
    pixels = noisy(shape, dtype=np.uint8)
    path = tmp_path / f"a{ending}"
    write_image(Image(pixels, "yx", (), (0.5, 0.5), rgb, path), path)
    found = read_image(path)
    np.testing.assert_array_equal(found.pixels, pixels)
    assert found.rgb == rgb and found.pixels.dtype == np.uint8
    if ending in (".tif", ".ome.zarr"):
        assert found.spacing_um == pytest.approx((0.5, 0.5))


def test_names_of_channels_are_kept_in_tiffs(tmp_path):
    path = tmp_path / "a.tif"
    write_image(Image(noisy((2, 3, 40, 50)), "zyx", ("a", "b"), (2, 0.5, 0.5), False, path), path)
    found = read_image(path)
    assert found.channel_names == ("a", "b") and found.spacing_um == pytest.approx((2, 0.5, 0.5))
    np.testing.assert_array_equal(found.pixels, noisy((2, 3, 40, 50)))


def test_float_results_and_filters(tmp_path):
    image = tmp_path / "a.npy"
    np.save(image, noisy((30, 40), dtype=np.uint8))
    out = tmp_path / "b.npy"
    assert main(["restore", str(image), str(out), "--method", "gaussian", "--sigma-px", "2",
                 "--float"]) == 0  # fmt: skip
    found = np.load(out)
    assert found.dtype == np.float32
    wanted = cs.restore(np.load(image), method="gaussian", sigma_px=2.0).pixels
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("options", "out", "said"),
    [
        (["--model", "no-such"], "b.tif", "no-such"),
        (["--method", "median", "--float"], "b.png", "PNG holds"),
        (["--method", "median", "--format", ".gif"], "folder", "the format needs to be one of"),
        (["--method", "median", "--size-px", "2"], "b.tif", "odd number"),
        (["--sigma-px", "9"], "b.tif", "--sigma-px is of method gaussian, got method network"),
        (["--method", "median", "--diameter-px", "9"], "b.tif", "--diameter-px is of method net"),
        (["--method", "median", "--precision", "fp32"], "b.tif", "--precision is of method net"),
        (["--model", str(NET), "--diameter-um", "8"], "b.tif", "size of a pixel"),
        (["--model", str(NET), "--diameter-um", "8", "--diameter-px", "8"], "b.tif", "one unit"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(tmp_path, capsys, options, out, said):
    image = tmp_path / "a.tif"
    tifffile.imwrite(image, noisy((30, 40)))
    assert main(["restore", str(image), str(tmp_path / out), *options]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / out).is_file()


def test_two_images_do_not_go_into_one_file(tmp_path, capsys):
    for name in "ab":
        tifffile.imwrite(tmp_path / f"{name}.tif", noisy((30, 40)))
    command = ["restore", str(tmp_path / "a.tif"), str(tmp_path / "b.tif")]
    assert main([*command, str(tmp_path / "c.tif"), "--method", "median"]) == 1
    assert "one file" in capsys.readouterr().err
