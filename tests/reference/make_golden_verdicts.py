"""Writes ``tests/data/machines/golden.json``: what hwcheck says of each recorded machine.

    python -m tests.reference.make_golden_verdicts

Run it after a change of the memory model that is meant to change verdicts, and read the difference.
"""

from __future__ import annotations

import json
from pathlib import Path

from sigrun_hwcheck import Machine, check

MACHINES = Path(__file__).parent.parent / "data" / "machines"
VARIANTS = ("f32", "q4_k_m")


def main() -> int:
    """Write the file."""
    found = {}
    for path in sorted(p for p in MACHINES.glob("*.json") if p.stem != "golden"):
        report = check(machine=Machine.from_json(json.loads(path.read_text("utf-8"))))
        rows = {
            f"{row.device.key} {row.stored.variant} {row.tower}": " / ".join(b.verdict for b in row.batches)
            for row in report.rows
            if row.stored.variant in VARIANTS
        }
        found[path.stem] = {"outcome": report.outcome, "rows": rows}
    text = json.dumps({"variants": VARIANTS, "machines": found}, indent=2) + "\n"
    (MACHINES / "golden.json").write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
