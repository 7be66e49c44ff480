"""An image that is restored where it is read: any box, at the moment it is asked for."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cellseg_pipe.geometry import Box
from cellseg_pipe.nets.restore import restored_windows
from cellseg_pipe.restoration.boxes import network_inputs, restored_box
from cellseg_pipe.restoration.plan import RestorePlan
from cellseg_pipe.segmentation.plan import ImageSource

if TYPE_CHECKING:
    from cellseg_pipe.nets.windows import Network, Record, Source, View

__all__ = ["KEPT_BYTES", "check_same_grid", "restored_source"]

KEPT_BYTES = 256_000_000  # 500 windows of 512 px


def restored_source(
    source: ImageSource,
    plan: RestorePlan,
    *,
    net: Network | None = None,
    kept_bytes: int = KEPT_BYTES,
    threads: int | None = None,
) -> ImageSource:
    """Return an image whose pixels are those of the restored one.

    Parameters
    ----------
    source : ImageSource
        The image.
    plan : RestorePlan
        What is done to it.
    net : Network, optional
        From one channel to one; a filter has none.
    kept_bytes : int
        Of the network's windows, up to which those that were read last are kept for the next box.
    threads : int, optional
        Threads to use; no pixel depends on it.

    Returns
    -------
    ImageSource
        Reads float32: the bits of the same box of `restore`, which sees the whole image.
    """
    check_same_grid(plan)
    if (net is None) == (plan.method == "network"):
        raise ValueError(
            f"method {plan.method!r} needs {'a network' if net is None else 'no network'}, got"
            f" {'none' if net is None else 'one'}."
        )
    records = None
    if net is not None:
        records = _Kept(net, network_inputs(source, plan, threads=threads), kept_bytes)
    return dataclasses.replace(
        source, read=lambda box: restored_box(source, plan, box, records=records, threads=threads)
    )


def check_same_grid(plan: RestorePlan) -> None:
    """Refuse what gives an image other pixels: labels lie on those of the image itself.

    Parameters
    ----------
    plan : RestorePlan
        Of the image.
    """
    if not plan.out.identity:
        raise ValueError(
            f"an image is restored where it is read if its grid stays, got {plan.shape} to"
            f" {plan.out_shape} px. An image that fits in memory is restored"
            " first, with `cellseg restore`."
        )


class _Kept:
    """Windows of a network, computed when they are first asked for; the last ones are kept.

    Parameters
    ----------
    net : Network
        From one channel to one.
    inputs : callable
        Gives the network's input of a box of its grid.
    most_bytes : int
        Of what is kept.
    """

    def __init__(self, net: Network, inputs: Source, most_bytes: int) -> None:
        self._net, self._inputs, self._most_bytes = net, inputs, most_bytes
        self._records: OrderedDict[tuple[View, tuple[int, ...]], Record] = OrderedDict()
        self._n_bytes = 0

    def __call__(self, view: View, box: Box) -> Iterator[Record]:
        """Yield the windows that meet a box, ascending."""
        indices = list(view.over(box))
        # By reference: those that are computed in between may push them out.
        known = {i: self._records[view, i] for i in indices if (view, i) in self._records}
        missing = [i for i in indices if i not in known]
        computed = restored_windows(self._net, self._inputs, view, indices=missing)
        for index in indices:
            record = known[index] if index in known else next(computed)
            self._keep(view, record)
            yield record

    def _keep(self, view: View, record: Record) -> None:
        key = (view, record.index)
        if key not in self._records:
            self._n_bytes += record.values.nbytes
        self._records[key] = record
        self._records.move_to_end(key)
        while self._n_bytes > self._most_bytes:
            _, oldest = self._records.popitem(last=False)
            self._n_bytes -= oldest.values.nbytes
