"""The command `cellseg report`, and the report that ends a run."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_report", "report_run"]


def add_report(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the command to those of `cellseg`.

    Parameters
    ----------
    commands : argparse action
        Takes the commands.
    common : argparse.ArgumentParser
        Options of every command.
    """
    parser = commands.add_parser(
        "report",
        parents=[common],
        help="write the page that shows a result",
        description="Write DIR/report.html: one file with verdicts, charts, maps and pictures of a"
        " finished run or of a training run, which any browser opens without a network. Charts as"
        " SVG and their numbers as CSV go into DIR/report.",
    )
    parser.add_argument("dir", type=Path, help="folder of the results")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="instead of report.html")
    parser.set_defaults(command=_report)


def _report(options: argparse.Namespace) -> None:
    from cellseg_pipe.report import write_report

    print(write_report(options.dir, options.output))


def report_run(folder: Path) -> None:
    """Write the report of a run, unless it is newer than all that it shows.

    Parameters
    ----------
    folder : path
        Of the results; without a summary there is nothing to show.
    """
    from cellseg_pipe.paths import RunPaths

    run = RunPaths(folder)
    shown = [path for path in (run.summary, folder / "evaluation.json") if path.exists()]
    if not run.summary.exists():
        return
    newest = max(path.stat().st_mtime_ns for path in shown)
    if run.report.exists() and run.report.stat().st_mtime_ns >= newest:
        return
    from cellseg_pipe.report import write_report

    write_report(folder)
