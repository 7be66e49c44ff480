"""Parts of an image whose cells differ in size, each seen at its own diameter."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cellseg_pipe as cs
from cellseg_pipe.geometry import Box
from cellseg_pipe.io.regions import region_of
from cellseg_pipe.segmentation.fields import Fields, fields_of, measuring_grid
from cellseg_pipe.segmentation.frozen import plan_from_json, plan_to_json
from cellseg_pipe.synth import PRESETS, render
from cellseg_pipe.tiles import Grid

SHAPE, CUT = (480, 900), 450


def half(diameter_px, seed):
    """An image of nuclei of one size, and its truth."""
    spec = replace(PRESETS["nuclei"], shape=SHAPE, seed=seed, diameter_px=diameter_px)
    found = render(spec, Box.of(SHAPE))
    return found.image[0], found.labels


@pytest.fixture(scope="module")
def halves():
    """Small nuclei on the left, large ones on the right; image and dense truth."""
    (small, left), (large, right) = half(12, 1), half(48, 2)
    on_left = np.arange(SHAPE[1]) < CUT
    truth = np.where(on_left, left.astype(np.int64), right + (right > 0) * 10**9)
    _, dense = np.unique(truth, return_inverse=True)
    return np.where(on_left, small, large), dense.reshape(SHAPE).astype(np.uint32)


@pytest.fixture(scope="module")
def seen(halves):
    return cs.segment(halves[0], diameter_classes=2)


def test_two_classes_with_their_diameters(seen):
    fields = seen.plan.fields
    assert fields.differ and len(fields.diameter_px) == 2
    np.testing.assert_allclose(fields.diameter_px, (12, 46), rtol=0.15)
    columns = np.reshape(fields.classes, fields.grid.counts)
    np.testing.assert_array_equal(columns[:, fields.pitch[1] * np.arange(4) < CUT], 0)
    np.testing.assert_array_equal(columns[:, fields.pitch[1] * np.arange(4) >= CUT], 1)
    assert fields.shares == pytest.approx((0.5, 0.5))
    assert plan_from_json(plan_to_json(seen.plan)) == seen.plan


def test_cells_are_found_better_than_at_one_diameter(halves, seen):
    image, truth = halves
    one = cs.segment(image)
    assert one.plan.fields is None and one.diameter_px < 20
    large = np.s_[:, CUT:]
    scores = [cs.evaluate(s.labels, truth).ap[0.5] for s in (one, seen)]
    of_large = [cs.evaluate(s.labels[large], truth[large]).ap[0.5] for s in (one, seen)]
    assert scores[1] > scores[0] and of_large[1] > of_large[0] + 0.15


def test_no_cell_is_there_twice(halves, seen):
    """Along the border of the fields no truth has two cells, each of them half its size."""
    truth, labels = halves[1], seen.labels
    near = np.zeros(SHAPE, bool)
    near[:, CUT - 30 : CUT + 30] = True
    areas = np.bincount(truth.ravel())
    for one in np.unique(truth[near & (truth > 0)]):
        counts = np.bincount(labels[truth == one])[1:]
        assert np.sum(2 * counts >= areas[one]) <= 1
    assert seen.labels.max() == seen.n_cells == len(seen.table["label"])
    counts = np.bincount(labels.ravel())[1:]
    np.testing.assert_array_equal(counts, seen.table["area_px"])
    assert (counts > 0).all()


def test_each_class_is_the_image_at_its_diameter(halves, seen):
    """Away from the border cells are those of the image at the diameter of the class."""
    fields = seen.plan.fields
    for number, inner in enumerate((np.s_[:, : CUT - 150], np.s_[:, CUT + 150 :])):
        alone = cs.segment(halves[0], diameter_px=fields.diameter_px[number])
        np.testing.assert_array_equal(seen.labels[inner] > 0, alone.labels[inner] > 0)
        np.testing.assert_array_equal(seen.logit[inner], alone.logit[inner])
        found, expected = (np.unique(s.labels[inner]).size for s in (seen, alone))
        assert found == expected > 20


def test_a_region_is_that_part_of_the_whole(halves, seen):
    region = {"box_px": [[100, 300], [400, 600]]}
    part = cs.segment(halves[0], diameter_classes=2, region=region)
    here = np.isin(seen.labels, np.unique(seen.labels[part.labels > 0]))
    np.testing.assert_array_equal((seen.labels > 0) & here, part.labels > 0)
    assert 0 < part.n_cells < seen.n_cells
    kept = np.isin(seen.table["label"], np.unique(seen.labels[part.labels > 0]))
    np.testing.assert_array_equal(part.table["confidence"], seen.table["confidence"][kept])


def test_an_image_whose_parts_are_alike_is_seen_as_with_one_diameter():
    image, _ = half(16, 3)
    one, several = cs.segment(image), cs.segment(image, diameter_classes=4)
    assert several.plan.fields.diameter_px == (one.diameter_px,)
    assert several.diameter == one.diameter
    np.testing.assert_array_equal(several.labels, one.labels)
    np.testing.assert_array_equal(several.flow, one.flow)
    for name, column in one.table.items():
        np.testing.assert_array_equal(several.table[name], column, err_msg=name)


def test_images_without_cells():
    blank = cs.segment(np.full((90, 120), 7, np.uint16), diameter_classes=2)
    assert blank.n_cells == 0 and not blank.plan.fields.differ


def test_volumes(halves):
    """Of a volume of few planes the fields are those of its planes."""
    volume = np.repeat(halves[0][None, ::2, ::2], 6, axis=0)
    found = cs.segment(volume, diameter_classes=2, mode="3d")
    assert found.plan.fields.grid.counts[0] == 1 and found.n_cells > 0
    with pytest.raises(ValueError, match="needs an image y, x or a volume of mode 3d, got mode pl"):
        cs.segment(volume, diameter_classes=2, mode="planes")
    with pytest.raises(ValueError, match="got a series in time"):
        cs.segment(volume, diameter_classes=2, axes="tyx")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"diameter_classes": 0}, "whole number from 1 to 4, got 0"),
        ({"diameter_classes": 5}, "whole number from 1 to 4, got 5"),
        ({"diameter_classes": True}, "whole number from 1 to 4, got True"),
        ({"diameter_classes": 2, "diameter_px": 20}, "a diameter that is measured"),
        ({"diameter_classes": 2, "diameter_by": "style"}, "diameter_by='samples'"),
        ({"diameter_classes": 2, "resample": False}, "resample=True"),
    ],
)
def test_what_does_not_go_together(settings, text):
    with pytest.raises(ValueError, match=text):
        cs.segment(np.zeros((64, 64), np.uint8), **settings)


def test_fields_are_neither_many_nor_small():
    assert measuring_grid((100, 9000), 20).counts == (1, 8)
    assert measuring_grid((480, 900), 12.9).pitch == (240, 225)
    assert measuring_grid((40, 2000, 1000), 10).counts == (1, 4, 4)


def test_fields_that_are_not_known_are_like_the_nearest():
    grid = Grid((30, 40), (10, 10))
    sizes = [None, 10, None, 40, None, None, None, None, 11.2, None, None, None]
    found = fields_of(grid, sizes, typical_px=12, most=3)
    assert found.diameter_px == (10.6, 40)
    assert np.reshape(found.classes, (3, 4)).tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]]
    alone = fields_of(grid, [None] * 12, typical_px=12, most=3)
    assert alone.diameter_px == (12,) and not alone.differ


@given(st.lists(st.integers(0, 2), min_size=12, max_size=12), st.booleans())
def test_regions_of_classes_are_a_partition(classes, within):
    fields = Fields((25, 35), (10, 10), (None,) * 12, tuple(classes), (1.0, 2.0, 3.0))
    said = {"box_px": [[3, 5], [21, 30]]}
    meant = region_of(said, shape=fields.shape, spacing_um=None) if within else None
    points = np.stack(np.unravel_index(np.arange(25 * 35), fields.shape), axis=1)
    inside = np.ones(len(points), bool) if meant is None else meant.numbers_at(points) > 0
    own = np.asarray(classes)[fields.grid.owners(points)]
    np.testing.assert_array_equal(fields.typical_px(points), own + 1.0)
    for number in range(4):  # the last one is no class
        region = fields.region(number, meant)
        np.testing.assert_array_equal(region.numbers_at(points) > 0, inside & (own == number))
