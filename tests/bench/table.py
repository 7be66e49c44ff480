"""The table of cells against scikit-image's, same image: `python -m tests.bench.table`.

Prints rows for docs/benchmarks.md. One thread; best of three of ours, one of the peer's.
"""

import functools
import time
import warnings
from dataclasses import dataclass

import numpy as np
from skimage.measure import regionprops_table

from cellseg_pipe.segmentation import Measurer, Measuring
from tests.golden.synthetic import label_field

PROPERTIES = (
    *("label", "bbox", "centroid", "area", "axis_major_length", "axis_minor_length", "extent"),
    *("solidity", "euler_number", "intensity_mean", "intensity_std", "intensity_min"),
    "intensity_max",
)
FLAT = ("orientation", "eccentricity", "perimeter_crofton")
GROUPS = {
    "place, size, mean": {"shape": False, "quantiles": ()},
    "and form": {"quantiles": ()},
    "and quantiles (the default)": {},
    "and texture, ring of 5 px": {"texture": True, "ring_px": 5},
}
SCENES = {"2048², 2,000 cells": ((2048, 2048), 2000), "64x256x256, 150": ((64, 256, 256), 150)}


@dataclass(frozen=True)
class Settings:
    anisotropy: float = 1.0


@dataclass(frozen=True)
class Plan:
    """What a measurer asks of a plan."""

    shape: tuple[int, ...]
    mode: str
    settings: Settings = Settings()
    walks_level_0: bool = True


def seconds(run, repeats=3):
    run()  # compiles, loads
    best = np.inf
    for _ in range(repeats):
        begin = time.process_time()
        run()
        best = min(best, time.process_time() - begin)
    return best


def main():
    for name, (shape, n) in SCENES.items():
        labels = label_field(shape, n, seed=1).astype(np.uint32)
        image = np.random.default_rng(0).integers(0, 60_000, (1, *shape)).astype(np.uint16)
        ids = np.unique(labels[labels > 0])
        peaks = np.zeros((len(ids), len(shape)), np.int64)
        cells = {"ids": ids, "peaks": peaks}
        plan = Plan(shape, f"{len(shape)}d")
        for group, said in GROUPS.items():
            measurer = Measurer(plan, Measuring(**said), 1)
            ours = seconds(functools.partial(measurer.image, labels, image, **cells))
            print(f"| {name} | {group} | {ours:.3f} |")
        wanted = PROPERTIES + (FLAT if len(shape) == 2 else ())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            begin = time.process_time()
            regionprops_table(labels.astype(int), image[0], properties=wanted)
            print(f"| {name} | regionprops_table | {time.process_time() - begin:.1f} |")


if __name__ == "__main__":
    main()
