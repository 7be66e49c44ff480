"""Runs a network that restores images, one channel at a time, over windows of the global lattice.

Its answer is an image, not a flow, so what passes the door to float16 is grey values as they were
normalised: eleven bits of a value are far finer than the noise that was taken from it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.nets.windows import (
    Network,
    Record,
    Source,
    View,
    window_input,
    windows_at_once,
)

if TYPE_CHECKING:
    from cellseg_pipe.nets.checkpoint import Model
    from cellseg_pipe.nets.engine import Engine

__all__ = ["GREY_MAX", "restored_windows", "restorer_for"]

GREY_MAX = np.float32(60_000.0)  # times the range: within float16, beyond any image


def restorer_for(
    model: str | Path | Model | Engine,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> Engine:
    """Load a network that restores, unless it is loaded, and bring it to a device.

    Parameters
    ----------
    model : str, path, Model or Engine
        Name or file of a model, ours or the peer's, or one that is loaded.
    device : {"auto", "cpu", "cuda"}
        Where it runs.
    precision : {"auto", "fp32", "bf16"}
        Type of the maps.
    threads : int, optional
        Threads on a CPU.

    Returns
    -------
    Engine
        Ready to run.
    """
    from cellseg_pipe.nets.engine import Engine, check_same, loaded_engine

    if isinstance(model, Engine):
        _check_form(model.model)
        check_same(model, device=device, precision=precision)
        return model
    return loaded_engine(
        model, check=_check_form, device=device, precision=precision, threads=threads
    )


def _check_form(model: Model) -> None:
    form = model.info.architecture
    if model.info.task != "restoration" or (form.ndim, form.n_inputs, form.n_outputs) != (2, 1, 1):
        raise ValueError(
            f"restoring needs a 2D network from one channel to one, got {model.info.name}"
            f" ({model.summary}). Name one that restores: `cellseg models list` shows them."
        )


def restored_windows(
    net: Network, source: Source, view: View, *, indices: Iterable[tuple[int, ...]]
) -> Iterator[Record]:
    """Restore windows, in the order given, each channel by itself.

    Parameters
    ----------
    net : Network
        From one channel to one.
    source : callable
        Gives the normalised channels [C, *box] of a box.
    view : View
        The windows.
    indices : iterable of tuple of int
        Which ones.

    Yields
    ------
    Record
        One per window, with an image per channel. Where a channel is of one value throughout, as
        far as the image reaches, there is nothing to restore, and it stays: the style is 1 for
        each channel that does, else 0; empty where none does.
    """
    at_once = windows_at_once(net, view)
    ahead = iter(indices)
    while batch := list(itertools.islice(ahead, at_once)):
        inputs = [_input(source, view, index) for index in batch]
        stays = [_stays(pixels, view, index) for index, pixels in zip(batch, inputs, strict=True)]
        answers = _answers(net, inputs, stays, at_once=at_once)
        for index, values, still in zip(batch, answers, stays, strict=True):
            shape = (len(values), *view.lattice.box(index).shape)
            kept = np.clip(values, -GREY_MAX, GREY_MAX).astype(np.float16).reshape(shape)
            yield Record(index, kept, still.astype(np.float32)[: len(still) if still.any() else 0])


def _input(source: Source, view: View, index: tuple[int, ...]) -> NDArray[np.float32]:
    pixels = window_input(source, view, index)
    if pixels is None:
        raise ValueError("restoring needs the pixels of every window, got none of one.")
    return pixels


def _stays(pixels: NDArray[np.float32], view: View, index: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which channels [C] are of one value; what lies beyond the image is none of it."""
    box = view.box(index)
    inside = box.clip(Box.of(view.shape)).relative_to(box.start)
    image = pixels.reshape(len(pixels), *box.shape)[(slice(None), *inside.slices)]
    values = image.reshape(len(pixels), -1)
    return np.asarray((values == values[:, :1]).all(1))


def _answers(
    net: Network,
    inputs: list[NDArray[np.float32]],
    stays: list[NDArray[np.bool_]],
    *,
    at_once: int,
) -> list[NDArray[np.float32]]:
    """Return the images of each window [C, *edge], equal shapes together.

    Batches are always of one size, as a GPU computes others otherwise: in the last bits an answer
    would depend on which windows and channels happen to be computed together.
    """
    answers = [pixels.copy() for pixels in inputs]
    alike: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for n, pixels in enumerate(inputs):
        for channel, plane in enumerate(pixels):
            if not stays[n][channel]:
                alike.setdefault(plane.shape, []).append((n, channel))
    for places in alike.values():
        for first in range(0, len(places), at_once):
            some = places[first : first + at_once]
            planes = [inputs[n][c] for n, c in some]
            planes += [np.zeros_like(planes[0])] * (at_once - len(planes))
            for (n, c), image in zip(some, _run(net, np.stack(planes)[:, None]), strict=False):
                answers[n][c] = image
    return answers


def _run(net: Network, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the images [B, *edge] of a batch [B, 1, *edge]."""
    import torch  # here: what only blends windows must start quickly

    with torch.inference_mode():
        y, _ = net(torch.from_numpy(batch).to(net.device))
    return np.asarray(y.float().cpu().numpy()[:, 0])
