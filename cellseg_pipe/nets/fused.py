"""The network in the form for inference: as few passes over memory as the device allows."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from cellseg_pipe.nets._architecture import Architecture, check_input
from cellseg_pipe.nets._blocks import Target, fold_blocks
from cellseg_pipe.nets._fold import Affine, conv_kernel
from cellseg_pipe.nets._ops import LAYOUT, OPS, choose_ops
from cellseg_pipe.nets.cpnet import POOL, CPnet, style_of

__all__ = ["Form", "FusedNet", "Precision", "choose_precision", "fuse"]

Precision = Literal["fp32", "bf16"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Form:
    """What the last bits of a result depend on, beside the network and the window.

    Parameters
    ----------
    device : str
        Class of the device: `cpu`, `cuda`.
    precision : str
        `fp32` or `bf16`: the type of maps and weights; sums are float32.
    instructions : str
        Widest instructions that the device offers to torch.
    torch : str
        Version.
    ops : str
        `post-ops` (oneDNN's joined steps), `plain` (public functions of torch) or `module` (the
        network as it is, for a whole batch).
    """

    device: str
    precision: str
    instructions: str
    torch: str
    ops: str

    def __str__(self) -> str:
        return " ".join((self.device, self.precision, self.instructions, self.torch, self.ops))


class FusedNet(Protocol):
    """A network for inference.

    Attributes
    ----------
    form : Form
        What the last bits of its results depend on.
    architecture : Architecture
        Of the network it was made from.
    """

    form: Form
    architecture: Architecture

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute flows and logit, and the style, as `CPnet` does.

        Parameters
        ----------
        x : float32 tensor [B, n_inputs, *S]
            Normalised images; each axis a multiple of the divisor.

        Returns
        -------
        y : float32 tensor [B, n_outputs, *S]
            Five times the flow, the logit of being inside a cell, then classes.
        style : float32 tensor [B, widths[-1]]
            Of length one, or zero where the deepest map is.
        """


def fuse(net: CPnet, *, precision: Precision, device: str | torch.device) -> FusedNet:
    """Turn a network into its form for inference.

    On the CPU the result of a sample depends neither on the rest of its batch nor on the number
    of threads, bit for bit.

    Parameters
    ----------
    net : CPnet
        Not changed.
    precision : {'fp32', 'bf16'}
        Type of maps and weights.
    device : str or torch.device
        Where to compute.

    Returns
    -------
    FusedNet
        Callable, with a `form`.
    """
    if precision not in DTYPES:
        raise ValueError(f"precision is one of {', '.join(DTYPES)}, got {precision!r}.")
    device = torch.device(device)
    if device.type == "cpu":
        return CpuNet(net, precision)
    return DeviceNet(net, precision, device)


def choose_precision(device: str | torch.device) -> Precision:
    """Return the fast type of a device: bf16 where it multiplies in hardware.

    Parameters
    ----------
    device : str or torch.device
        Where to compute.

    Returns
    -------
    str
        `fp32` or `bf16`.
    """
    if torch.device(device).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if torch.device(device).type != "cpu":
        return "fp32"
    return "bf16" if bf16_instructions() else "fp32"


def bf16_instructions() -> list[str]:
    """Name the instructions of this CPU that multiply bf16."""
    tests = {
        "AMX": "_is_amx_tile_supported",
        "AVX512_BF16": "_is_avx512_bf16_supported",
    }
    return [name for name, test in tests.items() if getattr(torch.cpu, test, bool)()]


class CpuNet:
    """The network on the CPU, one sample at a time: batches gain nothing and cost cache."""

    def __init__(self, net: CPnet, precision: Precision) -> None:
        self.architecture = net.architecture
        self.dtype = DTYPES[precision]
        ops_name = choose_ops(net.architecture.ndim, self.dtype)
        self.ops = OPS[ops_name]
        instructions = (torch.backends.cpu.get_cpu_capability(), *bf16_instructions())
        self.form = Form("cpu", precision, "+".join(instructions), torch.__version__, ops_name)
        self.pool = POOL[net.architecture.ndim](2)
        self.down, self.up = fold_blocks(net, Target(self.ops, self.dtype))
        self.norm = Affine.of(net.output[0]).kernel(net.architecture.ndim, self.dtype)
        # An image has more grey values than the eight bits of bfloat16: its last layer is float32.
        exact = torch.float32 if net.architecture.gives_image else self.dtype
        self.ends = OPS[choose_ops(net.architecture.ndim, exact)]
        self.last = conv_kernel(net.output[2], exact)

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        check_input(x, self.architecture)
        y = torch.empty(len(x), self.architecture.n_outputs, *x.shape[2:])
        style = torch.empty(len(x), self.architecture.widths[-1])
        for i, sample in enumerate(x.split(1) if len(x) else ()):
            # One channel is contiguous in any layout: by name, or all maps get the slow one.
            made = torch.empty_like(sample, dtype=self.dtype, memory_format=LAYOUT[sample.ndim - 2])
            sample = made.copy_(sample)
            y[i : i + 1], style[i : i + 1] = self.compute(sample)
        return y, style

    def compute(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute one sample."""
        maps: list[Tensor] = []
        for down in self.down:
            maps.append(down(self.pool(maps[-1]) if maps else x))  # [1, widths[n], *S/2^n]
        style = style_of(maps[-1])  # [1, widths[-1]]
        seen = style if self.architecture.style else torch.zeros_like(style)
        x = maps[-1]
        for up in reversed(self.up):
            x = up(x, maps.pop(), seen)  # [1, widths[n], *S/2^n]
        x = self.ops.conv_relu(x, self.norm, self.norm.bias)
        return self.ends.conv(x.to(self.last.weight.dtype), self.last), style


class DeviceNet:
    """The network as it is on another device, for a whole batch."""

    def __init__(self, net: CPnet, precision: Precision, device: torch.device) -> None:
        self.architecture = net.architecture
        self.device = device
        self.dtype = DTYPES[precision]
        layout = LAYOUT[net.architecture.ndim]
        self.net = copy.deepcopy(net).eval()
        self.net.to(device, memory_format=layout)  # type: ignore[call-overload]
        if net.architecture.gives_image:
            self.net.output[2] = InFloat32(self.net.output[2], device.type)
        self.form = Form(
            device.type, precision, device_instructions(device), torch.__version__, "module"
        )

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.to(self.device).contiguous(memory_format=LAYOUT[self.architecture.ndim])
        half = torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)
        # No TF32: fp32 is the portable choice, so it is what its name says.
        exact = torch.backends.cudnn.flags(deterministic=True, benchmark=False, allow_tf32=False)
        with half, exact:
            y, style = self.net(x)
        return y.float(), style.float()


class InFloat32(torch.nn.Module):
    """A layer that is computed in float32 whatever the rest is computed in.

    Parameters
    ----------
    layer : torch module
        The layer.
    kind : str
        Of the device.
    """

    def __init__(self, layer: torch.nn.Module, kind: str) -> None:
        super().__init__()
        self.layer, self.kind = layer, kind

    def forward(self, x: Tensor) -> Tensor:
        """Compute it."""
        with torch.autocast(self.kind, enabled=False):
            found: Tensor = self.layer(x.float())
        return found


def device_instructions(device: torch.device) -> str:
    """Name the generation of a device."""
    if device.type != "cuda":
        return device.type
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))
