"""How many pictures or texts run at once.

Form int8 rounds all activations of a run on one scale, so that items that ran together would change one another's
vectors. There each item runs alone: its vector is the same whatever stands beside it, today and tomorrow.
"""

from __future__ import annotations

from typing import Final

MICRO_BATCH_TOKENS: Final = 1024
"""Tokens run at once: on a CPU larger batches are no faster per picture and hold more memory."""
ALONE: Final = ("int8",)
"""Compute forms in which an item's vector would depend on those it runs with."""


def micro_batch(tokens: int, form: str) -> int:
    """Number of pictures or texts, each of so many tokens inside its tower, that run at once in a compute form."""
    return 1 if form in ALONE else max(1, MICRO_BATCH_TOKENS // tokens)
