"""Windows that are one voxel thick are asked for in columns, where that spares decoding."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from cellseg_pipe.nets.windows import view_of
from cellseg_pipe.stages.predict import _chunk_of
from cellseg_pipe.stages.reading_order import behind_each_other
from cellseg_pipe.tiles import morton_order


@pytest.mark.parametrize("chunk", [(1, 64, 64), (16, 16, 16)])
@pytest.mark.parametrize("axes", [(0, 2), (0, 1), (1, 2), (0, 1, 2)])
def test_columns_follow_each_other_where_chunks_are_thick(axes, chunk):
    view = view_of((40, 50, 60), axes, window_px=16, overlap_px=4, divisor=4)
    places = morton_order(view.lattice.counts)[7:]
    ordered = behind_each_other(view, places, chunk=chunk)
    assert sorted(ordered) == sorted(places)
    thin = [axis for axis in range(3) if axis not in axes]
    if not thin or chunk[thin[0]] == 1:
        np.testing.assert_array_equal(ordered, places)
        return
    index = np.unravel_index(ordered, view.lattice.counts)
    columns = [[at for at, _ in group] for _, group in itertools.groupby(
        zip(index[thin[0]], zip(*(index[a] for a in axes), strict=True), strict=True),
        key=lambda one: one[1],
    )]  # fmt: skip
    n_columns = np.prod([view.lattice.counts[a] for a in axes])
    assert len(columns) <= n_columns and all(column == sorted(column) for column in columns)


@pytest.mark.parametrize(
    ("axes", "shape", "restoring", "chunk", "found"),
    [
        ([(1, 2), (0, 2), (0, 1)], (40, 50, 60), None, [1, 64, 64], (1, 64, 64)),
        ([(1, 2)], (40, 50, 60), None, [16, 64, 64], (16, 64, 64)),
        ([(0, 1)], (50, 60), None, [1024, 1024], None),  # nothing lies behind
        ([(0, 1, 2)], (40, 50, 60), None, [64, 64, 64], None),
        ([(1, 2), (0, 2), (0, 1)], (40, 50, 60), "a restorer", [1, 64, 64], None),
        ([(1, 2), (0, 2), (0, 1)], (40, 50, 60), None, None, None),
    ],
)
def test_slabs_are_read_where_windows_share_chunks(axes, shape, restoring, chunk, found):
    views = [view_of(shape, seen, window_px=16, overlap_px=4, divisor=4) for seen in axes]
    plan = SimpleNamespace(shape=shape, views=views)
    facts = {"image": {} if chunk is None else {"chunk": chunk}}
    assert _chunk_of(SimpleNamespace(plan=plan, facts=facts, restoring=restoring)) == found
