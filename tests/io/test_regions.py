"""What users give for a region: QuPath's files, masks, boxes; and what is said of wrong ones."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.draw import polygon2mask

from cellseg_pipe.io.regions import (
    read_outlines,
    region_from_bytes,
    region_identity,
    region_of,
    region_to_bytes,
)
from tests.pipeline.worker import ome_zarr

SHAPE = (60, 90)
HOLED = [
    [[10.0, 5.0], [70.5, 8.25], [66.0, 50.0], [12.0, 44.5], [10.0, 5.0]],
    [[30, 20], [30, 30], [45, 30], [45, 20], [30, 20]],
]


def raster(region):
    points = np.stack(np.mgrid[tuple(slice(n) for n in region.shape)], axis=-1)
    return region.numbers_at(points.reshape(-1, len(region.shape))).reshape(region.shape)


def feature(kind, coordinates, **about):
    return {
        "type": "Feature",
        "id": "9d3e8c9e",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": {"objectType": "annotation", **about},
    }


def truth_of(rings):
    """Pixels whose centres lie in a polygon with holes, by scikit-image."""
    outer, *holes = [np.array(ring)[:, ::-1] - 0.5 for ring in rings]
    found = polygon2mask(SHAPE, outer)
    for hole in holes:
        found &= ~polygon2mask(SHAPE, hole)
    return found


@pytest.mark.parametrize("form", ["collection", "list", "feature", "geometry"])
def test_geojson_in_all_its_forms(tmp_path, form):
    one = feature("Polygon", HOLED, classification={"name": "Tumor", "color": [200, 0, 0]})
    forms = {
        "collection": {"type": "FeatureCollection", "features": [one]},
        "list": [one],
        "feature": one,
        "geometry": one["geometry"],
    }
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(forms[form]))
    region = region_of(path, shape=SHAPE)
    np.testing.assert_array_equal(raster(region) > 0, truth_of(HOLED))
    assert region.names == ("1" if form == "geometry" else "Tumor",)
    volume = region_of(path, shape=(3, *SHAPE))
    np.testing.assert_array_equal(raster(volume), np.stack([raster(region)] * 3))


def test_classes_names_and_numbers(tmp_path):
    square = [[[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]]]
    features = [
        feature("Polygon", square, classification={"name": "Tumor"}, name="a"),
        feature("Polygon", square, classification="Stroma"),
        feature("MultiPolygon", [square, square], name="b"),
        feature("Polygon", square),
        {**feature("Polygon", square), "properties": None},
        feature("Polygon", square, classification={"names": ["Tumor", "Positive"]}),
    ]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(features))
    outlines = read_outlines(path)
    names = ["Tumor", "Stroma", "b", "4", "5", "Tumor: Positive"]
    assert [outline.name for outline in outlines] == names
    assert [len(outline.rings) for outline in outlines] == [1, 1, 2, 1, 1, 1]


@pytest.mark.parametrize("kind", ["tif", "png", "npy", "zarr"])
def test_masks_of_any_format_and_resolution(tmp_path, kind):
    mask = np.zeros((20, 30), np.uint8)
    mask[4:11, 3:20] = 2
    mask[12:, 25:] = 9
    path = tmp_path / f"a.{kind}"
    if kind == "tif":
        tifffile.imwrite(path, mask, photometric="minisblack")
    elif kind == "png":
        Image.fromarray(mask).save(path)
    elif kind == "npy":
        np.save(path, mask)
    else:
        path = ome_zarr(tmp_path / "a.ome.zarr", mask, 2)
    region = region_of(str(path), shape=SHAPE)
    large = np.kron(mask, np.ones((3, 3), int))
    np.testing.assert_array_equal(raster(region), np.select([large == 2, large == 9], [1, 2]))
    assert region.names == ("2", "9")
    named = region_of({"file": str(path), "name": "tissue"}, shape=SHAPE)
    assert set(named.names) == {"tissue"}


def test_boxes_in_px_and_um():
    by_px = region_of({"box_px": [[5, 10], [25, 40]]}, shape=SHAPE)
    expected = np.zeros(SHAPE, int)
    expected[5:25, 10:40] = 1
    np.testing.assert_array_equal(raster(by_px), expected)
    by_um = region_of({"box_um": [[2.5, 2.5], [12.5, 10]]}, shape=SHAPE, spacing_um=(0.5, 0.25))
    np.testing.assert_array_equal(raster(by_um), expected)
    deep = region_of({"box_um": [[2, 0, 0], [4, 9, 9]]}, shape=(5, 9, 9), spacing_um=(2, 1, 1))
    assert raster(deep).sum() == raster(deep)[1].sum() == 81
    first = {"include": [{"box_px": [[0, 0], [9, 9]]}, {"box_px": [[5, 0], [20, 9]], "name": "b"}]}
    both = region_of(first, shape=SHAPE)
    assert both.names == ("1", "b")
    assert np.bincount(raster(both).ravel())[1:].tolist() == [81, 99]


def test_the_identity_follows_what_is_in_files(tmp_path):
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(feature("Polygon", HOLED)))
    said = {"include": [{"box_px": [[0, 0], [9, 9]]}], "exclude": [str(path)]}
    before = json.dumps(region_identity(said), default=str)
    assert json.dumps(region_identity(said), default=str) == before
    assert region_identity(None) is None
    path.write_text(path.read_text() + " ")
    assert json.dumps(region_identity(said), default=str) != before


def test_bytes_and_back(tmp_path):
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(feature("Polygon", HOLED, name="here")))
    region = region_of({"file": path, "exclude": [{"box_px": [[0, 0], [20, 20]]}]}, shape=SHAPE)
    again = region_from_bytes(region_to_bytes(region))
    assert again.names == ("here",) and again.shape == SHAPE
    np.testing.assert_array_equal(raster(again), raster(region))
    assert region_of(again, shape=SHAPE) is again
    with pytest.raises(ValueError, match="region is of an image of shape"):
        region_of(again, shape=(60, 91))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "something that is included or excluded"),
        ({"boxes": []}, "a region needs keys out of include, .* got boxes"),
        ({"include": [{"name": "a"}]}, "needs one of file, box_px, box_um"),
        ({"box_px": [[9, 0], [5, 5]]}, "lower corner first"),
        ({"box_px": [[0, float("nan")], [5, 5]]}, "lower corner first"),
        (np.zeros((9, 9), np.float32), "mask of whole numbers"),
        (np.zeros((9, 9), np.uint8), "covers none of its pixels"),
    ],
)
def test_wrong_regions(said, message):
    with pytest.raises(ValueError, match=message):
        region_of(said, shape=SHAPE)


@pytest.mark.parametrize(
    "ring", [[[0, 0], [1]], [["a", "b"]], 7, [[0, 0], [float("inf"), 3]], [[]]]
)
def test_wrong_rings(tmp_path, ring):
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(feature("Polygon", [ring])))
    with pytest.raises(ValueError, match=r"feature 1 needs rings of corners \[x, y\]"):
        read_outlines(path)
