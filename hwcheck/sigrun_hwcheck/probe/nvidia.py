"""NVIDIA cards through NVML, the library that comes with NVIDIA's driver.

Asked through the package nvidia-ml-py (module ``pynvml``). Why there is no answer matters to a user, so each
cause is told apart: the Python package, the library, the driver, a permission, no card, or an error with its
number. Free memory is what NVML calls free, never the total. Reading starts no CUDA context on the card.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from sigrun_hwcheck.machine import Card, Gpus, GpuState

VENDOR = "nvidia"

# nvml.h, enum nvmlReturn_t
NOT_SUPPORTED = 3
NO_PERMISSION = 4
DRIVER_NOT_LOADED = 9
LIBRARY_NOT_FOUND = 12
VERSION_MISMATCH = 18

_STATES: dict[int, tuple[GpuState, str]] = {
    NOT_SUPPORTED: ("not_supported", "NVML does not support this here"),
    NO_PERMISSION: (
        "no_permission",
        "no permission to ask the NVIDIA driver (in a container: pass the GPU in)",
    ),
    DRIVER_NOT_LOADED: ("no_driver", "NVML is installed, but the NVIDIA driver is not running"),
    LIBRARY_NOT_FOUND: ("no_library", "the NVML library is absent, so there is no NVIDIA driver here"),
    VERSION_MISMATCH: (
        "error",
        "NVIDIA driver and NVML library are of different versions: restart the machine",
    ),
}


def load_binding() -> Any:
    """The module ``pynvml``. Raises ``ImportError`` if nvidia-ml-py is not installed."""
    return importlib.import_module("pynvml")


def read(binding: Callable[[], Any] = load_binding) -> Gpus:
    """Every NVIDIA card, or why there is none. ``binding`` answers the module ``pynvml``."""
    try:
        nvml = binding()
    except ImportError:
        return _none("no_binding", "not asked: nvidia-ml-py is not installed (pip install 'sigrun[hwcheck]')")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return _none(*_why(error))
    try:
        return _cards(nvml)
    except nvml.NVMLError as error:
        return _none(*_why(error))
    finally:
        _try(nvml, nvml.nvmlShutdown)


def _cards(nvml: Any) -> Gpus:
    count = int(nvml.nvmlDeviceGetCount())
    driver, _ = _try(nvml, nvml.nvmlSystemGetDriverVersion)
    if count == 0:
        return Gpus(VENDOR, "no_devices", "the NVIDIA driver runs, but it sees no card", _text(driver), ())
    return Gpus(VENDOR, "ok", None, _text(driver), tuple(_card(nvml, i) for i in range(count)))


def _card(nvml: Any, index: int) -> Card:
    handle, problem = _try(nvml, nvml.nvmlDeviceGetHandleByIndex, index)
    if handle is None:
        return Card(index, None, None, None, None, None, problem)
    name, _ = _try(nvml, nvml.nvmlDeviceGetName, handle)
    capability, _ = _try(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    memory, problem = _memory(nvml, handle)
    total = free = used = None
    if memory is not None:
        if memory.total > 0:
            total, free, used = int(memory.total), int(memory.free), int(memory.used)
        else:
            problem = "the driver tells no memory of its own for it"
    pair = None if capability is None else (int(capability[0]), int(capability[1]))
    return Card(index, _text(name), total, free, used, pair, problem)


def _memory(nvml: Any, handle: Any) -> tuple[Any, str | None]:
    """Memory by NVML's second interface, which keeps the driver's own share apart, else by its first."""
    version = getattr(nvml, "nvmlMemory_v2", None)
    if version is not None:
        memory, _ = _try(nvml, nvml.nvmlDeviceGetMemoryInfo, handle, version)
        if memory is not None:
            return memory, None
    return _try(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)


def _try(nvml: Any, function: Callable[..., Any], *arguments: Any) -> tuple[Any, str | None]:
    """The function's answer, or ``None`` and in words why there is none."""
    try:
        return function(*arguments), None
    except nvml.NVMLError as error:
        return None, _why(error)[1]


def _why(error: Any) -> tuple[GpuState, str]:
    code = getattr(error, "value", None)
    if isinstance(code, int) and code in _STATES:
        return _STATES[code]
    return "error", f"NVML error {code}: {error}"


def _none(state: GpuState, detail: str) -> Gpus:
    return Gpus(VENDOR, state, detail, None, ())


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):  # older bindings
        return value.decode("utf-8", "replace")
    return None if value is None else str(value)
