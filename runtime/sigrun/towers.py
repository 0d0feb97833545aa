"""The towers of a model that are in memory: how each came to run, and what becomes of it."""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

from sigrun import selftest
from sigrun.allocation import give_back_freed
from sigrun.artifact import Artifact
from sigrun.choice import FORMS, Candidate, candidates
from sigrun.cpus import default_threads
from sigrun.errors import ArtifactError, ProviderError, ProviderWarning
from sigrun.forking import watch
from sigrun.info import Running
from sigrun.manifest import TowerName
from sigrun.pictures import Decode
from sigrun.prepared import Cache, cache_folder
from sigrun.providers import CPU, NotHereError, named
from sigrun.sessions import TowerSession
from sigrun.tokens import Tokenizer

MOST_THREADS = 256


@dataclass(frozen=True)
class Settings:
    """How a model was asked for; see ``Siglip.load``.

    Raises:
        ProviderError: the compute form or provider does not exist, or that number of threads cannot be.
        ValueError: ``decode`` is unknown, or ``max_pixels`` less than 1.
    """

    compute: str
    provider: str
    threads: int | None
    max_pixels: int
    decode: Decode
    cache: Cache

    def __post_init__(self) -> None:
        if self.compute not in ("auto", *FORMS):
            raise ProviderError(
                f"there is no compute form '{self.compute}'; there are: auto, {', '.join(FORMS)}"
            )
        if self.provider != "auto":
            named(self.provider)
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise ProviderError(f"threads must be 1 to {MOST_THREADS}, not {self.threads}")
        if self.decode not in ("exact", "fast"):
            raise ValueError(f"decode must be exact or fast, not {self.decode!r}")
        if not self.max_pixels >= 1:
            raise ValueError(f"max_pixels must be at least 1, not {self.max_pixels}")


