"""Holds what was measured against a recipe's gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sigrun.manifest import TowerName
from sigrun.scores import Scoring
from sigrun.verification import Agreement, Cosines
from sigrun_exporters.graph import Form
from sigrun_exporters.verify.measure import cosines, scores
from sigrun_recipes import Gate

Floats = NDArray[np.float32]
FEW = 8
"""Top-1 agreement over fewer pictures or texts than this is recorded, but says too little to fail a form."""
MORE: Mapping[Form, Gate] = {
    "exact": Gate(0.0, 0.0, 0.0),
    "int8": Gate(0.005, 0.005, 0.1),
    "f16": Gate(0.0005, 0.001, 0.05),
    "w4f16": Gate(0.0005, 0.001, 0.05),
}
"""How far a form may miss the recipe's gate, which is made for form exact: it rounds once more."""


@dataclass
class Measured:
    """What is known of one tower.

    Attributes:
        expected: the checkpoint's embeddings of the whole set, float32 [n, width].
        forms: compute form → numbers of the items it was measured on, and their embeddings.
    """

    expected: Floats
    forms: dict[Form, tuple[list[int], Floats]] = field(default_factory=dict)


def judge(
    form: Form,
    towers: Mapping[TowerName, Measured],
    scoring: Scoring | None,
    gate: Gate,
    fitted: Scoring | None = None,
) -> Agreement:
    """One form's record: its figures, and what they miss.

    Args:
        form: the compute form.
        towers: what was measured, by tower.
        scoring: the checkpoint's constants; none without both towers.
        gate: what form exact must reach.
        fitted: the variant's constants, where they differ.
    """
    parts = {name: tower.forms[form] for name, tower in towers.items()}
    counts = {name: len(items) for name, (items, _) in parts.items()}
    whole = all(np.isfinite(found).all() for _, found in parts.values())
    if not whole:
        problem = "gives values that are no numbers"
        return Agreement(counts.get("image", 0), counts.get("text", 0), {}, None, (problem,))
    against = {name: towers[name].expected[items] for name, (items, _) in parts.items()}
    cosine: dict[str, Cosines] = {name: cosines(against[name], found) for name, (_, found) in parts.items()}
    score = None
    if scoring is not None and len(parts) == 2:
        score = scores(
            (against["image"], against["text"]),
            (parts["image"][1], parts["text"][1]),
            scoring,
            fitted or scoring,
        )
    more = MORE[form]
    problems = [
        f"worst {name} cosine {c.worst:.5f} is less than {gate.cosine - more.cosine:g}"
        for name, c in cosine.items()
        if c.worst < gate.cosine - more.cosine
    ]
    if score is not None:
        if score.probability_error > gate.score_error + more.score_error:
            problems.append(
                f"mean probability error {score.probability_error:.5f} is more than "
                f"{gate.score_error + more.score_error:g}"
            )
        enough = min(counts.values()) >= FEW
        if enough and score.top1 < gate.top1 - more.top1:
            problems.append(f"top-1 agreement {score.top1:.3f} is less than {gate.top1 - more.top1:g}")
    return Agreement(counts.get("image", 0), counts.get("text", 0), cosine, score, tuple(problems))
