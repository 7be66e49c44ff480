"""Tables of nuclei and cells in memory: against scikit-image and sums in Python."""

import numpy as np
import pytest
from skimage.measure import regionprops_table

import cellseg_pipe as cs

# Two nuclei in cell 4, one across cells 4 and 9, one outside; cell 2 without.
NUCLEI = np.array(
    [
        [1, 1, 0, 0, 0, 0, 0, 8],
        [1, 0, 0, 3, 3, 3, 0, 0],
        [0, 0, 0, 3, 3, 3, 0, 0],
        [5, 5, 0, 0, 0, 0, 0, 0],
    ],
    np.uint32,
)
CELLS = np.array(
    [
        [4, 4, 4, 4, 9, 9, 0, 0],
        [4, 4, 4, 4, 9, 9, 9, 0],
        [4, 4, 4, 4, 9, 9, 0, 2],
        [4, 4, 4, 4, 0, 0, 2, 2],
    ],
    np.uint32,
)
IMAGE = np.arange(64, dtype=np.uint16).reshape(2, 4, 8) ** 2


def test_who_belongs_to_whom():
    found = cs.relate(NUCLEI, CELLS, image=IMAGE, channel_names=("DAPI", "actin"))
    assert found.nuclei["label"].tolist() == [1, 3, 5, 8]
    assert found.nuclei["cell_id"].tolist() == [4, 9, 4, 0]
    assert found.nuclei["cell_overlap"].tolist() == [1, 4 / 6, 1, 0]
    cells = found.cells
    assert cells["label"].tolist() == [2, 4, 9]
    assert cells["nucleus_id"].tolist() == [0, 1, 3]
    assert cells["n_nuclei"].tolist() == [0, 2, 1]
    assert cells["no_nucleus"].tolist() == [True, False, False]
    assert cells["nucleus_area_px"].tolist() == [0, 5, 4]
    # Two pixels of cell 4 lie under the nucleus of cell 9: they are neither.
    assert cells["cytoplasm_area_px"].tolist() == [3, 9, 3]
    assert cells["nucleus_share"].tolist() == [0, 5 / 16, 4 / 7]
    at = (CELLS == 4) & np.isin(NUCLEI, [1, 5])
    assert cells["mean_nucleus_actin"][1] == IMAGE[1][at].mean()
    assert np.isnan(cells["mean_nucleus_DAPI"][0]) and not np.isnan(cells["mean_cytoplasm_DAPI"][0])
    np.testing.assert_array_equal(found.cytoplasm, np.where(NUCLEI == 0, CELLS, 0))


def test_more_overlap_is_asked_for():
    found = cs.relate(NUCLEI, CELLS, min_overlap=0.7)
    assert found.nuclei["cell_id"].tolist() == [4, 0, 4, 0]
    assert found.nuclei["cell_overlap"].tolist() == [1, 4 / 6, 1, 0]
    assert found.cells["no_nucleus"].tolist() == [True, False, True]
    assert found.cells["nucleus_area_px"].tolist() == [0, 5, 0]
    assert [name for name in found.cells if name.startswith("mean")] == []


@pytest.mark.parametrize("shape", [(90, 110), (12, 40, 50)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_means_are_those_of_scikit_image(shape, dtype):
    rng = np.random.default_rng(0)
    nuclei = np.zeros(shape, np.uint32)
    nuclei[tuple(rng.integers(0, n, 30) for n in shape)] = np.arange(30, 0, -1)
    nuclei = cs.expand_labels(nuclei, 2)
    cells = cs.expand_labels(nuclei, 3, spacing=(1.5, 1, 1)[-len(shape) :])
    image = rng.integers(0, 250, (1, *shape)).astype(dtype)
    found = cs.relate(nuclei, cells, image=image)
    table = found.cells
    # Grown from nuclei: identity.
    np.testing.assert_array_equal(table["nucleus_id"], table["label"])
    np.testing.assert_array_equal(found.nuclei["cell_id"], found.nuclei["label"])
    assert (found.nuclei["cell_overlap"] == 1).all() and (table["n_nuclei"] == 1).all()
    size = "area" if len(shape) == 2 else "volume"
    for kind, labels in (("nucleus", nuclei), ("cytoplasm", found.cytoplasm)):
        props = regionprops_table(labels, image[0], properties=("label", "area", "intensity_mean"))
        rows = np.isin(table["label"], props["label"])
        np.testing.assert_array_equal(table[f"{kind}_{size}_px"][rows], props["area"])
        np.testing.assert_allclose(
            table[f"mean_{kind}_0"][rows], props["intensity_mean"], rtol=1e-6
        )
        assert not table[f"{kind}_{size}_px"][~rows].any()


@pytest.mark.parametrize("blank", ["nuclei", "cells", "both"])
def test_nothing_on_a_side(blank):
    nuclei = NUCLEI if blank == "cells" else np.zeros_like(NUCLEI)
    cells = CELLS if blank == "nuclei" else np.zeros_like(CELLS)
    found = cs.relate(nuclei, cells, image=IMAGE)
    assert (found.nuclei["cell_id"] == 0).all() and found.cells["no_nucleus"].all()
    assert len(found.nuclei["label"]) == (4 if blank == "cells" else 0)
    assert len(found.cells["label"]) == (3 if blank == "nuclei" else 0)


def test_names_are_as_many_as_channels():
    with pytest.raises(ValueError, match="a name for each of 2 channels"):
        cs.relate(NUCLEI, CELLS, image=IMAGE, channel_names=("DAPI",))