class Towers:
    """The sessions of one model; safe to use from several threads."""

    def __init__(self, artifact: Artifact, settings: Settings) -> None:
        self._artifact = artifact
        self._settings = settings
        self._cache: Path | None = cache_folder(settings.cache)
        self.threads = settings.threads or default_threads()
        self._sessions: dict[TowerName, TowerSession] = {}
        self._tokenizer: Tokenizer | None = None
        self._closed = False
        self._lock = threading.RLock()
        watch(self)

    def after_fork(self) -> None:
        """In a forked child: towers are loaded anew, and the lock may be held by a thread that is not there."""
        self._lock = threading.RLock()
        self._sessions = {}

    def get(self, tower: TowerName) -> TowerSession:
        """A tower, loaded if it is not yet.

        Warns:
            ProviderWarning: ``auto`` passed over a way to run it.

        Raises:
            ArtifactError: there is no such tower, the file is damaged, or the model is closed.
            ProviderError: it cannot run as asked.
        """
        with self._lock:
            self._check_open()
            session = self._sessions.get(tower)
            if session is None:
                session = self._load(tower)
                self._sessions[tower] = session
            return session

    def tokenizer(self) -> Tokenizer:
        """What cuts texts into tokens.

        Raises:
            ArtifactError: the file has no text tower, or the model is closed.
        """
        with self._lock:
            self._check_open()
            if self._tokenizer is None:
                self._tokenizer = Tokenizer(self._artifact.tokenizer())
            return self._tokenizer

    def test(self, towers: tuple[TowerName, ...]) -> selftest.SelfTest:
        """Test towers, loading those that are not; what they get wrong is in the result."""
        found = []
        for tower in towers:
            try:
                found.append(selftest.run(self._artifact, self.get(tower), self.tokenizer))
            except (ArtifactError, ProviderError) as error:
                first = self.first(tower)
                found.append(
                    selftest.TowerTest(
                        tower, first.compute, first.provider, None, None, error.message.splitlines()[0]
                    )
                )
        return selftest.SelfTest(tuple(found))

    def unload(self, tower: TowerName) -> None:
        """Give a tower's memory back."""
        with self._lock:
            self._sessions.pop(tower, None)
        give_back_freed()

    def close(self) -> None:
        """Give everything back, for good."""
        with self._lock:
            self._closed = True
            self._sessions.clear()
            self._tokenizer = None
            self._artifact.close()
        give_back_freed()

    def running(self) -> dict[TowerName, Running]:
        """The towers in memory; said at once, also while another is being loaded."""
        return {
            tower: Running(session.form, session.provider.name, session.device)
            for tower, session in self._sessions.copy().items()
        }

    def first(self, tower: TowerName | None = None) -> Running:
        """How a tower, or whichever comes first, runs; or will be tried to run, if it is not in memory."""
        running = self.running()
        if tower is None and running:
            return next(iter(running.values()))
        if tower in running:
            return running[tower]
        towers = self._artifact.towers
        wanted = towers[0] if tower is None or tower not in towers else tower
        try:
            tried = self._candidates(wanted)[0]
        except ProviderError:  # there is no ONNX Runtime
            tried = Candidate(CPU, self._settings.compute)
        return Running(tried.form, tried.provider.name, "")

    def _check_open(self) -> None:
        if self._closed:
            raise ArtifactError(
                f"{self._artifact.path}: the model is closed", hint="load it again with Siglip.load"
            )

    def _candidates(self, tower: TowerName) -> tuple[Candidate, ...]:
        return candidates(self._artifact, tower, self._settings.compute, self._settings.provider)

    def _load(self, tower: TowerName) -> TowerSession:
        """The first way to run a tower that works."""
        if tower not in self._artifact.towers:
            raise no_such_tower(self._artifact, tower)
        ways = list(self._candidates(tower))
        while True:
            way = ways.pop(0)
            try:
                session = TowerSession(
                    self._artifact,
                    tower,
                    way.form,
                    self.threads,
                    provider=way.provider,
                    automatic=self._settings.provider == "auto",
                    cache=self._cache,
                )
                if way.provider is not CPU:
                    self._prove(session)
                return session
            except ProviderError as error:
                if isinstance(error, NotHereError):
                    ways = [other for other in ways if other.provider != way.provider]
                if not ways:
                    raise
                warnings.warn(
                    f"{error.message.splitlines()[0]}; trying provider '{ways[0].provider.name}' "
                    f"in form '{ways[0].form}'",
                    ProviderWarning,
                    stacklevel=5,
                )

    def _prove(self, session: TowerSession) -> None:
        """Let a tower that does not run on the CPU show that it computes what it should, once a machine.

        Raises:
            ProviderError: it does not.
        """
        where = f"{self._artifact.path}: the {session.tower} tower"
        if not selftest.can_test(self._artifact, session.tower):
            warnings.warn(
                f"{where} could not be tested on provider '{session.provider.name}': the artifact was exported "
                "without verification",
                ProviderWarning,
                stacklevel=6,
            )
            return
        name = selftest.key(self._artifact, session)
        if selftest.passed_before(self._cache, name):
            return
        found = selftest.run(self._artifact, session, self.tokenizer)
        if not found.passed:
            raise ProviderError(
                f"{where} fails its self-test on provider '{session.provider.name}' in form '{session.form}': "
                f"{found.problem}",
                hint="use another compute form, such as exact, or provider cpu",
            )
        selftest.remember(self._cache, name, found)


def no_such_tower(artifact: Artifact, tower: TowerName) -> ArtifactError:
    """The error of asking an artifact for a tower that it was exported without."""
    have = " and ".join(artifact.towers) or "no"
    return ArtifactError(
        f"{artifact.path}: has no {tower} tower: the checkpoint it was exported from "
        f"({artifact.manifest.source.model}) holds the {have} tower alone",
        hint="embed pictures with it; to score labels, export a checkpoint with both towers"
        if tower == "text"
        else "export a checkpoint with both towers",
    )
