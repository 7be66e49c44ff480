"""What all readers here have in common: they are asked in one way, and answer in one way."""

import hashlib
import json
import sys

import numpy as np


def asked():
    """Return the store to look at, as `viewers.Case` describes it."""
    return json.loads(sys.argv[1])


def level(array, scale=None, translation=None):
    """Return what is compared of one level of a pyramid."""
    array = np.asarray(array)
    pixels = hashlib.sha256(np.ascontiguousarray(array, "<u4").tobytes()).hexdigest()
    found = {"shape": list(array.shape), "dtype": array.dtype.name, "pixels": pixels}
    if scale is not None:
        found["scale"] = [float(number) for number in scale]
    if translation is not None:
        found["translation"] = [float(number) for number in translation]
    return found


def told(level, axes):
    """Return scale and translation of an entry of `datasets`, without those of other axes."""
    scale, translation = (
        next((t[kind] for t in level if t["type"] == kind), [default] * len(axes))
        for kind, default in (("scale", 1.0), ("translation", 0.0))
    )
    kept = [i for i, axis in enumerate(axes) if axis in "zyx"]
    return [scale[i] for i in kept], [translation[i] for i in kept]


def answer(**seen):
    """Print what was seen, after all that the reader printed."""
    print("\n" + json.dumps(seen))
