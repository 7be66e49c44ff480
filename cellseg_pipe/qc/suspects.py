"""Which blocks of an image are unlike the others: blurred, lost, of other brightness, saturated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.qc.blocks import FIGURES

__all__ = ["KINDS", "robust_z", "scores_of", "suspects_of", "unevenness"]

KINDS = ("focus", "brightness", "blank", "saturated")
MAD_SIGMA = 1.4826  # standard deviations of a normal distribution per median deviation
FAR = 3.5  # standard deviations from the median of all blocks
BLURRED = 0.6  # of the usual sharpness
OTHER_LEVEL = 0.25  # of the usual range of grey values
OTHER_GAIN = 1.5  # of the usual noise
SATURATED = 0.01  # of the pixels
NEVER = 1e-12  # a spread that is none


def robust_z(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how many standard deviations values lie from their median, whatever the outliers.

    Parameters
    ----------
    values : float64 array [n, ...]
        Over the first axis; nan where nothing is known.

    Returns
    -------
    float64 array [n, ...]
        nan where nothing is known.
    """
    known = np.isfinite(values)
    if not known.any():
        return np.full(values.shape, np.nan)
    with np.errstate(invalid="ignore"):
        filled = np.ma.masked_invalid(values)
        middle = np.ma.median(filled, axis=0)
        spread = MAD_SIGMA * np.ma.median(np.ma.abs(filled - middle), axis=0)
        floor = np.ma.abs(middle) * 1e-6 + NEVER
        scored = (filled - middle) / np.ma.maximum(spread, floor)
    return np.asarray(scored.filled(np.nan), np.float64)


def scores_of(figures: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return how unlike the others each block is; more is worse, nan is not known.

    Parameters
    ----------
    figures : float64 array [n, c, len(FIGURES)]
        Of all blocks, by channel.

    Returns
    -------
    dict of str to float64 array [n, c]
        By the names of `KINDS`: `focus` and `brightness` in standard deviations, `blank` likewise
        and infinite for a block of one value, `saturated` the share of pixels at the highest value
        of the image.
    """
    part = dict(zip(FIGURES, np.moveaxis(figures, 2, 0), strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = {name: np.log(part[name]) for name in ("focus", "noise", "spread")}
    logs = {name: np.where(np.isfinite(values), values, np.nan) for name, values in logs.items()}
    constant = part["spread"] <= NEVER
    level = np.where(constant, np.nan, part["low"])
    noise = np.where(constant, np.nan, logs["noise"])
    brightness = np.fmax(np.abs(robust_z(level)), np.abs(robust_z(noise)))
    at_top = part["top"] >= part["top"].max(axis=0, keepdims=True)
    return {
        "focus": -robust_z(logs["focus"]),
        "brightness": brightness,
        "blank": np.where(constant, np.inf, -robust_z(logs["spread"])),
        "saturated": np.where(at_top & ~constant, part["at_top"], 0.0),
    }


def suspects_of(
    figures: NDArray[np.float64], n_px: NDArray[np.int64]
) -> dict[str, NDArray[np.bool_]]:
    """Return which blocks are to be looked at: far from the others, and by enough to matter.

    Parameters
    ----------
    figures : float64 array [n, c, len(FIGURES)]
        Of all blocks, by channel.
    n_px : int64 array [n]
        Pixels of each block.

    Returns
    -------
    dict of str to bool array [n, c]
        By the names of `KINDS`.
    """
    part = dict(zip(FIGURES, np.moveaxis(figures, 2, 0), strict=True))
    scores = scores_of(figures)
    constant = np.isinf(scores["blank"])  # says nothing of what is usual, where the image has light
    usual = {
        name: _median(np.where(constant, np.nan, part[name]))
        for name in ("focus", "low", "high", "noise")
    }
    reach = np.maximum(usual["high"] - usual["low"], NEVER)
    with np.errstate(invalid="ignore", divide="ignore"):
        gain = np.abs(np.log(part["noise"] / usual["noise"])) > np.log(OTHER_GAIN)
        blurred = part["focus"] < BLURRED * usual["focus"]
    other = np.abs(part["low"] - usual["low"]) > OTHER_LEVEL * reach
    return {
        "focus": (scores["focus"] > FAR) & blurred,
        "brightness": (scores["brightness"] > FAR) & (gain | other) & ~constant,
        "blank": constant,
        "saturated": scores["saturated"] > SATURATED * n_px[:, None],
    }


def _median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the median of what is known over blocks; nan where nothing is."""
    found = np.ma.median(np.ma.masked_invalid(values), axis=0)
    return np.ma.filled(np.ma.atleast_1d(found).astype(np.float64), np.nan)


def unevenness(figures: NDArray[np.float64], middle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how much the ground gets brighter over the image, as a share of the grey values used.

    A curved surface is laid through the low grey values of all blocks.

    Parameters
    ----------
    figures : float64 array [n, c, len(FIGURES)]
        Of all blocks, by channel.
    middle : float64 array [n, ndim]
        Of each block.

    Returns
    -------
    float64 array [c]
        From 0; nan where blocks are too few to tell.
    """
    part = dict(zip(FIGURES, np.moveaxis(figures, 2, 0), strict=True))
    place = middle[:, -2:] - middle[:, -2:].mean(axis=0)
    y, x = (place / np.maximum(np.abs(place).max(axis=0), 1.0)).T
    terms = np.stack([np.ones(len(y)), y, x, y * y, x * y, x * x], axis=1)
    found = []
    for low, high, spread in zip(part["low"].T, part["high"].T, part["spread"].T, strict=True):
        rows = spread > NEVER
        reach = np.median(high[rows]) - np.median(low[rows]) if rows.any() else 0.0
        if rows.sum() < 2 * terms.shape[1] or reach <= NEVER:
            found.append(np.nan)
            continue
        surface = terms[rows] @ np.linalg.lstsq(terms[rows], low[rows], rcond=None)[0]
        found.append(float(np.ptp(surface) / reach))
    return np.array(found)
