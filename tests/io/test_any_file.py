"""Whatever is named to `cellseg init` and `cellseg plan`: it is read, or refused in one line."""

import functools
import http.server
import re
import threading
import zipfile
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import tifffile
import yaml
import zarr

from cellseg_pipe.cli import main
from cellseg_pipe.geometry import Box
from cellseg_pipe.io.inputs import find_inputs, stem_of
from cellseg_pipe.io.ngff import ImageMeta, create_image
from cellseg_pipe.io.opening import open_image
from cellseg_pipe.io.validate import validate

MODEL = Path(__file__).parents[1] / "golden/models/tiny.safetensors"
FOREIGN = Path(__file__).parents[3] / "shared" / "data" / "interop"
foreign = pytest.mark.skipif(not FOREIGN.is_dir(), reason="needs ../shared/data/interop")
PIXELS = np.random.default_rng(0).integers(0, 255, (80, 90), np.uint8)


@pytest.fixture
def cellseg(tmp_path, capsys):
    """Run a command; its status and what it says."""

    def run(*arguments):
        status = main(list(map(str, arguments)))
        return status, capsys.readouterr()

    return run


def proposed(cellseg, path, folder):
    """Let `cellseg init` write an experiment; None and its words where it refuses."""
    config = folder / "cellseg.yaml"
    config.unlink(missing_ok=True)
    status, said = cellseg("init", path, "-o", config, "--output", folder / "out", "--model", MODEL)
    assert (status == 0) == config.exists()
    return (config if status == 0 else None), said.err.splitlines()[-1:]


def planned(cellseg, config):
    """Let `cellseg plan` look at it, with a diameter that need not be measured."""
    about = yaml.safe_load(config.read_text())
    del about["targets"]["nuclei"]["diameter_um"]
    about["targets"]["nuclei"]["diameter_px"] = 30
    config.write_text(yaml.safe_dump(about))
    status, said = cellseg("plan", config)
    return status, said.out.splitlines()[-1:], said.err.splitlines()[-1:]


def write_store(path):
    array = {"shape": PIXELS.shape, "dtype": "uint8"}
    create_image(path, ImageMeta("yx", (0.5, 0.5)), array=array, value_range=(0, 255))[...] = PIXELS


def pack(path, folder, *, top=""):
    with zipfile.ZipFile(path, "w") as packed:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                packed.write(file, f"{top}{file.relative_to(folder).as_posix()}")


@pytest.mark.parametrize("ending", [".svs", ".ndpi", ".scn", ".btf", ".tf8", ".tif"])
@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty (0 bytes). Copy it again."), (b"no tiff" * 50, "cannot be read as TIFF: not")],
)
def test_files_that_are_no_tiff(tmp_path, cellseg, ending, content, words):
    path = tmp_path / f"a{ending}"
    path.write_bytes(content)
    config, (line,) = proposed(cellseg, path, tmp_path)
    assert config is None and line.startswith(f"cellseg init: {path} ") and words in line


@pytest.mark.parametrize("name", ["a.scn", "a.btf", "a.ome.btf", "a.ome.tf8"])
def test_tiffs_of_other_names(tmp_path, cellseg, name):
    tifffile.imwrite(tmp_path / name, PIXELS, bigtiff=name != "a.scn")
    np.testing.assert_array_equal(pixels_of(tmp_path / name), PIXELS[None])
    assert (find_inputs([tmp_path]), stem_of(name)) == ([tmp_path / name], "a")
    config, _ = proposed(cellseg, tmp_path, tmp_path)
    assert [image["path"] for image in images_of(config)] == [str(tmp_path / name)]


def pixels_of(path):
    opened = open_image(path)
    return opened.read(Box.of(opened.shape))


def images_of(config):
    return yaml.safe_load(config.read_text())["images"]


@pytest.mark.parametrize("top", ["", "folder/"])
def test_zipped_stores(tmp_path, cellseg, top):
    write_store(tmp_path / "store")
    path = tmp_path / "a.ome.zarr.zip"
    pack(path, tmp_path / "store", top=top)
    (tmp_path / "data").mkdir()
    path = path.rename(tmp_path / "data" / path.name)
    (tmp_path / "data" / "a_rois.zip").write_bytes(b"outlines")
    assert (find_inputs([path.parent]), stem_of(path)) == ([path], "a")
    config, _ = proposed(cellseg, path.parent, tmp_path)
    assert images_of(config) == [{"path": str(path)}]
    status, out, _ = planned(cellseg, config)
    assert status == 0 and "together" in out[0]


def test_images_in_a_zip_file_are_named(tmp_path, cellseg):
    write_store(tmp_path / "stores" / "one.zarr")
    write_store(tmp_path / "stores" / "deep" / "two.zarr")
    path = tmp_path / "several.zip"
    pack(path, tmp_path / "stores", top="top/")
    config, (line,) = proposed(cellseg, path, tmp_path)
    assert config is None and "is a zip file without one" in line
    assert line.endswith(f"as {path}/one.zarr; here: one.zarr, deep/two.zarr.")
    for inner in ("one.zarr", "top/one.zarr", "deep/two.zarr"):
        assert open_image(path / inner).shape == PIXELS.shape
        config, _ = proposed(cellseg, path / inner, tmp_path)
        assert images_of(config)[0]["path"] == str(path / inner)
        assert planned(cellseg, config)[0] == 0
    config, (line,) = proposed(cellseg, path / "three.zarr", tmp_path)
    assert config is None and f"{path}/three.zarr needs to be" in line


