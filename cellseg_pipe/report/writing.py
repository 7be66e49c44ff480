"""Puts the page together and writes it, with its charts and their numbers beside it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from cellseg_pipe import __version__
from cellseg_pipe.io.files import sync_folder
from cellseg_pipe.io.tables import write_table
from cellseg_pipe.ledger import write_whole
from cellseg_pipe.paths import safe_name
from cellseg_pipe.report import cells, look
from cellseg_pipe.report.charts import Figure
from cellseg_pipe.report.html import Section, escape, facts, page
from cellseg_pipe.report.many import extremes, failed_images, image_table
from cellseg_pipe.report.opening import about_image, head, scored, what_was_run
from cellseg_pipe.report.source import Run, UnitSource, open_run
from cellseg_pipe.report.strips import Strip, strips
from cellseg_pipe.report.training import is_training, training_page
from cellseg_pipe.report.work import work

__all__ = ["write_report"]

log = logging.getLogger(__name__)

FEW = 4  # images of which each has sections of its own
# So that a drawing looks as on the page when it is opened alone.
ALONE = (
    "<style>svg{background:#fff}text{font:11px system-ui,sans-serif;fill:#565d64}"
    ".mark{fill:#0a6a70}.box{fill:none;stroke:#ffd200;stroke-width:1.5}.boxback{fill:#ffd200}.mark2{fill:#565d64;opacity:.45}.line{fill:none;stroke:#0a6a70;stroke-width:2}.line.b{stroke:"
    "#565d64;stroke-dasharray:5 3}.axis{stroke:#dfe1e3}.zero{stroke:#565d64;stroke-dasharray:2 3}"
    ".mid{stroke:#17191b;stroke-width:1.25}.ends{fill:none;stroke:#0a6a70;stroke-width:3}.ground{"
    "fill:#eff1f1}image{image-rendering:pixelated}image.smooth{image-rendering:auto}</style>"
)


Drawn = Figure | Strip


def write_report(folder: Path | str, output: Path | str | None = None) -> Path:
    """Write the report of a finished run, or of a training run.

    Parameters
    ----------
    folder : path
        The `output.dir` of an experiment, or the folder of a training run.
    output : path, optional
        The page; by default `report.html` in the folder. Charts as SVG, their numbers as CSV and
        pictures as PNG go into a folder `report` beside it, which is replaced.

    Returns
    -------
    path
        The page: one file that needs no other.
    """
    folder = Path(folder)
    target = folder / "report.html" if output is None else Path(output)
    figures: Sequence[Drawn]
    if is_training(folder):
        text, figures = training_page(folder)
    else:
        text, figures = run_page(open_run(folder))
    target.parent.mkdir(parents=True, exist_ok=True)
    _write_figures(target.with_name(target.stem), figures)
    write_whole(target, text.encode())
    log.info("%s: %.1f MB, %d charts and pictures", target, len(text) / 1e6, len(figures))
    return target


def run_page(run: Run) -> tuple[str, list[Drawn]]:
    """Return the page of a run.

    Parameters
    ----------
    run : Run
        The run.

    Returns
    -------
    str
        HTML.
    list of Figure or Strip
        All charts and pictures.
    """
    sections: list[Section] = []
    figures: list[Drawn] = []
    if run.failed:
        sections.append(failed_images(run))
    sections.append(what_was_run(run))
    own = _many(run) if len(run.units) > FEW else _few(run)
    for found in (scored(run), *own, work(run)):
        if found is not None:
            sections.append(found[0])
            figures += found[1]
    title = run.folder.resolve().name
    foot = f"Written by cellseg_pipe {escape(__version__)}. This page needs no network."
    return page(title, head(run), sections, foot=foot), figures


def _few(run: Run) -> list[tuple[Section, Sequence[Drawn]]]:
    """Return the sections of each image."""
    found: list[tuple[Section, Sequence[Drawn]]] = []
    for index, unit in enumerate(run.units):
        log.info("%s: %d cells", unit.name, unit.facts["n_cells"])
        if len(run.units) > 1:
            about = Section(unit.name, unit.name, facts(about_image(unit)), _warned(unit))
            found.append((about, []))
        counts = cells.counts_of(unit)
        shown = look.pictures(unit, counts)
        pictures = look.regions([(unit, shown)], key=str(index))
        several: tuple[tuple[Section, Sequence[Drawn]] | None, ...] = (
            cells.sizes(unit),
            cells.maps(unit, counts, first=look.places(unit, shown)),
            (pictures, list(strips(unit.name, shown))),
            look.volume(unit, counts),
            look.seams(unit),
        )
        found += [one for one in several if one is not None]
    return found


def _warned(unit: UnitSource) -> str:
    """Return the verdicts that ask for a look."""
    texts = [v["text"] for v in unit.qc.get("verdicts", ()) if v["level"] != "ok"]
    return "; ".join(texts).capitalize() if texts else "Nothing was found that asks for a look."


def _many(run: Run) -> list[tuple[Section, Sequence[Drawn]]]:
    """Return a table of all images, and pictures of a few."""
    section, figures, means = image_table(run)
    chosen = []
    for why, unit in extremes(run, means):
        pictures = look.pictures(unit, cells.counts_of(unit), most=1)
        log.info("%s: shown as one of the %s", unit.name, why)
        chosen.append((unit, pictures))
    found: list[tuple[Section, Sequence[Drawn]]] = [(section, figures)]
    if chosen:
        pictures_of = look.regions(chosen, key="many")
        note = f"The least sure images first, then the surest. {pictures_of.note}"
        rows = [strip for unit, shown in chosen for strip in strips(unit.name, shown)]
        found.append((Section("Look", "Worst and best images", pictures_of.body, note), rows))
    return found


def _write_figures(folder: Path, figures: Sequence[Drawn]) -> None:
    """Write charts, their numbers and pictures into a folder, in place of the one before."""
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for figure in figures:
        name = safe_name(figure.name)
        if isinstance(figure, Strip):
            write_whole(fresh / f"{name}.png", figure.content)
            continue
        svg = figure.svg.replace(">", f">{ALONE}", 1)
        write_whole(fresh / f"{name}.svg", svg.encode())
        if figure.data:
            write_table(fresh / f"{name}.csv", figure.data)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    sync_folder(folder.parent)
