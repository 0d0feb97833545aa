"""One ONNX Runtime session a tower, its weights unpacked from the artifact into the graph's form."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigrun.allocation import large_go_back
from sigrun.artifact import Artifact
from sigrun.errors import ArtifactError, ProviderError
from sigrun.forking import keep_for_ever, watch
from sigrun.int8 import largest
from sigrun.manifest import Packing, StoredGraph, TowerName
from sigrun.nbits import Pieces
from sigrun.onnx_runtime import onnxruntime
from sigrun.prepared import MATRICES, Matrices, Prepared, prepare
from sigrun.providers import CPU, Attached, Provider, attach, verify

Array = NDArray[np.float32] | NDArray[np.float16] | NDArray[np.uint8] | NDArray[np.int8]
EXTERNAL = Path(__file__).parent / "external"
_NO_MEMORY = re.compile("bad_alloc|failed to allocate|out of memory", re.IGNORECASE)
EMBEDDING: dict[TowerName, str] = {"image": "image_embeds", "text": "text_embeds"}


def session_options(threads: int) -> Any:
    """ONNX Runtime's options as every session of ours has them."""
    options = onnxruntime().SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised; it need not be printed too
    # Memory patterns would keep the largest buffers of every batch size seen, and make nothing faster here.
    options.enable_mem_pattern = False
    return options


