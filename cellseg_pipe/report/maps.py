"""Maps as SVG: values over a plane in colours, and small pictures with places."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.report.charts import WIDTH, svg_of, text_at
from cellseg_pipe.report.html import data_uri, short

__all__ = ["heat_map", "overview"]

# Even in lightness and safe for people who confuse red and green (viridis).
RAMP = np.array(
    [
        *((68, 1, 84), (71, 45, 123), (59, 82, 139), (44, 114, 142), (33, 145, 140)),
        *((40, 174, 128), (94, 201, 98), (173, 220, 48), (253, 231, 37)),
    ],
    float,
)
MARKED = (230, 145, 0)  # seen on light and on dark ground
TALLEST = 1.3  # of a map, over its width


def png(picture: NDArray[np.uint8]) -> bytes:
    """Return a picture as a PNG.

    Parameters
    ----------
    picture : uint8 array [y, x] or [y, x, 3 or 4]
        Colours.

    Returns
    -------
    bytes
        Of the file.
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", optimize=True)
    return file.getvalue()


def ramped(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    """Return the colours of values; what is not known is clear.

    Parameters
    ----------
    values : float64 array [y, x]
        nan where nothing is known.
    low, high : float
        Ends of the colours.

    Returns
    -------
    uint8 array [y, x, 4]
        Red, green, blue, opacity.
    """
    known = np.isfinite(values)
    span = high - low if high > low else 1.0
    place = np.clip(np.where(known, (values - low) / span, 0), 0, 1) * (len(RAMP) - 1)
    below = np.minimum(place.astype(int), len(RAMP) - 2)
    share = (place - below)[..., None]
    colours = RAMP[below] * (1 - share) + RAMP[below + 1] * share
    opacity = np.where(known, 255, 0)[..., None]
    return np.concatenate([colours, opacity], axis=-1).astype(np.uint8)


def frame(aspect: float) -> tuple[float, float, float]:
    """Return where a plane is drawn.

    Parameters
    ----------
    aspect : float
        Its height over its width.

    Returns
    -------
    left, width, height : float
        Of the drawing.
    """
    wide = WIDTH if aspect <= TALLEST else WIDTH * TALLEST / aspect
    return (WIDTH - wide) / 2, wide, wide * aspect


def overview(
    picture: bytes, boxes: Sequence[tuple[float, float, float, float]], *, aspect: float
) -> str:
    """Draw a small picture of a plane with numbered boxes.

    Parameters
    ----------
    picture : bytes
        A WebP.
    boxes : sequence of (float, float, float, float)
        Top, left, bottom, right as shares of the plane.
    aspect : float
        Height of the plane over its width.

    Returns
    -------
    str
        SVG.
    """
    left, wide, tall = frame(aspect)
    parts = [
        f'<image class="smooth" x="{left:.1f}" y="0" width="{wide:.1f}" height="{tall:.1f}"'
        f' preserveAspectRatio="none" href="{data_uri(picture, "image/webp")}"/>'
    ]
    for number, (y0, x0, y1, x1) in enumerate(boxes, 1):
        x, y = left + x0 * wide, y0 * tall
        edges = f'width="{max((x1 - x0) * wide, 3):.1f}" height="{max((y1 - y0) * tall, 3):.1f}"'
        parts.append(f'<rect class="box" x="{x:.1f}" y="{y:.1f}" {edges}/>')
        parts.append(f'<rect class="boxback" x="{x:.1f}" y="{y:.1f}" width="13" height="14"/>')
        parts.append(
            f'<text class="boxlabel" x="{x + 6.5:.1f}" y="{y + 11:.1f}" text-anchor="middle">'
            f"{number}</text>"
        )
    return svg_of(tall, parts, f"Overview with {len(boxes)} places")


def heat_map(
    values: NDArray[np.float64],
    *,
    unit: str,
    aspect: float,
    ends: tuple[float, float] | None = None,
) -> str:
    """Draw values over a plane.

    Parameters
    ----------
    values : float64 array [y, x]
        nan where nothing is known.
    unit : str
        Of the values.
    aspect : float
        Height of the plane over its width.
    ends : tuple of float, optional
        Ends of the colours; by default percentiles 1 and 99. Two equal ones: all in one colour.

    Returns
    -------
    str
        SVG.
    """
    known = values[np.isfinite(values)]
    low, high = ends or (np.percentile(known, (1, 99)).tolist() if known.size else (0.0, 0.0))
    left, wide, tall = frame(aspect)
    colours = ramped(values, low, high)
    alike = ends is not None and low == high
    if alike:
        colours[colours[..., 3] > 0, :3] = MARKED
    source = data_uri(png(colours), "image/png")
    y = tall + 12
    box = f'x="{left:.1f}" y="0" width="{wide:.1f}" height="{tall:.1f}"'
    parts = [
        f'<rect class="ground" {box}/>',
        f'<image {box} preserveAspectRatio="none" href="{source}"/>',
    ]
    if alike:
        return svg_of(y + 14, [*parts, text_at((0, y + 8), unit, "start")], unit)
    scale = data_uri(png(ramped(np.linspace(0, 1, 64)[None], 0, 1)), "image/png")
    parts += [
        f'<image class="smooth" x="0" y="{y:.1f}" width="120" height="8"'
        f' preserveAspectRatio="none" href="{scale}"/>',
        text_at((0, y + 22), short(low), "start"),
        text_at((120, y + 22), short(high), "end"),
        text_at((132, y + 8), unit, "start"),
    ]
    return svg_of(y + 28, parts, f"Map, {short(low)} to {short(high)} {unit}")