def test_a_zipped_array_that_only_zarr_reads(tmp_path):
    filters = [numcodecs.Delta(dtype="u1")]  # unknown to tensorstore
    options = {"chunks": (32, 32), "zarr_format": 2, "filters": filters}
    zarr.create_array(tmp_path / "store" / "0", data=PIXELS, **options)
    about = {"axes": [{"name": "y"}, {"name": "x"}], "datasets": [{"path": "0"}]}
    zarr.open_group(tmp_path / "store", zarr_format=2).attrs["multiscales"] = [about]
    pack(tmp_path / "a.zarr.zip", tmp_path / "store")
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.zarr.zip"), PIXELS[None])
    words = {finding.what for finding in validate(tmp_path / "a.zarr.zip")}
    assert words and not any("cannot be opened" in what for what in words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.zip", "is a zip file without one"),
        ("torn.zip", "cannot be read as a zip file: File is not a zip file"),
        ("a.czi", "or an OME-Zarr folder, got .czi. Convert it to OME-TIFF first"),
        ("none.svs", "and there is none"),
        ("a.npy", "needs pixels, and real numbers as such, got complex64"),
    ],
)
def test_other_files(tmp_path, cellseg, name, words):
    pack(tmp_path / "a.zip", tmp_path)
    (tmp_path / "torn.zip").write_bytes(b"PK\3\4")
    (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE")
    np.save(tmp_path / "a.npy", np.zeros((9, 9), np.complex64))
    config, (line,) = proposed(cellseg, tmp_path / name, tmp_path)
    assert config is None and line.startswith("cellseg init: ") and words in line


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_stores_on_a_server(tmp_path, cellseg):
    write_store(tmp_path / "a.ome.zarr")
    handler = functools.partial(Quiet, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        config, _ = proposed(cellseg, f"{address}/a.ome.zarr", tmp_path)
        assert images_of(config) == [{"path": f"{address}/a.ome.zarr"}]
        status, out, _ = planned(cellseg, config)
        assert status == 0 and "together" in out[0]
        for name in ("b.ome.zarr", "", "a.ome.zarr/0"):
            refused, (line,) = proposed(cellseg, f"{address}/{name}", tmp_path)
            assert refused is None and line.startswith(f"cellseg init: {address}")
    finally:
        server.shutdown()
        server.server_close()
    config, (line,) = proposed(cellseg, f"{address}/a.ome.zarr", tmp_path)
    assert config is None and "cannot be reached" in line


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:9/a.ome.zarr", "cannot be reached"),
        ("http://127.0.0.1:9/a.svs", "only OME-Zarr is read from servers. Download it first."),
        ("http://127.0.0.1:9/a.zarr.zip", "only OME-Zarr is read from servers. Download it first."),
        ("ftp://127.0.0.1:9/a.zarr", "ftp://127.0.0.1:9/a.zarr cannot be reached"),
        ("gopher://127.0.0.1/a.zarr", "Protocol not known: gopher"),
    ],
)
def test_addresses_that_are_refused(tmp_path, cellseg, address, words):
    config, (line,) = proposed(cellseg, address, tmp_path)
    assert config is None and words in line
    config = tmp_path / "by-hand.yaml"
    text = {
        "images": [{"path": address}],
        "output": {"dir": str(tmp_path / "out")},
        "targets": {"nuclei": {"model": str(MODEL), "diameter_px": 30}},
    }
    config.write_text(yaml.safe_dump(text))
    status, said = cellseg("plan", config)
    assert status == 1 and address in said.err and "Traceback" not in said.err


def archives():
    return sorted(FOREIGN.glob("*.zip")) if FOREIGN.is_dir() else []


@foreign
@pytest.mark.parametrize("archive", archives(), ids=lambda path: path.stem)
def test_archives_of_other_programs(tmp_path, cellseg, archive):
    config, (line,) = proposed(cellseg, archive, tmp_path)
    assert config is None and line.startswith(f"cellseg init: {archive} needs to be an OME-Zarr")
    listed = line.rpartition("; here: ")[2].removesuffix(", ....").rstrip(".").split(", ")
    assert listed and f"as {archive}/{listed[0]}; here" in line
    for inner in listed:
        config, said = proposed(cellseg, archive / inner, tmp_path)
        if config is None and inner == "all_0.6/axis_dependent/mapAxis.zarr":
            assert "put into another order by its transformations" in said[0]
        elif config is None:
            words = (
                r"cellseg init: .* has \d+ times of volumes, and one is needed\. Save .* image\."
            )
            assert re.fullmatch(words, said[0])
        else:
            assert images_of(config)[0]["path"] == str(archive / inner)


@foreign
def test_volumes_in_time_are_refused(tmp_path, cellseg):
    path = FOREIGN / "4D-series.ome.tif"
    config, (line,) = proposed(cellseg, path, tmp_path)
    expected = f"{path} has 7 times of volumes, and one is needed. Save each as an image."
    assert config is None and line == f"cellseg init: {expected}"


@foreign
@pytest.mark.parametrize(
    "name",
    [
        "xyc_8bit__cyto_nuclei.tif",
        "fijijava_3d_testing.zip/xyc/3d_dataset_v5.ome.zarr",
        "mobie_skimage_2dt.zip/image.ome.zarr",  # a series in time
        "omezarrexamples_valid.zip/plate-01.zarr/A/1/0",
        "vitessce_spatialdata_0.3.zip/images/blobs_image",
    ],
)
def test_files_of_other_programs_are_planned(tmp_path, cellseg, name):
    config, _ = proposed(cellseg, FOREIGN / name, tmp_path)
    status, out, err = planned(cellseg, config)
    assert status == 0 and "together" in out[0], err
