"""What all public kernels refuse or take alike: threads, empty lists, objects of other arrays."""

from dataclasses import replace

import numpy as np
import pytest

from cellseg_pipe import kernels
from cellseg_pipe.kernels import Objects, boxes_and_areas

LABELS = np.zeros((12, 14), np.uint32)
LABELS[2:9, 3:9] = 1
LABELS[4, 5] = 0
FLOW = np.zeros((2, 12, 14), np.float32)
LOGIT = np.where(LABELS, 5, -5).astype(np.float32)
CALLS = {
    "boxes_and_areas": lambda **run: kernels.boxes_and_areas(LABELS, **run),
    "cells_from_ends": lambda **run: kernels.cells_from_ends(
        kernels.follow_flows(FLOW, LOGIT > 0), **run
    ),
    "fill_holes": lambda **run: kernels.fill_holes(LABELS, **run),
    "find_masks": lambda **run: kernels.find_masks(FLOW, LOGIT, **run),
    "flow_quality": lambda **run: kernels.flow_quality(LABELS, FLOW, **run),
    "flows_from_labels": lambda **run: kernels.flows_from_labels(LABELS, **run),
    "follow_flows": lambda **run: kernels.follow_flows(FLOW, LOGIT > 0, **run),
    "hole_claims": lambda **run: kernels.hole_claims(LABELS, **run),
    "masks_from_classes": lambda **run: kernels.masks_from_classes(np.stack([LOGIT] * 3), **run),
    "masks_from_flows": lambda **run: kernels.masks_from_flows(FLOW, LOGIT, **run),
    "mean_per_object": lambda **run: kernels.mean_per_object(LOGIT, LABELS, **run),
    "object_sums": lambda **run: kernels.object_sums(LABELS, **run),
    "outline_pixels": lambda **run: kernels.outline_pixels(LABELS, **run),
    "outline_polygons": lambda **run: kernels.outline_polygons(LABELS, **run),
    "overlap_pairs": lambda **run: kernels.overlap_pairs(LABELS, LABELS, **run),
    "relabel": lambda **run: kernels.relabel(LABELS, [1], [2], **run),
    "remove_small": lambda **run: kernels.remove_small(LABELS, min_size_px=3, **run),
    "renumber": lambda **run: kernels.renumber(LABELS, **run),
    "stitch_planes": lambda **run: kernels.stitch_planes(np.stack([LABELS, LABELS]), **run),
}


@pytest.mark.parametrize("name", CALLS)
def test_threads_are_none_or_one_or_more(name):
    # -1, which other libraries take for all, lost objects without a word.
    for threads in (-1, 0):
        with pytest.raises(ValueError, match=f"threads needs .* 1 or more, got {threads}"):
            CALLS[name](threads=threads)
    with pytest.raises(TypeError, match="threads needs a whole number, got 1.5"):
        CALLS[name](threads=1.5)
    CALLS[name](threads=np.int64(1))


def test_empty_lists_are_lists_of_labels():
    np.testing.assert_array_equal(kernels.union_find(3, [], []), [0, 1, 2])
    assert not kernels.relabel(LABELS, [], []).any()
    assert kernels.renumber(np.zeros((2, 2), int), order=[])[1].size == 0
    assert kernels.object_sums(LABELS, ids=[]).area.shape == (0,)
    assert kernels.object_sums(LABELS, ids=[], peaks=[]).reference.shape == (0, 2)
    assert kernels.flow_quality(LABELS, FLOW, ids=[]).error.shape == (0,)
    assert boxes_and_areas(LABELS, ids=[]).start.shape == (0, 2)
    (chained,) = kernels.chain_planes([[]], [])
    assert chained.label.dtype == chained.chain.dtype == np.uint32 and chained.label.size == 0
    assert kernels.overlap_pairs([], []).count.size == 0


def foreign():
    """Objects that cannot be those of LABELS."""
    big = np.zeros((300, 300), np.uint32)
    big[290:295, 280:290] = 1
    right = boxes_and_areas(LABELS)
    yield boxes_and_areas(big)
    yield boxes_and_areas(np.ones((3, 4, 5), np.uint32))
    yield boxes_and_areas(LABELS, ids=[1, 2])
    yield replace(right, start=right.start - 5)
    yield Objects(right.label, right.start, right.stop, np.empty(0, np.int64))


@pytest.mark.parametrize("objects", list(foreign()))
@pytest.mark.parametrize("name", ["fill_holes", "flow_quality", "mean_per_object"])
def test_objects_of_another_array_are_refused(name, objects):
    with pytest.raises(ValueError, match=f"{name} needs objects of the array of shape"):
        CALLS[name](objects=objects)
    assert CALLS[name](objects=boxes_and_areas(LABELS)) is not None
