"""Benchmarks that need ggml-python: weight errors of a whole variant, and the tables of variants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from sigrun_exporters.checkpoint import open_checkpoint
from sigrun_exporters.checkpoint.huggingface import source_name
from sigrun_exporters.store import stored
from sigrun_recipes import load, plan
from tests.checkpoints import EMOJI

pytestmark = pytest.mark.reference


def test_weight_error_is_that_of_the_tensors_together(emoji_q4: Path, tmp_path: Path) -> None:
    from benchmarks.weight_error import KINDS, weight_error

    checkpoint = open_checkpoint(str(EMOJI))
    planned = plan(load("q4_k_m"), checkpoint.architecture)
    with stored(checkpoint, planned, tmp_path) as store:
        errors = store.errors
    found = weight_error(emoji_q4, checkpoint, planned)
    chosen = [t for t in planned.tensors if t.spec.kind in KINDS]
    assert found.matrices == len(chosen) > 40
    norms = {t.spec.name: float(np.linalg.norm(checkpoint.read(t.spec.name))) for t in chosen}
    whole = np.sqrt(sum(n * n for n in norms.values()))
    expected = np.sqrt(sum((errors[name] * norm) ** 2 for name, norm in norms.items())) / whole
    assert found.ours == pytest.approx(expected, rel=1e-5)
    assert found.ours < found.ggml < 1.1 * found.ours
    # The weights that the norm is taken of are the checkpoint's own.
    matrix = next(t for t in chosen if t.spec.kind == "linear" and t.spec.layer is not None)
    source = load_file(EMOJI / "model.safetensors")[source_name(matrix.spec)[0]]
    assert np.linalg.norm(source) == pytest.approx(norms[matrix.spec.name], rel=1e-6)


def test_tables_have_a_cell_for_each_head() -> None:
    from benchmarks.variant_tables import Stored, Verified, stored_table, verified_table
    from benchmarks.weight_error import WeightError

    sizes = {"image": 1024, "text": 2048}
    rows = [
        Stored("a", sizes, {"image": 4.5, "text": 5.0}, 4096, WeightError(0.25, 0.5, 3), 1.0, 2**20, *more)
        for more in ((None, None), (3.5, 2**21))
    ]
    without, with_verification = stored_table(rows).splitlines()[2:]
    assert (
        without == "| a | 1,024 | 2,048 | 4.50 / 5.00 | 4,096 | 0.25000 | 0.50000 | 1.0 s | 1 MiB | – | – |"
    )
    assert with_verification.endswith("| 1.0 s | 1 MiB | 2.5 s | 2 MiB |")
    broken = {"pictures": 4, "texts": 2, "cosines": {}, "scores": None, "passed": False}
    cosines = {"image": {"mean": 1.0, "worst": 0.5}, "text": {"mean": 1.0, "worst": 0.25}}
    scores = {"logit_error": 0.5, "probability_error": 0.125, "top1": 0.75}
    whole = {"pictures": 4, "texts": 2, "cosines": cosines, "scores": scores, "passed": True}
    lines = verified_table([Verified("a", {"int8": broken, "exact": whole})]).splitlines()
    assert lines[2] == (
        "| a | 4, 2 | 1.00000 / 0.50000 | 1.00000 / 0.25000 | 0.5000 | 0.125000 | 75.0% | yes |"
    )
    assert lines[3] == "| a, int8 | 4, 2 | – | – | – | – | – | no |"
    for table in (stored_table(rows), "\n".join(lines)):
        assert len({line.count("|") for line in table.splitlines()}) == 1
