"""``python -m sigrun_hwcheck``."""

import sys

from sigrun_hwcheck.cli import main

sys.exit(main())
