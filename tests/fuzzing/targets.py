"""All targets by name. Each is imported only in the child that runs it."""

from __future__ import annotations

from pathlib import Path

from tests.fuzzing import Target

NAMES: dict[str, tuple[str, str, bool]] = {  # name → module, class, whether it starts from an artifact
    "gguf": ("readers", "Gguf", False),
    "artifact head": ("readers", "Head", True),
    "manifest": ("readers", "Manifests", True),
    "tokenizer": ("readers", "Tokenizers", True),
    "label file": ("readers", "Labels", False),
    "blocks": ("readers", "Blocks", False),
    "model": ("models", "Whole", True),
    "graph": ("models", "Graphs", True),
    "prepared folder": ("models", "Folders", True),
    "picture": ("picture_files", "Pictures", False),
    "SentencePiece model": ("readers", "Spiece", True),
    "tokenizer.json": ("readers", "TokenizerJson", False),
    "machine description": ("descriptions", "Machines", False),
    "recipe": ("descriptions", "Recipes", False),
}


def make(name: str, artifact: Path) -> Target:
    """A target, ready to run."""
    import importlib

    module, kind, starts = NAMES[name]
    made = getattr(importlib.import_module(f"tests.fuzzing.{module}"), kind)
    target: Target = made(artifact) if starts else made()
    return target
