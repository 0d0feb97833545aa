"""Memory, handles and threads stay level over thousands of embeddings, loads, unloads and bad pictures.

Each measurement runs in a process of its own, on one thread of ONNX Runtime. Live Python objects are counted exactly;
memory that is no file's is read from ``/proc``, where noise of the allocators is far below what is looked for.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from sigrun import Siglip
from sigrun_exporters.checkpoint import open_checkpoint
from sigrun_exporters.export import export
from sigrun_recipes import Architecture
from tests import checkpoints
from tests.conftest import UNVERIFIED, roomy

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc")

PRELUDE = """
import gc, json, os, sys, warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from sigrun import PictureError, Siglip
path, form = sys.argv[1:3]
grey = np.full((40, 50, 3), 99, np.uint8)

def state():
    gc.collect()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "bytes": 1024 * int(status["RssAnon"].split()[0]),
        "file": 1024 * int(status["RssFile"].split()[0]),
        "blocks": sys.getallocatedblocks(),
        "files": len(os.listdir("/proc/self/fd")),
        "maps": Path("/proc/self/maps").read_text().count(os.path.basename(path)),
        "threads": len(os.listdir("/proc/self/task")),
    }

def load(**options):
    return Siglip.load(path, compute=form, threads=1, provider="cpu", cache=None, **options)

def repeat(action, warm, times):
    for _ in range(warm):
        action()
    before = state()
    for _ in range(times):
        action()
    print(json.dumps([before, state()]))
"""


def measure(code: str, path: Path, form: str = "int8") -> list[dict[str, int]]:
    """What the child printed: the states that it measured."""
    environment = {**os.environ, "SIGRUN_CACHE": "off", "MALLOC_ARENA_MAX": "2"}
    command = [sys.executable, "-W", "error", "-c", PRELUDE + code, str(path), form]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, int]] = json.loads(done.stdout)
    return found


def growth(code: str, path: Path, form: str = "int8") -> dict[str, int]:
    """How much each figure grew."""
    before, after = measure(code, path, form)
    return {name: after[name] - before[name] for name in before}


EMBED = """
model = load()
def action():
    model.embed_images([grey])
    model.embed_texts(["a red apple"])
repeat(action, 400, 5000)
"""


@pytest.mark.parametrize("form", ["exact", "int8"])
def test_ten_thousand_embeddings_leave_nothing(tiny_q4: Path, form: str) -> None:
    """A vector kept of each would be 3.8 MB and 10,000 objects."""
    grown = growth(EMBED, tiny_q4, form)
    assert grown["bytes"] < 1_500_000
    assert grown["blocks"] < 1000
    assert (grown["files"], grown["threads"]) == (0, 0)


def test_such_a_leak_would_be_seen(tiny_q4: Path) -> None:
    """The measurement itself, by the same bounds: of a model whose 8,000 vectors are all kept."""
    leaking = EMBED.replace(
        "    model.embed_images([grey])", "    kept.append(model.embed_images([grey]).vectors)"
    )
    leaking = leaking.replace("    model.embed_texts", "    kept.append(model.embed_texts").replace(
        '"])\nrep', '"]).vectors)\nrep'
    )
    grown = growth("kept = []\n" + leaking.replace("5000", "4000"), tiny_q4)
    assert grown["blocks"] > 1000
    assert grown["bytes"] > 1_500_000


LOAD = """
def action():
    with load() as model:
        model.embed_images([grey])
        model.embed_texts(["a red apple"])
repeat(action, 20, 200)
"""

UNLOAD = """
model = load()
def action():
    model.embed_images([grey])
    model.embed_texts(["a red apple"])
    model.unload("image")
    model.unload("text")
repeat(action, 20, 200)
"""


@pytest.mark.parametrize(("cycle", "form"), [(LOAD, "int8"), (UNLOAD, "exact")])
def test_loading_and_letting_go_leaves_nothing(tiny_q4: Path, cycle: str, form: str) -> None:
    """Two hundred times; one float32 matrix of the model kept of each would be 7 MB, one file or mapping 200."""
    grown = growth(cycle, tiny_q4, form)
    assert grown["bytes"] < 4_000_000
    assert grown["blocks"] < 2000
    assert (grown["files"], grown["maps"], grown["threads"]) == (0, 0, 0)


def test_bad_pictures_leave_nothing(tiny_q4: Path) -> None:
    grown = growth(
        """
