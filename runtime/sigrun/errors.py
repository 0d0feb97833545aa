"""Everything Sigrun raises on purpose.

    SigrunError
    ├── ArtifactError     a GGUF file is damaged, foreign, or made for another version
    ├── CheckpointError   a source checkpoint is missing, damaged, or of another architecture
    ├── RecipeError       a quantization recipe is malformed or cannot be met
    ├── VerificationError a variant is too far from its checkpoint
    ├── OutputError       a result cannot be written (exists already, disk full, no permission)
    ├── PictureError      a picture cannot be read
    ├── TextError         a label or text cannot be used
    ├── SpaceError        vectors of two embedding spaces would be mixed
    └── ProviderError     ONNX Runtime cannot run the tower as asked

One warning, ``ProviderWarning``: a way to run a tower was passed over, or is used only in part.

Each message says what happened, to which file or value, and why; ``hint`` is the way out.
"""

from __future__ import annotations

import re
from typing import Self

_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LONGEST = 1200  # characters of a message, about
_END = 200  # of those, kept from its end


def _plain(text: str) -> str:
    """A message fit to be shown, whatever it quotes from a file: no control characters, not endless."""
    return _cut(_CONTROLS.sub(lambda found: ascii(found[0])[1:-1], _cut(text)))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - _END]} … {text[-_END:]}"


class SigrunError(Exception):
    """Base of every error that Sigrun raises on purpose.

    Args:
        message: what happened, to which file or value, and why. Of what it quotes, control characters are escaped; of a
            very long one the middle is left out.
        hint: what the user can do about it; shown on a line of its own.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = _plain(message)
        super().__init__(self.message)
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  hint: {self.hint}"

    def at(self, place: str) -> Self:
        """The same error with the place it concerns, such as a file, in front; itself if it names that already."""
        if self.message.startswith(_plain(place)):
            return self
        return type(self)(f"{place}: {self.message}", hint=self.hint)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.hint)


def _rebuild(kind: type[SigrunError], message: str, hint: str | None) -> SigrunError:
    return kind(message, hint=hint)


class ArtifactError(SigrunError):
    """A GGUF file is damaged, foreign, or made for another version."""


class CheckpointError(SigrunError):
    """A source checkpoint is missing, damaged, or of another architecture."""


class RecipeError(SigrunError):
    """A quantization recipe is malformed or cannot be met."""


class VerificationError(SigrunError):
    """A variant is too far from its checkpoint."""


class OutputError(SigrunError):
    """A result cannot be written."""


class PictureError(SigrunError):
    """A picture cannot be read."""


class TextError(SigrunError):
    """A label or text cannot be used."""


class SpaceError(SigrunError):
    """Vectors of two embedding spaces would be mixed."""


class ProviderError(SigrunError):
    """ONNX Runtime cannot run the tower as asked."""


class ProviderWarning(UserWarning):
    """A tower does not run where it might have been expected to; the text says why."""
