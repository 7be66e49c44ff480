"""Outlines, decoded here by the public formats and drawn again by Pillow."""

import json
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cellseg_pipe.io.rois import (
    polygons_of,
    roi_bytes,
    write_geojson,
    write_outlines_text,
    write_roi_zip,
)

YY, XX = np.mgrid[:60, :80]
LABELS = np.zeros((60, 80), np.uint32)
LABELS[(YY - 20) ** 2 + (XX - 25) ** 2 < 200] = 4
LABELS[(YY - 45) ** 2 / 2 + (XX - 60) ** 2 < 100] = 9
LABELS[0:3, 70:80] = 300


def area(corners):
    x, y = np.asarray(corners, float).T
    return abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2


def drawn(polygons):
    """Return labels from polygons of pixel edges: what Pillow fills between pixel centres."""
    image = Image.new("I", (LABELS.shape[1] * 4, LABELS.shape[0] * 4))
    for label, corners in polygons.items():
        scaled = [(4 * x - 0.5, 4 * y - 0.5) for x, y in corners]
        ImageDraw.Draw(image).polygon(scaled, fill=label)
    return np.asarray(image)[2::4, 2::4]


def decode_roi(data):
    magic, version, kind, _ = struct.unpack(">4sHBB", data[:8])
    top, left, bottom, right, n = struct.unpack(">5H", data[8:18])
    (options,) = struct.unpack(">H", data[50:52])
    assert magic == b"Iout" and version >= 222 and kind == 0 and options & 128
    assert len(data) == 64 + 12 * n
    x, y = np.frombuffer(data, ">u2", 2 * n, 64).reshape(2, n).astype(int)
    exact = np.frombuffer(data, ">f4", 2 * n, 64 + 4 * n).reshape(2, n)
    np.testing.assert_array_equal(exact, [x + left, y + top])
    assert (exact.min(1) == (left, top)).all() and (exact.max(1) == (right, bottom)).all()
    return exact.T.tolist()


def test_rois_cover_their_cells(tmp_path):
    write_roi_zip(tmp_path / "a.zip", LABELS)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["000004.roi", "000009.roi", "000300.roi"]
        found = {int(name[:-4]): decode_roi(archive.read(name)) for name in archive.namelist()}
    assert {label: area(xy) for label, xy in found.items()} == {
        label: (LABELS == label).sum() for label in (4, 9, 300)
    }
    np.testing.assert_array_equal(drawn(found), LABELS)


def test_equal_labels_give_equal_bytes(tmp_path):
    write_roi_zip(tmp_path / "a.zip", LABELS)
    write_roi_zip(tmp_path / "b.zip", LABELS.copy())
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_rois_reach_as_far_as_imagej_counts(tmp_path):
    far = np.zeros((8, 50_000), np.uint32)
    far[2:5, 49_000:49_010] = 1
    write_roi_zip(tmp_path / "a.zip", far)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        corners = decode_roi(archive.read("000001.roi"))
    assert sorted(map(tuple, corners)) == [(49_000, 2), (49_000, 5), (49_010, 2), (49_010, 5)]
    with pytest.raises(ValueError, match="reach to 60535 px.*GeoJSON"):
        write_roi_zip(tmp_path / "b.zip", np.zeros((1, 60_536), np.uint32))
    with pytest.raises(ValueError, match="65535 corners at most"):
        roi_bytes(np.zeros((65_536, 2)))
    assert not (tmp_path / "b.zip").exists()


def test_text_and_geojson_hold_the_same_polygons(tmp_path):
    write_outlines_text(tmp_path / "a.txt", LABELS)
    write_geojson(tmp_path / "a.geojson", polygons_of(LABELS))
    lines = (tmp_path / "a.txt").read_text().splitlines()
    text = [np.array(line.split(","), int).reshape(-1, 2).tolist() for line in lines]
    content = json.loads((tmp_path / "a.geojson").read_text())
    rings = [feature["geometry"]["coordinates"] for feature in content["features"]]
    assert content["type"] == "FeatureCollection" and all(len(ring) == 1 for ring in rings)
    assert [ring[0][:-1] for ring in rings] == text
    assert [ring[0][-1] for ring in rings] == [corners[0] for corners in text]
    found = {f["properties"]["label"]: f["geometry"]["coordinates"][0] for f in content["features"]}
    np.testing.assert_array_equal(drawn(found), LABELS)


def geojson_of(path, labels):
    write_geojson(path, polygons_of(labels))


@pytest.mark.parametrize("write", [write_outlines_text, geojson_of, write_roi_zip])
def test_without_cells_files_are_empty_and_volumes_are_refused(tmp_path, write):
    write(tmp_path / "a", np.zeros((5, 6), np.uint32))
    assert (tmp_path / "a").exists()
    with pytest.raises(ValueError, match="2 axes, got 3"):
        write(tmp_path / "b", np.zeros((2, 5, 6), np.uint32))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
