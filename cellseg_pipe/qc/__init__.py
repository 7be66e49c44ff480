"""How far a result can be trusted: cells, blocks of the image, seams. Arrays in, arrays out."""

from cellseg_pipe.qc._counting import SeamCounts, count_lines, margin_px
from cellseg_pipe.qc._lines import Lines, Seams, lines_of
from cellseg_pipe.qc.blocks import FIGURES, block_figures
from cellseg_pipe.qc.confidence import confidence
from cellseg_pipe.qc.diameters import DiameterMap, field_grid
from cellseg_pipe.qc.rules import Limits, judged
from cellseg_pipe.qc.seams import SeamFigure, SeamScore, score_counts, seam_score
from cellseg_pipe.qc.suspects import KINDS, robust_z, scores_of, suspects_of, unevenness

__all__ = [
    "FIGURES",
    "DiameterMap",
    "KINDS",
    "Limits",
    "Lines",
    "SeamCounts",
    "SeamFigure",
    "SeamScore",
    "Seams",
    "block_figures",
    "confidence",
    "count_lines",
    "field_grid",
    "judged",
    "lines_of",
    "margin_px",
    "robust_z",
    "score_counts",
    "scores_of",
    "seam_score",
    "suspects_of",
    "unevenness",
]
