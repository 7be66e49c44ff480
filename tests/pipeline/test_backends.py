"""Networks of every kind: the labels of the whole from any tiling, and what they will take."""

import importlib.metadata
import importlib.util
import json
import math
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cellseg_pipe.cost import KEPT_BYTES, Size, predict_bytes, stage_costs
from cellseg_pipe.nets.checkpoint import Model, ModelInfo, load, save
from cellseg_pipe.nets.cpnet import Architecture, CPnet
from cellseg_pipe.nets.engine import engine_for
from cellseg_pipe.segmentation.memory import BASE_BYTES
from cellseg_pipe.stages.opened import unit_runs
from cellseg_pipe.stages.tiling import read_frozen, read_tiling
from cellseg_pipe.tiles import TilePlan
from cellseg_pipe.training.state import with_outputs
from tests.pipeline.conftest import scene
from tests.pipeline.worker import TINY, compare, experiment, published, run, save_tiff, segment

GOLDEN = Path(__file__).parents[1] / "golden"
PEER = GOLDEN / "checkpoints" / "segmentation"
SMALL = {"window_px": 96, "overlap_px": 16}


def peers_volume(folder):
    """A checkpoint of the peer for volumes, with three levels and random weights."""
    with np.load(GOLDEN / "nets" / "volume.npz") as stored:
        shapes, values = json.loads(str(stored["shapes"])), stored["parameters"]
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    parts = zip(shapes.items(), np.split(values, ends[:-1]), strict=True)
    state = {key: torch.tensor(part.reshape(shape)) for (key, shape), part in parts}
    torch.save(state | {"diam_mean": torch.tensor([24.0])}, folder / "volume.pth")
    return folder / "volume.pth"


def own_volume(folder):
    """Ours for volumes: what the tiny one knows of planes, and a little along z."""
    flat = load(TINY).net
    form = flat.architecture
    deep = CPnet(Architecture(3, form.n_inputs, 4, form.widths)).eval()
    state, planes = deep.state_dict(), flat.state_dict()
    for name, value in planes.items():
        target = state[name]
        if name.startswith("output.2."):
            value = torch.cat([0.5 * (value[:1] + value[1:2]), value])
        if value.ndim == 4:  # a plane like its neighbours gives the answer of the flat network
            value = value[:, :, None] / target.shape[2]
        target.copy_(value.expand_as(target))
    info = ModelInfo("volume", deep.architecture, diameter_px=30.0)
    return save(folder / "volume.safetensors", deep, info)


def with_classes(folder):
    """The tiny one with two classes of cells, of which it knows nothing."""
    tiny = load(TINY)
    net = with_outputs(tiny.net, 5)
    state = net.state_dict()
    for name in ("output.2.weight", "output.2.bias"):  # up or down, what prevails of the flow
        state[name][3], state[name][4] = state[name][0], -state[name][0]
    info = ModelInfo("classes", net.architecture, diameter_px=30.0, channels=tiny.info.channels)
    return save(folder / "classes.safetensors", net, info)


LOOSE = {"flow_threshold": None, "min_size_px": 3}
# Model, image, diameter, settings of cells, windows, precision.
BACKENDS = {
    "ours": (lambda _: TINY, (111, 157), 24, {}, SMALL, "fp32"),
    "ours in bf16": (lambda _: TINY, (90, 110), 24, {}, SMALL, "bf16"),
    "ours for volumes": (
        own_volume,
        (20, 45, 90),
        24,
        {"mode": "3d", "min_size_px": 30, "flow_threshold": None},
        {"window_px": 64, "overlap_px": 16},
        "fp32",
    ),
    "classes": (with_classes, (111, 157), 24, {}, SMALL, "fp32"),
    "the peer's": (
        lambda _: PEER,
        (100, 130),
        22,
        LOOSE | {"cellprob_threshold": 0.1},
        SMALL,
        "fp32",
    ),
    "the peer's for volumes": (
        peers_volume,
        (18, 40, 90),
        24,
        LOOSE | {"mode": "3d"},
        {"window_px": 64, "overlap_px": 8},
        "fp32",
    ),
}


