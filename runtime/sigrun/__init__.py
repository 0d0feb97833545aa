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
    from sigrun.calibrate import Calibration
    from sigrun.embeddings import EmbeddedPicture, Embeddings
    from sigrun.engine import Engine
    from sigrun.errors import (
        ArtifactError,
        CheckpointError,
        OutputError,
        PictureError,
        ProviderError,
        ProviderWarning,
        RecipeError,
        SigrunError,
        SpaceError,
        TextError,
        VerificationError,
    )
    from sigrun.jobs import Job
    from sigrun.labels import LabelSet
    from sigrun.model import Info, Siglip
    from sigrun.scores import Score, Scoring
    from sigrun.selftest import SelfTest

__all__ = [
    "ArtifactError",
    "Calibration",
    "CheckpointError",
    "EmbeddedPicture",
    "Embeddings",
    "Engine",
    "Info",
    "Job",
    "LabelSet",
    "OutputError",
    "PictureError",
    "ProviderError",
    "ProviderWarning",
    "RecipeError",
    "Score",
    "Scoring",
    "SelfTest",
    "Siglip",
    "SigrunError",
    "SpaceError",
    "TextError",
    "VerificationError",
    "__version__",
]

_MODULES = {
    "Calibration": "calibrate",
    "EmbeddedPicture": "embeddings",
    "Embeddings": "embeddings",
    "Engine": "engine",
    "Info": "model",
    "Job": "jobs",
    "LabelSet": "labels",
    "Score": "scores",
    "Scoring": "scores",
    "SelfTest": "selftest",
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
