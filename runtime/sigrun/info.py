"""What a loaded model says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sigrun.manifest import Manifest, TowerName


@dataclass(frozen=True)
class Running:
    """How a tower that is in memory runs.

    Attributes:
        compute: its compute form.
        provider: where it runs.
        device: which device of the provider.
    """

    compute: str
    provider: str
    device: str


@dataclass(frozen=True)
class Info:
    """What a loaded model is.

    Attributes:
        path: the artifact.
        nbytes: its size in bytes.
        tower_nbytes: tower → bytes of its stored weights.
        loaded: towers in memory now.
        compute: compute form: that of the towers in memory, else the one that will be tried first.
        provider: where it runs, likewise.
        threads: threads within one run.
        manifest: everything the file says of itself.
        running: tower in memory → how it runs; towers may differ where ``auto`` chose.
    """

    path: str
    nbytes: int
    tower_nbytes: Mapping[str, int]
    loaded: tuple[TowerName, ...]
    compute: str
    provider: str
    threads: int
    manifest: Manifest
    running: Mapping[TowerName, Running] = field(default_factory=dict)