def tiles(shape, reach, *, blocks):
    """Cores of so many blocks, and the halo that is needed."""
    block = (32, 48) if len(shape) == 2 else (16, 32, 32)
    return {"core_px": [n * b for n, b in zip(blocks, block, strict=False)], "halo_px": reach + 17}


def experiment_of(folder, image, model, backend):
    """A run of one image in several tiles, windows and batches."""
    diameter, said, windows, precision, blocks = backend
    np.save(folder / "a.npy", image)
    return experiment(
        folder,
        [{"path": str(folder / "a.npy"), "axes": "zyx"[-image.ndim :]}],
        targets={"all": {"model": str(model), "diameter_px": diameter}},
        segment={"reach_px": 16, **said},
        tiles={
            **windows,
            **tiles(image.shape, 16, blocks=blocks),
            "batches": {"predict": 3, "masks": 4, "paint": 2},
        },
        resources={"device": "cpu", "precision": precision, "threads": 1},
    )


@pytest.mark.parametrize("name", BACKENDS)
def test_tiles_give_the_whole(tmp_path, name):
    make, shape, diameter, said, windows, precision = BACKENDS[name]
    model, image = make(tmp_path), scene(shape)[0]
    whole = segment(
        image, axes="zyx"[-image.ndim :], model=model, diameter_px=diameter, reach_px=16,
        device="cpu", precision=precision, **windows, **said,
    )  # fmt: skip
    assert whole.n_cells > 3
    if name == "classes":
        assert len(np.unique(whole.table["class"])) == 2
    for blocks in ((1, 1, 1), (2, 1, 1)):
        folder = tmp_path / "x".join(map(str, blocks))
        folder.mkdir()
        backend = (diameter, said, windows, precision, blocks)
        chosen = experiment_of(folder, image, model, backend)
        run(chosen)
        compare(published(chosen, "a"), whole)
    (unit,) = unit_runs(chosen)
    plan, tiling = read_frozen(unit.stage("plan")), read_tiling(unit.stage("tiles"))
    assert plan.facts["n_windows"] > 1 and len(tiling.tiles) > 2


class Borrowed(torch.nn.Module):
    """A network with the interface of Cellpose 4, and the answers of the tiny one."""

    def __init__(self):
        super().__init__()
        self.net = load(TINY).net

    def forward(self, x):
        return self.net(x[:, :2].float())[0], torch.zeros(len(x), 256)


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """A file, and a package cellpose in which it is such a network."""
    models = types.ModuleType("cellpose.models")
    models.CellposeModel = lambda **_: types.SimpleNamespace(net=Borrowed())
    monkeypatch.setitem(sys.modules, "cellpose", types.ModuleType("cellpose"))
    monkeypatch.setitem(sys.modules, "cellpose.models", models)
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "4.0.0" if name == "cellpose" else real(name)
    )
    (tmp_path / "cpsam").write_bytes(b"weights")
    return tmp_path / "cpsam"


@pytest.fixture
def small_sam(monkeypatch, tmp_path):
    """A file that the real package reads as one of its networks, with fewer and narrower layers."""
    if importlib.util.find_spec("cellpose") is None:
        pytest.skip("cellpose 4 is not installed")
    from cellpose import vit
    from segment_anything.build_sam import _build_sam

    monkeypatch.setitem(
        vit.sam_model_registry,
        "vit_l",
        lambda _: _build_sam(
            encoder_embed_dim=32,
            encoder_depth=2,
            encoder_num_heads=2,
            encoder_global_attn_indexes=[0, 1],
        ),
    )
    torch.manual_seed(0)
    torch.save(vit.CPSAM().state_dict(), tmp_path / "cpsam")
    return tmp_path / "cpsam"


