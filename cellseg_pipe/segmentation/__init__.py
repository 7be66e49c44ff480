"""Segments one image in memory: arrays only, no files; the parts are those the pipeline calls."""

from cellseg_pipe.segmentation.cells import Cells, Rows, cells_of
from cellseg_pipe.segmentation.measured import Measured, join_measured
from cellseg_pipe.segmentation.measuring import Measurer, Measuring, View
from cellseg_pipe.segmentation.plan import ImageSource, Plan, make_plan, network_source
from cellseg_pipe.segmentation.predict import Answer, answer_of, on_walked_grid, records_of
from cellseg_pipe.segmentation.settings import Settings
from cellseg_pipe.segmentation.table import in_um, table_of
from cellseg_pipe.segmentation.tiled import Found, find_cells, halo_px, ids_of, paint
from cellseg_pipe.segmentation.whole import Segmentation, segment, segment_many

__all__ = [
    "Answer",
    "Cells",
    "ImageSource",
    "Found",
    "Measured",
    "Measurer",
    "Measuring",
    "Plan",
    "Rows",
    "Segmentation",
    "Settings",
    "View",
    "answer_of",
    "cells_of",
    "find_cells",
    "halo_px",
    "ids_of",
    "in_um",
    "join_measured",
    "paint",
    "make_plan",
    "network_source",
    "on_walked_grid",
    "records_of",
    "segment",
    "segment_many",
    "table_of",
]
