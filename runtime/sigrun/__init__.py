"""SigLIP on the machine in front of you: a lean, quantized runtime.

from sigrun import Siglip

model = Siglip.load("siglip-so400m-patch14-384-q4_k_m.gguf")
model.classify("photo.jpg", ["a cat", "a dog"])
"""

__version__ = "0.1.0"

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
    "__version__",
]
