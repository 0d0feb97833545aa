"""Labels with their text embeddings: made once, kept in a file, used for any number of pictures.

The file has the layout of the safetensors package (``label_file``), with one tensor, ``embeddings`` [labels, width],
and these strings as metadata, so that another program can score pictures of the same space with nothing but the file:

=================  =====================================================================================================
sigrun_labels      version of this list: ``1``
labels             JSON list of the labels, in the order of the rows
templates          JSON list of the sentences they were put into
cut                JSON list of the rows whose text was longer than the model reads
space              id of the embedding space; only pictures of the same space may be scored
model              name and variant of the model that embedded them, if known, and with it:
canonicalisation   how it makes texts canonical
model_logit_scale  its own constants, if it has any,
model_logit_bias   as checkpoints have them: the scale is a natural logarithm
logit_scale        what to score with: ``sigmoid(exp(logit_scale) · cosine + logit_bias)``; the fitted constants if
logit_bias         there are some, else the model's own
scoring            ``calibrated`` if they were fitted to the user's pictures, ``model`` if they are the model's
=================  =====================================================================================================

Where ``scoring`` is ``model``, :class:`sigrun.Siglip` scores with the constants of the model that embeds the pictures,
which may be another variant in the same space. Strings of other names are left unread.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sigrun import label_file
from sigrun.embeddings import Embeddings
from sigrun.errors import ArtifactError, TextError
from sigrun.scores import Scoring
from sigrun.templates import PLACE

SUFFIX = ".labels.safetensors"
FORMAT = "1"
MOST_NUMBER = 1e30
UNIT = 1e-3  # how far from 1 the length of a vector in a file may be


@dataclass(frozen=True)
class Origin:
    """The model that embedded the labels.

    Attributes:
        model: its short name and variant, such as ``siglip-so400m-patch14-384 q4_k_m``.
        canonicalisation: how it makes text canonical.
        scoring: its own constants; none if it has no image tower.
    """

    model: str
    canonicalisation: str
    scoring: Scoring | None


@dataclass(frozen=True, eq=False)
class LabelSet:
    """Labels with their text embeddings, computed once and used for many pictures.

    Attributes:
        labels: the labels as given, in order.
        embeddings: one row a label; ``cut`` marks labels that lost their end in some template.
        templates: the sentences that each label was put into. Of several, a row is the mean of their unit vectors,
            of unit length again.
        scoring: constants that :meth:`sigrun.Siglip.calibrate` fitted to pictures of the user's; none for those of the
            model that scores.
        origin: the model that embedded the labels; none if it is not known.

    Raises:
        ValueError: the parts do not fit each other, or a number is not finite.
    """

    labels: tuple[str, ...]
    embeddings: Embeddings
    templates: tuple[str, ...] = (PLACE,)
    scoring: Scoring | None = None
    origin: Origin | None = None

    def __post_init__(self) -> None:
        vectors = self.embeddings.vectors
        if vectors.ndim != 2 or len(vectors) != len(self.labels):
            raise ValueError(f"{len(self.labels)} labels cannot go with vectors of shape {vectors.shape}")
        if not np.isfinite(vectors).all():
            raise ValueError("a label's vector holds a number that is not finite")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def space(self) -> str:
        """The embedding space id."""
        return self.embeddings.space

    def save(self, path: str | os.PathLike[str], force: bool = False) -> None:
        """Write the set to one file, whose layout this module describes.

        Equal sets give equal bytes. The file appears when it is complete, or not at all.

        Args:
            path: its name; ``.labels.safetensors`` is a good ending.
            force: replace an existing file.

        Raises:
            OutputError: the file exists and ``force`` is false, or it cannot be written.
            TextError: a label or template is not valid Unicode, or there are no labels.
            ValueError: a vector is not of unit length.
        """
        if not self.labels:
            raise TextError("there are no labels to save")
        row = _first_not_unit(self.embeddings.vectors)
        if row is not None:
            raise ValueError(f"the vector of label {row + 1} is not of unit length")
        strings = _to_strings(self)
        for name, text in strings.items():
            if not _is_unicode(text):
                raise TextError(
                    f"the set's {name} hold a lone surrogate, which is no character: they cannot be saved",
                    hint="they were decoded wrongly: read them as UTF-8",
                )
        label_file.write(Path(path), self.embeddings.vectors, strings, force=force)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a set from its file. No model is needed, and the file is not trusted.

        Raises:
            ArtifactError: there is no such file, or it is damaged or another kind of file; the message names the field.
        """
        vectors, strings = label_file.read(Path(path))
        return cls(**_Reader(str(path), strings).parts(vectors))

    def constants(self, model: Scoring | None) -> Scoring | None:
        """What to score with: the fitted constants, else ``model``'s, else those of the model that made the set."""
        return self.scoring or model or (self.origin.scoring if self.origin is not None else None)


