"""Holes, sizes, borders, numbers and outlines against scipy, masks and the peer's files."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from cellseg_pipe.kernels import (
    border_objects,
    fill_holes,
    hole_claims,
    outline_pixels,
    outline_polygons,
    relabel,
    remove_small,
    renumber,
)

GOLDEN = Path(__file__).parents[1] / "golden"
VALUES = st.sampled_from([0, 1, 2, 7, 70_000, 2**32 - 1])
THREADS = st.sampled_from([1, 2])


def ids_of(labels):
    return np.unique(labels[labels > 0])


def plain_fill(labels):
    """Ask every background voxel which filled masks hold it."""
    filled = labels.copy()
    area = {value: int((labels == value).sum()) for value in ids_of(labels).tolist()}
    for value in sorted(area, key=lambda value: (area[value], value), reverse=True):
        filled[ndimage.binary_fill_holes(labels == value) & (labels == 0)] = value
    return filled


def plain_outline(labels):
    marks = np.zeros(labels.shape, bool)
    for value in ids_of(labels):
        inside = ndimage.binary_fill_holes(labels == value)
        marks |= (labels == value) & ~ndimage.binary_erosion(inside)
    return marks


def plain_piece(mask):
    """The largest piece, joined by faces, of a filled mask; of equal ones the first."""
    pieces, _ = ndimage.label(ndimage.binary_fill_holes(mask))
    return pieces == np.argmax(np.bincount(pieces.ravel())[1:]) + 1


def pixels_within(corners, shape):
    """Pixels whose centre is inside of a polygon: an odd number of edges lies left of it."""
    crossed = np.zeros((shape[0], shape[1] + 1), int)
    for (y0, x0), (y1, x1) in pairwise([*corners.tolist(), corners[0].tolist()]):
        if x0 == x1:
            crossed[min(y0, y1) : max(y0, y1), x0] += 1
    return np.cumsum(crossed, axis=1)[:, :-1] % 2 == 1


def shoelace(corners):
    y, x = corners.T.astype(int)
    return int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


@st.composite
def nested(draw, max_dims=3):
    """Hollow boxes painted over each other: rings in rings, shells, gaps at corners."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=max_dims, min_side=3, max_side=9))
    labels = np.zeros(shape, np.uint32)
    for _ in range(draw(st.integers(1, 5))):
        low = [draw(st.integers(0, size - 1)) for size in shape]
        high = [draw(st.integers(a + 1, size)) for a, size in zip(low, shape, strict=True)]
        box = labels[tuple(map(slice, low, high))]
        inner = box[(slice(1, -1),) * len(shape)].copy()
        box[...] = draw(VALUES)
        box[(slice(1, -1),) * len(shape)] = inner
    for _ in range(draw(st.integers(0, 4))):
        labels[tuple(draw(st.integers(0, size - 1)) for size in shape)] = draw(VALUES)
    return labels


def noise(max_dims=3, max_side=6):
    shapes = hnp.array_shapes(max_dims=max_dims, min_side=0, max_side=max_side)
    return hnp.arrays(np.uint32, shapes, elements=VALUES)


def planes():
    shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=8)
    return nested(max_dims=2) | hnp.arrays(np.uint32, shapes, elements=VALUES)


def golden_cases(name, key):
    with np.load(GOLDEN / f"{name}.npz") as held:
        return [item.removesuffix(key) for item in held.files if item.endswith(key)]


# Holes


@given(nested() | noise(), THREADS)
def test_holes_are_those_of_scipy_and_go_to_the_smallest(labels, threads):
    filled = fill_holes(labels, threads=threads)
    assert filled.dtype == np.uint32 and filled.tolist() == plain_fill(labels).tolist()


@given(nested() | noise())
def test_claims_are_what_filling_adds(labels):
    index, label = hole_claims(labels)
    assert index.dtype == np.int64 and label.dtype == np.uint32
    painted = labels.copy()
    painted.reshape(-1)[index] = label
    assert (np.diff(index) > 0).all() and not labels.ravel()[index].any()
    assert painted.tolist() == fill_holes(labels).tolist()


@given(nested() | noise(), st.integers(0, 3))
def test_a_margin_changes_nothing(labels, margin):
    inner = tuple(slice(margin, margin + size) for size in labels.shape)
    wide = np.pad(labels, [(margin, 2)] * labels.ndim)
    assert fill_holes(wide)[inner].tolist() == fill_holes(labels).tolist()
    assert outline_pixels(wide)[inner].tolist() == outline_pixels(labels).tolist()


@given(nested() | noise(), st.randoms())
def test_numbering_changes_nothing_if_order_follows(labels, random):
    old = ids_of(labels)
    shuffled = np.array(random.sample(range(1, 100), old.size), np.uint32)
    swapped = relabel(labels, old, shuffled)
    filled = fill_holes(swapped, order=np.argsort(shuffled))  # the rank each object had before
    assert relabel(filled, shuffled, old).tolist() == fill_holes(labels).tolist()


