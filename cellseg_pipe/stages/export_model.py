"""Writes a model as a bioimage.io package, which other programs can run without this one."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from cellseg_pipe import __version__
from cellseg_pipe.geometry import Box
from cellseg_pipe.io.files import binary_whole
from cellseg_pipe.nets import _architecture, cpnet
from cellseg_pipe.nets.catalog import load_model
from cellseg_pipe.nets.checkpoint import Model, ModelInfo
from cellseg_pipe.nets.cpnet import Architecture
from cellseg_pipe.synth import PRESETS, render

__all__ = ["run"]

FORMAT = "0.5.4"
EPSILON = 1e-6
TEST_CELLS = 8  # the test image is about so many diameters wide
HALO_PX = 32
LICENCES = (
    "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-NC-4.0", "CC-BY-SA-4.0",
    "CC0-1.0", "MIT",
)  # fmt: skip
DATE = (1980, 1, 1, 0, 0, 0)  # the same model gives the same file
CITATION = {
    "text": "Stringer et al., Cellpose: a generalist algorithm for cellular segmentation (2021)",
    "doi": "10.1038/s41592-020-01018-x",
}
# One file that needs torch alone. The network gives its style, too, which the package leaves out.
EPILOGUE = '''

class Packaged(CPnet):
    """The network as the package describes it: one input, one output."""

    def __init__(self, **form):
        super().__init__(Architecture(**form))

    def forward(self, x):
        return super().forward(x)[0]
'''


@dataclass(frozen=True)
class Packed:
    """A file of the package.

    Parameters
    ----------
    name : str
        In the package.
    content : bytes
        All of it.
    """

    name: str
    content: bytes

    @property
    def reference(self) -> dict[str, str]:
        """How the description names it."""
        return {"source": self.name, "sha256": hashlib.sha256(self.content).hexdigest()}


def run(model: str | Path, out: Path | str) -> Path:
    """Write a package.

    Parameters
    ----------
    model : str or path
        Name or file of a model.
    out : path
        NAME.zip; an old one is replaced.

    Returns
    -------
    path
        The package: description, weights, architecture, test input and output, README.
    """
    out = Path(out)
    if out.suffix != ".zip":
        raise ValueError(f"a package needs a name like NAME.zip, got {out.name}.")
    found = load_model(model)
    raw = _test_image(found.info)
    with torch.inference_mode():
        answer = found.net.eval()(torch.from_numpy(_normalised(raw, found.info)))[0]
    readme = Packed("README.md", _readme(found).encode())
    inputs = Packed("test_input.npy", _npy(raw))
    outputs = Packed("test_output.npy", _npy(answer.numpy()))
    source = Packed("architecture.py", _architecture_source().encode())
    weights = Packed("weights.pt", _weights(found))
    described = _description(
        found, {"weights": weights, "source": source, "inputs": inputs, "outputs": outputs}
    )
    text = yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=100)
    files = (Packed("rdf.yaml", text.encode()), readme, inputs, outputs, source, weights)
    with binary_whole(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as package:
        for part in files:
            package.writestr(zipfile.ZipInfo(part.name, DATE), part.content)
    return out


def _test_image(info: ModelInfo) -> NDArray[np.float32]:
    """Return synthetic cells of the diameter that the network knows, [1, n_inputs, *spatial]."""
    form = info.architecture
    divisor = form.divisor
    edge = max(_least_px(form), round(TEST_CELLS * info.diameter_px / divisor) * divisor)
    shape = (2 * divisor,) * (form.ndim - 2) + (edge, edge)
    changes: dict[str, Any] = {"shape": shape[-2:], "seed": 0, "diameter_px": info.diameter_px}
    piece = render(dataclasses.replace(PRESETS["nuclei"], **changes), Box.of(shape[-2:]))
    plane = piece.image[0].astype(np.float32)
    return np.ascontiguousarray(np.broadcast_to(plane, (1, form.n_inputs, *shape)))


def _least_px(form: Architecture) -> int:
    """Return the smallest edge, of which the halo leaves something."""
    return -(-3 * HALO_PX // form.divisor) * form.divisor


def _normalised(raw: NDArray[np.float32], info: ModelInfo) -> NDArray[np.float32]:
    axes = tuple(range(2, raw.ndim))
    low, high = np.percentile(raw, info.percentiles, axis=axes, keepdims=True)
    return ((raw - low) / (high - low + EPSILON)).astype(np.float32)


def _npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array, np.float32))
    return stream.getvalue()


def _weights(model: Model) -> bytes:
    stream = io.BytesIO()
    torch.save(model.net.state_dict(), stream)
    return stream.getvalue()


def _architecture_source() -> str:
    """Return the network's own source as one file."""
    texts = [Path(str(module.__file__)).read_text() for module in (_architecture, cpnet)]
    whole = "\n\n".join(texts)
    whole = re.sub(r"^from cellseg_pipe\S* import (\([^)]*\)|.*)\n", "", whole, flags=re.M)
    whole = re.sub(r"^(from __future__ import .*|__all__ = .*)\n", "", whole, flags=re.M)
    return f"from __future__ import annotations\n\n{whole}{EPILOGUE}"


