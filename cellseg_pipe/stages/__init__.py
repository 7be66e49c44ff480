"""One module per step of the work, each with one `run`: where computing meets files."""
