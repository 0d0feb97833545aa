"""Starts the frozen ``sigrun``."""

import sys

from sigrun.cli import main

sys.exit(main())
