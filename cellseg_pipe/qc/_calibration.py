"""What `tests/bench/confidence.py` has fitted: weights of the features of cells."""

# In the order of `confidence.FEATURES`.
WEIGHTS: dict[str, tuple[float, ...]] = {
    "2d": (0.8991, 0.5895, -4.9626, -2.1124, 0.8378, 0.0754, 0.9823, -1.1707),
    "2d, no flow error": (-1.0547, 1.0302, 0.0, 0.0, -0.0579, -0.0736, 0.502, -2.0167),
    "3d": (-1.2171, 1.462, -1.6597, -1.4951, -1.1522, -0.1311, 0.7822, -0.3766),
    "3d, no flow error": (-2.3869, 1.827, 0.0, 0.0, -1.4741, -0.0297, 0.6571, -0.6144),
}
