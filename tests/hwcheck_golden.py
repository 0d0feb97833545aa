"""What hwcheck says of recorded machines, kept so that a change of it is seen.

    python -m tests.hwcheck_golden

writes ``data/machines/golden.json`` and ``data/hwcheck/*.txt`` anew; look at the differences before keeping them.
"""

from __future__ import annotations

import json
import sys
from importlib import resources
from pathlib import Path
from typing import Any

from sigrun_hwcheck import Machine, check, on_cards, predicted, suppose
from sigrun_hwcheck.report import text
from sigrun_hwcheck.report_gpus import text as cards_text

DATA = Path(__file__).parent / "data"
MACHINES = DATA / "machines"
TEXTS = DATA / "hwcheck"
NAMES = sorted(p.stem for p in MACHINES.glob("*.json") if p.stem != "golden")
VARIANTS = ("f32", "q4_k_m")
SHOWN = (
    "laptop_8gb",
    "two_rtx_4090",
    "jetson_orin_nano",
    "container_512mib",
    "docker_v1_1gib",
    "memory_unknown",
)


def machine(name: str) -> Machine:
    """A recorded machine."""
    return Machine.from_json(json.loads((MACHINES / f"{name}.json").read_text("utf-8")))


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema that is shipped for what a command prints."""
    text_of_it = resources.files("sigrun_hwcheck").joinpath(f"{name}.schema.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text_of_it)
    return found


def verdicts(name: str) -> dict[str, Any]:
    """The outcome on a machine, what is advised, and ``device variant tower`` → form and verdicts at 1 and 8."""
    found = check(machine=machine(name), batches=(1, 8))
    return {
        "outcome": found.outcome,
        "judged": list(found.judged),
        "advice": [found.advice.variant, found.advice.tower, found.advice.compute, found.advice.provider],
        "rows": {
            f"{row.place.key} {row.stored.variant} {row.tower}": " / ".join(
                [row.compute, *(one.verdict for one in row.batches)]
            )
            for row in found.rows
            if row.stored.variant in VARIANTS
        },
    }


def texts() -> dict[str, str]:
    """File name → what is printed."""
    found = {name: text(check(machine=machine(name))) for name in SHOWN}
    made_up, supposed = suppose(machine("laptop_8gb"), gpus=["RTX 3060 12GB"])
    found["gpu_rtx_3060"] = text(check(machine=made_up, supposed=supposed))
    found["gpus"] = cards_text(on_cards(predicted()))
    return found


def main() -> int:
    """Write the files."""
    golden = {name: verdicts(name) for name in NAMES}
    (MACHINES / "golden.json").write_text(f"{json.dumps(golden, indent=1)}\n", "utf-8")
    TEXTS.mkdir(exist_ok=True)
    for name, words in texts().items():
        (TEXTS / f"{name}.txt").write_text(words, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
