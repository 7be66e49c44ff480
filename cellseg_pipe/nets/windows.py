"""Runs a network over an image window by window, alike for any box."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box, ceil_div
from cellseg_pipe.tiles import Lattice

if TYPE_CHECKING:
    import torch

__all__ = ["Network", "Record", "View", "nothing", "predict", "view_of", "views_from"]

FLOW_SCALE = 5.0  # networks are trained on five times the flow; everywhere else it has length one
BORDER_PX = 8  # as the peer
FLOW_MAX = 100.0  # a network gone wild stays within what can be followed
LOGIT_MAX = 30.0  # beyond it a probability is 0 or 1 in float32
WINDOWS_AT_ONCE = 8  # on a GPU; a CPU is faster with one, whose maps stay in its cache
VOXELS_AT_ONCE = 1 << 21  # cubes of 128 px one by one: eight would take 14 GB and more

# What makes the input of a window: float32 [n_inputs, *box], or None where there is nothing.
Source = Callable[[Box], NDArray[np.float32] | None]


class Network(Protocol):
    """What can be run on windows."""

    @property
    def device(self) -> str:
        """Where it lies."""

    @property
    def n_outputs(self) -> int:
        """Channels of its output."""

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return outputs [B, n_outputs, *edge], with five times the flow, and styles [B, n].

        Parameters
        ----------
        x : float32 tensor [B, n_inputs, *edge]
            Normalised images.
        """


@dataclass(frozen=True)
class View:
    """How a network looks at an image: along which axes, in which windows.

    Parameters
    ----------
    lattice : Lattice
        The windows, over the network's grid and a border round it; one voxel thick along an axis
        that is not seen.
    axes : tuple of int
        Axes of the image that are the network's own, in its order.
    border_px : tuple of int
        How far the lattice reaches beyond the image per axis. There the input is 0, so that a cell
        on the border looks as if it ended there, as networks have learned.
    """

    lattice: Lattice
    axes: tuple[int, ...]
    border_px: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the image on the network's grid."""
        return tuple(n - 2 * b for n, b in zip(self.lattice.shape, self.border_px, strict=True))

    def box(self, index: tuple[int, ...]) -> Box:
        """Return a window on the network's grid; it may reach beyond the image.

        Parameters
        ----------
        index : tuple of int
            The window's place.

        Returns
        -------
        Box
            Its pixels.
        """
        return self.lattice.box(index).shift(tuple(-b for b in self.border_px))

    def over(self, box: Box) -> Iterator[tuple[int, ...]]:
        """Yield the windows that meet a box, ascending: the order of blending.

        Parameters
        ----------
        box : Box
            On the network's grid.

        Yields
        ------
        tuple of int
            The window's place.
        """
        return self.lattice.over(box.shift(self.border_px))

    def edge(self, index: tuple[int, ...]) -> tuple[int, ...]:
        """Return the edge of a window along the network's axes.

        Parameters
        ----------
        index : tuple of int
            The window's place.

        Returns
        -------
        tuple of int
            In px of the network's grid.
        """
        shape = self.lattice.box(index).shape
        return tuple(shape[axis] for axis in self.axes)


@dataclass(frozen=True)
class Record:
    """What a network says of one window, as it is stored.

    Parameters
    ----------
    index : tuple of int
        The window's place in the lattice.
    values : float16 array [n_outputs, *edge]
        Flow as unit vectors, one component per axis of the network; logit; classes.
    style : float32 array [n]
        The network's style, of length one; zero where the window was left out.
    """

    index: tuple[int, ...]
    values: NDArray[np.float16]
    style: NDArray[np.float32]


def view_of(
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    *,
    window_px: int,
    overlap_px: int,
    divisor: int,
) -> View:
    """Lay windows over an image for a network that sees some of its axes.

    Parameters
    ----------
    shape : tuple of int
        Shape of the image on the network's grid.
    axes : tuple of int
        Axes that the network sees, ascending.
    window_px, overlap_px : int
        Largest edge of a window, and what neighbours share.
    divisor : int
        What the edge of a window must be a multiple of.

    Returns
    -------
    View
        The windows.
    """
    seen = [axis in axes for axis in range(len(shape))]
    border = tuple(BORDER_PX if s and n else 0 for s, n in zip(seen, shape, strict=True))
    lattice = Lattice(
        tuple(n + 2 * b for n, b in zip(shape, border, strict=True)),
        window=tuple(window_px if s else 1 for s in seen),
        overlap=tuple(overlap_px if s else 0 for s in seen),
        divisor=tuple(divisor if s else 1 for s in seen),
    )
    return View(lattice, axes, border)


