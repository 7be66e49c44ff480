"""How many threads torch takes while a network runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

__all__ = ["torch_threads"]


@contextlib.contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Run with a number of threads, and leave torch as it was.

    Parameters
    ----------
    threads : int or None
        None leaves it as it is.

    Yields
    ------
    None
        Nothing.
    """
    before = torch.get_num_threads()
    if threads is None or threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
