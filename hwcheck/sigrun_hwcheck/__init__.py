"""Says, before anything is loaded, which variants of a model fit this machine.

from sigrun_hwcheck import check
report = check(["model-q4_k_m.gguf"])
report.outcome          # "fits", "tight", "does not fit" or "unknown"
"""

from __future__ import annotations

from sigrun_hwcheck.api import Report, check
from sigrun_hwcheck.machine import Machine, MachineFileError
from sigrun_hwcheck.memory import Need, Term, TowerChoice, need
from sigrun_hwcheck.probe import read_machine
from sigrun_hwcheck.rows import Row
from sigrun_hwcheck.stored import Stored, StoredFileError
from sigrun_hwcheck.verdict import Verdict

__all__ = [
    "Machine",
    "MachineFileError",
    "Need",
    "Report",
    "Row",
    "Stored",
    "StoredFileError",
    "Term",
    "TowerChoice",
    "Verdict",
    "check",
    "need",
    "read_machine",
]
