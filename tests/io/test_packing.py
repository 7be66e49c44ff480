"""Arrays as bytes and back: equal, and equal bytes for equal arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cellseg_pipe.io.packing import pack, unpack

DTYPES = st.sampled_from(["?", "u1", "<u2", "<u4", "<i8", "<f2", "<f4", "<f8", ">i4"])
ARRAYS = arrays.arrays(
    DTYPES.map(np.dtype), arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7)
)
NUMBERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@given(
    st.dictionaries(st.text(max_size=12), ARRAYS, max_size=5),
    st.dictionaries(st.from_regex(r"[b-z]{1,8}", fullmatch=True), NUMBERS, max_size=4),
)
def test_there_and_back(tables, numbers):
    numbers.pop("arrays", None)
    blob = pack(tables, **numbers)
    found, said = unpack(blob)
    assert said == numbers and list(found) == list(tables)
    for name, array in tables.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
    assert pack(tables, **numbers) == blob


@given(ARRAYS.filter(lambda array: array.ndim > 1))
def test_the_order_in_memory_does_not_matter(array):
    assert pack({"a": np.asfortranarray(array)}) == pack({"a": array})
    assert pack({"a": array[..., ::-1]}) == pack({"a": array[..., ::-1].copy()})


def test_labels_get_small():
    labels = np.zeros((512, 512), np.uint32)
    labels[100:200, 50:300] = 7
    assert len(pack({"labels": labels})) < labels.nbytes / 100


@pytest.mark.parametrize("cut", [1, 3, 10, 60])
def test_what_is_cut_is_refused(cut):
    blob = pack({"a": np.arange(1000), "b": np.ones(3)}, n=1)
    with pytest.raises(ValueError, match="packed arrays"):
        unpack(blob[:-cut])
    with pytest.raises(ValueError, match="packed arrays"):
        unpack(blob[:cut])


def test_objects_are_refused():
    with pytest.raises(TypeError, match="numbers or booleans"):
        pack({"a": np.array([{}, None], object)})
