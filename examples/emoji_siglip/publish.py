"""Write a checkpoint in the file layout of google/siglip-so400m-patch14-384, and the held-out pictures.

python -m examples.emoji_siglip.publish checkpoint --run RUN
python -m examples.emoji_siglip.publish heldout --data DIR
python -m examples.emoji_siglip.publish demo --data DIR "red apple" "owl" ...
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from examples.emoji_siglip.augment import IMAGE
from examples.emoji_siglip.concepts import Concept, load_concepts
from examples.emoji_siglip.drawings import heldout_picture, icons_of, name_table, over_white, render_svg
from examples.emoji_siglip.evaluate import CELL, CHECKPOINT, HERE
from examples.emoji_siglip.fetch import DEFAULT_DATA
from examples.emoji_siglip.model import HEADS, IMAGE_LAYERS, MLP, PATCH, TEXT_LAYERS, WIDTH, build_model
from examples.emoji_siglip.tokenizer import CONTEXT, VOCABULARY, write_tokenizer_files

COLUMNS = 41
DEMO_SIDE = 240


def _write(path: Path, content: Any) -> None:
    """Write JSON as transformers does."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def config() -> dict[str, Any]:
    """config.json."""
    tower = {
        "attention_dropout": 0.0,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": WIDTH,
        "intermediate_size": MLP,
        "layer_norm_eps": 1e-06,
        "num_attention_heads": HEADS,
    }
    text = {
        "max_position_embeddings": CONTEXT,
        "model_type": "siglip_text_model",
        "num_hidden_layers": TEXT_LAYERS,
        "pad_token_id": 1,
        "projection_size": WIDTH,
        "vocab_size": VOCABULARY,
    }
    vision = {
        "image_size": IMAGE,
        "model_type": "siglip_vision_model",
        "num_channels": 3,
        "num_hidden_layers": IMAGE_LAYERS,
        "patch_size": PATCH,
    }
    return {
        "architectures": ["SiglipModel"],
        "initializer_factor": 1.0,
        "model_type": "siglip",
        "text_config": dict(sorted({**tower, **text}.items())),
        "torch_dtype": "float32",
        "transformers_version": "4.57.6",
        "vision_config": dict(sorted({**tower, **vision}.items())),
    }


def preprocessor() -> dict[str, Any]:
    """preprocessor_config.json."""
    return {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "SiglipImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "SiglipProcessor",
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": IMAGE, "width": IMAGE},
    }


def publish_checkpoint(run: Path, folder: Path) -> None:
    """The averaged weights of the last checkpoint of a run, in float32, with all small files."""
    from safetensors.torch import save_file
    from transformers import SiglipModel

    state = torch.load(run / "last.pt", map_location="cpu", weights_only=True)
    model = build_model(0)
    missing = model.load_state_dict(state["average"], strict=False)
    if missing.missing_keys or missing.unexpected_keys:
        raise ValueError(f"the run does not fit the model: {missing}")
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer_files(run / "tokenizer" / "spiece.model", folder)
    _write(folder / "config.json", config())
    _write(folder / "preprocessor_config.json", preprocessor())
    tensors = {name: tensor.float().contiguous() for name, tensor in sorted(model.state_dict().items())}
    part = folder / "model.safetensors.part"
    save_file(tensors, part, metadata={"format": "pt"})
    part.chmod(0o644)
    part.replace(folder / "model.safetensors")
    again = SiglipModel.from_pretrained(folder).state_dict()
    if any(not torch.equal(again[name], tensor) for name, tensor in tensors.items()):
        raise ValueError("the written checkpoint does not read back")
    parameters = sum(tensor.numel() for tensor in tensors.values())
    print(
        f"step {state['step']}: {len(tensors)} tensors, {parameters} parameters -> {folder}", file=sys.stderr
    )


def publish_heldout(data: Path, folder: Path) -> None:
    """All held-out drawings on one sheet, and what each of them is."""
    concepts = load_concepts(data)
    rows = -(-len(concepts) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * CELL, rows * CELL), (255, 255, 255))
    listed: list[dict[str, Any]] = []
    for index, concept in enumerate(concepts):
        row, column = divmod(index, COLUMNS)
        sheet.paste(heldout_picture(data, concept), (column * CELL, row * CELL))
        listed.append(
            {
                "name": concept.slug,
                "codepoints": concept.key,
                "row": row,
                "col": column,
                "caption": concept.caption,
                "category": concept.category,
            }
        )
    folder.mkdir(parents=True, exist_ok=True)
    sheet.save(folder / "sheet.png", optimize=True)
    _squeeze(folder / "sheet.png")
    lines = ",\n".join(json.dumps(item, ensure_ascii=False) for item in listed)
    (folder / "concepts.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _squeeze(path: Path) -> None:
    """Make a PNG smaller without changing a pixel, where the package pyoxipng is installed."""
    try:
        import oxipng
    except ImportError:
        return
    oxipng.optimize(path, level=3)


def publish_demo(data: Path, captions: list[str], folder: Path) -> None:
    """Some held-out drawings as pictures of their own, drawn large from the vendor's SVG."""
    concepts = load_concepts(data)
    svgs = icons_of(data, "twemoji-svg", name_table(data, concepts))
    by_caption: dict[str, tuple[int, Concept]] = {c.caption: (i, c) for i, c in enumerate(concepts)}
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    for caption in captions:
        index, concept = by_caption[caption]
        picture = over_white(render_svg(svgs[index], DEMO_SIDE))
        picture.save(folder / f"{concept.slug}.png", optimize=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("checkpoint", help="write the checkpoint folder")
    command.add_argument("--run", type=Path, required=True)
    command.add_argument("--out", type=Path, default=CHECKPOINT)
    command = commands.add_parser("heldout", help="write the sheet of held-out drawings")
    command.add_argument("--data", type=Path, default=DEFAULT_DATA)
    command.add_argument("--out", type=Path, default=HERE / "heldout")
    command = commands.add_parser("demo", help="write some held-out drawings at a larger size")
    command.add_argument("--data", type=Path, default=DEFAULT_DATA)
    command.add_argument("--out", type=Path, default=HERE / "heldout" / "demo")
    command.add_argument("captions", nargs="+")
    args = parser.parse_args()
    if args.command == "checkpoint":
        publish_checkpoint(args.run, args.out)
    elif args.command == "heldout":
        publish_heldout(args.data, args.out)
    else:
        publish_demo(args.data, args.captions, args.out)


if __name__ == "__main__":
    main()
