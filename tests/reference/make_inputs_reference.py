"""Write tests/data/inputs_reference.npz and .json: what transformers makes of a few pictures and texts.

Needs the extra ``reference``. Run from the repository root: ``python tests/reference/make_inputs_reference.py``.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import PIL
import sentencepiece
import transformers
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import tests.torchvision_without_cuda  # noqa: F401
from sigrun.pixels import Preprocessing
from sigrun.spm import model_proto
from tests.real_tokenizer import DATA, real_spec

HALF = (0.5, 0.5, 0.5)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# name: (height and width of the picture, settings)
PICTURES = {
    "every-value": ((16, 16), Preprocessing(16, 16, HALF, HALF)),
    "every-value-imagenet": ((16, 16), Preprocessing(16, 16, *IMAGENET)),
    "smaller": ((61, 83), Preprocessing(24, 20, HALF, HALF)),
    "larger": ((7, 5), Preprocessing(24, 20, HALF, HALF)),
    "wide": ((5, 301), Preprocessing(24, 20, HALF, HALF)),
    "tall": ((301, 5), Preprocessing(24, 20, HALF, HALF)),
    "one-pixel": ((1, 1), Preprocessing(24, 20, HALF, HALF)),
    "bilinear": ((61, 83), Preprocessing(24, 20, *IMAGENET, resample="bilinear")),
}
RESAMPLE = {"bilinear": 2, "bicubic": 3}
TEXTS = [
    "a photo of a cat",
    "A Photo of a CAT.",
    "This is a photo of a red car at night.",
    "  leading and   trailing  ",
    "- a dash first",
    "! exclamation first, then words",
    "golden_retriever",
    "x-ray of a hand",
    "don't stop",
    "naïve café",
    "Ελληνικά ΣΟΦΟΣ",
    "ﬁne ½ ① Ａ",
    "a▁b ▁ c",
    "tabs\tand\nlines\r\nand\x0bmore",
    "zero\u200bwidth\ufeffmarks",
    "control\x01\x02characters\x7f",
    "日本の写真、桜と富士山",
    "👩‍👩‍👧‍👦 family 🏳️‍🌈",
    "1,000,000 dollars (USD) @ 5%",
    "a" * 300,
    "word " * 100,
    "anticonstitutionnellement " * 9,
]


def gradient(height: int, width: int) -> np.ndarray:
    """A picture that anybody can make again: uint8 [height, width, 3]."""
    y, x = np.mgrid[:height, :width]
    if (height, width) == (16, 16):
        return np.stack([16 * y + x, 255 - 16 * y - x, 16 * x + y], axis=-1).astype(np.uint8)
    return np.stack([13 * x + 7 * y, 3 * x + 17 * y, 19 * x + 5 * y], axis=-1).astype(np.uint8)  # modulo 256


def write_pixels() -> None:
    arrays: dict[str, np.ndarray] = {"names": np.array(json.dumps(list(PICTURES)))}
    for name, (shape, settings) in PICTURES.items():
        processor = transformers.SiglipImageProcessor(
            size={"height": settings.height, "width": settings.width},
            resample=RESAMPLE[settings.resample],
            rescale_factor=0.00392156862745098,
            image_mean=list(settings.mean),
            image_std=list(settings.std),
        )
        picture = gradient(*shape)
        result = processor(Image.fromarray(picture), return_tensors="np", input_data_format="channels_last")[
            "pixel_values"
        ][0]
        arrays[f"{name}.preprocessing"] = np.array(json.dumps(settings.to_json()))
        arrays[f"{name}.picture"] = picture
        arrays[f"{name}.pixels"] = result
    np.savez_compressed(DATA / "inputs_reference.npz", **arrays)


def write_ids() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spiece.model"
        path.write_bytes(model_proto(real_spec()))
        tokenizer = transformers.SiglipTokenizer(str(path), model_max_length=64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ids = [
                tokenizer(text, padding="max_length", truncation=True, max_length=64)["input_ids"]
                for text in TEXTS
            ]
    made_with = {module.__name__: module.__version__ for module in (transformers, sentencepiece, PIL, np)}
    cases = [json.dumps({"text": text, "ids": row}) for text, row in zip(TEXTS, ids, strict=True)]
    content = f'{{"made_with": {json.dumps(made_with)},\n"cases": [\n' + ",\n".join(cases) + "\n]}\n"
    (DATA / "inputs_reference.json").write_text(content, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write_pixels()
    write_ids()
