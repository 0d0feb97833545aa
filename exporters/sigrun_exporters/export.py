"""One export from checkpoint to file: plan, quantize, describe, write."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import sigrun
from sigrun.artifact import Artifact
from sigrun.errors import RecipeError
from sigrun.manifest import FORMAT, Manifest, Source, StoredGraph, StoredTensor
from sigrun.output import finished, folder_with_room, refuse_existing
from sigrun_exporters.checkpoint import Checkpoint
from sigrun_exporters.gguf_file import Graphs, write_gguf
from sigrun_exporters.graph import FORMS, build
from sigrun_exporters.store import WeightStore, stored
from sigrun_recipes import TOWERS, Plan, Recipe, RecipeFileError, TowerName, plan

HEAD_BYTES = 16 * 2**20  # room for metadata, graphs and alignment beside the weights


@dataclass(frozen=True)
class Exported:
    """A finished export."""

    path: Path
    manifest: Manifest
    plan: Plan

    @property
    def towers(self) -> tuple[TowerName, ...]:
        """The towers that the artifact holds."""
        return tuple(t for t in TOWERS if t in self.manifest.graphs)


def artifact_path(out: Path, checkpoint_name: str, variant: str) -> Path:
    """Where an artifact goes: ``out/<model>/<model>-<variant>.gguf``."""
    return out / checkpoint_name / f"{checkpoint_name}-{variant}.gguf"


def export(checkpoint: Checkpoint, recipe: Recipe, out: Path, *, force: bool = False) -> Exported:
    """Export a checkpoint as a GGUF artifact.

    Args:
        checkpoint: the opened source.
        recipe: the variant.
        out: folder under which the model's own folder is made.
        force: replace an existing artifact.

    Raises:
        CheckpointError: the source's weights cannot be read or stored.
        RecipeError: the recipe does not fit the model.
        OutputError: the artifact exists already or cannot be written.
    """
    path = artifact_path(out, checkpoint.name, recipe.name)
    refuse_existing(path, force=force)
    try:
        planned = plan(recipe, checkpoint.architecture)
    except RecipeFileError as error:
        raise RecipeError(str(error)) from error
    nbytes = sum(planned.nbytes(tower) for tower in TOWERS)
    folder_with_room(path.parent, 2 * nbytes + HEAD_BYTES)  # the waiting weights and the file itself
    graphs: Graphs = {
        tower: {form: build(planned, tower, form) for form in FORMS}
        for tower in TOWERS
        if checkpoint.architecture.tower(tower) is not None
    }
    with ThreadPoolExecutor(1) as pool, finished(path, force=force) as partial:
        source = pool.submit(checkpoint.source)  # hashing gigabytes goes on beside the quantizing
        with stored(checkpoint, planned, path.parent) as store:
            manifest = _manifest(checkpoint, planned, store, graphs, source.result())
            write_gguf(partial, manifest, planned.architecture, checkpoint.tokenizer, graphs, store)
        with Artifact.open(partial) as artifact:  # what the runtime would refuse must not get its final name
            artifact.tokenizer()
    return Exported(path, manifest, planned)


def _manifest(
    checkpoint: Checkpoint, planned: Plan, store: WeightStore, graphs: Graphs, source: Source
) -> Manifest:
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
                sha256=store.digests[t.spec.name],
            )
            for t in planned.tensors
        },
        graphs={
            tower: {form: StoredGraph(g.sha256, g.weights) for form, g in forms.items()}
            for tower, forms in graphs.items()
        },
        bits_per_weight={tower: planned.bits_per_weight(tower) for tower in graphs},
        preprocessing=checkpoint.preprocessing,
        canonicalisation=checkpoint.tokenizer.canonicalisation,
        scoring=checkpoint.scoring,
        space=_space(checkpoint, source),
        weights_sha256=store.sha256,
    )


def _space(checkpoint: Checkpoint, source: Source) -> str:
    """The embedding space id: equal for every variant of the same weights, pictures and texts prepared alike."""
    parts = {
        "files": dict(source.files),
        "preprocessing": asdict(checkpoint.preprocessing),
        "architecture": checkpoint.architecture.to_json(),
        "canonicalisation": checkpoint.tokenizer.canonicalisation,
        "ids": [checkpoint.tokenizer.eos_id, checkpoint.tokenizer.pad_id],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("utf-8")).hexdigest()[:32]
