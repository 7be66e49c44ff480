"""Which channels of an image feed the network's inputs. Pointwise: a pixel's inputs are its own."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

__all__ = [
    "Pick",
    "check_finite",
    "check_shares",
    "gather_channels",
    "resolve_channels",
    "white_of",
]

Choice = int | str | None

# Optical densities of the stains in red, green, blue: Ruifrok and Johnston 2001, table 1.
STAINS = ("hematoxylin", "eosin", "dab")
DENSITIES = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
GREYS = ("grey", "gray")
BRIGHTEST = 2.0  # shares of the light have a median below it, whatever white was taken to be
DARKEST = 1 / 255  # share of the light below which no density is told apart; that of 8 bits


@dataclass(frozen=True)
class Pick:
    """What one input of the network takes from an image.

    Parameters
    ----------
    kind : {"channel", "grey", "zero", "stain"}
        One channel, the mean of all, nothing, or a stain unmixed from red, green and blue.
    index : int
        The channel, or the stain's place among hematoxylin, eosin and dab; 0 for other kinds.
    """

    kind: Literal["channel", "grey", "zero", "stain"]
    index: int = 0


ZERO = Pick("zero")


def resolve_channels(
    channels: Choice | Sequence[Choice],
    *,
    names: Sequence[str] | None,
    n_channels: int,
    n_inputs: int,
    rgb: bool = False,
) -> tuple[Pick, ...]:
    """Decide, once per image, what each input of the network takes.

    Parameters
    ----------
    channels : int, str, None or sequence of these
        Numbers from 0, names, "grey" (mean of all), "hematoxylin", "eosin" or "dab" (of a colour
        image), None or "" in a sequence for an input of zeros. A single None: all channels in
        order if there are as many as inputs, the only one, or grey of a colour image.
    names : sequence of str, optional
        Names of the image's channels.
    n_channels : int
        Channels of the image.
    n_inputs : int
        Inputs of the network.
    rgb : bool
        The image's channels are red, green and blue.

    Returns
    -------
    tuple of Pick
        One for each input; inputs that nothing was named for are zeros.
    """
    if n_channels < 1 or n_inputs < 1:
        raise ValueError(
            f"resolve_channels needs an image and a model of 1 channel or more, got {n_channels}"
            f" and {n_inputs}."
        )
    labels = tuple(names or ())
    if channels is None:
        picks = _usual(labels, n_channels, n_inputs, rgb=rgb)
    else:
        single = isinstance(channels, int | str | np.integer)
        wanted: Sequence[Any] = [channels] if single else list(channels)  # type: ignore[arg-type]
        picks = tuple(_pick(choice, labels, n_channels, rgb=rgb) for choice in wanted)
    if not 1 <= len(picks) <= n_inputs:
        raise ValueError(
            f"channels needs 1 to {n_inputs} entries, as many as the model has inputs, got"
            f" {len(picks)}: {channels!r}. Name fewer channels or take another model."
        )
    return picks + (ZERO,) * (n_inputs - len(picks))


def check_shares(pixels: NDArray[Any], *, white: float) -> None:
    """Refuse colours as floats that are no shares of the light: all of them would be white.

    Parameters
    ----------
    pixels : array [C, *spatial]
        Some of an image whose stains are wanted.
    white : float
        From `white_of`.
    """
    if pixels.dtype.kind != "f" or white != 1:
        return
    middle = float(np.median(pixels))
    if middle > BRIGHTEST:
        raise ValueError(
            f"stains need floats from 0 (no light) to 1 (white), got colours about {middle:g}."
            " Divide them by the value of white: 255 for what was restored from 8 bits, 65535"
            " from 16."
        )


def white_of(dtype: DTypeLike) -> float:
    """Return the grey value of white in colours of a type.

    Parameters
    ----------
    dtype : dtype
        Of the image.

    Returns
    -------
    float
        255, 65535, or 1 for floats and bools; 0 where stains are not unmixed.
    """
    kind = np.dtype(dtype)
    if kind.kind in "fb":
        return 1.0
    known = kind.kind == "u" and kind.itemsize <= 2
    return float(np.iinfo(kind).max) if known else 0.0


def gather_channels(
    pixels: ArrayLike, picks: Sequence[Pick], *, white: float = 1.0
) -> NDArray[np.float32]:
    """Make the network's inputs from an image's channels, pixel by pixel.

    Parameters
    ----------
    pixels : bool, integer or float array [C, *spatial]
        All the channels of a part of the image.
    picks : sequence of Pick
        What each input takes, from `resolve_channels`.
    white : float
        Of floats, the grey value of white, which stains are unmixed by; integers tell it.

    Returns
    -------
    float32 array [n_inputs, *spatial]
        The inputs, not yet normalised. Stains are optical densities, bright where there is stain.
    """
    image = np.asarray(pixels)
    if image.dtype.kind not in "biuf":
        raise TypeError(
            f"gather_channels needs pixels that are bool, integers or real floats, got"
            f" {image.dtype}. Take the real part or the magnitude of complex pixels first."
        )
    inputs = np.zeros((len(picks), *image.shape[1:]), np.float32)
    with np.errstate(over="ignore"):  # too large for float32 turns infinite: see check_finite
        for row, pick in zip(inputs, picks, strict=True):
            if pick.kind == "channel":
                row[...] = image[pick.index]
            elif pick.kind == "grey":
                _mean(image, row)
            elif pick.kind == "stain":
                _unmix(image, pick.index, row, white=white)
    return inputs


def check_finite(
    pixels: ArrayLike, *, name: str = "the image", origin: Sequence[int] | None = None
) -> None:
    """Refuse pixels that are not numbers or infinite, and say where the first one is.

    Parameters
    ----------
    pixels : real array [C, *spatial]
        Pixels of a part of the image.
    name : str
        What they are, for the error message.
    origin : sequence of int, optional
        Where in the image the part starts; at its start by default.
    """
    image = np.asarray(pixels)
    if image.dtype.kind != "f":
        return
    bad = ~np.isfinite(image)
    count = int(np.count_nonzero(bad))
    if count == 0:
        return
    channel, *place = (int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape))
    zero = origin if origin is not None else (0,) * len(place)
    where = tuple(a + int(b) for a, b in zip(place, zero, strict=True))
    raise ValueError(
        f"{name} needs finite pixels, got {count} of {bad.size} that are NaN, infinite or too"
        f" large for float32, the first one in channel {channel} at {where}. Replace them first."
    )


def _usual(names: Sequence[str], n_channels: int, n_inputs: int, *, rgb: bool) -> tuple[Pick, ...]:
    """Return what nobody has to name."""
    if n_channels in (1, n_inputs):
        return tuple(Pick("channel", i) for i in range(n_channels))
    if rgb:
        return (Pick("grey"),)
    known = f": {', '.join(names)}" if names else f", 0 to {n_channels - 1}"
    raise ValueError(
        f"the image has {n_channels} channels{known}, the model takes {n_inputs}. Name them:"
        ' channels="grey" is the mean of all.'
    )


def _pick(choice: Choice, names: Sequence[str], n_channels: int, *, rgb: bool) -> Pick:
    """Return the pick of one entry; a name of the image's own goes before a word of ours."""
    if choice is None or choice == "":
        return ZERO
    if isinstance(choice, bool | np.bool_):
        raise TypeError(f"channels needs numbers from 0 or names, got {choice!r}.")
    if not isinstance(choice, str):
        return _numbered(operator.index(choice), names, n_channels)
    word = choice.strip().casefold()
    found = _named(choice, names)
    if found is not None:
        return Pick("channel", found)
    if word in GREYS:
        return Pick("grey")
    if word in STAINS:
        return _stain(word, n_channels, rgb=rgb)
    if word.isdecimal():
        return _numbered(int(word), names, n_channels)
    raise ValueError(_no_such(choice, names, n_channels))


