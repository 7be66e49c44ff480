"""The peers' experiment on joining tiles at its full size, by hand: pytest -s seams_iou.py."""

import pytest

from cellseg_pipe.tiles import TilePlan
from tests.golden.synthetic import label_field
from tests.segmentation.test_seams_iou import experiment, n_merged, owners_right, score_of

PLANE, VOLUME = (2002, 2002), (156, 182, 182)


@pytest.fixture(scope="module")
def plane():
    return label_field(PLANE, 5929, seed=11), TilePlan(PLANE, (1, 1), (501, 501), (48, 48))


@pytest.fixture(scope="module")
def volume():
    return label_field(VOLUME, 2268, seed=11), TilePlan(
        VOLUME, (1,) * 3, (78, 91, 91), (16, 16, 16)
    )


def report(scene, **errors):
    truth, tiles = scene
    labels, views, linked = experiment(truth, tiles, **errors)
    score = score_of(labels, truth, tiles)
    owned = owners_right(truth, views, tiles)
    merged = n_merged(labels, truth)
    print(
        errors,
        score,
        f"right {100 * score.right / score.n_seam:.2f} %, in the owners' views"
        f" {100 * owned / score.n_seam:.2f} %, merged {merged},"
        f" conflicts {linked.conflicts.iou.size}, hidden {linked.hidden.size}",
    )
    return score, owned, merged


@pytest.mark.slow
@pytest.mark.parametrize(("amplitude_px", "least"), [(0, 1), (0.7, 1), (1.5, 0.998)])
def test_bent_cells(plane, amplitude_px, least):
    score, _, _ = report(plane, amplitude_px=amplitude_px)
    assert score.right >= least * score.n_seam
    if amplitude_px < 1:
        assert score.n_found == score.n_true and score.slivers == score.extra == 0


@pytest.mark.slow
@pytest.mark.parametrize("amplitude_px", [0, 0.7])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_wrongly_cut_cells(plane, amplitude_px, seed):
    score, owned, _ = report(plane, amplitude_px=amplitude_px, share=0.1, seed=seed)
    assert score.right >= owned - 0.01 * score.n_seam


@pytest.mark.slow
@pytest.mark.parametrize("apart_px", [0, 1, 2])
def test_volumes(volume, apart_px):
    score, owned, merged = report(volume, amplitude_px=apart_px / 6**0.5)
    assert merged == 0 and score.right >= owned
    if apart_px == 0:
        assert score.right == score.n_seam and score.n_found == score.n_true
        assert score.slivers == 0
