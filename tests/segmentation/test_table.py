"""The table of cells: as scikit-image's regionprops, in any proportions, and through planes."""

import dataclasses
import math
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import perimeter_crofton, regionprops

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.regions import region_of
from cellseg_pipe.segmentation import (
    ImageSource,
    Measured,
    Measurer,
    Measuring,
    Rows,
    Settings,
    View,
    in_um,
    join_measured,
    make_plan,
    table_of,
)
from tests.golden.synthetic import label_field

EVERYTHING = {"texture": True, "ring_px": 3, "quantiles": (0.0, 0.05, 0.5, 0.995)}
LABELS = st.sampled_from([0, 0, 1, 2, 3])


class Network:
    ndim, n_inputs, n_outputs, divisor = 2, 1, 3, 8


def plan_for(shape, mode, **changes):
    source = ImageSource(shape, 1, lambda box: np.zeros((1, *box.shape), np.uint8))
    return make_plan(
        source,
        Settings(mode=mode, **changes),
        network=Network,
        diameter_px=10.0,
        network_diameter_px=10.0,
    )


def rows_of(ids, ndim):
    """What a network might say of cells."""
    n = len(ids)
    area, said = np.ones(n, np.int64), np.linspace(-1, 1, n)
    nothing = np.zeros((n, 0))
    spread, again = np.zeros(n), np.ones(n)
    return Rows(ids, area, said, said, nothing, spread, again, np.zeros((n, ndim), np.int64))


def described(labels, image, *, mode=None, names=("a",), plan=None, **said):
    plan = plan or plan_for(labels.shape, mode or f"{labels.ndim}d")
    ids = np.unique(labels[labels > 0]).astype(np.uint32)
    measurer, rows = Measurer(plan, Measuring(**said)), rows_of(ids, labels.ndim)
    measured = measurer.image(labels.astype(np.uint32), image, ids=ids, peaks=rows.peak)
    return table_of(measured, rows, measurer, names=names)


# Ours by theirs, where they mean the same.
SAME = {
    "label": "label",
    "extent": "extent",
    "euler": "euler_number",
    "mean_a": "intensity_mean",
    "std_a": "intensity_std",
    "min_a": "intensity_min",
    "max_a": "intensity_max",
    "p50_a": "intensity_median",
}
FLAT = {"area_px": "area", "solidity": "solidity", "perimeter_px": "perimeter_crofton"}
LENGTHS = {"axis_major_px": "axis_major_length", "axis_minor_px": "axis_minor_length"}


def check(table, labels, image, edges=None):
    """Compare each row with what scikit-image says of the object."""
    found = regionprops(labels, image, spacing=edges)
    assert table["label"].tolist() == [region.label for region in found]
    for k, region in enumerate(found):
        same = SAME | LENGTHS | (FLAT if labels.ndim == 2 else {"volume_px": "num_pixels"})
        if edges is not None:
            same = {ours: theirs for ours, theirs in same.items() if ours not in FLAT}
        for ours, theirs in same.items():
            # Their moments are sums of floats: what should be 0 is about 1e-7 after the root.
            wanted = getattr(region, theirs)
            np.testing.assert_allclose(table[ours][k], wanted, rtol=1e-6, atol=1e-5, err_msg=ours)
        box = [table[f"{axis}_start_px"][k] for axis in "zyx"[-labels.ndim :]]
        box += [table[f"{axis}_stop_px"][k] for axis in "zyx"[-labels.ndim :]]
        assert tuple(box) == region.bbox
        if labels.ndim == 2:
            check_flat(table, k, region, isotropic=edges is None)


def check_flat(table, k, region, *, isotropic):
    # The difference of two roots loses half of the digits near a circle.
    np.testing.assert_allclose(table["eccentricity"][k], region.eccentricity, atol=1e-5)
    if table["eccentricity"][k] > 0.05:  # round ones have no direction
        away = (table["orientation_rad"][k] - region.orientation) % math.pi
        assert min(away, math.pi - away) < 1e-5
    if isotropic:
        hull = perimeter_crofton(np.pad(region.image_convex, 1))
        np.testing.assert_allclose(table["convexity"][k], hull / region.perimeter_crofton)


IMAGES = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=LABELS
)


@given(IMAGES, st.sampled_from(["uint8", "uint16", "float32"]))
@example(np.ones((1, 1), np.uint8), "uint8")
@example(np.zeros((3, 4), np.uint8), "uint16")
@example(np.eye(5, dtype=np.uint8), "uint8")
@example(np.pad(np.zeros((3, 3), np.uint8), 2, constant_values=1), "uint8")  # a ring
def test_images_are_as_regionprops(labels, dtype):
    image = (np.random.default_rng(labels.size).random(labels.shape) * 250).astype(dtype)
    check(described(labels, image[None]), labels, image)


