"""Cellpose 4 networks through the installed `cellpose` package, from a file that is there."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cellseg_pipe.nets._footprint import Footprint, sam_footprint
from cellseg_pipe.nets._info import sha256_of
from cellseg_pipe.nets._threads import torch_threads
from cellseg_pipe.nets.size import SizeModel

__all__ = ["SamEngine", "SamForm"]

WINDOW_PX = 256  # the only size that these networks take
DIAMETER_PX = 30.0


@dataclass(frozen=True)
class SamForm:
    """What a plan asks of a network's architecture."""

    ndim: int = 2
    n_inputs: int = 3
    n_outputs: int = 3
    divisor: int = WINDOW_PX


class SamEngine:
    """A Cellpose-SAM network ready to run, with the interface of `Engine`.

    Parameters
    ----------
    path : path
        A file of version 4.
    device : str
        `cpu`, `cuda` or `cuda:N`.
    precision : {"auto", "fp32", "bf16"}
        Type of the maps; auto takes bf16 on a GPU.
    threads : int, optional
        On a CPU; as torch has them by default.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        device: str,
        precision: str = "auto",
        threads: int | None = None,
    ) -> None:
        self.threads = threads
        self.path = Path(path).expanduser()
        # For a file that is missing the package would download another network and take that.
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path} does not exist. Nothing is downloaded.")
        self.device = device
        half = precision == "bf16" or (precision == "auto" and device != "cpu")
        self.precision = "bf16" if half else "fp32"
        self._dtype = torch.bfloat16 if half else torch.float32
        self._net = _load(self.path, torch.device(device), self._dtype)
        kind = device.partition(":")[0]
        version = importlib.metadata.version("cellpose")
        self.numerics = (
            f"{kind} {'bf16' if half else 'fp32'} {torch.__version__} cellpose {version}"
        )
        self.sha256 = sha256_of(self.path)

    architecture = SamForm()
    one_by_one = True  # the last bits of a window must not depend on its neighbours in a batch
    n_outputs = SamForm.n_outputs
    window_px: int | None = WINDOW_PX
    percentiles = (1.0, 99.0)
    diameter_px = DIAMETER_PX
    size: SizeModel | None = None

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.name

    @property
    def footprint(self) -> Footprint:
        """Memory that it takes."""
        n_weights = sum(parameter.numel() for parameter in self._net.parameters())
        return sam_footprint(n_weights, self.path.stat().st_size, self.precision)

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return outputs, and a style of zeros: these networks have none.

        Parameters
        ----------
        x : float32 tensor [B, 3, 256, 256]
            Normalised images.

        Returns
        -------
        tuple of tensor
            Outputs [B, 3, 256, 256], with five times the flow, and styles [B, 1].
        """
        with torch.inference_mode(), torch_threads(self.threads):
            parts = [self._net(part[None].to(self._dtype))[0].float() for part in x]
        return torch.cat(parts), torch.zeros(len(x), 1)


def _load(path: Path, device: torch.device, dtype: torch.dtype) -> Any:
    try:
        from cellpose.models import CellposeModel
    except ImportError as error:
        raise ValueError(
            "a model cellpose-sam:FILE needs the package cellpose of version 4, and it cannot be"
            f" imported: {error}. Install cellseg_pipe[cellpose-sam]."
        ) from error
    version = importlib.metadata.version("cellpose")
    if int(version.split(".")[0]) < 4:
        raise ValueError(
            f"a model cellpose-sam:FILE needs cellpose of version 4, got {version}. Older"
            " checkpoints need no package: name the file alone."
        )
    model = CellposeModel(
        device=device, pretrained_model=str(path), use_bfloat16=dtype == torch.bfloat16
    )
    return model.net.eval().to(dtype)
