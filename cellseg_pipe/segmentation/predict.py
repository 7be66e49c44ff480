"""From an image to the network's answer for any box of its grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import resample
from cellseg_pipe.nets.blending import blend_answers
from cellseg_pipe.nets.windows import Network, Record, View, predict
from cellseg_pipe.preprocess import gaussian, gaussian_halo_px
from cellseg_pipe.segmentation.plan import Plan

__all__ = ["Answer", "Records", "answer_of", "on_walked_grid", "records_of"]

# Gives the windows of a view that meet a box, ascending: computed now, or stored before.
Records = Callable[[View, Box], Iterator[Record]]


@dataclass(frozen=True)
class Answer:
    """What the network says of a box.

    Parameters
    ----------
    flow : float32 array [n_axes, *box]
        Along the plan's flow axes.
    logit : float32 array [*box]
        Above the threshold in cells.
    classes : float32 array [n_classes, *box]
        Further outputs.
    spread : float32 array [*box]
        Weighted variance of the probabilities that windows and views give a pixel; 0 where one
        window alone sees it.
    style : float32 array [n]
        Mean style of the windows, of length one.
    """

    flow: NDArray[np.float32]
    logit: NDArray[np.float32]
    classes: NDArray[np.float32]
    spread: NDArray[np.float32]
    style: NDArray[np.float32]


def records_of(
    nets: tuple[Network, ...],
    source: Callable[[Box], NDArray[np.float32] | None],
    plan: Plan,
    *,
    progress: Callable[[int], None] | None = None,
) -> Records:
    """Return what computes windows when they are asked for.

    Parameters
    ----------
    nets : tuple of Network
        The network, and if there is another one that of the side views.
    source : callable
        Gives the network's input of a box of its grid.
    plan : Plan
        Of the image.
    progress : callable, optional
        Is told of windows that are done.

    Returns
    -------
    callable
        From a view and a box to its records.
    """

    def compute(view: View, box: Box) -> Iterator[Record]:
        net = nets[0] if view == plan.views[0] else nets[-1]
        found = predict(
            net,
            source,
            view,
            indices=view.over(box),
            augment=plan.settings.augment,
        )
        for record in found:
            yield record
            if progress:
                progress(1)

    return compute


def answer_of(records: Records, plan: Plan, box: Box) -> Answer:
    """Blend the windows of each view and take the mean of what several of them say.

    Parameters
    ----------
    records : callable
        Gives the windows.
    plan : Plan
        Of the image.
    box : Box
        On the network's grid.

    Returns
    -------
    Answer
        For this box.
    """
    axes = plan.flow_axes
    seen = {axis: sum(axis in view.axes for view in plan.views) for axis in axes}
    flow = np.zeros((len(axes), *box.shape), np.float32)
    rest: NDArray[np.float32] | None = None  # logit, classes, probability, its square
    style = np.zeros(1, np.float32)
    for view in plan.views:
        outputs, view_style = blend_answers(records(view, box), view, box, n_outputs=plan.n_outputs)
        for component, axis in enumerate(view.axes):
            flow[axes.index(axis)] += outputs[component]
        further = outputs[len(view.axes) :]
        if rest is None:
            rest, style = further.copy() if len(plan.views) > 1 else further, view_style
        else:
            rest += further
        del outputs, further  # before the next view has its own
    if rest is None:
        raise ValueError("a plan needs one view or more, got none.")
    for component, axis in enumerate(axes):
        if seen[axis] > 1:
            flow[component] /= np.float32(seen[axis])
    if len(plan.views) > 1:
        rest /= np.float32(len(plan.views))
    spread = rest[-1]
    spread -= rest[-2] * rest[-2]
    return Answer(flow, rest[0], rest[1:-2], np.maximum(spread, 0, out=spread), style)


def smoothing_halo(plan: Plan) -> tuple[int, ...]:
    """Return what smoothing the flow reads beyond a box of the network's grid.

    Parameters
    ----------
    plan : Plan
        Of the image.

    Returns
    -------
    tuple of int
        Per axis.
    """
    return gaussian_halo_px(_flow_sigma(plan))


def _flow_sigma(plan: Plan) -> tuple[float, ...]:
    sigma = plan.settings.flow_smooth_px if plan.mode == "3d" else 0.0
    return (sigma,) * len(plan.shape)


def on_walked_grid(records: Records, plan: Plan, box: Box) -> Answer:
    """Return the network's answer on the grid on which particles follow the flow.

    Parameters
    ----------
    records : callable
        Gives the windows.
    plan : Plan
        Of the image.
    box : Box
        On the grid that particles walk on.

    Returns
    -------
    Answer
        For this box.
    """
    back = plan.walks_level_0 and not plan.scale.identity
    needed = plan.scale.back_box(box, plan.shape) if back else box
    wide = needed.grow(smoothing_halo(plan)).clip(Box.of(plan.grid_shape))
    answer = answer_of(records, plan, wide)
    flow = gaussian(
        answer.flow, _flow_sigma(plan), box=needed, origin=wide.start, shape=plan.grid_shape
    )
    if not back:
        inner = needed.relative_to(wide.start).slices
        classes = answer.classes[(slice(None), *inner)]
        return Answer(flow, answer.logit[inner], classes, answer.spread[inner], answer.style)

    def brought_back(values: NDArray[np.float32], start: tuple[int, ...]) -> NDArray[np.float32]:
        return resample(
            values,
            box=box,
            origin=start,
            source_shape=plan.grid_shape,
            num=plan.scale.den,
            den=plan.scale.num,
        )

    return Answer(
        brought_back(flow, needed.start),
        brought_back(answer.logit[None], wide.start)[0],
        brought_back(answer.classes, wide.start),
        brought_back(answer.spread[None], wide.start)[0],
        answer.style,
    )
