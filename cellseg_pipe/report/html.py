"""Pieces of a page as text; what comes from files is escaped here."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from cellseg_pipe import __version__

__all__ = [
    "Section",
    "data_uri",
    "escape",
    "facts",
    "number",
    "numbers",
    "page",
    "short",
    "table",
]

MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EN DASH}"


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Parameters
    ----------
    name : str
        What links and the bar call it.
    title : str
        Its heading.
    body : str
        HTML.
    note : str
        A sentence below the heading.
    """

    name: str
    title: str
    body: str
    note: str = ""

    def html(self, key: str) -> str:
        """Return the part.

        Parameters
        ----------
        key : str
            Its place on the page.

        Returns
        -------
        str
            HTML.
        """
        note = f'<p class="note">{escape(self.note)}</p>' if self.note else ""
        heading = f'<h2 id="{key}-h">{escape(self.title)}</h2>'
        return f'<section id="{key}" aria-labelledby="{key}-h">{heading}{note}{self.body}</section>'


def escape(text: object) -> str:
    """Return text as it may stand anywhere in HTML.

    Parameters
    ----------
    text : object
        Anything.

    Returns
    -------
    str
        Escaped.
    """
    return html.escape(str(text), quote=True)


def number(value: float | None, digits: int = 3) -> str:
    """Return a number for people: grouped, or so many digits.

    Parameters
    ----------
    value : float or None
        The number.
    digits : int
        That matter, of those that are not whole.

    Returns
    -------
    str
        A dash where there is none.
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    if float(value).is_integer() or abs(value) >= 10**digits:
        text = f"{value:,.0f}"
    elif abs(value) < 1e-4:
        text = f"{value:.1e}"
    else:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{decimals}f}"
    return text.replace("-", MINUS)


def short(value: float | None, digits: int = 3) -> str:
    """Return a number without zeros at its end, as it stands in text and on axes.

    Parameters
    ----------
    value : float or None
        The number.
    digits : int
        That matter.

    Returns
    -------
    str
        A dash where there is none.
    """
    text = number(value, digits)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def data_uri(content: bytes, kind: str) -> str:
    """Return a file as an address that holds it.

    Parameters
    ----------
    content : bytes
        Of the file.
    kind : str
        Its media type.

    Returns
    -------
    str
        For `src` and `href`.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def facts(rows: Mapping[str, str]) -> str:
    """Return names and values.

    Parameters
    ----------
    rows : mapping of str to str
        Values are HTML.

    Returns
    -------
    str
        HTML.
    """
    pairs = "".join(f"<dt>{escape(k)}</dt><dd>{v}</dd>" for k, v in rows.items() if v)
    return f'<dl class="facts card">{pairs}</dl>'


def numbers(rows: Mapping[str, tuple[str, str]]) -> str:
    """Return the few numbers that matter, large.

    Parameters
    ----------
    rows : mapping of str to (str, str)
        Value and unit by name.

    Returns
    -------
    str
        HTML.
    """
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)} <small>{escape(unit)}</small></dd></div>"
        for name, (value, unit) in rows.items()
    )
    return f'<dl class="numbers">{cells}</dl>'


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    kind: str = "",
    levels: Sequence[str] = (),
) -> str:
    """Return a table; numbers stand right, text left.

    Parameters
    ----------
    head : sequence of str
        Names of the columns.
    rows : iterable of sequences
        Numbers, None, text.
    kind : {"", "sortable"}
        Whether a click on a column sorts.
    levels : sequence of str
        By which rows can be filtered, one a row.

    Returns
    -------
    str
        HTML.
    """
    rows = [list(row) for row in rows]
    right = [any(_is_number(row[i]) for row in rows) for i in range(len(head))]
    sides = [' class="n"' if numeric else "" for numeric in right]
    names = [f'<button type="button">{escape(h)}</button>' if kind else escape(h) for h in head]
    top = "".join(f'<th scope="col"{s}>{n}</th>' for n, s in zip(names, sides, strict=True))
    lines = []
    for i, row in enumerate(rows):
        level = f' data-level="{escape(levels[i])}"' if levels else ""
        cells = (_cell(value, side, kind) for value, side in zip(row, sides, strict=True))
        lines.append(f"<tr{level}>{''.join(cells)}</tr>")
    tall = " tall" if len(rows) > 14 else ""
    return (
        f'<div class="scroll{tall}" tabindex="0" role="region" aria-label="{escape(head[0])}">'
        f'<table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody>'
        "</table></div>"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any, side: str, kind: str) -> str:
    if not side:
        return f"<td>{escape('' if value is None else value)}</td>"
    known = value is not None and math.isfinite(value)
    plain = f' data-v="{value if known else -1e300}"' if kind else ""
    return f'<td class="n"{plain}>{number(value)}</td>'


def page(title: str, head: str, sections: Sequence[Section], *, foot: str) -> str:
    """Return the whole page, which needs no other file.

    Parameters
    ----------
    title : str
        Of the window.
    head : str
        HTML above all sections.
    sections : sequence of Section
        In order; those without a name have no link in the bar.
    foot : str
        Last line.

    Returns
    -------
    str
        HTML.
    """
    style, script = (
        resources.files(__package__).joinpath(name).read_text("utf-8")
        for name in ("style.css", "page.js")
    )
    links = "".join(
        f'<a href="#s{i}">{escape(s.name)}</a>' for i, s in enumerate(sections) if s.name
    )
    body = "".join(section.html(f"s{i}") for i, section in enumerate(sections))
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="generator" content="cellseg_pipe {__version__}">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>"
        '<a class="skip" href="#main">To the content</a>'
        f'<div class="bar"><div><strong>{escape(title)}</strong>'
        f'<nav aria-label="Sections">{links}</nav>'
        '<button id="theme" type="button">Dark</button></div></div>'
        f'<main id="main"><header>{head}</header>{body}</main>'
        f'<footer>{foot}</footer><dialog id="large" aria-label="Larger picture"></dialog>'
        f"<script>{script}</script></body></html>"
    )
