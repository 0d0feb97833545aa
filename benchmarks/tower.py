"""One tower in a process of its own: load, first item, then repeats and batches. Prints JSON; called by ``true_size``.

python -m benchmarks.tower model.gguf image --repeat 5 --batches 1,2,4,8
"""

from __future__ import annotations

import time

START = time.perf_counter()

import argparse  # noqa: E402  (the clock starts before the imports it measures)
import json  # noqa: E402
import statistics  # noqa: E402
from functools import partial  # noqa: E402

import numpy as np  # noqa: E402

from benchmarks.clock import peak_bytes, timed  # noqa: E402
from sigrun import Siglip  # noqa: E402

TURNS = 3


def _sizes(value: str) -> tuple[int, ...]:
    return tuple(int(size) for size in value.split(","))


def main() -> int:
    """Measure and print."""
    imported = time.perf_counter()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifact")
    parser.add_argument("tower", choices=["image", "text"])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--compute", default="exact")
    parser.add_argument("--batches", type=_sizes, default=(), help="sizes of batches, separated by commas")
    arguments = parser.parse_args()
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    load = time.perf_counter()
    model = Siglip.load(arguments.artifact, compute=arguments.compute, towers=arguments.tower)
    loaded = time.perf_counter()

    def embed(batch: int = 1) -> object:
        if arguments.tower == "image":
            return model.embed_images([picture] * batch)
        return model.embed_texts(["red car at night"] * batch)

    first = timed(embed)
    # The clock starts when Python does its first line; its own start is some 20 ms before that.
    from_start = time.perf_counter() - START
    repeats = [timed(embed) for _ in range(arguments.repeat)]
    peak = peak_bytes()
    # Sizes take turns, so that a machine that grows slower does so for all of them.
    turns = [[timed(partial(embed, size)) / size for size in arguments.batches] for _ in range(TURNS)]
    result = {
        "import_s": imported - START,
        "load_s": loaded - load,
        "first_s": first,
        "from_start_s": from_start,
        "median_s": statistics.median(repeats),
        "threads": model.info.threads,
        "peak_bytes": peak,
        "batch_item_s": [statistics.median(times) for times in zip(*turns, strict=True)],
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
