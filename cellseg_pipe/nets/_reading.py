"""Reads the tensors of a file without running code from it, and says what is wrong with it."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

__all__ = ["read_tensors"]

HEAD_BYTES = 512
DTYPES = (torch.float32, torch.float16, torch.bfloat16)  # all of them exact in float32
# What torch raises when it reads broken bytes as a checkpoint.
FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
)
KINDS = {
    b"PK\x03\x04": "torch",
    b"\x80": "torch",  # before torch 1.6: a bare pickle
    b"\x93NUMPY": "a numpy file; a size_*.npy goes beside its network",
    b"\x89HDF": "an HDF5 file",
    b"version https://git-lfs": "a git-lfs pointer, not the weights. Run `git lfs pull` there",
    b"<": "a web page, not the weights. Download it again",
    b"{": "JSON, not weights",
}


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read all tensors of a file by name.

    Parameters
    ----------
    path : path
        A safetensors file, or one that torch saved.

    Returns
    -------
    tensors : dict of str to tensor
        In memory, or mapped from the file.
    header : str
        The text that we put into a safetensors file; empty in others.
    """
    kind = _kind(path)
    tensors, header = _read_safetensors(path) if kind == "safetensors" else (_read_torch(path), "")
    for key, tensor in tensors.items():
        if not key.endswith("num_batches_tracked") and tensor.dtype not in DTYPES:
            raise ValueError(
                f"{path}: {key} is of {str(tensor.dtype).removeprefix('torch.')}, expected float32,"
                " float16 or bfloat16."
            )
    return tensors, header


def _kind(path: Path) -> str:
    """Return `torch` or `safetensors`; raise and say what the file is instead."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, expected a file of weights.")
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head[8:9] == b"{":  # after eight bytes with the length of the header
        return "safetensors"
    found = next((k for start, k in KINDS.items() if head.lstrip().startswith(start)), None)
    if found == "torch":
        return found
    if not head:
        found = "empty. Copy it again"
    elif not found:
        text = all(9 <= byte < 127 for byte in head)
        found = "a text file, not the weights" if text else "not a checkpoint, or damaged"
    raise ValueError(f"{path} is {found}.")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], str]:
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("cellseg_pipe", "")
            return {key: file.get_tensor(key) for key in file.keys()}, header
    except SafetensorError as error:
        raise ValueError(
            f"{path} is damaged or cut short: {_line(error)}. Copy it again."
        ) from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    is_zip = zipfile.is_zipfile(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of other pickle protocols: it fails then
            # Mapped, a file of gigabytes that is no network of ours costs nothing to refuse.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error) or "Unsupported global" in str(error):
            raise ValueError(
                f"{path} holds more than tensors and would run code when read: {_reason(error)}. "
                "Save its state_dict() alone."
            ) from error
        raise ValueError(f"{path} is damaged or no checkpoint: {_reason(error)}.") from error
    except FAULTS as error:
        raise ValueError(f"{path} is damaged or cut short: {_line(error)}.") from error
    return _checked(path, content)


def _checked(path: Path, content: object) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{path} holds {type(content).__name__}, expected parameters by name. "
            "Save the state_dict() of the network."
        )
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(
                f"{path}: entry {key!r} is {type(value).__name__}, expected a tensor. "
                "Save the state_dict() of the network alone."
            )
    if not content:
        raise ValueError(f"{path} holds no parameters.")
    return dict(content)


def _reason(error: Exception) -> str:
    """Return what torch refused, out of its page of advice."""
    lines = str(error).splitlines()
    named = [line for line in lines if "GLOBAL" in line or "Unsupported" in line]
    return " ".join((named or lines)[0].split())[:200].rstrip(".")


def _line(error: Exception) -> str:
    """Return the first line of a message, without the places in torch's sources."""
    lines = str(error).strip().splitlines()
    return (lines[0][:200].rstrip(". ") if lines else "") or type(error).__name__