class TowerSession:
    """A tower that runs.

    Args:
        artifact: the open file.
        tower: ``image`` or ``text``.
        form: the compute form.
        threads: threads within one run.
        graph: a serialized graph and how it takes the weights, to be run with the file's weights instead of the graph
            that the file holds for ``form``.
        provider: where it runs.
        automatic: the user did not name the provider.
        optimised: let ONNX Runtime rewrite the graph for speed. Without, nodes are computed as they stand there, one
            after the other.
        cache: the folder in which int8 matrices are kept from one process to the next, or none.

    Attributes:
        device: which device of the provider it runs on.
        width: length of an embedding.
        tokens: tokens of one picture or text inside the tower.

    Raises:
        ArtifactError: the graph or a weight in the file is unusable.
        ProviderError: ONNX Runtime refuses the graph, or does not run it with the provider.
    """

    def __init__(
        self,
        artifact: Artifact,
        tower: TowerName,
        form: str,
        threads: int,
        graph: tuple[bytes, StoredGraph] | None = None,
        *,
        provider: Provider = CPU,
        automatic: bool = False,
        optimised: bool = True,
        cache: Path | None = None,
    ) -> None:
        self.tower = tower
        self.form = form
        self.provider = provider
        self._automatic = automatic
        self._process = os.getpid()
        self._where = artifact.path
        self._attach(session_options(threads))  # first: without it there is nothing to unpack for
        if graph is None:
            graph = artifact.graph(tower, form), artifact.manifest.graphs[tower][form]
        with large_go_back():
            self._load(artifact, graph, threads, optimised, cache)
        self.width, self.tokens = self._check_shapes()
        self._input: str = self._session.get_inputs()[0].name
        artifact.release()
        watch(self)

    def after_fork(self) -> None:
        """In a forked child: of no use any more, and not to be destroyed."""
        keep_for_ever(self)

    def _load(
        self,
        artifact: Artifact,
        graph: tuple[bytes, StoredGraph],
        threads: int,
        optimised: bool,
        cache: Path | None,
    ) -> None:
        """Unpack the weights and make the session."""
        model, takes = graph
        matrices = _matrices(artifact, model, takes.weights, threads)
        prepared = prepare(matrices, cache) if matrices is not None else None
        rest = {n: p for n, p in takes.weights.items() if prepared is None or p != "int8"}
        arrays = _unpack(artifact, list(rest.items()), takes.pieces, threads)
        if prepared is not None:
            arrays |= {f"{name}.int8_scales": array for name, array in prepared.scales.items()}
        try:
            self._create(model, threads, arrays, prepared, optimised)
        except ProviderError:
            if matrices is None or prepared is None or prepared.temporary:
                raise
            # Another process may have dropped the folder from the cache before it was opened.
            self._create(model, threads, arrays, prepare(matrices, None), optimised)

    def _create(
        self,
        model: bytes,
        threads: int,
        arrays: dict[str, Array],
        prepared: Prepared | None,
        optimised: bool,
    ) -> None:
        """Make the session.

        Raises:
            ProviderError: ONNX Runtime refuses the graph or its weights.
        """
        ort = onnxruntime()
        options = session_options(threads)
        if not optimised:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            # In the order of the graph: by default all nodes come first that take nothing but weights.
            options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
        try:
            attached = self._attach(options)
            held = _hand_over(options, arrays, prepared.folder if prepared else None, optimised)
            session = ort.InferenceSession(
                model,
                options,
                providers=attached.providers,
                # Folding constants would read weights from the file that the graph names, which is empty.
                disabled_optimizers=["ConstantFolding"],
                enable_fallback=0,  # no other provider in silence
            )
            verify(session, self.provider)
        except ProviderError as error:
            raise error.at(f"{self._where}: the {self.tower} tower") from error
        except Exception as error:  # ONNX Runtime raises classes of its own that share no public base
            raise ProviderError(
                f"{self._where}: ONNX Runtime {ort.__version__} cannot load the {self.tower} tower"
                f"{self._with()}: {error}",
                hint=_for_want_of_memory(error)
                or (
                    "update ONNX Runtime (pip install -U onnxruntime), or export the model again"
                    if self.provider is CPU
                    else "use another form or provider, such as provider cpu"
                ),
            ) from error
        finally:
            if prepared is not None:
                prepared.done()
        self._session = session
        self.device = attached.device
        self._weights = held, prepared  # given up after the session that uses them

    def _attach(self, options: Any) -> Attached:
        try:
            return attach(options, self.provider, automatic=self._automatic)
        except ProviderError as error:
            raise error.at(f"{self._where}: the {self.tower} tower") from error

    def _check_shapes(self) -> tuple[int, int]:
        """Width of an embedding and tokens of an item, read off the graph; it must be a graph of this tower."""
        first = self._session.get_inputs()[0]
        shapes: dict[str, list[int | str]] = {o.name: o.shape for o in self._session.get_outputs()}
        embedding = shapes.get(EMBEDDING[self.tower], [])
        by_token = shapes.get("last_hidden_state", []) if self.tower == "image" else first.shape
        ranks = (len(first.shape), len(embedding), len(by_token))
        if ranks != ((4, 2, 3) if self.tower == "image" else (3, 2, 3)):
            raise ArtifactError(
                f"{self._where}: the graph of form '{self.form}' is not one of an {self.tower} tower"
            )
        width, tokens = embedding[1], by_token[1]
        if not isinstance(width, int) or not isinstance(tokens, int):
            raise ArtifactError(
                f"{self._where}: the {self.tower} graph of form '{self.form}' has no fixed sizes"
            )
        return width, tokens

    def embed(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings of a batch: float32 [n, width], unit length."""
        return self.run(batch, EMBEDDING[self.tower])

    def run(self, batch: NDArray[np.float32], output: str) -> NDArray[np.float32]:
        """Run the tower on a batch and give one output, float32 [n, ...]; see :meth:`run_many`."""
        return self.run_many(batch, (output,))[0]

    def run_many(
        self, batch: NDArray[np.float32], outputs: tuple[str, ...]
    ) -> tuple[NDArray[np.float32], ...]:
        """Run the tower on a batch and give some outputs of it, each float32 [n, ...].

        Raises:
            ProviderError: ONNX Runtime fails, or the process was forked from the one that loaded the tower.
            ArtifactError: a result holds values that are no numbers: the file's weights are unusable.
        """
        if self._process != os.getpid():
            raise ProviderError(
                f"{self._where}: the {self.tower} tower was loaded before this process was forked",
                hint="begin anew what was going on before the fork: the model loads its towers again",
            )
        try:
            results: list[NDArray[np.float32]] = self._session.run(list(outputs), {self._input: batch})
        except Exception as error:  # see above
            raise ProviderError(
                f"{self._where}: ONNX Runtime cannot run the {self.tower} tower{self._with()}: {error}",
                hint=_for_want_of_memory(error),
            ) from error
        if not all(np.isfinite(result).all() for result in results):
            raise ArtifactError(
                f"{self._where}: the {self.tower} tower gives values that are no numbers{self._with()}",
                hint="its weights are unusable: export the model again"
                if self.form == "exact"
                else "use another compute form, such as exact",
            )
        return tuple(results)

    def _with(self) -> str:
        return "" if self.provider is CPU else f" in form '{self.form}' with provider '{self.provider.name}'"


def _for_want_of_memory(error: Exception) -> str | None:
    """The way out where ONNX Runtime failed for want of memory, which it says in words alone."""
    if not _NO_MEMORY.search(str(error)):
        return None
    return (
        "there is not enough memory: close other programs or take a smaller variant; hwcheck says what fits"
    )


def _hand_over(options: Any, arrays: dict[str, Array], folder: Path | None, optimised: bool) -> list[object]:
    """Give a session its weights; the result must live as long as the session.

    Where kernels multiply by the arrays as they are, the session works on these very arrays. Matrices that kernels
    lay out anew are copied into the graph, of which ONNX Runtime keeps its own layout only; views of the file cost
    nothing to keep.
    """
    if not (EXTERNAL / "weights").is_file():
        raise ProviderError(
            f"{EXTERNAL / 'weights'}, an empty file that belongs to the package sigrun, is missing",
            hint="install sigrun again; when freezing an app, collect sigrun's package data",
        )
    # The graph calls its weights external, in a file "weights". They all come from the arrays; the file must only be
    # there, and is empty, so that reading from it would fail loudly. Int8 matrices lie in another file, which a
    # prepared folder has; without such a folder they are among the arrays.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(folder or EXTERNAL)
    )
    ort = onnxruntime()
    copied = {name: a for name, a in arrays.items() if _laid_out_anew(name, a, optimised) and _in_memory(a)}
    options.add_external_initializers(
        list(copied), [ort.OrtValue.ortvalue_from_numpy(a) for a in copied.values()]
    )
    kept = {
        name: (a, ort.OrtValue.ortvalue_from_numpy(a)) for name, a in arrays.items() if name not in copied
    }
    for name, (_, value) in kept.items():
        options.add_initializer(name, value)
    return list(kept.values())


def _in_memory(array: Array) -> bool:
    """Whether an array has memory of its own, be it as a view; otherwise it is a view of the mapped file."""
    base: object = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    return isinstance(base, np.ndarray)


def _laid_out_anew(name: str, array: Array, optimised: bool) -> bool:
    """Dense and int8 matrices; what MatMulNBits takes is used as it is. All of float16 where the graph is optimised:
    for the CPU, which has no kernels for it, ONNX Runtime makes float32 of it inside the graph."""
    if array.dtype == np.float16:
        return optimised
    if array.dtype == np.int8:
        return True
    return (
        array.dtype == np.float32 and array.ndim == 2 and not name.endswith((".scales", ".zeros", ".minima"))
    )


def _matrices(
    artifact: Artifact, model: bytes, weights: Mapping[str, Packing], threads: int
) -> Matrices | None:
    """The int8 matrices of a graph that takes them from a file; graphs of earlier exports do not."""
    names = [name for name, packing in weights.items() if packing == "int8"]
    if not names or MATRICES.encode() not in model:
        return None
    return Matrices(artifact, names, largest(), threads)


def _unpack(
    artifact: Artifact, weights: list[tuple[str, Packing]], pieces: Mapping[str, Pieces], threads: int
) -> dict[str, Array]:
    """Every initializer of a graph, by name; tensors are unpacked side by side."""
    most = largest() if any(packing == "int8" for _, packing in weights) else 0

    def one(entry: tuple[str, Packing]) -> list[tuple[str, Array]]:
        unpacked = list(_initializers(artifact, *entry, pieces.get(entry[0]), most))
        artifact.release(entry[0])
        return unpacked

    with ThreadPoolExecutor(threads) as pool:
        return {name: array for part in pool.map(one, weights) for name, array in part}


def _initializers(
    artifact: Artifact, name: str, packing: Packing, pieces: Pieces | None, most: int
) -> Iterator[tuple[str, Array]]:
    if packing == "dense":
        yield name, artifact.dense(name)
    elif packing == "dense16":
        with np.errstate(
            over="ignore"
        ):  # a weight that float16 cannot hold shows in the result, which is checked
            yield name, artifact.dense(name).astype(np.float16)
    elif packing in ("nbits", "nbits16"):
        for part, array in artifact.nbits_initializers(name, pieces, half=packing == "nbits16").items():
            yield f"{name}.{part}", array
    else:
        rounded = artifact.int8(name, most)
        yield f"{name}.int8", rounded.q
        yield f"{name}.int8_scales", rounded.scales