@settings(max_examples=25)
@given(IMAGES, st.sampled_from([(0.5, 1.0), (3.0, 1.0), (0.2, 0.4)]))
def test_pixels_that_are_not_square(labels, spacing):
    image = np.zeros(labels.shape, np.uint8)
    edges = tuple(edge / spacing[-1] for edge in spacing)
    check(described(labels, image[None], spacing=spacing), labels, image, edges)


@settings(max_examples=25)
@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6), elements=LABELS),
    st.sampled_from([None, (2.0, 1.0, 1.0), (1.0, 0.5, 0.25)]),
)
def test_volumes_are_as_regionprops(labels, spacing):
    image = np.random.default_rng(labels.size).integers(0, 60_000, labels.shape).astype(np.uint16)
    edges = None if spacing is None else tuple(edge / spacing[-1] for edge in spacing)
    check(described(labels, image[None], spacing=spacing), labels, image, edges)


def test_real_forms_in_2d_and_3d():
    for shape, n in (((150, 160), 40), ((24, 60, 60), 30)):
        labels = label_field(shape, n, seed=3)
        image = np.random.default_rng(0).integers(0, 4000, shape).astype(np.uint16)
        table = described(labels, image[None], **EVERYTHING)
        check(table, labels, image)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            solidity = [region.solidity for region in regionprops(labels)]
        np.testing.assert_allclose(table["solidity"], solidity)
        for k, label in enumerate(table["label"]):
            quantiles = np.quantile(image[labels == label], EVERYTHING["quantiles"])
            found = [table[f"p{q}_a"][k] for q in ("0", "5", "50", "99.5")]
            np.testing.assert_allclose(found, quantiles)


def test_an_ellipsoid_has_its_axes():
    z, y, x = np.indices((31, 51, 61)) - np.array([15, 25, 30]).reshape(3, 1, 1, 1)
    labels = ((3 * z / 24) ** 2 + (y / 20) ** 2 + (x / 27) ** 2 <= 1).astype(np.uint8)
    table = described(labels, np.zeros((1, *labels.shape), np.uint8), spacing=(0.9, 0.3, 0.3))
    found = [table[f"axis_{name}_px"][0] for name in ("major", "middle", "minor")]
    np.testing.assert_allclose(found, [54, 48, 40], rtol=0.02)
    micro = in_um(table, (0.9, 0.3, 0.3))
    np.testing.assert_allclose(micro["axis_middle_um"], 0.3 * found[1])
    np.testing.assert_allclose(micro["surface_um2"], 0.09 * table["surface_px"])
    p = 1.6075  # Thomsen's formula, within 1.1 %
    a, b, c = (half**p for half in (8.1, 6.0, 7.2))
    surface = 4 * math.pi * ((a * b + a * c + b * c) / 3) ** (1 / p)
    np.testing.assert_allclose(micro["surface_um2"], surface, rtol=0.04)
    # A hull has as many voxels in any proportions.
    np.testing.assert_allclose(table["solidity"], regionprops(labels)[0].solidity)
    assert table["euler"].tolist() == [1]


def test_distances_to_the_border_and_sizes_in_um():
    labels = np.zeros((20, 30), np.uint8)
    labels[3:5, 4:9], labels[0, 20], labels[10:12, 22:28] = 1, 2, 3
    table = described(labels, np.zeros((1, 20, 30), np.uint8), spacing=(1.0, 0.5))
    # Rows are twice as far apart as columns: 4 columns, touching, 2 columns.
    assert table["distance_to_border_px"].tolist() == [4, 0, 2]
    assert table["on_border"].tolist() == [False, True, False]
    micro = in_um(table, (1.0, 0.5))
    assert micro["distance_to_border_um"].tolist() == [2, 0, 1]
    np.testing.assert_allclose(micro["perimeter_um"], table["perimeter_px"] * 0.5)
    assert in_um(table, None) == {}


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 0.5), (0.25, 0.5)])
def test_distances_to_the_border_of_a_region(spacing):
    """From the peak to the nearest pixel outside; beyond the image there is none."""
    labels = np.zeros((20, 30), np.uint8)
    labels[0:5, 0:4], labels[9:11, 7:9] = 1, 2
    plan = plan_for(labels.shape, "2d")
    region = region_of({"box_px": [[0, 0], [12, 20]]}, shape=labels.shape)
    plan = dataclasses.replace(plan, region=region)
    ids = np.array([1, 2], np.uint32)
    rows = dataclasses.replace(rows_of(ids, 2), peak=np.array([[0, 0], [9, 7]]))
    measurer = Measurer(plan, Measuring(spacing=spacing))
    image = np.zeros((1, 20, 30), np.uint8)
    measured = measurer.image(labels.astype(np.uint32), image, ids=ids, peaks=rows.peak)
    table = table_of(measured, rows, measurer, names=("a",))
    outside = np.argwhere(~np.pad(np.ones((12, 20), bool), ((0, 8), (0, 10))))
    expected = [np.linalg.norm((outside - p) * spacing, axis=1).min() for p in rows.peak]
    np.testing.assert_allclose(in_um(table, spacing)["distance_to_region_um"], expected)
    np.testing.assert_allclose(table["distance_to_region_px"] * spacing[1], expected)


