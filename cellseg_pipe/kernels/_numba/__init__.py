"""The numba backend: one module per family of kernels, each under its public name."""

from cellseg_pipe.kernels._numba._jit import compile_all
from cellseg_pipe.kernels._numba.objects import boxes_and_areas
from cellseg_pipe.kernels._numba.overlap import overlap_pairs
from cellseg_pipe.kernels._numba.relabel import relabel

__all__ = ["boxes_and_areas", "compile_all", "overlap_pairs", "relabel"]
