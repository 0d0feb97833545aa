"""Readers under damaged and hostile input: what a case is, and what must hold of its outcome.

A reader is fed mutated files, ``python -W error -m tests.fuzzing`` runs them in child processes whose address space
is capped, so that an allocation by an unchecked number fails, and a reader that crashes the interpreter is found out.
Each case follows from the target's name, a seed and its index, so each can be made again. Files that once made a
reader fail are kept under ``tests/data/crashers`` and read again by ``tests/test_fuzz_readers.py``.
"""

from __future__ import annotations

import random
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

CRASHERS = Path(__file__).parent.parent / "data" / "crashers"
LONGEST_MESSAGE = 1500  # characters: a message names a field, it does not print it whole


class Target(Protocol):
    """A reader with a source of input for it."""

    name: str
    cap_mib: int  # of address space that a case may take beyond what the first sound one did
    pace: int  # cases in CI

    def sound(self) -> bytes:
        """Input that the reader accepts."""

    def case(self, rng: random.Random) -> bytes:
        """Mutated input."""

    def read(self, content: bytes, place: Path) -> bool:
        """Read it from ``place``; whether it was accepted. Whatever this raises is a fault of the reader."""


@dataclass
class Fault:
    """A case that ended in neither success nor a refusal."""

    index: int
    what: str
    content: bytes = b""


@dataclass
class Tally:
    """What became of the cases of one target."""

    target: str
    accepted: int = 0
    refused: int = 0
    faults: list[Fault] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return self.accepted + self.refused + len(self.faults)


def seeded(name: str, seed: int, index: int) -> random.Random:
    """The source of randomness of one case."""
    return random.Random(f"{name} {seed} {index}")


def well_refused(error: Exception, place: str, *, own: bool = False) -> bool:
    """Hold a refusal against the rules of messages: it names the file and a field, shortly, in plain characters.

    Always False, for a reader's "not accepted". What quotes files that users write themselves (``own``) may be long.
    """
    message = str(error)
    assert place in message, f"the place is not named: {message[:300]!a}"
    rest = message.replace(place, "", 1).strip(": \n")
    assert len(rest) >= 8, f"nothing is said but the place: {message!a}"
    if own:
        return False
    assert len(rest) <= LONGEST_MESSAGE, f"{len(rest)} characters: {message[:300]!a}"
    odd = [c for c in rest if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c != "\n"]
    assert not odd, f"control characters: {message[:300]!a}"
    return False
