"""The regression that guesses the diameter of cells from a network's style, and its files."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["SizeModel", "fit", "read_peer"]

DIAMETER_MIN_PX = 5.0  # the peer guesses no smaller one
RIDGE = 1.0
NAMES = ("A", "smean", "diam_mean", "ymean")  # what the peer's dictionary holds


@dataclass(frozen=True, eq=False)
class SizeModel:
    """A linear guess of the logarithm of the diameter.

    Parameters
    ----------
    weights : float64 array [n]
        Change of the logarithm per unit of each component of the style.
    mean_style : float64 array [n]
        Style to which the mean belongs.
    mean_log : float
        Mean of the logarithm of diameter over `diam_mean_px`.
    diam_mean_px : float
        Diameter that the network was trained at.
    """

    weights: NDArray[np.float64]
    mean_style: NDArray[np.float64]
    mean_log: float
    diam_mean_px: float

    def __post_init__(self) -> None:
        arrays = [np.array(a, np.float64) for a in (self.weights, self.mean_style)]
        if arrays[0].ndim != 1 or arrays[0].shape != arrays[1].shape:
            raise ValueError(
                "a size regression needs weights and a mean style of one length, got shapes "
                f"{arrays[0].shape} and {arrays[1].shape}."
            )
        if not (self.diam_mean_px > 0 and np.isfinite([*map(np.sum, arrays), self.mean_log]).all()):
            raise ValueError("a size regression needs finite numbers and a diameter above 0.")
        object.__setattr__(self, "weights", arrays[0])
        object.__setattr__(self, "mean_style", arrays[1])

    def diameter_px(self, style: ArrayLike) -> float:
        """Guess the diameter of the cells of an image.

        Parameters
        ----------
        style : float array [n]
            The network's style of the image.

        Returns
        -------
        float
            In px of the image, 5 or more.
        """
        style = np.asarray(style, np.float64)
        if style.shape != self.weights.shape:
            raise ValueError(
                f"this size regression needs a style of {len(self.weights)} numbers, got shape "
                f"{style.shape}. Take the one of the same network."
            )
        log = float(self.weights @ (style - self.mean_style)) + self.mean_log
        return max(DIAMETER_MIN_PX, float(np.exp(log + np.log(self.diam_mean_px))))


def fit(styles: ArrayLike, diameters_px: ArrayLike, *, diam_mean_px: float = 30.0) -> SizeModel:
    """Fit the regression, with a penalty on the squares of its weights.

    Parameters
    ----------
    styles : float array [images, n]
        Style of each image.
    diameters_px : float array [images]
        True diameter in each image.
    diam_mean_px : float
        Diameter that the network was trained at.

    Returns
    -------
    SizeModel
        The fitted regression.
    """
    x, diameters = np.asarray(styles, np.float64), np.asarray(diameters_px, np.float64)
    if x.ndim != 2 or diameters.shape != x.shape[:1] or not len(x):
        raise ValueError(
            "fit needs styles [images, n] and one diameter per image, got shapes "
            f"{x.shape} and {diameters.shape}."
        )
    if not (np.isfinite(diameters) & (diameters > 0)).all():
        raise ValueError("fit needs diameters above 0. Leave out images without cells.")
    log = np.log(diameters / diam_mean_px)
    mean_style, mean_log = x.mean(axis=0), float(log.mean())
    x = x - mean_style
    normal = x.T @ x + RIDGE * np.eye(x.shape[1])
    weights = np.linalg.solve(normal, x.T @ (log - mean_log))
    return SizeModel(weights, mean_style, mean_log, diam_mean_px)


def read_peer(path: Path | str) -> SizeModel:
    """Read the peer's `size_*.npy`, a pickle, without running what it may hold.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    SizeModel
        The regression.
    """
    path = Path(path)
    values = _read_dictionary(path)
    if missing := [name for name in NAMES if name not in values]:
        raise ValueError(f"{path} is no size regression: {', '.join(missing)} missing.")
    try:
        weights, mean_style = (np.ravel(values[name]).astype(np.float64) for name in NAMES[:2])
        diam_mean_px, mean_log = (float(np.ravel(values[name])[0]) for name in NAMES[2:])
        return SizeModel(weights, mean_style, mean_log, diam_mean_px)
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no size regression: {error}") from error


def _read_dictionary(path: Path) -> dict[Any, Any]:
    """Return the one dictionary in an npy file of one object."""
    stream = io.BytesIO(path.read_bytes())
    try:
        if np.lib.format.read_magic(stream) == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
        if shape != () or not dtype.hasobject:
            raise ValueError(f"expected one pickled dictionary, found {dtype} of shape {shape}")
        value = _Unpickler(stream, encoding="latin1").load()
        # What was saved comes inside an array of one object.
        value = value.item() if isinstance(value, np.ndarray) and value.shape == () else value
    except _FAULTS as error:
        about = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is no size regression: {about}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is no size regression: found {type(value).__name__}, not dict.")
    return value


# What reading broken bytes as a pickle can raise.
_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)
_ARRAY = object()  # stands for the type of arrays, so that a pickle cannot call it


def _empty_array(kind: object, shape: object, _code: object) -> NDArray[Any]:
    if kind is not _ARRAY or shape != (0,):
        raise pickle.UnpicklingError("arrays must be plain ones")
    return np.empty(0, np.int8)


def _scalar(dtype: np.dtype[Any], content: object) -> object:
    if not isinstance(content, bytes) or dtype.hasobject or dtype.itemsize != len(content):
        raise pickle.UnpicklingError("scalars must be plain ones")
    return np.frombuffer(content, dtype)[0]


def _from_buffer(content: object, dtype: np.dtype[Any], shape: object, _order: str) -> NDArray[Any]:
    """Return an array as pickles of protocol 5 hold them: vectors, so that no order matters."""
    if not isinstance(content, bytes | bytearray) or dtype.hasobject:
        raise pickle.UnpicklingError("arrays must be plain ones")
    array = np.frombuffer(content, dtype)
    if shape not in ((), array.shape):
        raise pickle.UnpicklingError("arrays must have one axis")
    return array


def _encode(text: str, encoding: str) -> bytes:
    """Return bytes as pickles of protocol 2 hold them."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding} is not allowed")
    return text.encode("latin1")


_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")  # before and since numpy 2
_ALLOWED: dict[tuple[str, str], Callable[..., object] | object] = {
    ("numpy", "ndarray"): _ARRAY,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
    **{(module, "_reconstruct"): _empty_array for module in _NUMPY},
    **{(module, "scalar"): _scalar for module in _NUMPY},
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
}


class _Unpickler(pickle.Unpickler):
    """Admits numbers, text, lists, dictionaries and plain arrays."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(
                f"it holds {module}.{name}, and only numbers, arrays and dict are allowed"
            )
        return _ALLOWED[module, name]
