"""Trains networks: data, augmentation, targets, losses, the loop and its evaluation."""

from cellseg_pipe.training.loop import train
from cellseg_pipe.training.settings import Recipe

__all__ = ["Recipe", "train"]
