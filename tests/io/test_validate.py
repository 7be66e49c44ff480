"""What a check of a store finds: nothing in ours, and each fault by its name and its place."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg_pipe.io.ngff import ImageMeta, create_image, create_labels
from cellseg_pipe.io.validate import validate

FOREIGN = Path(__file__).parents[3] / "shared" / "data" / "interop"
needs_files = pytest.mark.skipif(not FOREIGN.is_dir(), reason="needs ../shared/data/interop")
PIXELS = np.arange(2 * 700 * 600, dtype=np.uint16).reshape(2, 700, 600)


def ours(path, version):
    """Write an image of two levels with a label image of two."""
    meta = ImageMeta("cyx", (0.5, 0.25), ("a", "b"))
    array = {"shape": PIXELS.shape, "dtype": "uint16"}
    create_image(path, meta, array=array, value_range=(0, 9), version=version, n_levels=2)
    labels = {"shape": PIXELS.shape[1:], "n_levels": 2}
    create_labels(path, "cells", ImageMeta("yx", (0.5, 0.25)), array=labels, version=version)
    return path


def plate(path, version):
    """Write a plate of one well with one field."""
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    well = group.create_group("A").create_group("1")
    ours(path / "A" / "1" / "0", version)
    wells = [{"path": "A/1", "rowIndex": 0, "columnIndex": 0}]
    about = {"rows": [{"name": "A"}], "columns": [{"name": "1"}], "wells": wells, "name": "p"}
    images = {"images": [{"path": "0"}]}
    if version == "0.4":
        group.attrs["plate"] = {**about, "version": version}
        well.attrs["well"] = {**images, "version": version}
    else:
        group.attrs["ome"] = {"version": version, "plate": about}
        well.attrs["ome"] = {"version": version, "well": images}
    return path


@pytest.fixture(scope="module", params=["0.4", "0.5"])
def store(request, tmp_path_factory):
    return request.param, plate(tmp_path_factory.mktemp("stores") / "p.zarr", request.param)


def change(path, version, edit):
    """Change the metadata of a group."""
    file = path / (".zattrs" if version == "0.4" else "zarr.json")
    whole = json.loads(file.read_text())
    edit(whole if version == "0.4" else whole["attributes"]["ome"])
    file.write_text(json.dumps(whole))


def copied(store, tmp_path):
    version, path = store
    return version, Path(shutil.copytree(path, tmp_path / "p.zarr"))


@pytest.mark.parametrize("inner", ["", "A/1", "A/1/0", "A/1/0/labels", "A/1/0/labels/cells"])
def test_nothing_is_found_in_ours(store, inner):
    assert validate(store[1] / inner) == []


def scale_of(about, level=0):
    return about["multiscales"][0]["datasets"][level]["coordinateTransformations"]


def axes_of(about):
    return about["multiscales"][0]["axes"]


IMAGE = [
    (lambda a: axes_of(a).reverse(), "error", "the order time, channel, space"),
    (lambda a: axes_of(a)[1].pop("type"), "error", "2 or 3 of type space"),
    (lambda a: axes_of(a)[1].update(unit="µm"), "warning", "a unit of space.*got 'µm'"),
    (lambda a: axes_of(a)[1].pop("unit"), "warning", "a unit is expected"),
    (lambda a: axes_of(a)[1].update(name="x"), "error", "names that differ"),
    (lambda a: axes_of(a).pop(), "error", "2 axes are expected, got shape"),
    (lambda a: a["multiscales"][0].pop("axes"), "error", "2 to 5 objects are expected, got None"),
    (lambda a: scale_of(a).reverse(), "error", "one scale, then at most one translation"),
    (lambda a: scale_of(a).clear(), "error", "one scale, then at most one translation"),
    (lambda a: scale_of(a)[0]["scale"].pop(), "error", "a scale of 3 positive numbers"),
    (lambda a: scale_of(a)[0]["scale"].__setitem__(1, 0), "error", "a scale of 3 positive numbers"),
    (lambda a: scale_of(a)[1]["translation"].append(0), "error", "a translation of 3 numbers"),
    (lambda a: a["multiscales"][0]["datasets"].reverse(), "error", "the finest level is expected"),
    (lambda a: a["multiscales"][0]["datasets"].reverse(), "error", "a level within"),
    (lambda a: a["multiscales"][0]["datasets"].clear(), "error", "one or more are expected"),
    (lambda a: a["multiscales"][0]["datasets"][1].update(path="7"), "error", "there is none"),
    (lambda a: a.update(multiscales=[]), "error", "objects are expected"),
    (lambda a: a["omero"]["channels"].pop(), "warning", "2 are expected, one per channel, got 1"),
    (lambda a: a["omero"]["channels"][0].update(color="red"), "error", "six hex digits"),
    (lambda a: a["omero"]["channels"][0]["window"].pop("min"), "error", "min are missing"),
]


@pytest.mark.parametrize(("edit", "level", "message"), IMAGE)
def test_faults_of_images(store, tmp_path, edit, level, message):
    version, path = copied(store, tmp_path)
    change(path / "A" / "1" / "0", version, edit)
    found = [str(finding) for finding in validate(path)]
    assert any(t.startswith(f"{level}: {path}/A/1/0") and matches(message, t) for t in found), found


def test_a_translation_is_not_asked_for(store, tmp_path):
    version, path = copied(store, tmp_path)
    change(path / "A" / "1" / "0", version, lambda about: scale_of(about).pop())
    assert validate(path) == []


def matches(pattern, text):
    return re.search(pattern, text) is not None


LABELS = [
    (lambda a: a.pop("image-label"), "warning", "an object is expected, got None"),
    (lambda a: a["image-label"]["source"].update(image="../9"), "error", "an image is expected"),
    (lambda a: a["image-label"]["source"].update(image=3), "error", "a path is expected, got 3"),
    (lambda a: a["image-label"].update(colors=[{}]), "error", "each needs a whole label-value"),
    (
        lambda a: a["image-label"].update(colors=[{"label-value": 1}] * 2),
        "error",
        "a label-value occurs twice",
    ),
    (
        lambda a: a["image-label"].update(colors=[{"label-value": 1, "rgba": [0, 0, 300, 0]}]),
        "error",
        "rgba of 0 to 255",
    ),
    (lambda a: a["multiscales"][0]["datasets"].pop(), "warning", "as many levels as the image"),
]


@pytest.mark.parametrize(("edit", "level", "message"), LABELS)
def test_faults_of_labels(store, tmp_path, edit, level, message):
    version, path = copied(store, tmp_path)
    inner = path / "A" / "1" / "0" / "labels" / "cells"
    change(inner, version, edit)
    found = [str(finding) for finding in validate(path)]
    assert any(t.startswith(f"{level}: {inner}") and matches(message, t) for t in found), found


def test_labels_that_are_no_whole_numbers_or_not_listed(store, tmp_path):
    version, path = copied(store, tmp_path)
    labels = path / "A" / "1" / "0" / "labels"
    shutil.copytree(labels / "cells", labels / "other")
    change(labels, version, lambda about: about.update(labels=["other"]))
    group = zarr.open_group(labels / "other", mode="r+")
    options = {"dimension_names": ["y", "x"]} if version == "0.5" else {}
    group.create_array("0", data=np.zeros((700, 600), "f4"), overwrite=True, **options)
    found = [str(finding) for finding in validate(path)]
    assert any("whole numbers are expected, got float32" in text for text in found)
    assert any("cells is there, and is not listed" in text for text in found)


PLATE = [
    (lambda a: a["plate"]["wells"][0].update(path="B/1"), "error", "path of its indices is A/1"),
    (lambda a: a["plate"]["wells"][0].update(path="A"), "error", "ROW/COLUMN is expected"),
    (lambda a: a["plate"]["wells"][0].pop("rowIndex"), "error", "rowIndex and columnIndex"),
    (lambda a: a["plate"]["rows"].append({"name": "A"}), "error", "each once is expected"),
    (lambda a: a["plate"].pop("columns"), "error", "names are expected"),
    (lambda a: a["plate"]["wells"].clear(), "error", "one or more are expected"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "level", "message"), PLATE)
def test_faults_of_plates(store, tmp_path, edit, level, message):
    version, path = copied(store, tmp_path)
    change(path, version, edit)
    found = [str(finding) for finding in validate(path)]
    assert any(t.startswith(f"{level}: {path}") and matches(message, t) for t in found), found


def test_versions_and_forms_of_storage(tmp_path):
    path = ours(tmp_path / "a.zarr", "0.5")
    change(path, "0.5", lambda about: about.update(version="0.4"))
    assert any("Zarr 2 is expected for 0.4" in str(f) for f in validate(path))
    change(path, "0.5", lambda about: about.update(version="0.9"))
    assert "0.4 or 0.5 is expected, got '0.9'" in str(validate(path)[0])
    change(path, "0.5", lambda about: about.pop("version"))
    assert "'0.5' is expected, got none" in str(validate(path)[0])
    names = json.loads((path / "0" / "zarr.json").read_text())
    (path / "0" / "zarr.json").write_text(json.dumps({**names, "dimension_names": ["c", "x", "y"]}))
    assert any("0 dimension_names: the names of the axes" in str(f) for f in validate(path))
    old = ours(tmp_path / "b.zarr", "0.4")
    about = json.loads((old / "0" / ".zarray").read_text())
    (old / "0" / ".zarray").write_text(json.dumps({**about, "dimension_separator": "."}))
    (finding,) = validate(old)
    assert (finding.level, finding.what) == ("warning", "'/' is expected, got '.'")
    assert finding.where == f"{old} 0 dimension_separator"


def test_what_is_no_store_of_ome_zarr_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        validate(tmp_path / "none.zarr")
    zarr.open_group(tmp_path / "a.zarr", mode="w")
    with pytest.raises(ValueError, match="has metadata of none"):
        validate(tmp_path / "a.zarr")
    path = ours(tmp_path / "b.zarr", "0.4")
    with pytest.raises(ValueError, match="got an array"):
        validate(path / "0")


# what is found in the stores of others; the indices of that plate do name other wells
FOREIGN_STORES = [
    ("omezarrexamples_valid", "valid/image-01.zarr", []),
    ("omezarrexamples_valid", "valid/image-04.zarr", []),
    ("omezarrexamples_valid", "valid/plate-01.zarr", ["the path of its indices is B/1, got A/2"]),
    ("omezarrexamples_warning", "warning/image-01.zarr", ["int64, got float64"]),
    ("fijijava_5d_testing", "5d_testing/5d_dataset_v5.ome.zarr", ["a unit is expected"]),
    ("mobie_skimage_2dt", "skimage-2dt-zarr/image.ome.zarr", ["got 'pixel'"]),
    ("neuroglancer_omezarr", "ome_zarr/simple_0.5", []),
    ("ngio_v04", "v04/images/test_image_tczyx.zarr", []),
    ("omezarrmodels_examples", "examples/v04/hcs_example.ome.zarr", []),
    ("omezarrpy_testdata", "data/v2", ["0.4 or 0.5 is expected, got '0.2'"]),
]


@needs_files
@pytest.mark.parametrize(("archive", "inner", "messages"), FOREIGN_STORES)
def test_stores_of_others(tmp_path, archive, inner, messages):
    with zipfile.ZipFile(FOREIGN / f"{archive}.zip") as packed:
        packed.extractall(tmp_path)
    found = [str(finding) for finding in validate(tmp_path / inner)]
    for message in messages:
        assert any(message in text for text in found), found
    if not messages:
        assert found == []


@settings(max_examples=150)
@given(data=st.data())
def test_broken_metadata_are_findings_or_refused(store, data):
    _, path = store
    files = sorted(p for p in path.rglob("*") if p.name in (".zattrs", "zarr.json", ".zarray"))
    file = data.draw(st.sampled_from(files))
    content = file.read_text()
    document = json.loads(content)
    spots = []

    def walk(parent):
        keys = parent if isinstance(parent, dict) else range(len(parent))
        for key in list(keys):
            spots.append((parent, key))
            if isinstance(parent[key], dict | list):
                walk(parent[key])

    walk(document)
    if spots:
        parent, key = data.draw(st.sampled_from(spots))
        parent[key] = data.draw(
            st.sampled_from([None, True, -1, 2**70, "", "x", "\0", [], {}, [[]], {"name": 3}])
        )
    file.write_text(json.dumps(document))
    try:
        for finding in validate(path):
            assert str(path) in finding.where and "\n" not in str(finding)
    except (ValueError, OSError) as error:
        assert str(path) in str(error) and "\n" not in str(error)
    finally:
        file.write_text(content)
