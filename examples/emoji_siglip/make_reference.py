"""Record what transformers computes for the published checkpoint, as a yardstick for other runtimes.

    python -m examples.emoji_siglip.make_reference

Everything is float32 on the CPU, with SiglipImageProcessor, the slow SiglipTokenizer and SiglipModel.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image

import tests.torchvision_without_cuda  # noqa: F401  # before transformers looks for torchvision
from examples.emoji_siglip.evaluate import CHECKPOINT, HERE, embed, ranks, sheet_cells
from examples.emoji_siglip.tokenizer import encode, open_tokenizer

FREE_CAPTIONS = (
    "This is a photo of an owl.",
    "a picture of a cat",
    "Something to EAT, please!",
    "musical instrument",
    "a happy face",
    "vehicle",
    "",
)
"""Captions beside those of the demo pictures: upper case, punctuation, tags, the empty text."""
PIXEL_PICTURES = 4


def build(checkpoint: Path, heldout: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays and the description that goes with them."""
    import transformers
    from transformers import SiglipImageProcessor, SiglipModel

    cells, listed = sheet_cells(heldout)
    caption_of = {item["name"]: item["caption"] for item in listed}
    demo = sorted((heldout / "demo").glob("*.png"))
    names = [path.stem for path in demo]
    captions = [*(caption_of[name] for name in names), *FREE_CAPTIONS]

    processor = SiglipImageProcessor.from_pretrained(checkpoint)
    tokenizer = open_tokenizer(checkpoint)
    model = SiglipModel.from_pretrained(checkpoint).eval()
    device = torch.device("cpu")
    demo_pixels = processor([Image.open(path) for path in demo], return_tensors="pt")["pixel_values"]
    sheet_pixels = processor(cells, return_tensors="pt")["pixel_values"]
    ids = torch.tensor(encode(tokenizer, captions))
    all_ids = torch.tensor(encode(tokenizer, [item["caption"] for item in listed]))
    demo_images, texts = embed(model, demo_pixels, ids, device)
    sheet_images, all_texts = embed(model, sheet_pixels, all_ids, device)
    with torch.no_grad():
        output = model(input_ids=ids, pixel_values=demo_pixels)
    logits = output.logits_per_image
    if not torch.allclose(output.image_embeds, demo_images, atol=1e-5):
        raise ValueError("the towers alone and the joint model disagree")

    place = ranks(sheet_images, all_texts)
    row_of = {item["name"]: row for row, item in enumerate(listed)}
    demo_place = ranks_of(demo_images @ all_texts.T, [row_of[name] for name in names])
    arrays: dict[str, Any] = {
        "pixel_values": demo_pixels[:PIXEL_PICTURES].numpy(),
        "input_ids": ids.numpy().astype(np.int32),
        "text_embeds": texts.numpy(),
        "demo_image_embeds": demo_images.numpy(),
        "sheet_image_embeds": sheet_images.numpy(),
        "logits_per_image": logits.numpy(),
        "logit_scale": model.logit_scale.detach().numpy(),
        "logit_bias": model.logit_bias.detach().numpy(),
    }
    weights = (checkpoint / "model.safetensors").read_bytes()
    return arrays, {
        "checkpoint_sha256": hashlib.sha256(weights).hexdigest(),
        "captions": captions,
        "demo": names,
        "demo_rank_of_right_name": demo_place,
        "pixel_values_of": names[:PIXEL_PICTURES],
        "sheet": {
            "pictures": len(listed),
            "top1": round((place == 0).float().mean().item(), 6),
            "top5": round((place < 5).float().mean().item(), 6),
        },
        "arrays": {name: [str(array.dtype), list(array.shape)] for name, array in arrays.items()},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "numpy": np.__version__,
            "pillow": PIL.__version__,
        },
    }


def ranks_of(similarity: torch.Tensor, right: list[int]) -> list[int]:
    """For each row, 1 + the number of columns that score above the right one."""
    rows = torch.arange(len(right))
    own = similarity[rows, torch.tensor(right)].unsqueeze(1)
    places: list[int] = ((similarity > own).sum(1) + 1).tolist()
    return places


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--heldout", type=Path, default=HERE / "heldout")
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    arrays, description = build(args.checkpoint, args.heldout)
    np.savez_compressed(args.out / "reference.npz", **arrays)
    text = json.dumps(description, indent=2, ensure_ascii=False)
    (args.out / "reference.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
