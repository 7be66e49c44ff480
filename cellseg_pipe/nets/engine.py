"""A network that is loaded, in its form for inference, on a device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from cellseg_pipe.nets._footprint import Footprint, footprint_of
from cellseg_pipe.nets._info import SAM_PREFIX
from cellseg_pipe.nets._threads import torch_threads
from cellseg_pipe.nets.checkpoint import Model
from cellseg_pipe.nets.cpnet import Architecture
from cellseg_pipe.nets.fused import choose_precision, fuse
from cellseg_pipe.nets.sam import SamEngine
from cellseg_pipe.nets.size import SizeModel

__all__ = [
    "AnyEngine",
    "Engine",
    "check_same",
    "choose_device",
    "engine_for",
    "engines_for",
    "loaded_engine",
]

log = logging.getLogger(__name__)

VOLUME_WINDOW_PX = 128  # a cube: the usual one of planes, 512, would take 50 GB and more


class Engine:
    """A network ready to run.

    Parameters
    ----------
    model : Model
        Network and what is known of it.
    device : str
        `cpu`, `cuda` or `cuda:N`.
    precision : {"auto", "fp32", "bf16"}
        Type of the maps.
    threads : int, optional
        Threads on a CPU; as torch is set by default.
    """

    def __init__(
        self, model: Model, *, device: str, precision: str = "auto", threads: int | None = None
    ) -> None:
        self.model = model
        self.device = device
        self.threads = threads
        chosen: Any = choose_precision(device) if precision == "auto" else precision
        self._net = fuse(model.net, precision=chosen, device=device)
        self.precision: str = chosen
        self.numerics = str(self._net.form)

    @property
    def architecture(self) -> Architecture:
        """Form of the network."""
        return self._net.architecture

    @property
    def n_outputs(self) -> int:
        """Channels of the output."""
        return self.architecture.n_outputs

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.model.info.name

    @property
    def sha256(self) -> str:
        """Checksum of the model's file."""
        return self.model.sha256

    @property
    def window_px(self) -> int | None:
        """Size of window that suits the network, if the model says one or it sees volumes."""
        deep = self.architecture.ndim == 3
        return self.model.info.window_px or (VOLUME_WINDOW_PX if deep else None)

    @property
    def percentiles(self) -> tuple[float, float]:
        """Percentiles of the grey values that the network was trained with."""
        return self.model.info.percentiles

    @property
    def size(self) -> SizeModel | None:
        """What guesses the diameter from the style, if the model has it."""
        return self.model.size

    @property
    def diameter_px(self) -> float:
        """Diameter of the cells that the network knows."""
        return self.model.info.diameter_px

    @property
    def footprint(self) -> Footprint:
        """Memory that it takes."""
        n_weights = sum(parameter.numel() for parameter in self.model.net.parameters())
        return footprint_of(self.architecture, n_weights, self.precision)

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return outputs and styles.

        Parameters
        ----------
        x : float32 tensor [B, n_inputs, *S]
            Normalised images.

        Returns
        -------
        tuple of tensor
            Outputs [B, n_outputs, *S], with five times the flow, and styles [B, n].
        """
        with torch_threads(self.threads):
            return self._net(x)


AnyEngine = Engine | SamEngine


def engine_for(
    model: str | Path | Model | AnyEngine,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> AnyEngine:
    """Load a network that segments, unless it is loaded, and bring it to a device.

    Parameters
    ----------
    model : str, path, Model or Engine
        Name or file of a model, or one that is loaded; `cellpose-sam:FILE` for one of Cellpose 4.
    device : {"auto", "cpu", "cuda"}
        Where it runs.
    precision : {"auto", "fp32", "bf16"}
        Type of the maps.
    threads : int, optional
        Threads on a CPU.

    Returns
    -------
    Engine or SamEngine
        Ready to run.
    """
    if isinstance(model, Engine | SamEngine):
        check_same(model, device=device, precision=precision)
        return model
    if isinstance(model, str) and model.startswith(SAM_PREFIX):
        path, where = model.removeprefix(SAM_PREFIX), choose_device(device)
        return SamEngine(path, device=where, precision=precision, threads=threads)
    return loaded_engine(
        model, check=_refuse_other_answers, device=device, precision=precision, threads=threads
    )


def engines_for(settings: Mapping[str, Any]) -> dict[str, AnyEngine]:
    """Load the networks that settings of `segment` name.

    Parameters
    ----------
    settings : mapping
        Of all images: model, side_model, device, precision, threads and others.

    Returns
    -------
    dict of str to AnyEngine
        `model`, and `side_model` where one is named.
    """
    shared = {key: settings[key] for key in ("device", "precision", "threads") if key in settings}
    named = {"model": settings.get("model", "nuclei"), "side_model": settings.get("side_model")}
    return {key: engine_for(net, **shared) for key, net in named.items() if net is not None}


def check_same(engine: AnyEngine, *, device: str, precision: str) -> None:
    """Refuse a device or precision that a network which is loaded already does not have.

    Parameters
    ----------
    engine : AnyEngine
        The network.
    device, precision : str
        As they were asked for; auto takes those that it has.
    """
    there = device in ("auto", engine.device, engine.device.partition(":")[0])
    if not there or precision not in ("auto", engine.precision):
        raise ValueError(
            f"{engine.name} is loaded and runs as {engine.numerics}, got device {device!r} and"
            f" precision {precision!r}. Load it so, or leave both out."
        )


def loaded_engine(
    model: str | Path | Model,
    *,
    check: Callable[[Model], None],
    device: str,
    precision: str,
    threads: int | None,
) -> Engine:
    """Load a network of ours or of the peer, unless it is loaded, and bring it to a device.

    Parameters
    ----------
    model : str, path or Model
        Name or file of a model, or one that is loaded.
    check : callable
        Refuses a network for another task.
    device : {"auto", "cpu", "cuda"}
        Where it runs.
    precision : {"auto", "fp32", "bf16"}
        Type of the maps.
    threads : int or None
        Threads on a CPU.

    Returns
    -------
    Engine
        Ready to run.
    """
    if not isinstance(model, Model):
        from cellseg_pipe.nets.catalog import load_model

        model = load_model(model)
    check(model)
    engine = Engine(model, device=choose_device(device), precision=precision, threads=threads)
    log.info("model %s runs as %s", engine.name, engine.numerics)
    return engine


def _refuse_other_answers(model: Model) -> None:
    """Refuse networks whose answer is no flow: it would be followed all the same, to nothing."""
    info = model.info
    if info.task == "restoration":
        raise ValueError(
            f"segmenting needs a model of flows, and {info.name} restores images"
            f" ({model.summary}). Name one that segments."
        )
    if info.target == "three-classes":
        raise ValueError(
            f"segmenting needs a model of flows, and {info.name} tells interior, boundary and"
            " background. Train it with target: flow; its answer is for `masks_from_classes`."
        )


def choose_device(device: str) -> str:
    """Return where to run; a GPU that is asked for must be there.

    Parameters
    ----------
    device : str
        `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns
    -------
    str
        Without `auto`.
    """
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not number.isdecimal()):
        raise ValueError(f"device needs to be auto, cpu, cuda or cuda:N, got {device!r}.")
    if number and kind != "cuda":
        raise ValueError(f"device needs a number after cuda: alone, got {device!r}.")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "auto":
        kind = "cuda" if there else "cpu"
        log.info("device auto: %s", torch.cuda.get_device_name() if there else "no GPU, the CPU")
        return kind
    if kind == "cuda" and int(number or 0) >= there:
        raise ValueError(
            f"device {device!r} needs a GPU that torch sees, got {there}. Check nvidia-smi and that"
            " torch is built for CUDA, or run with device='cpu'."
        )
    return device
