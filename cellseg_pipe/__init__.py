"""Segments cells in volumes and slides of any size; this page holds the public names only."""
