"""What an export's files will weigh, before a weight is read.

The head of a GGUF file (metadata, tokenizer, manifest, graphs) is written for good, with hashes and figures of the
right length in place of the true ones; the weights follow from the plan.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sigrun.errors import CheckpointError
from sigrun.manifest import Manifest, Source
from sigrun.pixels import Preprocessing
from sigrun.scores import Scoring
from sigrun.verification import Agreement, Cosines, Golden, Int8Choice, Scores, Verification
from sigrun_exporters.checkpoint import Checkpoint
from sigrun_exporters.describe import describe
from sigrun_exporters.gguf_file import ALIGNMENT, gguf_head_nbytes
from sigrun_exporters.graph import FORMS, Form, Graphs, build
from sigrun_exporters.onnx_bundle.model_file import place
from sigrun_exporters.onnx_bundle.towers import bundle_models
from sigrun_exporters.onnx_bundle.towers import describe as describe_model
from sigrun_recipes import TOWERS, KnownModel, Plan, TowerName

HASH = "0" * 64
COSINES = Cosines(0.99999999, 0.99999999)
SCORES = Scores(0.00999999, 0.00099999, 0.00999999, 0.99999999, 0.99999999)


@dataclass(frozen=True)
class Sizes:
    """Bytes of a variant's files.

    Attributes:
        gguf: the GGUF file.
        towers: tower → its weights in it.
        onnx: file of an ONNX bundle → bytes of its weights and graph; small files are left out.
    """

    gguf: int
    towers: dict[TowerName, int]
    onnx: dict[str, int]


def towers_of(planned: Plan) -> tuple[TowerName, ...]:
    """The towers that a plan stores."""
    return tuple(t for t in TOWERS if planned.architecture.tower(t) is not None)


def all_graphs(planned: Plan) -> Graphs:
    """The graphs of all towers and forms, no matrix left exact."""
    return {tower: {form: build(planned, tower, form) for form in FORMS} for tower in towers_of(planned)}


def unseen(model: KnownModel) -> Checkpoint:
    """A published checkpoint that is not here, as far as its size goes: it can be predicted, not read."""
    name = model.repo.split("/")[-1]

    def absent(_: str) -> NDArray[np.float32]:
        raise CheckpointError(f"{model.repo} is not here")

    side = model.architecture.image.image_size if model.architecture.image is not None else 1
    return Checkpoint(
        name=name,
        architecture=model.architecture,
        preprocessing=Preprocessing(side, side, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        tokenizer=None,
        scoring=Scoring(4.7, -16.0),
        read=absent,
        source=lambda: Source(model.repo, None, model.licence, {}),
        nbytes=0,
    )


def predict(
    checkpoint: Checkpoint, planned: Plan, form: Form = "exact", *, tokenizer_bytes: int = 0
) -> Sizes:
    """The sizes of a variant's files.

    Args:
        checkpoint: what would be exported; none of its weights is read.
        planned: how.
        form: compute form of the ONNX files.
        tokenizer_bytes: what the tokenizer takes in the GGUF file, if the checkpoint is :func:`unseen`.
    """
    graphs = all_graphs(planned)
    manifest = _placeholder(checkpoint, planned, graphs)
    with tempfile.TemporaryDirectory() as folder:
        head = gguf_head_nbytes(Path(folder) / "head", manifest, planned, checkpoint.tokenizer, graphs)
    body = sum(_aligned(len(g.model)) for forms in graphs.values() for g in forms.values())
    body += sum(_aligned(t.nbytes) for t in planned.tensors)
    return Sizes(
        _aligned(head + tokenizer_bytes) + body,
        {tower: planned.nbytes(tower) for tower in graphs},
        onnx_sizes(planned, graphs, form, manifest),
    )


def onnx_sizes(planned: Plan, graphs: Graphs, form: Form, manifest: Manifest | None = None) -> dict[str, int]:
    """Bytes of an ONNX bundle's models and of their weights, by name; with the metadata that a manifest gives them."""
    found: dict[str, int] = {}
    for tower, model in bundle_models(planned, graphs, form).items():
        if manifest is not None:
            describe_model(model.proto, manifest, form)
        found[f"{tower}.onnx.data"] = place(model.proto, model.weights, f"{tower}.onnx.data")
        found[f"{tower}.onnx"] = model.proto.ByteSize()
    return found


def _placeholder(checkpoint: Checkpoint, planned: Plan, graphs: Graphs) -> Manifest:
    """A manifest as long as the one to come."""
    source = Source(
        checkpoint.name, HASH[:40], "apache-2.0", {"model.safetensors": HASH, "spiece.model": HASH}
    )
    digests = dict.fromkeys((t.spec.name for t in planned.tensors), HASH)
    manifest = describe(checkpoint, planned, graphs, source, digests, HASH, None)
    both = checkpoint.scoring is not None
    agreement = Agreement(14, 24, dict.fromkeys(graphs, COSINES), SCORES if both else None, ())
    golden = {
        tower: (0.00999999,) * shape.embedding
        for tower in graphs
        if (shape := planned.architecture.tower(tower)) is not None
    }
    return replace(
        manifest,
        verification=Verification(
            14,
            24,
            HASH,
            dict.fromkeys(FORMS, agreement),
            dict.fromkeys(graphs, Int8Choice((), ((0, 0.00999999),))),
        ),
        golden=Golden(golden.get("image"), "a red apple", golden.get("text")),
    )


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
