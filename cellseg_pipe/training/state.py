"""All that a training run is at one moment, and the file it is kept in."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cellseg_pipe.io.files import binary_whole
from cellseg_pipe.nets.cpnet import Architecture, CPnet, cpnet_of

__all__ = ["State", "load_state", "new_state", "save_state", "with_outputs"]


@dataclass
class State:
    """A network in training.

    Parameters
    ----------
    net : CPnet
        What learns.
    optimiser : AdamW
        With its moments.
    mean : dict of str to tensor
        Mean of the weights over the last steps, with the statistics of the normalisations.
    step : int
        Steps that are done.
    best : dict
        Score and step of the best evaluation.
    """

    net: CPnet
    optimiser: torch.optim.AdamW
    mean: dict[str, Tensor]
    step: int = 0
    best: dict[str, float] = field(default_factory=dict)

    def average(self, kept: float) -> None:
        """Let the mean follow the network.

        Parameters
        ----------
        kept : float
            Share of the mean that is kept; less in the first steps, whose weights say little.
        """
        share = 1 - min(kept, (1 + self.step) / (10 + self.step))
        pairs = [
            (self.mean[key], value)
            for key, value in self.net.state_dict().items()
            if value.dtype.is_floating_point
        ]
        torch._foreach_lerp_([old for old, _ in pairs], [new for _, new in pairs], share)

    def mean_net(self) -> CPnet:
        """Return a network of the mean weights, in evaluation mode on the CPU."""
        weights = {key: value.detach().cpu().clone() for key, value in self.mean.items()}
        return cpnet_of(weights, style=self.net.architecture.style)


def new_state(
    net: CPnet, *, learning_rate: float, weight_decay: float, device: str = "cpu"
) -> State:
    """Begin to train a network.

    Parameters
    ----------
    net : CPnet
        Fresh, or trained before.
    learning_rate, weight_decay : float
        Of AdamW.
    device : str
        Where.

    Returns
    -------
    State
        At step 0.
    """
    net = net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean = {key: value.detach().clone() for key, value in net.state_dict().items()}
    return State(net, optimiser_of(net, learning_rate, weight_decay), mean)


def with_outputs(net: CPnet, n_outputs: int) -> CPnet:
    """Return a network with another number of outputs; those that both have stay as they are.

    Parameters
    ----------
    net : CPnet
        Trained before; it is not changed.
    n_outputs : int
        Wanted; outputs that are new begin with fresh weights.

    Returns
    -------
    CPnet
        A copy.
    """
    found = CPnet(dataclasses.replace(net.architecture, n_outputs=n_outputs))
    state = found.state_dict()
    both = min(n_outputs, net.architecture.n_outputs)
    for key, value in net.state_dict().items():
        if value.shape == state[key].shape:
            state[key] = value.clone()
        else:  # the last convolution
            state[key][:both] = value[:both]
    found.load_state_dict(state)
    return found


def optimiser_of(net: CPnet, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Return the optimiser; diameters are no weights and stay."""
    learned = [p for name, p in net.named_parameters() if not name.startswith("diam_")]
    for parameter in learned:
        parameter.requires_grad = True
    return torch.optim.AdamW(learned, lr=learning_rate, weight_decay=weight_decay)


def save_state(path: Path | str, state: State, *, about: dict[str, Any]) -> None:
    """Write a checkpoint; whole or not at all.

    Parameters
    ----------
    path : path
        The file; an old one is replaced.
    state : State
        What is kept.
    about : dict
        What the run was asked for; compared when it is read.
    """
    buffer = io.BytesIO()
    torch.save(
        {
            "architecture": dataclasses.asdict(state.net.architecture),
            "net": state.net.state_dict(),
            "optimiser": state.optimiser.state_dict(),
            "mean": state.mean,
            "step": state.step,
            "best": state.best,
            "about": about,
        },
        buffer,
    )
    with binary_whole(path) as file:
        file.write(buffer.getvalue())


def load_state(
    path: Path | str,
    *,
    about: dict[str, Any],
    learning_rate: float,
    weight_decay: float,
    device: str = "cpu",
) -> State:
    """Read a checkpoint of the same run.

    Parameters
    ----------
    path : path
        The file.
    about : dict
        What the run is asked for now; needs to be what it was then.
    learning_rate, weight_decay : float
        Of AdamW.
    device : str
        Where.

    Returns
    -------
    State
        As it was.
    """
    found = torch.load(path, map_location="cpu", weights_only=True)
    # What an earlier version did not write down cannot be compared.
    then = found["about"]
    for key in sorted(set(about) & set(then)):
        if about[key] != then[key]:
            raise ValueError(
                f"{path} is of a run with {key} = {then[key]!r}, and now it is {about[key]!r}."
                " Train into another folder, or set it back."
            )
    form = dict(found["architecture"], widths=tuple(found["architecture"]["widths"]))
    net = CPnet(Architecture(**form))
    net.load_state_dict(found["net"])
    state = new_state(net, learning_rate=learning_rate, weight_decay=weight_decay, device=device)
    state.optimiser.load_state_dict(found["optimiser"])
    state.mean = {key: value.to(device) for key, value in found["mean"].items()}
    state.step, state.best = found["step"], found["best"]
    return state
