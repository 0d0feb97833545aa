"""The manifest: what an artifact says of itself, as JSON in the GGUF key ``sigrun.manifest``.

The exporter fills these classes and the runtime reads them back, so both sides share one definition;
``manifest.schema.json`` beside this file describes the same for other programs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from sigrun.canonical import Canonicalisation
from sigrun.errors import ArtifactError
from sigrun.fields import Fields, printable_json
from sigrun.nbits import AXES, Pieces
from sigrun.pixels import Preprocessing
from sigrun.scores import Scoring
from sigrun.verification import Golden, Verification, read_golden, read_verification

FORMAT = 3
READABLE = (2, 3)
"""2 knows no pieces."""
KEY = "sigrun.manifest"

TowerName = Literal["image", "text"]
TOWERS: tuple[TowerName, ...] = get_args(TowerName)
Packing = Literal["dense", "nbits", "int8", "dense16", "nbits16"]
"""How a graph takes a weight: ``dense`` as one float32 initializer under the tensor's name; ``nbits`` as what
MatMulNBits takes, whole or in pieces, one initializer a part under the tensor's name with ``.q``, ``.scales`` and,
where the encoding has them, ``.zeros`` or ``.minima`` (:func:`sigrun.nbits.initializers`); ``int8`` as what
MatMulIntegerToFloat takes, with ``.int8`` and ``.int8_scales`` (:mod:`sigrun.int8`); ``dense16`` and ``nbits16`` as
the first two, with float16 for float32."""
MOST_PIECES = 1024


@dataclass(frozen=True)
class Source:
    """Where the weights came from. ``files`` maps file names to their SHA-256."""

    model: str
    revision: str | None
    licence: str | None
    files: Mapping[str, str]


@dataclass(frozen=True)
class StoredTensor:
    """How a tensor lies in the file.

    Attributes:
        tower: the tower it belongs to.
        kind: what it does (linear, token, patch, position, probe, norm, bias).
        shape: logical shape after the rewrites; matrices are [outputs, inputs].
        source_shape: shape in the checkpoint.
        encoding: what it is stored as.
        target: what the recipe asked for; differs where that did not fit the shape.
        fold: rows laid end to end in the file.
        sha256: hash of the stored bytes.
    """

    tower: TowerName
    kind: str
    shape: tuple[int, ...]
    source_shape: tuple[int, ...]
    encoding: str
    target: str
    fold: int
    sha256: str


@dataclass(frozen=True)
class StoredGraph:
    """A graph in the file: the hash of its bytes, and how it takes each weight.

    Attributes:
        sha256: hash of the graph's bytes.
        weights: tensor → packing.
        pieces: matrices that the graph takes in pieces, each part of each piece as an initializer of its own, under the
            tensor's name with the piece's number before the part: ``.0.q``, ``.1.q``.
    """

    sha256: str
    weights: Mapping[str, Packing]
    pieces: Mapping[str, Pieces] = field(default_factory=dict)


@dataclass(frozen=True)
class Refit:
    """Scoring constants fitted to a variant, so that its scores do not drift from the checkpoint's.

    Attributes:
        source: the checkpoint's own constants.
        error_before: mean absolute error of probabilities with them, on pairs that the fit did not see.
        error_after: the same with the fitted ones.
    """

    source: Scoring
    error_before: float
    error_after: float


@dataclass(frozen=True)
class Manifest:
    """What an artifact says of itself.

    Attributes:
        format: version of this description.
        generator: the program that wrote the file.
        model: short name of the model, as file names have it.
        variant: name of the recipe.
        recipe_sha256: hash of the recipe file.
        source: where the weights came from.
        architecture: both towers before any rewrite, as ``sigrun_recipes.Architecture.to_json`` gives them.
        rewrites: function-preserving rewrites that were applied, in order.
        tensors: every weight by name.
        graphs: tower → compute form → graph.
        bits_per_weight: tower → true bits per weight, everything counted.
        preprocessing: how pictures become pixel values.
        canonicalisation: how text is made canonical before it is cut into tokens; none without a text tower.
        scoring: logit scale and bias; none without both towers.
        space: the embedding space id; only vectors with equal ids may be compared.
        weights_sha256: hash over the names, types, shapes and bytes of all stored weights.
        importance: SHA-256 of the importance matrix that weighed the quantizers' errors; none if there was none.
        refit: how the scoring was fitted to this variant; none if it is the checkpoint's own.
        verification: how closely each compute form follows the float32 checkpoint; none if it was not verified.
        golden: embeddings of known inputs, for a runtime to test itself with.
    """

    format: int
    generator: str
    model: str
    variant: str
    recipe_sha256: str
    source: Source
    architecture: Mapping[str, Mapping[str, Any]]
    rewrites: tuple[str, ...]
    tensors: Mapping[str, StoredTensor] = field(repr=False)
    graphs: Mapping[str, Mapping[str, StoredGraph]] = field(repr=False)
    bits_per_weight: Mapping[str, float]
    preprocessing: Preprocessing
    canonicalisation: Canonicalisation | None
    scoring: Scoring | None
    space: str
    weights_sha256: str
    importance: str | None
    refit: Refit | None
    verification: Verification | None
    golden: Golden | None

    def to_json(self) -> str:
        """The JSON text; equal manifests give equal text."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def substitutions(self) -> dict[str, StoredTensor]:
        """Tensors that did not get the encoding the recipe asked for."""
        return {name: t for name, t in self.tensors.items() if t.encoding != t.target}

    @classmethod
    def from_json(cls, text: str, where: str) -> Manifest:
        """Parse the JSON text of the file ``where``.

        Raises:
            ArtifactError: it is not JSON, of another format version, or a field is missing or of a wrong type.
        """
        try:
            data = printable_json(text)
        except ValueError as error:
            raise ArtifactError(f"{where}: {KEY} is not JSON: {error}") from error
        look = _Look(where)
        top = look.table(data, KEY)
        if top.get("format") not in READABLE:
            raise ArtifactError(
                f"{where}: manifest format is {top.get('format')!r}; this version reads up to {FORMAT}",
                hint="export the model again, or use the version of Sigrun that wrote the file",
            )
        for known in fields(cls):
            if known.name not in top:
                raise ArtifactError(f"{where}: the manifest has no field '{known.name}'")
        preprocessing = look.table(top["preprocessing"], "preprocessing")
        source = look.table(top["source"], "source")
        return cls(
            format=FORMAT,
            generator=look.text(top["generator"], "generator"),
            model=look.text(top["model"], "model"),
            variant=look.text(top["variant"], "variant"),
            recipe_sha256=look.text(top["recipe_sha256"], "recipe_sha256"),
            source=Source(
                model=look.text(source.get("model"), "source.model"),
                revision=look.maybe_text(source.get("revision"), "source.revision"),
                licence=look.maybe_text(source.get("licence"), "source.licence"),
                files={
                    name: look.text(value, f"source.files.{name}")
                    for name, value in look.table(source.get("files"), "source.files").items()
                },
            ),
            architecture={
                name: look.plain(value, f"architecture.{name}")
                for name, value in look.table(top["architecture"], "architecture").items()
                if name in TOWERS
            },
            rewrites=look.texts(top["rewrites"], "rewrites"),
            tensors={
                name: look.tensor(value, f"tensors.{name}")
                for name, value in look.table(top["tensors"], "tensors").items()
            },
            graphs={
                tower: {
                    form: look.graph(value, f"graphs.{tower}.{form}")
                    for form, value in look.table(forms, f"graphs.{tower}").items()
                }
                for tower, forms in look.table(top["graphs"], "graphs").items()
            },
            bits_per_weight={
                tower: look.number(value, f"bits_per_weight.{tower}")
                for tower, value in look.table(top["bits_per_weight"], "bits_per_weight").items()
            },
            preprocessing=look.part(lambda: Preprocessing.from_json(dict(preprocessing))),
            canonicalisation=look.maybe(top["canonicalisation"], look.canonicalisation, "canonicalisation"),
            scoring=look.maybe(top["scoring"], look.scoring, "scoring"),
            space=look.text(top["space"], "space"),
            weights_sha256=look.text(top["weights_sha256"], "weights_sha256"),
            importance=look.maybe_text(top["importance"], "importance"),
            refit=look.maybe(top["refit"], look.refit, "refit"),
            verification=look.maybe(
                top["verification"], lambda value, _: read_verification(value, look), "verification"
            ),
            golden=look.maybe(top["golden"], lambda value, _: read_golden(value, look), "golden"),
        )


