"""Charts as SVG: shapes and text from numbers, drawn without a library; nothing is written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.report.html import escape, short

__all__ = ["WIDTH", "Figure", "bars", "histogram", "intervals", "lines", "svg_of", "text_at"]

WIDTH, LEFT, RIGHT = 360, 44, 10


@dataclass(frozen=True)
class Figure:
    """A chart, and the numbers that it shows.

    Parameters
    ----------
    name : str
        Of its files.
    title, note : str
        What stands above it.
    svg : str
        The drawing.
    data : dict of str to array [n]
        Columns of its table.
    """

    name: str
    title: str
    svg: str
    data: dict[str, NDArray[Any]] = field(default_factory=dict)
    note: str = ""

    @property
    def html(self) -> str:
        """The figure in a frame."""
        note = escape(self.note)
        return (
            f'<figure class="card"><figcaption><b>{escape(self.title)}</b>{note}</figcaption>'
            f"{self.svg}</figure>"
        )


def svg_of(height: float, parts: Sequence[str], label: str) -> str:
    """Return a drawing as wide as all are.

    Parameters
    ----------
    height : float
        Of the drawing.
    parts : sequence of str
        SVG.
    label : str
        What those hear who do not see it.

    Returns
    -------
    str
        SVG.
    """
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img"'
        f' aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def text_at(place: tuple[float, float], text: str, anchor: str = "middle") -> str:
    """Return text in a drawing.

    Parameters
    ----------
    place : tuple of float
        x and y.
    text : str
        Not escaped.
    anchor : {"start", "middle", "end"}
        Which part of it stands there.

    Returns
    -------
    str
        SVG.
    """
    x, y = place
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def ticks(low: float, high: float, n: int = 4) -> list[float]:
    """Return round numbers between two.

    Parameters
    ----------
    low, high : float
        The ends.
    n : int
        About how many.

    Returns
    -------
    list of float
        Ascending.
    """
    if not high > low:
        return [low]
    rough = (high - low) / n
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(k * power for k in (1, 2, 2.5, 5, 10) if k * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _across(low: float, high: float, y: float, *, unit: str = "") -> list[str]:
    """Return the axis below a chart."""
    parts = [f'<path class="axis" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>']
    for value in ticks(low, high):
        x = _place(value, low, high)
        parts.append(f'<path class="axis" d="M{x:.1f} {y}v4"/>')
        parts.append(text_at((x, y + 16), short(value)))
    return [*parts, text_at((WIDTH - RIGHT, y + 31), unit, "end")] if unit else parts


def _place(value: float, low: float, high: float) -> float:
    span = high - low if high > low else 1.0
    return LEFT + (value - low) / span * (WIDTH - LEFT - RIGHT)


def histogram(
    counts: NDArray[np.int64], edges: NDArray[np.float64], *, unit: str, median: float
) -> str:
    """Draw how often values occur.

    Parameters
    ----------
    counts : int64 array [n]
        In each bin.
    edges : float64 array [n + 1]
        Of the bins.
    unit : str
        Below the axis.
    median : float
        Marked with a line.

    Returns
    -------
    str
        SVG.
    """
    low, high, top, floor = float(edges[0]), float(edges[-1]), 26, 136
    most = max(int(counts.max(initial=0)), 1)
    xs = [_place(float(edge), low, high) for edge in edges]
    parts = [
        f'<rect class="mark" x="{a + 0.4:.2f}" width="{max(b - a - 0.8, 0.6):.2f}"'
        f' y="{floor - h:.2f}" height="{h:.2f}"/>'
        for a, b, n in zip(xs, xs[1:], counts, strict=False)
        if n and (h := max((floor - top) * n / most, 0.75))
    ]
    parts += _across(low, high, floor, unit=unit)
    parts += [
        text_at((LEFT - 6, top + 8), short(most), "end"),
        text_at((LEFT - 6, floor), "0", "end"),
    ]
    if math.isfinite(median):
        x = _place(median, low, high)
        parts.append(f'<path class="mid" d="M{x:.1f} {top - 6}V{floor}"/>')
        side = "end" if x > 0.8 * WIDTH else "start" if x < 0.2 * WIDTH else "middle"
        parts.append(text_at((x, top - 12), f"median {short(median)}", side))
    return svg_of(170 if unit else 156, parts, f"Histogram, median {short(median)} {unit}")


def lines(
    x: Sequence[float], series: Mapping[str, Sequence[float]], *, unit: str = "", low: float = 0.0
) -> str:
    """Draw values over numbers.

    Parameters
    ----------
    x : sequence of float
        Ascending.
    series : mapping of str to sequence of float
        Two at most; nan where nothing is known.
    unit : str
        Below the axis.
    low : float
        Where the upright axis begins.

    Returns
    -------
    str
        SVG.
    """
    top, floor = 18, 132
    known = [v for ys in series.values() for v in ys if math.isfinite(v)]
    high = max([*known, low + 1e-9])
    ends = (float(min(x, default=0)), float(max(x, default=1)))
    parts = _across(*ends, floor, unit=unit)
    for value in ticks(low, high, 3):
        y = floor - (value - low) / (high - low) * (floor - top)
        parts.append(f'<path class="axis" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(text_at((LEFT - 6, y + 4), short(value), "end"))
    for i, (name, ys) in enumerate(series.items()):
        kind = "line b" if i else "line"
        path = ""
        for a, b in zip(x, ys, strict=True):
            if math.isfinite(b):
                y = floor - (b - low) / (high - low) * (floor - top)
                path += f"{'L' if path else 'M'}{_place(a, *ends):.1f} {y:.1f}"
        parts.append(f'<path class="{kind}" d="{path or "M0 0"}"/>')
        at = LEFT + i * 110
        parts.append(f'<path class="{kind}" d="M{at} 6h16"/>')
        parts.append(text_at((at + 22, 10), name, "start"))
    return svg_of(166 if unit else 152, parts, ", ".join(series))


def bars(values: Mapping[str, tuple[float, float]], *, unit: str) -> str:
    """Draw bars side by side with what was expected.

    Parameters
    ----------
    values : mapping of str to (float, float)
        Value and expectation, which may be nan, by name.
    unit : str
        Of both.

    Returns
    -------
    str
        SVG.
    """
    known = [v for pair in values.values() for v in pair if math.isfinite(v)]
    most, left, row = max([*known, 1e-12]), 92, 26
    parts = []
    for i, (name, (value, expected)) in enumerate(values.items()):
        y = i * row
        parts.append(text_at((left - 8, y + 15), name, "end"))
        wide = (WIDTH - left - 78) / most
        if math.isfinite(expected):
            parts.append(
                f'<rect class="mark2" x="{left}" y="{y + 3}" width="{expected * wide:.1f}"'
                ' height="17" rx="2"/>'
            )
        if math.isfinite(value):
            parts.append(
                f'<rect class="mark" x="{left}" y="{y + 7}"'
                f' width="{max(value * wide, 1):.1f}" height="9" rx="1.5"/>'
            )
        end = max(v for v in (value, expected, 0) if math.isfinite(v)) * wide
        parts.append(text_at((left + end + 6, y + 15), f"{short(value)} {unit}", "start"))
    return svg_of(len(values) * row + 4, parts, "Bars")


def intervals(rows: Mapping[str, tuple[float, float, float]]) -> str:
    """Draw intervals about zero.

    Parameters
    ----------
    rows : mapping of str to (float, float, float)
        Low end, middle, high end by name.

    Returns
    -------
    str
        SVG.
    """
    far = max([abs(v) for row in rows.values() for v in row if math.isfinite(v)] or [1.0]) or 1.0
    left, row = 92, 26

    def place(value: float) -> float:
        return left + (value + far) / (2 * far) * (WIDTH - left - 24)

    height = len(rows) * row
    parts = [f'<path class="zero" d="M{place(0):.1f} 0V{height}"/>']
    for i, (name, (low, middle, high)) in enumerate(rows.items()):
        y = i * row + 13
        parts.append(text_at((left - 8, y + 4), name, "end"))
        if math.isfinite(low) and math.isfinite(high):
            parts.append(f'<path class="ends" d="M{place(low):.1f} {y}H{place(high):.1f}"/>')
            parts.append(f'<circle class="mark" cx="{place(middle):.1f}" cy="{y}" r="4.5"/>')
        else:
            parts.append(text_at((place(0) + 8, y + 4), "too few to say", "start"))
    for value in (-far, 0.0, far):
        parts.append(text_at((place(value), height + 14), short(value)))
    return svg_of(height + 20, parts, "Intervals")
