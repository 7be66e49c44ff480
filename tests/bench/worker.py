"""Runs one task on one side and prints one JSON line: time, memory, sizes.

`PYTHON tests/bench/worker.py SIDE TASK INPUT.npz OUTPUT.npz --threads 2 --repeats 3`

SIDE is `peer` (under the python of an environment with cellpose), `exact` or `fast` (under ours).
The input holds, by task (unit flow; the peer's five times that is made here, untimed):

| task | reads | writes |
|---|---|---|
| labels_to_flows, labels_to_flows_3d | labels | flow |
| follow | flow, logit | end_points |
| compute_masks, compute_masks_3d | flow, logit | labels |
| flow_error | labels, flow | errors |
| stitch3d | planes, threshold (or .25) | labels |
| fill_holes | labels, min_px (or 15) | labels |
| network | image, net.* | output |
| segment | image, net.* | labels |

3D flow is passed on as it is: the peer's network would give the sum of three plane sets.
Before the first timed run the task runs once on a tiny input, so that no compiling is timed.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import networks
import numpy as np

N_STEPS = 200
MIN_SIZE_PX = 15
STITCH_THRESHOLD = 0.25
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Task:
    """What a task does: `prepare` is not timed, `compute` is."""

    prepare: Callable[[Arrays], dict[str, Any]]
    compute: Callable[..., np.ndarray]
    output: str
    tiny_shape: tuple[int, ...] = (40, 48)


@dataclass
class Measurements:
    """Numbers of each timed run, and how the memory was measured."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_rss_growth_bytes: list[int] = field(default_factory=list)
    peak_rss_method: str = ""


def main() -> None:
    """Run the task named on the command line."""
    options = command_line()
    limit_threads(options.threads)
    tasks = peer_tasks() if options.side == "peer" else our_tasks(options.side, options.threads)
    task = tasks[options.task]
    with np.load(options.input) as archive:
        arrays = dict(archive)
    few = networks.small(arrays) if "image" in arrays else tiny_arrays(task.tiny_shape)
    for _ in range(2):
        task.compute(**task.prepare(few))
    output, measured = measure(task, arrays, options.repeats)
    np.savez(options.output, **{task.output: output})
    report = {
        "side": options.side,
        "task": options.task,
        "seconds": measured.seconds,
        "cpu_seconds": measured.cpu_seconds,
        "peak_rss_growth_bytes": max(measured.peak_rss_growth_bytes),
        "peak_rss_growth_bytes_each": measured.peak_rss_growth_bytes,
        "peak_rss_method": measured.peak_rss_method,
        "shape": list(main_array(arrays).shape),
        "n": count(arrays, output, task.output),
        "threads": options.threads,
        "versions": versions(options.side),
    }
    print(json.dumps(report), flush=True)


def command_line() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("side", choices=("peer", "exact", "fast"))
    parser.add_argument("task", choices=TASK_NAMES)
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def limit_threads(n_threads: int) -> None:
    """Set the number of threads of every library; the variables must precede the imports."""
    for library in ("OMP", "NUMBA", "MKL", "OPENBLAS"):
        os.environ[f"{library}_NUM_THREADS"] = str(n_threads)


TASK_NAMES = (
    "labels_to_flows",
    "labels_to_flows_3d",
    "follow",
    "compute_masks",
    "compute_masks_3d",
    "flow_error",
    "stitch3d",
    "fill_holes",
    "network",
    "segment",
)


def peer_tasks() -> dict[str, Task]:
    """Every task of the peer."""
    import cv2
    import torch
    from cellpose import dynamics, metrics, utils

    cpu = torch.device("cpu")
    n_threads = int(os.environ["OMP_NUM_THREADS"])
    torch.set_num_threads(n_threads)
    cv2.setNumThreads(n_threads)

    def to_flows(labels):
        return dynamics.masks_to_flows(labels, device=cpu)

    def follow(steps, pixels):
        return np.asarray(dynamics.follow_flows(steps, inds=pixels, niter=N_STEPS, device=cpu))

    def to_masks(flow, logit):
        return dynamics.resize_and_compute_masks(
            flow, logit, niter=N_STEPS, min_size=MIN_SIZE_PX, do_3D=flow.ndim == 4, device=cpu
        )

    def flow_errors(labels, flow):
        return metrics.flow_error(labels, flow, device=cpu)[0]

    def stitched(planes, threshold):
        return utils.stitch3D(planes, stitch_threshold=threshold)

    def filled(labels, min_px):
        return utils.fill_holes_and_remove_small_masks(labels, min_size=min_px)

    volume = (12, 24, 28)
    return {
        "labels_to_flows": Task(take_labels, to_flows, "flow"),
        "labels_to_flows_3d": Task(take_labels, to_flows, "flow", volume),
        "follow": Task(take_steps, follow, "end_points"),
        "compute_masks": Task(take_network, to_masks, "labels"),
        "compute_masks_3d": Task(take_network, to_masks, "labels", volume),
        "flow_error": Task(take_both, flow_errors, "errors"),
        "stitch3d": Task(take_planes, stitched, "labels", volume),
        "fill_holes": Task(take_holes, filled, "labels"),
        "network": Task(networks.peer_network, networks.run, "output"),
        "segment": Task(networks.peer_segment, networks.run, "labels"),
    }


