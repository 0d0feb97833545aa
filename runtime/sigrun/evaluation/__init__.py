"""How often a model finds the right class of a user's own pictures, and what another artifact would change.

from sigrun.evaluation import Dataset, compare, evaluate

dataset = Dataset.from_folder("photos")          # a folder per class
small = evaluate(Siglip.load("m-q4_k_m.gguf"), dataset)
full = evaluate(Siglip.load("m-f32.gguf"), dataset)
small.top1.share, small.top1.interval()
compare(small, full).paired.difference
"""

from __future__ import annotations

from sigrun.evaluation.comparison import Comparison, compare
from sigrun.evaluation.dataset import Dataset, class_name, classes_among, read_classes
from sigrun.evaluation.measure import ClassResult, Confusion, Evaluation, evaluate
from sigrun.evaluation.plot import evaluation_plot

__all__ = [
    "ClassResult",
    "Comparison",
    "Confusion",
    "Dataset",
    "Evaluation",
    "class_name",
    "classes_among",
    "compare",
    "evaluate",
    "evaluation_plot",
    "read_classes",
]
