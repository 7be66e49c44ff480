"""Sums per object against sums in Python integers, and of tiles against the whole."""

import dataclasses
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellseg_pipe.kernels import (
    Sums,
    boxes_and_areas,
    diameter_px,
    mean_per_object,
    object_sums,
)

GOLDEN = Path(__file__).parents[1] / "golden"
VALUES = st.sampled_from([0, 0, 1, 2, 5, 70_000, 2**32 - 1])
THREADS = st.sampled_from([1, 2, 7])


def plain_sums(labels, image, reference):
    """Sum voxel by voxel in Python integers."""
    for value, peak in zip(np.unique(labels[labels > 0]), reference.tolist(), strict=True):
        voxels = np.argwhere(labels == value)
        away = [[a - b for a, b in zip(v, peak, strict=True)] for v in voxels.tolist()]
        axes = range(labels.ndim)
        pixels = [channel[labels == value].tolist() for channel in image]
        yield {
            "label": value,
            "reference": peak,
            "area": len(voxels),
            "first": [sum(d[i] for d in away) for i in axes],
            "second": [[sum(d[i] * d[j] for d in away) for j in axes] for i in axes],
            "start": voxels.min(axis=0).tolist(),
            "stop": (voxels.max(axis=0) + 1).tolist(),
            "total": [sum(p) for p in pixels],
            "square": [sum(v * v for v in p) for p in pixels],
            "low": [min(p) for p in pixels],
            "high": [max(p) for p in pixels],
        }


def plain_mean(values):
    """One value after the other, as no pairwise sum does."""
    total = 0.0
    for value in values.tolist():
        total += value
    return total / len(values)


@st.composite
def scenes(draw, dtypes=("uint8", "uint16")):
    labels = draw(hnp.arrays(np.uint32, hnp.array_shapes(max_dims=3, max_side=6), elements=VALUES))
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    channels = draw(st.integers(0, 3))
    image = draw(hnp.arrays(dtype, (channels, *labels.shape)))
    n = np.unique(labels[labels > 0]).size
    peaks = draw(hnp.arrays(np.int64, (n, labels.ndim), elements=st.integers(-9, 9)))
    return labels, image, peaks


def same(left, right):
    for item in dataclasses.fields(Sums):
        a, b = getattr(left, item.name), getattr(right, item.name)
        assert a.dtype == b.dtype and a.shape == b.shape and a.tolist() == b.tolist(), item.name


@given(scenes(), THREADS)
def test_sums_are_those_of_python_integers(scene, threads):
    labels, image, peaks = scene
    sums = object_sums(labels, image, peaks=peaks, threads=threads)
    rows = list(plain_sums(labels, image, peaks))
    assert sums.label.dtype == np.uint32 and sums.total.shape == (len(rows), len(image))
    for item in dataclasses.fields(Sums):
        column = getattr(sums, item.name)
        assert item.name == "label" or column.dtype == np.int64
        assert column.tolist() == [row[item.name] for row in rows], item.name


@given(scenes(), st.data(), THREADS)
def test_blocks_add_up_to_the_whole(scene, data, threads):
    labels, image, peaks = scene
    whole = object_sums(labels, image, peaks=peaks)
    axis = data.draw(st.integers(0, labels.ndim - 1))
    cuts = data.draw(st.sets(st.integers(1, labels.shape[axis]), max_size=3))
    tables = []
    for first, last in pairwise(sorted({0, *cuts, labels.shape[axis]})):
        block = np.take(labels, range(first, last), axis)
        pixels = np.take(image, range(first, last), axis + 1)
        here = np.isin(whole.label, block)
        origin = [first if a == axis else 0 for a in range(labels.ndim)]
        tables.append(object_sums(block, pixels, peaks=peaks[here], origin=origin, threads=threads))
        everywhere = object_sums(block, pixels, peaks=peaks, ids=whole.label, origin=origin)
        assert everywhere.area[here].tolist() == tables[-1].area.tolist()
        assert not everywhere.area[~here].any()
        tables[-1] = data.draw(st.sampled_from([tables[-1], everywhere]))
    same(Sums.add(data.draw(st.permutations(tables))), whole)


