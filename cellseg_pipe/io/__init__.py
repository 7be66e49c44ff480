"""Reads and writes files: images, labels, OME-Zarr. Nothing here computes."""
