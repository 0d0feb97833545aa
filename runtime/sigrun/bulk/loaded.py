"""Models that workers hold: each is loaded once a process, however many copies of its settings arrive there."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from sigrun.decoders import DEFAULT_MAX_PIXELS, Decode
from sigrun.model import Siglip
from sigrun.prepared import Cache


@dataclass(frozen=True)
class How:
    """How a model is loaded; see ``Siglip.load`` for what the options mean.

    Attributes:
        path: the artifact; absolute, since workers may stand in another folder.
    """

    path: str
    compute: str = "auto"
    provider: str = "auto"
    threads: int | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    decode: Decode = "exact"
    cache: Cache = "auto"


_models: dict[How, Siglip] = {}
_lock = threading.Lock()


def loaded(how: How) -> Siglip:
    """This process's model for these settings.

    Raises:
        SigrunError: it cannot be loaded.
    """
    with _lock:
        model = _models.get(how)
        if model is None:
            model = _models[how] = Siglip.load(
                how.path,
                compute=how.compute,
                provider=how.provider,
                threads=how.threads,
                max_pixels=how.max_pixels,
                decode=how.decode,
                cache=how.cache,
            )
        return model


def forget(how: How) -> None:
    """Give a model's memory back, if this process holds it."""
    with _lock:
        model = _models.pop(how, None)
    if model is not None:
        model.close()
