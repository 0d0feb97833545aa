"""The towers as models of their own: a tower's graph, its weights named for the file, and what it is said to be."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from sigrun.artifact import TOKEN_TABLE
from sigrun.manifest import Manifest, Packing
from sigrun.nbits import Pieces
from sigrun_exporters.graph import Form, Graph, Graphs
from sigrun_exporters.onnx_bundle.model_file import external_names
from sigrun_exporters.onnx_bundle.tokens import table_packing, take_ids
from sigrun_recipes import Plan, TowerName


@dataclass(frozen=True)
class Model:
    """A model and the weights it takes.

    Attributes:
        proto: the graph; its weights are declared as external.
        weights: tensor → packing, in the order in which they are written.
        pieces: matrices that are taken in pieces.
    """

    proto: onnx.ModelProto
    weights: dict[str, Packing]
    pieces: dict[str, Pieces]

    @property
    def names(self) -> frozenset[str]:
        """The initializers that come from stored weights."""
        return external_names(self.proto)


def bundle_models(plan: Plan, graphs: Graphs, form: Form) -> dict[TowerName, Model]:
    """The towers of a bundle in a compute form, their weights not yet placed."""
    return {
        tower: image_model(forms[form]) if tower == "image" else text_model(forms[form], plan)
        for tower, forms in graphs.items()
    }


def image_model(graph: Graph) -> Model:
    """``pixel_values`` float32 [batch, 3, size, size] to ``image_embeds`` and ``last_hidden_state``."""
    return Model(onnx.ModelProto.FromString(graph.model), dict(graph.weights), dict(graph.pieces))


def text_model(graph: Graph, plan: Plan) -> Model:
    """``input_ids`` int64 [batch, context] to ``text_embeds``."""
    table = next(t for t in plan.tensors if t.spec.name == TOKEN_TABLE)
    tower = plan.architecture.text
    assert tower is not None  # there is a graph of it
    model = onnx.ModelProto.FromString(graph.model)
    take_ids(model, table, tower.context)
    return Model(model, {TOKEN_TABLE: table_packing(table), **graph.weights}, dict(graph.pieces))


def describe(model: onnx.ModelProto, manifest: Manifest, form: Form) -> None:
    """Put what a host must know into the model's metadata."""
    preprocessing = manifest.preprocessing
    facts = {
        "model": manifest.model,
        "variant": manifest.variant,
        "form": form,
        "space": manifest.space,
        "weights_sha256": manifest.weights_sha256,
        "image_size": f"{preprocessing.height}x{preprocessing.width}",
        "image_mean": " ".join(map(repr, preprocessing.mean)),
        "image_std": " ".join(map(repr, preprocessing.std)),
        "resample": preprocessing.resample,
        "geometry": preprocessing.geometry,
    }
    if preprocessing.short_side is not None:
        facts["short_side"] = str(preprocessing.short_side)
    if manifest.canonicalisation is not None:
        facts["canonicalisation"] = manifest.canonicalisation
        facts["context"] = str(manifest.architecture["text"]["context"])
    if manifest.scoring is not None:
        facts["logit_scale"] = repr(manifest.scoring.logit_scale)
        facts["logit_bias"] = repr(manifest.scoring.logit_bias)
    del model.metadata_props[:]
    for key, value in facts.items():
        model.metadata_props.add(key=f"sigrun.{key}", value=value)
