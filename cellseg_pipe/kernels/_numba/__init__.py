"""The numba backend: one module per family of kernels, each under its public name."""

from cellseg_pipe.kernels._numba._jit import compile_all
from cellseg_pipe.kernels._numba.assign import heaviest_edges
from cellseg_pipe.kernels._numba.contours import object_contours
from cellseg_pipe.kernels._numba.convex import convex_sizes, count_between, plane_hulls, sum_planes
from cellseg_pipe.kernels._numba.expand import expand_labels
from cellseg_pipe.kernels._numba.flows import flows_from_labels
from cellseg_pipe.kernels._numba.follow import follow_flows
from cellseg_pipe.kernels._numba.jump import jump_flows
from cellseg_pipe.kernels._numba.link import paint_labels, union_find
from cellseg_pipe.kernels._numba.measure import object_intensities, object_moments
from cellseg_pipe.kernels._numba.objects import boxes_and_areas
from cellseg_pipe.kernels._numba.outlines import object_borders
from cellseg_pipe.kernels._numba.overlap import overlap_pairs
from cellseg_pipe.kernels._numba.peaks import cells_from_ends
from cellseg_pipe.kernels._numba.pixels import object_quantiles, object_rings, object_texture
from cellseg_pipe.kernels._numba.quality import flow_quality
from cellseg_pipe.kernels._numba.relabel import relabel
from cellseg_pipe.kernels._numba.resample import filter_axis, resample, resample_nearest
from cellseg_pipe.kernels._numba.shape import fill_holes, outline_pixels, outline_polygons

__all__ = [
    "boxes_and_areas",
    "cells_from_ends",
    "compile_all",
    "convex_sizes",
    "count_between",
    "expand_labels",
    "fill_holes",
    "filter_axis",
    "flow_quality",
    "flows_from_labels",
    "follow_flows",
    "heaviest_edges",
    "jump_flows",
    "object_borders",
    "object_contours",
    "object_intensities",
    "object_moments",
    "object_quantiles",
    "object_rings",
    "object_texture",
    "outline_pixels",
    "outline_polygons",
    "overlap_pairs",
    "paint_labels",
    "plane_hulls",
    "relabel",
    "resample",
    "resample_nearest",
    "sum_planes",
    "union_find",
]
