"""Rasterise every drawing once to a small RGBA array and keep them all in one file."""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from examples.emoji_siglip.concepts import Concept, key_of, load_concepts, slug
from examples.emoji_siglip.fetch import DEFAULT_DATA, TRAINING, package_root

SIDE = 72
"""Side of a cached drawing: a little above the 60 px that the model sees, to resample from."""
LOOSELY_NAMED = ("fxemoji", "streamline")
"""Sets whose icon names run words together or count several drawings of one thing."""
UInt8Array = npt.NDArray[np.uint8]


@dataclass
class Drawings:
    """Training drawings: pixels [N, SIDE, SIDE, 4] (straight alpha), concept and vendor of each."""

    pixels: UInt8Array
    concept: npt.NDArray[np.int64]
    vendor: npt.NDArray[np.int64]
    vendors: list[str]


def render_svg(svg: str, side: int) -> Image.Image:
    """An SVG as an RGBA picture of `side` pixels."""
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side)
    picture = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    if picture.size == (side, side):
        return picture
    square = Image.new("RGBA", (side, side))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def icon_svg(icons: dict[str, Any], name: str) -> str | None:
    """The SVG of an icon (or of an alias without a transform) of an iconify set."""
    for _ in range(4):
        alias = icons.get("aliases", {}).get(name)
        if alias is None:
            break
        if set(alias) - {"parent", "hidden"}:
            return None
        name = alias["parent"]
    icon = icons["icons"].get(name)
    if icon is None:
        return None
    width, height = icon.get("width", icons.get("width", 16)), icon.get("height", icons.get("height", 16))
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}" viewBox="{box}">{icon["body"]}</svg>'
    )


def name_table(data: Path, concepts: list[Concept]) -> dict[str, int]:
    """Icon name -> concept, from the sets that state code points and from the names of the concepts."""
    index_of = {concept.key: index for index, concept in enumerate(concepts)}
    table: dict[str, int] = {}
    for source in ("noto", "twemoji-svg", "fluent-flat"):
        chars = json.loads((package_root(data, source) / "chars.json").read_text("utf-8"))
        for code_points, name in chars.items():
            if key_of(code_points) in index_of:
                table.setdefault(name, index_of[key_of(code_points)])
    for main in (True, False):
        for index, concept in enumerate(concepts):
            for name in [concept.caption] if main else concept.names:
                table.setdefault(slug(name), index)
    return table


def icons_of(data: Path, source: str, table: dict[str, int]) -> dict[int, str]:
    """Concept -> SVG for one iconify set."""
    icons = json.loads((package_root(data, source) / "icons.json").read_text("utf-8"))
    squashed = {re.sub(r"[^a-z0-9]", "", name): index for name, index in reversed(table.items())}
    found: dict[int, str] = {}
    for name in [*icons["icons"], *icons.get("aliases", {})]:
        index = table.get(name)
        if index is None and source in LOOSELY_NAMED:
            plain = re.sub(r"-[1-9]$", "", name)
            index = table.get(plain, squashed.get(plain.replace("-", "")))
        svg = icon_svg(icons, name) if index is not None and index not in found else None
        if index is not None and svg is not None:
            found[index] = svg
    return found


def _render(job: tuple[str, int]) -> UInt8Array | None:
    """One drawing as an array, None where nothing is drawn."""
    text, side = job
    if text.startswith("<svg"):
        picture = render_svg(text, side)
    else:
        picture = Image.open(text).convert("RGBA").resize((side, side), Image.Resampling.LANCZOS)
    array = np.asarray(picture, dtype=np.uint8)
    return array if array[..., 3].max() > 0 else None


def build(data: Path, concepts: list[Concept]) -> Drawings:
    """Render all training drawings."""
    table = name_table(data, concepts)
    jobs: list[tuple[int, int, str]] = []
    for number, source in enumerate(TRAINING):
        if source.name == "fluent-3d":
            index_of = {concept.key: index for index, concept in enumerate(concepts)}
            paths = sorted((package_root(data, source.name) / "assets").glob("*.webp"))
            found = {index_of[key_of(p.stem)]: str(p) for p in paths if key_of(p.stem) in index_of}
        else:
            found = icons_of(data, source.name, table)
        print(f"{source.name}: {len(found)} of {len(concepts)} concepts", file=sys.stderr)
        jobs += [(index, number, text) for index, text in sorted(found.items())]
    with ProcessPoolExecutor() as pool:
        arrays = list(pool.map(_render, [(text, SIDE) for _, _, text in jobs], chunksize=32))
    kept = [(job, array) for job, array in zip(jobs, arrays, strict=True) if array is not None]
    print(f"{len(kept)} drawings, {len(jobs) - len(kept)} empty ones left out", file=sys.stderr)
    return Drawings(
        np.stack([array for _, array in kept]),
        np.array([job[0] for job, _ in kept], dtype=np.int64),
        np.array([job[1] for job, _ in kept], dtype=np.int64),
        [source.name for source in TRAINING],
    )


def load(data: Path, concepts: list[Concept]) -> Drawings:
    """The cached drawings, rendered on the first call."""
    path = data / "drawings.npz"
    if not path.is_file():
        drawings = build(data, concepts)
        np.savez(
            path,
            pixels=drawings.pixels,
            concept=drawings.concept,
            vendor=drawings.vendor,
            vendors=np.array(drawings.vendors),
        )
        return drawings
    with np.load(path) as arrays:
        vendors = [str(name) for name in arrays["vendors"]]
        return Drawings(arrays["pixels"], arrays["concept"], arrays["vendor"], vendors)


def over_white(picture: Image.Image) -> Image.Image:
    """An RGBA picture composited over white, as RGB."""
    ground = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(ground, picture.convert("RGBA")).convert("RGB")


def heldout_picture(data: Path, concept: Concept) -> Image.Image:
    """The held-out vendor's 64 px drawing of a concept, over white."""
    path = package_root(data, "twitter") / "img" / "twitter" / "64" / concept.image
    return over_white(Image.open(path))


def main() -> None:
    """Command line: build the cache."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="data folder (default: %(default)s)")
    data = parser.parse_args().data
    load(data, load_concepts(data))


if __name__ == "__main__":
    main()
