"""Measurements of whole user actions, as commands. None of them touches the user's cache."""

import os

os.environ.setdefault("SIGRUN_CACHE", "off")
