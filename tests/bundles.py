"""Folders of ONNX files beside the artifact of the same export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sigrun.artifact import Artifact
from sigrun.manifest import Manifest
from sigrun.tokens import TokenizerSpec
from sigrun_exporters.checkpoint import open_checkpoint
from sigrun_exporters.export import export
from sigrun_exporters.graph import Form, Graph
from sigrun_exporters.onnx_bundle import write_bundle, write_hub
from sigrun_exporters.store import WeightStore, stored
from sigrun_recipes import Plan, Recipe, TowerName
from tests.conftest import UNVERIFIED

Graphs = dict[TowerName, dict[str, Graph]]


@dataclass(frozen=True)
class Export:
    """What the writers of a folder take, and the GGUF file of the same numbers."""

    gguf: Path
    manifest: Manifest
    plan: Plan
    store: WeightStore
    tokenizer: TokenizerSpec | None
    graphs: Graphs

    def bundle(self, folder: Path, form: Form = "exact") -> Path:
        """The folder of a bundle."""
        folder.mkdir()
        write_bundle(
            folder, self.manifest, self.plan, self.store, self.tokenizer, form=form, graphs=self.graphs
        )
        return folder

    def hub(self, folder: Path, form: Form = "exact") -> Path:
        """The folder in the hub's layout."""
        folder.mkdir()
        write_hub(folder, self.manifest, self.plan, self.store, self.tokenizer, form=form, graphs=self.graphs)
        return folder


@contextmanager
def exported(checkpoint: Path, recipe: Recipe, out: Path) -> Iterator[Export]:
    """Export a checkpoint and keep its stored weights open."""
    opened = open_checkpoint(str(checkpoint))
    done = export(opened, recipe, out, UNVERIFIED)
    with Artifact.open(done.path) as artifact:
        graphs: Graphs = {
            tower: {
                form: Graph(artifact.graph(tower, form), dict(graph.weights), dict(graph.pieces))
                for form, graph in artifact.manifest.graphs[tower].items()
            }
            for tower in artifact.towers
        }
    with stored(opened, done.plan, out) as store:
        assert store.sha256 == done.manifest.weights_sha256
        yield Export(done.path, done.manifest, done.plan, store, opened.tokenizer, graphs)