class _Look(Fields):
    """Look-ups of what only a manifest holds."""

    def extents(self, value: Any, field: str) -> tuple[int, ...]:
        if (
            not isinstance(value, list)
            or not all(type(v) is int and v > 0 for v in value)
            or not 1 <= len(value) <= 2
        ):
            raise self.fail(field, f"must be one or two positive whole numbers, not {value!r}")
        return tuple(value)

    def packing(self, value: Any, field: str) -> Packing:
        if value not in get_args(Packing):
            raise self.fail(field, f"is {value!r}; known packings: {', '.join(get_args(Packing))}")
        packing: Packing = value
        return packing

    def canonicalisation(self, value: Any, field: str) -> Canonicalisation:
        if value not in get_args(Canonicalisation):
            raise self.fail(field, f"is {value!r}; known: {', '.join(get_args(Canonicalisation))}")
        known: Canonicalisation = value
        return known

    def scoring(self, value: Any, field: str) -> Scoring:
        data = self.table(value, field)
        return self.part(
            lambda: Scoring(
                self.number(data.get("logit_scale"), f"{field}.logit_scale"),
                self.number(data.get("logit_bias"), f"{field}.logit_bias"),
            )
        )

    def refit(self, value: Any, field: str) -> Refit:
        data = self.table(value, field)
        return Refit(
            self.scoring(data.get("source"), f"{field}.source"),
            self.number(data.get("error_before"), f"{field}.error_before"),
            self.number(data.get("error_after"), f"{field}.error_after"),
        )

    def tensor(self, value: Any, field: str) -> StoredTensor:
        data = self.table(value, field)
        tower = data.get("tower")
        if tower not in TOWERS:
            raise self.fail(f"{field}.tower", f"is {tower!r}; known: {', '.join(TOWERS)}")
        fold = data.get("fold")
        shape = self.extents(data.get("shape"), f"{field}.shape")
        if type(fold) is not int or fold < 1 or shape[0] % fold:
            raise self.fail(f"{field}.fold", f"is {fold!r}, which does not divide the rows of {list(shape)}")
        return StoredTensor(
            tower=tower,
            kind=self.text(data.get("kind"), f"{field}.kind"),
            shape=shape,
            source_shape=self.extents(data.get("source_shape"), f"{field}.source_shape"),
            encoding=self.text(data.get("encoding"), f"{field}.encoding"),
            target=self.text(data.get("target"), f"{field}.target"),
            fold=fold,
            sha256=self.text(data.get("sha256"), f"{field}.sha256"),
        )

    def graph(self, value: Any, field: str) -> StoredGraph:
        data = self.table(value, field)
        weights = self.table(data.get("weights"), f"{field}.weights")
        return StoredGraph(
            sha256=self.text(data.get("sha256"), f"{field}.sha256"),
            weights={name: self.packing(p, f"{field}.weights.{name}") for name, p in weights.items()},
            pieces=self.pieces(data.get("pieces", {}), f"{field}.pieces", weights),
        )

    def pieces(self, value: Any, field: str, weights: Mapping[str, Any]) -> dict[str, Pieces]:
        found = {}
        for name, entry in self.table(value, field).items():
            if weights.get(name) != "nbits":
                raise self.fail(f"{field}.{name}", "is no matrix that the graph takes as nbits")
            cut = self.table(entry, f"{field}.{name}")
            axis, count = cut.get("axis"), cut.get("count")
            if axis not in AXES:
                raise self.fail(f"{field}.{name}.axis", f"is {axis!r}; known: {', '.join(AXES)}")
            if type(count) is not int or not 2 <= count <= MOST_PIECES:
                raise self.fail(f"{field}.{name}.count", f"is not a number from 2 to {MOST_PIECES}")
            found[name] = Pieces(axis, count)
        return found