def sam_equals_whole(folder, file, said):
    """Compare a run in tiles with the whole; return what was planned."""
    model, image = f"cellpose-sam:{file}", scene((150, 290))[0]
    said = {"reach_px": 16, **said}
    whole = segment(image, model=model, diameter_px=30, overlap_px=48, device="cpu", **said)
    assert whole.n_cells > 3
    assert whole.plan.settings.window_px == 256
    backend = (30, said, {"overlap_px": 48}, "fp32", (2, 1))
    chosen = experiment_of(folder, image, model, backend)
    run(chosen)
    compare(published(chosen, "a"), whole)
    (unit,) = unit_runs(chosen)
    plan = read_frozen(unit.stage("plan"))
    assert plan.plan.views[0].lattice.edge == (256, 256)
    assert plan.facts["n_windows"] == 2
    stored = json.loads(unit.stage("tiles").plan.read_text())["predicted"]
    predicted = next(cost for cost in stored if cost["stage"] == "predict")
    engine = engine_for(model, device="cpu", precision="fp32")
    assert predicted["memory_bytes"] == predict_bytes(plan.plan, [engine.footprint])
    assert predicted["seconds"] == pytest.approx(2 * plan.facts["window_s"])
    return plan


def test_cellpose_4_with_a_network_that_finds_cells(stand_in, tmp_path):
    plan = sam_equals_whole(tmp_path, stand_in, {})
    assert "cellpose 4.0.0" in plan.facts["numerics"][0]
    assert plan.facts["models"][0]["path"] == f"cellpose-sam:{stand_in}"


def test_cellpose_4_as_it_is_installed(small_sam, tmp_path):
    said = {"cellprob_threshold": -1.0, "flow_threshold": None, "min_size_px": 3}
    plan = sam_equals_whole(tmp_path, small_sam, said)
    version = importlib.metadata.version("cellpose")
    assert f"cellpose {version}" in plan.facts["numerics"][0]


def three_classes(folder):
    tiny = load(TINY)
    info = ModelInfo("three", tiny.net.architecture, target="three-classes")
    return save(folder / "three.safetensors", tiny.net, info)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda _: GOLDEN / "checkpoints" / "restoration", "restoration restores images"),
        (three_classes, "three tells interior, boundary and background"),
    ],
)
def test_models_of_other_answers_are_refused_before_any_work(tmp_path, make, said):
    model, image = make(tmp_path), scene((40, 50))[0]
    with pytest.raises(ValueError, match=said):
        segment(image, model=model)
    chosen = experiment(
        tmp_path,
        [save_tiff(tmp_path / "a.tif", image)],
        targets={"all": {"model": str(model), "diameter_px": 24}},
    )
    with pytest.raises(ValueError, match=said):
        run(chosen)
    (unit,) = unit_runs(chosen)
    assert not unit.stage("plan").plan.exists()


def engine_of(widths, *, ndim=2, precision="fp32"):
    form = Architecture(ndim, 2, ndim + 1, widths)
    net = CPnet(form).eval()
    model = Model(ModelInfo("any", form), net, "", Path("any"))
    return engine_for(model, device="cpu", precision=precision)


def test_memory_is_that_of_the_network(stand_in):
    half, full = engine_of((16, 32, 64, 128)).footprint, engine_of((32, 64, 128, 256)).footprint
    assert full.px_bytes == 2 * half.px_bytes == 1600
    # Four times the weights: 6.6 million in float32, in several copies.
    assert full.loaded_bytes - half.loaded_bytes == pytest.approx(5 * 4 * 4.95e6, rel=0.02)
    short = engine_of((16, 32, 64, 128), precision="bf16").footprint
    assert 0.4 * half.px_bytes < short.px_bytes < 0.6 * half.px_bytes
    sam = engine_for(f"cellpose-sam:{stand_in}", device="cpu")
    n_weights = sum(p.numel() for p in load(TINY).net.parameters())
    assert sam.footprint.loaded_bytes == round(1.1 * (4 * n_weights + len(b"weights")))


