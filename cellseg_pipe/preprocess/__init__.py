"""From stored pixels to the network's inputs: every step a local function of level-0 pixels.

Axes are [C, *spatial]. What depends on the whole image is decided once, from sampled pixels whose
places depend on its shape alone; what is done to pixels then depends on those pixels, their global
coordinates and a known halo. So a box computed alone equals the same box cut out of the whole.
"""

from cellseg_pipe.preprocess.channels import (
    Pick,
    check_finite,
    check_shares,
    gather_channels,
    resolve_channels,
    white_of,
)
from cellseg_pipe.preprocess.filters import Filters, antialias_sigma_px, gaussian, gaussian_halo_px
from cellseg_pipe.preprocess.local import LocalRanges, local_boxes, local_ranges
from cellseg_pipe.preprocess.noise import noise_of
from cellseg_pipe.preprocess.ranges import (
    Range,
    apply_ranges,
    input_ranges,
    is_blank,
    percentile_range,
)
from cellseg_pipe.preprocess.sampling import grid_boxes, sample_boxes
from cellseg_pipe.preprocess.scale import Scale

__all__ = [
    "Filters",
    "LocalRanges",
    "Pick",
    "Range",
    "Scale",
    "antialias_sigma_px",
    "apply_ranges",
    "check_finite",
    "check_shares",
    "gather_channels",
    "gaussian",
    "gaussian_halo_px",
    "grid_boxes",
    "input_ranges",
    "is_blank",
    "local_boxes",
    "local_ranges",
    "noise_of",
    "percentile_range",
    "resolve_channels",
    "sample_boxes",
    "white_of",
]
