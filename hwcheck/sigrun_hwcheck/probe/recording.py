"""Sources that note down what they are asked and what they answer, for ``hwcheck doctor``.

Nothing else of the probe knows of it: files are read through a root folder whose paths take notes, and everything that
is not a file is one of the functions of :class:`Sources`. What is noted is raw; :mod:`sigrun_hwcheck.probe.scrub` makes
it fit to be shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

from sigrun_hwcheck.probe.sources import Sources

if TYPE_CHECKING:
    _Path = Path
else:
    _Path = type(Path())  # Path itself cannot be derived from before Python 3.12

VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "KUBERNETES_SERVICE_HOST", "container")
"""Environment variables that the probe looks at."""

BINARY_BYTES = 16
"""Noted of a binary file: more than any reader takes."""

ANSWERS = ("total", "free", "used", "busId")
"""Noted of a structure that NVML fills in: what the probe uses of it."""

CONTENT = {"text", "hex", "link"}

DEVICE_FILES = "fastrpc-cdsp"
"""Device files whose mere name says something."""


@dataclass
class Record:
    """What was asked, and what came back.

    Attributes:
        files: path below the root → ``{"text": ...}``, ``{"hex": ...}``, ``{"link": name}``, ``{"there": true}`` or
            ``{"error": why}``.
        calls: source → calls in order: ``{"asked": [...], "answer": ...}`` or ``{"asked": [...], "error": why}``.
        values: source → plain value.
    """

    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def note(self, path: str, found: dict[str, Any]) -> None:
        """Keep what was found at a path; that it is there says less than what is in it."""
        known = self.files.get(path, {})
        if set(known) <= {"there", "error"}:
            self.files[path] = found if set(found) & CONTENT else known | found


class NotedPath(_Path):
    """A path that notes what is read through it, and through all paths that are made of it."""

    record: ClassVar[Record]
    top: ClassVar[str]

    def _note(self, found: dict[str, Any]) -> None:
        path = str(self)
        if path.startswith(self.top):
            self.record.note(path[len(self.top) :].replace("\\", "/").lstrip("/"), found)

    def _failed(self, error: Exception) -> None:
        self._note({"error": type(error).__name__})

    def read_text(self, *arguments: Any, **options: Any) -> str:
        """As of any path."""
        try:
            content = super().read_text(*arguments, **options)
        except (OSError, ValueError) as error:
            self._failed(error)
            raise
        self._note({"text": content})
        return content

    def open(self, mode: str = "r", *arguments: Any, **options: Any) -> IO[Any]:  # type: ignore[override]
        """As of any path; the beginning of binary files is noted."""
        if mode == "rb":
            try:
                with super().open("rb") as file:
                    self._note({"hex": file.read(BINARY_BYTES).hex()})
            except OSError as error:
                self._failed(error)
        return super().open(mode, *arguments, **options)

    def iterdir(self) -> Iterator[NotedPath]:  # type: ignore[override]
        """As of any path. What is in a folder shows by what is read there."""
        try:
            found = [*super().iterdir()]
        except OSError as error:
            self._failed(error)
            raise
        for path in found:
            if path.name.startswith(DEVICE_FILES):
                path._note({"there": True})
        return iter(found)

    def exists(self, **options: Any) -> bool:
        """As of any path."""
        there = super().exists(**options)
        self._note({"there": there})
        return there

    def is_dir(self, **options: Any) -> bool:
        """As of any path."""
        there = super().is_dir(**options)
        self._note({"there": there})
        return there

    def resolve(self, strict: bool = False) -> NotedPath:
        """As of any path; of a link, the last part of what it points to is noted."""
        try:
            target = super().resolve(strict)
        except (OSError, RuntimeError) as error:
            self._failed(error)
            raise
        self._note({"link": target.name})
        return target


class NotedModule:
    """NVML's binding, with its functions noted. Handles are numbered in the order in which they turn up."""

    def __init__(self, module: Any, calls: list[dict[str, Any]]) -> None:
        self.__dict__.update(_module=module, _calls=calls, _handles=[])

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._module, name, value)

    def __getattr__(self, name: str) -> Any:
        try:
            found = getattr(self._module, name)
        except AttributeError:
            self._calls.append({"asked": [name], "error": "AttributeError"})
            raise
        if not name.startswith("nvml") or not callable(found) or isinstance(found, type):
            return found

        def called(*arguments: Any) -> Any:
            asked = [name, *(self._plain(a) for a in arguments)]
            try:
                answer = found(*arguments)
            except AttributeError:
                self._calls.append({"asked": asked, "error": "AttributeError"})
                raise
            except self._module.NVMLError as error:
                self._calls.append({"asked": asked, "error": int(getattr(error, "value", 999))})
                raise
            self._calls.append({"asked": asked, "answer": self._plain(answer)})
            return answer

        return called

    def _plain(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if isinstance(value, tuple | list):
            return [self._plain(entry) for entry in value]
        told = {name: self._plain(getattr(value, name)) for name in ANSWERS if hasattr(value, name)}
        if told:
            return told
        known = [i for i, handle in enumerate(self._handles) if handle is value]
        if not known:
            self._handles.append(value)
        return {"handle": known[0] if known else len(self._handles) - 1}


def recorded(sources: Sources) -> tuple[Sources, Record]:
    """The same sources, taking notes, and the notes."""
    record = Record()
    top = str(sources.root.absolute())
    root = type("RecordedPath", (NotedPath,), {"record": record, "top": top})(top)
    record.values = {
        "system": sources.system,
        "architecture": sources.architecture,
        "platform": sources.platform,
        "windows_build": sources.windows.build,
        "environ": {name: sources.environ[name] for name in VARIABLES if name in sources.environ},
    }

    def noted(name: str, function: Callable[..., Any], *, silent: bool = False) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            asked: list[Any] = [] if silent else [_plain(a) for a in arguments]
            calls = record.calls.setdefault(name, [])
            try:
                answer = function(*arguments)
            except (ImportError, OSError, RuntimeError, ValueError) as error:
                calls.append({"asked": asked, "error": type(error).__name__})
                raise
            calls.append({"asked": asked, "answer": _plain(answer)})
            return answer

        return called

    def binding() -> Any:
        calls = record.calls.setdefault("nvml", [])
        try:
            return NotedModule(sources.binding(), calls)
        except ImportError:
            calls.append({"asked": ["import"], "error": "ImportError"})
            raise

    def open_library(path: str) -> Any:
        calls = record.calls.setdefault("open_library", [])
        shown = path[len(top) :].lstrip("/") if path.startswith(top) else Path(path).name
        try:
            library = sources.open_library(path)
        except OSError as error:
            calls.append({"asked": [shown], "error": type(error).__name__})
            raise
        calls.append({"asked": [shown], "answer": "opened"})
        return library

    windows = replace(
        sources.windows,
        feature_present=noted("windows_feature", sources.windows.feature_present),
        name=noted("windows_name", sources.windows.name),
        cores=noted("windows_cores", sources.windows.cores),
        numpy_features=noted("numpy_features", sources.windows.numpy_features),
    )
    taking_notes = replace(
        sources,
        root=root,
        memory=noted("memory", sources.memory),
        usable_cpus=noted("usable_cpus", sources.usable_cpus),
        binding=binding,
        open_library=open_library,
        sysctl=noted("sysctl", sources.sysctl),
        working_set=noted("working_set", sources.working_set),
        adapters=noted("adapters", sources.adapters),
        display_drivers=noted("display_drivers", sources.display_drivers),
        windows=windows,
        disk_usage=noted("disk_usage", sources.disk_usage, silent=True),
        package_version=noted("package_version", sources.package_version),
        try_provider=noted("try_provider", sources.try_provider),
    )
    return taking_notes, record


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    return dict(value) if hasattr(value, "items") else value
