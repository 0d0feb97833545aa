"""The example hosts, run on pictures and labels of every kind, and what they answer beside the Python runtime."""

from __future__ import annotations

import atexit
import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from sigrun import Siglip
from sigrun_recipes import load
from tests import browser as driver
from tests.bundles import exported
from tests.checkpoints import EMOJI, ROOT
from tests.picture_files import stored
from tests.picture_kinds import png16, turned
from tests.test_colour import swapped_profile

HOSTS = ROOT / "examples" / "hosts"
DEMO = ROOT / "examples" / "emoji_siglip" / "heldout" / "demo"
COMMAND_SECONDS = 120
SIDE = 60  # pixels of the bundled model's pictures

LABELS = (
    "red apple",
    "owl",
    "A Fire Engine!",
    "fire_engine, 'red' & <b>loud</b>?",
    "Ünïcode café, naïve coöperation",
    "emoji 🦊 fox",
    "日本語のラベル",
    "ΣΑΣ ΛΟΓΟΣ",
    "ﬁne ½ of H₂O²",
    "  two   spaces,\ta tab ",
    "no\u00a0break\u3000wide\u2003em",
    "İstanbul straße ǅ",
    "</s> and <pad> are words",
    "▁marked▁",
    "x" * 7,
    "a very long label " * 30,
)
"""Odd letters, marks and lengths; some of them no piece of the model's tokenizer."""

Scores = dict[str, dict[str, tuple[float, float]]]
"""Name of a picture → label → probability and logit."""


@dataclass(frozen=True)
class Files:
    """One model in every layout that a host takes, and its labels."""

    gguf: Path
    bundle: Path
    hub: Path
    labels: Path


@contextlib.contextmanager
def files(folder: Path) -> Iterator[Files]:
    """The bundled model as Q4_K_M."""
    with exported(EMOJI, load("q4_k_m"), folder / "gguf") as export:
        labels = folder / "all.labels.safetensors"
        with Siglip.load(export.gguf, compute="exact") as model:
            model.label_set(LABELS).save(labels)
        yield Files(export.gguf, export.bundle(folder / "m.onnx"), export.hub(folder / "m.hub"), labels)


# ---- pictures ----


def drawing(name: str = "owl", size: tuple[int, int] = (240, 240)) -> Image.Image:
    with Image.open(DEMO / f"{name}.png") as opened:
        return opened.convert("RGB").resize(size)


def faded() -> Image.Image:
    """Transparent at the left, opaque at the right, with noise in both."""
    picture = drawing().convert("RGBA")
    noise = np.random.default_rng(0).integers(-40, 40, (240, 240))
    alpha = np.clip(np.linspace(0, 255, 240)[None, :] + noise, 0, 255)
    picture.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    return picture


def rotated(orientation: int) -> bytes:
    """A JPEG that says which way is up."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return stored("JPEG", drawing("red-apple", (200, 150)), quality=90, exif=exif)


def clear_colour() -> bytes:
    quantized = drawing().quantize(32)
    return stored("PNG", quantized, transparency=int(np.asarray(quantized)[0, 0]))


def deep(kind: int) -> bytes:
    """A PNG of 16 bits a channel, of values between those of 8 bits."""
    values = np.asarray(drawing().convert("RGBA") if kind == 6 else drawing()).astype(np.uint16) * 257
    if kind == 0:
        values = values[:, :, 0]
    noise = np.random.default_rng(1).integers(0, 200, values.shape, np.uint16)
    return png16(kind, np.where(values > 300, values - noise, values))


KINDS: Mapping[str, Callable[[], bytes]] = {
    **{f"{name}.png": (DEMO / f"{name}.png").read_bytes for name in ("owl", "red-apple", "fire-engine")},
    "alpha.png": lambda: stored("PNG", faded()),
    "grey.png": lambda: stored("PNG", drawing().convert("L")),
    "grey-alpha.png": lambda: stored("PNG", faded().convert("LA")),
    "palette.png": lambda: stored("PNG", drawing().quantize(32)),
    "clear-colour.png": clear_colour,
    "one-bit.png": lambda: stored("PNG", drawing().convert("1")),
    "16-bit-grey.png": lambda: deep(0),
    "16-bit-rgb.png": lambda: deep(2),
    "16-bit-rgba.png": lambda: deep(6),
    "small.png": lambda: stored("PNG", drawing(size=(7, 5))),
    "profile.png": lambda: stored("PNG", drawing(), icc_profile=swapped_profile()),
    "tall.png": lambda: stored("PNG", drawing(size=(120, 900))),
    "wide.png": lambda: stored("PNG", drawing(size=(900, 120))),
    "turned.png": lambda: turned(6),
    "photo.jpg": lambda: stored("JPEG", drawing(size=(331, 257)), quality=80),
    "progressive.jpg": lambda: stored("JPEG", drawing(size=(331, 257)), quality=60, progressive=True),
    "grey.jpg": lambda: stored("JPEG", drawing().convert("L"), quality=85),
    **{f"orientation-{i}.jpg": partial(rotated, i) for i in range(1, 9)},
}


def pictures(folder: Path) -> list[Path]:
    """Every kind, as a file."""
    folder.mkdir()
    for name, make in KINDS.items():
        (folder / name).write_bytes(make())
    return [folder / name for name in KINDS]


# ---- who answers ----


def python_scores(model: Path, paths: Sequence[Path], labels: Sequence[str] = LABELS) -> Scores:
    """The runtime's own answers."""
    with Siglip.load(model, compute="exact") as opened:
        label_set = opened.label_set(labels)
        return {
            path.name: {s.label: (s.probability, s.logit) for s in opened.classify(path, label_set)}
            for path in paths
        }


