"""Files of one network: ours, and the peer's of versions 1 to 3."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor

from cellseg_pipe.nets._info import (
    DIAMETER_PX,
    NUCLEI_DIAMETER_PX,
    PUBLISHED,
    ModelInfo,
    Published,
    Restores,
    plain_name,
    read_header,
    sha256_of,
    write_header,
)
from cellseg_pipe.nets._reading import read_tensors
from cellseg_pipe.nets.cpnet import CPnet, cpnet_of
from cellseg_pipe.nets.size import SizeModel, read_peer

__all__ = ["PUBLISHED", "Model", "ModelInfo", "Published", "load", "plain_name", "save"]

DTYPES = {"float16": torch.float16, "float32": torch.float32}
SIZE = ("size.weights", "size.mean_style")
# Names under which the peer takes 17 px whatever the file says.
KINDS: dict[str, Restores] = {
    "denoise": "denoise",
    "deblur": "deblur",
    "upsample": "upsample",
    "oneclick": "one-click",
    "aniso": "aniso",
}
BUILT_IN_NUCLEI = re.compile(rf"nucleitorch_\d|({'|'.join(KINDS)})(_(per|seg|rec))?_nuclei")
PEER_LICENCE = "as published by the Cellpose authors; trained partly on CC-BY-NC images"


@dataclass(frozen=True, eq=False)
class Model:
    """A network read from a file.

    Parameters
    ----------
    info : ModelInfo
        How to use it.
    net : CPnet
        In evaluation mode.
    sha256 : str
        Checksum of the file.
    path : path
        The file.
    size : SizeModel, optional
        Guesses the diameter from the style.
    """

    info: ModelInfo
    net: CPnet
    sha256: str
    path: Path
    size: SizeModel | None = None

    @property
    def published(self) -> Published | None:
        """Which published file this is, if it is one."""
        return PUBLISHED.get(self.sha256)

    @property
    def summary(self) -> str:
        """What it is, in a line."""
        form = self.info.architecture
        widths = ",".join(map(str, form.widths))
        known = f", published as {self.published.name}" if self.published else ""
        return (
            f"{form.ndim}D {self.info.task}, {form.n_inputs} in, {form.n_outputs} out, widths"
            f" {widths}, {self.info.diameter_px:g} px{known}"
        )


def save(
    path: Path | str,
    net: CPnet,
    info: ModelInfo,
    *,
    dtype: Literal["float16", "float32"] = "float16",
    size: SizeModel | None = None,
) -> Path:
    """Write a network with all that is needed to use it; whole or not at all.

    Parameters
    ----------
    path : path
        A file that ends in `.safetensors`; an old one is replaced.
    net : CPnet
        The network.
    info : ModelInfo
        How to use it.
    dtype : {'float16', 'float32'}
        Of the weights. Biases and statistics stay float32: one percent of the file, and a variance
        can leave the range of float16.
    size : SizeModel, optional
        Guesses the diameter from the style.

    Returns
    -------
    path
        The file.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"models are written as NAME.safetensors, got {path.name}.")
    if info.architecture != net.architecture:
        raise ValueError(f"info tells of {info.architecture}, the network is {net.architecture}.")
    tensors = {key: _stored(key, t, DTYPES[dtype]) for key, t in net.state_dict().items()}
    tensors["diam_mean"] = torch.tensor([info.diameter_px], dtype=torch.float32)
    more = {}
    if size:
        arrays = (size.weights, size.mean_style)
        parts = zip(SIZE, arrays, strict=True)
        tensors |= {key: torch.tensor(array, dtype=torch.float32) for key, array in parts}
        more["size"] = {"mean_log": size.mean_log, "diam_mean_px": size.diam_mean_px}
    header = {"cellseg_pipe": write_header(info, **more)}
    _write_whole(path, safetensors.torch.save(tensors, header))
    return path


