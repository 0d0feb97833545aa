"""NVIDIA's library compiled from C, found by the system's loader, and read by a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

GIB = 1 << 30
STUB = r"""
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory_t;
int nvmlInitWithFlags(unsigned flags) { return INIT; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) { *handle = (void *)&nvmlShutdown; return 0; }
int nvmlDeviceGetName(void *handle, char *name, unsigned length) { strncpy(name, NAME, length); return 0; }
int nvmlDeviceGetMemoryInfo(void *handle, memory_t *m) {
    m->total = 8ull << 30; m->free = 7ull << 30; m->used = 1ull << 30; return MEMORY;
}
"""


def through_c(folder: Path, **defines: str) -> Any:
    """What a process says of a machine whose NVIDIA library is compiled from the stub; it lacks newer functions."""
    compiler = shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs gcc on Linux")
    source = folder / "stub.c"
    source.write_text(STUB)
    values = {"INIT": "0", "MEMORY": "0", "NAME": '"NVIDIA GeForce GTX 1070"'} | defines
    flags = [f"-D{name}={value}" for name, value in values.items()]
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", *flags, "-o", str(library), str(source)], check=True)
    code = (
        "import json, dataclasses; from pathlib import Path; from sigrun_hwcheck.probe import nvidia;"
        f"print(json.dumps(dataclasses.asdict(nvidia.read(root=Path({str(folder)!r})))))"
    )
    environ = os.environ | {"LD_LIBRARY_PATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_a_compiled_library_of_an_old_driver(tmp_path: Path) -> None:
    found = through_c(tmp_path)
    assert found["state"] == "ok"
    card = found["cards"][0]
    assert (card["name"], card["free_bytes"], card["problem"]) == ("NVIDIA GeForce GTX 1070", 7 * GIB, None)


@pytest.mark.parametrize(
    ("code", "state"), [(9, "no_driver"), (18, "version_mismatch"), (4, "no_permission")]
)
def test_a_compiled_library_that_does_not_start(code: int, state: str, tmp_path: Path) -> None:
    assert through_c(tmp_path, INIT=str(code))["state"] == state


def test_a_compiled_library_on_a_jetson(tmp_path: Path) -> None:
    card = through_c(tmp_path, MEMORY="3", NAME='"Orin (nvgpu)"')["cards"][0]
    assert (card["memory"], card["free_bytes"], card["problem"]) == ("unified", None, None)
