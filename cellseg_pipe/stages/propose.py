"""Writes an experiment file for images, from what their files say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cellseg_pipe.config import ImageFacts, load_experiment, propose
from cellseg_pipe.io.inputs import find_inputs
from cellseg_pipe.io.opening import open_image
from cellseg_pipe.ledger import write_whole
from cellseg_pipe.stages.opened import check_one_time

__all__ = ["run"]


def run(images: Sequence[str], config: Path, *, output_dir: str, model: str) -> Iterator[str]:
    """Write an experiment file.

    Parameters
    ----------
    images : sequence of str
        Files, stores, folders, patterns, URLs.
    config : path
        The file to write; it must not exist.
    output_dir : str
        Folder of the results.
    model : str
        Name or file of a model.

    Yields
    ------
    str
        Lines for the user.
    """
    if config.exists():
        raise FileExistsError(f"{config} exists. Name another file with --config, or remove it.")
    facts = [facts_of(path) for path in _paths(images)]
    write_whole(config, propose(facts, output_dir=output_dir, model=model).encode())
    load_experiment(config)
    for one in facts:
        spacing = (
            "unknown" if one.spacing_um is None else " x ".join(f"{s:g}" for s in one.spacing_um)
        )
        names = ", ".join(one.channel_names) or "unnamed"
        yield f"{one.path}: {one.axes} {one.shape}, voxel {spacing} um, channels {names}"
    yield f"{config} is written. Look at it, then: cellseg plan {config}"


def _paths(images: Sequence[str]) -> Iterator[str]:
    for image in images:
        if "://" in image:
            yield image
        else:
            yield from map(str, find_inputs([image]))


def facts_of(path: str) -> ImageFacts:
    """Return what a file says of its image.

    Parameters
    ----------
    path : str
        File, store or URL.

    Returns
    -------
    ImageFacts
        Without reading pixels.
    """
    image = open_image(path).as_series()
    check_one_time(image)
    several = image.n_channels > 1
    return ImageFacts(
        path=path,
        name="",  # that of the experiment: `0` would be no name for plate.zarr/A/1/0
        shape=((image.n_channels,) if several else ()) + image.shape,
        axes=("c" if several else "") + image.spatial,
        channel_names=image.channel_names,
        spacing_um=image.spacing_um,
        rgb=image.rgb,
        dtype=str(image.dtype),
    )
