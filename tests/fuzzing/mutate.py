"""Mutations of bytes and of JSON values."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

EDGES = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**62)
WIDE_EDGES = (*EDGES, 2**63 - 1, 2**63, 2**64 - 1, 2**64 - 8, 2**40, 2**24)

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**400, 0.5, -0.0, 1e308, -1e308, 1e-320,
    float("nan"), float("inf"), float("-inf"), "", " ", "x", "\0", "\ud800", "\x1b[2J", "\n", "a" * 5000, "../../x",
    "１", "0", "null", [], [[]], [None], [0], [1, 1], [-1, 5], [2**40, 2**40], [1.5, 1], ["a"], [True, True], {},
    {"": ""}, {"a": {}}, [[1]] * 3, list(range(2000)),
)  # fmt: skip
"""Values that stand where others belong."""


DEEP = (
    "@deep@"  # stands for a list nested deeply, in text only: it is beyond what copies of values could take
)


def hostile(rng: random.Random) -> Any:
    """A value of any kind."""
    return DEEP if rng.random() < 0.05 else copy.deepcopy(rng.choice(HOSTILE))


Path = tuple[str | int, ...]


def paths(value: Any, at: Path = ()) -> list[Path]:
    """The place of every value inside a JSON value, itself left out."""
    if isinstance(value, dict):
        return [p for k, v in value.items() for p in ((*at, k), *paths(v, (*at, k)))]
    if isinstance(value, list):
        return [p for i, v in enumerate(value) for p in ((*at, i), *paths(v, (*at, i)))]
    return []


def put(value: Any, at: Path, new: Any) -> None:
    """Replace what lies at a place."""
    for step in at[:-1]:
        value = value[step]
    value[at[-1]] = new


def get(value: Any, at: Path) -> Any:
    """What lies at a place."""
    for step in at:
        value = value[step]
    return value


def some_place(value: Any, rng: random.Random) -> Path:
    """A place, each level of nesting entered with the same chance, so that rare fields are met as often as many."""
    at: Path = ()
    while True:
        inner = get(value, at)
        steps: list[str | int] = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        at = (*at, rng.choice(steps))
        found = get(value, at)
        if not isinstance(found, dict | list) or not found or rng.random() < 0.15:
            return at


def mutated_json(value: Any, rng: random.Random) -> Any:
    """A JSON value with one to three changes: replaced, removed, renamed, swapped, added."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not value:
            break
        at = some_place(value, rng)
        parent = get(value, at[:-1])
        kind = rng.random()
        if kind < 0.55:
            put(value, at, hostile(rng))
        elif kind < 0.70:
            put(value, at, _near(get(value, at), rng))
        elif kind < 0.80:
            del parent[at[-1]]
        elif kind < 0.90:
            put(value, at, copy.deepcopy(get(value, some_place(value, rng))))
        elif isinstance(parent, dict):
            parent[rng.choice(("", "\ud800", "x" * 3000, "\x1b[31m", "a.b", str(at[-1]) + " "))] = parent.pop(
                at[-1]
            )
        else:
            parent.extend(parent[:1] * rng.choice((1, 5, 3000)))
    return value


def _near(value: Any, rng: random.Random) -> Any:
    """A value like the one that was there."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return (
            value + rng.choice((-1, 1, 256, -256))
            if rng.random() < 0.5
            else value * rng.choice((2, 2**20, -1))
        )
    if isinstance(value, float):
        return value * rng.choice((-1.0, 1e10, 1e300))
    if isinstance(value, str):
        return value[:-1] if rng.random() < 0.5 else value + rng.choice(("\0", "x", "é", "\u202e"))
    return hostile(rng)


def mutated_text(value: Any, rng: random.Random) -> str:
    """JSON text of a mutated value, of moderate length; now and then the text itself is damaged too."""
    text = ""
    while not text or len(text) > 300_000:
        text = json.dumps(mutated_json(value, rng), ensure_ascii=rng.random() < 0.5)
    depth = rng.choice((3, 50, 400, 900, 990, 100_000))
    text = text.replace(f'"{DEEP}"', "[" * depth + "1" + "]" * depth)
    if rng.random() < 0.1:
        at = rng.randrange(len(text))
        text = (
            text[:at]
            + rng.choice(('"', "{", "[" * 5000, "}", ",", "NaN", "\0", "1e999", ""))
            + text[at + 1 :]
        )
    return text


def mutated_bytes(content: bytes, rng: random.Random, *, front: int = 256) -> bytes:
    """Bytes set, dropped, inserted, doubled, moved or cut off, about half of them within the first ``front``."""
    raw = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        if not raw:
            break
        end = min(len(raw), front) if rng.random() < 0.5 else len(raw)
        at = rng.randrange(end)
        kind = rng.random()
        if kind < 0.35:
            raw[at] = rng.randrange(256)
        elif kind < 0.55:
            width = rng.choice((1, 2, 4, 8))
            edge = rng.choice(WIDE_EDGES) % (1 << 8 * width)
            raw[at : at + width] = edge.to_bytes(width, rng.choice(("little", "big")))
        elif kind < 0.65:
            del raw[at : at + rng.choice((1, 2, 4, 16, 200))]
        elif kind < 0.75:
            raw[at:at] = rng.randbytes(rng.choice((1, 4, 40)))
        elif kind < 0.87:
            start = rng.randrange(len(raw))
            raw[at:at] = raw[start : start + rng.choice((4, 32, 400))]
        else:
            del raw[rng.randrange(len(raw)) :]
    return bytes(raw)
