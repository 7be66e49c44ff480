"""The peer's `_seg.npy`: a pickled dict, written for its GUI, read without running code."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.io.files import binary_whole
from cellseg_pipe.kernels import outline_pixels
from cellseg_pipe.plot import flow_colors, label_colors

__all__ = ["read_seg_npy", "write_seg_npy"]

NUMPY_NAMES = {"ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer"}
MAGIC_BYTES = 6


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
        The cells.
    flow : float32 array [n_axes, *spatial]
        Unit vectors.
    logit : float32 array [*spatial]
        Above the threshold in cells.
    image_path : path
        The image.
    diameter_px : float
        Of a typical cell.
    """
    n = int(labels.max(initial=0))
    outlines = outline_pixels(labels) if labels.ndim == 2 else _by_plane(labels)
    shown = np.clip((np.clip(logit, -6, 6) + 6) * (255 / 12), 0, 255).astype(np.uint8)
    colours = label_colors(np.arange(1, n + 1, dtype=np.uint32)[None])[0, :, :3]
    raw = np.concatenate([5 * flow, logit[None]])
    content = {
        "filename": str(image_path),
        "masks": labels.astype(np.uint16 if n < 2**16 else np.uint32),
        "outlines": (labels * outlines).astype(np.uint16 if n < 2**16 else np.uint32),
        "colors": colours,
        "chan_choose": [0, 0],
        "ismanual": np.zeros(n, bool),
        "manual_changes": [],
        "flows": [flow_colors(flow)[..., :3], shown, np.zeros_like(shown), [], raw],
        "diameter": float(diameter_px),
        "est_diam": float(diameter_px),
        "zdraw": [None] * n,
    }
    with binary_whole(path) as file:
        np.save(file, content, allow_pickle=True)  # type: ignore[arg-type]


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
    data = Path(path).read_bytes()
    if data[:MAGIC_BYTES] != b"\x93NUMPY":
        raise ValueError(f"{path} needs to be a NPY file that the peer or we wrote.")
    size = int.from_bytes(data[8:10], "little") + 10
    try:
        found = _Plain(io.BytesIO(data[size:])).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    content = found.item() if isinstance(found, np.ndarray) and found.shape == () else found
    if not isinstance(content, dict) or "masks" not in content:
        raise ValueError(f"{path} needs to hold a dict with masks, and does not.")
    return content


class _Plain(pickle.Unpickler):
    """Loads arrays and plain values, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle names, if it is of numpy and harmless."""
        if module.split(".")[0] == "numpy" and name in NUMPY_NAMES:
            return super().find_class(module, name)
        if (module, name) == ("_codecs", "encode"):  # bytes in old protocols
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no plain data")
