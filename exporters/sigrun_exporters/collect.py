"""Measures importance: runs calibration data through the float32 reference and sums squares of activations.

It takes seconds a picture on a large model, so what is done is written to a state file after every group, and a run
that was cut off goes on from there. Sums are float64 and added in one order, micro-batch by micro-batch: a resumed run
gives the same bytes as one that was not.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigrun.onnx_runtime import onnxruntime
from sigrun.output import finished
from sigrun.progress import Progress
from sigrun_exporters.calibration import Calibration, CalibrationError, Note
from sigrun_exporters.checkpoint import Checkpoint
from sigrun_exporters.importance import Importance, Squares
from sigrun_exporters.reference import MICRO_BATCH_TOKENS, Reference
from sigrun_recipes import TowerName

STATE_FORMAT = 1


def collect(
    checkpoint: Checkpoint, calibration: Calibration, state: Path, *, note: Note, threads: int | None = None
) -> Importance:
    """Measure the importance of every linear layer's input columns.

    Args:
        checkpoint: the model.
        calibration: pictures for the image tower, texts for the text tower; a tower without any is left out.
        state: file that keeps what is done, for a later run to go on from. It stays when all is done: whoever has
            stored the result removes it.
        note: told what the user should know.
        threads: threads within one run; by default one for each CPU that the process may use.

    Raises:
        CheckpointError: a weight cannot be read.
        PictureError: a picture that was readable no longer is.
        CalibrationError: there is nothing to measure on: none of the texts holds a word, or the data is for a tower
            that the model lacks.
        OutputError: the state cannot be written.
        ProviderError: ONNX Runtime fails.
    """
    work = _work(checkpoint, calibration, note)
    sums = _Sums(checkpoint, _key(checkpoint, calibration))
    sums.resume(state, note)
    reference = Reference(checkpoint, threads=threads)
    for tower, todo in work.items():
        size = reference.group(tower)
        with Progress(
            f"measuring activations of {todo.unit}", todo.count - sums.done[tower], todo.unit
        ) as bar:
            while sums.done[tower] < todo.count:
                stop = min(sums.done[tower] + size, todo.count)
                todo.run(reference, slice(sums.done[tower], stop), observe=sums.add, progress=bar.advance)
                sums.done[tower] = stop
                sums.save(state)
    return Importance(
        sums.result(),
        calibration.datasets,
        sum(todo.count for todo in work.values()),
        max(todo.tokens for todo in work.values()),
    )


@dataclass(frozen=True)
class _Work:
    """What a tower is to be shown: how many of what, the tokens of one, and what shows it a part of them."""

    count: int
    unit: str
    tokens: int
    run: Callable[..., object]


def _work(checkpoint: Checkpoint, calibration: Calibration, note: Note) -> dict[TowerName, _Work]:
    work: dict[TowerName, _Work] = {}
    image, tokenizer = checkpoint.architecture.image, checkpoint.tokenizer
    if calibration.pictures and image is None:
        note("the model has no image tower: the calibration pictures are not used")
    elif calibration.pictures and image is not None:

        def pictures(reference: Reference, part: slice, **watched: Any) -> None:
            reference.images(calibration.pixels(checkpoint.preprocessing, part), **watched)

        work["image"] = _Work(len(calibration.pictures), "pictures", image.tokens, pictures)
    if calibration.texts and tokenizer is None:
        note("the model has no text tower: the captions are not used")
    elif calibration.texts and tokenizer is not None:
        ids = calibration.ids(tokenizer, note)

        def texts(reference: Reference, part: slice, **watched: Any) -> None:
            reference.texts(ids[part], **watched)

        work["text"] = _Work(len(ids), "texts", tokenizer.context, texts)
    if not work:
        raise CalibrationError(
            f"{checkpoint.name}: there is no calibration data for the towers that this model has",
            hint="an image tower takes pictures (--calibration), a text tower captions (--captions)",
        )
    return work


class _Sums:
    """Sums of squares by matrix, and how far they have come.

    Args:
        checkpoint: the model.
        key: what they are sums of.

    Attributes:
        done: pictures and texts that are in the sums, by tower.
    """

    def __init__(self, checkpoint: Checkpoint, key: str) -> None:
        self.done: dict[TowerName, int] = {"image": 0, "text": 0}
        self._key = key
        self._sums = {
            t.name: np.zeros(t.shape[1], np.float64)
            for t in checkpoint.architecture.tensors()
            if t.kind == "linear"
        }
        self._rows = dict.fromkeys(self._sums, 0)
        self._last: tuple[NDArray[np.float32] | None, NDArray[np.float64]] = (None, np.zeros(0))

    def add(self, name: str, x: NDArray[np.float32]) -> None:
        """Add rows x [n, columns] that the matrix ``name`` multiplies; other weights than linear layers are ignored."""
        if name not in self._sums:
            return
        if x is not self._last[0]:  # queries, keys and values multiply the same rows
            self._last = x, np.multiply(x, x, dtype=np.float64).sum(axis=0)
        self._sums[name] += self._last[1]
        self._rows[name] += len(x)

    def result(self) -> dict[str, Squares]:
        """What was summed, rounded as a file keeps it."""
        return {
            name: Squares(total.astype(np.float32), float(np.float32(self._rows[name])))
            for name, total in self._sums.items()
            if self._rows[name]
        }

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all."""
        head = {"key": self._key, "done": self.done, "rows": self._rows}
        arrays: dict[str, Any] = {f"sums/{name}": total for name, total in self._sums.items()}
        with finished(path, force=True) as partial, partial.open("wb") as file:
            np.savez(file, head=np.array(json.dumps(head)), **arrays)

    def resume(self, path: Path, note: Note) -> None:
        """Go on from a state, unless there is none or it is not of this work."""
        if not path.exists():
            return
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                head = json.loads(str(file["head"]))
                if head["key"] != self._key:
                    note(f"{path} is the state of another calibration; starting anew")
                    return
                sums = {name: file[f"sums/{name}"] for name in self._sums}
                done = {tower: int(head["done"][tower]) for tower in self.done}
                rows = {name: int(head["rows"][name]) for name in self._rows}
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            note(f"{path} is damaged and cannot be gone on from; starting anew")
            return
        self._sums, self.done, self._rows = sums, done, rows
        note(f"going on from {path}: {done['image']} pictures and {done['text']} texts are done")


def _key(checkpoint: Checkpoint, calibration: Calibration) -> str:
    """Tells one piece of work from another: the weights, the data, and what runs them."""
    parts = {
        "format": STATE_FORMAT,
        "files": dict(checkpoint.source().files),
        "architecture": checkpoint.architecture.to_json(),
        "preprocessing": asdict(checkpoint.preprocessing),
        "calibration": calibration.digest,
        "micro_batch_tokens": MICRO_BATCH_TOKENS,
        "onnxruntime": onnxruntime().__version__,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("utf-8")).hexdigest()
