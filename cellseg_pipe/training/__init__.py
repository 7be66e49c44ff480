"""Trains networks: data, augmentation, targets, losses, the loop and its evaluation."""

from cellseg_pipe.training.loop import Recipe, train

__all__ = ["Recipe", "train"]
