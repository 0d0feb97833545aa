"""SigLIP on the machine in front of you: a lean, quantized runtime.

from sigrun import Siglip

model = Siglip.load("siglip-so400m-patch14-384-q4_k_m.gguf")
model.classify("photo.jpg", ["a cat", "a dog"])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sigrun.embeddings import Embeddings, LabelSet
    from sigrun.errors import (
        ArtifactError,
        CheckpointError,
        OutputError,
        PictureError,
        ProviderError,
        RecipeError,
        SigrunError,
        SpaceError,
        TextError,
        VerificationError,
    )
    from sigrun.model import Info, Siglip
    from sigrun.scores import Score

__all__ = [
    "ArtifactError",
    "CheckpointError",
    "Embeddings",
    "Info",
    "LabelSet",
    "OutputError",
    "PictureError",
    "ProviderError",
    "RecipeError",
    "Score",
    "Siglip",
    "SigrunError",
    "SpaceError",
    "TextError",
    "VerificationError",
    "__version__",
]

_MODULES = {
    "Embeddings": "embeddings",
    "Info": "model",
    "LabelSet": "embeddings",
    "Score": "scores",
    "Siglip": "model",
}
"""Where a name is; the others are errors. Importing the package loads none of this until it is asked for."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'sigrun' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"sigrun.{_MODULES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
