"""What `tests/bench/confidence.py` has fitted: weights of the features of cells."""

# In the order of `confidence.FEATURES`.
WEIGHTS: dict[str, tuple[float, ...]] = {
    "2d": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "2d, no flow error": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "3d": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "3d, no flow error": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
}
