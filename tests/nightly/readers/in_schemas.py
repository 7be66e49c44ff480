"""Checks metadata with the JSON schemas of OME-Zarr and the newest ome-zarr-models."""

import json
from importlib.metadata import version
from pathlib import Path

import zarr
from _seen import answer, asked, told
from ngff_zarr.validate import validate
from ome_zarr_models import open_ome_zarr, v04, v05


def attributes(group):
    if case["version"] == "0.5":
        return json.loads((Path(group) / "zarr.json").read_text())["attributes"]
    return json.loads((Path(group) / ".zattrs").read_text())


case = asked()
groups = {case["image"]: ("image",), case["labels"]: ("image", "label")}
for group, schemas in groups.items():
    for schema in schemas:
        validate(attributes(group), version=case["version"], model=schema)
models = {"0.4": v04, "0.5": v05}[case["version"]]
store = zarr.open_group(case["store"], mode="r")
open_ome_zarr(store, version=case["version"])
if case["inside"]:
    about = models.image.Image.from_zarr(store).labels.attributes
    names = about.labels if case["version"] == "0.4" else about.ome.labels
    assert case["name"] in names, f"ome-zarr-models finds the labels {names}"
labels = models.image_label.ImageLabel.from_zarr(zarr.open_group(case["labels"], mode="r"))
about = labels.attributes if case["version"] == "0.4" else labels.attributes.ome
(scale,) = json.loads(about.model_dump_json())["multiscales"]
axes = [axis["name"] for axis in scale["axes"]]
levels = []
for dataset in scale["datasets"]:
    array = zarr.open_array(Path(case["labels"]) / dataset["path"], mode="r")
    steps, start = told(dataset["coordinateTransformations"], axes)
    found = {"shape": array.shape, "dtype": array.dtype.name, "scale": steps}
    levels.append(found | {"translation": start})
answer(
    reader=f"schemas (ngff-zarr {version('ngff-zarr')}), ome-zarr-models"
    f" {version('ome-zarr-models')}",
    labels={"axes": axes, "levels": levels},
)
