"""Array kernels: arrays in, arrays out; checks here, loops in the backends, no I/O."""

from pathlib import Path

from cellseg_pipe.kernels.classes import masks_from_classes
from cellseg_pipe.kernels.contours import crofton, directions, object_contours
from cellseg_pipe.kernels.convex import Corners, convex_sizes, convex_volumes, plane_hulls
from cellseg_pipe.kernels.expand import expand_labels, expand_margin_px
from cellseg_pipe.kernels.flows import flows_from_labels
from cellseg_pipe.kernels.follow import Ends, follow_flows
from cellseg_pipe.kernels.link import Overlaps, iou_of, mutual_best, union_find
from cellseg_pipe.kernels.masks import Masks, find_masks, masks_from_flows
from cellseg_pipe.kernels.measure import Sums, mean_per_object, object_sums
from cellseg_pipe.kernels.objects import Objects, boxes_and_areas, diameter_px
from cellseg_pipe.kernels.outlines import Borders, object_borders
from cellseg_pipe.kernels.overlap import Pairs, overlap_pairs, sum_pairs
from cellseg_pipe.kernels.peaks import HALO_BEYOND_REACH, Cells, cells_from_ends
from cellseg_pipe.kernels.pixels import (
    object_quantiles,
    object_rings,
    object_texture,
    ring_reach,
)
from cellseg_pipe.kernels.planes import Chained, chain_planes, stitch_planes
from cellseg_pipe.kernels.quality import Quality, flow_quality
from cellseg_pipe.kernels.relabel import relabel
from cellseg_pipe.kernels.relate import (
    Holders,
    Matches,
    compartments,
    cytoplasm_of,
    holders_of,
    match_nuclei,
)
from cellseg_pipe.kernels.resample import filter_axis, resample, resample_nearest, source_box
from cellseg_pipe.kernels.shape import (
    Polygons,
    border_objects,
    fill_holes,
    hole_claims,
    outline_pixels,
    outline_polygons,
    remove_small,
    renumber,
)
from cellseg_pipe.kernels.tally import Tally

__all__ = [
    "HALO_BEYOND_REACH",
    "Borders",
    "Cells",
    "Chained",
    "Corners",
    "Ends",
    "Holders",
    "Masks",
    "Matches",
    "Objects",
    "Overlaps",
    "Pairs",
    "Polygons",
    "Quality",
    "Sums",
    "Tally",
    "border_objects",
    "boxes_and_areas",
    "cells_from_ends",
    "chain_planes",
    "compile_all",
    "compartments",
    "convex_sizes",
    "convex_volumes",
    "crofton",
    "cytoplasm_of",
    "diameter_px",
    "directions",
    "expand_labels",
    "expand_margin_px",
    "fill_holes",
    "filter_axis",
    "find_masks",
    "flow_quality",
    "flows_from_labels",
    "follow_flows",
    "hole_claims",
    "holders_of",
    "iou_of",
    "masks_from_classes",
    "masks_from_flows",
    "match_nuclei",
    "mean_per_object",
    "mutual_best",
    "object_borders",
    "object_contours",
    "object_quantiles",
    "object_rings",
    "object_sums",
    "object_texture",
    "outline_pixels",
    "outline_polygons",
    "overlap_pairs",
    "plane_hulls",
    "relabel",
    "remove_small",
    "renumber",
    "resample",
    "resample_nearest",
    "ring_reach",
    "source_box",
    "stitch_planes",
    "sum_pairs",
    "union_find",
]


def compile_all() -> Path:
    """Compile every loop into the cache and return its folder.

    For a site installation or a container image: the folder may be read-only from then on. Without
    it each loop is compiled when it is first used, once per machine.

    Returns
    -------
    path
        The folder of this build on this kind of CPU.
    """
    from cellseg_pipe.kernels import _numba

    return _numba.compile_all()
