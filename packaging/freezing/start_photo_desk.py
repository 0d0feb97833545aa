"""Starts the frozen photo desk."""

import sys

from photo_desk.__main__ import main

sys.exit(main())
