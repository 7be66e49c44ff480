"""Links the cells of all tiles in memory, with the functions that the stage calls tile by tile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cellseg_pipe.segmentation.seams import Conflicts, Gatherer, Part, settle_seams


@dataclass(frozen=True)
class Linked:
    """What the cells of all tiles are called: rows by tile and then by label."""

    number: np.ndarray
    first: np.ndarray
    component: np.ndarray
    parts: Part
    conflicts: Conflicts
    hidden: np.ndarray
    n_cells: int

    def of(self, number):
        """The part of one tile."""
        place = self.number.tolist().index(number)
        return self.parts[int(self.first[place]) : int(self.first[place + 1])]


def link_views(nodes, tables, *, plan, seam_iou=0.5):
    tiles = sorted(nodes, key=lambda tile: tile.number)
    gatherer = Gatherer(plan)
    for tile in tiles:
        gatherer.add(tile, [t for t in tables if t.left_number == tile.number])
    settled = settle_seams(gatherer.gathered(), plan=plan, seam_iou=seam_iou)
    none = Part(*(np.zeros(0, kind) for kind in (np.uint32, np.uint32, np.uint8, bool)))
    parts = list(settled.parts(tiles)) or [none]
    columns = [[getattr(part, name) for part in parts] for name in vars(none)]
    component = np.arange(settled.first[-1])
    component[settled.row] = settled.component
    return Linked(
        settled.number,
        settled.first,
        component,
        Part(*map(np.concatenate, columns)),
        settled.conflicts,
        settled.hidden,
        settled.n_cells,
    )
