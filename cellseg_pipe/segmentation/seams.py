"""Joins the cells of tiles by how well they cover each other where the tiles' windows overlap.

For halos smaller than what makes tiles exact, and for cells wider than a reach. Each tile finds all
cells of its window (`see_cells`), tiles are compared two by two (`seam_overlaps`), one job decides
from these tables (`link_views`), and any box is painted from the views over it (`paint_seams`). The
result does not depend on the order of tiles or on how it is cut for painting, but on the tiles.
"""

from cellseg_pipe.segmentation._seams_link import Conflicts, Linked, Part, link_views
from cellseg_pipe.segmentation._seams_nodes import Nodes, nodes_of
from cellseg_pipe.segmentation._seams_paint import paint_margin_px, paint_seams
from cellseg_pipe.segmentation._seams_stored import (
    linked_from_bytes,
    linked_to_bytes,
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
    "Linked",
    "Nodes",
    "Part",
    "SeamTable",
    "View",
    "link_views",
    "linked_from_bytes",
    "linked_to_bytes",
    "nodes_of",
    "paint_margin_px",
    "paint_seams",
    "seam_overlaps",
    "seams_from_bytes",
    "seams_to_bytes",
    "see_cells",
    "view_from_bytes",
    "view_to_bytes",
]
