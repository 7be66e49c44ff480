"""Crops: a function of seed, step and place; on their labels; no more is read than needed."""

from dataclasses import replace

import numpy as np
import pytest

from cellseg_pipe.training.augment import Sampler, chances
from cellseg_pipe.training.settings import Augmentation

PLAIN = Augmentation(
    crop_px=48, margin_px=16, gamma=(1.0, 1.0), gain=(1.0, 1.0), offset=(0.0, 0.0), p_blur=0.0,
    p_poisson=0.0, p_noise=0.0, p_invert=0.0, p_drop=0.0, p_empty=0.0,
)  # fmt: skip


def sampler(images, how=PLAIN, *, seed=0, diameter_px=18.0):
    return Sampler(images, diameter_px=diameter_px, augmentation=how, seed=seed)


@pytest.fixture
def images(make_scene, make_prepared):
    scenes = [make_scene(seed, edge=120) for seed in (1, 2)]
    return [
        make_prepared(labels, np.concatenate([image / image.max()] * 2), name=f"{n}.tif")
        for n, (image, labels) in enumerate(scenes)
    ]


def same(left, right):
    return np.array_equal(left.pixels, right.pixels) and np.array_equal(left.labels, right.labels)


def test_a_crop_is_a_function_of_seed_step_and_place(images):
    how = Augmentation(crop_px=48, margin_px=16)
    first, other = sampler(images, how), sampler(images, how)
    places = [(step, place) for step in range(3) for place in range(3)]
    crops = {key: first.crop(*key) for key in places}
    for key in reversed(places):  # in any order, from any object
        assert same(other.crop(*key), crops[key])
    keys = list(crops)
    assert not any(same(crops[a], crops[b]) for a in keys for b in keys if a < b)
    assert not same(sampler(images, how, seed=1).crop(0, 0), crops[0, 0])
    assert all(
        c.pixels.dtype == np.float32 and c.pixels.shape == (2, 48, 48) for c in crops.values()
    )
    assert all(c.labels.dtype == np.int32 and c.labels.shape == (80, 80) for c in crops.values())


def test_pixels_and_labels_lie_on_each_other(make_scene, make_prepared):
    labels = make_scene(1, edge=120)[1]
    draw = sampler([make_prepared(labels)])
    for step in range(10):
        crop = draw.crop(step, 0)
        seen = crop.labels[16:-16, 16:-16] > 0
        bright = crop.pixels[0]
        # Linear and nearest reading differ on outlines only.
        np.testing.assert_array_equal(seen[bright == 1], True)
        np.testing.assert_array_equal(seen[bright == 0], False)


def test_beyond_the_image_is_nothing(make_prepared):
    image = make_prepared(np.ones((20, 20)), np.ones((1, 20, 20)))
    crop = sampler([image]).crop(0, 0)
    assert 0 < crop.pixels.sum() < 48 * 48
    outside = crop.labels[16:-16, 16:-16] == 0
    np.testing.assert_array_equal(crop.pixels[0][outside], 0)


def test_cells_are_brought_to_the_diameter(make_prepared):
    y, x = np.mgrid[:200, :200]
    disc = (y - 100) ** 2 + (x - 100) ** 2 < 20**2
    how = Augmentation(**{**vars(PLAIN), "crop_px": 160, "scale_octaves": 0.0})
    crop = sampler([make_prepared(disc, diameter_px=40.0)], how, diameter_px=10.0).crop(0, 0)
    assert np.count_nonzero(crop.labels) == pytest.approx(np.pi * 5**2, rel=0.1)


class Spy:
    """An image of which it is noted how much is read."""

    def __init__(self, shape, dtype):
        self.shape, self.dtype, self.read = shape, dtype, 0

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, key):
        key = key if isinstance(key, tuple) else (key,)
        if key == (None,):
            return SpyPlane(self)
        part = np.zeros([len(range(*s.indices(n))) for s, n in zip(key, self.shape, strict=True)])
        self.read = max(self.read, part[0].size)
        return part.astype(self.dtype)


class SpyPlane:
    def __init__(self, spy):
        self.spy = spy

    def __getitem__(self, key):
        return self.spy[key[1:]][None]


def test_a_crop_of_a_huge_image_reads_a_part(make_prepared):
    shape = (100_000, 100_000)
    pixels = Spy((1, *shape), np.float16)
    labels = Spy(shape, np.int32)
    image = replace(make_prepared(np.ones((2, 2))), pixels=pixels, labels=labels)
    sampler([image]).crop(0, 0)
    assert 0 < pixels.read < (80 * 2**0.8 * 1.5 + 6) ** 2


def test_sets_are_drawn_by_the_root_of_their_objects(make_prepared):
    many, few = np.arange(1, 101).reshape(10, 10), np.array([[1, 2], [3, 4]])
    images = [
        make_prepared(many, set="many"), make_prepared(few, set="few"),
        make_prepared(np.zeros((5, 5)), set="few"),
    ]  # fmt: skip
    # 100 objects and 4: 10 to 2, the latter shared by two images.
    np.testing.assert_allclose(chances(images), np.array([10, 1, 1]) / 12)
    np.testing.assert_allclose(chances(images, {"few": 5.0}), np.array([10, 5, 5]) / 20)


def test_empty_crops_have_no_cells_and_the_range_of_an_image(images):
    how = Augmentation(**{**vars(PLAIN), "p_empty": 1.0})
    crops = [sampler(images, how).crop(step, 0) for step in range(20)]
    for crop in crops:
        assert not crop.labels.any() and crop.source == "noise"
        for plane in crop.pixels:
            inside = plane[np.ix_(plane.any(axis=1), plane.any(axis=0))]
            if inside.size or plane is crop.pixels[0]:
                np.testing.assert_allclose(np.percentile(inside, (1, 99)), (0, 1), atol=1e-5)
    # The second input is noise of its own, or not used.
    assert {bool(crop.pixels[1].any()) for crop in crops} == {False, True}
    assert not any(np.array_equal(*crop.pixels) for crop in crops)


def test_noise_ends_where_a_small_image_does(images):
    how = Augmentation(**{**vars(PLAIN), "p_empty": 1.0})
    planes = [sampler(images, how).crop(step, 0).pixels[0] for step in range(40)]
    rows = [np.flatnonzero(plane.any(axis=1)) for plane in planes]
    full = [len(own) == len(plane) for own, plane in zip(rows, planes, strict=True)]
    assert 5 < sum(full) < 35 and any(own[0] > 0 for own in rows)
    assert all((np.diff(own) == 1).all() for own in rows)


def test_noise_has_grains_of_many_sizes(images):
    how = Augmentation(**{**vars(PLAIN), "p_empty": 1.0})
    planes = [sampler(images, how).crop(step, 0).pixels[0] for step in range(40)]
    planes = [p[np.ix_(p.any(axis=1), p.any(axis=0))] for p in planes]
    planes = [p for p in planes if min(p.shape) > 20]
    alike = [np.corrcoef(p[:, 1:].ravel(), p[:, :-1].ravel())[0, 1] for p in planes]
    assert min(alike) < 0.5 and max(alike) > 0.95


@pytest.mark.parametrize("step", range(8))
def test_an_input_that_is_not_used_stays_exactly_zero(images, step):
    blank = [replace(i, pixels=i.pixels * np.array([1, 0])[:, None, None]) for i in images]
    crop = sampler(blank, Augmentation(crop_px=48, margin_px=16, p_noise=1.0)).crop(step, 0)
    assert crop.pixels[0].any() and not crop.pixels[1].any()
