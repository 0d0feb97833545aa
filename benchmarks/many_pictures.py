"""A thousand photographs of two megapixels from files to embeddings, by the bundled model.

The photographs are JPEG files made by code, forty different ones taken again and again. Each way of embedding them has
a process of its own.

    python -m benchmarks.many_pictures
    python -m benchmarks.many_pictures --count 100
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from benchmarks.children import MIB, python
from benchmarks.clock import peak_bytes, timed
from benchmarks.exports import WORK, convert, need_room, say
from benchmarks.markdown import table
from sigrun import Siglip, pipeline
from sigrun.artifact import Artifact
from sigrun.pictures import open_picture
from sigrun.pixels import to_pixels

EMOJI = Path(__file__).parent.parent / "examples" / "emoji_siglip" / "emoji-siglip-patch10-60"
DIFFERENT = 40
SIZE = (1632, 1224)  # two megapixels
ROOM = 200_000_000
WAYS = {
    "decode": "reading, decoding and resizing alone, one thread",
    "compute": "embedding alone, pictures of the model's size in memory",
    "in turn": "both, one after the other",
    "exact": 'both side by side, `decode="exact"` (the default)',
    "fast": 'both side by side, `decode="fast"`',
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print Markdown; with ``--way`` measure one, in this process, and print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--compute", default="int8")
    parser.add_argument("--way", choices=WAYS, help="only this one; needs --artifact and --folder")
    parser.add_argument("--artifact", type=Path)
    parser.add_argument("--folder", type=Path, help="photographs")
    chosen = parser.parse_args(arguments)
    if chosen.way is not None:
        seconds = run(chosen.way, chosen.artifact, chosen.folder, chosen.count, chosen.compute)
        print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes()}))
        return 0
    need_room(ROOM)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        photos = Path(folder) / "photos"
        nbytes = make_photos(photos, DIFFERENT)
        path = chosen.artifact or convert(EMOJI, "q4_k_m", Path(folder), "--no-verify").path
        found = {way: _child(way, path, photos, chosen.count, chosen.compute) for way in WAYS}
    print(markdown(found, chosen.count, nbytes / DIFFERENT, chosen.compute))
    return 0


def make_photos(folder: Path, count: int) -> int:
    """Write JPEG files that are as hard to decode as photographs: cloudy at every scale, with some grain.

    Returns:
        Bytes of all of them.
    """
    folder.mkdir()
    say(f"making {count} photographs")
    rng = np.random.default_rng(0)
    width, height = SIZE
    for number in range(count):
        cloudy = np.zeros((height, width, 3), np.float32)
        for side in (3, 9, 27, 81, 243):
            octave = rng.uniform(-1, 1, (side, side, 3)).astype(np.float32) * np.float32(60 * side**-0.3)
            channels = [
                np.asarray(Image.fromarray(octave[..., c]).resize(SIZE, Image.Resampling.BICUBIC))
                for c in range(3)
            ]
            cloudy += np.stack(channels, axis=-1)
        grain = rng.normal(0, 3, (height, width, 1)).astype(np.float32)
        pixels = np.clip(cloudy + grain + 128, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04}.jpg", quality=90)
    return sum(path.stat().st_size for path in folder.iterdir())


def run(way: str, artifact: Path, folder: Path, count: int, compute: str) -> float:
    """Seconds that ``count`` photographs take one way, the model loaded and warm."""
    files = sorted(folder.iterdir())
    paths = [files[i % len(files)] for i in range(count)]
    with Artifact.open(artifact) as opened:
        preprocessing = opened.manifest.preprocessing
    if way == "decode":
        return timed(lambda: [to_pixels(open_picture(path), preprocessing) for path in paths])
    size = (preprocessing.width, preprocessing.height)
    small = [open_picture(path).resize(size) for path in files]
    decode: Any = "fast" if way == "fast" else "exact"
    with Siglip.load(artifact, compute=compute, towers="image", decode=decode) as model:
        model.embed_images(small)
        if way == "compute":
            return timed(lambda: model.embed_images([small[i % len(small)] for i in range(count)]))
        if way == "in turn":
            with mock.patch.object(pipeline, "decoders", lambda cpus: 0):
                return timed(lambda: model.embed_images(paths))
        return timed(lambda: model.embed_images(paths))


def _child(way: str, artifact: Path, folder: Path, count: int, compute: str) -> Mapping[str, float]:
    say(f"{count} photographs: {way}")
    options = ("--artifact", str(artifact), "--folder", str(folder), "--count", str(count))
    done = python("-m", "benchmarks.many_pictures", "--way", way, *options, "--compute", compute)
    found: dict[str, float] = json.loads(done.output.splitlines()[-1])
    return found


def markdown(found: Mapping[str, Mapping[str, float]], count: int, nbytes: float, compute: str) -> str:
    """The table."""
    width, height = SIZE
    return "\n\n".join(
        [
            f"{count:,} JPEG files of {width} × {height} pixels, {nbytes / 1000:,.0f} kB on average, form {compute}.",
            table(
                ["", "seconds", "pictures per second", "peak memory"],
                [
                    [
                        WAYS[way],
                        f"{seen['seconds']:.1f}",
                        f"{count / seen['seconds']:.1f}",
                        f"{seen['peak_bytes'] / MIB:,.0f} MiB",
                    ]
                    for way, seen in found.items()
                ],
            ),
            "The model is small, so nearly all of the time is decoding, which has threads of its own beside the "
            "computing: one for each CPU, at most four. `fast` lets the JPEG decoder give smaller pictures. The files "
            "are in the page cache.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
