"""Opens a store with napari-ome-zarr, as the layers that napari would show; without a window."""

from importlib.metadata import version

import numpy as np
from _seen import answer, asked, level
from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari_ome_zarr import napari_get_reader


def layers_of(path):
    read = napari_get_reader(path)
    assert read is not None, f"napari_get_reader does not know {path}"
    viewer = ViewerModel()
    for data, settings, kind in read(path):
        getattr(viewer, f"add_{kind}")(data, **settings)
    return list(viewer.layers)


def placed(layer):
    """Return the steps of a layer's voxels and where the first one lies, in the world."""
    start = np.asarray(layer.data_to_world((0,) * layer.ndim))
    steps = np.asarray(layer.data_to_world((1,) * layer.ndim)) - start
    return steps, start


def facts(layer):
    steps, start = placed(layer)
    units = sorted({str(unit) for unit in layer.units})
    levels = layer.data if layer.multiscale else [layer.data]
    finest = level(levels[0], steps, start)
    return {"levels": [finest, *map(level, levels[1:])], "axes": list(layer.axis_labels)}, units


case = asked()
layers = layers_of(case["store"])
(labels,) = (layer for layer in layers if isinstance(layer, Labels))
images = [layer for layer in layers if isinstance(layer, Image) and not isinstance(layer, Labels)]
seen, units = facts(labels)
assert units == ["micrometer"], f"napari shows the unit {units}"
if case["inside"]:
    (image,) = images
    assert np.allclose(placed(image), placed(labels)), "labels do not lie on their image"
answer(reader=f"napari-ome-zarr {version('napari-ome-zarr')}", labels=seen, image=len(images))
