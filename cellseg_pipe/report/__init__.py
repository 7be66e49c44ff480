"""The page that people look at before they believe a result: one HTML file from a run's folder."""

from cellseg_pipe.report.writing import write_report

__all__ = ["write_report"]