def _first_not_unit(vectors: NDArray[np.float32]) -> int | None:
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT))
    return int(wrong[0]) if len(wrong) else None


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


# ---- the strings of a file ----


def _to_strings(labels: LabelSet) -> dict[str, str]:
    strings = {
        "sigrun_labels": FORMAT,
        "labels": json.dumps(labels.labels, ensure_ascii=False),
        "templates": json.dumps(labels.templates, ensure_ascii=False),
        "cut": json.dumps(labels.embeddings.cut),
        "space": labels.space,
    }
    if labels.origin is not None:
        strings |= {"model": labels.origin.model, "canonicalisation": labels.origin.canonicalisation}
        own = labels.origin.scoring
        if own is not None:
            strings |= {"model_logit_scale": repr(own.logit_scale), "model_logit_bias": repr(own.logit_bias)}
    scoring = labels.constants(None)
    if scoring is not None:
        strings |= {
            "scoring": "model" if labels.scoring is None else "calibrated",
            "logit_scale": repr(scoring.logit_scale),
            "logit_bias": repr(scoring.logit_bias),
        }
    return strings


class _Reader:
    """Reads the strings of one file; each error names the file and the field."""

    def __init__(self, where: str, strings: Mapping[str, str]) -> None:
        self.where = where
        self.strings = strings

    def parts(self, vectors: NDArray[np.float32]) -> dict[str, Any]:
        """The arguments of a LabelSet."""
        version = self.text("sigrun_labels")
        if version != FORMAT:
            raise ArtifactError(
                f"{self.where}: label set of format {version[:20]!a}; this version reads format {FORMAT}",
                hint="make it again, or use the version of Sigrun that wrote the file",
            )
        labels = self.texts("labels")
        if len(labels) != len(vectors):
            raise self.fail("labels", f"are {len(labels)}, and there are {len(vectors)} embeddings")
        wrong = _first_not_unit(vectors) if np.isfinite(vectors).all() else -1
        if wrong is not None:
            raise self.fail(
                "embeddings", "are not finite" if wrong < 0 else f"[{wrong}] is not of unit length"
            )
        templates = self.texts("templates")
        if not templates or any(PLACE not in template for template in templates):
            raise self.fail("templates", "are not sentences with {}")
        scoring = self.scoring("logit_scale", "logit_bias")
        kind = self.strings.get("scoring")
        if kind not in (None, "model", "calibrated") or (kind is None) != (scoring is None):
            raise self.fail("scoring", "is neither 'model' nor 'calibrated' with logit_scale and logit_bias")
        origin = None
        if "model" in self.strings:
            own = self.scoring("model_logit_scale", "model_logit_bias")
            origin = Origin(self.text("model"), self.text("canonicalisation"), own)
        return {
            "labels": labels,
            "embeddings": Embeddings(vectors, self.text("space"), cut=self.cut(len(labels))),
            "templates": templates,
            "scoring": scoring if kind == "calibrated" else None,
            "origin": origin,
        }

    def fail(self, field: str, problem: str) -> ArtifactError:
        return ArtifactError(
            f"{self.where}: damaged label set: {field} {problem}",
            hint="copy it again, or make it again with sigrun labels",
        )

    def text(self, field: str) -> str:
        found = self.strings.get(field)
        if not found or not _is_unicode(found):
            raise self.fail(field, "is missing, empty, or not valid Unicode")
        return found

    def json(self, field: str) -> Any:
        try:
            return json.loads(self.text(field))
        except (ValueError, RecursionError) as error:
            raise self.fail(field, "is not JSON") from error

    def texts(self, field: str) -> tuple[str, ...]:
        found = self.json(field)
        if not isinstance(found, list) or not all(isinstance(t, str) and _is_unicode(t) for t in found):
            raise self.fail(field, "is not a list of texts")
        return tuple(found)

    def cut(self, labels: int) -> tuple[int, ...]:
        found = self.json("cut")
        if not isinstance(found, list) or not all(type(n) is int and 0 <= n < labels for n in found):
            raise self.fail("cut", "is not a list of rows")
        return tuple(found)

    def scoring(self, scale: str, bias: str) -> Scoring | None:
        if scale not in self.strings and bias not in self.strings:
            return None
        try:
            return Scoring(self.number(scale), self.number(bias))
        except ArtifactError as error:
            raise error.at(self.where) from error

    def number(self, field: str) -> float:
        found = self.json(field)
        if isinstance(found, bool) or not isinstance(found, int | float) or not abs(found) <= MOST_NUMBER:
            raise self.fail(field, "is not a number of ordinary size")
        return float(found)
