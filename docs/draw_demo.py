"""Draws ``docs/demo.png``: held-out drawings with the labels that the bundled model finds most probable.

    python docs/draw_demo.py

Every bar comes from a real run: the bundled checkpoint, exported to Q4_K_M, classifies ``heldout/demo``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from sigrun import Score, Siglip
from sigrun_exporters.checkpoint import open_checkpoint
from sigrun_exporters.export import Settings, export
from sigrun_recipes import load

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "emoji_siglip"
CHECKPOINT = EXAMPLE / "emoji-siglip-patch10-60"
DEMO = EXAMPLE / "heldout" / "demo"
COLUMNS, ROWS, TOP = 3, 2, 3
CARD = (400, 150)  # pixels
PICTURE = 118
INK, SOFT, RIGHT, OTHER, PAPER = "#1c2430", "#667085", "#1f8a5b", "#b9c2cf", "#ffffff"


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, so that the picture is the same everywhere."""
    return ImageFont.load_default(size)


def percent(probability: float) -> str:
    """A probability as the command line shows it."""
    return f"{100 * probability:.1f} %" if probability >= 0.001 else "< 0.1 %"


def card(picture: Path, scores: list[Score]) -> Image.Image:
    """One drawing with its best labels as bars."""
    canvas = Image.new("RGB", CARD, PAPER)
    with Image.open(picture) as drawing:
        canvas.paste(drawing.convert("RGB").resize((PICTURE, PICTURE), Image.Resampling.LANCZOS), (10, 16))
    draw = ImageDraw.Draw(canvas)
    name = picture.stem.replace("-", " ")
    for i, score in enumerate(scores):
        x, y, width = 146, 18 + 40 * i, 232
        draw.text((x, y), score.label, INK, font(15))
        draw.text((x + width, y), percent(score.probability), SOFT, font(14), anchor="ra")
        draw.rounded_rectangle((x, y + 20, x + width, y + 28), 4, "#eef1f5")
        filled = round(width * score.probability)
        if filled >= 8:
            colour = RIGHT if score.label == name else OTHER
            draw.rounded_rectangle((x, y + 20, x + filled, y + 28), 4, colour)
    return canvas


def main() -> int:
    """Classify and draw."""
    pictures = sorted(DEMO.glob("*.png"))
    labels = (DEMO / "labels.txt").read_text("utf-8").split("\n")
    with tempfile.TemporaryDirectory() as folder:
        path = export(
            open_checkpoint(str(CHECKPOINT)), load("q4_k_m"), Path(folder), Settings(verify=False)
        ).path
        with Siglip.load(path) as model:
            chosen = model.label_set([label for label in labels if label])
            results = [(p, model.classify(p, chosen)[:TOP]) for p in pictures]
    sheet = Image.new("RGB", (CARD[0] * COLUMNS, CARD[1] * ROWS), PAPER)
    for i, (picture, scores) in enumerate(results[: COLUMNS * ROWS]):
        sheet.paste(card(picture, scores), (CARD[0] * (i % COLUMNS), CARD[1] * (i // COLUMNS)))
    sheet.quantize(128).save(ROOT / "docs" / "demo.png", optimize=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
