"""Array kernels: arrays in, arrays out; checks here, loops in the backends, no I/O."""

from pathlib import Path

from cellseg_pipe.kernels.objects import Objects, boxes_and_areas
from cellseg_pipe.kernels.overlap import Pairs, overlap_pairs, sum_pairs
from cellseg_pipe.kernels.relabel import relabel

__all__ = [
    "Objects",
    "Pairs",
    "boxes_and_areas",
    "compile_all",
    "overlap_pairs",
    "relabel",
    "sum_pairs",
]


def compile_all() -> Path:
    """Compile every loop into the cache and return its folder.

    For a site installation or a container image: the folder may be read-only from then on. Without
    it each loop is compiled when it is first used, once per machine.
    """
    from cellseg_pipe.kernels import _numba

    return _numba.compile_all()
