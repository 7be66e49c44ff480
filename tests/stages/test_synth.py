"""Synthetic stores: the same voxels as rendered, valid for other readers, whole or absent."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models import open_ome_zarr

from cellseg_pipe.geometry import Box
from cellseg_pipe.stages.synth import Output, run, spec_of
from cellseg_pipe.synth import render

SMALL = {"shape": (70, 90), "seed": 1}


@pytest.mark.filterwarnings("ignore")  # what other packages warn of is theirs
@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("preset", "shape"), [("nuclei", (70, 90)), ("cells", (70, 90)), ("volume", (20, 70, 80))]
)
def test_a_store_holds_what_was_rendered_and_others_read_it(tmp_path, preset, shape, version):
    spec = spec_of(preset, {"shape": shape, "seed": 1})
    path = tmp_path / "a.ome.zarr"
    assert run(spec, Output(path, pixel_um=0.25, version=version)) == [path]
    expected = render(spec, Box.of(shape))
    open_ome_zarr(zarr.open_group(path, mode="r"))
    nodes = {node.zarr.basename(): node for node in Reader(parse_url(path))()}
    image = nodes["a.ome.zarr"]
    np.testing.assert_array_equal(np.asarray(image.data[0]), expected.image)
    np.testing.assert_array_equal(np.asarray(nodes["truth"].data[0]), expected.labels)
    if expected.nuclei is not None:
        np.testing.assert_array_equal(np.asarray(nodes["truth_nuclei"].data[0]), expected.nuclei)
    scale = image.metadata["coordinateTransformations"][0][0]["scale"]
    assert scale == [1.0, *(0.25 * step for step in spec.step_px)]


def test_the_labels_group_of_05_has_a_version_and_a_source(tmp_path):
    run(spec_of("nuclei", SMALL), Output(tmp_path / "a.zarr", version="0.5"))
    about = json.loads((tmp_path / "a.zarr/labels/zarr.json").read_text())["attributes"]["ome"]
    assert about == {"version": "0.5", "labels": ["truth"]}
    label = json.loads((tmp_path / "a.zarr/labels/truth/zarr.json").read_text())["attributes"]
    assert label["ome"]["image-label"]["source"] == {"image": "../../"}


def test_a_tiff_gets_its_masks_beside_it(tmp_path):
    spec = spec_of("cells", SMALL)
    paths = run(spec, Output(tmp_path / "b.tif"))
    assert [path.name for path in paths] == ["b.tif", "b_masks.tif", "b_nuclei_masks.tif"]
    expected = render(spec, Box.of(spec.shape))
    for path, array in zip(paths, (expected.image, expected.labels, expected.nuclei), strict=True):
        np.testing.assert_array_equal(tifffile.imread(path), array)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_periodic_store_repeats_its_files_and_numbers_its_cells(tmp_path, version):
    stored = 2048 if version == "0.5" else 512
    changes = {"shape": (stored + 700, 2 * stored + 10), "period_px": (stored, stored)}
    changes |= {"diameter_px": 80, "seed": 2}
    spec = spec_of("sparse", changes)
    path = tmp_path / "p.zarr"
    run(spec, Output(path, version=version, truth=version == "0.4"))
    image = zarr.open_array(path / "0", mode="r")
    box = Box((stored - 40, stored - 60), (stored + 50, stored + 30))
    expected = render(spec, box)
    np.testing.assert_array_equal(image[(slice(None), *box.slices)], expected.image)
    files = [file for file in (path / "0").rglob("*") if file.is_file() and file.name[0] != "."]
    chunks = [file for file in files if file.name.isdigit()]
    assert len({file.stat().st_ino for file in chunks}) == 1 < len(chunks)
    if version == "0.4":
        truth = zarr.open_array(path / "labels/truth/0", mode="r")
        np.testing.assert_array_equal(truth[box.slices], expected.labels)


def test_nothing_of_the_users_is_overwritten_and_nothing_half_written(tmp_path, monkeypatch):
    spec = spec_of("nuclei", SMALL)
    path = tmp_path / "a.zarr"
    path.mkdir()
    with pytest.raises(FileExistsError, match="remove it first"):
        run(spec, Output(path))
    assert not any(path.iterdir())
    monkeypatch.setattr("cellseg_pipe.stages.synth.render", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(spec, Output(tmp_path / "b.zarr"))
    assert [file.name for file in tmp_path.iterdir()] == ["a.zarr"]


def test_wrong_names_are_refused_with_the_right_ones():
    with pytest.raises(ValueError, match="Did you mean photons"):
        spec_of("nuclei", {"fotons": 3})
    with pytest.raises(ValueError, match="preset needs to be one of nuclei"):
        spec_of("slices", {})
    with pytest.raises(ValueError, match="ends in .zarr or .tif"):
        run(spec_of("nuclei", SMALL), Output(Path("a.jpg")))
