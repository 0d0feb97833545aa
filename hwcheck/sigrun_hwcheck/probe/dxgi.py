"""Windows' list of graphics adapters (DXGI), called as COM from Python; not tested on Windows yet.

``QueryVideoMemoryInfo`` answers what Windows lets this process have of an adapter's memory now (the budget), and what
it has. The older ``DedicatedVideoMemory`` is a size, and 64 bits wide, unlike WMI's ``AdapterRAM``.
"""

from __future__ import annotations

import ctypes
import uuid
from dataclasses import dataclass
from typing import Any

FACTORY1 = uuid.UUID("770aae78-f26f-4dba-a829-253c83d1b387")
ADAPTER3 = uuid.UUID("645967a4-1392-4310-a798-8053ce3e93fd")

# Places in the tables of methods, which start with IUnknown's three.
QUERY_INTERFACE, RELEASE = 0, 2
ENUM_ADAPTERS1 = 12  # IDXGIFactory1
GET_DESC1 = 10  # IDXGIAdapter1
QUERY_VIDEO_MEMORY_INFO = 14  # IDXGIAdapter3

LOCAL, NON_LOCAL = 0, 1
SOFTWARE = 2  # DXGI_ADAPTER_FLAG_SOFTWARE

# COM methods are stdcall on 32-bit Windows; everywhere else there is one convention.
METHOD = getattr(ctypes, "WINFUNCTYPE", ctypes.CFUNCTYPE)


class Description(ctypes.Structure):
    """DXGI_ADAPTER_DESC1."""

    _fields_ = (
        ("name", ctypes.c_uint16 * 128),
        ("vendor", ctypes.c_uint32),
        ("device", ctypes.c_uint32),
        ("subsystem", ctypes.c_uint32),
        ("revision", ctypes.c_uint32),
        ("dedicated_video", ctypes.c_size_t),
        ("dedicated_system", ctypes.c_size_t),
        ("shared_system", ctypes.c_size_t),
        ("luid", ctypes.c_uint32 * 2),
        ("flags", ctypes.c_uint32),
    )


class MemoryInfo(ctypes.Structure):
    """DXGI_QUERY_VIDEO_MEMORY_INFO."""

    _fields_ = (
        ("budget", ctypes.c_uint64),
        ("usage", ctypes.c_uint64),
        ("available_for_reservation", ctypes.c_uint64),
        ("reservation", ctypes.c_uint64),
    )


@dataclass(frozen=True)
class Adapter:
    """An adapter. Budgets and usages are this process's; ``None`` where Windows is too old to tell."""

    name: str
    vendor: int
    dedicated_bytes: int
    shared_bytes: int
    local_budget: int | None
    local_usage: int | None
    shared_budget: int | None
    shared_usage: int | None


def adapters() -> list[Adapter]:
    """Every adapter but those that draw in software.

    Raises:
        OSError: there is no DXGI here.
    """
    load = getattr(ctypes, "WinDLL", None)
    if load is None:
        raise OSError("DXGI is Windows'")
    return listed(load("dxgi").CreateDXGIFactory1)


def listed(create: Any) -> list[Adapter]:
    """Adapters of the factory that ``create``, the function CreateDXGIFactory1, makes."""
    factory = ctypes.c_void_p()
    if create(ctypes.byref(_guid(FACTORY1)), ctypes.byref(factory)) != 0 or not factory.value:
        raise OSError("DXGI does not start")
    found: list[Adapter] = []
    try:
        number = 0
        while True:
            adapter = ctypes.c_void_p()
            if _call(factory, ENUM_ADAPTERS1, ctypes.c_uint32(number), ctypes.byref(adapter)) != 0:
                return found  # DXGI_ERROR_NOT_FOUND ends the list
            try:
                one = _read(adapter)
            finally:
                _release(adapter)
            if one is not None:
                found.append(one)
            number += 1
    finally:
        _release(factory)


def _read(adapter: ctypes.c_void_p) -> Adapter | None:
    said = Description()
    if _call(adapter, GET_DESC1, ctypes.byref(said)) != 0 or said.flags & SOFTWARE:
        return None
    name = bytes(said.name).decode("utf-16-le", "replace").split("\0", 1)[0]
    third = ctypes.c_void_p()
    status = _call(adapter, QUERY_INTERFACE, ctypes.byref(_guid(ADAPTER3)), ctypes.byref(third))
    local = shared = None
    if status == 0 and third.value:
        try:
            local, shared = _memory(third, LOCAL), _memory(third, NON_LOCAL)
        finally:
            _release(third)
    return Adapter(
        name,
        said.vendor,
        said.dedicated_video,
        said.shared_system,
        None if local is None else local.budget,
        None if local is None else local.usage,
        None if shared is None else shared.budget,
        None if shared is None else shared.usage,
    )


def _memory(adapter: ctypes.c_void_p, group: int) -> Any:
    info = MemoryInfo()
    arguments = (ctypes.c_uint32(0), ctypes.c_uint32(group), ctypes.byref(info))
    return info if _call(adapter, QUERY_VIDEO_MEMORY_INFO, *arguments) == 0 else None


def _call(this: ctypes.c_void_p, place: int, *arguments: Any) -> int:
    """Call a method by its place in the object's table; answers its HRESULT, 0 if all went well."""
    assert this.value  # the callers have looked
    table = ctypes.cast(this.value, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p))).contents
    kinds = [ctypes.c_uint32 if isinstance(a, ctypes.c_uint32) else ctypes.c_void_p for a in arguments]
    method = METHOD(ctypes.c_int32, ctypes.c_void_p, *kinds)(table[place])
    return int(method(this, *arguments))


def _release(this: ctypes.c_void_p) -> None:
    _call(this, RELEASE)


def _guid(value: uuid.UUID) -> Any:
    return (ctypes.c_char * 16).from_buffer_copy(value.bytes_le)
