"""Thick reads for thin boxes: the same pixels, and each chunk decoded about once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg_pipe.geometry import Box
from cellseg_pipe.io import slabs
from cellseg_pipe.io.slabs import Slabs

SHAPE = (12, 20, 16)
IMAGE = np.arange(2 * np.prod(SHAPE), dtype=np.uint16).reshape(2, *SHAPE)


def counting(chunk):
    """Return what reads boxes, and how often it decodes each chunk."""
    decoded = np.zeros([-(-n // c) for n, c in zip(SHAPE, chunk, strict=True)], int)

    def read(box):
        decoded[box.cells(chunk).slices] += 1
        return IMAGE[(slice(None), *box.slices)].copy()

    return read, decoded


@st.composite
def boxes(draw):
    ends = [sorted((draw(st.integers(0, n)), draw(st.integers(0, n)))) for n in SHAPE]
    return Box(*zip(*ends, strict=True))


@given(
    st.lists(boxes(), min_size=1, max_size=6),
    st.tuples(*(st.integers(1, n) for n in SHAPE)),
    st.integers(1, 3000),
)
def test_boxes_are_those_of_the_image(asked, chunk, n_bytes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slabs, "SLAB_BYTES", n_bytes)
        read = Slabs(counting(chunk)[0], SHAPE, chunk, voxel_bytes=4).read
        for box in asked:
            np.testing.assert_array_equal(read(box), IMAGE[(slice(None), *box.slices)])


@pytest.mark.parametrize(("chunk", "most"), [((1, 20, 16), 3), ((4, 8, 8), 1), ((12, 1, 16), 1)])
def test_windows_one_behind_the_other_decode_chunks_once(monkeypatch, chunk, most):
    monkeypatch.setattr(slabs, "SLAB_BYTES", 8 * 12 * 16 * 4)  # eight of the 20 layers
    read, decoded = counting(chunk)
    ahead = Slabs(read, SHAPE, chunk, voxel_bytes=4).read
    for y in range(20):
        ahead(Box((0, y, 0), (12, y + 1, 16)))
    assert decoded.max() == most  # without it: as often as there are layers in a chunk


def test_what_is_kept_is_bounded_and_let_go_before_the_next(monkeypatch):
    monkeypatch.setattr(slabs, "SLAB_BYTES", 1000)
    sizes, kept = [], []

    def read(box):
        kept.append(ahead._pixels.nbytes)
        sizes.append(box.size * 4)
        return IMAGE[(slice(None), *box.slices)].copy()

    ahead = Slabs(read, SHAPE, (1, 20, 16), voxel_bytes=4)
    for y in range(20):
        found = ahead.read(Box((0, y, 0), (4, y + 1, 16)))
        assert not found.flags.writeable
    assert max(sizes) <= 1000 and not any(kept)
    whole = ahead.read(Box((0, 0, 0), (1, 20, 16)))  # larger than a slab may be
    assert whole.nbytes == 1280 and not ahead._pixels.size
