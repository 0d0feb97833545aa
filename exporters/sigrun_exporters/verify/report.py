"""The report of an export: everything that is known of it, as JSON, as Markdown, and as a picture of the errors.

It holds no time, no duration and no path: an export done again gives the same bytes. ``report.schema.json`` beside
this file describes the JSON.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import sigrun
from sigrun.errors import ProviderError
from sigrun.manifest import Manifest
from sigrun.onnx_runtime import onnxruntime
from sigrun.output import finished
from sigrun.verification import Verification
from sigrun_exporters.verify.plot import error_plot
from sigrun_exporters.verify.published import compared
from sigrun_exporters.verify.report_text import markdown
from sigrun_exporters.verify.weight_errors import Cell, tower_errors
from sigrun_recipes import TOWERS, Plan, TowerName

FORMAT = 1
SUFFIXES = (".report.json", ".report.md", ".report.svg")


def write_report(
    file: Callable[[str], Path],
    manifest: Manifest,
    plan: Plan,
    errors: Mapping[str, float],
    files: Mapping[str, int],
    *,
    force: bool = True,
) -> list[Path]:
    """Write the report beside an export's files.

    Args:
        file: the path of an export's file with a suffix, such as ``.report.md``.
        manifest: what the export says of itself.
        plan: how each tensor is stored.
        errors: tensor → relative error of what is stored, of every tensor of the plan.
        files: the export's files → bytes.
        force: replace an older report. By default it is replaced: the export's own files are what is guarded.

    Returns:
        The report's files, JSON first.

    Raises:
        OutputError: a file exists and ``force`` is false, or cannot be written.
    """
    data = record(manifest, plan, errors, files)
    paths = [file(suffix) for suffix in SUFFIXES]
    texts = (
        json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n",
        markdown(data, paths[2].name),
        error_plot(plan, errors, _towers(manifest), f"{manifest.model} as {manifest.variant}"),
    )
    for path, text in zip(paths, texts, strict=True):
        with finished(path, force=force) as partial:
            partial.write_bytes(text.encode("utf-8", "replace"))
    return paths


def record(
    manifest: Manifest, plan: Plan, errors: Mapping[str, float], files: Mapping[str, int]
) -> dict[str, Any]:
    """The report as JSON values; arguments as :func:`write_report` has them."""
    public = compared(manifest)
    return {
        "format": FORMAT,
        "model": manifest.model,
        "variant": manifest.variant,
        "source": asdict(manifest.source),
        "recipe_sha256": manifest.recipe_sha256,
        "weights_sha256": manifest.weights_sha256,
        "space": manifest.space,
        "rewrites": list(manifest.rewrites),
        "files": dict(files),
        "towers": {tower: _tower(plan, tower) for tower in _towers(manifest)},
        "weight_errors": {tower: _weights(plan, errors, tower) for tower in _towers(manifest)},
        "importance": manifest.importance,
        "scoring": asdict(manifest.scoring) if manifest.scoring is not None else None,
        "refit": asdict(manifest.refit) if manifest.refit is not None else None,
        "gate": asdict(plan.recipe.gate),
        "verification": _verification(manifest.verification) if manifest.verification is not None else None,
        "published": asdict(public) if public is not None else None,
        "tools": tools(),
    }


def tools() -> dict[str, str]:
    """Versions of everything that has a say in the figures."""
    try:
        runtime = str(onnxruntime().__version__)  # its package has several names
    except ProviderError:
        runtime = "not installed"  # an export that verifies nothing does without
    packages = ("numpy", "onnx", "gguf", "pillow", "sentencepiece")
    return {
        "sigrun": sigrun.__version__,
        "python": platform.python_version(),
        "onnxruntime": runtime,
        **{name: metadata.version(name) for name in packages},
    }


def _verification(found: Verification) -> dict[str, Any]:
    """What was measured; an error that is no number, of a form that overflowed, becomes null."""
    return {
        **asdict(found),
        "forms": {form: {**asdict(each), "passed": each.passed} for form, each in found.forms.items()},
        "int8": {
            tower: {
                "exact": list(choice.exact),
                "trail": [[count, error if math.isfinite(error) else None] for count, error in choice.trail],
            }
            for tower, choice in found.int8.items()
        },
    }


def _towers(manifest: Manifest) -> tuple[TowerName, ...]:
    return tuple(t for t in TOWERS if t in manifest.graphs)


def _tower(plan: Plan, tower: TowerName) -> dict[str, Any]:
    """What a tower weighs, and in which types."""
    encodings: dict[str, dict[str, int]] = {}
    for tensor in plan.of(tower):
        each = encodings.setdefault(tensor.encoding.name, {"tensors": 0, "weights": 0, "bytes": 0})
        each["tensors"] += 1
        each["weights"] += tensor.spec.size
        each["bytes"] += tensor.nbytes
    return {
        "weights": plan.source.parameters(tower),
        "bytes": plan.nbytes(tower),
        "bits_per_weight": round(plan.bits_per_weight(tower), 6),
        "encodings": encodings,
        "substitutions": [
            {"tensor": t.spec.name, "target": t.target, "encoding": t.encoding.name}
            for t in plan.substitutions()
            if t.spec.tower == tower
        ],
    }


def _weights(plan: Plan, errors: Mapping[str, float], tower: TowerName) -> dict[str, Any]:
    """Relative errors of a tower's matrices, by layer and part."""
    found = tower_errors(plan, errors, tower)

    def row(cells: Mapping[str, Cell]) -> dict[str, dict[str, Any]]:
        return {part: asdict(cell) for part, cell in cells.items()}

    return {
        "layers": [row(cells) for cells in found.layers],
        "head": row(found.head),
        "other": [asdict(cell) for cell in found.other],
        "norms_and_biases": {"tensors": found.plain, "worst": found.plain_error},
    }