def _named(choice: str, names: Sequence[str]) -> int | None:
    """Return the one channel of a name, in any case if none is spelt alike; None for none."""
    word = choice.strip().casefold()
    found = [i for i, name in enumerate(names) if name == choice] or [
        i for i, name in enumerate(names) if name.strip().casefold() == word
    ]
    if len(found) > 1:
        raise ValueError(
            f"channel {choice!r} needs to be one, got {len(found)} of that name: numbers"
            f" {', '.join(map(str, found))}. Give the number."
        )
    return found[0] if found else None


def _stain(word: str, n_channels: int, *, rgb: bool) -> Pick:
    """Return the pick of a stain, which takes red, green and blue."""
    if not rgb or n_channels < 3:
        raise ValueError(
            f"channel {word!r} needs a colour image (red, green, blue), got one of {n_channels}"
            " channels that is not marked as such. Name a channel, or mark the image as RGB."
        )
    return Pick("stain", STAINS.index(word))


def _numbered(index: int, names: Sequence[str], n_channels: int) -> Pick:
    """Return the pick of a channel by its number."""
    if not 0 <= index < n_channels:
        raise ValueError(_no_such(index, names, n_channels))
    return Pick("channel", index)


def _no_such(choice: int | str, names: Sequence[str], n_channels: int) -> str:
    """Return the message for a channel that is not there."""
    known = f"0 to {n_channels - 1}" if n_channels > 1 else "only channel 0"
    if names:
        known += f", named {', '.join(names)}"
    words = {name.casefold(): name for name in (*names, "grey", *STAINS)}
    near = difflib.get_close_matches(str(choice).casefold(), words, n=1)
    hint = f" Did you mean {words[near[0]]!r}?" if near else " Count from 0, or use a name."
    return f"there is no channel {choice!r}: the image has {known}.{hint}"


def _mean(image: NDArray[Any], row: NDArray[np.float32]) -> None:
    """Write the mean of all channels, summed in their order in float32."""
    for channel in image:
        row += channel.astype(np.float32)
    row /= np.float32(len(image))


def _unmix(image: NDArray[Any], stain: int, row: NDArray[np.float32], *, white: float) -> None:
    """Write the optical density of one stain: the densities of red, green and blue unmixed."""
    levels = 255 if image.dtype == np.uint8 else 65535
    table = _density_table(levels)
    share = np.linalg.inv(np.asarray(DENSITIES))[:, stain].astype(np.float32)
    for channel, part in zip(image, share, strict=False):  # a fourth channel is alpha
        row += part * table[_levels(channel, white)]


def _levels(channel: NDArray[Any], white: float) -> NDArray[Any]:
    """Return a colour channel as places in the table; floats are shares of white."""
    if channel.dtype.kind == "u" and channel.dtype.itemsize <= 2:
        return channel
    if channel.dtype.kind in "iu" or white <= 0:
        raise TypeError(
            f"stains need colours of 8 or 16 bits or floats from 0 to 1, got {channel.dtype}."
            " Convert the image first."
        )
    # A table of 65,536 places, as logarithms may differ with the place in a vector.
    share = np.clip(channel.astype(np.float32) / np.float32(white), 0, 1)
    return np.rint(np.nan_to_num(share) * np.float32(65535)).astype(np.uint16)


@cache
def _density_table(levels: int) -> NDArray[np.float32]:
    """Return the optical density of each value from 0 to `levels`, which is white."""
    share = np.arange(levels + 1) / levels
    return (-np.log10(np.maximum(share, DARKEST))).astype(np.float32)
