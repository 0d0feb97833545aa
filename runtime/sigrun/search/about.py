"""What an index is of, and what its vectors were computed by."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from sigrun.errors import ArtifactError, SpaceError
from sigrun.model import Siglip
from sigrun.scores import Scoring

Encoding = Literal["float16", "int8"]
MOST_WIDTH = 1 << 16  # numbers of a vector; trained models have about a thousand
AGAIN = "make it again with `sigrun index MODEL FOLDER -o INDEX --rebuild`; the pictures are not touched"


@dataclass(frozen=True)
class About:
    """What an index is of.

    Attributes:
        folder: the folder that is indexed, absolute.
        artifact: the model's file, absolute.
        space: the embedding space id.
        model, variant: the model's short name, and its recipe.
        weights: hash of its stored weights.
        compute, provider: how its image tower ran.
        decode, max_pixels: how pictures were read.
        preprocessing: how they became pixel values.
        width: numbers of a vector.
        encoding: how a vector is stored.
        logit_scale, logit_bias: the model's scoring; none if it has no text tower.
        generator: the version of Sigrun that made the index.
    """

    folder: str
    artifact: str
    space: str
    model: str
    variant: str
    weights: str
    compute: str
    provider: str
    decode: str
    max_pixels: int
    preprocessing: Mapping[str, Any]
    width: int
    encoding: Encoding
    logit_scale: float | None
    logit_bias: float | None
    generator: str

    @property
    def scoring(self) -> Scoring | None:
        """The constants that make probabilities of cosines."""
        if self.logit_scale is None or self.logit_bias is None:
            return None
        return Scoring(self.logit_scale, self.logit_bias)

    def to_json(self) -> str:
        """As text; lone surrogates in paths are escaped."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: object, where: str) -> About:
        """Read it back.

        Raises:
            ArtifactError: a field is missing or cannot be; the message names it.
        """
        try:
            data = json.loads(text) if isinstance(text, str) else None
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            raise damaged(where, "it does not say what it is of")
        values: dict[str, Any] = {}
        for name, kinds in _KINDS.items():
            value = data.get(name)
            if isinstance(value, bool) or not isinstance(value, kinds):
                raise damaged(where, f"its {name} cannot be {value!r}"[:200])
            values[name] = value
        if values["encoding"] not in get_args(Encoding) or not 0 < values["width"] <= MOST_WIDTH:
            raise damaged(where, f"vectors cannot be {values['width']} × {values['encoding']!r}"[:200])
        for name in ("logit_scale", "logit_bias"):
            if values[name] is not None and not math.isfinite(values[name]):
                raise damaged(where, f"its {name} is not finite")
        about = cls(**values)
        try:
            _ = about.scoring
        except ArtifactError as error:
            raise damaged(where, error.message) from error
        return about


_NUMBER = (int, float, type(None))
_KINDS: dict[str, Any] = {
    **dict.fromkeys(
        ("folder", "artifact", "space", "model", "variant", "weights", "compute", "provider", "decode"), str
    ),
    "max_pixels": int,
    "preprocessing": dict,
    "width": int,
    "encoding": str,
    "logit_scale": _NUMBER,
    "logit_bias": _NUMBER,
    "generator": str,
}


def described(
    model: Siglip, folder: str, artifact: str, *, decode: str, max_pixels: int, encoding: Encoding
) -> About:
    """What an index of a folder will say, if this model makes it; its image tower is unpacked."""
    from sigrun import __version__

    width = model.embed_images([]).vectors.shape[1]
    info = model.info
    manifest, running = info.manifest, info.running["image"]
    scoring = manifest.scoring
    return About(
        folder=folder,
        artifact=artifact,
        space=model.space,
        model=manifest.model,
        variant=manifest.variant,
        weights=manifest.weights_sha256,
        compute=running.compute,
        provider=running.provider,
        decode=decode,
        max_pixels=max_pixels,
        preprocessing=json.loads(json.dumps(manifest.preprocessing.to_json())),
        width=width,
        encoding=encoding,
        logit_scale=None if scoring is None else scoring.logit_scale,
        logit_bias=None if scoring is None else scoring.logit_bias,
        generator=f"sigrun {__version__}",
    )


def refuse_other_space(about: About, space: str, where: str) -> None:
    """Raise SpaceError if vectors of a model cannot be compared with those of an index at all."""
    if about.space != space:
        raise SpaceError(
            f"{where} was made by {about.model} {about.variant}, whose space is {about.space}; "
            f"this model's is {space}, and their vectors cannot be compared",
            hint="search with the model that made the index, or make an index with this one",
        )


def damaged(where: str, problem: str) -> ArtifactError:
    """An error for an index that cannot be read."""
    return ArtifactError(f"{where}: damaged index: {problem}", hint=AGAIN)
