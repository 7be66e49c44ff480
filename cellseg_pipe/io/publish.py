"""Moves finished stores to where users look for them."""

from __future__ import annotations

from pathlib import Path

from cellseg_pipe.io._moving import (
    check_store,
    is_of,
    ours,
    remove,
    remove_leftovers,
    rename,
    together,
)

__all__ = ["publish"]


def publish(store: Path | str, destination: Path | str, *, stage_hash: str | None = None) -> None:
    """Rename a finished store into place; one that was published there before is replaced.

    The old store is first renamed aside, to `.old-NAME` in the same folder, and removed when the
    new one is in place. If this is cut short, the same call again completes it.

    Parameters
    ----------
    store : path
        Made by this package, on the same file system.
    destination : path
        Where it is to be. A store there that this package did not make is refused.
    stage_hash : str, optional
        Of the stage that made the store: a store of another stage is refused, and one that was
        moved by an earlier call is known again.
    """
    store, destination = Path(store), Path(destination)
    old = destination.with_name(f".old-{destination.name}")
    there = ours(destination)
    moved = there is not None and not store.exists()
    if moved and (is_of(there, stage_hash) if stage_hash else old.exists()):
        remove(old)
        return
    check_store(store, stage_hash)
    destination.parent.mkdir(parents=True, exist_ok=True)
    if not together(store, destination.parent):
        raise ValueError(
            f"{store} is renamed to {destination}, which lies on another file system. Keep the"
            " scratch folder on that of the results."
        )
    remove_leftovers(store)
    if there is not None:
        remove(old)  # of an earlier call, which had its new store in place
        rename(destination, old)
    rename(store, destination)
    remove(old)
