"""Which parts of an image are shown at full resolution, and their pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.opening import OpenImage
from cellseg_pipe.plot import distinct_colors, outlines, overlay, to_grey8, to_rgb8
from cellseg_pipe.plot.volumes import stretched
from cellseg_pipe.report.counts import CellCounts
from cellseg_pipe.report.restored import restored_pixels
from cellseg_pipe.report.source import UnitSource
from cellseg_pipe.segmentation.plan import ImageSource
from cellseg_pipe.stages.views import on_level_0

__all__ = ["Region", "Shown", "choose_regions", "shown", "thumbnail"]

EDGE_PX = 384
MOST = 6
OVERVIEW_PX = 720
OVERVIEW_VOXELS = 1 << 25  # of a plane that is read for a small picture of it
DEPTH_PX = 96  # of a volume, of which side views are shown
LEAST_CELLS = 5  # of a field whose confidence says something
LINE = (255, 214, 10)
WEBP_QUALITY = 86


@dataclass(frozen=True)
class Region:
    """A part of a plane.

    Parameters
    ----------
    why : str
        What is special about it.
    box : Box
        On level 0, one plane thick.
    """

    why: str
    box: Box


@dataclass(frozen=True)
class Shown:
    """The pictures of a region.

    Parameters
    ----------
    region : Region
        Where.
    layers : dict of str to bytes
        WebP files: `image`, `outlines`, `fill`, and where they are known `restored`, `flows`,
        `probability`.
    n_cells : int
        That are seen.
    missing : str
        Why flows and probability are not there; else empty.
    sides : tuple of bytes
        Of a volume the slices [z, x] and [z, y] through the middle, as WebP; else none.
    """

    region: Region
    layers: dict[str, bytes]
    n_cells: int
    missing: str = ""
    sides: tuple[bytes, ...] = ()


def choose_regions(unit: UnitSource, counts: CellCounts) -> list[Region]:
    """Choose what is worth a look: at random, where cells are dense or doubtful, and at seams.

    Parameters
    ----------
    unit : UnitSource
        The unit.
    counts : CellCounts
        Where its cells lie.

    Returns
    -------
    list of Region
        Those of one image are the same each time.
    """
    rng = np.random.default_rng(unit.shape)
    middle = counts.by_plane.argmax() if counts.by_plane.any() else len(counts.by_plane) // 2
    chosen: list[Region] = []
    for why, (y, x) in _places(unit, counts, rng):
        n = len(counts.by_plane)
        plane = int(rng.integers(n)) if why == "at random" and n > 1 else int(middle)
        region = Region(why, _around(unit.shape, (plane, y, x)))
        if all(_shared(region.box, other.box) < 0.3 for other in chosen):
            chosen.append(region)
    return chosen[:MOST]


def _places(
    unit: UnitSource, counts: CellCounts, rng: np.random.Generator
) -> Iterator[tuple[str, tuple[int, int]]]:
    n, sure, pitch = counts.n_cells, counts.mean_confidence, counts.pitch_px

    def middle(field: int) -> tuple[int, int]:
        y, x = np.unravel_index(field, n.shape)
        return int(y * pitch + pitch // 2), int(x * pitch + pitch // 2)

    enough = n >= LEAST_CELLS
    if n.any():
        yield "densest", middle(int(n.argmax()))
    if enough.any():
        yield "least confident", middle(int(np.where(enough, sure, np.inf).argmin()))
    for place in _seams(unit, counts):
        yield "across a seam", place
    fields = np.flatnonzero(n) if n.any() else np.arange(n.size)
    for field in rng.permutation(fields)[: 4 * MOST]:  # those that are seen already are left out
        yield "at random", middle(int(field))


def _seams(unit: UnitSource, counts: CellCounts) -> Iterator[tuple[int, int]]:
    """Yield places on lines where tiles met, of each axis that with most cells around."""
    tiling = unit.tiling
    if tiling is None:
        return
    cores, pitch = tiling.tiles.cores, counts.pitch_px
    for axis in (-2, -1):
        if cores.counts[axis] < 2:
            continue
        unit_box = [0] * len(cores.shape)
        lines = []
        for k in range(1, cores.counts[axis]):
            unit_box[axis] = cores.pitch[axis] * k
            start = on_level_0(tiling.plan, Box(tuple(unit_box), cores.shape)).start[axis]
            lines.append(start)
        fields = [min(line // pitch, counts.n_cells.shape[axis] - 1) for line in lines]
        along = np.take(counts.n_cells, fields, axis=axis)
        y, x = np.unravel_index(int(along.argmax()), along.shape)
        at = int((x if axis == -2 else y) * pitch + pitch // 2)
        line = int(lines[y if axis == -2 else x])
        yield (line, at) if axis == -2 else (at, line)


def thumbnail(unit: UnitSource, plane: int) -> bytes:
    """Return a small picture of a whole plane, as WebP.

    Parameters
    ----------
    unit : UnitSource
        The unit.
    plane : int
        Which one of a volume or series.

    Returns
    -------
    bytes
        The image where it is small enough to be read; else where its labels are.
    """
    image = unit.coarse_image
    if image is not None and np.prod(image.shape[-2:], dtype=float) <= OVERVIEW_VOXELS:
        picture = _picture(unit, image, _plane_of(image.shape, plane / unit.shape[0]))
    else:
        level = unit.n_levels - 1
        box = _plane_of(unit.level_shape(level), plane / unit.shape[0])
        labels = unit.labels(box, level).reshape(box.shape[-2:])
        picture = np.where(labels > 0, 220, 40).astype(np.uint8)
    step = max(1, -(-max(picture.shape[:2]) // OVERVIEW_PX))
    return webp(np.ascontiguousarray(picture[step // 2 :: step, step // 2 :: step]))


def _plane_of(shape: tuple[int, ...], share: float) -> Box:
    """Return a plane of an image at any resolution."""
    if len(shape) < 3:
        return Box.of(shape)
    at = min(int(share * shape[0]), shape[0] - 1)
    return Box((at, 0, 0), (at + 1, *shape[1:]))


def _around(shape: tuple[int, ...], middle: tuple[int, int, int]) -> Box:
    """Return a box of one plane about a place, inside the image."""
    start, stop = [], []
    for n, at in zip(shape[-2:], middle[1:], strict=True):
        edge = min(EDGE_PX, n)
        low = min(max(0, at - edge // 2), n - edge)
        start.append(low)
        stop.append(low + edge)
    if len(shape) == 3:
        plane = min(middle[0], shape[0] - 1)
        return Box((plane, *start), (plane + 1, *stop))
    return Box(tuple(start), tuple(stop))


def _shared(one: Box, other: Box) -> float:
    return one.clip(other).size / one.size if one.meets(other) else 0.0


def shown(unit: UnitSource, region: Region, *, restored: ImageSource | None = None) -> Shown:
    """Read a region and draw it.

    Parameters
    ----------
    unit : UnitSource
        The unit.
    region : Region
        Where.
    restored : ImageSource, optional
        The image as the network saw it, if that is another one.

    Returns
    -------
    Shown
        Its pictures.
    """
    box = region.box
    labels = unit.labels(box).reshape(box.shape[-2:])
    layers = {"image": webp(_picture(unit, unit.image, box))}
    if restored is not None and (seen := restored_pixels(unit, restored, box)) is not None:
        layers["restored"] = webp(_picture(unit, unit.image, box, restored=seen))
    layers |= {
        "outlines": webp(outlines(labels, color=LINE), lossless=True),
        "fill": webp(distinct_colors(labels), lossless=True),
    }
    network = unit.network(box)
    missing = network if isinstance(network, str) else ""
    if not isinstance(network, str):
        layers |= {name: webp(picture) for name, picture in network.items()}
    volume = len(unit.shape) == 3 and unit.axes[0] == "z"
    sides = tuple(map(webp, _sides(unit, box))) if volume and unit.image is not None else ()
    n_cells = int(np.count_nonzero(np.unique(labels)))
    return Shown(region, layers, n_cells, missing, sides)


def _picture(
    unit: UnitSource, image: OpenImage | None, box: Box, *, restored: NDArray[Any] | None = None
) -> NDArray[np.uint8]:
    """Return the image of a plane as colours; grey where it cannot be read any more.

    The restored one has a contrast of its own, as it has for the network that segments.
    """
    if image is None:
        return np.full(box.shape[-2:], 60, np.uint8)
    pixels = (image.read(box) if restored is None else restored).reshape(-1, *box.shape[-2:])
    if image.rgb:
        return to_rgb8(pixels)
    seen = [to_grey8(pixels[channel]) for channel in unit.seen_channels]
    if len(seen) == 1:
        return seen[0]
    return np.stack([seen[0], seen[1], seen[0]], axis=-1)  # magenta and green, for all eyes


def _sides(unit: UnitSource, box: Box) -> Iterator[NDArray[np.uint8]]:
    """Yield the slices through the middle of a region that its plane does not show."""
    assert unit.image is not None  # asked for where there is one
    plane, spacing = box.start[0], unit.spacing_um
    factor = spacing[0] / spacing[-1] if spacing is not None else 1.0
    for axis in (1, 2):
        middle = (box.start[axis] + box.stop[axis]) // 2
        start, stop = list(box.start), list(box.stop)
        start[0], stop[0] = plane - DEPTH_PX // 2, plane + DEPTH_PX // 2
        start[axis], stop[axis] = middle, middle + 1
        slab = Box(tuple(start), tuple(stop)).clip(Box.of(unit.shape))
        pixels = unit.image.read(slab)[unit.seen_channels[0]].squeeze(axis)
        yield stretched(overlay(pixels, unit.labels(slab).squeeze(axis), color=LINE), factor)


def webp(picture: NDArray[np.uint8], *, lossless: bool = False) -> bytes:
    """Return a picture as a WebP.

    Parameters
    ----------
    picture : uint8 array [y, x] or [y, x, 3 or 4]
        Colours.
    lossless : bool
        For lines and areas of one colour.

    Returns
    -------
    bytes
        Of the file.
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="WEBP", quality=WEBP_QUALITY, lossless=lossless)
    return file.getvalue()
