"""From a list of merges back to the scores of pieces.

SentencePiece merges the two neighbours whose joint piece has the best score, whatever the two are. The
``tokenizers`` library lists every pair that may be merged, best first; where the list was made from a SentencePiece
model, the pairs of one piece stand together, and no pair is left out. Only then can scores say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sigrun.errors import CheckpointError
from sigrun.spm import NORMAL
from sigrun_exporters.tokenizer.checked import damaged

_WAY_OUT = "put the SentencePiece model it was made from (tokenizer.model) into the folder"


def scores_of(
    file: str, ids: Mapping[str, int], merges: Sequence[tuple[str, ...]], types: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Scores of all pieces: the earlier merged, the higher.

    Args:
        file: the file's name, for errors.
        ids: piece → id.
        merges: pairs, the first merged first.
        types: int32 [V], of the pieces; only normal ones are merged.

    Returns:
        float32 [V].

    Raises:
        CheckpointError: no SentencePiece model merges like that.
    """
    scores = np.full(len(types), -len(merges) - 1.0, np.float32)  # pieces that no merge makes
    last = ""
    done: set[str] = set()
    for rank, merge in enumerate(merges):
        if len(merge) != 2:
            raise damaged(file, f"its merge {rank} is not a pair")
        piece = merge[0] + merge[1]
        made = ids.get(piece)
        if made is None or merge[0] not in ids or merge[1] not in ids:
            raise damaged(file, f"its merge {rank} is of pieces it does not have")
        if types[made] != NORMAL or piece == last:
            continue
        if piece in done:
            raise CheckpointError(
                f"{file} merges {piece!r} in two places of its list, as no SentencePiece model does",
                hint=_WAY_OUT,
            )
        scores[made] = -rank
        done.add(piece)
        last = piece
    listed = set(merges)
    for piece, i in ids.items():
        if types[i] != NORMAL:
            continue
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in ids and right in ids and (left, right) not in listed:
                raise CheckpointError(
                    f"{file} does not merge {left!r} and {right!r}, as a SentencePiece model with {piece!r} does",
                    hint=_WAY_OUT,
                )
    return scores