def views_from(
    shape: tuple[int, ...],
    sides: Sequence[tuple[int, ...]],
    *,
    window_px: int,
    overlap_px: int,
    divisor: int,
) -> tuple[View, ...]:
    """Lay windows over an image for a network that looks at it from several sides.

    Parameters
    ----------
    shape : tuple of int
        Shape of the image on the network's grid.
    sides : sequence of tuple of int
        Axes that the network sees from each of them.
    window_px, overlap_px : int
        As asked for: windows are made larger to fit the network, and share half at most.
    divisor : int
        What the edge of a window must be a multiple of.

    Returns
    -------
    tuple of View
        In the order of the sides, in which they are summed.
    """
    size = ceil_div(window_px, divisor) * divisor
    overlap = min(overlap_px, size // 2)
    return tuple(
        view_of(shape, axes, window_px=size, overlap_px=overlap, divisor=divisor) for axes in sides
    )


def predict(
    net: Network,
    source: Source,
    view: View,
    *,
    indices: Iterable[tuple[int, ...]],
    augment: bool = False,
) -> Iterator[Record]:
    """Run a network on windows, in the order given.

    Parameters
    ----------
    net : Network
        What is run.
    source : callable
        Gives the input of a box, or None for a window to leave out.
    view : View
        The windows.
    indices : iterable of tuple of int
        Which ones.
    augment : bool
        Average over all mirror images of the window.

    Yields
    ------
    Record
        One per window.
    """
    at_once = windows_at_once(net, view)
    ahead = iter(indices)
    while batch := list(itertools.islice(ahead, at_once)):
        inputs = {index: window_input(source, view, index) for index in batch}
        outputs = dict(_run_alike(net, inputs, at_once=at_once, augment=augment))
        for index in batch:
            shape = view.lattice.box(index).shape
            if index not in outputs:
                left_out = nothing(shape, net.n_outputs, n_axes=len(view.axes))
                yield Record(index, left_out, np.zeros(0, np.float32))
            else:
                values, style = outputs[index]
                yield Record(index, through_door(values, shape), style)


def windows_at_once(net: Network, view: View) -> int:
    """Return how many windows are computed together: always so many, as last bits depend on it.

    Parameters
    ----------
    net : Network
        What is run.
    view : View
        The windows.

    Returns
    -------
    int
        1 on a CPU, and where the network takes its windows one by one anyway.
    """
    if net.device == "cpu" or getattr(net, "one_by_one", False):
        return 1
    return max(1, min(WINDOWS_AT_ONCE, VOXELS_AT_ONCE // math.prod(view.lattice.edge)))


def window_input(source: Source, view: View, index: tuple[int, ...]) -> NDArray[np.float32] | None:
    """Return the input of a window along the network's axes, zero beyond the image.

    Parameters
    ----------
    source : callable
        Gives the input of a box.
    view : View
        The windows.
    index : tuple of int
        The window's place.

    Returns
    -------
    float32 array [n_inputs, *edge] or None
        None where the source has nothing.
    """
    box = view.box(index)
    inside = box.clip(Box.of(view.shape))
    pixels = source(inside) if inside.size else None
    if pixels is None:
        return None
    padded = np.zeros((len(pixels), *box.shape), np.float32)
    padded[(slice(None), *inside.relative_to(box.start).slices)] = pixels
    return padded.reshape(len(pixels), *view.edge(index))


def _run_alike(
    net: Network,
    inputs: dict[tuple[int, ...], NDArray[np.float32] | None],
    *,
    at_once: int,
    augment: bool,
) -> Iterator[tuple[tuple[int, ...], tuple[NDArray[np.float32], NDArray[np.float32]]]]:
    """Yield the answers of those windows that have an input, equal shapes as one batch.

    Batches are always of one size, as a GPU computes others otherwise: in the last bits an answer
    would depend on which windows happen to be computed together.
    """
    alike: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for index, x in inputs.items():
        if x is not None:
            alike.setdefault(x.shape, []).append(index)
    for indices in alike.values():
        some = [x for index in indices if (x := inputs[index]) is not None]
        batch = np.stack(some + [np.zeros_like(some[0])] * (at_once - len(some)))
        answers = zip(*_run(net, batch, augment=augment), strict=True)
        yield from zip(indices, answers, strict=False)


def _run(
    net: Network, inputs: NDArray[np.float32], *, augment: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return outputs [B, n_outputs, *edge] with unit flows, and styles [B, n]."""
    import torch  # here: what only blends windows must start quickly

    ndim = inputs.ndim - 2
    flips = [axes for n in range(ndim + 1) for axes in itertools.combinations(range(ndim), n)]
    total, styles = np.zeros((), np.float32), np.zeros((), np.float32)
    for axes in flips if augment else flips[:1]:
        mirror = tuple(2 + axis for axis in axes)
        x = torch.from_numpy(np.ascontiguousarray(np.flip(inputs, mirror)))
        with torch.inference_mode():
            y, style = net(x.to(net.device))
        outputs = np.flip(y.float().cpu().numpy(), mirror).copy()
        outputs[:, :ndim] /= np.float32(FLOW_SCALE)
        for axis in axes:  # mirrored, a flow component points the other way
            outputs[:, axis] *= np.float32(-1)
        total = total + outputs
        styles = styles + style.float().cpu().numpy()
    n = np.float32(len(flips) if augment else 1)
    return np.asarray(total / n), np.asarray(styles / n)


def through_door(outputs: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Round a window's output to what is kept of it, the same whether it is stored or not.

    Parameters
    ----------
    outputs : float32 array [n_outputs, *edge]
        Unit flows, logit, classes, along the network's axes.
    shape : tuple of int
        Of the window, along all axes of the image.

    Returns
    -------
    float16 array [n_outputs, *shape]
        Flow within what float16 holds, logit and classes between -30 and 30.
    """
    ndim = outputs.ndim - 1
    kept = np.clip(outputs, -FLOW_MAX, FLOW_MAX)
    kept[ndim:] = np.clip(kept[ndim:], -LOGIT_MAX, LOGIT_MAX)
    return kept.astype(np.float16).reshape(len(outputs), *shape)


def nothing(shape: tuple[int, ...], n_outputs: int, *, n_axes: int) -> NDArray[np.float16]:
    """Return what stands for a window that was left out: no flow, surely background.

    Parameters
    ----------
    shape : tuple of int
        Of the window, along all axes of the image.
    n_outputs : int
        Channels of a record.
    n_axes : int
        Of these, components of the flow.

    Returns
    -------
    float16 array [n_outputs, *shape]
        A record's values.
    """
    values = np.zeros((n_outputs, *shape), np.float16)
    values[n_axes] = -LOGIT_MAX
    return values
