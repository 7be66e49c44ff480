"""Makes SpatialData elements of labels and table, writes them, and finds cells in both."""

import tempfile
from importlib.metadata import version
from pathlib import Path

import anndata
import dask.array as da
import numpy as np
import pyarrow.parquet as pq
import spatialdata as sd
from _seen import answer, asked, level
from spatialdata.models import Labels2DModel, Labels3DModel, TableModel
from spatialdata.transformations import Scale, Sequence, Translation, get_transformation

case = asked()
dims = tuple(case["axes"])
place = Sequence([Scale(case["scale"], axes=dims), Translation(case["translation"], axes=dims)])
model = {2: Labels2DModel, 3: Labels3DModel}[len(dims)]
pixels = da.from_zarr(case["labels"], component="0")
labels = model.parse(pixels, dims=dims, transformations={"global": place})

cells = pq.read_table(case["table"]).to_pandas()
cells["region"] = "cells"
cells["region"] = cells["region"].astype("category")
cells.index = [str(label) for label in cells["label"]]
table = TableModel.parse(
    anndata.AnnData(obs=cells), region="cells", region_key="region", instance_key="label"
)
with tempfile.TemporaryDirectory() as folder:
    sd.SpatialData(labels={"cells": labels}, tables={"table": table}).write(Path(folder) / "s.zarr")
    whole = sd.read_zarr(Path(folder) / "s.zarr")
    labels, table = whole["cells"], whole["table"]
    shown, _ = sd.match_element_to_table(whole, "cells", "table")
    centres = sd.get_centroids(whole["cells"], coordinate_system="global").compute()
    centres = centres.drop(index=0, errors="ignore").loc[table.obs["label"]]
    corner = get_transformation(labels).to_affine_matrix(dims, dims)
    levels = [level(labels.data, np.diag(corner)[:-1], corner[:-1, -1])]
assert list(shown) == ["cells"], "SpatialData finds no labels for the table"
# SpatialData counts from the corner of the first voxel, OME-Zarr and the table from its middle.
positions = table.obs[[f"{axis}_px" for axis in dims]].to_numpy() + 0.5
expected = positions * case["scale"] + case["translation"]
apart = np.abs(centres[list(dims)].to_numpy() - expected).max()
assert apart < 1e-3, f"cells of the table lie {apart} um from those of the labels"
assert len(table) == case["n_cells"], f"{len(table)} cells in the table, not {case['n_cells']}"
seen = {"axes": list(labels.dims), "levels": levels}
answer(reader=f"spatialdata {version('spatialdata')}", labels=seen)
