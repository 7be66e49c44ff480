"""`python -m cellseg_pipe.cli` is `cellseg`."""

import sys

from cellseg_pipe.cli import main

if __name__ == "__main__":
    sys.exit(main())
