"""Zero-shot accuracy on the held-out vendor: every drawing against the names of all concepts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as functional
from PIL import Image
from torch import Tensor

import tests.torchvision_without_cuda  # noqa: F401  # before transformers looks for torchvision
from examples.emoji_siglip.augment import IMAGE
from examples.emoji_siglip.concepts import Concept
from examples.emoji_siglip.drawings import heldout_picture
from examples.emoji_siglip.tokenizer import encode, open_tokenizer

if TYPE_CHECKING:
    from transformers import SiglipModel

HERE = Path(__file__).parent
CHECKPOINT = HERE / "emoji-siglip-patch10-60"
CELL = 64
"""Side of a drawing on the held-out sheet."""


def pixel_values(picture: Image.Image) -> Tensor:
    """SiglipImageProcessor's preprocessing: RGB, squash with Pillow's bicubic filter, scale to -1..1."""
    small = picture.convert("RGB").resize((IMAGE, IMAGE), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(small, dtype=np.float32) / 255 * 2 - 1).permute(2, 0, 1)


def heldout_pixels(data: Path, concepts: list[Concept]) -> Tensor:
    """All held-out drawings as pixel values."""
    return torch.stack([pixel_values(heldout_picture(data, concept)) for concept in concepts])


@torch.no_grad()
def embed(model: SiglipModel, pixels: Tensor, ids: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Unit embeddings of pictures and texts in float32."""
    images = [model.vision_model(pixel_values=part.to(device)).pooler_output for part in pixels.split(256)]
    texts = [model.text_model(input_ids=part.to(device)).pooler_output for part in ids.split(256)]
    image, text = (
        functional.normalize(torch.cat(images), dim=-1),
        functional.normalize(torch.cat(texts), dim=-1),
    )
    return image.cpu(), text.cpu()


def ranks(images: Tensor, texts: Tensor) -> Tensor:
    """For picture i, how many texts score better than text i."""
    similarity = images @ texts.T
    return (similarity > similarity.diagonal().unsqueeze(1)).sum(1)


def zero_shot(model: SiglipModel, pixels: Tensor, ids: Tensor, device: torch.device) -> tuple[float, float]:
    """Top-1 and top-5 accuracy."""
    place = ranks(*embed(model, pixels, ids, device))
    return (place == 0).float().mean().item(), (place < 5).float().mean().item()


def sheet_cells(heldout: Path) -> tuple[list[Image.Image], list[dict[str, Any]]]:
    """The held-out drawings cut out of their sheet, and the list that names them."""
    listed: list[dict[str, Any]] = json.loads((heldout / "concepts.json").read_text("utf-8"))
    with Image.open(heldout / "sheet.png") as sheet:
        corners = [(item["col"] * CELL, item["row"] * CELL) for item in listed]
        return [sheet.crop((x, y, x + CELL, y + CELL)) for x, y in corners], listed


def main() -> None:
    """Command line: the figures of a published checkpoint, by transformers in float32."""
    from transformers import SiglipImageProcessor, SiglipModel

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--heldout", type=Path, default=HERE / "heldout")
    args = parser.parse_args()
    cells, listed = sheet_cells(args.heldout)
    model = SiglipModel.from_pretrained(args.checkpoint).eval()
    pixels = SiglipImageProcessor.from_pretrained(args.checkpoint)(cells, return_tensors="pt")["pixel_values"]
    ids = torch.tensor(encode(open_tokenizer(args.checkpoint), [item["caption"] for item in listed]))
    images, texts = embed(model, pixels, ids, torch.device("cpu"))
    place, back = ranks(images, texts), ranks(texts, images)
    scale, bias = model.logit_scale.exp().item(), model.logit_bias.item()
    probability = torch.sigmoid(scale * images @ texts.T + bias)
    right = probability.diagonal()
    wrong = (probability.sum() - right.sum()) / (probability.numel() - len(right))
    best = probability.max(1).values
    print(f"scale {scale:.3f}, bias {bias:.3f}, {len(listed)} pictures x {len(listed)} names")
    print(f"probability of the right name: mean {right.mean():.3f}; of a wrong one: mean {wrong:.6f}")
    for low in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9):
        rows = (best >= low) & (best < {0.0: 0.1, 0.9: 1.1}.get(low, low + 0.2))
        if rows.any():
            share = (place[rows] == 0).float().mean()
            print(f"best probability from {low}: {int(rows.sum())} pictures, {share:.1%} right")
    print("| pictures | number | top-1 | top-5 | name to picture, top-1 | top-5 |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in ("all", *dict.fromkeys(item["category"] for item in listed)):
        rows = torch.tensor([name in ("all", item["category"]) for item in listed])
        figures = [(place[rows] == 0), (place[rows] < 5), (back[rows] == 0), (back[rows] < 5)]
        cells_text = " | ".join(f"{figure.float().mean().item():.1%}" for figure in figures)
        print(f"| {name} | {int(rows.sum())} | {cells_text} |")


if __name__ == "__main__":
    main()
