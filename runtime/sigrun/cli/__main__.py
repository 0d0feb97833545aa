"""``python -m sigrun.cli``."""

import sys

from sigrun.cli import main

sys.exit(main())
