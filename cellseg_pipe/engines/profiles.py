"""Puts Snakemake's profiles where `snakemake --profile NAME` finds them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from platformdirs import user_config_path

from cellseg_pipe.engines.snakemake import SNAKEFILE
from cellseg_pipe.ledger import write_whole

__all__ = ["install", "profiles_folder"]


def profiles_folder() -> Path:
    """Return where Snakemake looks for the profiles of this user."""
    return user_config_path("snakemake")


def install(folder: Path | None = None, *, force: bool = False) -> list[str]:
    """Copy the profiles of the clone; a file that differs is the user's, and stays.

    Parameters
    ----------
    folder : path, optional
        Instead of `profiles_folder`.
    force : bool
        Replace files that differ, and keep them as NAME.old.

    Returns
    -------
    list of str
        What was done, for people.
    """
    shipped = SNAKEFILE.parent / "profiles"
    files = sorted(shipped.glob("*/*.yaml"))
    if not files:
        raise FileNotFoundError(
            f"the profiles lie in {shipped} of a clone of the repository, and there are none: an"
            " installed package has none. Clone the repository and run it from there."
        )
    target = profiles_folder() if folder is None else folder
    lines = [_put(file, target / file.relative_to(shipped), force=force) for file in files]
    return [*lines, *_usage([file.parent.name for file in files], target)]


def _put(shipped: Path, target: Path, *, force: bool) -> str:
    content = shipped.read_bytes()
    if not target.exists():
        write_whole(target, content)
        return f"wrote {target}"
    if target.read_bytes() == content:
        return f"{target} is there already"
    if not force:
        return f"{target} is not as it is shipped and stays: --force replaces it"
    old = target.with_name(f"{target.name}.old")
    write_whole(old, target.read_bytes())
    write_whole(target, content)
    return f"replaced {target}; what it was is in {old.name}"


def _usage(names: list[str], target: Path) -> Iterator[str]:
    where = "" if target == profiles_folder() else f"{target}/"
    for name in dict.fromkeys(names):
        yield (
            f"now: cellseg run CONFIG --profile {where}{name}, or from any folder"
            f" snakemake --snakefile {SNAKEFILE} --profile {where}{name} --configfile CONFIG"
        )
