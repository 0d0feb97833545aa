"""``python -m sigrun_hwcheck`` is the command ``hwcheck``."""

import sys

from sigrun_hwcheck.cli import main

if __name__ == "__main__":
    sys.exit(main())