def _description(model: Model, files: dict[str, Packed]) -> dict[str, Any]:
    info = model.info
    form = dataclasses.asdict(info.architecture)
    licence = _licence(info)
    return {
        "format_version": FORMAT,
        "type": "model",
        "name": re.sub(r"[^\w +()-]", " ", f"cellseg_pipe {info.name}")[:128],
        "description": f"{model.summary}: a U-Net of the Cellpose kind.",
        "authors": [{"name": "The cellseg_pipe developers"}],
        "cite": [CITATION],
        **({"license": licence} if licence else {}),
        "tags": ["cells", "segmentation", "unet", "cellpose", f"{form['ndim']}d"],
        "documentation": "README.md",
        "inputs": [_input(info, files["inputs"])],
        "outputs": [_output(info, files["outputs"])],
        "weights": {
            "pytorch_state_dict": {
                **files["weights"].reference,
                "architecture": {
                    **files["source"].reference,
                    "callable": "Packaged",
                    "kwargs": {**form, "widths": list(form["widths"])},
                },
                "pytorch_version": torch.__version__.partition("+")[0],
            }
        },
        "config": {"cellseg_pipe": {"version": __version__, "diameter_px": info.diameter_px}},
    }


def _input(info: ModelInfo, test: Packed) -> dict[str, Any]:
    form = info.architecture
    size = {"min": _least_px(form), "step": form.divisor}
    axes = "zyx"[-form.ndim :]
    low, high = info.percentiles
    return {
        "id": "image",
        "description": f"Cells of about {info.diameter_px:g} px.",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": _identifiers(info.channels)},
            *({"type": "space", "id": axis, "size": _axis_size(size, axis, form)} for axis in axes),
        ],
        "data": {"type": "float32"},
        "test_tensor": test.reference,
        "preprocessing": [
            {
                "id": "scale_range",
                "kwargs": {
                    "axes": list(axes),
                    "min_percentile": low,
                    "max_percentile": high,
                    "eps": EPSILON,
                },
            }
        ],
    }


def _axis_size(size: dict[str, int], axis: str, form: Architecture) -> dict[str, int]:
    return {**size, "min": 2 * form.divisor} if axis == "z" else size


def _output(info: ModelInfo, test: Packed) -> dict[str, Any]:
    form = info.architecture
    axes = "zyx"[-form.ndim :]
    described, names = _answer(info, axes)
    return {
        "id": "answer",
        "description": described,
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": names},
            *(
                {
                    "type": "space",
                    "id": axis,
                    "size": {"tensor_id": "image", "axis_id": axis},
                    "halo": HALO_PX if axis != "z" else form.divisor // 2,
                }
                for axis in axes
            ),
        ],
        "data": {"type": "float32"},
        "test_tensor": test.reference,
    }


def _answer(info: ModelInfo, axes: str) -> tuple[str, list[str]]:
    """Return what the outputs are, and their names."""
    form = info.architecture
    if info.task == "restoration":
        return "The restored image.", [f"restored_{n}" for n in range(form.n_outputs)]
    if info.target == "three-classes":
        names = ["interior", "boundary", "background"]
        return "Logits of interior, boundary and background of cells.", names
    classes = [f"class_{n}" for n in range(form.n_classes)]
    return (
        "Five times the unit flow to the centre of each cell, the logit of being inside one, then"
        " the logits of classes.",
        [*(f"flow_{axis}" for axis in axes), "inside", *classes],
    )


def _identifiers(channels: tuple[str, ...]) -> list[str]:
    """Return names of inputs as the format takes them: letters, digits and underscores."""
    names = [re.sub(r"\W+", "_", name).strip("_").lower() or "input" for name in channels]
    names = [f"input_{name}" if not name[0].isalpha() else name for name in names]
    return [f"{name}_{n}" if names.count(name) > 1 else name for n, name in enumerate(names)]


def _licence(info: ModelInfo) -> str | None:
    said = re.match(r"[A-Za-z0-9.+-]+", info.licence)
    return said[0] if said and said[0] in LICENCES else None


def _what_next(info: ModelInfo) -> str:
    if info.task == "restoration":
        return ""
    if info.target == "three-classes":
        return " Its answer is not yet cells: grow the interiors into their boundaries."
    return (
        " Its answer is not yet cells: follow the flow to the centres of cells, as"
        " `cellseg segment` does (cellseg_pipe), or Cellpose's `dynamics.compute_masks`."
    )


def _readme(model: Model) -> str:
    info = model.info
    return (
        f"# {info.name}\n{model.summary}.\n\n"
        f"The network knows cells of about {info.diameter_px:g} px: scale images to that first."
        f"{_what_next(info)}\n\n"
        f"* Inputs: {', '.join(info.channels)}; an optional one may be zero.\n"
        f"* Licence of the weights: {info.licence or 'not told'}.\n"
        f"* Training: {info.training or 'not told'}.\n\n"
        "## Validation\nThe test output is the network's answer to the test input, synthetic"
        " cells. Scores are in the model card of the weights, if they have one.\n"
    )
