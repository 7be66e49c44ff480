"""Rules mark the cells that break them, and say which rules these were."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg_pipe.qc import Limits, judged


def table(n=50, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "label": np.arange(1, n + 1),
        "area_px": rng.integers(1, 400, n),
        "diameter_um": rng.uniform(1, 20, n),
        "probability": rng.random(n),
        "confidence": rng.random(n),
        "flow_error": rng.random(n),
        "agreement": np.where(rng.random(n) < 0.3, np.nan, rng.random(n)),
        "on_border": rng.random(n) < 0.2,
    }


SAID = st.builds(
    Limits,
    min_confidence=st.floats(0, 1),
    min_probability=st.floats(0, 1),
    max_flow_error=st.none() | st.floats(0.01, 1),
    min_agreement=st.none() | st.floats(0, 1),
    min_size_px=st.none() | st.integers(1, 400),
    max_size_px=st.none() | st.integers(1, 400),
    min_diameter_um=st.none() | st.floats(1, 20),
    max_diameter_um=st.none() | st.floats(1, 20),
    border=st.sampled_from(["keep", "flag"]),
)


def reasons_of(cell, kind, limits):
    """The rules that one cell breaks, one after the other."""
    sides = {
        "min_confidence": ("confidence", -1),
        "min_probability": ("probability", -1),
        "max_flow_error": ("flow_error", 1),
        "min_agreement": ("agreement", -1),
        "min_size_px": ("area_px", -1),
        "max_size_px": ("area_px", 1),
        "min_diameter_um": ("diameter_um", -1),
        "max_diameter_um": ("diameter_um", 1),
    }
    for rule, (column, sign) in sides.items():
        limit = getattr(limits, rule)
        if limit is not None and sign * cell[column] > sign * limit:
            yield f"{kind}.{rule}"
    if limits.border != "keep" and cell["on_border"]:
        yield f"{kind}.border"


@given(flag=SAID, drop=SAID)
def test_each_cell_has_its_reasons(flag, drop):
    cells = table()
    found = judged(cells, flag=flag, drop=drop)
    for row in range(50):
        cell = {name: column[row] for name, column in cells.items()}
        flags, drops = (list(reasons_of(cell, *s)) for s in (("flag", flag), ("drop", drop)))
        assert found["qc_reason"][row] == ", ".join(flags + drops)
        assert found["flagged"][row] == bool(flags) and found["dropped"][row] == bool(drops)


def test_tables_without_cells_and_without_rules():
    none = {name: column[:0] for name, column in table().items()}
    found = judged(none, flag=Limits(min_confidence=0.5), drop=Limits())
    assert [len(column) for column in found.values()] == [0, 0, 0]
    assert found["qc_reason"].dtype.kind == "U"
    plain = judged(table(), flag=Limits(), drop=Limits())
    assert not plain["flagged"].any() and set(plain["qc_reason"]) == {""}


def test_sizes_in_um_need_a_voxel():
    cells = table()
    del cells["diameter_um"]
    with pytest.raises(ValueError, match="min_diameter_um needs the size of a voxel"):
        judged(cells, flag=Limits(min_diameter_um=3), drop=Limits())
