"""The manifest of an export: what its files say of themselves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict

import sigrun
from sigrun.manifest import FORMAT, Manifest, Source, StoredGraph, StoredTensor
from sigrun_exporters.checkpoint import Checkpoint
from sigrun_exporters.graph import Graphs
from sigrun_recipes import Plan


def describe(
    checkpoint: Checkpoint,
    planned: Plan,
    graphs: Graphs,
    source: Source,
    digests: Mapping[str, str],
    weights_sha256: str,
    importance: str | None,
) -> Manifest:
    """The manifest of an export that is not verified yet.

    Args:
        checkpoint: what is exported.
        planned: how each tensor is stored.
        graphs: tower → compute form → graph.
        source: where the checkpoint came from.
        digests: tensor → SHA-256 of its stored bytes.
        weights_sha256: hash over all of them.
        importance: hash of the importance matrix, if there was one.
    """
    tokenizer = checkpoint.tokenizer
    return Manifest(
        format=FORMAT,
        generator=f"sigrun {sigrun.__version__}",
        model=checkpoint.name,
        variant=planned.recipe.name,
        recipe_sha256=planned.recipe.sha256,
        source=source,
        architecture=checkpoint.architecture.to_json(),
        rewrites=planned.recipe.rewrites,
        tensors={
            t.spec.name: StoredTensor(
                tower=t.spec.tower,
                kind=t.spec.kind,
                shape=t.spec.shape,
                source_shape=t.shape,
                encoding=t.encoding.name,
                target=t.target,
                fold=t.fold,
                sha256=digests[t.spec.name],
            )
            for t in planned.tensors
        },
        graphs=stored_graphs(graphs),
        bits_per_weight={tower: planned.bits_per_weight(tower) for tower in graphs},
        preprocessing=checkpoint.preprocessing,
        canonicalisation=tokenizer.canonicalisation if tokenizer is not None else None,
        scoring=checkpoint.scoring,
        space=_space(checkpoint, source),
        weights_sha256=weights_sha256,
        importance=importance,
        refit=None,
        verification=None,
        golden=None,
    )


def stored_graphs(graphs: Graphs) -> dict[str, dict[str, StoredGraph]]:
    """Graphs as the manifest lists them."""
    return {tower: {form: g.stored for form, g in forms.items()} for tower, forms in graphs.items()}


def _space(checkpoint: Checkpoint, source: Source) -> str:
    """The embedding space id: equal for every variant of the same weights, pictures and texts prepared alike."""
    tokenizer = checkpoint.tokenizer
    parts = {
        "files": dict(source.files),
        "preprocessing": asdict(checkpoint.preprocessing),
        "architecture": checkpoint.architecture.to_json(),
        "canonicalisation": tokenizer.canonicalisation if tokenizer is not None else None,
        "ids": [tokenizer.eos_id, tokenizer.pad_id] if tokenizer is not None else [],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("utf-8")).hexdigest()[:32]
