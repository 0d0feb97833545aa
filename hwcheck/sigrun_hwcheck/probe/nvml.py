"""NVML, the library that comes with NVIDIA's driver: loading it, calling it, and its errors in words.

Called through the package nvidia-ml-py (module ``pynvml``). Drivers older than the package lack some of its
functions, and other packages of that name lack some too, so that every function is asked for by name and may be
missing.
"""

from __future__ import annotations

import ctypes
import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sigrun_hwcheck.machine import GpuState
from sigrun_hwcheck.probe import tree

# nvml.h, enum nvmlReturn_t
NOT_SUPPORTED = 3
NO_PERMISSION = 4
NOT_FOUND = 6
DRIVER_NOT_LOADED = 9
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
GPU_IS_LOST = 15
VERSION_MISMATCH = 18
OTHER_VERSION = 25  # of an argument's structure

STATES: dict[int, tuple[GpuState, str]] = {
    NOT_SUPPORTED: ("not_supported", "NVML does not support this here"),
    NO_PERMISSION: (
        "no_permission",
        "no permission to ask the NVIDIA driver (in a container: pass the GPU in)",
    ),
    8: ("error", "the card lacks power: its power cables are not connected"),
    DRIVER_NOT_LOADED: ("no_driver", "NVML is installed, but the NVIDIA driver is not running"),
    10: ("error", "the NVIDIA driver has trouble with the card's interrupts"),
    LIBRARY_NOT_FOUND: ("no_library", "the NVML library is absent, so there is no NVIDIA driver here"),
    FUNCTION_NOT_FOUND: ("old_driver", "the NVIDIA driver is too old to tell this"),
    GPU_IS_LOST: ("error", "the card has fallen off the bus: restart the machine"),
    16: ("error", "the card must be reset before it can be used"),
    17: ("error", "the operating system blocks the card"),
    VERSION_MISMATCH: (
        "version_mismatch",
        "NVIDIA driver and NVML library are of different versions: restart the machine",
    ),
    28: ("error", "the driver no longer finds the card"),
}

# Where the library lies on systems whose loader does not look there.
PLACES = (
    "usr/lib/wsl/lib",  # WSL
    "usr/local/nvidia/lib64",  # Google's Kubernetes nodes
    "usr/lib64-nvidia",  # Google Colab
    "run/opengl-driver/lib",  # NixOS
)


def load_binding() -> Any:
    """The module ``pynvml``.

    Raises:
        ImportError: nvidia-ml-py is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the deprecated package pynvml warns of itself
        return importlib.import_module("pynvml")


def open_library(path: str) -> Any:
    """A shared library.

    Raises:
        OSError: it is not there, or cannot be loaded.
    """
    return ctypes.CDLL(path)


def start(nvml: Any, root: Path, open_library: Callable[[str], Any]) -> tuple[GpuState, str] | None:
    """Start NVML; ``None`` if that went well, else why not.

    Starting does not touch a card; that happens when a card's handle is asked for.
    """
    error = code(nvml, "nvmlInit")
    if error == LIBRARY_NOT_FOUND:
        for place in PLACES:
            path = root / place / "libnvidia-ml.so.1"
            if not tree.there(path):
                continue
            try:
                nvml.nvmlLib = open_library(str(path))  # what nvmlInit would have set
            except OSError:
                continue
            error = code(nvml, "nvmlInit")
            break
    return None if error is None else why(error)


def code(nvml: Any, function: str, *arguments: Any) -> int | None:
    """Call for its effect; the number of the error, or ``None``."""
    return call(nvml, function, *arguments)[1]


def call(nvml: Any, function: str, *arguments: Any) -> tuple[Any, int | None]:
    """A function's answer, or ``None`` and the number of the error."""
    try:
        return getattr(nvml, function)(*arguments), None
    except nvml.NVMLError as error:
        return None, int(getattr(error, "value", 999))
    except AttributeError:  # an old binding
        return None, FUNCTION_NOT_FOUND


def why(error: int) -> tuple[GpuState, str]:
    """An error's number as a state and in words."""
    return STATES.get(error, ("error", f"NVML error {error}"))


def words(error: int | None) -> str | None:
    """An error's number in words."""
    return None if error is None else why(error)[1]


def text(value: Any) -> str | None:
    """A string that older bindings give as bytes."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return None if value is None else str(value)
