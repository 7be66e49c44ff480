"""Makes the golden files with cellpose 3.1.1.3; run it with the python that has that package.

`PEER_PYTHON tests/golden/make_golden.py` writes the npz files beside this script. They hold
inputs and what the peer returned, never anything computed by the package under test.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import platform
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import fastremap
import numpy as np
import torch
from cellpose import dynamics, metrics, plot, utils
from scipy.ndimage import binary_fill_holes
from synthetic import label_field, network_like

HERE = Path(__file__).parent
CPU = torch.device("cpu")
N_STEPS = 200
PEER_VERSION = "3.1.1.3"
MAX_FILE_BYTES = 300_000
# Both flow k/256 and the peer's 5k/256 are exact in float32, and the quotient is exact again.
FLOW_QUANTUM = 1 / 256
LOGIT_QUANTUM = 1 / 64


def main() -> None:
    """Write all golden files."""
    found = importlib.metadata.version("cellpose")
    if found != PEER_VERSION:
        raise SystemExit(f"golden files are made with cellpose {PEER_VERSION}, found {found}.")
    torch.set_num_threads(1)
    with contextlib.redirect_stderr(io.StringIO()):
        save("flows_2d", flows_2d())
        save("flows_3d_planes", flows_3d_planes())
        save("flows_3d_diffusion", flows_3d_diffusion())
        for name, (truth, seed, noise) in scenes_2d().items():
            save(f"dynamics_2d_{name}", dynamics_2d(truth, seed=seed, noise=noise))
        save("dynamics_3d", dynamics_3d())
        save("dynamics_nearest", dynamics_nearest())
        save("holes", holes())
        save("stitch", stitch())
        save("measures", measures())
        save("colours", colours())


def save(name: str, arrays: dict[str, np.ndarray]) -> None:
    """Write one compressed file and print its size and contents."""
    path = HERE / f"{name}.npz"
    np.savez_compressed(path, **arrays)
    size_bytes = path.stat().st_size
    print(f"{path.name}: {size_bytes} bytes")
    for key, array in arrays.items():
        print(f"    {key}: {array.dtype} {list(array.shape)}")
    if size_bytes > MAX_FILE_BYTES:
        raise SystemExit(f"{path.name} has {size_bytes} bytes, at most {MAX_FILE_BYTES} wanted.")


def numbered(labels: np.ndarray) -> np.ndarray:
    """Labels renumbered 1..N by their first voxel in row-major order."""
    return fastremap.renumber(labels.copy())[0].astype(np.uint32)


# Labels to flows


def peer_flow(labels: np.ndarray) -> np.ndarray:
    """Unit flow of a 2D label image, or the sum of the three plane sets in 3D."""
    return dynamics.masks_to_flows(labels.astype(np.int64), device=CPU)


def flows_2d() -> dict[str, np.ndarray]:
    """Label images of several kinds with the peer's CPU flow, rounded to float32."""
    cells = {
        "touching": label_field((96, 88), 36, seed=1, fill=1.1),
        "gaps": with_gaps(label_field((64, 72), 24, seed=2, fill=0.8)),
        "elongated": label_field((72, 80), 16, seed=3, elongation=4.0),
        "borders": label_field((56, 48), 9, seed=4, fill=1.4),
        "tiny": tiny_cells(),
    }
    arrays = {}
    for name, labels in cells.items():
        arrays[f"{name}_labels"] = labels
        arrays[f"{name}_flow"] = peer_flow(labels).astype(np.float32)
    return arrays


def with_gaps(labels: np.ndarray) -> np.ndarray:
    """The same cells under labels 3, 10, 17, ..., some of them taken out."""
    spread = np.where(labels > 0, labels * 7 - 4, 0).astype(np.uint32)
    spread[np.isin(labels, [10, 31, 38, 94])] = 0
    return spread


