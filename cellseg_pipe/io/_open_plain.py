"""Opens PNG, JPEG and NPY files: pictures as a whole, arrays mapped from their file."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.io._raw import ArraySource, Raw, said

__all__ = ["open_jpeg", "open_npy", "open_png"]

log = logging.getLogger(__name__)

MAPPED_CHUNK = (512, 2048)


def open_png(path: Path) -> Raw:
    """Read by imagecodecs: Pillow cuts 16-bit colours to 8 bits, and refuses large pictures.

    Parameters
    ----------
    path : path
        Of a PNG.

    Returns
    -------
    Raw
        All pixels in memory.
    """
    import imagecodecs

    try:
        return _picture(imagecodecs.png_decode(path.read_bytes()), path, "PNG")
    except (RuntimeError, ValueError) as error:
        raise _unreadable(path, "a picture", error) from error


def open_jpeg(path: Path) -> Raw:
    """Read a JPEG; inks become colours, and one that is too large for Pillow is read without it.

    Parameters
    ----------
    path : path
        Of a JPEG.

    Returns
    -------
    Raw
        All pixels in memory.
    """
    import imagecodecs
    from PIL import Image as Pictures

    try:
        try:
            with Pictures.open(path) as picture:
                coloured = picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
                return _picture(np.asarray(coloured), path, "JPEG")
        except Pictures.DecompressionBombError:
            return _picture(imagecodecs.jpeg8_decode(path.read_bytes()), path, "JPEG")
    except (OSError, SyntaxError, RuntimeError, ValueError) as error:
        raise _unreadable(path, "a picture", error) from error


def _picture(pixels: NDArray[Any], path: Path, kind: str) -> Raw:
    if pixels.ndim == 3 and pixels.shape[-1] == 2:  # grey with alpha
        log.info("%s: the alpha channel is left out", path.name)
        pixels = pixels[..., 0]
    named = "yx" if pixels.ndim == 2 else "yxs"
    return Raw(ArraySource(pixels), named, format=kind, identity=_identity(path))


def open_npy(path: Path) -> Raw:
    """Map an array; nothing of it is read yet.

    Parameters
    ----------
    path : path
        Of an NPY file.

    Returns
    -------
    Raw
        Of axes that are not known.
    """
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise _unreadable(path, "one plain array", error) from error
    if not isinstance(pixels, np.ndarray):
        pixels.close()
        raise ValueError(f"{path} holds several arrays (NPZ). Save one as NPY.")
    chunk = (1,) * (pixels.ndim - 2) + MAPPED_CHUNK
    return Raw(
        ArraySource(pixels),
        chunk=tuple(min(n, e) for n, e in zip(pixels.shape, chunk[-pixels.ndim :], strict=True)),
        in_place=True,
        format="NPY",
        identity=_identity(path),
    )


def _identity(path: Path) -> dict[str, Any]:
    about = os.stat(path)
    return {"bytes": about.st_size, "mtime_ns": about.st_mtime_ns}


def _unreadable(path: Path, what: str, error: Exception) -> ValueError:
    return ValueError(f"{path} cannot be read as {what}: {said(error)}. Copy or export it again.")
