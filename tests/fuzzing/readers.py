"""Targets that need no session of ONNX Runtime: files, manifests, tokenizers, blocks."""

from __future__ import annotations

import dataclasses
import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np

from sigrun import blocks, nbits
from sigrun.artifact import Artifact
from sigrun.errors import ArtifactError, CheckpointError, TextError
from sigrun.gguf import GgufFile
from sigrun.int8 import to_int8
from sigrun.labels import LabelSet
from sigrun.manifest import KEY, Manifest
from sigrun.spm import TokenizerSpec, model_proto
from sigrun.tokens import Tokenizer
from sigrun_exporters.tokenizer import read_spiece, read_tokenizer_json
from tests.fuzzing import spans, well_refused
from tests.fuzzing.mutate import mutated_bytes, mutated_json, mutated_text
from tests.fuzzing.small import full_manifest, small_gguf, small_labels

TEXTS = ("a red apple", "ﬁne Ａ ½ e\u0301", "aaaaaaaaaa" * 9, "日本ガカ ㍿ 🦉")


class Gguf:
    """The reader of GGUF files, on a small file of every type."""

    name, cap_mib, pace = "gguf", 64, 5000

    def __init__(self) -> None:
        self.content = small_gguf()
        self.layout = spans.layout(self.content)

    def sound(self) -> bytes:
        return self.content

    def case(self, rng: random.Random) -> bytes:
        if rng.random() < 0.15:
            return mutated_bytes(self.content, rng)
        return spans.mutated(self.content, self.layout, rng)

    def read(self, content: bytes, place: Path) -> bool:
        place.write_bytes(content)
        try:
            file = GgufFile(place)
        except ArtifactError as error:
            return well_refused(error, str(place))
        with file:
            agrees(file, content)
        return True


def agrees(file: GgufFile, content: bytes) -> None:
    """What was read is what another reader reads, and every tensor lies within the file."""
    theirs = spans.layout(content)
    assert list(file.metadata) == list(theirs.metadata)
    for key, value in theirs.metadata.items():
        mine = file.metadata[key]
        mine = mine.tolist() if isinstance(mine, np.ndarray) else mine
        assert repr(mine) == repr(value), key  # repr, for what is not a number
    assert list(file.tensors) == list(theirs.tensors)
    for name, (_, extents, offset) in theirs.tensors.items():
        info = file.tensors[name]
        assert info.shape == extents[::-1]
        assert info.offset == theirs.base + offset
        assert file.data(name).tobytes() == content[info.offset : info.offset + info.nbytes]
        assert file.data(name).nbytes == info.nbytes


class Head:
    """An artifact whose head is damaged: opened, its tokenizer made, its parts read."""

    name, cap_mib, pace = "artifact head", 96, 800

    def __init__(self, artifact: Path) -> None:
        self.content = artifact.read_bytes()
        self.layout = spans.layout(self.content)

    def sound(self) -> bytes:
        return self.content

    def case(self, rng: random.Random) -> bytes:
        return spans.mutated(self.content, self.layout, rng)

    def read(self, content: bytes, place: Path) -> bool:
        place.write_bytes(content)
        try:
            with Artifact.open(place) as artifact:
                Tokenizer(artifact.tokenizer()).encode(["owl"])
                for tower in artifact.towers:
                    artifact.graph(tower, "exact")
                for name in list(artifact.tensors)[:3]:
                    artifact.dense(name)
        except ArtifactError as error:
            # Of the tokenizer itself, which knows no file, the caller says where it is.
            tokenizer = "the tokenizer" in error.message
            return well_refused(error, "" if tokenizer else str(place))
        return True


class Manifests:
    """The manifest, every field of it."""

    name, cap_mib, pace = "manifest", 96, 4000
    where = "model.gguf"

    def __init__(self, artifact: Path) -> None:
        with GgufFile(artifact) as file:
            self.data = full_manifest(file.metadata[KEY])

    def sound(self) -> bytes:
        return json.dumps(self.data).encode()

    def case(self, rng: random.Random) -> bytes:
        return mutated_text(self.data, rng).encode("utf-8", "surrogatepass")

    def read(self, content: bytes, place: Path) -> bool:
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:  # which the GGUF reader refuses
            return False
        try:
            found = Manifest.from_json(text, self.where)
        except ArtifactError as error:
            return well_refused(error, self.where)
        again = found.to_json()
        again.encode("utf-8")  # what the command line prints
        assert Manifest.from_json(again, self.where) == found
        return True


