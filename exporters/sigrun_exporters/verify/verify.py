"""Compares an artifact, in every compute form, with the checkpoint's own float32 function.

Each tower is run through the runtime itself, one session in memory at a time. On the way it is decided which matrices
the rounded forms leave exact: by what they lose in float16's range, and by the score error that int8 makes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sigrun.artifact import Artifact
from sigrun.cpus import default_threads
from sigrun.errors import ArtifactError, VerificationError
from sigrun.manifest import TowerName
from sigrun.progress import Progress
from sigrun.scores import Scoring, logits
from sigrun.sessions import TowerSession
from sigrun.tokens import Tokenizer
from sigrun.verification import (
    GOLDEN_TEXT,
    Agreement,
    Golden,
    Int8Choice,
    Verification,
)
from sigrun_exporters.checkpoint import Checkpoint
from sigrun_exporters.graph import FORMS, Form, Graph, Graphs, build, with_barriers
from sigrun_exporters.half_range import HalfRange
from sigrun_exporters.int8_choice import Sensitivity, choose
from sigrun_exporters.reference import Reference
from sigrun_exporters.verify.gate import Measured, judge
from sigrun_exporters.verify.inputs import Inputs, spaced, texts
from sigrun_exporters.verify.measure import cosines
from sigrun_recipes import Gate, Plan

Floats = NDArray[np.float32]
EMULATED: tuple[Form, ...] = ("f16", "w4f16")
"""Forms with float16. The CPU does not compute in it: their graphs are run with barriers, which round as float16 does.
That is slow, so towers of LARGE weights and more are measured on a part of the set."""
EMULATED_ITEMS = 2
LARGE = 50_000_000
GOLDEN = -1  # the number of the known input, among those of the set
INT8_LOGITS = 0.25
"""The most that form int8 may move logits from those of form exact, in the mean: a probability of 0.5 to 0.56."""
INT8_COSINE = 0.001
"""The same for a model without scores, as 1 - mean cosine."""
RANKED = 4
"""Runs whose activations rank the matrices for form int8: enough for an order. The choice itself is measured on all."""
NO_NUMBER = 1e9
"""The error of embeddings that are not numbers."""


@dataclass(frozen=True)
class Proof:
    """What a verification found.

    Attributes:
        seen: what was looked at.
        towers: what was measured, by tower.
        int8: tower → which matrices form int8 leaves exact.
        graphs: the graphs of all forms, with those matrices left exact that have to be.
        golden: embeddings of known inputs.
    """

    seen: Inputs
    towers: Mapping[TowerName, Measured]
    int8: Mapping[str, Int8Choice]
    graphs: Graphs
    golden: Golden

    def exact(self, tower: TowerName) -> Floats:
        """Embeddings of the whole set in form exact, float32 [n, width]."""
        return self.towers[tower].forms["exact"][1]

    def verification(self, gate: Gate, scoring: Scoring | None, fitted: Scoring | None) -> Verification:
        """The record.

        Args:
            gate: what form exact must reach; a form that does not is recorded with its problems.
            scoring: the checkpoint's constants.
            fitted: the variant's.
        """
        return Verification(
            pictures=len(self.seen.pixels),
            texts=len(self.seen.ids),
            set_sha256=self.seen.sha256,
            forms={form: judge(form, self.towers, scoring, gate, fitted) for form in FORMS},
            int8=self.int8,
        )


def prove(path: Path, checkpoint: Checkpoint, plan: Plan, seen: Inputs) -> Proof:
    """Verify an artifact whose graphs leave no matrix exact yet.

    Args:
        path: the artifact.
        checkpoint: what it was made of.
        plan: how.
        seen: what to look at.

    Raises:
        VerificationError: it prepares pictures or texts otherwise than the checkpoint, or scores them otherwise.
        ArtifactError, CheckpointError, ProviderError: something cannot be read or run.
    """
    with Artifact.open(path) as artifact:
        prepared_alike(artifact, checkpoint)
        names = frozenset[str]().union(*(plan.rounded(tower, "int8") for tower in artifact.towers))
        sensitivity, halves = Sensitivity(artifact, names), HalfRange(artifact, names)

        times: Counter[str] = Counter()

        def observe(name: str, x: Floats) -> None:
            halves.observe(name, x)
            times[name] += 1
            if times[name] <= RANKED:
                sensitivity.observe(name, x)

        expected = _reference(checkpoint, artifact, seen, observe)
        towers = {tower: Measured(found) for tower, found in expected.items()}
        choices: dict[str, Int8Choice] = {}
        graphs: dict[TowerName, dict[Form, Graph]] = {name: {} for name in towers}
        golden: dict[TowerName, Floats] = {}
        runs = len(FORMS) * sum(len(found) for found in expected.values())
        with Progress(f"verifying {plan.recipe.name}", runs, "runs") as bar:
            for name, tower in towers.items():
                run = _Runner(artifact, name, seen, bar)
                beyond = halves.beyond() & plan.rounded(name, "f16")
                other = next((t.expected for n, t in towers.items() if n != name), None)
                everything = list(range(len(tower.expected)))
                embedded = run.embed("exact", None, [*everything, GOLDEN])
                exact, golden[name] = embedded[:-1], embedded[-1]
                graphs[name]["exact"] = build(plan, name, "exact")
                tower.forms["exact"] = everything, exact
                rounded: dict[frozenset[str], Floats] = {}

                def error(left: frozenset[str]) -> float:
                    graph = build(plan, name, "int8", exact=left)  # noqa: B023  (called within this turn)
                    rounded[left] = run.embed("int8", graph, everything)  # noqa: B023
                    return _int8_error(rounded[left], exact, other, checkpoint.scoring)  # noqa: B023

                ranking = [entry for entry in sensitivity.ranking() if entry[0] in plan.rounded(name, "int8")]
                limit = INT8_COSINE if other is None or checkpoint.scoring is None else INT8_LOGITS
                choices[name] = choose(ranking, error, limit)
                left = frozenset(choices[name].exact)
                graphs[name]["int8"] = build(plan, name, "int8", exact=left)
                tower.forms["int8"] = everything, rounded[left]
                for form in EMULATED:
                    part = _part(form, len(everything), artifact, name)
                    graphs[name][form] = build(plan, name, form, exact=beyond)
                    tower.forms[form] = part, run.embed(form, graphs[name][form], part)
    return Proof(
        seen,
        towers,
        choices,
        graphs,
        Golden(
            image=_numbers(golden.get("image")),
            text=GOLDEN_TEXT if "text" in golden else "",
            text_embedding=_numbers(golden.get("text")),
        ),
    )


def agreements(
    path: Path, checkpoint: Checkpoint, gate: Gate, seen: Inputs, forms: tuple[Form, ...] = FORMS
) -> dict[str, Agreement]:
    """Verify a finished artifact with the graphs it holds.

    Args:
        path: the artifact.
        checkpoint: what it was made of.
        gate: what it must reach.
        seen: what to look at.
        forms: compute forms to look at.

    Raises:
        VerificationError: it prepares pictures or texts otherwise than the checkpoint, or scores them otherwise.
        ArtifactError, CheckpointError, ProviderError: something cannot be read or run.
    """
    with Artifact.open(path) as artifact:
        prepared_alike(artifact, checkpoint)
        expected = _reference(checkpoint, artifact, seen, None)
        towers = {tower: Measured(found) for tower, found in expected.items()}
        runs = len(forms) * sum(len(found) for found in expected.values())
        with Progress(f"verifying {artifact.manifest.variant}", runs, "runs") as bar:
            for name, tower in towers.items():
                run = _Runner(artifact, name, seen, bar)
                for form in forms:
                    part = _part(form, len(tower.expected), artifact, name)
                    tower.forms[form] = part, run.embed(form, None, part)
        scoring, fitted = checkpoint.scoring, artifact.manifest.scoring
    return {form: judge(form, towers, scoring, gate, fitted) for form in forms}


def prepared_alike(artifact: Artifact, checkpoint: Checkpoint) -> None:
    """What no embedding of prepared inputs would show: the artifact's own preparation must be the checkpoint's.

    Raises:
        VerificationError: it is not.
    """
    manifest = artifact.manifest
    own = manifest.refit.source if manifest.refit is not None else manifest.scoring
    pairs: list[tuple[str, object, object]] = [
        ("pictures are prepared", manifest.preprocessing, checkpoint.preprocessing),
        ("scores are computed", own, checkpoint.scoring),
    ]
    if checkpoint.tokenizer is not None:
        ours, theirs = Tokenizer(artifact.tokenizer()), Tokenizer(checkpoint.tokenizer)
        pairs.append(
            ("texts are cut", ours.encode(texts()).ids.tolist(), theirs.encode(texts()).ids.tolist())
        )
    for what, found, wanted in pairs:
        if found != wanted:
            raise VerificationError(f"{artifact.path}: {what} otherwise than by {checkpoint.name}")


def _part(form: Form, count: int, artifact: Artifact, tower: TowerName) -> list[int]:
    """The items that a form is measured on."""
    weights = sum(t.size for t in artifact.tensors.values() if t.tower == tower)
    return spaced(count, EMULATED_ITEMS if form in EMULATED and weights >= LARGE else count)


def _reference(
    checkpoint: Checkpoint, artifact: Artifact, seen: Inputs, observe: Callable[[str, Floats], None] | None
) -> dict[TowerName, Floats]:
    """The checkpoint's own embeddings, by tower."""
    reference = Reference(checkpoint)
    expected: dict[TowerName, Floats] = {}
    with Progress("computing the float32 reference", len(seen.pixels) + len(seen.ids), "items") as bar:
        if "image" in artifact.towers:
            expected["image"] = reference.images(seen.pixels, observe=observe, progress=bar.advance)
        if "text" in artifact.towers:
            expected["text"] = reference.texts(seen.ids, observe=observe, progress=bar.advance)
    return expected


