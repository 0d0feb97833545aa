"""What quantizing costs on a trained model: zero-shot accuracy on drawings by a vendor it never saw.

Exports the bundled model in each variant, classifies every held-out drawing among all concepts, and compares
embeddings and probabilities with those that transformers computed (``reference.npz``).

    python -m benchmarks.emoji_accuracy
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sigrun import Siglip
from sigrun.scores import logits, probability
from sigrun_exporters.checkpoint import open_checkpoint
from sigrun_exporters.export import export
from sigrun_recipes import load, names

EXAMPLE = Path(__file__).parent.parent / "examples" / "emoji_siglip"
CHECKPOINT = EXAMPLE / "emoji-siglip-patch10-60"
CELL = 64  # pixels of a drawing on the sheet


@dataclass(frozen=True)
class Figures:
    """Accuracy of one variant.

    Attributes:
        variant: its name, or ``transformers`` for the reference itself.
        pictures: number of held-out drawings, which is also the number of concepts.
        top1: share whose right name scores best.
        top5: share whose right name is among the best five.
        mean_cosine, worst_cosine: of the image embeddings with the reference's.
        mean_text_cosine, worst_text_cosine: of the text embeddings with the float variant's.
        probability_error: mean absolute error over all pictures and names.
        right_probability_error: mean absolute error of the right name's probability.
    """

    variant: str
    pictures: int
    top1: float
    top5: float
    mean_cosine: float
    worst_cosine: float
    mean_text_cosine: float
    worst_text_cosine: float
    probability_error: float
    right_probability_error: float


def drawings() -> tuple[list[Image.Image], list[str]]:
    """The held-out drawings and their names."""
    concepts = json.loads((EXAMPLE / "heldout" / "concepts.json").read_text("utf-8"))
    sheet = Image.open(EXAMPLE / "heldout" / "sheet.png").convert("RGB")
    cells = [
        sheet.crop((CELL * c["col"], CELL * c["row"], CELL * (c["col"] + 1), CELL * (c["row"] + 1)))
        for c in concepts
    ]
    return cells, [c["caption"] for c in concepts]


def accuracy(matrix: NDArray[np.float32]) -> tuple[float, float]:
    """Top-1 and top-5 of logits [pictures, names], where picture i is of name i. A tie counts as wrong."""
    right = np.diagonal(matrix)[:, None]
    better = (matrix >= right).sum(axis=1) - 1  # names that score at least as well as the right one
    return float((better < 1).mean()), float((better < 5).mean())


def evaluate(
    path: Path, reference: NDArray[np.float32], texts: NDArray[np.float32] | None, compute: str = "exact"
) -> tuple[Figures, NDArray[np.float32]]:
    """Figures of one artifact, and its text embeddings.

    Args:
        path: the artifact.
        reference: transformers' image embeddings of all drawings.
        texts: text embeddings to compare with; ``None`` compares them with themselves.
        compute: the compute form.
    """
    pictures, captions = drawings()
    with Siglip.load(path, compute=compute) as model:
        scoring = model.info.manifest.scoring
        images = model.embed_images(pictures).vectors
        names_ = model.embed_texts(captions).vectors
        variant = model.info.manifest.variant + ("" if compute == "exact" else f", {compute}")
    against = names_ if texts is None else texts
    exact = probability(logits(reference, against, scoring))
    scores = logits(images, names_, scoring)
    error = np.abs(probability(scores) - exact)
    cosines = (images * reference).sum(axis=1)
    text_cosines = (names_ * against).sum(axis=1)
    top1, top5 = accuracy(scores)
    figures = Figures(
        variant,
        len(pictures),
        top1,
        top5,
        float(cosines.mean()),
        float(cosines.min()),
        float(text_cosines.mean()),
        float(text_cosines.min()),
        float(error.mean()),
        float(np.diagonal(error).mean()),
    )
    return figures, names_


def main() -> int:
    """Print a Markdown table, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    reference = np.load(EXAMPLE / "reference.npz")["sheet_image_embeds"].astype(np.float32)
    stated = json.loads((EXAMPLE / "reference.json").read_text("utf-8"))["sheet"]
    rows = []
    texts = None
    with tempfile.TemporaryDirectory() as folder:
        for name in names():
            path = export(open_checkpoint(str(CHECKPOINT)), load(name), Path(folder)).path
            for compute in ("exact", "int8"):
                figures, found = evaluate(path, reference, texts, compute)
                texts = found if texts is None else texts
                rows.append(figures)
    if as_json:
        print(json.dumps({"transformers": stated, "variants": [asdict(r) for r in rows]}, indent=2))
        return 0
    print(f"{rows[0].pictures} held-out drawings, as many names; chance {1 / rows[0].pictures:.2%}\n")
    print(
        "| | top-1 | top-5 | image cosine, mean / worst | text cosine, mean / worst | probability error, all / right |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    print(f"| transformers fp32 | {stated['top1']:.2%} | {stated['top5']:.2%} | – | – | – |")
    for r in rows:
        print(
            f"| {r.variant} | {r.top1:.2%} | {r.top5:.2%} | {r.mean_cosine:.5f} / {r.worst_cosine:.5f} "
            f"| {r.mean_text_cosine:.5f} / {r.worst_text_cosine:.5f} "
            f"| {r.probability_error:.6f} / {r.right_probability_error:.4f} |"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
