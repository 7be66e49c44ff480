"""Joins the cells of tiles by how well they cover each other where the tiles' windows overlap.

For halos smaller than what makes tiles exact, and for cells wider than a reach. Each tile finds all
cells of its window (`see_cells`), tiles are compared two by two (`seam_overlaps`), one job goes
through these tables (`Gatherer`) and decides of the cells on seams (`settle_seams`), and any box is
painted from the views over it (`paint_seams`). The result does not depend on the order of tiles or
on how it is cut for painting, but on the tiles.
"""

from cellseg_pipe.segmentation._seams_gather import Gatherer
from cellseg_pipe.segmentation._seams_link import Conflicts, Part, Settled, settle_seams
from cellseg_pipe.segmentation._seams_nodes import Nodes, nodes_of
from cellseg_pipe.segmentation._seams_paint import paint_margin_px, paint_seams
from cellseg_pipe.segmentation._seams_stored import (
    part_from_bytes,
    part_to_bytes,
    refused_from_bytes,
    refused_to_bytes,
    seams_from_bytes,
    seams_to_bytes,
    view_from_bytes,
    view_to_bytes,
)
from cellseg_pipe.segmentation._seams_view import (
    SeamTable,
    View,
    seam_overlaps,
    see_cells,
)

__all__ = [
    "Conflicts",
    "Gatherer",
    "Nodes",
    "Part",
    "SeamTable",
    "Settled",
    "View",
    "nodes_of",
    "paint_margin_px",
    "paint_seams",
    "part_from_bytes",
    "part_to_bytes",
    "refused_from_bytes",
    "refused_to_bytes",
    "seam_overlaps",
    "seams_from_bytes",
    "seams_to_bytes",
    "see_cells",
    "settle_seams",
    "view_from_bytes",
    "view_to_bytes",
]