def tiny_cells() -> np.ndarray:
    """Single pixels (inside, in the corner, inside another cell), lines, blocks and a ring."""
    labels = np.zeros((32, 40), np.uint32)
    labels[5, 6] = 1
    labels[0, 0] = 2
    labels[10:17, 4:11] = 3
    labels[13, 7] = 4
    labels[20, 2:14] = 5  # even: the middle of an odd line has a gradient of rounding errors
    labels[22:24, 2:4] = 6
    labels[0:9, 39] = 7
    labels[2:12, 16:26] = 8
    labels[5:9, 19:23] = 0
    labels[np.arange(15, 30), np.arange(20, 35)] = 9
    labels[24:32, 2:12] = 10
    labels[16:24, 30:38][np.tri(8, dtype=bool)[::-1]] = 11
    return labels


def flows_3d_planes() -> dict[str, np.ndarray]:
    """A 3D label image with the peer's sum of three sets of plane flows."""
    labels = label_field((16, 40, 40), 14, seed=5, fill=1.0)
    return {"labels": labels, "flow_sum": peer_flow(labels)}


def flows_3d_diffusion() -> dict[str, np.ndarray]:
    """Volumes with the true 3D diffusion, which the peer holds but does not use."""
    arrays = {}
    cells = {
        "apart": label_field((16, 36, 36), 10, seed=6, fill=0.62),
        "touching": label_field((14, 32, 32), 8, seed=6, fill=1.05),
    }
    for name, labels in cells.items():
        flow = dynamics.masks_to_flows_gpu_3d(labels.astype(np.int64), device=CPU)
        arrays[f"{name}_labels"] = labels
        arrays[f"{name}_flow"] = flow.astype(np.float32)
    return arrays


# Flow and logit to labels


def scenes_2d() -> dict[str, tuple[np.ndarray, int, float]]:
    """Labels, seed and noise of each 2D scene."""
    touching = label_field((144, 136), 50, seed=11, fill=1.0)
    elongated = label_field((120, 128), 36, seed=12, elongation=4.0)
    crowded = label_field((104, 112), 90, seed=13, fill=0.7)
    large = label_field((96, 88), 40, seed=14, fill=0.8)
    large[np.hypot(*(np.indices(large.shape) - 45.0)) < 37] = large.max() + 1
    return {
        "touching": (touching, 11, 0.1),
        "elongated": (elongated, 12, 0.1),
        "crowded": (with_dust(crowded, 13), 13, 0.3),
        "large": (numbered(large), 14, 0.1),
    }


def with_dust(labels: np.ndarray, seed: int) -> np.ndarray:
    """The labels and new cells of four to thirty pixels in the background."""
    rng = np.random.default_rng(seed)
    dusty = labels.copy()
    for height_px, width_px in rng.integers(2, 6, (30, 2)):
        corner = rng.integers(0, np.array(labels.shape) - 6)
        patch = dusty[corner[0] : corner[0] + height_px, corner[1] : corner[1] + width_px]
        patch[patch == 0] = dusty.max() + 1
    return numbered(dusty)


def dynamics_2d(truth: np.ndarray, *, seed: int, noise: float) -> dict[str, np.ndarray]:
    """Inputs and the peer's end points, masks and flow errors in 2D."""
    flow, logit = network_like(
        spoiled(peer_flow(truth), truth), truth, seed=seed, noise=noise, edge_blur_px=1.0
    )
    flow, logit = quantised(flow, logit)
    foreground = logit > 0
    end_points = follow(flow, foreground)
    unlimited = masks_at(end_points, foreground, 1.0)
    arrays = {"truth": truth, "flow": flow.astype(np.float16), "logit": logit.astype(np.float16)}
    arrays["end_points"] = end_points
    arrays["masks_unlimited"] = unlimited
    arrays["masks_fraction_40"] = masks_at(end_points, foreground, 0.4)
    arrays["masks_fraction_02"] = masks_at(end_points, foreground, 0.02)
    arrays["flow_errors"] = errors_of(unlimited, flow)
    arrays["truth_flow_errors"] = errors_of(truth, flow)
    for key, options in {
        "computed_default": {},
        "computed_no_flow_check": {"flow_threshold": None},
        "computed_logit_minus_1": {"cellprob_threshold": -1.0},
        "computed_logit_plus_1": {"cellprob_threshold": 1.0},
        "computed_any_size": {"min_size": -1},
        "computed_min_60": {"min_size": 60},
    }.items():
        arrays[key] = computed(flow, logit, **options)
    return arrays


