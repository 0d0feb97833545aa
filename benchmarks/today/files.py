"""The files that other runtimes run, made once and kept under ``benchmarks/work/peers``."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

from benchmarks.children import run
from benchmarks.exports import need_room, say
from benchmarks.today import given
from benchmarks.today.draw import draw
from benchmarks.today.environments import ROOT, MissingError, openvino, versions

WORK = ROOT / "benchmarks" / "work" / "peers"
ROOM = 4.0
"""Times a checkpoint's bytes that all files of its peers take together."""
STEPS: dict[str, str | None] = {
    "onnx": None,
    "dynamic": "onnx",
    "nbits32": "onnx",
    "nbits128": "onnx",
    "open_clip": None,
    "openvino": "onnx",
    "openvino_weights": "openvino",
    "openvino_quantized": "openvino",
}
"""Step of ``convert`` → the step whose files it reads; none: the checkpoint."""


class Files:
    """What was made of one checkpoint.

    Attributes:
        checkpoint: its folder.
        folder: where it is kept.
        inputs: the pictures and texts that every runtime gets, as a file.
        given: the same in memory.
    """

    def __init__(self, checkpoint: Path, work: Path = WORK) -> None:
        self.checkpoint = checkpoint
        self.folder = work / checkpoint.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.inputs = self.folder / "inputs.npz"
        self.given = draw(checkpoint)
        given.write(self.given, self.inputs)

    def made(self, step: str) -> Path:
        """The folder of a step's files, made now if they are missing or of another source or tool.

        Raises:
            MissingError: its tool cannot be had or fails.
        """
        before = STEPS[step]
        source = self.made(before) if before else self.checkpoint
        python = openvino() if step.startswith("openvino") else None
        told = self._told(step, source, versions(python))
        folder, record = self.folder / step, self.folder / step / "made-of.json"
        if record.exists() and record.read_text("utf-8") == told:
            return folder
        if folder.exists():
            shutil.rmtree(folder)
        self._room()
        say(f"making {folder.name}")
        half = folder.with_name(f"{step}.partial")
        if half.exists():
            shutil.rmtree(half)
        half.mkdir()
        paths = (str(source), str(half), str(self.inputs))
        try:
            run(
                [str(python or sys.executable), "-m", "benchmarks.today.convert", step, *paths],
                {"PYTHONPATH": str(ROOT)},
            )
        except SystemExit as failed:
            shutil.rmtree(half)
            raise MissingError(f"making its files failed ({str(failed).rsplit(': ', 1)[-1]})") from failed
        (half / record.name).write_text(told, "utf-8")
        half.rename(folder)
        return folder

    def _told(self, step: str, source: Path, tools: dict[str, str]) -> str:
        """What a step's files depend on."""
        before = source / "made-of.json"
        if before.exists():
            made_of: object = json.loads(before.read_text("utf-8"))
        else:
            weights = (source / "model.safetensors").stat()
            made_of = [str(source.resolve()), weights.st_size, weights.st_mtime_ns]
        fitted = None
        if step == "openvino_quantized":
            both = (self.given.fitted_pictures, self.given.fitted_ids)
            fitted = [hashlib.sha256(each.tobytes()).hexdigest() for each in both]
        return json.dumps({"step": step, "of": made_of, "tools": tools, "fitted": fitted}, indent=1)

    def _room(self) -> None:
        """Exit where the disk is too full for the files that are not there yet."""
        kept = sum(p.stat().st_size for p in self.folder.rglob("*") if p.is_file())
        checkpoint = (self.checkpoint / "model.safetensors").stat().st_size
        need_room(max(0, int(ROOM * checkpoint) - kept) + 2 * checkpoint)
