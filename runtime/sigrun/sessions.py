"""One ONNX Runtime session a tower, its weights unpacked from the artifact into the graph's form."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from sigrun.artifact import Artifact
from sigrun.errors import ArtifactError, ProviderError
from sigrun.int8 import largest
from sigrun.manifest import Packing, TowerName

FORMS = ("exact", "int8")
Array = NDArray[np.float32] | NDArray[np.uint8] | NDArray[np.int8]
EXTERNAL = Path(__file__).parent / "external"
PROVIDERS = {"cpu": "CPUExecutionProvider"}
EMBEDDING: dict[TowerName, str] = {"image": "image_embeds", "text": "text_embeds"}


def physical_threads() -> int:
    """Threads worth using: the CPUs this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity is not None else os.cpu_count()
    return max(1, count or 1)


class TowerSession:
    """A tower that runs.

    Args:
        artifact: the open file.
        tower: ``image`` or ``text``.
        form: the compute form.
        threads: threads within one run.

    Attributes:
        width: length of an embedding.
        tokens: tokens of one picture or text inside the tower.

    Raises:
        ArtifactError: the graph or a weight in the file is unusable.
        ProviderError: ONNX Runtime refuses the graph.
    """

    def __init__(self, artifact: Artifact, tower: TowerName, form: str, threads: int) -> None:
        self.tower = tower
        self.form = form
        graph = artifact.graph(tower, form)
        weights = artifact.manifest.graphs[tower][form]
        arrays = _unpack(artifact, list(weights.items()), threads)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Memory patterns would keep the largest buffers of every batch size seen, and make nothing faster here.
        options.enable_mem_pattern = False
        self._weights = _hand_over(options, arrays, in_place=form == "exact")
        try:
            self._session = ort.InferenceSession(
                graph,
                options,
                providers=[PROVIDERS["cpu"]],
                # Folding constants would read weights from the file that the graph names, which is empty.
                disabled_optimizers=["ConstantFolding"],
            )
        except Exception as error:  # ONNX Runtime raises classes of its own that share no public base
            raise ProviderError(
                f"{artifact.path}: ONNX Runtime {ort.__version__} cannot load the {tower} tower: {error}",
                hint="update ONNX Runtime (pip install -U onnxruntime), or export the model again",
            ) from error
        first = self._session.get_inputs()[0]
        shapes = {output.name: output.shape for output in self._session.get_outputs()}
        self._outputs = set(shapes)
        self._input: str = first.name
        self.width: int = shapes[EMBEDDING[tower]][-1]
        self.tokens: int = (shapes["last_hidden_state"] if tower == "image" else first.shape)[1]

    def embed(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings of a batch: float32 [n, width], unit length."""
        return self.run(batch, EMBEDDING[self.tower])

    def run(self, batch: NDArray[np.float32], output: str) -> NDArray[np.float32]:
        """Run the tower on a batch and give one output, float32 [n, ...]."""
        if output not in self._outputs:
            raise ArtifactError(f"the {self.tower} graph has no output '{output}'")
        result: NDArray[np.float32] = self._session.run([output], {self._input: batch})[0]
        return result


def _hand_over(options: ort.SessionOptions, arrays: dict[str, Array], *, in_place: bool) -> list[object]:
    """Give a session its weights; the result must live as long as the session.

    In place, the session works on these very arrays. Otherwise it copies them into the graph: the way for kernels
    that lay weights out anew anyway, after which ONNX Runtime frees its copy.
    """
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in arrays.values()]
    if not in_place:
        options.add_external_initializers(list(arrays), values)
        return []
    for name, value in zip(arrays, values, strict=True):
        options.add_initializer(name, value)
    # The graph calls its weights external, in a file "weights". They all come from the arrays; the file must only be
    # there, and is empty, so that reading from it would fail loudly.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(EXTERNAL))
    return [values, arrays]


def _unpack(artifact: Artifact, weights: list[tuple[str, Packing]], threads: int) -> dict[str, Array]:
    """Every initializer of a graph, by name; tensors are unpacked side by side."""
    most = largest() if any(packing == "int8" for _, packing in weights) else 0

    def one(entry: tuple[str, Packing]) -> list[tuple[str, Array]]:
        unpacked = list(_initializers(artifact, *entry, most))
        artifact.release(entry[0])
        return unpacked

    with ThreadPoolExecutor(threads) as pool:
        return {name: array for part in pool.map(one, weights) for name, array in part}


def _initializers(artifact: Artifact, name: str, packing: Packing, most: int) -> Iterator[tuple[str, Array]]:
    if packing == "dense":
        yield name, artifact.dense(name)
    elif packing == "nbits":
        for part, array in artifact.nbits(name).parts().items():
            yield f"{name}.{part}", array
    else:
        rounded = artifact.int8(name, most)
        yield f"{name}.int8", rounded.q
        yield f"{name}.int8_scales", rounded.scales
