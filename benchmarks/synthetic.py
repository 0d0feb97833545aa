"""Writes a synthetic checkpoint with the layout of google/siglip-so400m-patch14-384.

Same config, same 888 tensor names, shapes and order, same byte count as the published ``model.safetensors``
(3,511,950,624), but seeded random weights: good for size, speed and memory, useless for accuracy.

    python -m benchmarks.synthetic benchmarks/work/synthetic-so400m-patch14-384
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sigrun.progress import Progress
from sigrun.spm import model_proto
from sigrun_exporters.checkpoint.huggingface import source_name, source_shape
from sigrun_exporters.tokenizer import read_spiece
from sigrun_recipes import Architecture, ImageTower, TensorSpec, default_model

PUBLISHED_BYTES = 3_511_950_624
PUBLISHED_TENSORS = 888
LOGIT_SCALE = 4.7215  # the published value
LOGIT_BIAS = -16.0  # invented: the published value is not known to us
FOLDER = Path(__file__).parent / "work" / "synthetic-so400m-patch14-384"
EMOJI = Path(__file__).parent.parent / "examples" / "emoji_siglip" / "emoji-siglip-patch10-60"


def main() -> int:
    """Write the checkpoint."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write(arguments.folder, arguments.seed)
    print(arguments.folder)
    return 0


def checkpoint() -> Path:
    """The benchmarks' checkpoint, written if it is not there yet."""
    weights = FOLDER / "model.safetensors"
    if not weights.exists() or weights.stat().st_size != PUBLISHED_BYTES:
        write(FOLDER)
    return FOLDER


def write(folder: Path, seed: int = 0) -> None:
    """Write the checkpoint into ``folder``; the weights last, so that a cut-off run is seen as incomplete."""
    folder.mkdir(parents=True, exist_ok=True)
    architecture = default_model().architecture
    for name, data in _settings(architecture).items():
        (folder / name).write_text(json.dumps(data, indent=2) + "\n", "utf-8")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nSynthetic weights.\n", "utf-8")
    (folder / "spiece.model").write_bytes(_tokenizer(architecture))
    _weights(folder / "model.safetensors", architecture, seed)


def _settings(architecture: Architecture) -> dict[str, object]:
    image, text = architecture.image, architecture.text
    assert image is not None and text is not None
    shared = {
        "hidden_size": image.width,
        "intermediate_size": image.mlp,
        "num_attention_heads": image.heads,
        "num_hidden_layers": image.layers,
    }
    return {
        "config.json": {
            "architectures": ["SiglipModel"],
            "initializer_factor": 1.0,
            "model_type": "siglip",
            "text_config": {**shared, "model_type": "siglip_text_model"},
            "torch_dtype": "float32",
            "vision_config": {
                **shared,
                "image_size": image.image_size,
                "model_type": "siglip_vision_model",
                "patch_size": image.patch_size,
            },
        },
        "preprocessor_config.json": preprocessor_config(image),
        "tokenizer_config.json": {"tokenizer_class": "SiglipTokenizer", "model_max_length": text.context},
    }


def preprocessor_config(image: ImageTower) -> dict[str, object]:
    """What ``preprocessor_config.json`` says of every SigLIP, for this tower's size."""
    return {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "image_processor_type": "SiglipImageProcessor",
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": image.image_size, "width": image.image_size},
    }


def _tokenizer(architecture: Architecture) -> bytes:
    """The bundled model's tokenizer, filled up with pieces that never match to the published vocabulary."""
    text = architecture.text
    assert text is not None
    small = read_spiece(
        (EMOJI / "spiece.model").read_bytes(), canonicalisation="hf", context=text.context, eos_id=1, pad_id=1
    )
    extra = text.vocabulary - len(small.pieces)
    filled = replace(
        small,
        pieces=(*small.pieces, *(f"<filler{i}>" for i in range(extra))),
        scores=np.concatenate([small.scores, np.full(extra, -100.0, np.float32)]),
        types=np.concatenate([small.types, np.full(extra, 5, np.int32)]),  # 5: unused
    )
    return model_proto(filled)


def _weights(path: Path, architecture: Architecture, seed: int) -> None:
    specs: dict[str, TensorSpec | None] = {"logit_scale": None, "logit_bias": None}
    shapes: dict[str, tuple[int, ...]] = {"logit_scale": (1,), "logit_bias": (1,)}
    for spec in architecture.tensors():
        name = source_name(spec)[0]
        specs[name] = spec
        shapes[name] = source_shape(spec, architecture.tower(spec.tower))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in sorted(shapes):
        stop = at + 4 * int(np.prod(shapes[name], dtype=np.int64))
        header[name] = {"dtype": "F32", "shape": list(shapes[name]), "data_offsets": [at, stop]}
        at = stop
    raw = json.dumps(header, separators=(",", ":")).encode("utf-8")
    raw += b" " * (-len(raw) % 8)
    rng = np.random.default_rng(seed)
    with path.open("wb") as file, Progress("writing random weights", at / 2**20, "MiB") as bar:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for name in sorted(shapes):
            _values(name, specs[name], shapes[name], rng).tofile(file)
            bar.advance(4 * int(np.prod(shapes[name], dtype=np.int64)) / 2**20)
    if len(shapes) != PUBLISHED_TENSORS or path.stat().st_size != PUBLISHED_BYTES:
        sys.exit(f"{path}: {len(shapes)} tensors, {path.stat().st_size:,} bytes: not the published layout")


def _values(
    name: str, spec: TensorSpec | None, shape: tuple[int, ...], rng: np.random.Generator
) -> NDArray[np.float32]:
    if spec is None:
        return np.full(shape, LOGIT_SCALE if name == "logit_scale" else LOGIT_BIAS, np.float32)
    values = rng.standard_normal(shape, np.float32)
    if spec.kind == "norm":
        values *= np.float32(0.1)
        if name.endswith(".weight"):
            values += np.float32(1.0)
    elif spec.kind in ("linear", "patch"):
        values *= np.float32(np.prod(shape[1:], dtype=np.int64) ** -0.5)
    else:
        values *= np.float32(0.02)
    return values


if __name__ == "__main__":
    raise SystemExit(main())