class _Runner:
    """Runs one tower of an artifact on the verification set."""

    def __init__(self, artifact: Artifact, tower: TowerName, seen: Inputs, bar: Progress) -> None:
        self._artifact = artifact
        self._tower = tower
        self._seen = seen
        self._bar = bar

    def embed(self, form: Form, graph: Graph | None, items: list[int]) -> Floats:
        """Embeddings [n, width] of some items in a compute form; ``graph`` instead of the stored one.

        A form whose result is no number gives NaN: that is for the gate to say.
        """
        if graph is None:
            stored = self._artifact.manifest.graphs[self._tower][form]
            graph = Graph(self._artifact.graph(self._tower, form), dict(stored.weights), dict(stored.pieces))
        emulated = form in EMULATED
        model = with_barriers(graph.model) if emulated else graph.model
        session = TowerSession(
            self._artifact,
            self._tower,
            form,
            default_threads(),
            (model, graph.stored),
            optimised=not emulated,
        )
        found = np.full((len(items), session.width), np.nan, np.float32)
        for row, item in enumerate(items):
            try:
                found[row] = session.embed(self._input(item))[0]
            except ArtifactError:
                if form == "exact":
                    raise
            self._bar.advance()
        return found

    def _input(self, item: int) -> Floats:
        """One picture or text as the tower takes it."""
        if self._tower == "image":
            return (self._seen.golden_pixels if item == GOLDEN else self._seen.pixels[item])[None]
        ids = self._seen.golden_ids if item == GOLDEN else self._seen.ids[item]
        return self._artifact.token_rows(ids[None])


def _int8_error(found: Floats, exact: Floats, other: Floats | None, scoring: Scoring | None) -> float:
    """How far form int8 of a tower is from form exact: in logits against the other tower, else as 1 - mean cosine."""
    if not np.isfinite(found).all():
        return NO_NUMBER
    if other is None or scoring is None:
        return 1 - cosines(exact, found).mean
    moved = logits(found, other, scoring).astype(np.float64) - logits(exact, other, scoring)
    return round(float(np.abs(moved).mean()), 8)


def _numbers(vector: Floats | None) -> tuple[float, ...] | None:
    return tuple(round(float(v), 8) for v in vector) if vector is not None else None
