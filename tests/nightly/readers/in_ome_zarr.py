"""Opens a store with the Reader of ome-zarr-py."""

from importlib.metadata import version

from _seen import answer, asked, level, told
from ome_zarr.io import parse_url
from ome_zarr.reader import Label, Reader

case = asked()
nodes = [node for node in Reader(parse_url(case["store"]))() if node.data]
(labels,) = (node for node in nodes if node.first(Label) is not None)
axes = [axis["name"] for axis in labels.metadata["axes"]]
steps = [told(level, axes) for level in labels.metadata["coordinateTransformations"]]
levels = [level(data, *step) for data, step in zip(labels.data, steps, strict=True)]
seen = {"axes": axes, "levels": levels}
answer(reader=f"ome-zarr {version('ome-zarr')}", labels=seen, image=len(nodes) - 1)
