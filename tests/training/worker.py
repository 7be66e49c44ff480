"""Trains a tiny net in a process of its own: to be killed, or to be one of several.

`python worker.py OUT.pt STEPS [KILL_AT]`: trains on synthetic labels, writes the weights; goes on
from OUT.pt.state. Under torchrun's variables it is one of several processes.
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from conftest import prepared, scene

from cellseg_pipe.nets.cpnet import Architecture, CPnet
from cellseg_pipe.training import joint
from cellseg_pipe.training.augment import Sampler
from cellseg_pipe.training.loop import Calls, train
from cellseg_pipe.training.settings import Augmentation, Recipe
from cellseg_pipe.training.state import load_state, new_state, save_state

RATES = {"learning_rate": 2e-3, "weight_decay": 1e-4}


class Killing(Sampler):
    """Draws crops, and kills the process when one of a certain step is drawn."""

    def __init__(self, *arguments, kill_at, **settings):
        super().__init__(*arguments, **settings)
        self.kill_at = kill_at

    def crop(self, step, place):
        if step == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().crop(step, place)


def main(out, steps, kill_at=-1):
    torch.set_num_threads(1)
    recipe = Recipe(steps=int(steps), batch=4, checkpoint_every=3, warmup_steps=2, workers=2)
    kept = Path(f"{out}.state")
    with joint.joined("cpu"):
        if kept.exists():
            state = load_state(kept, about={}, **RATES)
        else:
            torch.manual_seed(0)
            state = new_state(CPnet(Architecture(n_inputs=1, widths=(4, 8))), **RATES)
        # Biases before a normalisation have no gradient but rounding, and AdamW divides by its
        # size: two orders of one sum would give two weights, of one and the same network.
        for group in state.optimiser.param_groups:
            group["eps"] = 1e-3
        # torch's own normalisation of maps with channels last is off by 5e-5 and depends on the
        # order of a batch; ours, by 1e-7. A test of its own compares the two.
        for module in state.net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.__class__ = joint.JointNorm
        images = []
        for seed in range(2):
            image, labels = scene(seed, edge=80)
            images.append(prepared(labels, image / image.max(), name=f"{seed}.tif"))
        sampler = Killing(
            images,
            diameter_px=18.0,
            augmentation=Augmentation(crop_px=32, margin_px=8),
            seed=0,
            kill_at=int(kill_at),
        )
        calls = Calls(checkpoint=lambda state: save_state(kept, state, about={}))
        train(state, sampler, recipe, calls=calls)
        if joint.rank() == 0:
            arrays = {key: value.numpy() for key, value in state.net.state_dict().items()}
            arrays |= {f"mean {key}": value.numpy() for key, value in state.mean.items()}
            np.savez(out, step=state.step, **arrays)
        joint.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