class Tokenizers:
    """The parts of a tokenizer: pieces, scores, types, charsmap, ids."""

    name, cap_mib, pace = "tokenizer", 256, 1200

    def __init__(self, artifact: Path) -> None:
        with Artifact.open(artifact) as opened:
            spec = opened.tokenizer()
        self.parts = {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec)}
        self.trie: int = struct.unpack("<I", spec.charsmap[:4])[0]

    def sound(self) -> bytes:
        return b"0"

    def case(self, rng: random.Random) -> bytes:
        return str(rng.getrandbits(40)).encode()

    def read(self, content: bytes, place: Path) -> bool:
        parts = dict(self.parts) if content == b"0" else self.mutated(random.Random(int(content)))
        try:
            tokenizer = Tokenizer(TokenizerSpec(**parts))
        except ArtifactError as error:
            return well_refused(error, "tokenizer")
        for text in TEXTS:
            try:
                ids = tokenizer.encode([text]).ids
            except TextError:  # rules may leave nothing of a text
                continue
            assert ids.min() >= 0
            assert ids.max() < len(parts["pieces"])
        return True

    def mutated(self, rng: random.Random) -> dict[str, Any]:
        """Other parts, of the types that an artifact gives them."""
        parts = dict(self.parts)
        for _ in range(rng.choice((1, 1, 2, 3))):
            getattr(self, "_" + rng.choice(("charsmap", "charsmap", "pieces", "scores", "types", "rest")))(
                parts, rng
            )
        return parts

    def _charsmap(self, parts: dict[str, Any], rng: random.Random) -> None:
        raw = parts["charsmap"]
        kind = rng.random()
        if kind < 0.3:
            parts["charsmap"] = mutated_bytes(raw, rng)
            return
        if len(raw) < 4 + self.trie:
            return
        units = np.frombuffer(raw, "<u4", self.trie // 4, 4).copy()
        if kind < 0.8:  # other ways through the trie, most of them in bounds
            for at in rng.choices(range(len(units)), k=rng.choice((1, 10, 1000))):
                bits = rng.choice((10, 16, 21))
                keep = (
                    int(units[at]) & 0x3FF
                    if rng.random() < 0.7
                    else rng.getrandbits(10) | (rng.random() < 0.1) << 31
                )
                units[at] = keep | rng.getrandbits(bits) << 10
        else:  # a way that comes back to itself and ends a key at every step
            first = (int(units[0]) >> 10) << ((int(units[0]) & 512) >> 6)
            at = first ^ ord("a")
            if max(at, first) < len(units):
                units[at] = ((at ^ first) << 10 & 0x7FFFFFFF) | 1 << 8 | ord("a")
                units[first] = 1 << 31 | rng.choice((0, 5, 2**30, 2**31 - 1))
        parts["charsmap"] = raw[:4] + units.tobytes() + raw[4 + self.trie :]

    def _pieces(self, parts: dict[str, Any], rng: random.Random) -> None:
        pieces = list(parts["pieces"])
        for _ in range(rng.choice((1, 3, 50))):
            at = rng.randrange(len(pieces))
            pieces[at] = rng.choice(
                (*pieces[:9], "", "\0", "a\0b", "x" * 3000, "\U0010ffff", "<0x41>", "▁", pieces[-1])
            )
        parts["pieces"] = tuple(pieces)

    def _scores(self, parts: dict[str, Any], rng: random.Random) -> None:
        scores = parts["scores"].copy()
        for at in rng.choices(range(len(scores)), k=rng.choice((1, 40))):
            scores[at] = rng.choice((0.0, 1e38, -3e38, 1e-45, np.nan, np.inf, 100.0, -100.0))
        parts["scores"] = scores

    def _types(self, parts: dict[str, Any], rng: random.Random) -> None:
        types = parts["types"].copy()
        if rng.random() < 0.1:
            types[types == 1] = rng.choice((3, 4, 5, 6))
        for at in rng.choices(range(len(types)), k=rng.choice((1, 40))):
            types[at] = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, -1, 2**31 - 1))
        parts["types"] = types

    def _rest(self, parts: dict[str, Any], rng: random.Random) -> None:
        name = rng.choice(
            ("unk_id", "eos_id", "pad_id", "context", "kind", "add_dummy_prefix", "byte_fallback")
        )
        if name == "kind":
            parts[name] = rng.choice(("unigram", "bpe"))
        elif isinstance(parts[name], bool):
            parts[name] = not parts[name]
        else:
            parts[name] = rng.choice((-1, 0, 1, 2, 3, 64, 999, len(parts["pieces"]), 2**31, 2**64))


class Spiece:
    """The exporter's reader of SentencePiece models."""

    name, cap_mib, pace = "SentencePiece model", 256, 500

    def __init__(self, artifact: Path) -> None:
        with Artifact.open(artifact) as opened:
            spec = opened.tokenizer()
        self.content = model_proto(dataclasses.replace(spec, charsmap=b""))

    def sound(self) -> bytes:
        return self.content

    def case(self, rng: random.Random) -> bytes:
        return mutated_bytes(self.content, rng, front=2000)

    def read(self, content: bytes, place: Path) -> bool:
        try:
            read_spiece(
                content, canonicalisation="hf", context=64, eos_id="</s>", pad_id="</s>", file="spiece.model"
            )
        except (CheckpointError, ArtifactError) as error:
            return well_refused(error, "spiece.model")
        return True


