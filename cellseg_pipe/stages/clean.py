"""Finds what a results folder can do without, and removes it."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellseg_pipe.ledger import read_done
from cellseg_pipe.paths import RunPaths, StagePaths
from cellseg_pipe.stages._run_layout import is_plan
from cellseg_pipe.stages.layout import RunLayout, layouts_in, read_layout

__all__ = ["Leftover", "find", "remove", "text_of"]

STAGE_FOLDER = re.compile(r"[a-z][a-z0-9_]*-[0-9a-f]{12}")
# Written beside what they become: by `write_whole`, done files, published stores, new stores.
TEMPORARY = re.compile(
    r"\..+\.[0-9a-f]{16}|\.\d{4,}\.json\.\d+|\.old-.+|\..+\.zarr\.[a-z0-9_]{8}|\.calibrate-.+"
)
OURS = {".snakemake", ".locks", ".cache"}  # folders of programs, not of crashed writers
# What is published, beside other files of the user: `.NAME.0123456789abcdef`, `.old-NAME`.
PUBLISHED = re.compile(
    r"\.(?:old-)?(?:(?:labels(?:-qc)?|restored)\.ome\.zarr|(?:cells|outlines|conflicts|qc)\.parquet"
    r"|cells\.(?:csv|geojson)|(?:config\.yaml|(?:plan|summary|failed|evaluation)\.json)"
    r"|evaluation\.csv|report\.html)(?:\.[0-9a-z_]{8,16})?"
)
# Records that only other settings would be made from, and what is made again with them.
SCRATCH = ("predict", "masks", "seams")


@dataclass(frozen=True)
class Leftover:
    """Something that can go.

    Parameters
    ----------
    path : path
        A file or folder.
    why : str
        What it is.
    n_bytes : int
        What it takes on the disk.
    """

    path: Path
    why: str
    n_bytes: int


def find(root: Path | str, scopes: Sequence[str] = ("orphans",)) -> list[Leftover]:
    """Look for what a results folder can do without. Nothing is changed.

    Parameters
    ----------
    root : path
        Folder of the results.
    scopes : sequence of {"orphans", "old", "scratch"}
        Orphans are what no experiment names that the folder was used for, what crashed writers left
        and attempts that no finished batch counts. Old is what only earlier experiments name.
        Scratch are the windows and tiles of units that are finished.

    Returns
    -------
    list of Leftover
        No path within another one.
    """
    paths = RunPaths(Path(root))
    files = layouts_in(paths.root)
    known = [dataclasses.replace(read_layout(file), root=paths.root) for file in files]
    layouts = known[:1] if "old" in scopes else known
    found: dict[Path, str] = {}
    if "old" in scopes:
        found |= {file: "experiment before this one" for file in _old_files(files[1:], known[1:])}
    if "orphans" in scopes or "old" in scopes:
        found |= {path: "of no experiment" for path in _unnamed(paths, layouts)}
        found |= {path: "left by a writer that crashed" for path in _temporary(paths, known)}
        found |= {path: "attempt that does not count" for path in _attempts(layouts)}
    if "scratch" in scopes:
        found |= {path: "scratch of a finished unit" for path in _scratch(layouts)}
    outer = [path for path in found if not any(above in found for above in path.parents)]
    return [Leftover(path, found[path], _bytes_of(path)) for path in sorted(outer)]


def remove(leftovers: list[Leftover]) -> None:
    """Remove what was found; what went meanwhile is passed over.

    Parameters
    ----------
    leftovers : list of Leftover
        From `find`, with the run's lock held since.
    """
    for leftover in leftovers:
        if leftover.path.is_dir() and not leftover.path.is_symlink():
            # Done files go first: what is half removed must not be taken for finished.
            shutil.rmtree(leftover.path / "done", ignore_errors=True)
            shutil.rmtree(leftover.path)
        else:
            leftover.path.unlink(missing_ok=True)


def text_of(leftovers: list[Leftover], root: Path) -> str:
    """Return what was found in lines, and what would have to be made again.

    Parameters
    ----------
    leftovers : list of Leftover
        From `find`.
    root : path
        Folder of the results.

    Returns
    -------
    str
        For people.
    """
    lines = [
        f"{each.n_bytes / 1e6:>12.1f} MB  {each.path.relative_to(root)}  ({each.why})"
        for each in leftovers
    ]
    total = sum(each.n_bytes for each in leftovers)
    lines.append(f"{total / 1e6:>12.1f} MB in {len(leftovers)} places")
    if any(each.why.startswith("scratch") for each in leftovers):
        lines.append(
            "finished results stay as they are; with other settings for cells, measures, rules or"
            " exports windows and tiles are computed again"
        )
    return "\n".join(lines)


def _stages(layouts: list[RunLayout]) -> Iterator[tuple[StagePaths, int]]:
    """Yield the files of all stages, and how many batches they have."""
    for layout in layouts:
        for unit, stage in layout.jobs():
            yield layout.files(unit, stage.name), stage.n_batches


def _old_files(files: list[Path], layouts: list[RunLayout]) -> Iterator[Path]:
    """Yield what earlier experiments wrote beside the folders of their stages."""
    for file, old in zip(files, layouts, strict=True):
        marker = file.with_name(f"finished-{old.digest}.json")
        config = file.with_name(old.config.name)
        yield from (path for path in (file, config, marker) if path.exists())


def _unnamed(paths: RunPaths, layouts: list[RunLayout]) -> Iterator[Path]:
    """Yield folders of stages that no layout names; those of images that failed may be wanted."""
    failed = {name for layout in layouts for name in layout.failed}
    named = {files.root for files, _ in _stages(layouts)}
    # Small images have no other stage of their own than that which says what was found in them.
    named |= {layout.audit(name).root for layout in layouts for name in layout.audits}
    for unit in (folder for folder in _folders(paths.runs) if folder.name not in failed):
        for stage in _folders(unit):
            if STAGE_FOLDER.fullmatch(stage.name) and stage not in named:
                yield stage


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def _temporary(paths: RunPaths, layouts: list[RunLayout]) -> Iterator[Path]:
    """Yield what crashed writers have left: nobody writes while the lock is held.

    Beside `runs` users may keep files: there only what becomes results is looked for.
    """
    units = {paths.unit(name).root for layout in layouts for name in layout.audits}
    for place in (paths.root, *sorted(units)):
        if place.is_dir():
            yield from (path for path in place.iterdir() if PUBLISHED.fullmatch(path.name))
    for folder, folders, files in os.walk(paths.runs):
        folders[:] = [name for name in folders if name not in OURS]
        found = [name for name in (*folders, *files) if TEMPORARY.fullmatch(name)]
        folders[:] = [name for name in folders if name not in found]
        yield from (Path(folder) / name for name in found)


def _attempts(layouts: list[RunLayout]) -> Iterator[Path]:
    """Yield records of attempts that finished batches do not count."""
    for files, n_batches in _stages(layouts):
        if is_plan(files.stage):
            continue
        for batch, tokens in files.attempts().items():
            if batch >= n_batches or not files.done(batch).exists():
                continue
            segments = read_done(files, batch).segments
            counted = {files.root / name for each in segments for name in (each.data, each.ledger)}
            for token in tokens:
                both = files.data(batch, token), files.ledger(batch, token)
                yield from (path for path in both if path.exists() and path not in counted)


def _scratch(layouts: list[RunLayout]) -> Iterator[Path]:
    """Yield the records of units that are audited, with the markers that name them."""
    layout = layouts[0]
    for name in layout.names:
        readers = [name, *_readers(layout, name)]
        if not all(layout.audit(reader).plan.exists() for reader in readers):
            continue
        for stage in layout.unit(name).stages:
            root = layout.files(name, stage.name).root
            if stage.kind in SCRATCH and root.exists():
                yield root


def _readers(layout: RunLayout, name: str) -> Iterator[str]:
    """Yield the units that are made from a unit, or related to it."""
    for unit in layout.units:
        needs = {need for stage in unit.stages for need in stage.needs}
        if any(need.rpartition("/")[0] == name for need in needs):
            yield unit.name


def _bytes_of(path: Path) -> int:
    """Return what a file or folder takes on the disk; of hard links the first counts."""
    if not path.is_dir() or path.is_symlink():
        return path.lstat().st_blocks * 512
    seen, total = set(), 0
    for folder, _, files in os.walk(path):
        for name in files:
            about = os.lstat(os.path.join(folder, name))
            if about.st_ino not in seen:
                seen.add(about.st_ino)
                total += about.st_blocks * 512
    return total
