"""Makes the files that other runtimes run, one step a process; called by ``files``.

    python -m benchmarks.today.convert onnx CHECKPOINT FOLDER INPUTS

Steps of ``.venv-reference`` write ONNX files, one a tower, their weights beside them; those of ``.venv-openvino`` read
these and write OpenVINO's. Each imports what it needs and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.today.given import TOWERS, read

PARTS = {"image": ("pixel_values", "image_embeds"), "text": ("input_ids", "text_embeds")}
"""Tower → input and output of optimum's export."""
WEIGHTS = ".data"
"""What the name of a file with a model's weights ends with."""


def main() -> int:
    """Run one step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=STEPS)
    parser.add_argument(
        "source", type=Path, help="what the step reads: a checkpoint, or the folder of an earlier step"
    )
    parser.add_argument("folder", type=Path, help="where it writes")
    parser.add_argument("inputs", type=Path, help="the drawn pictures and texts")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")  # the tools' own, about their own code
    logging.disable(logging.WARNING)
    STEPS[chosen.step](chosen.source, chosen.folder, chosen.inputs)
    return 0


def _optimum(checkpoint: Path, folder: Path, inputs: Path) -> None:
    """Optimum's float32 export, split into its towers."""
    import onnx
    from onnx.utils import Extractor

    sys.modules.setdefault("torchvision", None)  # type: ignore[arg-type]  # transformers needs none here
    from optimum.exporters.onnx import main_export

    joint = folder / "joint"
    with contextlib.redirect_stdout(sys.stderr):
        main_export(str(checkpoint), joint, task="zero-shot-image-classification", do_validation=False)
    for tower, (given, wanted) in PARTS.items():
        whole = onnx.load(joint / "model.onnx", load_external_data=False)
        part = Extractor(whole).extract_model([given], [wanted])
        del whole
        onnx.load_external_data_for_model(part, str(joint))
        _save(part, folder / f"{tower}.onnx")
    shutil.rmtree(joint)


def _save(model: Any, path: Path) -> None:
    """Write a model and, beside it, its weights."""
    import onnx

    onnx.save(
        model,
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=f"{path.name}{WEIGHTS}",
        size_threshold=1024,
    )


def _dynamic(source: Path, folder: Path, inputs: Path) -> None:
    """ONNX Runtime's dynamic quantization: MatMul only, signed 8-bit weights, unsigned 8-bit activations."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    for tower in TOWERS:
        quantize_dynamic(
            source / f"{tower}.onnx",
            folder / f"{tower}.onnx",
            op_types_to_quantize=["MatMul"],
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
            extra_options={"MatMulConstBOnly": True},
        )


def _nbits(block: int) -> Callable[[Path, Path, Path], None]:
    def quantize(source: Path, folder: Path, inputs: Path) -> None:
        """ONNX Runtime's MatMulNBits, 4 bits, symmetric, activations in 8 bits (accuracy level 4)."""
        import onnx
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        for tower in TOWERS:
            quantizer = MatMulNBitsQuantizer(
                onnx.load(source / f"{tower}.onnx"),
                bits=4,
                block_size=block,
                is_symmetric=True,
                accuracy_level=4,
            )
            quantizer.process()
            _save(quantizer.model.model, folder / f"{tower}.onnx")

    return quantize


def _openvino(source: Path, folder: Path, inputs: Path) -> None:
    """OpenVINO's own files of the float32 export, weights as they are; every axis but the batch is fixed."""
    import openvino

    given = read(inputs)
    for tower in TOWERS:
        model = openvino.Core().read_model(source / f"{tower}.onnx")
        model.reshape(openvino.PartialShape([-1, *given.items(tower).shape[1:]]))
        openvino.save_model(model, folder / f"{tower}.xml", compress_to_fp16=False)


def _weights_only(source: Path, folder: Path, inputs: Path) -> None:
    """NNCF's compression of the weights to 8 bits, as OpenVINO's exporters do by default."""
    import nncf
    import openvino

    for tower in TOWERS:
        model = openvino.Core().read_model(source / f"{tower}.xml")
        openvino.save_model(nncf.compress_weights(model), folder / f"{tower}.xml", compress_to_fp16=False)


def _post_training(source: Path, folder: Path, inputs: Path) -> None:
    """NNCF's post-training quantization, weights and activations in 8 bits, fitted to a few pictures and texts."""
    import nncf
    import openvino

    given = read(inputs)
    for tower in TOWERS:
        model = openvino.Core().read_model(source / f"{tower}.xml")
        rows = [row[None] for row in given.calibration(tower)]
        quantized = nncf.quantize(
            model, nncf.Dataset(rows), subset_size=len(rows), model_type=nncf.ModelType.TRANSFORMER
        )
        openvino.save_model(quantized, folder / f"{tower}.xml", compress_to_fp16=False)


def _open_clip(checkpoint: Path, folder: Path, inputs: Path) -> None:
    """The checkpoint under OpenCLIP's names."""
    import numpy as np
    from safetensors.numpy import save_file

    from sigrun_exporters.checkpoint import open_checkpoint, timm_towers
    from sigrun_exporters.checkpoint.openclip import text_place

    opened = open_checkpoint(str(checkpoint))
    image, scoring = opened.architecture.image, opened.scoring
    assert image is not None and scoring is not None
    state = {
        "logit_scale": np.array(scoring.logit_scale, np.float32),
        "logit_bias": np.array(scoring.logit_bias, np.float32),
    }
    for spec in opened.architecture.tensors():
        place = timm_towers.place(spec, image, "visual.trunk.") if spec.tower == "image" else text_place(spec)
        values = opened.read(spec.name)
        if place.part is None:
            state[place.name] = values.reshape(place.shape)
        else:
            whole = state.setdefault(place.name, np.empty(place.shape, np.float32))
            whole[place.part * len(values) : (place.part + 1) * len(values)] = values
    save_file(state, folder / "open_clip_model.safetensors")


STEPS: dict[str, Callable[[Path, Path, Path], None]] = {
    "onnx": _optimum,
    "dynamic": _dynamic,
    "nbits32": _nbits(32),
    "nbits128": _nbits(128),
    "open_clip": _open_clip,
    "openvino": _openvino,
    "openvino_weights": _weights_only,
    "openvino_quantized": _post_training,
}


if __name__ == "__main__":
    sys.exit(main())
