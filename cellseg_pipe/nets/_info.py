"""What one must know of a network to use it, and the text that carries it in a file."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cellseg_pipe.nets._architecture import Architecture

__all__ = [
    "PUBLISHED",
    "SAM_PREFIX",
    "ModelInfo",
    "Published",
    "Restores",
    "plain_name",
    "read_header",
    "sha256_of",
    "write_header",
]

FORMAT = 1  # of the header; a reader refuses a higher one
MOST_HEADER_BYTES = 1 << 24
SAM_PREFIX = "cellpose-sam:"  # in front of the file of a model of Cellpose 4
SUFFIXES = (".safetensors", ".pth")
Restores = Literal["", "denoise", "deblur", "upsample", "one-click", "aniso"]
DIAMETER_PX, NUCLEI_DIAMETER_PX = 30.0, 17.0


@dataclass(frozen=True)
class Published:
    """A file of weights that the peer's authors published.

    Parameters
    ----------
    name : str
        Its name there.
    channels : tuple of str
        What its inputs mean.
    diameter_px : float
        Diameter of cells that the network expects.
    """

    name: str
    channels: tuple[str, ...]
    diameter_px: float


PUBLISHED = {
    "2dc3087a8abd7da46d1ab0ddd5824639933cc3ff63b382af3fa1939a392db93c": Published(
        "cyto3", ("cytoplasm", "nucleus (optional)"), DIAMETER_PX
    ),
    "89ca45e4a45048d5010d29621466b1274b91b3dcb9714dce9f9e90a9a8671303": Published(
        "nucleitorch_0", ("nucleus", "unused"), NUCLEI_DIAMETER_PX
    ),
    "e1440429eb384f95afe32bcba6510f90d518eaedc917ede549bed6804004abe2": Published(
        "cpsam", ("any", "any (optional)", "any (optional)"), DIAMETER_PX
    ),
}


@dataclass(frozen=True)
class ModelInfo:
    """What one must know of a network to use it.

    Parameters
    ----------
    name : str
        What it is called.
    architecture : Architecture
        Its form.
    diameter_px : float
        Diameter of cells that the network was trained at.
    channels : tuple of str
        What each input means; empty takes the usual names.
    percentiles : tuple of float
        Of each channel, those that become 0 and 1.
    labels_diameter_px : float, optional
        Mean diameter of the cells it was trained with, before scaling.
    window_px : int, optional
        Edge of the windows that suit it.
    licence : str
        Of the weights.
    data_sha256 : str
        Checksum of the list of images it was trained with.
    training : str
        How it was trained, in a few words.
    origin : str
        Which program wrote it.
    target : {"flow", "three-classes", "image"}
        What it was trained to tell: flow and foreground; interior, boundary and background; or a
        better image.
    restores : {"", "denoise", "deblur", "upsample", "one-click", "aniso"}
        What a network that restores takes from an image; "" where it is not known.
    segmenter_sha256 : str
        Checksum of the model by whose eyes it was judged as it learned to restore.
    clear_below : float
        Of a network that restores: the noise, in shares of a channel's range, below which light is
        so clear that it stays as it is; 0 where all is restored.
    """

    name: str
    architecture: Architecture
    diameter_px: float = DIAMETER_PX
    channels: tuple[str, ...] = ()
    percentiles: tuple[float, float] = (1.0, 99.0)
    labels_diameter_px: float | None = None
    window_px: int | None = None
    licence: str = ""
    data_sha256: str = ""
    training: str = ""
    origin: str = "cellseg_pipe"
    target: Literal["flow", "three-classes", "image"] = "flow"
    restores: Restores = ""
    segmenter_sha256: str = ""
    clear_below: float = 0.0

    def __post_init__(self) -> None:
        n = self.architecture.n_inputs
        channels = tuple(self.channels) or usual_channels(n)
        if len(channels) != n:
            raise ValueError(f"a network of {n} inputs needs {n} names, got {channels}.")
        if not (math.isfinite(self.diameter_px) and self.diameter_px > 0):
            raise ValueError(f"diameter_px must be above 0, got {self.diameter_px}.")
        if not (math.isfinite(self.clear_below) and self.clear_below >= 0):
            raise ValueError(f"clear_below must be 0 or more, got {self.clear_below}.")
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"percentiles must ascend within 0 and 100, got {low}, {high}.")
        object.__setattr__(self, "channels", channels)
        object.__setattr__(self, "percentiles", (float(low), float(high)))

    @property
    def task(self) -> Literal["segmentation", "restoration"]:
        """What the outputs are: flows and a logit, or an image."""
        return "restoration" if self.architecture.gives_image else "segmentation"


def usual_channels(n_inputs: int) -> tuple[str, ...]:
    """Return names of inputs of which only the number is known.

    Parameters
    ----------
    n_inputs : int
        How many.

    Returns
    -------
    tuple of str
        As the peer means them: the second of two may be left out.
    """
    if n_inputs <= 2:
        return ("main", "second (optional)")[:n_inputs]
    return tuple(f"input {n}" for n in range(n_inputs))


def plain_name(path: Path | str) -> str:
    """Return the name of a file without the suffix of a model.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    str
        Other suffixes stay: the peer's names end in times like `.123456`.
    """
    path = Path(path)
    return path.stem if path.suffix in SUFFIXES else path.name


def write_header(info: ModelInfo, **more: object) -> str:
    """Return the text that goes into a file of weights.

    Parameters
    ----------
    info : ModelInfo
        What to write.
    **more
        Further entries.

    Returns
    -------
    str
        JSON; the same for the same content.
    """
    return json.dumps({"format": FORMAT, **dataclasses.asdict(info), **more}, sort_keys=True)


def stored_info(path: Path) -> ModelInfo | None:
    """Read how a network is to be used from the beginning of its file, without torch.

    Parameters
    ----------
    path : path
        A file of weights.

    Returns
    -------
    ModelInfo or None
        None for files of others, which only torch can read.
    """
    with path.open("rb") as file:
        n = int.from_bytes(file.read(8), "little")
        head = file.read(n) if n <= MOST_HEADER_BYTES else b""
    if not head.startswith(b"{"):
        return None
    try:
        text = json.loads(head).get("__metadata__", {}).get("cellseg_pipe")
    except ValueError:
        return None
    return read_header(text)[0] if text else None


def read_header(text: str) -> tuple[ModelInfo, dict[str, Any]]:
    """Read the text of a file of weights.

    Parameters
    ----------
    text : str
        As `write_header` made it.

    Returns
    -------
    info : ModelInfo
        How to use the network.
    more : dict
        Further entries.
    """
    try:
        about = json.loads(text)
        version = about.pop("format")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError("its header is damaged. Copy the file again.") from error
    if version != FORMAT:
        raise ValueError(
            f"its header has format {version}, this version reads {FORMAT}. Update cellseg_pipe."
        )
    names = {field.name for field in dataclasses.fields(ModelInfo)}
    more = {key: about.pop(key) for key in set(about) - names}
    try:
        about["architecture"] = Architecture(**about["architecture"])
        for name in ("channels", "percentiles"):
            about[name] = tuple(about[name])
        return ModelInfo(**about), more
    except (KeyError, TypeError) as error:
        raise ValueError(f"its header is damaged: {error}.") from error


def sha256_of(path: Path) -> str:
    """Return the checksum of a file.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    about = path.stat()
    return _sha256(path, about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _sha256(path: Path, _bytes: int, _written: int) -> str:
    """Return the checksum of a file as it was then: thousands of units ask for one."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
