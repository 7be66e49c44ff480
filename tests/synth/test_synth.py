"""Tests of synth: any box is the crop of the whole, and the truth is what the settings ask for."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cellseg_pipe.geometry import Box
from cellseg_pipe.synth import PRESETS, Rendered, Spec, render
from cellseg_pipe.synth._light import light_and_truth
from cellseg_pipe.synth._random import reach_px, tissue_depth

FLAT = Spec(
    (100, 130),
    diameter_px=12,
    crowding=1.1,
    folds=0.5,
    blank_fraction=0.2,
    mix_share=0.2,
    mix_ratio=1.5,
    block_px=(40, 48),
)
CELLS = Spec((120, 110), kind="cells", diameter_px=24, crowding=1.2, block_px=(64, 50))
SOLID = Spec((20, 44, 40), diameter_px=10, anisotropy=2, crowding=1, block_px=(9, 24, 20))
PERIODIC = Spec((150, 170), diameter_px=10, period_px=(64, 72), block_px=(40, 40))
PERIODIC_SOLID = Spec(
    (40, 70, 110), kind="cells", diameter_px=12, crowding=1.1, anisotropy=2, period_px=(30, 56, 60)
)
SPECS = {
    "flat": FLAT,
    "cells": CELLS,
    "solid": SOLID,
    "periodic": PERIODIC,
    "periodic_solid": PERIODIC_SOLID,
}
LONE = Spec((400, 400), diameter_px=16, crowding=0.4, clustering=0, roughness=0.05)


def whole(spec: Spec) -> Rendered:
    return render(spec, Box.of(spec.shape))


@st.composite
def boxes(draw: st.DrawFn, shape: tuple[int, ...]) -> Box:
    ends = [sorted(draw(st.lists(st.integers(0, n), min_size=2, max_size=2))) for n in shape]
    return Box(tuple(a for a, _ in ends), tuple(b for _, b in ends))


def each_label(labels: np.ndarray) -> list[tuple[int, tuple[slice, ...]]]:
    ids, dense = np.unique(labels, return_inverse=True)
    found = ndimage.find_objects(dense.reshape(labels.shape) if ids[0] == 0 else dense + 1)
    return list(zip(ids[ids > 0].tolist(), found, strict=True))


def inside_image(where: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    return all(s.start > 0 and s.stop < n for s, n in zip(where, shape, strict=True))


@pytest.mark.parametrize("name", SPECS)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_any_box_is_the_crop_of_the_whole(name, data):
    spec = SPECS[name]
    box = data.draw(boxes(spec.shape))
    piece, image = render(spec, box), whole(spec)
    np.testing.assert_array_equal(piece.image, image.image[:, *box.slices])
    np.testing.assert_array_equal(piece.labels, image.labels[box.slices])
    if spec.n_channels == 2:
        np.testing.assert_array_equal(piece.nuclei, image.nuclei[box.slices])


@pytest.mark.parametrize("name", SPECS)
def test_blocks_join_without_a_seam(name):
    # Each block is rendered alone; here its light and truth come from one render of the whole.
    spec = SPECS[name]
    world = Box.of(spec.period_px or spec.shape)
    light, truth = light_and_truth(spec, world)
    quiet = dataclasses.replace(spec, photons=1e12, read_noise_photons=0, level=20000)
    piece = render(quiet, world.clip(Box.of(spec.shape)))
    np.testing.assert_array_equal(piece.labels, truth[0])
    np.testing.assert_allclose(
        piece.image, np.minimum(100 + 20000 * light, 65535), atol=0.6, rtol=1e-4
    )


def test_blocks_do_not_change_the_truth():
    other = dataclasses.replace(FLAT, block_px=(100, 23))
    np.testing.assert_array_equal(whole(FLAT).labels, whole(other).labels)


def test_far_from_the_origin_boxes_still_agree():
    spec = dataclasses.replace(FLAT, shape=(200_000, 200_000), block_px=(64, 64))
    box = Box((199_900, 177_777), (199_980, 177_850))
    part = Box((199_930, 177_800), (199_979, 177_811))
    piece, large = render(spec, part), render(spec, box)
    np.testing.assert_array_equal(piece.image, large.image[:, *part.relative_to(box.start).slices])
    np.testing.assert_array_equal(piece.labels, large.labels[part.relative_to(box.start).slices])
    assert len(np.unique(large.labels)) > 5


@pytest.mark.parametrize("name", ["periodic", "periodic_solid"])
def test_periods_repeat_with_new_ids(name):
    spec = SPECS[name]
    first = Box.of(spec.shape).clip(Box.of(spec.period_px))
    last_axis = (0,) * (spec.ndim - 1) + (spec.period_px[-1],)
    second = first.shift(last_axis).clip(Box.of(spec.shape))
    a = render(spec, second.shift([-n for n in last_axis]))
    b = render(spec, second)
    np.testing.assert_array_equal(a.image, b.image)
    np.testing.assert_array_equal(a.labels > 0, b.labels > 0)
    pairs = np.unique(np.stack([a.labels[a.labels > 0], b.labels[b.labels > 0]]), axis=1)
    assert len(np.unique(pairs[0])) == pairs.shape[1] == len(np.unique(pairs[1]))
    assert not (pairs[0] == pairs[1]).any()


def test_cells_on_a_period_border_are_whole():
    labels = whole(PERIODIC).labels
    for label, where in each_label(labels):
        if inside_image(where, labels.shape):
            assert ndimage.label(labels[where] == label)[1] == 1
    assert (np.unique(labels[:64]).size + np.unique(labels[64:]).size) > np.unique(labels).size + 1


def test_terabytes_cost_one_period():
    spec = Spec((4000, 20_000, 20_000), diameter_px=12, period_px=(52, 64, 64))
    corner = render(spec, Box((3930, 19_900, 19_900), (4000, 20_000, 20_000)))
    assert corner.labels.max() < 2**32
    assert 0.05 < (corner.labels > 0).mean() < 0.9
    np.testing.assert_array_equal(corner.image[:, :10], corner.image[:, 52:62])


@pytest.mark.parametrize("name", SPECS)
def test_the_seed_decides(name):
    spec = SPECS[name]
    again = dataclasses.replace(spec, shape=list(spec.shape))
    other = dataclasses.replace(spec, seed=spec.seed + 1)
    assert again == spec
    np.testing.assert_array_equal(whole(again).image, whole(spec).image)
    assert (whole(other).image != whole(spec).image).mean() > 0.5
    assert (whole(other).labels != whole(spec).labels).any()


@pytest.mark.parametrize("name", ["flat", "cells", "solid"])
@pytest.mark.parametrize("seed", [1, 2])
def test_each_cell_is_one_piece_and_not_tiny(name, seed):
    labels = whole(dataclasses.replace(SPECS[name], seed=seed)).labels
    found = each_label(labels)
    assert len(found) > 10
    for label, where in found:
        mask = labels[where] == label
        assert ndimage.label(mask)[1] == 1
        assert np.count_nonzero(mask) >= 12


@pytest.mark.parametrize("name", ["cells", "periodic_solid"])
def test_nuclei_lie_in_their_cells(name):
    spec = SPECS[name]
    image = whole(spec)
    covered = image.nuclei > 0
    assert covered.any()
    np.testing.assert_array_equal(image.nuclei[covered], image.labels[covered])
    for label, where in each_label(image.labels):
        if inside_image(where, spec.shape):
            n_cell = np.count_nonzero(image.labels[where] == label)
            assert 0 < np.count_nonzero(image.nuclei[where] == label) < n_cell


@pytest.mark.parametrize("diameter_px", [16, 30])
def test_median_diameter_is_as_asked(diameter_px):
    labels = whole(dataclasses.replace(LONE, diameter_px=diameter_px)).labels
    areas = np.bincount(labels[labels > 0])
    measured = np.median(2 * np.sqrt(areas[areas > 0] / np.pi))
    assert measured == pytest.approx(diameter_px, rel=0.08)


def test_a_second_population_widens_the_sizes():
    mixed = dataclasses.replace(LONE, mix_share=0.5, mix_ratio=2, size_cv=0, elongation=1)
    areas = np.bincount(whole(mixed).labels.ravel())[1:]
    large = areas > 2.5 * np.pi / 4 * LONE.diameter_px**2
    assert 0.2 < large[areas > 0].mean() < 0.8


def test_elongation_stretches_cells():
    def median_ratio(elongation: float) -> float:
        labels = whole(dataclasses.replace(LONE, elongation=elongation)).labels
        ratios = []
        for label, where in each_label(labels):
            if inside_image(where, labels.shape):
                spread = np.linalg.eigvalsh(np.cov(np.nonzero(labels[where] == label)))
                ratios.append(np.sqrt(spread[1] / spread[0]))
        return float(np.median(ratios))

    assert median_ratio(1.2) == pytest.approx(1.2, abs=0.15)
    assert median_ratio(2.5) == pytest.approx(2.5, abs=0.4)


def test_crowding_makes_cells_touch():
    def touching(crowding: float) -> float:
        labels = whole(dataclasses.replace(LONE, crowding=crowding)).labels
        left, right = labels[:, :-1], labels[:, 1:]
        return float(((left != right) & (left > 0) & (right > 0)).sum() / (labels > 0).sum())

    assert touching(0.4) < 0.005 < 0.02 < touching(1.2)


def test_photons_set_the_noise():
    box = Box.of((200, 200))
    quiet = dataclasses.replace(LONE, read_noise_photons=0, photons=1e12)
    clean = render(quiet, box).image.astype(float)
    for photons in (20.0, 200.0):
        noisy = render(dataclasses.replace(quiet, photons=photons), box).image.astype(float)
        grey_per_photon = np.square(noisy - clean).mean() / (clean - 100).mean()
        assert grey_per_photon == pytest.approx(LONE.level / photons, rel=0.1)
        assert noisy.mean() == pytest.approx(clean.mean(), rel=0.02)


def test_blanks_have_no_cells():
    spec = dataclasses.replace(LONE, blank_fraction=0.5, crowding=1, read_noise_photons=0)
    image = whole(spec)
    depth = tissue_depth(spec, np.ix_(*map(np.arange, spec.shape)))
    blank = ndimage.distance_transform_edt(depth < 0) > reach_px(spec) + 1
    assert blank.mean() > 0.1
    assert not image.labels[blank].any()
    assert (image.labels[depth > 0] > 0).mean() > 0.3
    assert not whole(dataclasses.replace(LONE, blank_fraction=1)).labels.any()


def test_folds_are_brighter():
    plain = whole(dataclasses.replace(LONE, folds=0))
    folded = whole(dataclasses.replace(LONE, folds=1))
    np.testing.assert_array_equal(plain.labels, folded.labels)
    assert folded.image.mean() > 1.02 * plain.image.mean()


def test_uneven_light_scales_the_light_and_keeps_the_truth():
    clean = dataclasses.replace(LONE, read_noise_photons=0, photons=1e12, level=20000)
    even = whole(dataclasses.replace(clean, uneven_light=0))
    uneven = whole(dataclasses.replace(clean, uneven_light=0.2))
    np.testing.assert_array_equal(even.labels, uneven.labels)
    change = np.log((uneven.image[0] - 100.0) / (even.image[0] - 100.0))
    assert 0.05 < change.std() < 0.4
    assert np.abs(np.diff(change)).max() < 0.02


def test_anisotropy_flattens_cells_along_z():
    spec = Spec((24, 96, 96), diameter_px=18, anisotropy=3, crowding=0.6, elongation=1, roughness=0)
    labels = whole(spec).labels
    extents = [
        [s.stop - s.start for s in where]
        for _, where in each_label(labels)
        if inside_image(where, labels.shape)
    ]
    z, y, x = np.median(extents, axis=0)
    assert 2.2 < y / z < 4
    assert y == pytest.approx(x, rel=0.2)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_render(name):
    spec = PRESETS[name]
    box = Box.of(tuple(min(n, 160) for n in spec.shape[:-2]) + (160, 160))
    spec = dataclasses.replace(spec, shape=box.shape)
    image = render(spec, box)
    assert image.image.dtype == np.uint16 and image.labels.dtype == np.uint32
    assert image.image.shape == (spec.n_channels, *box.shape)
    cells, ground = image.labels > 0, image.labels == 0
    assert image.image[0][cells].mean() > 1.5 * image.image[0][ground].mean()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (10,)}, "2 or 3 positive"),
        ({"shape": (0, 10)}, "2 or 3 positive"),
        ({"diameter_px": 1}, "diameter_px must lie in 6"),
        ({"photons": float("nan")}, "photons must lie in"),
        ({"seed": -1}, "seed must lie in"),
        ({"kind": "membrane"}, "kind must be one of"),
        ({"anisotropy": 2}, "anisotropy must be 1"),
        ({"period_px": (8, 8)}, "period_px must be at least"),
        ({"period_px": (80, 80, 80)}, "period_px needs one number or 2"),
        ({"block_px": (0, 8)}, "block_px needs 2 or 3 positive"),
        ({"shape": (10**7, 10**7)}, "fewer than 2\\*\\*32"),
    ],
)
def test_bad_specs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(Spec((100, 100)), **change)


@pytest.mark.parametrize("box", [Box((0, 0), (101, 10)), Box((-1, 0), (5, 5)), Box.of((5, 5, 5))])
def test_boxes_outside_the_image_are_refused(box):
    with pytest.raises(ValueError, match="inside the image"):
        render(FLAT, box)
