"""Opens one series of a TIFF for reading box by box."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cellseg_pipe.io._pages import form_of, page_of
from cellseg_pipe.io._raw import ArraySource, FirstSource, Raw, Source, said
from cellseg_pipe.io._segments import FAULTS, PagesSource
from cellseg_pipe.io.tiff import axes_said, is_grey_with_alpha, tiff_facts

__all__ = ["open_tiff"]

log = logging.getLogger(__name__)

KINDS = {"ome": "OME-TIFF", "svs": "SVS", "imagej": "ImageJ TIFF", "ndpi": "NDPI", "scn": "SCN"}
MAPPED_CHUNK = (512, 2048)  # rows and columns; a page of memory holds more than a short row


def open_tiff(path: Path, *, series: int, level: int, axes: str | None) -> Raw:
    """Open one series of a TIFF; a damaged file is refused, not read as far as it goes.

    Parameters
    ----------
    path : path
        Plain, ImageJ, OME, or a whole slide.
    series, level : int
        Which of the images that it holds, and of its resolutions.
    axes : str or None
        What the user says of them.

    Returns
    -------
    Raw
        Nothing of its pixels is read yet, where they can be read box by box.
    """
    import tifffile

    faults: list[str] = []
    raw: Raw | None = None
    known = 0
    try:
        with _heard(faults), tifffile.TiffFile(path) as file:
            known = len(file.series)
            if not known:
                raise ValueError("it holds no image")
            _check_master(file, axes)
            if 0 <= series < known:
                _check_level(file.series[series], level)
                raw = _opened(file, path, series=series, level=level)
    except _Refused as refused:
        raise ValueError(f"{path} {refused}") from None
    except FAULTS as error:
        faults.append(said(error))
    if faults:
        raise ValueError(
            f"{path} cannot be read as TIFF: {'; '.join(faults).rstrip('.')}. Copy or export it"
            " again."
        )
    if raw is None:
        raise ValueError(f"{path} has series 0 to {known - 1}, asked for {series}.")
    if known > 1:
        log.info(
            "%s holds %d images, number %d is read; series= says otherwise",
            path.name,
            known,
            series,
        )
    return raw


class _Refused(Exception):
    """A file that is whole, and cannot be read as it is asked."""


@contextlib.contextmanager
def _heard(faults: list[str]) -> Iterator[None]:
    """Collect the errors that tifffile logs: it reads what is left of a damaged file."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            faults.append(record.getMessage())

    collector, speaker = Collector(logging.ERROR), logging.getLogger("tifffile")
    speaker.addHandler(collector)
    try:
        yield
    finally:
        speaker.removeHandler(collector)


def _check_master(file: Any, axes: str | None) -> None:
    """Refuse a part of an image that does not tell what it is a part of."""
    xml = file.ome_metadata if file.is_ome else None
    if axes is None and xml and re.search(r"<(\w+:)?BinaryOnly\b", xml):
        named = re.search(r'MetadataFile="([^"]*)"', xml)
        raise _Refused(
            "is one part of an OME-TIFF of several files, and its metadata are in"
            f" {named[1] if named else 'another one'}. Open that, or give axes= to read this part."
        )


def _check_level(chosen: Any, level: int) -> None:
    if not 0 <= level < len(chosen.levels):
        raise _Refused(f"has levels 0 to {len(chosen.levels) - 1}, asked for {level}.")


def _opened(file: Any, path: Path, *, series: int, level: int) -> Raw:
    base = file.series[series]
    chosen = base.levels[level]
    source, in_place, chunk = _source(chosen, path)
    named = axes_said(file, chosen)
    if named is not None and is_grey_with_alpha(chosen, named):
        log.info("%s: the alpha channel is left out", path.name)
        axis = named.index("S")
        source, named = FirstSource(source, axis), named.replace("S", "")
        chunk = chunk and chunk[:axis] + chunk[axis + 1 :]
    names, spacing = tiff_facts(file, base, series=series, path=path)
    if level:
        spacing = _coarser(spacing, base, chosen)
    return Raw(
        source,
        axes=named,
        channel_names=names,
        spacing_um=spacing,
        chunk=chunk,
        in_place=in_place,
        format=KINDS.get(str(chosen.kind), "BigTIFF" if file.is_bigtiff else "TIFF"),
        n_levels=len(base.levels),
        identity=_identity(file, path, chosen),
    )


