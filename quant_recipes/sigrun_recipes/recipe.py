"""Recipes: which tensor is stored in which encoding, as data.

A recipe is a TOML file beside this module. The encoding of a tensor comes from, in this order:

1. ``[tensors]``: its exact name;
2. ``[[rules]]``: the first rule whose glob matches the name (and whose ``layers``, if given, hold its layer);
3. ``[default]``: by its kind (``linear``, ``token``, ``patch``); all other kinds are ``f32``.

``[default] fallback`` names the encodings to try, in order, where the target's blocks do not fill the rows
even when rows are folded. Every such substitution is kept in the plan, so that a label can be honest.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from sigrun_recipes.architecture import TensorSpec
from sigrun_recipes.encodings import ENCODINGS

FORMAT = 1
REWRITES: tuple[str, ...] = ("pad_mlp",)
QUANTIZABLE = ("linear", "token", "patch")
SUFFIX = ".toml"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class RecipeFileError(ValueError):
    """A recipe is malformed; the message names the file and the key."""


@dataclass(frozen=True)
class Rule:
    """One ``[[rules]]`` entry: tensors whose name matches the glob, perhaps only in some layers."""

    match: str
    encoding: str
    layers: tuple[int, ...] | Literal["more_bits"] | None = None

    def applies(self, tensor: TensorSpec, layers: int) -> bool:
        """Whether the rule decides for ``tensor`` in a tower of ``layers`` layers."""
        if not fnmatchcase(tensor.name, self.match):
            return False
        if self.layers is None:
            return True
        if tensor.layer is None:
            return False
        chosen = more_bits(layers) if self.layers == "more_bits" else self.layers
        return tensor.layer in chosen


@dataclass(frozen=True)
class Gate:
    """What a variant must reach in its verification to be written, in compute form ``exact``.

    Attributes:
        cosine: least cosine of any embedding with the checkpoint's own, of either tower.
        score_error: largest mean absolute error of probabilities.
        top1: least share of pictures whose best text stays one of the best.
    """

    cosine: float
    score_error: float
    top1: float


@dataclass(frozen=True)
class Recipe:
    """A variant's rules.

    Attributes:
        name: the variant's name, part of file names.
        summary: one line for tables.
        rewrites: function-preserving rewrites of the checkpoint, in order.
        max_bits_per_weight: the most that either tower may take, all tensors counted.
        gate: what the variant must reach in its verification.
        defaults: encoding by kind.
        fallback: encodings to try where a target does not fit a shape.
        tensors: encoding by exact name.
        rules: globs, first match decides.
        sha256: hash of the file's bytes.
    """

    name: str
    summary: str
    rewrites: tuple[str, ...]
    max_bits_per_weight: float
    gate: Gate
    defaults: Mapping[str, str]
    fallback: tuple[str, ...]
    tensors: Mapping[str, str]
    rules: tuple[Rule, ...]
    sha256: str

    def target(self, tensor: TensorSpec, layers: int) -> str:
        """The encoding the recipe asks for, whether or not it fits the tensor's shape."""
        if tensor.name in self.tensors:
            return self.tensors[tensor.name]
        if tensor.kind not in QUANTIZABLE:
            return "f32"
        for rule in self.rules:
            if rule.applies(tensor, layers):
                return rule.encoding
        return self.defaults[tensor.kind]