def parsed(lines: str) -> Scores:
    """What a host prints: a line of JSON for each picture. transformers.js gives no logit."""
    found: Scores = {}
    for line in lines.splitlines():
        record = json.loads(line)
        ranked = [s["probability"] for s in record["scores"]]
        assert ranked == sorted(ranked, reverse=True), line
        found[Path(record["picture"]).name] = {
            s["label"]: (s["probability"], s.get("logit", float("nan"))) for s in record["scores"]
        }
    return found


def run(*command: str | Path) -> str:
    """What a host prints; a failure shows what it said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def label_options(labels: Sequence[str]) -> list[str]:
    return [f"--label={label}" for label in labels]


def node_scores(model: Files, paths: Sequence[Path], labels: Sequence[str] | None = LABELS) -> Scores:
    """Without labels those of the label set."""
    named = [f"--label-set={model.labels}"] if labels is None else label_options(labels)
    return parsed(run("node", HOSTS / "node" / "classify.mjs", model.bundle, *paths, *named))


def transformers_js_scores(model: Files, paths: Sequence[Path], labels: Sequence[str] = LABELS) -> Scores:
    script = HOSTS / "transformers-js" / "classify.mjs"
    return parsed(run("node", script, model.hub, *paths, *label_options(labels)))


@cache
def cpp_program() -> Path:
    """The C++ program, built once against the library that Python's ONNX Runtime brings."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    library = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    options = [f"-DONNXRUNTIME={library}", "-DCMAKE_CXX_FLAGS=-Werror"]
    run("cmake", "-S", HOSTS / "cpp", "-B", folder.name, *options)
    run("cmake", "--build", folder.name)
    return Path(folder.name) / "classify"


def cpp_scores(model: Files, paths: Sequence[Path], labels: Path | None = None) -> Scores:
    return parsed(run(cpp_program(), model.bundle, labels or model.labels, *paths))


@contextlib.contextmanager
def page_server(model: Path) -> Iterator[str]:
    """The address of the page."""
    command = ["node", str(HOSTS / "browser" / "serve.mjs"), str(model), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def page_scores(page: driver.Page, paths: Sequence[Path], labels: Sequence[str] = LABELS) -> Scores:
    """Choose pictures, type labels, press the button, read the bars. The page strips labels; here they come back."""
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    chooser = page.call("DOM.querySelector", nodeId=root, selector="#pictures")["nodeId"]
    page.call("DOM.setFileInputFiles", nodeId=chooser, files=[str(path) for path in paths])
    page.run(f"document.getElementById('labels').value = {json.dumps(chr(10).join(labels))}")
    page.run("document.getElementById('classify').click()")
    page.wait("document.getElementById('status').textContent !== 'computing …'", COMMAND_SECONDS)
    found = parsed(
        page.run("""[...document.querySelectorAll('article')].map(shown => JSON.stringify({
            picture: shown.querySelector('img').alt,
            scores: [...shown.querySelectorAll('li')].map(({ dataset }) => (
                { label: dataset.label, probability: +dataset.probability, logit: +dataset.logit })),
        })).join('\\n')""")
    )
    back = {label.strip(): label for label in labels}
    return {name: {back[label]: both for label, both in scores.items()} for name, scores in found.items()}


@contextlib.contextmanager
def opened_page(model: Path, profile: Path, threads: int) -> Iterator[driver.Page]:
    """The page in a headless Chromium, once its model is loaded."""
    program = driver.found()
    assert program is not None
    with page_server(model) as url, driver.browser(program, profile) as chromium:
        page = chromium.page()
        page.open(f"{url}?threads={threads}")
        page.wait("document.getElementById('status').textContent !== 'loading …'", COMMAND_SECONDS)
        yield page


# ---- what is missing here ----


def no_node(*packages: str) -> str | None:
    """Why Node's hosts cannot run here, if so."""
    if shutil.which("node") is None:
        return "there is no node on this machine"
    missing = [name for name in packages if not (HOSTS / "node_modules" / name).is_dir()]
    return f"npm ci in examples/hosts would install {missing[0]}" if missing else None


def no_cpp() -> str | None:
    """Why the C++ host cannot be built here, if so."""
    missing = [name for name in ("cmake", "c++") if shutil.which(name) is None]
    if missing:
        return f"there is no {missing[0]} on this machine"
    if not list((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")):
        return "this ONNX Runtime has no shared library of its own"
    headers = {"png.h": "libpng-dev", "jpeglib.h": "libjpeg-dev", "nlohmann/json.hpp": "nlohmann-json3-dev"}
    for header, package in headers.items():
        if not any((Path(place) / header).exists() for place in ("/usr/include", "/usr/local/include")):
            return f"there is no {header} on this machine: install {package}"
    return None
