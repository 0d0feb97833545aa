"""What becomes of sessions in a forked child.

``os.fork`` copies memory, not threads: a session in the child waits for threads that are not there, in a run and even
when it is destroyed. So the child never touches the sessions of its parent; it makes new ones.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """What wants to be told."""

    def after_fork(self) -> None:
        """Called in the child, before anything else runs there."""
        ...


_watched: weakref.WeakSet[Forked] = weakref.WeakSet()


def watch(thing: Forked) -> None:
    """Tell ``thing`` when it finds itself in a forked child."""
    _watched.add(thing)


def keep_for_ever(thing: object) -> None:
    """Never destroy an object, not even when the process ends."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _in_child() -> None:
    for thing in list(_watched):
        thing.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_in_child)
