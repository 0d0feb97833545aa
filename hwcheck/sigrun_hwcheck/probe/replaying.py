"""A machine built from what was noted of it, so that a doctor's file is a test case of the probe itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sigrun_hwcheck.probe import cpu, dxgi, registry, runtime
from sigrun_hwcheck.probe.sources import Sources

ERRORS: dict[str, type[Exception]] = {
    error.__name__: error for error in (ImportError, ModuleNotFoundError, OSError, RuntimeError, ValueError)
}


def replayed(raw: Mapping[str, Any], folder: Path) -> Sources:
    """Sources that answer what was noted.

    Args:
        raw: the part of that name of a doctor's file.
        folder: an empty folder, in which the files are laid out.
    """
    _lay_out(raw["files"], folder)
    values, calls = raw["values"], raw["calls"]

    def answering(name: str) -> Callable[..., Any]:
        return _answering(calls.get(name, ()))

    return Sources(
        root=folder,
        system=values["system"],
        architecture=values["architecture"],
        platform=values["platform"],
        environ=values["environ"],
        memory=lambda: tuple(answering("memory")()),
        usable_cpus=answering("usable_cpus"),
        binding=lambda: Nvml(calls.get("nvml", ())),
        open_library=answering("open_library"),
        sysctl=lambda name: _bytes(answering("sysctl")(name)),
        working_set=answering("working_set"),
        adapters=lambda: [dxgi.Adapter(**one) for one in answering("adapters")()],
        display_drivers=lambda: [registry.DisplayDriver(**one) for one in answering("display_drivers")()],
        windows=cpu.Windows(
            feature_present=answering("windows_feature"),
            build=values["windows_build"],
            name=answering("windows_name"),
            cores=answering("windows_cores"),
            numpy_features=lambda: answering("numpy_features")() or {},
        ),
        disk_usage=lambda _: tuple(answering("disk_usage")()),
        output=folder,
        cache=None,
        package_version=answering("package_version"),
        try_provider=lambda name: runtime.Answer(**answering("try_provider")(name)),
    )


def _lay_out(files: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Files, folders and links as they were; what could not be read becomes a folder, which cannot be read either."""
    links = {
        path: entry["link"] for path, entry in files.items() if "link" in entry and entry.get("text") is None
    }
    for number, (path, target) in enumerate(sorted(links.items())):
        place = folder / ".links" / str(number) / target
        place.mkdir(parents=True, exist_ok=True)
        link = folder / path
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(place, target_is_directory=True)
    for path, entry in sorted(files.items()):
        place = folder / path
        if "text" in entry or "hex" in entry:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(
                bytes.fromhex(entry["hex"]) if "hex" in entry else entry["text"].encode("utf-8", "replace")
            )
        elif entry.get("there") or entry.get("error") == "PermissionError":
            place.mkdir(parents=True, exist_ok=True)


def _answering(calls: Any) -> Callable[..., Any]:
    """A function that gives the answer noted for its arguments; the only one there is, whatever they are."""

    def called(*arguments: Any) -> Any:
        wanted = [_told(a) for a in arguments]
        for call in calls:
            if call["asked"] == wanted or not call["asked"] or len(calls) == 1:
                if "error" in call:
                    raise ERRORS.get(call["error"], OSError)(call["error"])
                return call["answer"]
        return None

    return called


def _told(argument: Any) -> Any:
    return str(argument) if isinstance(argument, Path) else argument


def _bytes(value: Any) -> bytes | None:
    return None if value is None else bytes.fromhex(value["hex"])


class NvmlError(Exception):
    """An error of NVML, by its number."""

    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


class Nvml:
    """NVML's binding as it answered: each call in its turn, for a function may answer differently the second time."""

    NVMLError = NvmlError

    def __init__(self, calls: Any) -> None:
        if any(call["asked"] == ["import"] for call in calls):
            raise ImportError("pynvml")
        self._calls = list(calls)
        names = {call["asked"][0] for call in calls}
        versions = [
            c["asked"][2] for c in calls if c["asked"][0] == "nvmlDeviceGetMemoryInfo" and len(c["asked"]) > 2
        ]
        if versions:
            self.nvmlMemory_v2 = versions[0]
        self._names = names

    def __getattr__(self, name: str) -> Any:
        def called(*arguments: Any) -> Any:
            asked = [name, *(vars(a)["told"] if isinstance(a, SimpleNamespace) else a for a in arguments)]
            for i, call in enumerate(self._calls):
                if call["asked"] == asked:
                    del self._calls[i]
                    return _nvml_answer(call)
            raise AttributeError(name)

        if not name.startswith("nvml") or name == "nvmlMemory_v2":
            raise AttributeError(name)
        return called


def _nvml_answer(call: Mapping[str, Any]) -> Any:
    if call.get("error") == "AttributeError":
        raise AttributeError(call["asked"][0])
    if "error" in call:
        raise NvmlError(call["error"])
    answer = call["answer"]
    return SimpleNamespace(told=answer, **answer) if isinstance(answer, dict) else answer
