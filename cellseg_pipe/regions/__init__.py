"""Parts of an image that a run is restricted to: boxes, polygons, masks, as runs of pixels.

Arithmetic only, no files. All forms become one table, so that every question has one answer.
"""

from cellseg_pipe.regions._parts import (
    Outline,
    Part,
    box_part,
    outlines_part,
    runs_of_rows,
    spread_part,
)
from cellseg_pipe.regions.distance import border_distance_px
from cellseg_pipe.regions.region import Region, compose, region_of_arrays, region_to_arrays

__all__ = [
    "Outline",
    "Part",
    "Region",
    "border_distance_px",
    "box_part",
    "compose",
    "outlines_part",
    "region_of_arrays",
    "region_to_arrays",
    "runs_of_rows",
    "spread_part",
]
