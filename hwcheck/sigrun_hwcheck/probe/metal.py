"""What Metal says of an Apple processor's graphics, through the Objective-C runtime; not tested on a Mac yet."""

from __future__ import annotations

import ctypes
import platform


def working_set() -> int | None:
    """Bytes that all of a process's graphics memory should stay below; ``None`` if Metal does not tell.

    Follows the setting ``iogpu.wired_limit_mb`` both ways. Asked on Apple's own processors only: on a Mac with
    two cards, asking would switch to the one that needs more power.
    """
    if platform.system() != "Darwin" or platform.machine() != "arm64":
        return None
    try:
        # Metal finds no card in a process that has not loaded CoreGraphics.
        ctypes.CDLL("/System/Library/Frameworks/CoreGraphics.framework/CoreGraphics")
        metal = ctypes.CDLL("/System/Library/Frameworks/Metal.framework/Metal")
        objc = ctypes.CDLL("/usr/lib/libobjc.A.dylib")
        create = metal.MTLCreateSystemDefaultDevice
        create.restype, create.argtypes = ctypes.c_void_p, []
        register = objc.sel_registerName
        register.restype, register.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
        device = create()
        if not device:
            return None
        send = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p)(
            ("objc_msgSend", objc)  # called as the method's own type, as Apple's processors demand
        )
        return int(send(device, register(b"recommendedMaxWorkingSetSize"))) or None
    except (OSError, AttributeError, ValueError):
        return None
