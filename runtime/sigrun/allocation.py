"""While a tower is loaded, large pieces of memory go back to the system as soon as they are freed.

glibc takes pieces from 128 KiB on straight from the system, and raises that mark to the largest piece freed so far, up
to 32 MiB. From then on such pieces come from heaps, which keep what lies between pieces in use: loading a tower may
leave up to 200 MiB there, a different amount each time. With the mark held at 4 MiB, which the pixel values of no
picture reach, two loads take the same to the MiB.

Afterwards the mark stands where glibc's own rule would have put it. Matrices in blocks are unpacked into scratch
memory at each product (``MatMulNBits``), and taking that of matrices that graphs do not cut (``sigrun_recipes.pieces``)
from the system anew each time would double the time of a text in form exact.

Smaller pieces, which the matrices of smaller models are, stay in the heaps: :func:`give_back_freed` asks for them back
once a tower is loaded, and when it is unloaded.

The mark is one of the whole process. A user who set it through glibc's environment variables keeps it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterator

LOADING = 4 << 20  # bytes
RUNNING = 32 << 20  # the most that glibc's own rule comes to
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of <malloc.h>
_lock = threading.Lock()
_loads = 0  # going on now


@contextlib.contextmanager
def large_go_back() -> Iterator[bool]:
    """Hold the mark low; of several at a time, until the last is done.

    Yields:
        Whether it is: not where the C library is another, nor where the user has set it.
    """
    global _loads
    with _lock:
        _loads += 1
        held = _mark(LOADING)
    try:
        yield held
    finally:
        with _lock:
            _loads -= 1
            if not _loads:
                give_back_freed()
                _mark(RUNNING)


def _mark(nbytes: int) -> bool:
    if sys.platform != "linux" or _set_by_user(os.environ.get("GLIBC_TUNABLES", "")):
        return False
    try:
        if not (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
            return False
        mallopt = ctypes.CDLL(None).mallopt
        # What lies free at a heap's end is given back from twice the mark on, as glibc's own rule has it.
        return bool(mallopt(_MMAP_THRESHOLD, nbytes) and mallopt(_TRIM_THRESHOLD, 2 * nbytes))
    except (OSError, ValueError, AttributeError):  # another C library
        return False


def give_back_freed() -> None:
    """Give back now what lies free in the heaps, where the C library is glibc."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _set_by_user(tunables: str) -> bool:
    return "MALLOC_MMAP_THRESHOLD_" in os.environ or "glibc.malloc.mmap_threshold" in tunables