def dynamics_3d() -> dict[str, np.ndarray]:
    """Inputs and the peer's end points and masks in 3D.

    The flow is half the peer's sum of plane flows, so that its length is about one.
    """
    truth = label_field((16, 36, 34), 11, seed=21, fill=1.0)
    flow, logit = network_like(peer_flow(truth) / 2, truth, seed=21, noise=0.2, edge_blur_px=1.0)
    flow, logit = quantised(flow, logit)
    foreground = logit > 0
    end_points = follow(flow, foreground)
    return {
        "truth": truth,
        "flow": flow.astype(np.float16),
        "logit": logit.astype(np.float16),
        "end_points": end_points,
        "masks_unlimited": masks_at(end_points, foreground, 1.0),
        "masks_fraction_40": masks_at(end_points, foreground, 0.4),
        "masks_fraction_05": masks_at(end_points, foreground, 0.05),
        "computed_default": computed(flow, logit, do_3D=True),
        "computed_any_size": computed(flow, logit, do_3D=True, min_size=-1),
    }


def dynamics_nearest() -> dict[str, np.ndarray]:
    """The peer's end points and masks without interpolation, of scenes that are saved already.

    Flows are multiples of 1/256, so all positions are too and float32 sums of them are exact.
    """
    arrays = {}
    for name in ("2d_touching", "2d_crowded", "3d"):
        scene = np.load(HERE / f"dynamics_{name}.npz")
        flow, logit = scene["flow"].astype(np.float32), scene["logit"].astype(np.float32)
        foreground = logit > 0
        end_points = follow(flow, foreground, interp=False)
        units = end_points / FLOW_QUANTUM
        if not np.array_equal(units, units.astype(np.uint16)):
            raise AssertionError("an end point is no multiple of 1/256 px.")
        arrays[f"{name}_end_points"] = units.astype(np.uint16)
        arrays[f"{name}_masks"] = masks_at(end_points, foreground, 1.0)
    return arrays


