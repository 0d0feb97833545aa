"""Facts about SigLIP models and how their weights are stored. Needs nothing but the standard library."""

from sigrun_recipes.architecture import (
    MULTIPLIED,
    TOWERS,
    Architecture,
    ImageTower,
    TensorSpec,
    TextTower,
    TowerName,
)
from sigrun_recipes.encodings import ENCODINGS, Encoding
from sigrun_recipes.models import KnownModel, Reference, ZeroShot, default_model, known
from sigrun_recipes.pieces import Cut, cuts
from sigrun_recipes.plan import Plan, TensorPlan, plan
from sigrun_recipes.recipe import Gate, Recipe, RecipeFileError, load, load_file, names

__all__ = [
    "ENCODINGS",
    "MULTIPLIED",
    "TOWERS",
    "Architecture",
    "Cut",
    "Encoding",
    "Gate",
    "ImageTower",
    "KnownModel",
    "Plan",
    "Recipe",
    "RecipeFileError",
    "Reference",
    "TensorPlan",
    "TensorSpec",
    "TextTower",
    "TowerName",
    "ZeroShot",
    "cuts",
    "default_model",
    "known",
    "load",
    "load_file",
    "names",
    "plan",
]
