"""Opens a store in neuroglancer's own client, in a Chromium without a window."""

import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import neuroglancer
import numpy as np
import tensorstore as ts
from _seen import answer, asked, level
from neuroglancer.static_file_server import StaticFileServer

CHROMIUM = (
    *("chromium", "--headless=new", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader"),
    *("--enable-unsafe-swiftshader", "--ignore-gpu-blocklist", "--window-size=900,700"),
)
WAIT_S = 120


def state_of(case, url):
    """Return a viewer with the image and the labels; the labels also as numbers."""
    root, kind = Path(case["root"]), {"0.4": "zarr2", "0.5": "zarr3"}[case["version"]]
    sources = {
        name: f"{url}/{Path(case[name]).relative_to(root)}/|{kind}:" for name in ("image", "labels")
    }
    viewer = neuroglancer.Viewer()
    with viewer.txn() as state:
        state.layers["image"] = neuroglancer.ImageLayer(source=sources["image"])
        state.layers["cells"] = neuroglancer.SegmentationLayer(source=sources["labels"])
        # A segmentation reaches Python compressed, and cannot be read there; nor can a volume.
        state.layers["numbers"] = neuroglancer.ImageLayer(source=sources["labels"])
        state.layers["numbers"].visible = False
        # By itself it takes the axes as they come, and would show z from left to right.
        state.dimensions = neuroglancer.CoordinateSpace(
            names=list(case["axes"][::-1]), units="um", scales=case["scale"][::-1]
        )
        state.layout = "xy"
    text = viewer.state.to_json()
    assert neuroglancer.ViewerState(text).to_json() == text
    return viewer


def leave(*error):
    """Say what went wrong and end at once: neuroglancer's server knows no end."""
    sys.__excepthook__(*error)
    sys.stderr.flush()
    os._exit(1)


def placed(info):
    """Return names, steps in µm and bounds of the spatial axes that the client shows."""
    kept = [i for i, name in enumerate(info.dimensions.names) if name in "zyx"]
    assert {info.dimensions.units[i] for i in kept} == {"m"}, info.to_json()
    names = [info.dimensions.names[i] for i in kept]
    steps = [info.dimensions.scales[i] * 1e6 for i in kept]
    return (
        names,
        steps,
        *([bound[i] for i in kept] for bound in (info.lower_bound, info.upper_bound)),
    )


def with_tensorstore(case):
    driver = {"0.4": "zarr", "0.5": "zarr3"}[case["version"]]
    for number in range(case["n_levels"]):
        path = f"{case['labels']}/{number}"
        spec = {"driver": driver, "kvstore": {"driver": "file", "path": path}}
        yield level(ts.open(spec, open=True, read=True).result().read().result())


def looked_at(viewer, case, pixels):
    """Return what the client says of the labels, and check that the picture has cells in it."""
    cells, image = (viewer.volume_info(name).result(timeout=WAIT_S) for name in ("cells", "image"))
    axes, steps, lower, upper = placed(cells)
    assert (axes, steps, lower, upper) == placed(image), "labels do not lie on their image"
    # The client counts whole voxels, so that it knows where they start within half of one.
    start = [low * step for low, step in zip(lower, steps, strict=True)]
    finest = {"shape": [int(b - a) for a, b in zip(lower, upper, strict=True)], "pixels": pixels}
    finest |= {"scale": steps, "translation": start}
    if len(axes) == 2:
        numbers = viewer.volume("numbers").result(timeout=WAIT_S).read().result()
        finest = level(numbers, steps, start)
    finest["dtype"] = str(cells.data_type)
    picture = viewer.screenshot(size=(900, 700)).screenshot
    Path(case["picture"]).write_bytes(picture.image)
    colours = len(np.unique(picture.image_pixels.reshape(-1, 4), axis=0))
    assert colours > 50, f"the picture has {colours} colours: {case['picture']}"
    return axes, finest


sys.excepthook = leave
case = asked()
levels = list(with_tensorstore(case))
server = StaticFileServer(case["root"], bind_address="127.0.0.1")
viewer = state_of(case, server.url)
axes, how = case["axes"], "without Chromium: its state, and tensorstore"
if case["chromium"]:
    # Children of the browser may outlive it, and write to its profile.
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with folder as profile, open(os.devnull, "w") as nowhere:
        browser = subprocess.Popen(
            [*CHROMIUM, f"--user-data-dir={profile}", str(viewer)], stderr=nowhere
        )
        try:
            axes, levels[0] = looked_at(viewer, case, levels[0]["pixels"])
        finally:
            browser.terminate()
            browser.wait()
    how = "in Chromium" if len(axes) == 2 else "in Chromium, pixels by tensorstore"
answer(
    reader=f"neuroglancer {version('neuroglancer')} {how}",
    labels={"axes": list(axes), "levels": levels},
)
sys.stdout.flush()
os._exit(0)