from tests.picture_files import png, stored
jpeg = stored("JPEG")
folder = Path(path).parent
(folder / "cut.jpg").write_bytes(jpeg[:300])
bad = [b"", b"no picture", jpeg[:300], png(20_000, 20_000), folder / "none.png", folder / "cut.jpg",
       grey.astype(float), "data:image/png;base64,AAAA", jpeg]
model = load()
def action():
    found = model.embed_images(bad)
    assert len(found.errors) == len(bad) - 1
    try:
        model.classify(bad[2], labels)
    except PictureError:
        pass
labels = model.label_set(["owl", "apple"])
repeat(action, 30, 300)
""",
        tiny_q4,
    )
    assert grown["bytes"] < 1_500_000
    assert grown["blocks"] < 1000
    assert (grown["files"], grown["threads"]) == (0, 0)


@pytest.fixture(scope="module")
def wide_f16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose image tower is large enough to be told from noise: 21 million weights."""
    folder = tmp_path_factory.mktemp("wide")
    image = dataclasses.replace(checkpoints.SMALL_IMAGE, width=768, heads=8, mlp=3072)
    text = dataclasses.replace(
        checkpoints.SMALL_TEXT, vocabulary=checkpoints.EMOJI_VOCABULARY, projection=768
    )
    source = open_checkpoint(str(checkpoints.write(folder / "wide", Architecture(image, text))))
    return export(source, roomy("f16"), folder, UNVERIFIED).path


UNLOADED = """
model = load()
states = [state()]
for _ in range(3):
    model.embed_images([grey])
    states.append(state())
    model.unload("image")
    states.append(state())
print(json.dumps(states))
"""


@pytest.mark.parametrize("form", ["exact", "int8"])
def test_unload_gives_the_memory_back_to_the_system(wide_f16: Path, form: str) -> None:
    """All but what ONNX Runtime and the C library hold once and for all, far less than a tower, and always the same."""
    with Siglip.load(wide_f16) as model:
        weights = sum(t.size for t in model._artifact.tensors.values() if t.tower == "image")
    size = weights * (4 if form == "exact" else 1)
    empty, *turns = measure(UNLOADED, wide_f16, form)
    loaded, unloaded = turns[::2], turns[1::2]
    for full, again in zip(loaded, unloaded, strict=True):
        assert full["bytes"] - empty["bytes"] > 0.7 * size
        assert again["bytes"] - empty["bytes"] < 16 << 20
        assert again["threads"] == empty["threads"]
    assert unloaded[-1]["bytes"] - unloaded[0]["bytes"] < 4 << 20


def test_a_tower_is_held_once(wide_f16: Path) -> None:
    """Form exact of float16 weights: ONNX Runtime's layout in float32, and no second copy of what it was made from."""
    with Siglip.load(wide_f16) as model:
        weights = sum(t.size for t in model._artifact.tensors.values() if t.tower == "image")
    empty, loaded, *_ = measure(UNLOADED, wide_f16, "exact")
    assert loaded["bytes"] - empty["bytes"] < 1.75 * 4 * weights


def mappings(pid: int, name: str) -> dict[str, int]:
    """Bytes of a process's mappings of a file, by kind of page."""
    found: dict[str, int] = {}
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(name)
        elif inside and line.endswith(" kB"):
            kind, number, _ = line.split()
            found[kind[:-1]] = found.get(kind[:-1], 0) + 1024 * int(number)
    return found


@pytest.mark.parametrize("form", ["exact", "int8"])
def test_two_processes_share_the_file_and_keep_little_of_it(wide_f16: Path, form: str) -> None:
    """No process has a page of the file to itself, nor a copy of one; what is unpacked is given back."""
    code = PRELUDE + (
        "with load(towers='both') as model:\n"
        "    model.embed_images([grey]); model.embed_texts(['a red apple'])\n"
        "    print('ready', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(wide_f16), form]
    with ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            for _ in range(2)
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
        for child in children:
            pages = mappings(child.pid, wide_f16.name)
            assert pages["Private_Clean"] == pages["Private_Dirty"] == pages["Anonymous"] == 0
            assert (
                0
                < pages["Rss"]
                == pages["Shared_Clean"] + pages["Shared_Dirty"]
                < wide_f16.stat().st_size / 20
            )
