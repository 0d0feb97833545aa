"""What an export found out about itself: how closely each compute form follows the float32 checkpoint.

The exporter measures (:mod:`sigrun_exporters.verify`), the artifact's manifest keeps it, and the runtime reads it: to
choose a compute form, to say what was proven, and to test itself on known inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigrun.fields import Fields

GOLDEN_TEXT = "a red apple"
"""The text that self-tests embed."""


@dataclass(frozen=True)
class Cosines:
    """Cosines between a tower's embeddings and the float32 checkpoint's, over the verification set."""

    mean: float
    worst: float


@dataclass(frozen=True)
class Scores:
    """How far scores are from the float32 checkpoint's, over all pictures x texts of the verification set.

    Attributes:
        logit_error: mean absolute error of logits.
        probability_error: mean absolute error of probabilities.
        probability_error_worst: the largest.
        top1: share of pictures whose best text is one of the checkpoint's best: within 0.1 logits of its best.
        rank: mean over pictures of Spearman's correlation between the orders of the texts.
    """

    logit_error: float
    probability_error: float
    probability_error_worst: float
    top1: float
    rank: float


@dataclass(frozen=True)
class Agreement:
    """One compute form against the float32 checkpoint.

    Attributes:
        pictures: how many it was measured on; slow forms are measured on a part of the set.
        texts: how many.
        cosines: tower → cosines.
        scores: none without both towers.
        problems: what misses the recipe's gate, in words; none if it passed.
    """

    pictures: int
    texts: int
    cosines: Mapping[str, Cosines]
    scores: Scores | None
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the form meets the recipe's gate."""
        return not self.problems

    def line(self) -> str:
        """The figures in one line."""
        parts = [f"worst {tower} cosine {c.worst:.5f}" for tower, c in self.cosines.items()]
        if self.scores is not None:
            parts.append(f"mean probability error {self.scores.probability_error:.5f}")
        verdict = "passed" if self.passed else f"FAILED: {'; '.join(self.problems)}"
        return f"{', '.join(parts)}: {verdict}" if parts else verdict


@dataclass(frozen=True)
class Int8Choice:
    """Which matrices of a tower form ``int8`` leaves exact, and how that was found.

    Attributes:
        exact: their names.
        trail: (number of matrices left exact, error measured with them), in the order tried. The error is the mean
            absolute difference of logits from those of form exact; without both towers, 1 - mean cosine.
    """

    exact: tuple[str, ...]
    trail: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Verification:
    """What was measured on which set.

    Attributes:
        pictures: how many.
        texts: how many.
        set_sha256: hash of their pixel values and token ids.
        forms: compute form → agreement.
        int8: tower → which matrices form int8 leaves exact.
    """

    pictures: int
    texts: int
    set_sha256: str
    forms: Mapping[str, Agreement]
    int8: Mapping[str, Int8Choice]

    def described(self) -> str:
        """The set in words."""
        return f"{self.pictures} pictures, {self.texts} texts"

    def lines(self) -> list[str]:
        """One line a form: its figures, and what it misses."""
        return form_lines(self.forms)


def form_lines(forms: Mapping[str, Agreement]) -> list[str]:
    """One line a compute form: its figures, and what they miss."""
    return [f"{form:6} {agreement.line()}" for form, agreement in forms.items()]


@dataclass(frozen=True)
class Golden:
    """Embeddings of known inputs, computed in form exact when the artifact was made.

    Attributes:
        image: of the picture that :func:`golden_picture` draws; none without an image tower.
        text: what was embedded as text; empty without a text tower.
        text_embedding: its embedding.
    """

    image: tuple[float, ...] | None
    text: str
    text_embedding: tuple[float, ...] | None


def golden_picture(size: int) -> NDArray[np.uint8]:
    """The picture that self-tests and published figures are computed on: uint8 [size, size, 3].

    Red is (13x + 7y) mod 256, green (3x + 17y) mod 256, blue (19x + 5y) mod 256. Drawn at the tower's own size it
    needs no resizing, so that nothing but the tower is tested.
    """
    y, x = np.mgrid[:size, :size]
    channels = (13 * x + 7 * y, 3 * x + 17 * y, 19 * x + 5 * y)
    return (np.stack(channels, axis=-1) % 256).astype(np.uint8)


def read_verification(value: Any, look: Fields) -> Verification:
    """From the manifest's JSON.

    Raises:
        ArtifactError: a field is missing or of a wrong type.
    """
    data = look.table(value, "verification")
    return Verification(
        pictures=look.count(data.get("pictures"), "verification.pictures"),
        texts=look.count(data.get("texts"), "verification.texts"),
        set_sha256=look.text(data.get("set_sha256"), "verification.set_sha256"),
        forms={
            form: _agreement(agreement, look, f"verification.forms.{form}")
            for form, agreement in look.table(data.get("forms"), "verification.forms").items()
        },
        int8={
            tower: _choice(choice, look, f"verification.int8.{tower}")
            for tower, choice in look.table(data.get("int8"), "verification.int8").items()
        },
    )


def read_golden(value: Any, look: Fields) -> Golden:
    """From the manifest's JSON.

    Raises:
        ArtifactError: a field is missing or of a wrong type.
    """
    data = look.table(value, "golden")
    return Golden(
        image=look.maybe(data.get("image"), look.numbers, "golden.image"),
        text=look.text(data.get("text"), "golden.text"),
        text_embedding=look.maybe(data.get("text_embedding"), look.numbers, "golden.text_embedding"),
    )


def _agreement(value: Any, look: Fields, field: str) -> Agreement:
    data = look.table(value, field)
    return Agreement(
        pictures=look.count(data.get("pictures"), f"{field}.pictures"),
        texts=look.count(data.get("texts"), f"{field}.texts"),
        cosines={
            tower: Cosines(**_numbers(cosines, look, f"{field}.cosines.{tower}", ("mean", "worst")))
            for tower, cosines in look.table(data.get("cosines"), f"{field}.cosines").items()
        },
        scores=look.maybe(
            data.get("scores"),
            lambda v, f: Scores(**_numbers(v, look, f, tuple(Scores.__dataclass_fields__))),
            f"{field}.scores",
        ),
        problems=look.texts(data.get("problems"), f"{field}.problems"),
    )


def _numbers(value: Any, look: Fields, field: str, names: tuple[str, ...]) -> dict[str, float]:
    data = look.table(value, field)
    return {name: look.number(data.get(name), f"{field}.{name}") for name in names}


def _choice(value: Any, look: Fields, field: str) -> Int8Choice:
    data = look.table(value, field)
    trail = [look.numbers(step, f"{field}.trail") for step in look.items(data.get("trail"), f"{field}.trail")]
    if any(len(step) != 2 for step in trail):
        raise look.fail(f"{field}.trail", "must be pairs of numbers")
    return Int8Choice(
        exact=look.texts(data.get("exact"), f"{field}.exact"),
        trail=tuple((int(count), error) for count, error in trail),
    )
