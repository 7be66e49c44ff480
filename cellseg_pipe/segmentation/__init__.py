"""Segments one image in memory: arrays only, no files; the parts are those the pipeline calls."""

from cellseg_pipe.segmentation.cells import Cells, Rows, cells_of, sums_of, table_of
from cellseg_pipe.segmentation.plan import ImageSource, Plan, make_plan, network_source
from cellseg_pipe.segmentation.predict import Answer, answer_of, on_walked_grid, records_of
from cellseg_pipe.segmentation.settings import Settings
from cellseg_pipe.segmentation.tiled import Found, find_cells, halo_px, ids_of, paint
from cellseg_pipe.segmentation.whole import Segmentation, segment, segment_many

__all__ = [
    "Answer",
    "Cells",
    "ImageSource",
    "Found",
    "Plan",
    "Rows",
    "Segmentation",
    "Settings",
    "answer_of",
    "cells_of",
    "find_cells",
    "halo_px",
    "ids_of",
    "paint",
    "sums_of",
    "make_plan",
    "network_source",
    "on_walked_grid",
    "records_of",
    "segment",
    "segment_many",
    "table_of",
]
