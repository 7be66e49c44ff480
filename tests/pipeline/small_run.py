"""`python -m tests.pipeline.small_run CONFIG` is `cellseg run CONFIG` with everything small."""

import sys

from cellseg_pipe.cli import main
from tests.pipeline.worker import shrink

if __name__ == "__main__":
    shrink()
    sys.exit(main(["run", sys.argv[1]]))
