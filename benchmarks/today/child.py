"""One tower of one runtime in a process of its own: import, load, one item at a time, a batch. Prints JSON.

Called by ``rounds``. Needs NumPy and the runtime alone, so that it runs in any environment.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.clock import peak_bytes, timed
from benchmarks.today.given import TOWERS, read
from benchmarks.today.runtimes import RUNTIMES, Job, items


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runtime", choices=RUNTIMES)
    parser.add_argument("path", help="the file, or the folder of a checkpoint")
    parser.add_argument("tower", choices=TOWERS)
    parser.add_argument("inputs", type=Path, help="the drawn pictures and texts")
    parser.add_argument("vectors", type=Path, help="where to write the embeddings, one .npy")
    parser.add_argument("--option", default="", help="compute form or type of numbers")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=0, help="items of the batch; 0: none")
    chosen = parser.parse_args()
    job = Job(chosen.runtime, chosen.path, chosen.tower, chosen.option, chosen.threads)
    given = items(job, read(chosen.inputs))
    load = RUNTIMES[job.runtime](job)
    begun = time.perf_counter()
    embed = load()
    loaded = time.perf_counter()
    rows = [embed(given[:1])]
    first = time.perf_counter()
    seconds = []
    for at in range(1, len(given)):
        seconds.append(timed(lambda at=at: rows.append(embed(given[at : at + 1]))))  # type: ignore[misc]
    peak = peak_bytes()
    np.save(chosen.vectors, np.concatenate(rows))
    batch = None
    if chosen.batch:
        whole = np.concatenate([given] * -(-chosen.batch // len(given)))[: chosen.batch]
        batch = timed(lambda: embed(whole))
    found = {
        "load_s": loaded - begun,
        "first_at": first,
        "seconds": seconds,
        "batch_s": batch,
        "peak_bytes": peak,
    }
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
