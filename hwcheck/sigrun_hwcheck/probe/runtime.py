"""ONNX Runtime: which of its packages are installed, and, if asked, which of its providers really load.

That a provider is installed says little: without its libraries ONNX Runtime falls back to the CPU and goes on. So each
is made to run one product of matrices, in a process of its own, for some do not fail but crash. That takes seconds and
wakes cards, and is done on request only.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sigrun.providers import PROVIDERS
from sigrun_hwcheck.machine import ExecutionProvider, Npu, OnnxRuntime

TIMEOUT_SECONDS = 90.0  # virus scanners take their time over CUDA's libraries
CHILD = "sigrun_hwcheck.probe.provider_child"

CORES = (
    "onnxruntime",
    *sorted({p.package for p in PROVIDERS.values() if p.module is None} - {"onnxruntime"}),
)
"""Packages that each bring the module ``onnxruntime``; two of them overwrite each other's files."""

QUOTED = re.compile(r"(['\"])(?:[A-Za-z]:)?[\\/][^'\"\n]*?([^'\"\\/\n]*)\1")
"""A path in quotation marks, which may have blanks in it."""


@dataclass(frozen=True)
class Answer:
    """How the child process ended: its exit code (``None``: it did not within the time), and what it printed."""

    code: int | None
    output: str
    errors: str


def package_version(package: str) -> str | None:
    """The version of an installed Python package; ``None`` if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed(
    version: Callable[[str], str | None] = package_version, system: str = sys.platform
) -> OnnxRuntime:
    """What is installed; nothing is loaded to find out.

    Args:
        version: the version of an installed package, ``None`` if it is not.
        system: what ``sys.platform`` says.
    """
    cores = [package for package in CORES if version(package) is not None]
    plugins = [
        p.package for p in PROVIDERS.values() if p.module is not None and version(p.package) is not None
    ]
    problem = None
    if not cores:
        problem = (
            "ONNX Runtime is not installed (pip install 'sigrun[cpu]', or 'sigrun[gpu]' for NVIDIA cards)"
        )
    elif len(cores) > 1:
        problem = (
            f"{' and '.join(cores)} overwrite each other's files: uninstall all of them, then install one"
        )
    packages = (*cores, *plugins)
    here = [
        ExecutionProvider(p.name, None)
        for p in PROVIDERS.values()
        if (p.package in packages and p.package != "onnxruntime")
        or (p.name == "coreml" and system == "darwin" and cores)
        or (p.name == "cpu" and cores)
    ]
    return OnnxRuntime(version(cores[0]) if cores else None, packages, tuple(here), problem)


def run_child(name: str, timeout: float = TIMEOUT_SECONDS) -> Answer:
    """Try a provider in a process of its own."""
    command = [sys.executable, "-P", "-m", CHILD, name]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Answer(None, "", "")
    return Answer(done.returncode, _text(done.stdout), _text(done.stderr))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def tried(
    found: OnnxRuntime, run: Callable[[str], Answer] = run_child
) -> tuple[OnnxRuntime, tuple[Npu, ...]]:
    """The same with every provider tried, and processors for neural networks that ONNX Runtime sees.

    Args:
        found: what is installed.
        run: tries one provider by its name.
    """
    if getattr(sys, "frozen", False):
        why = "not tried: this program cannot start Python"
        return replace(found, providers=tuple(replace(p, problem=why) for p in found.providers)), ()
    answers = [(p, run(p.name)) for p in found.providers]
    npus: dict[str, Npu] = {}
    results = []
    for provider, answer in answers:
        result, devices = judged(provider, answer)
        results.append(result)
        npus.update((name, Npu(name, None)) for name in devices)
    return replace(found, providers=tuple(results)), tuple(npus.values())


def judged(provider: ExecutionProvider, answer: Answer) -> tuple[ExecutionProvider, Sequence[str]]:
    """What a child's end says of its provider, and the names of the processors for neural networks it saw."""
    if answer.code is None:
        return replace(provider, loads=False, problem="it did not answer in time"), ()
    lines = answer.output.splitlines()
    if answer.code == 0 and lines:
        try:
            said = json.loads(lines[-1])
            why = None if said["problem"] is None else without_paths(said["problem"])[:300]
            return replace(provider, loads=bool(said["loads"]), problem=why), said["npus"]
        except (ValueError, KeyError, TypeError):
            pass
    last = without_paths((answer.errors.strip().splitlines() or [""])[-1])[:200]
    how = f"its process {_death(answer.code)}"
    return replace(provider, loads=False, problem=f"{how}: {last}" if last else how), ()


def without_paths(words: str) -> str:
    """The words with the names of files alone: a path may name its user."""
    home = str(Path.home()) if "HOME" in os.environ or "USERPROFILE" in os.environ else ""
    if len(home) > 1:
        words = words.replace(home, "")
    words = QUOTED.sub(r"\1\2\1", words)
    return re.sub(r"(?:[A-Za-z]:)?[\\/](?:[^\s\\/:'\"]+[\\/])+", "", words)


def _death(code: int) -> str:
    if code < 0:
        try:
            return f"died of {signal.Signals(-code).name}"
        except ValueError:
            return f"died of signal {-code}"
    return f"ended with code {code if code < 1 << 16 else hex(code)}"
