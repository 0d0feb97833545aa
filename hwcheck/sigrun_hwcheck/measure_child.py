"""One tower in one compute form in a process of its own: loads it, runs it, prints what that took as JSON.

Started by :mod:`sigrun_hwcheck.measure` as ``python -m sigrun_hwcheck.measure_child ARTIFACT TOWER FORM --batch N``.
Nothing else happens in this process, so its peak is the model's. stdout is one JSON object:

``base_bytes``         resident before the file is opened: the interpreter and its libraries
``load_peak_bytes``    highest resident memory until the tower stood
``loaded_bytes``       resident once it stood
``run_peak_bytes``     highest while it ran; where ``apart`` is false, the highest of the whole process
``mapped_bytes``       pages of files among it beyond the libraries', which the system can take back (null: not told)
``device_bytes``       on a card: what this process holds there at the end (null: not told)
``load_s``, ``item_s`` seconds to load; the fastest seen per item at this batch
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Literal

import numpy as np

from sigrun import Siglip
from sigrun.onnx_runtime import onnxruntime
from sigrun_hwcheck.peaks import card_bytes, forget_peak, mapped_bytes, peak_bytes, resident_bytes

FAILED = 3
"""Exit code where the runtime refuses: its message is on stderr, one line."""


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    arguments = _parser().parse_args(argv)
    tower: Literal["image", "text"] = arguments.tower
    try:
        onnxruntime()
        base, files, card = resident_bytes(), mapped_bytes(), card_bytes(arguments.card)
        start = time.perf_counter()
        model = Siglip.load(
            arguments.artifact,
            compute=arguments.form,
            provider=arguments.provider,
            towers=tower,
            threads=arguments.threads,
        )
        load_s = time.perf_counter() - start
        load_peak, loaded = peak_bytes(), resident_bytes()
        apart = forget_peak()
        picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
        seconds = []
        # Twice at least: ONNX Runtime takes some of its buffers only at the second run.
        for _ in range(max(2, arguments.repeat)):
            start = time.perf_counter()
            if tower == "image":
                model.embed_images([picture] * arguments.batch)
            else:
                model.embed_texts([f"a photo of {number} cats" for number in range(arguments.batch)])
            seconds.append((time.perf_counter() - start) / arguments.batch)
    except (
        Exception
    ) as error:  # whatever it is, the parent tells it; there is nobody here to read a traceback
        sys.stderr.write(f"{type(error).__name__}: {' '.join(str(error).split())}\n")
        return FAILED
    files_now, card_now = mapped_bytes(), card_bytes(arguments.card)
    seen = {
        "base_bytes": base,
        "load_peak_bytes": load_peak,
        "loaded_bytes": loaded,
        "run_peak_bytes": peak_bytes(),
        "apart": apart,
        "mapped_bytes": None if files is None or files_now is None else max(0, files_now - files),
        "device_bytes": None if card is None or card_now is None else max(0, card_now - card),
        "load_s": load_s,
        "item_s": min(seconds),
        "threads": model.info.threads,
    }
    sys.stdout.write(json.dumps(seen) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact")
    parser.add_argument("tower", choices=["image", "text"])
    parser.add_argument("form")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--card", help="the card to ask NVML about, 0.1 for a slice of one")
    return parser


if __name__ == "__main__":
    sys.exit(main())