def two_equal_rings():
    """A ring of 24 pixels round a block of 24 pixels that has a hole."""
    labels = np.zeros((7, 7), np.uint32)
    labels[...] = 3
    labels[1:6, 1:6] = 5
    labels[3, 3] = 0
    return labels


def test_ties_go_to_the_smaller_label_or_by_order():
    labels = two_equal_rings()
    assert fill_holes(labels)[3, 3] == 3
    assert fill_holes(labels, order=[8, 4])[3, 3] == 5
    labels[0, 0] = 0
    labels[3, 2] = 0
    assert fill_holes(labels, order=[8, 4])[3, 2] == 5  # both lost a pixel
    labels[0, 1] = 0
    assert fill_holes(labels, order=[8, 4])[3, 2] == 5  # and now the ring is open


def test_the_best_of_two_tiles_is_the_best_of_the_whole():
    labels = two_equal_rings()
    claims = [hole_claims(np.where(labels == value, labels, 0)) for value in (3, 5)]
    at = 3 * 7 + 3
    seen = [label[index == at].tolist() for index, label in claims]
    assert seen == [[3], [5]]
    assert fill_holes(labels).ravel()[at] == min(min(seen))


@pytest.mark.parametrize("case", golden_cases("holes", "_labels"))
def test_holes_are_the_peers_but_for_nested_cells_that_it_overwrites(case):
    with np.load(GOLDEN / "holes.npz") as held:
        labels, cleaned = held[f"{case}_labels"], held[f"{case}_cleaned"]
        min_px = int(held[f"{case}_min_px"])
    kept = remove_small(labels, min_size_px=min_px)
    number = {0: 0}
    for value in ids_of(kept).tolist():  # most of the cell went to this cell of the peer
        number[value] = int(np.bincount(cleaned[kept == value]).argmax())
    filled = fill_holes(kept)
    assert np.vectorize(number.get)(filled).tolist() == cleaned.tolist()
    for shared in set(number.values()) - {0}:  # cells of one number lie within one of them
        cells = [kept == value for value in number if number[value] == shared]
        assert any(ndimage.binary_fill_holes(cell)[np.any(cells, axis=0)].all() for cell in cells)


def test_nested_cells_are_kept_where_the_peer_loses_them():
    labels = np.load(GOLDEN / "holes.npz")["rings_labels"]
    filled = fill_holes(labels)
    assert filled[labels > 0].tolist() == labels[labels > 0].tolist()


@pytest.mark.parametrize("order", [[1], [1, 2, 3], [[1, 2]]])
def test_an_order_for_other_objects_is_refused(order):
    with pytest.raises(ValueError, match="order for each of the 2 objects"):
        fill_holes(two_equal_rings(), order=order)


def test_one_object_without_background_and_no_object_stay():
    for labels in (np.full((5, 6), 2**32 - 1, np.uint32), np.zeros((5, 6), np.uint32)):
        assert fill_holes(labels).tolist() == labels.tolist()
        assert hole_claims(labels)[0].size == 0


def test_a_window_of_a_read_only_image_serves():
    image = np.zeros((9, 20), np.int64)
    image[1:8, 2:16:2] = 4
    image[3, 5:13:2] = 4
    image.flags.writeable = False
    view = image[:, ::2]
    assert fill_holes(view).tolist() == plain_fill(view.astype(np.uint32)).tolist()
    assert outline_pixels(view).tolist() == plain_outline(view).tolist()
    assert outline_polygons(view).label.tolist() == [4]
    assert renumber(view)[0].max() == 1


# Sizes, borders, numbers


def test_removal_goes_by_label_not_by_position():
    labels = np.zeros((30, 20), np.uint32)  # the peer deletes the 100 pixels of 2 here
    labels[0:10, 0:10], labels[12, 0:5], labels[14:24, 0:20] = 2, 3, 4
    kept = remove_small(labels, min_size_px=15)
    assert kept.tolist() == np.where(labels == 3, 0, labels).tolist()


@given(noise(), st.integers(-1, 9), st.none() | st.integers(0, 9), THREADS)
def test_sizes_within_limits_stay(labels, smallest, largest, threads):
    kept = remove_small(labels, min_size_px=smallest, max_size_px=largest, threads=threads)
    expected = labels.copy()
    for value in ids_of(labels):
        area = (labels == value).sum()
        if area < smallest or (largest is not None and area > largest):
            expected[labels == value] = 0
    assert kept.tolist() == expected.tolist()


@given(noise(), st.data())
def test_border_objects_lie_on_the_chosen_faces(labels, data):
    pair = st.tuples(st.booleans(), st.booleans())
    faces = data.draw(st.none() | st.tuples(*[pair] * labels.ndim))
    expected = set()
    for axis in range(labels.ndim):
        for side, at in enumerate((0, labels.shape[axis] - 1)):
            if labels.shape[axis] and (faces is None or faces[axis][side]):
                expected |= set(np.take(labels, at, axis).ravel().tolist()) - {0}
    assert border_objects(labels, faces=faces).tolist() == sorted(expected)