def load(path: Path | str) -> Model:
    """Read a network; nothing is written, and no code in the file is run.

    Parameters
    ----------
    path : path
        Ours, or one of the peer's versions 1 to 3. A size regression of the peer beside it,
        `PATH_size.npy` or `size_NAME.npy`, is read too.

    Returns
    -------
    Model
        The network with what is known of it.
    """
    path = Path(path)
    tensors, header = read_tensors(path)
    try:
        if header:
            return _own(path, tensors, header)
        return _peer(path, tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _own(path: Path, tensors: dict[str, Tensor], header: str) -> Model:
    info, more = read_header(header)
    size = None
    if "size" in more:
        size = _own_size(more["size"], [tensors.pop(key, None) for key in SIZE])
    net = cpnet_of(tensors, style=info.architecture.style)
    if net.architecture != info.architecture:
        raise ValueError(f"its header tells of {info.architecture}, it holds {net.architecture}.")
    return _model(info, net, path, size=size)


def _own_size(numbers: Any, arrays: list[Tensor | None]) -> SizeModel:
    weights, mean_style = arrays
    if weights is None or mean_style is None:
        raise ValueError(f"its size regression lacks {' or '.join(SIZE)}.")
    try:
        return SizeModel(weights.double().numpy(), mean_style.double().numpy(), **numbers)
    except TypeError as error:
        raise ValueError(f"its size regression is damaged: {error}.") from error


def _peer(path: Path, tensors: dict[str, Tensor]) -> Model:
    # Only the names of the peer's files tell of this.
    net = cpnet_of(tensors, style="style_off" not in path.name)
    known = PUBLISHED.get(sha256_of(path))
    name = known.name if known else plain_name(path)
    built_in = bool(known) or BUILT_IN_NUCLEI.fullmatch(name) is not None
    given = {key: _diameter_px(tensors, key) for key in ("diam_mean", "diam_labels")}
    usual = NUCLEI_DIAMETER_PX if "nuclei" in name else DIAMETER_PX
    info = ModelInfo(
        name,
        net.architecture,
        diameter_px=usual if built_in else given["diam_mean"] or usual,
        labels_diameter_px=None if built_in else given["diam_labels"],
        channels=known.channels if known else (),
        licence=PEER_LICENCE if known else "",
        origin="cellpose 1 to 3",
        **_restoring(name, net),
    )
    return _model(info, net, path, size=_peer_size(path))


def _restoring(name: str, net: CPnet) -> dict[str, Any]:
    """Return what is known of a network that restores: its kind is in its name alone."""
    if not net.architecture.gives_image:
        return {}
    return {"target": "image", "restores": KINDS.get(name.split("_")[0], "")}


def _diameter_px(tensors: Mapping[str, Tensor], key: str) -> float | None:
    tensor = next((t for k, t in tensors.items() if k.removeprefix("module.") == key), None)
    return None if tensor is None else float(tensor)


def _peer_size(path: Path) -> SizeModel | None:
    beside = (path.with_name(f"{path.name}_size.npy"), path.with_name(f"size_{path.name}.npy"))
    return next((read_peer(file) for file in beside if file.is_file()), None)


def _model(info: ModelInfo, net: CPnet, path: Path, *, size: SizeModel | None) -> Model:
    for key, tensor in net.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{key} holds values that are not finite. Take another checkpoint.")
    with torch.no_grad():
        net.get_parameter("diam_mean").fill_(info.diameter_px)
    return Model(info, net, sha256_of(path), path, size)


def _stored(key: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if tensor.ndim < 2:
        return tensor
    stored = tensor.to(dtype)
    if not torch.isfinite(stored).all():
        raise ValueError(f"{key} has values beyond {dtype}: NaN, or save it as float32.")
    return stored


def _write_whole(path: Path, content: bytes) -> None:
    name = path.with_name(f".{path.name}.{secrets.token_hex(8)}")  # its mode follows the umask
    try:
        with open(name, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
