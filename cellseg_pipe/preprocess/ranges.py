"""The range of grey values of each input: found once from a sample, applied pixel by pixel."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.preprocess.channels import Pick

__all__ = ["Range", "apply_ranges", "input_ranges", "is_blank", "percentile_range", "quantiles"]

FARTHEST = np.float32(1e6)  # times the range: beyond any image, within what a network can take
FLOAT_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Range:
    """The grey values that become 0 and 1.

    Parameters
    ----------
    low, high : float
        Values that float32 holds exactly; a range of no extent turns its input into zeros.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        """Round to float32 once, so that a stored plan means the same."""
        for name in ("low", "high"):
            value = float(getattr(self, name))
            if not abs(value) <= FLOAT_MAX:
                raise ValueError(
                    f"Range needs two finite float32 values, got {self.low} to {self.high}."
                )
            object.__setattr__(self, name, float(np.float32(value)))
        if self.low > self.high:
            raise ValueError(
                f"Range needs low <= high, got {self.low} to {self.high}. Swap them, and invert"
                " if dark cells are meant."
            )

    @property
    def flat(self) -> bool:
        """Whether the input has no contrast, and is zeros once normalised."""
        return self.high == self.low or not 1 / (self.high - self.low) <= FLOAT_MAX

    @property
    def factor(self) -> np.float32:
        """What grey values above `low` are multiplied by; 0 for a flat range."""
        return np.float32(0 if self.flat else 1 / (self.high - self.low))


def percentile_range(
    blocks: Iterable[ArrayLike], percentiles: tuple[float, float] = (1.0, 99.0)
) -> Range:
    """Return the range between two percentiles of one input's sampled pixels.

    Blocks of one grey value throughout are background (never acquired, masked out, saturated) and
    are left out, unless all of them are.

    Parameters
    ----------
    blocks : iterable of real array
        Pixels of the sampled boxes.
    percentiles : tuple of float
        From 0 to 100, the lower one first. Between two pixels they are interpolated linearly.

    Returns
    -------
    Range
        Flat if the input has no contrast, or no pixels.
    """
    values = [np.asarray(block).astype(np.float32).ravel() for block in blocks]
    values = [block for block in values if block.size]
    varied = [block for block in values if (block != block[0]).any()]
    low, high = quantiles(
        np.concatenate([np.zeros(0, np.float32), *(varied or values)]), percentiles
    )
    return Range(low, high)


def input_ranges(
    blocks: Sequence[NDArray[np.float32]],
    picks: Sequence[Pick],
    *,
    percentiles: tuple[float, float] = (1.0, 99.0),
    given: tuple[float, float] | None = None,
) -> tuple[Range, ...]:
    """Return the range of each input of the network, from the inputs of the sampled boxes.

    Parameters
    ----------
    blocks : sequence of float32 array [n_inputs, *spatial]
        What `gather_channels` gives for each of `sample_boxes`.
    picks : sequence of Pick
        What each input takes. One that takes nothing gets a flat range, and so stays zero.
    percentiles : tuple of float
        See `percentile_range`.
    given : tuple of float, optional
        Low and high, to be taken as they are for every input that takes something.

    Returns
    -------
    tuple of Range
        One per input. Warn of those that are `flat` although the input takes something.
    """
    if given is not None and not given[0] < given[1]:
        raise ValueError(
            f"range needs two numbers, the lower one first, got {given[0]} to {given[1]}."
        )
    found = []
    for number, pick in enumerate(picks):
        if pick.kind == "zero":
            found.append(Range(0, 0))
        elif given is not None:
            found.append(Range(*given))
        else:
            found.append(percentile_range((block[number] for block in blocks), percentiles))
    return tuple(found)


def apply_ranges(
    inputs: NDArray[np.float32],
    ranges: Sequence[Range],
    *,
    invert: bool = False,
) -> NDArray[np.float32]:
    """Bring each input to its range: 0 at its low end, 1 at its high end, on beyond both.

    Parameters
    ----------
    inputs : float32 array [n_inputs, *spatial]
        From `gather_channels`.
    ranges : sequence of Range
        One per input. A flat one makes zeros, also when inverted.
    invert : bool
        Turn x into 1 - x: dark cells on bright ground.

    Returns
    -------
    float32 array [n_inputs, *spatial]
        (x - low) * factor, both steps rounded to float32; finite.
    """
    result = np.zeros(inputs.shape, np.float32)
    for row, values, span in zip(result, inputs, ranges, strict=True):
        if span.flat:
            continue
        with np.errstate(over="ignore"):  # a range next to nothing, a pixel far from it
            np.subtract(values, np.float32(span.low), out=row)
            row *= span.factor
        np.clip(row, -FARTHEST, FARTHEST, out=row)
        if invert:
            np.subtract(np.float32(1), row, out=row)
    return result


def is_blank(inputs: NDArray[np.float32]) -> bool:
    """Tell whether every input is of one value throughout: nothing for the network to see.

    Parameters
    ----------
    inputs : float32 array [n_inputs, *spatial]
        Inputs of one window, before or after normalising.

    Returns
    -------
    bool
        True also where there are no pixels.
    """
    return all((values == values.flat[0]).all() for values in inputs if values.size)


def quantiles(values: NDArray[np.float32], percentiles: tuple[float, float]) -> tuple[float, float]:
    """Return two percentiles of pixels, interpolated linearly in float64 between pixels.

    Parameters
    ----------
    values : float32 array [n]
        The pixels; finite. Two zeros for none.
    percentiles : tuple of float
        From 0 to 100, the lower one first.

    Returns
    -------
    tuple of float
        What `numpy.percentile` gives for the same pixels in float64.
    """
    low, high = percentiles
    if not 0 <= low <= high <= 100:
        raise ValueError(
            f"percentiles needs two numbers from 0 to 100, the lower one first, got {low}, {high}."
        )
    if values.size == 0:
        return 0.0, 0.0
    if not np.isfinite(values).all():
        raise ValueError(
            "percentiles need finite pixels, got some that are NaN or infinite. Run check_finite"
            " on the sampled boxes: it says where."
        )
    places = [(values.size - 1) * (percentile / 100) for percentile in percentiles]
    below = [min(math.floor(place), values.size - 1) for place in places]
    above = [min(place + 1, values.size - 1) for place in below]
    ordered = np.partition(values, sorted({*below, *above}))
    ends = [
        _between(float(ordered[a]), float(ordered[b]), place - a)
        for a, b, place in zip(below, above, places, strict=True)
    ]
    return ends[0], ends[1]


def _between(first: float, second: float, share: float) -> float:
    """Return the point between two values, exact at both ends."""
    step = second - first
    return second - step * (1 - share) if share >= 0.5 else first + step * share
