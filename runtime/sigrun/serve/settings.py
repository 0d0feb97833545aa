"""What a server may be told, and how much it takes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sigrun.labels import LabelSet
from sigrun.manifest import TowerName

MIB = 1 << 20
DEFAULT_PORT = 8000


@dataclass(frozen=True)
class Limits:
    """How much is taken on. What exceeds a limit is refused in words, before anything is decoded.

    Attributes:
        body_bytes: most bytes of one request.
        held_bytes: most bytes of all requests that are held at once.
        requests: most requests that are held at once.
        connections: most connections that are open at once.
        items: most pictures and texts in one request.
        queue: most pictures or texts that wait for one tower.
        predictions: most scores in one answer of ``/v1/classify``.
        hits: most pictures in one answer of ``/v1/search``.
        picture_bytes: most bytes of one picture's file.
        text_characters: most characters of one text.
        json_parts: most values in one request's JSON.
        body_seconds: how long a request's head, and then its body, may take to arrive.
        answer_seconds: how long a request may wait and be computed.
        load_seconds: how long a request waits for a tower that is being loaded.
        batch: most pictures or texts that are handed to a tower together.
        wait_ms: how long a tower waits for more of them; none for 0 on CPUs, which gain nothing by it, and 5 on GPUs.
        idle_seconds: towers unused for so long give their memory back; none to keep them.
        kept_vectors: vectors of recent pictures and texts that are kept for each tower.
        stop_seconds: how long a server that was told to stop may finish what it took on.
    """

    body_bytes: int = 32 * MIB
    held_bytes: int = 128 * MIB
    requests: int = 128
    connections: int = 512
    items: int = 1024
    queue: int = 2048
    predictions: int = 100_000
    hits: int = 1000
    picture_bytes: int = 20 * MIB
    text_characters: int = 10_000
    json_parts: int = 100_000
    body_seconds: float = 30.0
    answer_seconds: float = 120.0
    load_seconds: float = 10.0
    batch: int = 8
    wait_ms: float | None = None
    idle_seconds: float | None = None
    kept_vectors: int = 2048
    stop_seconds: float = 30.0


@dataclass(frozen=True)
class FetchLimits:
    """How pictures are fetched.

    Attributes:
        hosts: host names that may be asked, each with a port after a colon if it is not the scheme's own.
        nbytes: most bytes of one picture.
        seconds: how long one picture may take, with all redirects.
        redirects: how many of them are followed.
        at_once: how many pictures are fetched at the same time.
    """

    hosts: tuple[str, ...] = ()
    nbytes: int = 20 * MIB
    seconds: float = 10.0
    redirects: int = 3
    at_once: int = 8


@dataclass(frozen=True)
class ServeSettings:
    """How a model is served.

    Attributes:
        host: the address to bind.
        port: the port; 0 for any that is free.
        token: what clients must send as a bearer token; none to ask for none.
        anyone: whether a server that others can reach may do without a token.
        names: further names under which this machine may be addressed.
        aliases: further names under which the model may be asked for.
        label_sets: label sets that clients may name.
        index: an index of pictures that clients may search.
        other_variant: whether it may be of another variant or compute form than the model.
        preload: towers to load before the first request.
        log: whether each request is logged, without its contents.
        limits: how much is taken on.
        fetch: how pictures are fetched.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    token: str | None = None
    anyone: bool = False
    names: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    label_sets: Mapping[str, LabelSet] = field(default_factory=dict)
    index: Path | None = None
    other_variant: bool = False
    preload: tuple[TowerName, ...] = ()
    log: bool = True
    limits: Limits = Limits()
    fetch: FetchLimits = FetchLimits()
