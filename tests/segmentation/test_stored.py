"""What stages hand on, as bytes and back: windows, cells of tiles, tables."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import Pairs, Sums, object_sums, overlap_pairs
from cellseg_pipe.nets.windows import LOGIT_MAX, Record
from cellseg_pipe.segmentation import ImageSource, Settings, make_plan
from cellseg_pipe.segmentation.cells import Rows
from cellseg_pipe.segmentation.stored import (
    found_from_bytes,
    found_to_bytes,
    record_to_bytes,
    stored_records,
    tables_from_bytes,
    tables_to_bytes,
    window_keys,
)
from cellseg_pipe.segmentation.tiled import Found

SEEDS = st.integers(0, 2**32 - 1)


class Network:
    ndim, n_inputs, divisor = 2, 1, 8

    def __init__(self, n_outputs):
        self.n_outputs = n_outputs


class Blobs(dict):
    """Blobs by key; nothing is there for those that are blank."""

    def read(self, key):
        return self[key]

    def is_blank(self, key):
        return self[key] == b""


def plan_of(shape, n_outputs, mode):
    source = ImageSource(shape, 1, lambda box: np.zeros((1, *box.shape), np.uint8))
    return make_plan(
        source,
        Settings(mode=mode, window_px=64, overlap_px=16),
        network=Network(n_outputs),
        diameter_px=30.0,
        network_diameter_px=30.0,
    )


@given(
    seed=SEEDS,
    n_outputs=st.integers(3, 6),
    shape=st.tuples(st.integers(1, 150), st.integers(1, 150))
    | st.tuples(st.integers(1, 5), st.integers(1, 60), st.integers(1, 90)),
)
def test_windows(seed, n_outputs, shape):
    rng = np.random.default_rng(seed)
    plan = plan_of(shape, n_outputs, "2d" if len(shape) == 2 else "3d")
    firsts = window_keys(plan)
    keys = [first + place for view, first in firsts for place in range(len(view.lattice))]
    assert keys == list(range(len(keys)))
    blobs, records = Blobs(), {}
    for view, first in firsts:
        for place, index in enumerate(np.ndindex(view.lattice.counts)):
            edge = view.lattice.box(index).shape
            values = rng.normal(size=(n_outputs, *edge)).astype(np.float16)
            record = Record(tuple(index), values, rng.random(5, np.float32))
            records[first + place] = record
            blobs[first + place] = record_to_bytes(record) if rng.random() < 0.7 else b""
    for view, first in firsts:
        box = Box.of(view.shape)
        found = list(stored_records(blobs, plan)(view, box))
        assert [f.index for f in found] == sorted(f.index for f in found)
        for each in found:
            key = first + int(np.ravel_multi_index(each.index, view.lattice.counts))
            if blobs[key] == b"":
                assert each.style.size == 0 and (each.values[2] == -LOGIT_MAX).all()
                assert not np.delete(each.values, 2, axis=0).any()
            else:
                assert each.values.tobytes() == records[key].values.tobytes()
                assert each.style.tobytes() == records[key].style.tobytes()


@given(seed=SEEDS, n=st.integers(0, 9), ndim=st.integers(2, 3), n_classes=st.integers(0, 3))
def test_cells_of_a_tile(seed, n, ndim, n_classes):
    rng = np.random.default_rng(seed)
    start = tuple(rng.integers(0, 2**40, ndim).tolist())
    shape = tuple(rng.integers(0, 12, ndim).tolist())
    box = Box(start, tuple(a + b for a, b in zip(start, shape, strict=True)))
    found = Found(
        box=box,
        labels=rng.integers(0, n + 1, shape).astype(np.uint32),
        claim_index=rng.integers(0, 99, 4),
        claim_label=rng.integers(1, n + 2, 4).astype(np.uint32),
        peak=rng.integers(0, 2**40, (n, ndim)),
        area=rng.integers(1, 2**40, n),
        flow_error=np.where(rng.random(n) < 0.3, np.nan, rng.random(n)),
        logit=rng.normal(size=n),
        class_logit=rng.normal(size=(n, n_classes)),
        spread=rng.random(n),
        seen_again=rng.random(n),
        on_border=rng.random(n) < 0.5,
        kept=rng.random(n) < 0.5,
        n_too_far=int(rng.integers(0, 9)),
        n_over_edge=int(rng.integers(0, 9)),
    )
    blob = found_to_bytes(found)
    again = found_from_bytes(blob)
    assert found_to_bytes(again) == blob
    for field in fields(Found):
        left, right = getattr(found, field.name), getattr(again, field.name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)
        else:
            assert left == right and type(left) is type(right)


def rows_of(rng, n):
    return Rows(
        id=np.sort(rng.choice(2**32, n, replace=False)).astype(np.uint32),
        area=rng.integers(1, 99, n),
        flow_error=rng.random(n),
        logit=rng.normal(size=n),
        class_logit=rng.normal(size=(n, 2)),
        spread=rng.random(n),
        seen_again=rng.random(n),
        peak=rng.integers(0, 99, (n, 2)),
    )


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@given(seed=SEEDS, n=st.integers(0, 5))
def test_tables(dtype, seed, n):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n + 1, (2, 9, 7)).astype(np.uint32)
    image = rng.integers(0, 900, (3, 9, 7)).astype(dtype)
    tables = {
        "rows": rows_of(rng, n),
        "sums": object_sums(labels[0], image),
        "pairs": overlap_pairs(*labels),
        "area": rng.integers(0, 9, n),
    }
    blob = tables_to_bytes(**tables)
    assert blob == tables_to_bytes(**tables)
    found = tables_from_bytes(blob, rows=Rows, sums=Sums, pairs=Pairs)
    assert set(found) == set(tables)
    np.testing.assert_array_equal(found.pop("area"), tables.pop("area"))
    for name, table in tables.items():
        assert type(found[name]) is type(table)
        for column, values in vars(table).items():
            again = getattr(found[name], column)
            assert again.dtype == values.dtype
            np.testing.assert_array_equal(again, values)
