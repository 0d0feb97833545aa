"""An exported model file, checked and ready to be unpacked.

An :class:`Artifact` joins the three things a ``.gguf`` file of Sigrun holds: the manifest, the stored
weights, and the weight-free ONNX graphs that run them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from sigrun import blocks
from sigrun.errors import ArtifactError
from sigrun.gguf import GgufFile
from sigrun.int8 import Int8, to_int8
from sigrun.manifest import KEY, TOWERS, Manifest, StoredTensor, TowerName
from sigrun.nbits import NBITS_FORMS, NBits, Pieces, initializers, to_nbits
from sigrun.spm import Kind, TokenizerSpec

T = TypeVar("T")
ARCHITECTURE = "siglip"
TOKEN_TABLE = "t.token_embd.weight"
TOKENIZER_MODELS: dict[str, Kind] = {"t5": "unigram", "llama": "bpe"}
"""``tokenizer.ggml.model``, as llama.cpp names them, by the kind of SentencePiece model."""
COPIED_BYTES = 1 << 20  # smaller f32 weights are copied out of the file


@dataclass(frozen=True)
class ArtifactTensor:
    """A stored weight: its place in the model and its size in the file."""

    name: str
    tower: TowerName
    kind: str
    shape: tuple[int, ...]
    encoding: str
    nbytes: int

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)


class Artifact:
    """An open artifact. Use :meth:`open`; close it, or use it as a context manager.

    Attributes:
        manifest: what the file says of itself.
        tensors: every stored weight by name.
        nbytes: size of the file.
    """

    def __init__(self, file: GgufFile, manifest: Manifest) -> None:
        self._file = file
        self._sound: set[str] = set()  # weights whose hash was checked
        self.manifest = manifest
        self.tensors: Mapping[str, ArtifactTensor] = {
            name: ArtifactTensor(name, t.tower, t.kind, t.shape, t.encoding, file.tensors[name].nbytes)
            for name, t in manifest.tensors.items()
        }

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open and check a file.

        Raises:
            ArtifactError: the file is missing, damaged, not of this architecture, or not made by Sigrun.
        """
        file = GgufFile(path)
        try:
            where = str(file.path)
            architecture = file.metadata.get("general.architecture")
            if architecture != ARCHITECTURE:
                raise ArtifactError(
                    f"{where}: is a GGUF file of architecture {architecture!r}, not {ARCHITECTURE!r}",
                    hint="Sigrun runs SigLIP models exported by sigrun-export",
                )
            text = file.metadata.get(KEY)
            if not isinstance(text, str):
                raise ArtifactError(
                    f"{where}: has no {KEY}, so it was not made by sigrun-export",
                    hint="export the original checkpoint: make export-q4 MODEL=path/to/folder",
                )
            manifest = Manifest.from_json(text, where)
            for name, tensor in manifest.tensors.items():
                _check_tensor(file, name, tensor)
            _check_towers(file, manifest)
            return cls(file, manifest)
        except BaseException:
            file.close()
            raise

    @property
    def path(self) -> str:
        """The file's path, as given."""
        return str(self._file.path)

    @property
    def nbytes(self) -> int:
        """The file's size in bytes."""
        return self._file.nbytes

    @property
    def towers(self) -> tuple[TowerName, ...]:
        """The towers that the file holds."""
        return tuple(t for t in TOWERS if t in self.manifest.graphs)

    def tower_nbytes(self, tower: TowerName) -> int:
        """Bytes of one tower's stored weights."""
        return sum(t.nbytes for t in self.tensors.values() if t.tower == tower)

    def graph(self, tower: TowerName, form: str) -> bytes:
        """The serialized, weight-free ONNX graph of a tower in a compute form."""
        stored = self.manifest.graphs.get(tower, {}).get(form)
        if stored is None:
            offered = ", ".join(self.manifest.graphs.get(tower, {})) or "none"
            raise ArtifactError(f"{self.path}: has no {tower} graph of form '{form}'; it has: {offered}")
        name = graph_name(tower, form)
        self._check_hash(name, f"the {tower} graph of form '{form}'", stored.sha256)
        return self._file.data(name).tobytes()

    def data(self, name: str) -> NDArray[np.uint8]:
        """The stored bytes of a weight, read-only and still in the file; their hash is checked the first time.

        Raises:
            ArtifactError: the bytes are not those that were exported.
        """
        if name not in self._sound:
            self._check_hash(name, f"tensor '{name}'", self.manifest.tensors[name].sha256)
            self._sound.add(name)
        return self._file.data(name)

    def _check_hash(self, name: str, what: str, expected: str) -> None:
        if self._file.sha256(name) != expected:
            raise ArtifactError(
                f"{self.path}: {what} is damaged: its bytes are not those that were exported",
                hint="export or copy the file again",
            )

    def dense(self, name: str) -> NDArray[np.float32]:
        """A weight as float32 in its logical shape. Large f32 weights are views of the file, all else copies."""
        tensor = self.tensors[name]
        values = blocks.decode(tensor.encoding, self.data(name)).reshape(tensor.shape)
        return values if values.nbytes > COPIED_BYTES else np.array(values)

    def nbits(self, name: str) -> NBits:
        """A matrix as MatMulNBits takes it: the same numbers, no float copy of the matrix."""
        return self._packed(name, to_nbits)

    def nbits_initializers(self, name: str, pieces: Pieces | None, *, half: bool) -> dict[str, NDArray[Any]]:
        """The same as a graph takes it (:func:`sigrun.nbits.initializers`)."""
        return self._packed(name, partial(initializers, pieces=pieces, half=half))

    def _packed(self, name: str, pack: Callable[[str, blocks.Bytes, int, int], T]) -> T:
        tensor = self.tensors[name]
        rows, columns = tensor.shape
        data = self.data(name)
        try:
            return pack(tensor.encoding, data, rows, columns)
        except ArtifactError as error:
            raise error.at(f"{self.path}: tensor '{name}'") from error

    def int8(self, name: str, most: int) -> Int8:
        """A matrix rounded anew to int8 with a scale for each output channel; values up to ``most``."""
        tensor = self.tensors[name]
        rows, columns = tensor.shape
        return to_int8(tensor.encoding, self.data(name), rows, columns, most)

    def token_rows(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Rows of the token table: ids of any shape → float32 [..., width]. Only the blocks of those rows are read."""
        table = self.tensors[TOKEN_TABLE]
        rows, columns = table.shape
        if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= rows):
            raise ArtifactError(f"{self.path}: a token id lies outside the token table of {rows:,} rows")
        found = blocks.rows_of(table.encoding, self.data(TOKEN_TABLE), columns, ids.reshape(-1))
        return found.reshape(*ids.shape, columns)

    def tokenizer(self) -> TokenizerSpec:
        """What cuts text into tokens."""
        try:
            return _tokenizer_spec(self._file, self.manifest)
        except ArtifactError as error:
            raise error.at(self.path) from error

    def release(self, name: str | None = None) -> None:
        """Give a weight's file pages back to the system once it is unpacked; without a name, those of all."""
        self._file.release(name)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def graph_name(tower: str, form: str) -> str:
    """Name of the byte tensor that holds a graph."""
    return f"graph.{tower}.{form}"


def _check_tensor(file: GgufFile, name: str, tensor: StoredTensor) -> None:
    info = file.tensors.get(name)
    if info is None:
        raise ArtifactError(f"{file.path}: tensor '{name}' is in the manifest but not in the file")
    stored = tensor.shape
    if len(stored) == 2:
        stored = (stored[0] // tensor.fold, stored[1] * tensor.fold)
    if tensor.encoding not in blocks.BLOCKS:
        raise ArtifactError(
            f"{file.path}: tensor '{name}' is stored as '{tensor.encoding}', and weights are: "
            + " ".join(blocks.BLOCKS)
        )
    if info.type.name != tensor.encoding or info.shape != stored:
        raise ArtifactError(
            f"{file.path}: tensor '{name}' is {info.type.name} {list(info.shape)}, "
            f"but the manifest says {tensor.encoding} {list(stored)}"
        )


def _check_towers(file: GgufFile, manifest: Manifest) -> None:
    """Everything that two places in the file say must agree, and every tower must be whole."""

    def fail(problem: str) -> ArtifactError:
        return ArtifactError(f"{file.path}: {problem}")

    for tower, forms in manifest.graphs.items():
        shape = manifest.architecture.get(tower)
        if tower not in TOWERS or shape is None:
            raise fail(f"the manifest has graphs for a tower '{tower}' that its architecture lacks")
        if tower not in manifest.bits_per_weight:
            raise fail(f"the manifest has no bits_per_weight of the {tower} tower")
        for form, graph in forms.items():
            for name, pieces in graph.pieces.items():
                _check_pieces(fail, manifest.tensors.get(name), name, pieces)
            info = file.tensors.get(graph_name(tower, form))
            if info is None or info.type.name != "i8":
                raise fail(f"the {tower} graph of form '{form}' is missing")
            for name, packing in graph.weights.items():
                tensor = manifest.tensors.get(name)
                if tensor is None:
                    raise fail(
                        f"the {tower} graph of form '{form}' asks for '{name}', which is not in the file"
                    )
                if packing not in ("dense", "dense16") and len(tensor.shape) != 2:
                    raise fail(
                        f"the {tower} graph of form '{form}' takes '{name}' as a matrix, which it is not"
                    )
    side = manifest.architecture.get("image", {}).get("image_size")
    prep = manifest.preprocessing
    if "image" in manifest.graphs and not prep.height == prep.width == side:
        raise fail(f"pictures would be made {prep.width} x {prep.height}, but the image tower takes {side}")
    if "text" in manifest.graphs:
        context = file.metadata.get("siglip.text.context_length")
        if context != manifest.architecture["text"].get("context"):
            raise fail(f"siglip.text.context_length is {context!r}, but the manifest's text tower differs")
        if TOKEN_TABLE not in manifest.tensors:
            raise fail(f"has a text graph but no token table '{TOKEN_TABLE}'")
        if len(manifest.tensors[TOKEN_TABLE].shape) != 2:
            raise fail(f"the token table '{TOKEN_TABLE}' is not a matrix")
        if manifest.canonicalisation is None:
            raise fail("has a text tower, but the manifest names no canonicalisation of texts")
        if "image" in manifest.graphs and manifest.scoring is None:
            raise fail("has both towers, but the manifest has no scoring constants")


def _check_pieces(
    fail: Callable[[str], ArtifactError], tensor: StoredTensor | None, name: str, pieces: Pieces
) -> None:
    """Raise :class:`ArtifactError` unless a matrix can be cut so."""
    if tensor is None or len(tensor.shape) != 2 or tensor.encoding not in NBITS_FORMS:
        return  # said elsewhere
    outputs, inputs = tensor.shape
    blocks = inputs // NBITS_FORMS[tensor.encoding].block_size
    if (outputs if pieces.axis == "outputs" else blocks) % pieces.count:
        raise fail(
            f"'{name}' of {outputs} x {inputs} cannot be cut into {pieces.count} pieces of its {pieces.axis}"
        )


def _tokenizer_spec(file: GgufFile, manifest: Manifest) -> TokenizerSpec:
    def get(key: str, kind: type | tuple[type, ...]) -> Any:
        value = file.metadata.get(f"tokenizer.ggml.{key}")
        if not isinstance(value, kind):
            raise ArtifactError(f"{file.path}: tokenizer.ggml.{key} is missing or of a wrong type")
        return value

    def numbers(key: str, kind: type[np.generic]) -> NDArray[Any]:
        value: NDArray[Any] = get(key, np.ndarray)
        if value.dtype.name != kind.__name__:
            raise ArtifactError(
                f"{file.path}: tokenizer.ggml.{key} is an array of {value.dtype}, not of {kind.__name__}"
            )
        return value

    if manifest.canonicalisation is None:
        raise ArtifactError(f"{file.path}: has no text tower, so no tokenizer")
    kind = TOKENIZER_MODELS.get(get("model", str))
    if kind is None:
        raise ArtifactError(
            f"{file.path}: tokenizer.ggml.model is {get('model', str)!r}; SigLIP's are "
            + " and ".join(f"'{name}' ({kind})" for name, kind in TOKENIZER_MODELS.items())
        )
    context = file.metadata.get("siglip.text.context_length")
    if not isinstance(context, int) or not 1 <= context <= 4096:
        raise ArtifactError(f"{file.path}: siglip.text.context_length is {context!r}")
    pieces = get("tokens", list)
    scores = np.asarray(numbers("scores", np.float32), np.float32)
    types = np.asarray(numbers("token_type", np.int32), np.int32)
    if not len(pieces) == len(scores) == len(types):
        raise ArtifactError(f"{file.path}: tokens, scores and types of the tokenizer differ in number")
    # A GGUF array cannot be empty, so no rules are no key.
    rules = "tokenizer.ggml.precompiled_charsmap" in file.metadata
    charsmap = numbers("precompiled_charsmap", np.uint8) if rules else np.empty(0, np.uint8)
    return TokenizerSpec(
        pieces=tuple(pieces),
        scores=scores,
        types=types,
        charsmap=np.asarray(charsmap, np.uint8).tobytes(),
        add_dummy_prefix=get("add_space_prefix", bool),
        remove_extra_whitespaces=get("remove_extra_whitespaces", bool),
        escape_whitespaces=get("escape_whitespaces", bool),
        byte_fallback=bool((types == 6).any()),
        unk_id=get("unknown_token_id", int),
        eos_id=get("eos_token_id", int),
        pad_id=get("padding_token_id", int),
        canonicalisation=manifest.canonicalisation,
        context=context,
        kind=kind,
    )
