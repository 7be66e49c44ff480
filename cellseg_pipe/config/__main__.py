"""Writes workflow/schemas/config.schema.json: `python -m cellseg_pipe.config [FILE]`."""

import sys
from pathlib import Path

from cellseg_pipe.config.writing import schema_text

FILE = Path(__file__).parents[2] / "workflow" / "schemas" / "config.schema.json"

if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(schema_text(), encoding="utf-8")