def _source(chosen: Any, path: Path) -> tuple[Source, bool, tuple[int, ...] | None]:
    """Return what reads boxes, whether cheaply, and what is cheap."""
    shape = tuple(int(n) for n in chosen.shape)
    if not chosen.is_multifile and chosen.transform is None and chosen.dataoffset is not None:
        page = chosen.keyframe
        stored = np.dtype(page.parent.byteorder + page._dtype.char)
        name = os.path.join(page.parent.filehandle.dirname, page.parent.filehandle.name)
        mapped = np.memmap(name, stored, "r", offset=chosen.dataoffset, shape=shape)
        return ArraySource(mapped), True, _mapped_chunk(chosen.axes, shape)
    pages = list(chosen)
    if missing := sum(page is None for page in pages):
        raise _Refused(
            f"spreads its {len(pages)} planes over several files, and {missing} of them are"
            " missing beside it. Put all files of the image into one folder."
        )
    n_outer = _n_outer(shape, len(pages), chosen.keyframe.shaped)
    forms = {form_of(frame) for frame in {id(p.keyframe): p.keyframe for p in pages}.values()}
    if n_outer is None or chosen.transform is not None or len(forms) > 1:
        return ArraySource(chosen.asarray()), False, None  # nobody knows where a box lies
    form = forms.pop()
    source = PagesSource(str(path), shape, n_outer, form, tuple(map(page_of, pages)))
    for cut in source.cut_short():
        raise ValueError(cut)
    if form.mapped:
        return source, True, _mapped_chunk(chosen.axes, shape)
    if not chosen.keyframe.is_tiled:
        return source, False, None
    edges = [e for e, n in zip(form.edges, form.shape, strict=True) if n > 1]
    inner = iter([min(e, n) for e, n in zip(edges, (n for n in form.shape if n > 1), strict=True)])
    tail = tuple(next(inner) if n > 1 else 1 for n in shape[n_outer:])
    return source, True, (1,) * n_outer + tail


def _n_outer(shape: tuple[int, ...], n_pages: int, page_shape: tuple[int, ...]) -> int | None:
    """Return how many axes of a series count its pages, None where they do not."""
    wanted = [int(n) for n in page_shape if n != 1]
    for n_outer in range(len(shape) + 1):
        inner = [n for n in shape[n_outer:] if n != 1]
        if inner == wanted and math.prod(shape[:n_outer]) == n_pages:
            return n_outer
    return None


def _mapped_chunk(axes: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    edges = dict(zip("YX", MAPPED_CHUNK, strict=True))
    return tuple(
        min(n, edges.get(axis, n if axis == "S" else 1))
        for axis, n in zip(axes, shape, strict=True)
    )


def _coarser(spacing: dict[str, float], base: Any, chosen: Any) -> dict[str, float]:
    """Return the size of a voxel of a coarser level."""
    full = dict(zip(base.axes.lower(), base.shape, strict=True))
    here = dict(zip(chosen.axes.lower(), chosen.shape, strict=True))
    return {axis: size * full.get(axis, 1) / here.get(axis, 1) for axis, size in spacing.items()}


def _identity(file: Any, path: Path, chosen: Any) -> dict[str, Any]:
    """Return size and time of all files, and a hash of what the first says."""
    about = (chosen.axes, chosen.shape, chosen.dtype, chosen.name, file.pages.first.description)
    text = " ".join(map(str, about))
    names = {str(path)}
    if chosen.is_multifile:
        handles = [page.parent.filehandle for page in chosen if page is not None]
        names |= {os.path.join(handle.dirname, handle.name) for handle in handles}
    found = [os.stat(name) for name in names]
    return {
        "bytes": sum(about.st_size for about in found),
        "mtime_ns": max(about.st_mtime_ns for about in found),
        "metadata": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
    }
