"""A GGUF file cut into its fields, so that each can be damaged by itself; an independent reading of the format too."""

from __future__ import annotations

import math
import random
import struct
from dataclasses import dataclass
from typing import Any

from tests.fuzzing.mutate import EDGES, WIDE_EDGES

CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
ITEMS = 64  # so many items at the start of an array are fields of their own


@dataclass(frozen=True)
class Span:
    """A field: its kind (number, text, type, count, extent, offset, blob) and where it lies."""

    kind: str
    at: int
    stop: int


@dataclass(frozen=True)
class Layout:
    """The fields of a file's head, its metadata, and where its tensors' bytes begin."""

    spans: tuple[Span, ...]
    metadata: dict[str, Any]
    tensors: dict[str, tuple[int, tuple[int, ...], int]]  # type, extents, offset
    pairs: dict[str, tuple[int, int]]  # metadata key → where its entry lies, key and value
    head: int  # bytes of the head, without the padding after it
    base: int


def layout(content: bytes) -> Layout:
    """Read a sound file."""
    return _Walk(content).layout()


class _Walk:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0
        self.spans: list[Span] = []

    def number(self, code: str, kind: str = "number") -> Any:
        size = struct.calcsize("<" + code)
        (value,) = struct.unpack_from("<" + code, self.content, self.at)
        self.mark(kind, size)
        return value

    def mark(self, kind: str, size: int) -> bytes:
        self.spans.append(Span(kind, self.at, self.at + size))
        self.at += size
        return self.content[self.at - size : self.at]

    def text(self) -> str:
        size = self.number("Q", "count")
        return self.mark("text", size).decode()

    def layout(self) -> Layout:
        self.mark("text", 4)
        self.number("I")
        tensors, keys = self.number("Q", "count"), self.number("Q", "count")
        metadata, pairs = {}, {}
        for _ in range(keys):
            start = self.at
            key = self.text()
            metadata[key] = self.value(self.number("I", "type"))
            pairs[key] = start, self.at
        infos = {}
        for _ in range(tensors):
            name = self.text()
            extents = tuple(self.number("Q", "extent") for _ in range(self.number("I", "count")))
            infos[name] = self.number("I", "type"), extents, self.number("Q", "offset")
        alignment = metadata.get("general.alignment", 32)
        base = math.ceil(self.at / alignment) * alignment
        return Layout(tuple(self.spans), metadata, infos, pairs, self.at, base)

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            return self.number(CODES[kind])
        inner, count = self.number("I", "type"), self.number("Q", "count")
        if inner in (STRING, ARRAY):
            return [self.value(inner) for _ in range(count)]
        size = struct.calcsize("<" + CODES[inner])
        found = struct.unpack_from(f"<{count}{CODES[inner]}", self.content, self.at)
        first = min(count, ITEMS)
        for _ in range(first):
            self.mark("number", size)
        self.mark("blob", (count - first) * size)
        return list(found)


def with_value(content: bytes, found: Layout, key: str, kind: int, value: bytes) -> bytes:
    """The file with another value of a metadata key, given as it lies in the file; tensors keep their places."""
    start, stop = found.pairs[key]
    raw = key.encode()
    entry = struct.pack("<Q", len(raw)) + raw + struct.pack("<I", kind) + value
    head = content[:start] + entry + content[stop : found.head]
    alignment = found.metadata.get("general.alignment", 32)
    return head + bytes(-len(head) % alignment) + content[found.base :]


def text_value(text: str) -> bytes:
    """A string as it lies in a file."""
    raw = text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(raw)) + raw


def mutated(content: bytes, found: Layout, rng: random.Random) -> bytes:
    """The file with one to three of its fields damaged, doubled, swapped or cut off."""
    raw = content
    for span in sorted(rng.sample(found.spans, rng.choice((1, 1, 1, 2, 3))), key=lambda s: -s.at):
        raw = raw[: span.at] + _other(content, span, found, rng) + raw[span.stop :]
    if rng.random() < 0.08:
        raw = raw[: rng.choice(found.spans).at + rng.choice((0, 0, 1, 3))]
    return raw


def _other(content: bytes, span: Span, found: Layout, rng: random.Random) -> bytes:
    """What comes in the place of a field."""
    old = content[span.at : span.stop]
    kind = rng.random()
    if kind < 0.12:  # what another field of the same kind holds
        twin = rng.choice([s for s in found.spans if s.kind == span.kind])
        return content[twin.at : twin.stop]
    if kind < 0.17:  # part of the file once more
        other = rng.choice(found.spans)
        return old + content[other.at : min(other.stop, other.at + 400)]
    if kind < 0.21:
        return b""
    if span.kind == "type":
        return struct.pack("<I", rng.choice((*range(32), 2**31, 2**32 - 1)))
    if span.kind == "text":
        return _text(old, rng)
    if span.kind == "blob":
        return bytes(rng.randrange(256) if rng.random() < 0.01 else byte for byte in old[:4000]) + old[4000:]
    size = len(old)
    value = int.from_bytes(old, "little")
    edges = (*WIDE_EDGES, len(content), len(content) - span.at) if size == 8 else EDGES
    near = (
        value + 1,
        value - 1,
        value * 2,
        value ^ 1 << rng.randrange(8 * size),
        value + 32,
        rng.getrandbits(8 * size),
    )
    return (rng.choice((*edges, *near)) % (1 << 8 * size)).to_bytes(size, "little")


def _text(old: bytes, rng: random.Random) -> bytes:
    """Other characters, of the same length, so that what follows stays in its place."""
    if not old:
        return b"x"
    raw = bytearray(old)
    at = rng.randrange(len(raw))
    patch = rng.choice(
        (b"\xff", b"\xed\xa0\x80", b"\0", b"\xc0\x80", b"\x1b[2J", b"\n", b"9", b'"', b"[" * 3000)
    )
    raw[at : at + len(patch)] = patch
    return bytes(raw[: len(old)])
