"""Checks by hand what QuPath asks of a store: its library JZarr knows zarr v2 and few codecs."""

import json
from pathlib import Path

from _seen import answer, asked, told

CODECS = {"blosc", "zlib"}  # of com.bc.zarr.CompressorFactory; besides none at all
DTYPES = {f"{order}{kind}" for order in "<>" for kind in ("u2", "u4", "i2", "i4", "f4", "f8")}
DTYPES |= {"|u1", "|i1"}


def array_of(folder):
    about = json.loads((folder / ".zarray").read_text())
    codec = (about["compressor"] or {}).get("id")
    assert codec in CODECS | {None}, f"JZarr has no codec {codec!r}, only {sorted(CODECS)}"
    assert about["dtype"] in DTYPES, f"JZarr has no {about['dtype']}"
    assert (about["filters"], about["order"]) == (None, "C"), about
    assert about["dimension_separator"] == "/", about
    return about


def levels_of(group):
    (scale,) = json.loads((group / ".zattrs").read_text())["multiscales"]
    axes = [axis["name"] for axis in scale["axes"]]
    for dataset in scale["datasets"]:
        about = array_of(group / dataset["path"])
        steps, start = told(dataset["coordinateTransformations"], axes)
        dtype = {"<u4": "uint32"}.get(about["dtype"], about["dtype"])
        found = {"shape": about["shape"], "dtype": dtype, "scale": steps, "translation": start}
        yield axes, found


case = asked()
list(levels_of(Path(case["image"])))
seen = list(levels_of(Path(case["labels"])))
axes = seen[0][0]
answer(
    reader="QuPath's rules by hand",
    labels={"axes": axes, "levels": [found for _, found in seen]},
)