@given(scenes(("float32", "float64")), THREADS, st.integers(0, 3))
def test_float_sums_are_equal_in_every_crop(scene, threads, margin):
    labels, image, peaks = scene
    image = np.nan_to_num(image, nan=0.1, posinf=0.3, neginf=-3.0).clip(-1e9, 1e9)
    sums = object_sums(labels, image, peaks=peaks, threads=threads)
    assert sums.total.dtype == np.float64
    wide = np.pad(labels, margin), np.pad(image, [(0, 0)] + [(margin, margin)] * labels.ndim)
    crop = object_sums(*wide, peaks=peaks, origin=[-margin] * labels.ndim)
    same(crop, sums)
    for k, value in enumerate(sums.label):
        for c, channel in enumerate(image):
            pixels = channel[labels == value].astype(np.float64)
            assert sums.total[k, c] / sums.area[k] == plain_mean(pixels)
            assert sums.square[k, c] / sums.area[k] == plain_mean(pixels**2)
            assert (sums.low[k, c], sums.high[k, c]) == (pixels.min(), pixels.max())


def test_references_are_box_starts_unless_given():
    labels = np.zeros((6, 7), int)
    labels[2:4, 3:6] = 8
    sums = object_sums(labels, origin=(100, 200))
    assert sums.reference.tolist() == sums.start.tolist() == [[102, 203]]
    assert sums.stop.tolist() == [[104, 206]] and sums.area.tolist() == [6]
    assert sums.first.tolist() == [[3, 6]] and sums.second.tolist() == [[[3, 3], [3, 10]]]
    assert sums.total.shape == (1, 0)


def test_objects_asked_for_but_not_there_have_no_voxels():
    labels = np.array([[0, 4, 4], [9, 0, 0]])
    image = np.arange(6, dtype=np.uint16).reshape(1, 2, 3)
    sums = object_sums(labels, image, ids=[2, 4])
    assert sums.area.tolist() == [0, 2] and sums.total.tolist() == [[0], [3]]
    assert (sums.start[0] > sums.stop[0]).all() and sums.low[0, 0] > sums.high[0, 0]
    none = object_sums(np.zeros((2, 3), int), image)
    assert none.label.size == 0 and none.second.shape == (0, 2, 2) and none.high.shape == (0, 1)
    beside = object_sums(labels, image, ids=[4], peaks=[[0, 1]], origin=(0, 3))
    twice = object_sums(np.tile(labels, 2), np.tile(image, 2), ids=[2, 4])
    same(Sums.add([sums, beside]), twice)


def test_far_positions_stay_exact():
    far = 10**12 + 7
    labels = np.ones((2, 3), np.uint8)
    sums = object_sums(labels, origin=(far, 5), peaks=[[far + 1, 6]])
    assert sums.first.tolist() == [[-3, 0]] and sums.second.tolist() == [[[3, 0], [0, 4]]]


def test_the_largest_16_bit_values_are_exact():
    image = np.full((1, 300, 400), 65_535, np.uint16)
    sums = object_sums(np.ones((300, 400), int), image, threads=2)
    assert sums.total.tolist() == [[120_000 * 65_535]]
    assert sums.square.tolist() == [[120_000 * 65_535**2]]


def test_sums_beyond_int64_are_refused():
    labels = np.ones((2, 3), int)
    with pytest.raises(OverflowError, match="Put its peak inside it"):
        object_sums(labels, peaks=[[2**40, 0]])
    sums = object_sums(labels, np.full((1, 2, 3), 65_535, np.uint16))
    half = dataclasses.replace(sums, area=np.array([2**30 + 2**20]))
    assert Sums.add([half]).area.tolist() == [2**30 + 2**20]
    with pytest.raises(OverflowError, match="below 2\\^63, got object 1"):
        Sums.add([half, half])