def test_a_network_for_volumes_sees_cubes(tmp_path):
    """The usual window of planes, 512 px, would be a cube of 50 GB and more."""
    engine = engine_for(str(own_volume(tmp_path)), device="cpu")
    assert engine.window_px == 128
    assert engine.footprint.px_bytes * 128**3 < 2e9
    assert engine_for(str(TINY), device="cpu").window_px is None


def plan_of(model, shape, **said):
    return segment(scene(shape)[0], model=model, axes="zyx"[-len(shape) :], **said).plan


def test_costs_are_those_of_the_backend(stand_in):
    """Memory: libraries, the network, its window. Time: the window that was timed, by its area."""
    model = f"cellpose-sam:{stand_in}"
    plan = plan_of(model, (150, 290), diameter_px=30, device="cpu", overlap_px=48)
    engine = engine_for(model, device="cpu")
    sam = predict_bytes(plan, [engine.footprint])
    window = 256 * 256 * engine.footprint.px_bytes
    assert sam == pytest.approx(
        BASE_BYTES + KEPT_BYTES + engine.footprint.loaded_bytes + window + 16 * 3 * 256**2, rel=1e-6
    )
    assert predict_bytes(plan, [engine.footprint] * 2) == sam + engine.footprint.loaded_bytes
    tiling = TilePlan((150, 290), (32, 48), (32, 48), (49, 49))
    size = Size((64, 64), 1, 2, 3, dict.fromkeys(("predict", "masks", "paint", "measure"), 2), 3.0)
    costs = {c.stage: c for c in stage_costs(plan, tiling, replace(size, predict_bytes=sam))}
    assert costs["predict"].memory_bytes == sam
    assert costs["predict"].n_tiles == 2 and costs["predict"].seconds == 6.0
    assert costs["predict"].disk_bytes == 2 * 3 * 2 * 256**2 + 2 * 1024


def test_windows_of_other_sides_cost_by_their_area():
    plan = plan_of(TINY, (13, 45, 59), diameter_px=24, mode="3d", **SMALL)
    areas = [math.prod(view.lattice.edge) * len(view.lattice) for view in plan.views]
    tiling = TilePlan((13, 45, 59), (16, 32, 32), (16, 32, 32), (33, 33, 33))
    size = Size(
        (16, 32, 32), 1, 2, 3, dict.fromkeys(("predict", "masks", "paint", "measure"), 1), 2.0
    )
    (predict, *_) = stage_costs(plan, tiling, size)
    assert predict.n_tiles == sum(len(view.lattice) for view in plan.views)
    expected = 2.0 * sum(areas) / math.prod(plan.views[0].lattice.edge)
    assert predict.seconds == pytest.approx(expected)
    assert expected < 2.0 * predict.n_tiles  # views along y and x see few planes


MEASURE = """
import sys, torch
torch.set_num_threads(1)
from tests.pipeline.test_backends import engine_of

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1000 for line in file if line.startswith("VmHWM"))

before = peak()
engine = engine_of(tuple(map(int, sys.argv[1].split(","))), ndim=int(sys.argv[2]))
edge = tuple(map(int, sys.argv[3].split(",")))
engine(torch.rand(1, 2, *edge))
print(peak() - before)
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs the peak that Linux tells"
)
@pytest.mark.parametrize(
    ("widths", "edge"),
    [((16, 32, 64, 128), (384, 384)), ((8, 16, 32), (64, 128, 128)), ((32, 64), (512, 512))],
)
def test_predicted_memory_is_enough_and_not_far_off(widths, edge):
    words = [",".join(map(str, widths)), str(len(edge)), ",".join(map(str, edge))]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *words],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = engine_of(widths, ndim=len(edge)).footprint
    predicted = found.loaded_bytes + found.px_bytes * math.prod(edge)
    assert int(done.stdout) <= predicted <= 3 * int(done.stdout)