def more_bits(layers: int) -> tuple[int, ...]:
    """The layers that get more bits in llama.cpp's ``_M`` mixtures.

    The first and the last eighth, and every third between. For 27 layers: 0, 1, 2, 5, 8, 11, 14, 17, 20, 23-26.
    """
    eighth = layers // 8
    return tuple(i for i in range(layers) if i < eighth or i >= 7 * layers // 8 or (i - eighth) % 3 == 2)


def names() -> tuple[str, ...]:
    """Names of the recipes that come with Sigrun, least bits last."""
    found = [parse(entry.read_bytes(), entry.name) for entry in _entries()]
    return tuple(r.name for r in sorted(found, key=lambda r: (-r.max_bits_per_weight, r.name)))


def load(name: str) -> Recipe:
    """A recipe that comes with Sigrun, by name.

    Raises:
        RecipeFileError: there is none of that name; the message lists those there are.
    """
    for entry in _entries():
        if entry.name == name + SUFFIX:
            return parse(entry.read_bytes(), entry.name)
    raise RecipeFileError(f"there is no recipe '{name}'; there are: {', '.join(names())}")


def load_file(path: Path) -> Recipe:
    """A recipe from a file of the user's."""
    try:
        if path.exists() and not path.is_file():
            raise RecipeFileError(f"{path}: cannot read the recipe: it is not a file")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, RecipeFileError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise RecipeFileError(f"{path}: cannot read the recipe: {reason}") from error
    recipe = parse(data, str(path))
    if recipe.name in names():
        raise RecipeFileError(
            f"{path}: the name '{recipe.name}' is taken by a recipe of Sigrun's; choose another"
        )
    return recipe


def _entries() -> list[Any]:
    return [
        e
        for e in resources.files("sigrun_recipes").iterdir()
        if e.name.endswith(SUFFIX) and e.name != "models.toml"
    ]


def parse(data: bytes, where: str) -> Recipe:
    """A recipe from the bytes of its TOML file; ``where`` names the file in errors."""
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeFileError(f"{where}: not a TOML file: {error}") from error
    reader = _Reader(where, data.decode("utf-8"))
    reader.keys(
        table, "", {"format", "name", "summary", "rewrites", "limit", "gate", "default", "tensors", "rules"}
    )
    if table.get("format") != FORMAT:
        stated = f"is {table['format']!r}" if "format" in table else "is missing"
        raise RecipeFileError(f"{where}: format {stated}; this version reads format {FORMAT}")
    limit = reader.table(table, "limit")
    reader.keys(limit, "limit", {"bits_per_weight"})
    gate = reader.table(table, "gate")
    reader.keys(gate, "gate", {f.name for f in fields(Gate)})
    default = reader.table(table, "default")
    reader.keys(default, "default", {*QUANTIZABLE, "fallback"})
    rewrites = reader.strings(table, "rewrites")
    for rewrite in rewrites:
        if rewrite not in REWRITES:
            raise RecipeFileError(f"{where}: unknown rewrite '{rewrite}'; there are: {', '.join(REWRITES)}")
    most = limit.get("bits_per_weight")
    if isinstance(most, bool) or not isinstance(most, int | float) or not 0 < most <= 32:
        raise RecipeFileError(
            f"{where}: limit.bits_per_weight must be a number above 0 and at most 32, not {most!r}"
        )
    name = reader.string(table, "name")
    if not NAME.fullmatch(name):
        raise reader.fail(
            "name", f"is {name!r}; it becomes part of a file name: letters, digits, '.', '_' and '-'"
        )
    return Recipe(
        name=name,
        summary=reader.string(table, "summary"),
        rewrites=rewrites,
        max_bits_per_weight=float(most),
        gate=Gate(**{f.name: reader.share(gate, f.name, "gate.") for f in fields(Gate)}),
        defaults={kind: reader.encoding(default.get(kind), f"default.{kind}") for kind in QUANTIZABLE},
        fallback=tuple(
            reader.encoding(e, "default.fallback") for e in reader.strings(default, "fallback", optional=True)
        ),
        tensors={
            name: reader.encoding(encoding, f"tensors.{name}")
            for name, encoding in reader.table(table, "tensors", optional=True).items()
        },
        rules=tuple(reader.rule(entry, i) for i, entry in enumerate(reader.rules(table))),
        sha256=hashlib.sha256(data).hexdigest(),
    )


class _Reader:
    """Typed look-ups in a TOML table whose errors name the file and the key."""

    def __init__(self, where: str, text: str) -> None:
        self.where = where
        self.text = text

    def fail(self, key: str, problem: str) -> RecipeFileError:
        return RecipeFileError(f"{self.where}{self._line(key)}: {key} {problem}")

    def _line(self, key: str) -> str:
        """``, line 7`` where the key is written, or nothing where it is missing."""
        rule = re.fullmatch(r"rules\[(\d+)\](?:\.(\w+))?", key)
        start = 0
        if rule is not None:
            starts = [m.start() for m in re.finditer(r"^[ \t]*\[\[\s*rules\s*\]\]", self.text, re.MULTILINE)]
            start = starts[int(rule[1])] if int(rule[1]) < len(starts) else 0
            leaf = rule[2]
        else:
            table, _, leaf = key.partition(".")
            heading = re.search(rf"^[ \t]*\[\s*{re.escape(table)}\s*\]", self.text, re.MULTILINE)
            if heading is not None:
                start = heading.start()
            leaf = leaf or table
        found = (
            re.compile(rf'^[ \t]*"?{re.escape(leaf)}"?\s*=', re.MULTILINE).search(self.text, start)
            if leaf
            else None
        )
        if found is None and rule is None:
            return ""
        at = found.start() if found is not None else start
        return f", line {self.text.count(chr(10), 0, at) + 1}"

    def keys(self, table: Mapping[str, Any], key: str, known: set[str]) -> None:
        for name in table:
            if name not in known:
                place = f"{key}.{name}" if key else name
                raise self.fail(place, f"is not a key of a recipe; known here: {', '.join(sorted(known))}")

    def table(self, table: Mapping[str, Any], key: str, *, optional: bool = False) -> Mapping[str, Any]:
        value = table.get(key, {} if optional else None)
        if value is None:
            raise self.fail(key, f"is missing: write [{key}]")
        if not isinstance(value, dict):
            raise self.fail(key, "must be a table")
        return value

    def string(self, table: Mapping[str, Any], key: str, within: str = "") -> str:
        value = table.get(key)
        if not isinstance(value, str) or not value:
            raise self.fail(f"{within}{key}", f"must be a string, not {value!r}")
        return value

    def share(self, table: Mapping[str, Any], key: str, within: str) -> float:
        value = table.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise self.fail(f"{within}{key}", f"must be a number from 0 to 1, not {value!r}")
        return float(value)

    def strings(self, table: Mapping[str, Any], key: str, *, optional: bool = False) -> tuple[str, ...]:
        value = table.get(key, [] if optional else None)
        if value is None:
            raise self.fail(key, f"is missing: write {key} = [] for none")
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise self.fail(key, f"must be a list of strings, not {value!r}")
        return tuple(value)

    def encoding(self, value: object, key: str) -> str:
        if not isinstance(value, str) or value not in ENCODINGS:
            raise self.fail(key, f"is {value!r}, which is no encoding; there are: {', '.join(ENCODINGS)}")
        return value

    def rules(self, table: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        value = table.get("rules", [])
        if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
            raise self.fail("rules", "must be written as [[rules]] entries")
        return value

    def rule(self, entry: Mapping[str, Any], index: int) -> Rule:
        key = f"rules[{index}]"
        self.keys(entry, key, {"match", "layers", "encoding"})
        layers = entry.get("layers")
        chosen: tuple[int, ...] | Literal["more_bits"] | None
        if layers is None:
            chosen = None
        elif layers == "more_bits":
            chosen = "more_bits"
        elif isinstance(layers, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in layers):
            chosen = tuple(layers)
        else:
            raise self.fail(
                f"{key}.layers", f'must be a list of layer numbers or "more_bits", not {layers!r}'
            )
        return Rule(
            self.string(entry, "match", f"{key}."),
            self.encoding(entry.get("encoding"), f"{key}.encoding"),
            chosen,
        )
