"""The command `cellseg train`: one thin call."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_train"]


def add_train(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the command to those of `cellseg`.

    Parameters
    ----------
    commands : argparse action
        Takes the commands.
    common : argparse.ArgumentParser
        Options of every command.
    """
    parser = commands.add_parser(
        "train",
        parents=[common],
        help="train a network, or fine-tune one",
        description="Train a network as a configuration file says (config/examples/train-*.yaml)."
        " The same command goes on with a run that was stopped. Several processes:"
        " torchrun --nproc-per-node N -m cellseg_pipe.cli train CONFIG.",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a YAML file")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the network on a CPU")
    parser.add_argument(
        "--check", action="store_true", help="print what would be used and what is dropped, and end"
    )
    parser.set_defaults(command=_train)


def _train(options: argparse.Namespace) -> int:
    from cellseg_pipe.stages import train
    from cellseg_pipe.training.loop import Diverged

    plan = train.read_plan(options.config)
    if options.check:
        print(train.check(plan))
        return 0
    try:
        print(train.run(plan, device=options.device, threads=options.threads))
    except Diverged as error:
        raise ValueError(str(error)) from error
    return 0
