"""What determines a network of the Cellpose kind, given or read off its parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

OUTPUT_OF_LEVEL = re.compile(r"downsample\.down\.[a-z]+_down_(\d+)\.conv\.conv_[01]\.2\.bias")


@dataclass(frozen=True)
class Architecture:
    """What determines the parameters of a network and how they are used.

    Parameters
    ----------
    ndim : int
        Spatial axes: 2 or 3.
    n_inputs : int
        Channels of the image.
    n_outputs : int
        Channels of the result: a flow component per axis, one logit, then classes; 1 for images.
    widths : tuple of int
        Channels at each level, from full resolution down; each level halves the axes.
    residual : bool
        Blocks of four convolutions with shortcuts; else of two without.
    style : bool
        Add the style to the maps on the way up; no parameter tells of it.
    concatenate : bool
        Concatenate the maps of the way down with those of the way up; else add them.
    """

    ndim: int = 2
    n_inputs: int = 2
    n_outputs: int = 3
    widths: tuple[int, ...] = (32, 64, 128, 256)
    residual: bool = True
    style: bool = True
    concatenate: bool = False

    def __post_init__(self) -> None:
        if self.ndim not in (2, 3):
            raise ValueError(f"a network has 2 or 3 spatial axes, got ndim={self.ndim}.")
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"each level needs a width of 1 or more, got widths={self.widths}.")
        if min(self.n_inputs, self.n_outputs) < 1:
            raise ValueError(
                "a network needs 1 input and 1 output or more, got "
                f"n_inputs={self.n_inputs}, n_outputs={self.n_outputs}."
            )
        object.__setattr__(self, "widths", tuple(self.widths))

    @property
    def divisor(self) -> int:
        """The size of an image along each axis is a multiple of this."""
        return 2 ** (len(self.widths) - 1)

    @property
    def gives_image(self) -> bool:
        """Whether the answer is an image, as of networks that restore: a flow has more outputs."""
        return self.n_outputs <= self.ndim

    @property
    def n_classes(self) -> int:
        """Outputs beyond the flow and the logit."""
        return max(0, self.n_outputs - self.ndim - 1)


def check_input(x: Tensor, architecture: Architecture) -> None:
    """Raise if the network cannot take this image."""
    expected = f"[B, {architecture.n_inputs}" + ", size" * architecture.ndim + "]"
    if x.ndim != architecture.ndim + 2 or x.shape[1] != architecture.n_inputs:
        raise ValueError(f"the network needs images {expected}, got shape {tuple(x.shape)}.")
    if any(size_px == 0 or size_px % architecture.divisor for size_px in x.shape[2:]):
        raise ValueError(
            f"each axis must be a multiple of {architecture.divisor} px, got "
            f"{tuple(x.shape[2:])}. Pad the image first."
        )


def guess(found: Mapping[str, tuple[int, ...]]) -> Architecture:
    """Read the architecture off shapes, taking the usual one where parameters are missing."""
    usual = Architecture()
    widths: dict[int, int] = {}
    for key, shape in found.items():
        if match := OUTPUT_OF_LEVEL.fullmatch(key):
            widths[int(match[1])] = shape[0]
    kind = "conv" if any(key.startswith("downsample.down.conv_down") for key in found) else "res"
    image = found.get(f"downsample.down.{kind}_down_0.conv.conv_0.0.bias", (usual.n_inputs,))
    merging = found.get(f"upsample.up.{kind}_up_0.conv.conv_1.full.bias", ())
    return Architecture(
        ndim=3 if any(len(shape) == 5 for shape in found.values()) else 2,
        n_inputs=image[0],
        n_outputs=found.get("output.2.bias", (usual.n_outputs,))[0],
        widths=tuple(widths[n] for n in sorted(widths)) or usual.widths,
        residual=kind == "res",
        concatenate=merging == (2 * widths.get(0, 0),),
    )


def plain_keys(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop what a wrapper for several devices puts in front of each name."""
    return {key.removeprefix("module."): tensor for key, tensor in state_dict.items()}