def test_groups_that_are_off_have_no_columns():
    labels, image = np.eye(4, dtype=np.uint8), np.zeros((2, 4, 4), np.uint8)
    off = {"shape": False, "intensity": False, "quantiles": ()}
    table = described(labels, image, names=("a", "a"), **off)
    place = [f"{axis}_{what}" for axis in "yx" for what in ("px", "start_px", "stop_px")]
    said = ["probability", "flow_error", "agreement", "confidence"]
    said += ["on_border", "distance_to_border_px"]
    assert set(table) == {"label", *place, "area_px", "diameter_px", *said}
    more = described(labels, image, names=("a", "a"), **off | {"texture": True, "ring_px": 2})
    added = {"texture_a_0", "texture_a_1", "ring_mean_a_0", "ring_mean_a_1", "ring_area_px"}
    assert set(more) - set(table) == added
    assert more["texture_a_0"].tolist() == [0.0]  # no pixel has a neighbour
    full = described(np.ones((4, 4), np.uint8), image, names=("a", "b"), ring_px=2)
    assert np.isnan(full["ring_mean_b"]).all() and full["ring_area_px"].tolist() == [0]


def views_of(labels, image, plan, *, cuts, margin):
    """Cut each plane in columns: a cell counts where its first pixel of the plane lies."""
    whole = Box.of(labels.shape)
    for z in range(labels.shape[0]):
        first = {}
        for label in np.unique(labels[z][labels[z] > 0]):
            first[label] = np.argwhere(labels[z] == label)[0, 1]
        edges = [0, *cuts, labels.shape[2]]
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            core = Box((z, 0, low), (z + 1, labels.shape[1], high))
            inner = Box((z, 0, 0), (z + 1, *labels.shape[1:]))
            box = inner.grow(margin).clip(whole)
            ids = sorted(label for label, x in first.items() if low <= x < high)
            cut = labels[box.slices], image[(slice(None), *box.slices)]
            yield z, View(box, *cut, inner, core), np.array(ids, np.uint32)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_tiles_of_planes_add_up_to_the_whole(dtype):
    labels = label_field((6, 40, 50), 25, seed=5).astype(np.uint32)
    labels[4:][np.isin(labels[4:], [3, 4])] = 0  # some end earlier
    image = (np.random.default_rng(1).random((2, *labels.shape)) * 999).astype(dtype)
    plan = plan_for(labels.shape, "planes", anisotropy=3.0)
    expected = described(labels, image, plan=plan, names=("a", "b"), **EVERYTHING)
    measurer = Measurer(plan, Measuring(**EVERYTHING))
    planes = {z: [] for z in range(len(labels))}
    for z, view, ids in views_of(labels, image, plan, cuts=[13, 37], margin=measurer.margin_px):
        planes[z].append(measurer.view(view, ids))
    measured = join_measured(Measured.add(parts) for parts in planes.values())
    rows = rows_of(measured.sums.label, 3)
    table = table_of(measured, rows, measurer, names=("a", "b"))
    assert list(table) == list(expected) and "solidity" in table and "p50_a" not in table
    for name, column in expected.items():
        np.testing.assert_array_equal(table[name], column, err_msg=name)
    # What does not depend on planes is what a volume of the same labels has.
    volume = described(labels, image, plan=plan_for(labels.shape, "3d", anisotropy=3.0))
    for name in ("axis_middle_px", "surface_px", "solidity", "euler", "extent"):
        np.testing.assert_array_equal(table[name], volume[name], err_msg=name)


def test_no_planes_are_refused():
    with pytest.raises(ValueError, match="one plane or more"):
        join_measured([])
