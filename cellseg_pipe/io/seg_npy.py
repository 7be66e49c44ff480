"""The peer's `_seg.npy`: a pickled dict, written for its GUI, read without running code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.io.files import binary_whole
from cellseg_pipe.kernels import outline_pixels, renumber
from cellseg_pipe.plot import flow_colors, label_colors

__all__ = ["read_seg_npy", "write_seg_npy"]

NUMPY_NAMES = {"ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer"}
BUILTIN_NAMES = {"bytearray", "complex", "frozenset", "range", "set", "slice"}
FLOW_SCALE = np.float32(5)  # the peer's network gives five times the unit vectors
# What a damaged pickle raises, besides its own error.
FAULTS = (pickle.UnpicklingError, EOFError, LookupError, AttributeError, ValueError, TypeError)


def write_seg_npy(
    path: Path | str,
    *,
    labels: NDArray[np.uint32],
    flow: NDArray[np.float32],
    logit: NDArray[np.float32],
    image_path: Path | str,
    diameter_px: float,
) -> None:
    """Write a file that the peer's GUI opens beside the image.

    Parameters
    ----------
    path : path
        NAME_seg.npy.
    labels : uint32 array [*spatial]
        The cells; they are numbered anew if there are gaps, as the GUI would.
    flow : float32 array [n_axes, *spatial]
        Unit vectors; on a grid of its own it is brought to that of the labels.
    logit : float32 array [*spatial]
        Above the threshold in cells; likewise.
    image_path : path
        The image.
    diameter_px : float
        Of a typical cell.
    """
    labels = renumber(labels)[0]
    flow, logit = _on_pixels(flow, labels.shape), _on_pixels(logit[None], labels.shape)[0]
    n = int(labels.max(initial=0))
    kind = np.uint16 if n < 2**16 - 1 else np.uint32
    outlines = outline_pixels(labels) if labels.ndim == 2 else _by_plane(labels)
    content = {
        "filename": str(image_path),
        "masks": labels.astype(kind),
        "outlines": (labels * outlines).astype(kind),
        "colors": label_colors(np.arange(1, n + 1, dtype=np.uint32)[None])[0, :, :3],
        "chan_choose": [0, 0],
        "ismanual": np.zeros(n, bool),
        "manual_changes": [],
        "flows": _shown_flows(flow, logit),
        "diameter": float(diameter_px),
        "est_diam": float(diameter_px),
        "zdraw": [None] * n,
    }
    with binary_whole(path) as file:
        np.save(file, content, allow_pickle=True)  # type: ignore[arg-type]


def _on_pixels(values: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return values [C, *grid] for pixels [C, *shape]: of the nearest voxel of their grid."""
    if values.shape[1:] == tuple(shape):
        return values
    nearest = [
        np.minimum((2 * np.arange(n) + 1) * own // (2 * n), own - 1)
        for n, own in zip(shape, values.shape[1:], strict=True)
    ]
    return values[(slice(None), *np.ix_(*nearest))]


def _shown_flows(flow: NDArray[np.float32], logit: NDArray[np.float32]) -> list[Any]:
    """Return three pictures, each of planes, then no end points, then the peer's raw numbers."""
    shown = np.clip((np.clip(logit, -6, 6) + 6) * (255 / 12), 0, 255).astype(np.uint8)
    along_z = np.zeros_like(shown)
    if logit.ndim == 3:
        along_z = np.clip(FLOW_SCALE * flow[0] / 10 * 127 + 127, 0, 255).astype(np.uint8)
    pictures = [flow_colors(flow)[..., :3], shown, along_z]
    if logit.ndim == 2:
        pictures = [picture[None] for picture in pictures]
    return [*pictures, [], np.concatenate([FLOW_SCALE * flow, logit[None]])]


def _by_plane(labels: NDArray[np.uint32]) -> NDArray[np.bool_]:
    return np.stack([outline_pixels(plane) for plane in labels])


def read_seg_npy(path: Path | str) -> dict[str, Any]:
    """Read a `_seg.npy` of ours or the peer's.

    Parameters
    ----------
    path : path
        The file. One that holds anything but numpy arrays, numbers, text, lists and dicts is
        refused, and none of its code is run.

    Returns
    -------
    dict
        As it was written.
    """
    with open(path, "rb") as file:
        try:
            _past_header(file)
            found = _Plain(file).load()
        except FAULTS as error:
            said = " ".join(str(error).split())
            raise ValueError(f"{path} cannot be read as a _seg.npy: {said}.") from error
    content = found.item() if isinstance(found, np.ndarray) and found.shape == () else found
    if not isinstance(content, dict) or "masks" not in content:
        raise ValueError(f"{path} needs to hold a dict with masks, and does not.")
    return content


def _latin1(text: str, encoding: str) -> bytes:
    """Return the bytes that pickle writes as text; no other codec is looked up."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it holds bytes as {encoding!r}, which is no plain data")
    return text.encode("latin1")


def _past_header(file: BinaryIO) -> None:
    """Read what stands before the pickle."""
    old = np.lib.format.read_magic(file) == (1, 0)
    read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if shape != () or dtype.kind != "O":
        raise ValueError(f"it needs to hold one dict, and holds numbers of shape {shape}")


class _Plain(pickle.Unpickler):
    """Loads arrays and plain values, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle names, if it is of numpy and harmless."""
        if module.split(".")[0] == "numpy" and name in NUMPY_NAMES:
            # Files of numpy 1 name numpy.core, which numpy 2 calls numpy._core.
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        if module in ("builtins", "__builtin__") and name in BUILTIN_NAMES:
            return super().find_class("builtins", name)
        if (module, name) == ("_codecs", "encode"):  # bytes in old protocols
            return _latin1
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no plain data")
