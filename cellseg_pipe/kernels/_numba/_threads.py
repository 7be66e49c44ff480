"""Spreads independent ranges of one loop over threads; the loops release the GIL."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cellseg_pipe.machine import available_threads

T = TypeVar("T")


def ranges(total: int, step: int) -> list[tuple[int, int]]:
    """Return half-open ranges of at most `step` that cover `total` items; none for no items."""
    return [(start, min(start + step, total)) for start in range(0, total, step)]


def spread(function: Callable[..., T], items: list[tuple], *, threads: int | None) -> list[T]:
    """Return `function(*item)` for every item, in the order of the items."""
    workers = min(threads or available_threads(), len(items))
    if workers <= 1:
        return [function(*item) for item in items]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda item: function(*item), items))
