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

from typing import Self


class SigrunError(Exception):
    """Base of every error that Sigrun raises on purpose.

    Args:
        message: what happened, to which file or value, and why.
        hint: what the user can do about it; shown on a line of its own.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  hint: {self.hint}"

    def at(self, place: str) -> Self:
        """The same error with the place it concerns, such as a file, in front; itself if it names that already."""
        if self.message.startswith(place):
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