def test_a_window_of_a_read_only_image_serves():
    labels = np.tile(np.array([0, 3, 3, 5], np.int16), (4, 2))[:, ::2]
    image = np.arange(2 * 4 * 4, dtype=">u2").reshape(4, 4, 2).transpose(2, 0, 1)
    labels.flags.writeable = image.flags.writeable = False
    sums = object_sums(labels, image)
    rows = plain_sums(labels, image, sums.reference)
    assert sums.total.tolist() == [row["total"] for row in rows]


@given(scenes(("float32",)), THREADS)
def test_means_are_sums_one_by_one(scene, threads):
    labels, image, _ = scene
    values = np.resize(np.nan_to_num(image, posinf=1, neginf=0).clip(0, 1), labels.shape)
    means = mean_per_object(values, labels, threads=threads)
    expected = [plain_mean(values[labels == v]) for v in np.unique(labels[labels > 0])]
    assert means.dtype == np.float64 and means.tolist() == expected


@pytest.mark.parametrize("case", ["touching", "elongated", "tiny", "punched"])
def test_diameters_are_the_peers(case):
    with np.load(GOLDEN / "measures.npz") as held:
        labels, median_px = held[f"{case}_labels"], held[f"{case}_diameter_px"]
        roots = held[f"{case}_root_areas"]
    areas = boxes_and_areas(labels).area
    np.testing.assert_allclose(diameter_px(areas, 2), 2 / np.sqrt(np.pi) * roots, rtol=1e-13)
    np.testing.assert_allclose(np.median(diameter_px(areas, 2)), median_px, rtol=1e-13)


def test_diameters_of_lines_discs_and_balls():
    assert diameter_px([5], 1) == pytest.approx([5])
    assert diameter_px([math.pi * 9], 2) == pytest.approx([6])
    assert diameter_px([math.pi * 36, 0], 3) == pytest.approx([6, 0])
    with pytest.raises(ValueError, match="1 or more axes"):
        diameter_px([5], 0)


LABELS = np.array([[1, 2], [0, 2]])


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "uint8, uint16", {"intensities": np.zeros((1, 2, 2), int)}),
        (ValueError, "leading axis", {"intensities": np.zeros((2, 2), np.uint8)}),
        (ValueError, "spatial shape", {"intensities": np.zeros((1, 2, 3), np.uint8)}),
        (TypeError, "whole voxels", {"peaks": np.zeros((2, 2))}),
        (ValueError, "a row for each of 2 objects", {"peaks": np.zeros((1, 2), int)}),
        (ValueError, "ascending labels", {"ids": [2, 1]}),
        (ValueError, "ascending labels", {"ids": [0, 1]}),
        (ValueError, "origin needs 2 numbers", {"origin": (1, 2, 3)}),
    ],
)
def test_what_does_not_fit_is_refused(error, message, arguments):
    with pytest.raises(error, match=message):
        object_sums(LABELS, **arguments)


def test_tables_that_do_not_belong_together_are_refused():
    image = np.ones((1, 2, 2), np.uint8)
    sums = object_sums(LABELS, image)
    for tables, message in (
        ([], "one table or more"),
        ([sums, object_sums(LABELS)], "equal axes, channels and types"),
        ([sums, object_sums(LABELS, image, peaks=np.ones((2, 2), int))], "one reference"),
        ([object_sums(LABELS, image.astype(np.float32))] * 2, "object 1 of a float image"),
    ):
        with pytest.raises(ValueError, match=message):
            Sums.add(tables)


def test_means_of_integers_or_other_shapes_are_refused():
    with pytest.raises(TypeError, match="array of floats"):
        mean_per_object(LABELS, LABELS)
    with pytest.raises(ValueError, match="spatial shape"):
        mean_per_object(np.zeros((2, 3)), LABELS)
