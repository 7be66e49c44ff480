"""The Cellpose U-Net of any number of axes, its parameters named as in published checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from cellseg_pipe.nets._architecture import Architecture, check_input, guess, plain_keys

__all__ = ["Architecture", "CPnet", "architecture_of", "cpnet_of"]

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
DIAMETERS = ("diam_mean", "diam_labels")
DIAMETER_PX = 30.0  # of a network that has seen no cells
KEYS_OF_VERSION_4 = ("W2", "encoder.cls_token")


class CPnet(nn.Module):
    """The network: a U-Net whose way up also sees the style, the mean of its deepest map.

    Parameters
    ----------
    architecture : Architecture
        Its form.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.downsample = Down(architecture)
        self.upsample = Up(architecture)
        self.output = norm_relu_conv(
            architecture.ndim, architecture.widths[0], architecture.n_outputs, size_px=1
        )
        for name in DIAMETERS:
            diameter_px = nn.Parameter(torch.full((1,), DIAMETER_PX), requires_grad=False)
            self.register_parameter(name, diameter_px)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute flows and logit, and the style.

        Parameters
        ----------
        x : float tensor [B, n_inputs, *S]
            Normalised images; each axis a multiple of the divisor.

        Returns
        -------
        y : float tensor [B, n_outputs, *S]
            Five times the flow, the logit of being inside a cell, then classes.
        style : float tensor [B, widths[-1]]
            Of length one, or zero where the deepest map is.
        """
        check_input(x, self.architecture)
        maps = self.downsample(x)  # level n: [B, widths[n], *S/2^n]
        style = style_of(maps[-1])  # [B, widths[-1]]
        seen = style if self.architecture.style else torch.zeros_like(style)
        x = self.upsample(maps, seen)  # [B, widths[0], *S]
        return self.output(x), style


class Down(nn.Module):
    """The way down: a block at each level, maxima of 2 px along each axis between them."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        block, name = (ResidualDown, "res") if architecture.residual else (PlainDown, "conv")
        widths = (architecture.n_inputs, *architecture.widths)
        self.pool = POOL[architecture.ndim](2)
        self.down = nn.ModuleDict(
            {
                f"{name}_down_{n}": block(architecture.ndim, widths[n], widths[n + 1])
                for n in range(len(architecture.widths))
            }
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the map of each level, full resolution first."""
        maps: list[Tensor] = []
        for block in self.down.values():
            x = block(self.pool(maps[-1]) if maps else x)  # [B, widths[n], *S/2^n]
            maps.append(x)
        return maps


class ResidualDown(nn.Module):
    """Two pairs of convolutions, each with a shortcut."""

    def __init__(self, ndim: int, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv = nn.ModuleDict(
            {f"conv_{t}": norm_relu_conv(ndim, n_out if t else n_in, n_out) for t in range(4)}
        )
        self.proj = norm_conv(ndim, n_in, n_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map of this level."""
        x = self.proj(x) + self.conv["conv_1"](self.conv["conv_0"](x))  # [B, n_out, *S]
        return x + self.conv["conv_3"](self.conv["conv_2"](x))


class PlainDown(nn.Module):
    """Two convolutions."""

    def __init__(self, ndim: int, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv = nn.ModuleDict(
            {f"conv_{t}": norm_relu_conv(ndim, n_out if t else n_in, n_out) for t in range(2)}
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the map of this level."""
        return self.conv["conv_1"](self.conv["conv_0"](x))


class Up(nn.Module):
    """The way up: a block at each level, nearest pixels doubled between them."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        block, name = (ResidualUp, "res") if architecture.residual else (PlainUp, "conv")
        self.enlarge = nn.Upsample(scale_factor=2, mode="nearest")
        self.up = nn.ModuleDict(
            {f"{name}_up_{n}": block(architecture, n) for n in range(len(architecture.widths))}
        )

    def forward(self, maps: list[Tensor], style: Tensor) -> Tensor:
        """Return the map at full resolution."""
        x = maps[-1]
        for n, block in reversed(list(enumerate(self.up.values()))):
            x = x if n == len(maps) - 1 else self.enlarge(x)  # [B, widths[n + 1], *S/2^n]
            x = block(x, maps[n], style)  # [B, widths[n], *S/2^n]
        return x


class ResidualUp(nn.Module):
    """Two pairs of convolutions, each with a shortcut; three of the four see the style."""

    def __init__(self, architecture: Architecture, n: int) -> None:
        super().__init__()
        ndim, n_in, n_out = widths_up(architecture, n)
        styled = [StyledConv(architecture, n_out, merges=t == 1) for t in (1, 2, 3)]
        self.conv = nn.ModuleDict({"conv_0": norm_relu_conv(ndim, n_in, n_out)})
        self.conv.update({f"conv_{t}": conv for t, conv in enumerate(styled, start=1)})
        self.proj = norm_conv(ndim, n_in, n_out)

    def forward(self, x: Tensor, skip: Tensor, style: Tensor) -> Tensor:
        """Return the map of this level."""
        x = self.proj(x) + self.conv["conv_1"](self.conv["conv_0"](x), style, skip)
        return x + self.conv["conv_3"](self.conv["conv_2"](x, style), style)


class PlainUp(nn.Module):
    """Two convolutions; the second sees the style."""

    def __init__(self, architecture: Architecture, n: int) -> None:
        super().__init__()
        ndim, n_in, n_out = widths_up(architecture, n)
        self.conv = nn.ModuleDict({"conv_0": norm_relu_conv(ndim, n_in, n_out)})
        self.conv["conv_1"] = StyledConv(architecture, n_out, merges=True)

    def forward(self, x: Tensor, skip: Tensor, style: Tensor) -> Tensor:
        """Return the map of this level."""
        return self.conv["conv_1"](self.conv["conv_0"](x), style, skip)  # [B, n_out, *S]


class StyledConv(nn.Module):
    """A convolution of a map with the style, turned to its width, added at each pixel."""

    def __init__(self, architecture: Architecture, width: int, *, merges: bool) -> None:
        super().__init__()
        self.concatenate = merges and architecture.concatenate
        n_in = 2 * width if self.concatenate else width
        self.conv = norm_relu_conv(architecture.ndim, n_in, width)
        self.full = nn.Linear(architecture.widths[-1], n_in)

    def forward(self, x: Tensor, style: Tensor, skip: Tensor | None = None) -> Tensor:
        """Convolve the map, first joined with that of the way down where there is one."""
        if skip is not None:
            x = torch.cat((skip, x), dim=1) if self.concatenate else x + skip
        styled = x + beside_axes(self.full(style), x.ndim - 2)
        return self.conv(styled)


def norm_relu_conv(ndim: int, n_in: int, n_out: int, *, size_px: int = 3) -> nn.Sequential:
    """Return normalisation, ReLU and convolution: the order of pre-activated residual networks."""
    conv = CONV[ndim](n_in, n_out, size_px, padding=size_px // 2)
    # Momentum .05 as in the later versions of the peer; it matters in training only.
    return nn.Sequential(NORM[ndim](n_in, momentum=0.05), nn.ReLU(inplace=True), conv)


def norm_conv(ndim: int, n_in: int, n_out: int) -> nn.Sequential:
    """Return the shortcut: normalisation and a convolution of 1 px."""
    return nn.Sequential(NORM[ndim](n_in, momentum=0.05), CONV[ndim](n_in, n_out, 1))


def widths_up(architecture: Architecture, n: int) -> tuple[int, int, int]:
    """Return the axes and the channels into and out of the block of level n on the way up."""
    widths = (*architecture.widths, architecture.widths[-1])
    return architecture.ndim, widths[n + 1], widths[n]


def style_of(x: Tensor) -> Tensor:
    """Return the mean of each channel, scaled to length one; zero stays zero."""
    mean = x.flatten(2).mean(2, dtype=torch.float32)  # [B, C]
    length = mean.square().sum(1, keepdim=True).sqrt()
    return mean / length.masked_fill(length == 0, 1)


def beside_axes(x: Tensor, ndim: int) -> Tensor:
    """Append spatial axes of length one: [B, C] to [B, C, 1, ...]."""
    return x.reshape(*x.shape, *(1,) * ndim)


def cpnet_of(state_dict: Mapping[str, Tensor], *, style: bool = True) -> CPnet:
    """Build the network of a checkpoint and load it.

    Parameters
    ----------
    state_dict : mapping of str to tensor
        Parameters under the names of the published checkpoints.
    style : bool
        Whether the network uses its style, which no parameter tells.

    Returns
    -------
    CPnet
        In evaluation mode.
    """
    net = CPnet(replace(architecture_of(state_dict), style=style))
    net.load_state_dict(net.state_dict() | plain_keys(state_dict))
    return net.eval()


def architecture_of(state_dict: Mapping[str, Tensor]) -> Architecture:
    """Infer the architecture from names and shapes of parameters.

    Parameters
    ----------
    state_dict : mapping of str to tensor
        Parameters under the names of the published checkpoints; `module.` in front is ignored,
        and the two diameters and counts of batches may be absent.

    Returns
    -------
    Architecture
        With `style` true, as no parameter tells.
    """
    if any(key in plain_keys(state_dict) for key in KEYS_OF_VERSION_4):
        raise ValueError(
            "expected the network of cellpose 1 to 3, found one of cellpose 4. "
            "Name it cellpose-sam:FILE to run it by the package cellpose of version 4."
        )
    found = {key: tuple(tensor.shape) for key, tensor in plain_keys(state_dict).items()}
    architecture = guess(found)
    with torch.device("meta"):
        expected = {k: tuple(v.shape) for k, v in CPnet(architecture).state_dict().items()}
    faults = [f"missing {key}" for key in expected if key not in found and not optional(key)]
    faults += [f"unexpected {key}" for key in found if key not in expected]
    faults += [
        f"{key} of shape {found[key]} instead of {shape}"
        for key, shape in expected.items()
        if key in found and found[key] != shape
    ]
    if faults:
        raise ValueError(f"not a checkpoint of {architecture}: {'; '.join(faults)}.")
    return architecture


def optional(key: str) -> bool:
    """Return whether a checkpoint may lack this parameter."""
    return key in DIAMETERS or key.endswith("num_batches_tracked")