class TokenizerJson:
    """The exporter's reader of ``tokenizer.json``."""

    name, cap_mib, pace = "tokenizer.json", 256, 400

    def __init__(self) -> None:
        vocabulary = [["<unk>", 0.0], ["</s>", 0.0], ["▁", -2.0], ["▁owl", -3.0]]
        vocabulary += [[c, -5.0 - i / 10] for i, c in enumerate("abcdefghijklmnopqrstuvwxyz")]
        self.data = {
            "version": "1.0",
            "added_tokens": [
                {"id": 0, "content": "<unk>", "special": True},
                {"id": 1, "content": "</s>", "special": True},
            ],
            "normalizer": {
                "type": "Sequence",
                "normalizers": [{"type": "Precompiled", "precompiled_charsmap": ""}],
            },
            "pre_tokenizer": {
                "type": "Metaspace",
                "replacement": "▁",
                "prepend_scheme": "always",
                "split": True,
            },
            "model": {"type": "Unigram", "unk_id": 0, "vocab": vocabulary, "byte_fallback": False},
        }

    def sound(self) -> bytes:
        return json.dumps(self.data).encode()

    def case(self, rng: random.Random) -> bytes:
        return mutated_text(self.data, rng).encode("utf-8", "surrogatepass")

    def read(self, content: bytes, place: Path) -> bool:
        try:
            read_tokenizer_json(content, canonicalisation="hf", context=64, eos_id="</s>", pad_id="</s>")
        except (CheckpointError, ArtifactError) as error:
            return well_refused(error, "tokenizer.json")
        return True


class Labels:
    """Label files."""

    name, cap_mib, pace = "label file", 64, 1000

    def __init__(self) -> None:
        self.header, self.numbers = small_labels()

    def sound(self) -> bytes:
        return self._built(json.dumps(self.header).encode())

    def _built(self, header: bytes) -> bytes:
        return struct.pack("<Q", len(header)) + header + self.numbers

    def case(self, rng: random.Random) -> bytes:
        header = json.loads(json.dumps(self.header))
        if rng.random() < 0.5:
            strings = header["__metadata__"]
            name = rng.choice([n for n in strings if strings[n][0] in '[-"0123456789'])
            strings[name] = mutated_text([json.loads(strings[name])], rng)[1:-1]
        else:
            header = mutated_json(header, rng)
        content = self._built(json.dumps(header).encode())
        return mutated_bytes(content, rng) if rng.random() < 0.3 else content

    def read(self, content: bytes, place: Path) -> bool:
        place.write_bytes(content)
        try:
            found = LabelSet.load(place)
        except ArtifactError as error:
            return well_refused(error, str(place))
        assert found.embeddings.vectors.shape[0] == len(found.labels)
        return True


class Blocks:
    """Stored blocks of any content, in every form that graphs take."""

    name, cap_mib, pace = "blocks", 64, 1500

    def sound(self) -> bytes:
        return b"q4_k\0" + bytes(144)

    def case(self, rng: random.Random) -> bytes:
        encoding = rng.choice(list(blocks.BLOCKS))
        size = blocks.BLOCKS[encoding].size * rng.choice((0, 1, 2, 6)) + (rng.random() < 0.1)
        raw = bytearray(rng.randbytes(size))
        for _ in range(rng.choice((0, 0, 3))):  # float16 and float32 that are no numbers, or very large
            if raw:
                at = rng.randrange(len(raw))
                raw[at : at + 4] = rng.choice(
                    (b"\0\x7c\0\x7c", b"\xff\x7b\xff\x7b", b"\0\x7e\0\xfc", b"\xff\xff\x7f\x7f")
                )
        return encoding.encode() + b"\0" + bytes(raw[:size])

    def read(self, content: bytes, place: Path) -> bool:
        name, _, raw = content.partition(b"\0")
        data, encoding = np.frombuffer(raw, np.uint8), name.decode()
        try:
            weights = blocks.decode(encoding, data)
            assert weights.size == len(raw) // blocks.BLOCKS[encoding].size * blocks.BLOCKS[encoding].weights
            columns = max(1, weights.size // 2)
            blocks.rows_of(
                encoding, data, columns, np.array([0, 1, 0]) if weights.size > 1 else np.array([], np.int64)
            )
            if weights.size > 1:
                to_int8(encoding, data, 2, columns, 127) if columns % blocks.BLOCKS[
                    encoding
                ].weights == 0 else None
            if encoding in nbits.NBITS_FORMS:
                packed = nbits.to_nbits(encoding, data, 2 if weights.size else 0, columns)
                packed.half()
        except ArtifactError as error:
            return well_refused(error, "")
        return True
