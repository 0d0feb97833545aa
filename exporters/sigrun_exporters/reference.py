"""A checkpoint's own function in float32, run layer by layer through ONNX Runtime.

A checkpoint may be far larger than memory allows. So the layers are the outer loop: each layer's weights are read once
for a whole group of pictures or texts, whose hidden states wait in memory, and let go of before the next is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigrun.cpus import default_threads
from sigrun.errors import CheckpointError, ProviderError
from sigrun.onnx_runtime import onnxruntime
from sigrun.providers import CPU
from sigrun.sessions import session_options
from sigrun_exporters.checkpoint import Checkpoint
from sigrun_exporters.graph.segments import Segment, SegmentName, segments
from sigrun_recipes import Plan, TowerName, load, plan

Floats = NDArray[np.float32]
Observer = Callable[[str, Floats], None]
"""Called with the GGUF name of a linear layer's matrix and rows that it multiplies, float32 [n, columns]."""

MICRO_BATCH_TOKENS = 1024
"""Tokens run at once; larger batches are no faster and hold more memory."""
GROUP_BYTES = 256 * 2**20
"""What the hidden states of a group may take."""
TABLE = "t.token_embd.weight"


class Reference:
    """A checkpoint's own function in float32.

    Equal input gives equal bytes on the same machine: micro-batches are cut by position, whatever the groups.

    Args:
        checkpoint: the opened source.
        threads: threads within one run; by default one for each CPU that the process may use.
    """

    def __init__(self, checkpoint: Checkpoint, *, threads: int | None = None) -> None:
        self._checkpoint = checkpoint
        self._threads = threads or default_threads()
        self._plan = plan(load("f32"), checkpoint.architecture)
        self._latest: tuple[TowerName, _Tower] | None = None

    def images(
        self,
        pixels: Sequence[Floats],
        *,
        observe: Observer | None = None,
        progress: Callable[[float], object] | None = None,
    ) -> Floats:
        """Embed pictures.

        Args:
            pixels: what the image tower takes, float32 [3, size, size] each; slices of it are asked for in turn and
                once, so that it may be made as it is needed.
            observe: is shown the rows that each linear layer multiplies.
            progress: called with the number of pictures done since the last call, of which a part is a fraction.

        Returns:
            float32 [n, width], unit length.

        Raises:
            CheckpointError: a weight cannot be read, or the result is not a number.
            ProviderError: ONNX Runtime fails.
        """
        return self._run("image", len(pixels), lambda at: np.stack(pixels[at]), observe, progress)

    def texts(
        self,
        ids: NDArray[np.int64],
        *,
        observe: Observer | None = None,
        progress: Callable[[float], object] | None = None,
    ) -> Floats:
        """Embed texts.

        Args:
            ids: token ids, int64 [n, context].
            observe, progress: as for :meth:`images`.

        Returns:
            float32 [n, projection], unit length.

        Raises:
            CheckpointError, ProviderError: as for :meth:`images`.
        """
        self._tower("text")  # lets the other tower's memory go before the table is read
        distinct, places = np.unique(ids, return_inverse=True)
        places = places.reshape(ids.shape)  # [n, context]
        rows = self._checkpoint.read(TABLE)[distinct] if len(ids) else np.empty(0, np.float32)
        return self._run("text", len(ids), lambda at: rows[places[at]], observe, progress)

    def group(self, tower: TowerName) -> int:
        """Pictures or texts whose hidden states are in memory together: whole micro-batches."""
        micro = self._tower(tower).micro_batch
        return max(1, GROUP_BYTES // (micro * self._tower(tower).item_bytes)) * micro

    def _tower(self, name: TowerName) -> _Tower:
        """The tower's sessions; those of one tower are kept, because they hold on to memory."""
        if self._latest is None or self._latest[0] != name:
            self._latest = None
            self._latest = name, _Tower.of(self._plan, name, self._threads)
        return self._latest[1]

    def _run(
        self,
        name: TowerName,
        count: int,
        batch: Callable[[slice], Floats],
        observe: Observer | None,
        progress: Callable[[float], object] | None,
    ) -> Floats:
        tower = self._tower(name)
        size = self.group(name)
        parts = [np.empty((0, tower.width), np.float32)]
        for start in range(0, count, size):
            stop = min(start + size, count)
            places = [
                slice(at, min(at + tower.micro_batch, stop)) for at in range(start, stop, tower.micro_batch)
            ]
            hidden: list[Floats] = []
            for number, step in enumerate(tower.steps()):
                weights = {own: self._checkpoint.read(full) for own, full in step.names.items()}
                for i, place in enumerate(places):
                    x = hidden[i] if number else batch(place)
                    hidden[i : i + 1] = [step.session.run(x, weights, step.names, observe)]
                    if progress is not None:
                        progress((place.stop - place.start) / tower.count)
                del weights  # before the next are read
            parts += hidden
        result = np.concatenate(parts)
        if not np.isfinite(result).all():
            raise CheckpointError(
                f"{self._checkpoint.name}: the {name} tower gives values that are no numbers",
                hint="the checkpoint's weights are unusable",
            )
        return result


@dataclass(frozen=True)
class _Step:
    """One segment with the weights it takes this time: the graph's name → the checkpoint's."""

    session: _Session
    names: Mapping[str, str]


@dataclass(frozen=True)
class _Tower:
    """The sessions of a tower.

    Attributes:
        width: length of an embedding.
        micro_batch: pictures or texts run at once.
        item_bytes: hidden states of one picture or text.
        layers: number of layers.
    """

    sessions: Mapping[SegmentName, _Session]
    prefix: str
    width: int
    micro_batch: int
    item_bytes: int
    layers: int

    @classmethod
    def of(cls, planned: Plan, name: TowerName, threads: int) -> _Tower:
        tower = planned.architecture.tower(name)
        if tower is None:
            raise ValueError(f"the model has no {name} tower")
        return cls(
            {n: _Session(s, threads) for n, s in segments(planned, name).items()},
            "v" if name == "image" else "t",
            tower.embedding,
            max(1, MICRO_BATCH_TOKENS // tower.tokens),
            4 * tower.tokens * tower.width,
            tower.layers,
        )

    @property
    def count(self) -> int:
        """Number of steps."""
        return self.layers + 2

    def steps(self) -> Iterator[_Step]:
        """Stem, layers, head."""
        yield self._step("stem")
        for layer in range(self.layers):
            yield self._step("layer", layer)
        yield self._step("head")

    def _step(self, name: SegmentName, layer: int = 0) -> _Step:
        session = self.sessions[name]
        first, this = f"{self.prefix}.blk.0.", f"{self.prefix}.blk.{layer}."
        return _Step(session, {w: w.replace(first, this, 1) for w in session.segment.weights})


class _Session:
    """A segment that runs."""

    def __init__(self, segment: Segment, threads: int) -> None:
        self.segment = segment
        ort = onnxruntime()
        try:
            self._session: Any = ort.InferenceSession(
                segment.model, session_options(threads), providers=[CPU.ep]
            )
        except Exception as error:  # ONNX Runtime raises classes of its own that share no public base
            raise ProviderError(
                f"ONNX Runtime {ort.__version__} cannot load a part of the float32 reference: {error}",
                hint="update ONNX Runtime (pip install -U onnxruntime)",
            ) from error

    def run(
        self, x: Floats, weights: Mapping[str, Floats], names: Mapping[str, str], observe: Observer | None
    ) -> Floats:
        """The segment's result for one micro-batch; ``observe`` sees each linear layer's rows."""
        segment = self.segment
        watched = list(dict.fromkeys(segment.observed.values())) if observe is not None else []
        try:
            result, *rows = self._session.run([segment.output, *watched], {segment.input: x, **weights})
        except Exception as error:  # see above
            raise ProviderError(f"ONNX Runtime cannot run the float32 reference: {error}") from error
        if observe is not None:
            by_value = dict(zip(watched, rows, strict=True))
            for own, value in segment.observed.items():
                observe(names[own], by_value[value])
        embedding: Floats = result
        return embedding
