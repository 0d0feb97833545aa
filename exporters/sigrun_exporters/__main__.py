"""``python -m sigrun_exporters``."""

import sys

from sigrun_exporters.cli import main

sys.exit(main())
