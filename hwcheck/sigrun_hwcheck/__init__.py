"""Says, before anything is loaded, which variants of a model fit this machine, or another one.

from sigrun_hwcheck import check
report = check(["model-q4_k_m.gguf"])
report.outcome          # "fits", "tight", "does not fit" or "unknown"
"""

from __future__ import annotations

from sigrun_hwcheck.advice import Advice
from sigrun_hwcheck.api import NoPlaceError, Report, check, predicted
from sigrun_hwcheck.cards import CardModel, CardNameError, cards
from sigrun_hwcheck.gpus import CardReport, on_cards
from sigrun_hwcheck.machine import Machine, MachineFileError
from sigrun_hwcheck.memory import Need, Term, TowerChoice, need
from sigrun_hwcheck.probe import read_machine
from sigrun_hwcheck.rows import Row
from sigrun_hwcheck.stored import Stored, StoredFileError, from_file
from sigrun_hwcheck.verdict import Verdict
from sigrun_hwcheck.whatif import Supposed, WhatIfError, suppose

__all__ = [
    "Advice",
    "CardModel",
    "CardNameError",
    "CardReport",
    "Machine",
    "MachineFileError",
    "Need",
    "NoPlaceError",
    "Report",
    "Row",
    "Stored",
    "StoredFileError",
    "Supposed",
    "Term",
    "TowerChoice",
    "Verdict",
    "WhatIfError",
    "cards",
    "check",
    "from_file",
    "need",
    "on_cards",
    "predicted",
    "read_machine",
    "suppose",
]
