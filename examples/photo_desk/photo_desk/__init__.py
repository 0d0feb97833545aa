"""Photo Desk: choose a folder, type labels or a sentence, see the pictures sorted by score.

A small app on ``sigrun.Engine``. It keeps everything in one folder, beside the app or where ``--data`` says.
"""

from __future__ import annotations

__version__ = "0.1.0"