@pytest.mark.parametrize("case", golden_cases("measures", "_labels"))
def test_cells_off_the_border_are_the_peers(case):
    with np.load(GOLDEN / "measures.npz") as held:
        labels, inside = held[f"{case}_labels"], held[f"{case}_inside"]
    kept = np.where(np.isin(labels, border_objects(labels)), 0, labels)
    assert renumber(kept)[0].tolist() == renumber(inside)[0].tolist()


@pytest.mark.parametrize("faces", [[(True, True)], [(True,), (True,)]])
def test_faces_of_other_axes_are_refused(faces):
    with pytest.raises(ValueError, match=r"\(first, last\) for each of 2 axes"):
        border_objects(np.zeros((3, 4), int), faces=faces)


@given(noise(), st.randoms(), THREADS)
def test_numbers_are_dense_in_the_order_wanted(labels, random, threads):
    ids = ids_of(labels).tolist()
    dense, old = renumber(labels, threads=threads)
    assert old.tolist() == ids and np.r_[0, old][dense].tolist() == labels.tolist()
    random.shuffle(ids)
    dense, old = renumber(labels, order=np.array(ids, np.uint32))
    assert old.tolist() == ids and np.r_[0, old][dense].tolist() == labels.tolist()


@pytest.mark.parametrize("order", [[1], [1, 1], [1, 3], [[1, 2]], [0, 1, 2]])
def test_an_order_of_other_labels_is_refused(order):
    with pytest.raises(ValueError, match="exactly the 2 labels"):
        renumber(np.array([0, 1, 2]), order=order)


# Outlines


@given(nested() | noise(), THREADS)
def test_outlines_border_on_the_outside(labels, threads):
    assert outline_pixels(labels, threads=threads).tolist() == plain_outline(labels).tolist()


@pytest.mark.parametrize("case", golden_cases("measures", "_labels"))
def test_outlines_are_the_peers(case):
    with np.load(GOLDEN / "measures.npz") as held:
        labels, expected = held[f"{case}_labels"], held[f"{case}_outlines"]
    assert outline_pixels(labels).tolist() == expected.tolist()


@given(planes(), THREADS)
def test_polygons_hold_the_largest_filled_piece(labels, threads):
    polygons = outline_polygons(labels, threads=threads)
    assert polygons.label.tolist() == ids_of(labels).tolist()
    assert polygons.vertex.dtype == np.int32 and polygons.offset[0] == 0
    assert polygons.offset[-1] == len(polygons.vertex)
    for value, (first, last) in zip(polygons.label, pairwise(polygons.offset), strict=True):
        corners = polygons.vertex[first:last]
        piece = plain_piece(labels == value)
        assert pixels_within(corners, labels.shape).tolist() == piece.tolist()
        assert shoelace(corners) == piece.sum()
        assert corners[0].tolist() == np.argwhere(piece)[0].tolist()
        assert len(np.unique(corners, axis=0)) == len(corners)  # never touches itself
        turns = np.diff(corners, axis=0, append=corners[:1])
        assert ((turns == 0).sum(axis=1) == 1).all()  # along an axis
        assert ((turns[:, 0] == 0) != (np.roll(turns[:, 0], 1) == 0)).all()  # and never straight on


@given(planes(), st.integers(0, 3), st.integers(0, 3))
def test_polygons_move_with_the_image(labels, down, right):
    here = outline_polygons(labels)
    there = outline_polygons(np.pad(labels, [(down, 1), (right, 1)]))
    assert there.vertex.tolist() == (here.vertex + (down, right)).tolist()
    assert there.offset.tolist() == here.offset.tolist()


def test_a_pixel_has_four_corners_against_the_clock():
    polygons = outline_polygons(np.array([[0, 0, 0], [0, 0, 9]]))
    assert polygons.vertex.tolist() == [[1, 2], [1, 3], [2, 3], [2, 2]]


def test_threads_give_equal_outlines_of_many_cells():
    rng = np.random.default_rng(1)
    labels = np.kron(rng.permutation(400).reshape(20, 20), np.ones((9, 9), int))
    labels[rng.random(labels.shape) < 0.2] = 0
    one, two = (outline_polygons(labels, threads=threads) for threads in (1, 2))
    assert one.vertex.tolist() == two.vertex.tolist() and one.offset.tolist() == two.offset.tolist()
    assert len(one.label) == 399
    filled = [fill_holes(labels, threads=threads).tolist() for threads in (1, 2)]
    assert filled[0] == filled[1] == plain_fill(labels.astype(np.uint32)).tolist()


def test_polygons_of_a_volume_are_refused():
    with pytest.raises(ValueError, match="2 axes, got shape"):
        outline_polygons(np.zeros((2, 3, 4), int))


@pytest.mark.parametrize(
    "function",
    [
        fill_holes,
        hole_claims,
        outline_pixels,
        outline_polygons,
        border_objects,
        renumber,
        lambda labels: remove_small(labels, min_size_px=1),
    ],
)
def test_what_is_not_labels_is_refused(function):
    with pytest.raises(TypeError, match="labels needs an array of integers"):
        function(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="1 or more axes"):
        function(3)
    with pytest.raises(ValueError, match="from 0 to"):
        function(np.array([[-1, 2]]))
