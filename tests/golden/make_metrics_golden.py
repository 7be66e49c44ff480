"""Makes metrics.npz and metrics.json with other programs, never with the code under test.

    CELLPOSE_PYTHON tests/golden/make_metrics_golden.py cellpose
    OTHERS_PYTHON tests/golden/make_metrics_golden.py stardist ctc outlines

`cellpose` needs cellpose 3.1.1.3; the others need, in an environment of their own,
`pip install --no-deps stardist==0.9.2 csbdeep==0.8.2 py-ctcmetrics==1.3.3` and
`pip install numpy scipy numba tqdm six packaging scikit-image scikit-learn pandas tifffile`.
Labels have no gaps here: with gaps the peer counts labels that do not exist. A section that is
run replaces its own part of metrics.json.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
THRESHOLDS = [0.1, 0.3, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
TOLERANCES_PX = [0.0, 1.0, 2.5]


def main() -> None:
    images = make_images()
    np.savez_compressed(HERE / "metrics.npz", **images)
    path = HERE / "metrics.json"
    golden = json.loads(path.read_text()) if path.exists() else {}
    for section in sys.argv[1:]:
        golden[section] = {
            case: SECTIONS[section](images[f"{case}_pred"], images[f"{case}_true"])
            for case in sorted({name.rpartition("_")[0] for name in images})
        }
        package = {"ctc": "py-ctcmetrics", "outlines": "scikit-image"}.get(section, section)
        golden[section]["version"] = f"{package} {importlib.metadata.version(package)}"
    path.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")


def make_images() -> dict[str, np.ndarray]:
    """Return pairs of label images: cells that are moved, cut, joined, lost and made up."""
    cases = {
        "close_2d": ((120, 130), 60, 1, 0.05),
        "rough_2d": ((120, 130), 60, 3, 0.2),
        "dense_2d": ((90, 90), 150, 2, 0.3),
        "shifted_2d": ((100, 100), 40, 6, 0.0),
        "rough_3d": ((20, 40, 44), 50, 1, 0.2),
    }
    images = {}
    for seed, (case, (shape, n_cells, shift_px, share)) in enumerate(cases.items()):
        rng = np.random.default_rng(seed)
        true = nearest_cell(rng, shape, n_cells)
        pred = np.roll(true, shift_px, axis=tuple(range(len(shape))))
        images[f"{case}_true"] = renumbered(true)
        images[f"{case}_pred"] = renumbered(disturbed(rng, pred, share))
    return images


def nearest_cell(rng: np.random.Generator, shape: tuple[int, ...], n_cells: int) -> np.ndarray:
    """Give each voxel the nearest of random centres, or background where that is far."""
    centres = rng.uniform(0, shape, (n_cells, len(shape)))
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    distance = np.linalg.norm(grid[..., None, :] - centres, axis=-1)
    radius = 0.6 * (np.prod(shape) / n_cells) ** (1 / len(shape))
    return np.where(distance.min(-1) < radius, distance.argmin(-1) + 1, 0)


def disturbed(rng: np.random.Generator, labels: np.ndarray, share: float) -> np.ndarray:
    """Join, cut and lose a share of the objects, and add as many small ones."""
    result = labels.copy()
    objects = np.unique(labels[labels > 0])
    for label in rng.permutation(objects)[: int(share * objects.size)]:
        where = np.argwhere(result == label)
        if where.size == 0:
            continue
        action = rng.integers(4)
        if action == 0:
            result[result == label] = rng.choice(objects)
        elif action == 1:
            half = where[where[:, -1] >= np.median(where[:, -1])]
            result[tuple(half.T)] = result.max() + 1
        elif action == 2:
            result[result == label] = 0
        else:
            corner = rng.integers(0, np.array(labels.shape) - 4)
            result[tuple(slice(c, c + 4) for c in corner)] = result.max() + 1
    return result


def renumbered(labels: np.ndarray) -> np.ndarray:
    ids, positions = np.unique(labels, return_inverse=True)
    first = 0 if ids[0] == 0 else 1
    return (positions.reshape(labels.shape) + first).astype(np.uint16)


def of_cellpose(pred: np.ndarray, true: np.ndarray) -> dict[str, object]:
    from cellpose import metrics

    pred, true = pred.astype(np.int32), true.astype(np.int32)
    ap, tp, fp, fn = metrics.average_precision(true, pred, threshold=THRESHOLDS)
    return {
        "ap": [float(a) for a in ap],
        "tp": [int(n) for n in tp],
        "fp": [int(n) for n in fp],
        "fn": [int(n) for n in fn],
        "aji": float(metrics.aggregated_jaccard_index([true], [pred])[0]),
    }


def of_stardist(pred: np.ndarray, true: np.ndarray) -> dict[str, object]:
    from stardist.matching import matching

    names = ("tp", "fp", "fn", "precision", "recall", "accuracy", "f1")
    found = matching(true, pred, thresh=THRESHOLDS)
    # Panoptic quality asks for more than 0.5, stardist (in float32) for its threshold or more.
    above_half = matching(true, pred, thresh=float(np.nextafter(np.float32(0.5), np.float32(1))))
    return {
        **{name: [float(getattr(one, name)) for one in found] for name in names},
        "panoptic_quality": float(above_half.panoptic_quality),
        "mean_matched_score": float(above_half.mean_matched_score),
    }


def of_ctc(pred: np.ndarray, true: np.ndarray) -> dict[str, float]:
    import tifffile
    from ctc_metrics.metrics import det, seg
    from ctc_metrics.utils import representations

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        for name, labels in (("true.tif", true), ("pred.tif", pred)):
            tifffile.imwrite(Path(folder, name), labels)
        found = representations.match(str(Path(folder, "true.tif")), str(Path(folder, "pred.tif")))
    labels_true, labels_pred, mapped_true, mapped_pred, iou = found
    tests = representations.create_detection_test_matrix(
        len(labels_pred), len(labels_true), *([part] for part in found[:4])
    )
    # The operations on vertices, as count_acyclic_graph_correction_operations counts them; that
    # function itself wants tracks.
    per_true, per_pred = np.asarray(tests.sum(axis=0)), np.asarray(tests.sum(axis=1))
    operations = {
        "NS": int((per_true == 1).sum() - (per_pred >= 1).sum()),
        "FN": int((per_true == 0).sum()),
        "FP": int((per_pred == 0).sum()),
    }
    return {
        "seg": seg([labels_true], [iou]),
        "det": det(num_vertices=len(labels_true), **operations),
        **operations,
    }


def of_outlines(pred: np.ndarray, true: np.ndarray) -> list[dict[str, float]]:
    """Count outline voxels within tolerance by skimage's outlines and scipy's distances."""
    from scipy.ndimage import distance_transform_edt
    from skimage.segmentation import find_boundaries

    edges = [find_boundaries(labels, mode="inner", connectivity=1) for labels in (pred, true)]
    away = [distance_transform_edt(~edge) for edge in edges]
    return [
        {
            "tolerance_px": tolerance,
            "pred": int(edges[0].sum()),
            "pred_near": int((edges[0] & (away[1] <= tolerance)).sum()),
            "true": int(edges[1].sum()),
            "true_near": int((edges[1] & (away[0] <= tolerance)).sum()),
        }
        for tolerance in TOLERANCES_PX
    ]


SECTIONS = {
    "cellpose": of_cellpose,
    "stardist": of_stardist,
    "ctc": of_ctc,
    "outlines": of_outlines,
}

if __name__ == "__main__":
    main()
