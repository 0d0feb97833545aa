"""Into how many pieces the packed matrices of a layer are cut.

ONNX Runtime's MatMulNBits unpacks a matrix as float32 for each product, into memory that it takes from the C library,
outside its arena. Scratch of 20 MB, taken and given back hundreds of times in a run, ends up at several places of
the heap, and at other places in each run. Cut into pieces of at most :data:`PIECE_BYTES` a run takes less memory, and
nearly the same each time; it is not slower, since a piece stays in the processor's cache until it is multiplied.

A layer's MLP is cut into groups of hidden units and its attention into groups of heads: the first matrices by their
outputs, the last by its inputs, and the results of the groups are added up. A matrix that stands alone is
cut by its outputs, which are put together again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from sigrun_recipes.architecture import Tower

PIECE_BYTES = 3 << 20
MOST = 16
"""More pieces than that cost more than they bring, also where they are larger than :data:`PIECE_BYTES`."""
BLOCK = 32
"""The most weights that share a scale in MatMulNBits: a cut through inputs must fall between two such blocks."""

Cut = tuple[Literal["outputs", "inputs"], int]
"""What is cut, into how many pieces."""


def cuts(tower: Tower, packed: Mapping[str, tuple[int, ...]]) -> dict[str, Cut]:
    """How a graph cuts its packed matrices; those that stay whole are not among the result.

    Args:
        tower: the tower.
        packed: name → [outputs, inputs] of the matrices that MatMulNBits multiplies, in float32.
    """
    found: dict[str, Cut] = {}
    for name, (outputs, inputs) in packed.items():
        if name in found:
            continue
        block, _, part = name.removesuffix(".weight").rpartition(".")
        group = _group(block, part, packed)
        if len(group) > 1:
            count = (
                _groups_of_hidden(packed[group[0]]) if part.startswith("ffn_") else _groups_of_heads(tower)
            )
            if count > 1:
                found.update(dict.fromkeys(group[:-1], ("outputs", count)))
                found[group[-1]] = "inputs", count
                continue
        alone = _fewest(_divisors(outputs), outputs * inputs)
        if alone > 1:
            found[name] = "outputs", alone
    return found


def _group(block: str, part: str, packed: Collection[str]) -> list[str]:
    """The matrices that are cut together with one of a block, if all of them are packed: what takes the inputs last.

    Heads are groups in layers alone: a pooling head's probe is one row, whose products are put together again.
    """
    if part.startswith("ffn_"):
        parts = ["ffn_up", "ffn_down"]
    elif part.startswith("attn_") and ".blk." in block:
        parts = ["attn_q", "attn_k", "attn_v", "attn_out"]
    else:
        return []
    names = [f"{block}.{name}.weight" for name in parts]
    return names if all(name in packed for name in names) else []


def _groups_of_heads(tower: Tower) -> int:
    fits = (n for n in _divisors(tower.heads) if tower.width % (n * BLOCK) == 0)
    return _fewest(fits, tower.width * tower.width)


def _groups_of_hidden(up: tuple[int, ...]) -> int:
    hidden, width = up
    return _fewest(_divisors(hidden // BLOCK), hidden * width) if hidden % BLOCK == 0 else 1


def _fewest(counts: Iterable[int], size: int) -> int:
    """The least of some counts by which a piece of ``size`` weights is small enough, or else the largest."""
    count = 1
    for count in counts:
        if 4 * size <= count * PIECE_BYTES:
            break
    return count


def _divisors(number: int) -> Iterable[int]:
    return (n for n in range(1, min(number, MOST) + 1) if number % n == 0)
