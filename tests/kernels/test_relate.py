"""Nuclei given to cells: against the rule written out, whole and in blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellseg_pipe.kernels import (
    compartments,
    cytoplasm_of,
    holders_of,
    match_nuclei,
    overlap_pairs,
)

LABELS = st.sampled_from([0, 0, 1, 2, 3, 70_000, 2**32 - 1])
SHARES = st.sampled_from([0.01, 0.25, 1 / 3, 0.5, 0.6, 1.0])


@st.composite
def scenes(draw):
    shape = draw(hnp.array_shapes(max_dims=3, max_side=7))
    arrays = hnp.arrays(np.uint32, shape, elements=LABELS)
    return draw(arrays), draw(arrays)


def plain_matches(nuclei, cells, min_overlap):
    """Count voxel by voxel; return nucleus -> (cell, overlap) and cell -> its nuclei."""
    of_nuclei, of_cells = {}, {}
    for nucleus in sorted(set(nuclei[nuclei > 0].tolist())):
        under = cells[nuclei == nucleus].tolist()
        counts = {cell: under.count(cell) for cell in sorted(set(under)) if cell}
        cell = max(counts, key=counts.get, default=0)  # the first, lowest one of equals
        overlap = counts.get(cell, 0) / len(under)
        belongs = cell if cell and overlap >= min_overlap else 0
        of_nuclei[nucleus] = (belongs, overlap)
        if belongs:
            of_cells.setdefault(cell, []).append((counts[cell], nucleus))
    return of_nuclei, of_cells


def blocks_of(nuclei, cells, cut):
    """Tables of two blocks."""
    return lambda: (
        overlap_pairs(np.ascontiguousarray(a), np.ascontiguousarray(b))
        for a, b in zip(np.split(nuclei, [cut]), np.split(cells, [cut]), strict=True)
    )


@given(scenes(), SHARES, st.integers(0, 7))
def test_a_nucleus_belongs_to_the_cell_that_holds_most_of_it(scene, min_overlap, cut):
    nuclei, cells = scene
    of_nuclei, of_cells = plain_matches(nuclei, cells, min_overlap)
    found = match_nuclei(holders_of(blocks_of(nuclei, cells, cut)), min_overlap=min_overlap)
    assert found.nucleus.tolist() == list(of_nuclei)
    assert found.cell_of.tolist() == [cell for cell, _ in of_nuclei.values()]
    assert found.overlap.tolist() == [overlap for _, overlap in of_nuclei.values()]
    assert found.cell.tolist() == sorted(of_cells)
    for cell, nucleus, n in zip(found.cell, found.nucleus_of, found.n_nuclei, strict=True):
        most = max(shared for shared, _ in of_cells[cell])
        assert nucleus == min(name for shared, name in of_cells[cell] if shared == most)
        assert n == len(of_cells[cell])


@given(scenes(), SHARES, st.sampled_from([1, 2]))
def test_compartments(scene, min_overlap, threads):
    nuclei, cells = scene
    of_nuclei, _ = plain_matches(nuclei, cells, min_overlap)
    matches = match_nuclei(holders_of(blocks_of(nuclei, cells, 1)), min_overlap=min_overlap)
    nucleus, cytoplasm = compartments(nuclei, cells, matches, threads=threads)
    own = np.array([of_nuclei[n][0] if n else 0 for n in nuclei.ravel().tolist()], np.uint32)
    own = own.reshape(nuclei.shape)
    np.testing.assert_array_equal(nucleus, np.where((own == cells) & (own > 0), cells, 0))
    np.testing.assert_array_equal(cytoplasm, np.where(nuclei == 0, cells, 0))
    np.testing.assert_array_equal(cytoplasm, cytoplasm_of(nuclei, cells))
    # What is neither lies under a nucleus that is another cell's or nobody's.
    rest = (cells > 0) & (nucleus == 0) & (cytoplasm == 0)
    np.testing.assert_array_equal(rest, (cells > 0) & (nuclei > 0) & (own != cells))


def test_what_is_refused():
    labels = np.array([[1, 2]], np.uint32)
    holders = holders_of(lambda: [overlap_pairs(labels, labels)])
    for share in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="a share above 0 and up to 1"):
            match_nuclei(holders, min_overlap=share)
    matches = match_nuclei(holders)
    with pytest.raises(ValueError, match="nucleus 3 is not among them"):
        compartments(np.array([[1, 3]]), labels, matches)
    with pytest.raises(ValueError, match="two views of one region"):
        compartments(labels, labels.T, matches)
