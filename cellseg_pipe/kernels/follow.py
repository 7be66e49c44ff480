"""Follows flows: where a particle that starts on each foreground pixel comes to rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.kernels._checks import Backend, as_count, as_flow, loops

__all__ = ["Ends", "Mode", "Sampling", "follow_flows"]

Mode = Literal["exact", "fast"]
Sampling = Literal["linear", "nearest"]
ONE = 4096  # positions are integers in this part of a pixel
STEP_MAX = 1024  # px of a component; a larger one is refused
# px along an axis: from its end one such step, rounded up to whole pixels, stays in 32 bits.
AXIS_MAX = (1 << 19) - STEP_MAX - 2
REACH_MAX = (1 << 15) - 2  # px; jumps keep distances in 16 bits
NO_REACH = 1 << 40  # px; no path is as long
_LOOPS: dict[Mode, str] = {"exact": "follow_flows", "fast": "jump_flows"}


@dataclass(frozen=True)
class Ends:
    """Where particles came to rest.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array.
    start : int64 array [n]
        Flat index of the pixel that each particle starts on, ascending.
    end : int32 array [n, ndim]
        Where it rests, in 1/4096 px.
    verdict : uint8 array [n]
        0 where the particle counts; 1 where its path strays more than the reach from its end, 2
        where it crosses an edge of the window beyond which the image goes on.
    """

    shape: tuple[int, ...]
    start: NDArray[np.int64]
    end: NDArray[np.int32]
    verdict: NDArray[np.uint8]

    @property
    def position(self) -> NDArray[np.float64]:
        """Where particles rest, in px [n, ndim]; exact."""
        return self.end / float(ONE)

    @property
    def n_too_far(self) -> int:
        """Particles dropped because their path strays too far."""
        return int(np.count_nonzero(self.verdict == 1))

    @property
    def n_over_edge(self) -> int:
        """Particles dropped because their path leaves the window."""
        return int(np.count_nonzero(self.verdict == 2))


def follow_flows(
    flow: ArrayLike,
    foreground: ArrayLike,
    *,
    n_steps: int = 200,
    mode: Mode = "exact",
    sampling: Sampling = "linear",
    reach_px: int | Sequence[int] | None = None,
    open_edges: Sequence[tuple[bool, bool]] | None = None,
    threads: int | None = None,
    backend: Backend = "numba",
) -> Ends:
    """Follow the flow from each foreground pixel.

    A step adds the flow at the particle's position, interpolated between pixels, with no flow
    outside the foreground. Positions are cut to the array.

    Parameters
    ----------
    flow : float32 array [ndim, *spatial]
        Displacement per step in px, for cells unit vectors; 2 or 3 spatial axes. Components of more
        than 1024 px are refused.
    foreground : bool array [*spatial]
        Where particles start.
    n_steps : int
        Steps of each particle.
    mode : {"exact", "fast"}
        Exact walks every particle, and stops early only where that cannot change the end. Fast
        walks a few steps, goes on from the nearest foreground pixel, and walks the remaining
        particles until rest: the same cell for about 99.99 % of the pixels. Jumps and walk may be
        up to twice n_steps, which matters where particles have not come to rest; below 24 steps,
        three jumps, fast walks exactly.
    sampling : {"linear", "nearest"}
        Whether the flow at a particle is interpolated, or that of the pixel that holds it.
    reach_px : int or sequence of int, optional
        A particle counts only if its whole path lies this close to its end along each axis, at
        most 32,766 px. Then a crop with enough margin gives the same cells as the whole. By default
        paths of any length count.
    open_edges : sequence of (bool, bool), optional
        Per axis, whether the image goes on before and after the array. A path that leaves there
        does not count. By default the array is the whole image.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    Ends
        One entry per foreground pixel.
    """
    flow, mask = as_flow(flow, foreground, "follow_flows")
    shape = mask.shape
    n_steps = as_count(n_steps, "n_steps")
    if mode not in get_args(Mode) or sampling not in get_args(Sampling):
        raise ValueError(
            "follow_flows needs mode exact or fast and sampling linear or nearest, got"
            f" {mode!r} and {sampling!r}."
        )
    if max(shape) > AXIS_MAX or np.count_nonzero(mask) >= 2**31:
        raise ValueError(
            f"follow_flows needs axes of at most {AXIS_MAX} px and fewer than 2^31 foreground"
            f" pixels, got shape {shape}. Cut the image into tiles."
        )
    edges = _as_edges(open_edges, mask.ndim)
    if mode == "fast" and reach_px is None and edges.any() and max(shape) > REACH_MAX:
        raise ValueError(
            f"follow_flows needs a reach where edges are open along more than {REACH_MAX} px in"
            f" fast mode, got shape {shape}. Give reach_px, or smaller tiles."
        )
    follow = getattr(loops(backend, threads), _LOOPS[mode])
    ends = follow(
        flow,
        mask,
        n_steps=n_steps,
        linear=sampling == "linear",
        reach=_as_reach(reach_px, mask.ndim),
        edges=edges.astype(np.uint8).ravel(),
        threads=threads,
    )
    return Ends(shape, *ends)


def _as_edges(open_edges: Sequence[tuple[bool, bool]] | None, ndim: int) -> NDArray[np.bool_]:
    """Return which edges are open [ndim, 2]."""
    edges = np.asarray([(False, False)] * ndim if open_edges is None else open_edges)
    if edges.shape != (ndim, 2) or edges.dtype != bool:
        raise ValueError(
            f"follow_flows needs two open_edges, True or False, for each of {ndim} axes, got"
            f" {open_edges}."
        )
    return edges


def _as_reach(reach_px: int | Sequence[int] | None, ndim: int) -> NDArray[np.int64]:
    """Return the reach along each axis."""
    reach = np.asarray(NO_REACH if reach_px is None else reach_px)
    whole = reach.dtype.kind in "iu" and reach.shape in ((), (ndim,))
    if not whole or (reach < 0).any() or (reach_px is not None and (reach > REACH_MAX).any()):
        raise ValueError(
            f"follow_flows needs a reach of 0 or more whole px, at most {REACH_MAX}, one for all or"
            f" one for each of {ndim} axes, got {reach_px}. None lets paths be of any length."
        )
    return np.array(np.broadcast_to(reach, (ndim,)), np.int64)
