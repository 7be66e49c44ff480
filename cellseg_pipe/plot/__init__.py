"""Pictures of arrays: numbers in, colours out; nothing is read or written here."""

from cellseg_pipe.plot.colors import distinct_colors, flow_colors, label_colors, to_grey8, to_rgb8
from cellseg_pipe.plot.notebook import figure_of
from cellseg_pipe.plot.pictures import fill, outlines, overlay, show
from cellseg_pipe.plot.volumes import max_projections, orthogonal_slices

__all__ = [
    "distinct_colors",
    "figure_of",
    "fill",
    "flow_colors",
    "label_colors",
    "max_projections",
    "orthogonal_slices",
    "outlines",
    "overlay",
    "show",
    "to_grey8",
    "to_rgb8",
]