def spoiled(flow: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Flow turned by 55 degrees in every fifth cell, 25 degrees in every seventh."""
    angles = np.zeros(int(labels.max()) + 1)
    angles[7::7] = np.deg2rad(25)
    angles[5::5] = np.deg2rad(55)
    cosine, sine = np.cos(angles)[labels], np.sin(angles)[labels]
    return np.stack([flow[0] * cosine - flow[1] * sine, flow[0] * sine + flow[1] * cosine])


def quantised(flow: np.ndarray, logit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rounded so that float16 holds them exactly and the files stay small."""
    rounded = np.round(flow / FLOW_QUANTUM) * FLOW_QUANTUM
    coarse = np.round(logit / LOGIT_QUANTUM) * LOGIT_QUANTUM
    for array in (rounded, coarse):
        if not np.array_equal(array, array.astype(np.float16).astype(array.dtype)):
            raise AssertionError("a quantised value does not fit float16.")
    return rounded.astype(np.float32), coarse.astype(np.float32)


def follow(flow: np.ndarray, foreground: np.ndarray, *, interp: bool = True) -> np.ndarray:
    """The peer's end points [ndim, n], foreground pixels in row-major order."""
    peer_steps = (5 * flow) * foreground / 5.0
    if not np.array_equal(peer_steps, flow * foreground):
        raise AssertionError("the peer's steps differ from the flow: quantise the flow.")
    end_points = dynamics.follow_flows(
        peer_steps, inds=np.nonzero(foreground), niter=N_STEPS, interp=interp, device=CPU
    )
    return np.asarray(end_points, dtype=np.float32)


def masks_at(end_points, foreground, max_size_fraction) -> np.ndarray:
    """The peer's masks from end points."""
    return untied(
        lambda: dynamics.get_masks_torch(
            torch.from_numpy(end_points.copy()).int(),
            np.nonzero(foreground),
            foreground.shape,
            max_size_fraction=max_size_fraction,
        )
    ).astype(np.uint32)


def untied(compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Compute with both orders of seeds of equal count, refused if the order shows.

    The peer sorts with `Tensor.argsort`, whose order of equal values is not fixed.
    """
    orders = [
        lambda counts: torch.sort(counts, stable=True).indices,
        lambda counts: len(counts) - 1 - torch.sort(counts.flip(0), stable=True).indices,
    ]
    outcomes = []
    for order in orders:
        with mock.patch.object(torch.Tensor, "argsort", order):
            outcomes.append(compute())
    if not np.array_equal(*outcomes):
        raise AssertionError("seeds of equal count decide a pixel: take another seed.")
    return outcomes[0]


def errors_of(labels: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """The peer's mean squared flow error of labels 1..N, kept away from the threshold."""
    errors, _ = metrics.flow_error(labels.astype(np.int64), 5 * flow, device=CPU)
    if np.abs(errors - 0.4).min() < 1e-4:
        raise AssertionError("a flow error is too near to .4: take another seed.")
    return errors


def computed(flow, logit, *, min_size=15, **options) -> np.ndarray:
    """The peer's whole way from network output to masks, with its renumbering fault avoided.

    The peer removes wrong small cells if the flow check has left gaps in the numbering, so the
    masks are renumbered between its two steps, as its version 4 does.
    """

    def masks_with(**changes):
        settings = {"niter": N_STEPS, "min_size": -1, "device": CPU} | options | changes
        return untied(lambda: dynamics.compute_masks(5 * flow, logit, **settings))

    if len(flow) == 2:
        errors_of(masks_with(flow_threshold=None), flow)
    masks = masks_with()
    direct = utils.fill_holes_and_remove_small_masks(masks.copy(), min_size=min_size)
    filled = utils.fill_holes_and_remove_small_masks(numbered(masks), min_size=min_size)
    filled = numbered(filled)
    if not np.array_equal(numbered(direct), filled):
        print(f"    (fault avoided: min_size={min_size} {options})")
    return filled


# Holes, stacks, measures, colours


def holes() -> dict[str, np.ndarray]:
    """Fields with holes and small cells, before and after the peer's clean-up."""
    cases = {
        "punched": (punched(label_field((96, 104), 30, seed=31), 31), 15),
        "punched_any_size": (punched(label_field((48, 48), 9, seed=32), 32), -1),
        "rings": (rings((1, 2, 3)), 15),
        "rings_inner_first": (rings((3, 2, 1)), 15),
        "voids": (voids(), 15),
        "punched_3d": (punched(label_field((16, 40, 36), 9, seed=33), 33), 40),
    }
    arrays = {}
    for name, (labels, min_size) in cases.items():
        cleaned = utils.fill_holes_and_remove_small_masks(labels.copy(), min_size=min_size)
        cleaned = numbered(cleaned)
        refuse_wrong_clean_up(labels, cleaned, min_size)
        arrays[f"{name}_labels"] = labels
        arrays[f"{name}_min_px"] = np.array(min_size)
        arrays[f"{name}_cleaned"] = cleaned
    return arrays


def refuse_wrong_clean_up(labels, cleaned, min_size) -> None:
    """Stop if the peer's faults show: compare with scipy's hole filling, cell by cell."""
    expected = labels.copy()
    expected[np.bincount(labels.ravel())[labels] < min_size] = 0
    for number in np.unique(expected[expected > 0]):
        expected[binary_fill_holes(expected == number)] = number
    sizes = np.bincount(expected.ravel())
    expected[sizes[expected] < min_size] = 0
    if not np.array_equal(numbered(expected), cleaned):
        raise AssertionError("the peer's clean-up is wrong here: take another case.")


def punched(labels: np.ndarray, seed: int) -> np.ndarray:
    """Cells with single voxels and small blocks taken out, and one to forty voxel cells."""
    rng = np.random.default_rng(seed)
    damaged = labels.copy()
    damaged[rng.random(labels.shape) < 0.03] = 0
    corners = rng.integers(0, np.array(labels.shape) - 4, (12, labels.ndim))
    for k, corner in enumerate(corners):
        block = tuple(slice(c, c + 2 + k % 3) for c in corner)
        damaged[block] = 0 if k % 3 else labels.max() + 1 + k
    return numbered(damaged)


def rings(order: tuple[int, int, int]) -> np.ndarray:
    """Three nested rings under the given labels, outermost first, beside five other shapes."""
    distance = np.hypot(*(np.indices((40, 40)) - 19.5))
    labels = np.zeros((40, 88), np.uint32)
    for label, (inner, outer) in zip(order, [(15, 19), (8, 12), (0, 5)], strict=True):
        labels[:, :40][(distance >= inner) & (distance < outer)] = label
    diamond = np.abs(np.indices((15, 15)) - 7).sum(0)
    labels[2:17, 44:59][diamond == 7] = 4
    open_ring = np.ones((12, 12), bool)
    open_ring[3:9, 3:9] = False
    open_ring[5:7, 9:] = False
    labels[20:32, 44:56][open_ring] = 5
    labels[4:14, 64:84] = 6
    labels[7:11, 67:71] = 7
    labels[7:11, 76:81] = 0
    labels[20:34, 64:74] = 8
    labels[22:32, 74:84] = 9
    labels[25:28, 70:78] = 0
    return labels


def voids() -> np.ndarray:
    """A hollow ball with a ball in it, a block with a tunnel, a box without lid, and dust."""
    labels = np.zeros((24, 40, 44), np.uint32)
    distance = np.sqrt(((np.indices((20, 20, 20)) - 9.5) ** 2).sum(0))
    ball = labels[2:22, 0:20, 0:20]
    ball[(distance >= 6) & (distance < 9.5)] = 1
    ball[distance < 3] = 2
    labels[4:16, 24:36, 4:16] = 3
    labels[4:16, 28:32, 8:12] = 0
    labels[4:20, 4:16, 26:40] = 4
    labels[4:18, 6:14, 28:38] = 0
    labels[6:18, 22:36, 24:40] = 5
    labels[8:16, 26:32, 28:36] = 0
    labels[10, 28, 30] = 6
    labels[22:24, 38:40, 40:43] = 7
    return labels


def stitch() -> dict[str, np.ndarray]:
    """Stacks of separately numbered planes, and the peer's stitching where it is right."""
    cases = {
        "drift": (drifting_stack(8, seed=41), 0.25),
        "drift_half": (drifting_stack(8, seed=41), 0.5),
        "volume": (numbered_planes(label_field((20, 72, 80), 40, seed=42)), 0.25),
        "first_empty": (with_empty_planes(drifting_stack(7, seed=43), (0, 1)), 0.25),
        "gap": (with_empty_planes(drifting_stack(7, seed=44), (3,)), 0.25),
        "exact": (exact_overlaps(), 0.25),
        "exact_half": (exact_overlaps(), 0.5),
        "tie": (tied_halves(), 0.25),
    }
    arrays = {}
    for name, (planes, threshold) in cases.items():
        arrays[f"{name}_planes"] = planes
        arrays[f"{name}_threshold"] = np.array(threshold)
        stitched = utils.stitch3D(planes.astype(np.int32), stitch_threshold=threshold)
        refuse_wrong_stitch(planes, stitched)
        arrays[f"{name}_stitched"] = stitched.astype(np.uint32)
    return arrays


def numbered_planes(volume: np.ndarray) -> np.ndarray:
    """Every plane renumbered 1..N by itself."""
    return np.stack([numbered(plane) for plane in volume])


def drifting_stack(n_planes: int, *, seed: int) -> np.ndarray:
    """One field moved a little from plane to plane; some cells vanish, split or are new."""
    rng = np.random.default_rng(seed)
    field = label_field((72 + n_planes * 3, 80), 30, seed=seed)
    other = label_field(field.shape, 30, seed=seed + 100)
    planes = []
    for z in range(n_planes):
        plane = np.roll(field, rng.integers(-2, 3), axis=1)[z * 3 : z * 3 + 72].copy()
        plane[np.isin(plane, rng.integers(1, 30, 4))] = 0
        plane[(plane % 9 == 4) & (np.arange(80) // 4 % 5 == z % 5)] += 200
        fresh = (plane == 0) & np.isin(other[:72], rng.integers(1, 30, 6))
        plane[fresh] = other[:72][fresh] + 400
        planes.append(plane)
    return numbered_planes(np.stack(planes))


def with_empty_planes(planes: np.ndarray, empty: tuple[int, ...]) -> np.ndarray:
    """The stack with the named planes empty."""
    planes = planes.copy()
    planes[list(empty)] = 0
    return planes


def exact_overlaps() -> np.ndarray:
    """Overlaps of exactly one quarter and one half, one below, and two old cells under one."""
    planes = np.zeros((2, 32, 32), np.uint32)
    planes[0, 1, 0:5], planes[1, 1, 3:8] = 1, 1  # IoU 2/8
    planes[0, 4, 0:6], planes[1, 4, 2:8] = 2, 2  # IoU 4/8
    planes[0, 7, 0:6], planes[1, 7, 4:10] = 3, 3  # IoU 2/10
    planes[0, 10, 0:3], planes[0, 10, 3:10], planes[1, 10, 0:10] = 4, 5, 4  # IoU 3/10, 7/10
    planes[0, 13, 0:9], planes[1, 13, 0:4], planes[1, 13, 4:9] = 6, 5, 6  # IoU 4/9, 5/9
    planes[1, 20:24, 20:24] = 7
    return planes


def tied_halves() -> np.ndarray:
    """One cell under two of equal overlap, both of which the peer gives the old label."""
    planes = np.zeros((2, 12, 12), np.uint32)
    planes[0, 1, 0:8] = 1
    planes[1, 1, 0:4], planes[1, 1, 4:8] = 1, 2
    planes[:, 6:9, 6:9] = 3
    return np.stack([numbered(plane) for plane in planes])


def refuse_wrong_stitch(planes: np.ndarray, stitched: np.ndarray) -> None:
    """Stop if a label came back after a plane without it, or planes were not just renamed."""
    seen, before = set(), set()
    for plane, renamed in zip(planes, stitched, strict=True):
        pairs = np.unique(np.stack([plane.ravel(), renamed.ravel()], 1), axis=0)
        now = set(renamed[renamed > 0].tolist())
        if len(pairs) != len(np.unique(plane)) or (now - before) & seen:
            raise AssertionError("the peer's stitching is wrong here: take another case.")
        seen, before = seen | now, now


def measures() -> dict[str, np.ndarray]:
    """Diameters, areas, outlines, and cells cut by the border, in 2D and 3D."""
    cells = {
        "touching": label_field((88, 96), 24, seed=51),
        "elongated": label_field((64, 96), 14, seed=52, elongation=4.0),
        "tiny": tiny_cells(),
        "punched": punched(label_field((64, 64), 9, seed=53), 53),
    }
    arrays = {}
    for name, labels in cells.items():
        median_px, root_areas = utils.diameters(labels)
        arrays[f"{name}_labels"] = labels
        arrays[f"{name}_diameter_px"] = np.array(median_px)
        arrays[f"{name}_root_areas"] = root_areas
        arrays[f"{name}_outlines"] = utils.masks_to_outlines(labels.astype(np.int32))
        arrays[f"{name}_inside"] = utils.remove_edge_masks(labels.copy()).astype(np.uint32)
    return arrays


def colours() -> dict[str, np.ndarray]:
    """A flow and the peer's picture of it."""
    labels = label_field((40, 48), 9, seed=61)
    flow, _ = quantised(*network_like(peer_flow(labels), labels, seed=61))
    return {"flow": flow.astype(np.float16), "rgb": plot.dx_to_circ(5 * flow)}


if __name__ == "__main__":
    main()
    print(f"python {platform.python_version()}, numpy {np.__version__}, torch {torch.__version__}")
