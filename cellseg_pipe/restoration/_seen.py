"""Which windows of a box had something to restore."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.nets.windows import Record, View

__all__ = ["Seen"]


class Seen:
    """Where windows of a box were restored, per channel.

    Parameters
    ----------
    n_channels : int
        Channels.
    box : Box
        On the network's grid.
    """

    def __init__(self, n_channels: int, box: Box) -> None:
        self._n, self._box, self._windows = n_channels, box, list[tuple[Box, Any]]()
        self.any_stays = False

    def noted(self, records: Iterable[Record], view: View) -> Iterator[Record]:
        """Yield the windows of a view as they are, and remember which of them stay.

        Parameters
        ----------
        records : iterable of Record
            The windows that meet the box.
        view : View
            What they are of.

        Yields
        ------
        Record
            The same.
        """
        for record in records:
            self.any_stays |= bool(record.style.any())
            self._windows.append((view.box(record.index).clip(self._box), record.style))
            yield record

    @property
    def restored(self) -> NDArray[np.float32]:
        """1 where any window was restored, else 0 [n_channels, *box]."""
        found = np.zeros((self._n, *self._box.shape), np.float32)
        for box, stays in self._windows:
            part = found[(slice(None), *box.relative_to(self._box.start).slices)]
            part[stays == 0 if stays.size else slice(None)] = 1
        return found
