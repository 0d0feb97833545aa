"""Zero-shot accuracy of the bundled model on drawings by a vendor it never saw; a library for ``variants``.

The reference is transformers: its embeddings of every held-out drawing lie in ``reference.npz``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sigrun import Siglip
from sigrun.scores import Scoring, logits, probability

EXAMPLE = Path(__file__).parent.parent / "examples" / "emoji_siglip"
CHECKPOINT = EXAMPLE / "emoji-siglip-patch10-60"
CELL = 64  # pixels of a drawing on the sheet

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Embedded:
    """Unit embeddings of all held-out drawings, of all their names, and how both are scored."""

    images: Floats
    texts: Floats
    scoring: Scoring


@dataclass(frozen=True)
class Figures:
    """Accuracy of one variant.

    Attributes:
        pictures: number of drawings judged.
        top1: share whose right name scores best.
        top5: share whose right name is among the best five.
        mean_cosine, worst_cosine: of the image embeddings with the reference's.
        mean_text_cosine, worst_text_cosine: of the embeddings of their names with the float variant's.
        probability_error: mean absolute error over all pictures and names.
        right_probability_error: mean absolute error of the right name's probability.
    """

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


def reference() -> Floats:
    """Transformers' image embeddings of all drawings."""
    embeddings: Floats = np.load(EXAMPLE / "reference.npz")["sheet_image_embeds"].astype(np.float32)
    return embeddings


def stated() -> dict[str, float]:
    """Transformers' own top-1 and top-5 on them."""
    sheet: dict[str, float] = json.loads((EXAMPLE / "reference.json").read_text("utf-8"))["sheet"]
    return sheet


def embed(path: Path, compute: str = "exact") -> Embedded:
    """All drawings and names by an artifact, in a compute form."""
    pictures, captions = drawings()
    with Siglip.load(path, compute=compute) as model:
        scoring = model.info.manifest.scoring
        assert scoring is not None  # the bundled model has both towers
        return Embedded(model.embed_images(pictures).vectors, model.embed_texts(captions).vectors, scoring)


def rivals(matrix: Floats, names: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """For each row of logits [pictures, names], how many names score at least as well as the right one.

    Args:
        matrix: the logits.
        names: column of each picture's right name; by default picture i is of name i.
    """
    columns = np.arange(len(matrix)) if names is None else names
    right = matrix[np.arange(len(matrix)), columns][:, None]
    found: NDArray[np.int64] = (matrix >= right).sum(axis=1) - 1
    return found


def accuracy(matrix: Floats, names: NDArray[np.int64] | None = None) -> tuple[float, float]:
    """Top-1 and top-5 of logits [pictures, names]. A tie counts as wrong. Arguments as :func:`rivals` has them."""
    better = rivals(matrix, names)
    return float((better < 1).mean()), float((better < 5).mean())


def judge(found: Embedded, images: Floats, texts: Floats, part: slice = slice(None)) -> Figures:
    """Figures of embeddings.

    Args:
        found: what is judged.
        images, texts: embeddings of all drawings and names to compare with.
        part: the drawings that are judged; the candidates are always all names.
    """
    names = np.arange(len(found.images))[part]
    scores = logits(found.images[part], found.texts, found.scoring)
    error = np.abs(probability(scores) - probability(logits(images[part], texts, found.scoring)))
    cosines = (found.images[part] * images[part]).sum(axis=1)
    text_cosines = (found.texts[part] * texts[part]).sum(axis=1)
    top1, top5 = accuracy(scores, names)
    return Figures(
        len(names),
        top1,
        top5,
        float(cosines.mean()),
        float(cosines.min()),
        float(text_cosines.mean()),
        float(text_cosines.min()),
        float(error.mean()),
        float(error[np.arange(len(names)), names].mean()),
    )


def evaluate(path: Path, images: Floats, texts: Floats | None) -> tuple[Figures, Floats]:
    """Figures of one artifact in form exact, and its text embeddings; ``None`` compares those with themselves."""
    found = embed(path)
    return judge(found, images, found.texts if texts is None else texts), found.texts


def right(found: Embedded, part: slice = slice(None)) -> NDArray[np.bool_]:
    """Whether each drawing's own name scores best."""
    names = np.arange(len(found.images))[part]
    best: NDArray[np.bool_] = rivals(logits(found.images[part], found.texts, found.scoring), names) < 1
    return best