def our_tasks(mode: str, n_threads: int) -> dict[str, Task]:
    """Every task of ours, with particles that follow in this mode."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from cellseg_pipe import kernels

    run = {"threads": n_threads}

    def to_flows(labels):
        return kernels.flows_from_labels(labels, **run)

    def follow(flow, logit):
        return kernels.follow_flows(flow, logit > 0, mode=mode, **run).position.T

    def to_masks(flow, logit):
        # The peer has no flow check in 3D: without it both do the same.
        threshold = 0.4 if logit.ndim == 2 else None
        return kernels.masks_from_flows(flow, logit, mode=mode, flow_threshold=threshold, **run)

    def flow_errors(labels, flow):
        return kernels.flow_quality(labels, flow, **run).error

    def stitched(planes, threshold=STITCH_THRESHOLD):
        return kernels.stitch_planes(planes, float(threshold), **run)

    def filled(labels, min_px=MIN_SIZE_PX):
        small = kernels.remove_small(labels, min_size_px=int(min_px), **run)
        return kernels.fill_holes(small, **run)

    def take(*names):
        return lambda arrays: {name: arrays[name] for name in names if name in arrays}

    volume = (12, 24, 28)
    return {
        "labels_to_flows": Task(take("labels"), to_flows, "flow"),
        "labels_to_flows_3d": Task(take("labels"), to_flows, "flow", volume),
        "follow": Task(take("flow", "logit"), follow, "end_points"),
        "compute_masks": Task(take("flow", "logit"), to_masks, "labels"),
        "compute_masks_3d": Task(take("flow", "logit"), to_masks, "labels", volume),
        "flow_error": Task(take("labels", "flow"), flow_errors, "errors"),
        "stitch3d": Task(take("planes", "threshold"), stitched, "labels", volume),
        "fill_holes": Task(take("labels", "min_px"), filled, "labels"),
        "network": Task(networks.our_network(mode=mode, **run), networks.run, "output"),
        "segment": Task(networks.our_segment(mode=mode, **run), networks.run, "labels"),
    }


# Fresh copies: the peer writes into its arguments.


def take_labels(arrays: Arrays) -> dict[str, Any]:
    """Labels as the peer's own training code passes them."""
    return {"labels": arrays["labels"].astype(np.int64)}


def take_network(arrays: Arrays) -> dict[str, Any]:
    """Flow in the peer's units, and the logit."""
    return {"flow": 5 * arrays["flow"].astype(np.float32), "logit": arrays["logit"].copy()}


def take_steps(arrays: Arrays) -> dict[str, Any]:
    """Masked steps in pixels, and the foreground."""
    foreground = arrays["logit"] > 0
    steps = arrays["flow"].astype(np.float32) * foreground
    return {"steps": steps, "pixels": np.nonzero(foreground)}


def take_both(arrays: Arrays) -> dict[str, Any]:
    """Labels, and flow in the peer's units."""
    return take_labels(arrays) | {"flow": 5 * arrays["flow"].astype(np.float32)}


def take_planes(arrays: Arrays) -> dict[str, Any]:
    """Planes in a type wide enough for all new labels."""
    threshold = arrays.get("threshold", STITCH_THRESHOLD)
    return {"planes": arrays["planes"].astype(np.int32), "threshold": float(threshold)}


def take_holes(arrays: Arrays) -> dict[str, Any]:
    """Labels, and the smallest size to keep."""
    return {
        "labels": arrays["labels"].astype(np.uint32),
        "min_px": int(arrays.get("min_px", MIN_SIZE_PX)),
    }


def tiny_arrays(shape: tuple[int, ...]) -> Arrays:
    """Every input array of a few cells, for the warm-up."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
    from synthetic import centre_flow, label_field, network_like

    labels = label_field(shape, 4)
    flow, logit = network_like(centre_flow(labels), labels)
    return {"labels": labels, "planes": labels, "flow": flow, "logit": logit}


def measure(task: Task, arrays: Arrays, repeats: int) -> tuple[np.ndarray, Measurements]:
    """Run the task so many times, each on fresh copies, and keep the last output."""
    measured = Measurements()
    output = None
    for _ in range(repeats):
        output = None
        arguments = task.prepare(arrays)
        start_bytes, measured.peak_rss_method = reset_peak_rss()
        cpu_start, start = time.process_time(), time.perf_counter()
        output = task.compute(**arguments)
        measured.seconds.append(time.perf_counter() - start)
        measured.cpu_seconds.append(time.process_time() - cpu_start)
        measured.peak_rss_growth_bytes.append(peak_rss(measured.peak_rss_method) - start_bytes)
        del arguments
    return output, measured


def reset_peak_rss() -> tuple[int, str]:
    """Give freed memory back, reset the peak; return the resident bytes now and the method."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return peak_rss("ru_maxrss"), "ru_maxrss"
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES, "VmHWM"


def peak_rss(method: str) -> int:
    """Return the peak of resident bytes, since the reset or (ru_maxrss) since the start."""
    if method == "ru_maxrss":
        # Too low where an earlier peak was higher: there is no reset.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main_array(arrays: Arrays) -> np.ndarray:
    """Return the array whose shape is that of the image."""
    return next(arrays[key] for key in ("labels", "planes", "logit") if key in arrays)


def count(arrays: Arrays, output: np.ndarray, kind: str) -> int:
    """Return the number of labels the task made or read, or of points it moved."""
    if kind in ("errors", "end_points", "output"):
        return output.shape[-1]
    labels = output if kind == "labels" else arrays["labels"]
    return int(labels.max(initial=0))


def versions(side: str) -> dict[str, str]:
    """Return the versions of what ran."""
    from importlib.metadata import version

    return {name: version(name) for name in ("numpy", "numba", *(["cellpose"] * (side == "peer")))}


if __name__ == "__main__":
    main()
