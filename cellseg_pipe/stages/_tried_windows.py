"""Windows of a network that are computed when a trial asks for them, and timed."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.nets.windows import predict
from cellseg_pipe.segmentation.plan import ImageSource, Plan
from cellseg_pipe.segmentation.stored import record_to_bytes, window_keys

__all__ = ["TimedReading", "TriedWindows"]


class TimedReading:
    """Pixels, and the time that reading them has taken.

    Parameters
    ----------
    source : ImageSource
        The image.
    within : TimedReading, optional
        What it reads from itself: the image as it is, where the source restores it.
    """

    def __init__(self, source: ImageSource, within: TimedReading | None = None) -> None:
        self._source, self._within, self.seconds = source, within, 0.0

    @property
    def own_s(self) -> float:
        """Seconds, without those of what it reads from."""
        return self.seconds - (self._within.seconds if self._within else 0.0)

    def read(self, box: Box) -> NDArray[Any]:
        """Return the pixels of a box."""
        began = time.monotonic()
        pixels = self._source.read(box)
        self.seconds += time.monotonic() - began
        return pixels


class TriedWindows:
    """Windows that are computed when they are first asked for, and timed.

    What restoring takes is known for whole jobs, in which windows share what is restored, and does
    not count here.
    """

    def __init__(
        self, engines: Any, raw: Any, make: Any, *, plan: Plan, reading: TimedReading | None
    ) -> None:
        self._engines, self._raw, self._make, self._plan = engines, raw, make, plan
        self._reading = reading
        self._blobs: dict[int, bytes] = {}
        self.seconds, self.n_px = 0.0, 0

    def read(self, key: int) -> bytes:
        """Return the blob of a window; see `Stored`."""
        if key not in self._blobs:
            view, index, place = self._of(key)
            net = self._engines[0] if place == 0 else self._engines[-1]
            augment = self._plan.settings.augment
            began = self._now()
            (record,) = predict(net, self._make, view, indices=[index], augment=augment)
            blank = record.style.size == 0
            self._blobs[key] = b"" if blank else record_to_bytes(record)
            if not blank:
                self.seconds += self._now() - began
                self.n_px += math.prod(view.edge(index))
        return self._blobs[key]

    def _now(self) -> float:
        """Return seconds, without those of restoring; files are read either way."""
        return time.monotonic() - (self._reading.own_s if self._reading else 0.0)

    def is_blank(self, key: int) -> bool:
        """Return whether there is nothing in a window; see `Stored`."""
        return not self.read(key)

    def has_pixels(self, key: int) -> bool:
        """Return whether the network would look at a window."""
        view, index, _ = self._of(key)
        inside = view.box(index).clip(Box.of(view.shape))
        return bool(inside.size) and self._raw(inside) is not None

    def middle(self, key: int) -> NDArray[np.float64]:
        """Return the middle of a window, on the network's grid."""
        view, index, _ = self._of(key)
        inside = view.box(index).clip(Box.of(view.shape))
        return (np.asarray(inside.start) + np.asarray(inside.stop)) / 2

    def _of(self, key: int) -> tuple[Any, tuple[int, ...], int]:
        views = window_keys(self._plan)
        place = max(n for n, (_, first) in enumerate(views) if first <= key)
        view, first = views[place]
        index = np.unravel_index(key - first, view.lattice.counts)
        return view, tuple(int(i) for i in index), place
