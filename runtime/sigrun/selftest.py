"""Self-tests: a known picture and a known text, embedded here and compared with what the exporter computed.

The artifact holds the embeddings of both in form ``exact`` (:class:`sigrun.verification.Golden`), and for each form
the cosines to the checkpoint. What a form loses against form ``exact`` there, on average or at worst, it may lose here
twice over, because the known inputs are not among those it was measured on, and besides what its number format costs.
Form ``exact`` computes the same numbers in another order, so next to nothing is allowed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sigrun.artifact import TOKEN_TABLE, Artifact
from sigrun.errors import ArtifactError, ProviderError
from sigrun.int8 import EIGHT_BITS, largest
from sigrun.manifest import TowerName
from sigrun.onnx_runtime import onnxruntime
from sigrun.pixels import to_pixels
from sigrun.prepared import TESTED
from sigrun.sessions import TowerSession
from sigrun.tokens import Tokenizer
from sigrun.verification import Verification, golden_picture

ORDER = 2e-6  # 1 - cosine that float32 sums in another order may cost; they cost a hundredth of it
FORMAT = 5e-4  # 1 - cosine that a coarser number format may cost where the verification saw no loss
MARGIN = 2.0


@dataclass(frozen=True)
class TowerTest:
    """What the self-test of one tower found.

    Attributes:
        tower: the tower.
        form: its compute form.
        provider: where it ran.
        cosine: between the embedding found and the golden one; none if there was nothing to compare.
        limit: the least cosine that passes.
        problem: why it could not be tested, or why it failed.
    """

    tower: TowerName
    form: str
    provider: str
    cosine: float | None
    limit: float | None
    problem: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the tower computes what it should."""
        return self.problem is None

    def line(self) -> str:
        """The finding in one line."""
        what = f"{self.tower} tower, form {self.form}, provider {self.provider}"
        if self.cosine is None or self.limit is None:
            return f"{what}: {self.problem}"
        verdict = "passed" if self.passed else "FAILED"
        return f"{what}: cosine {self.cosine:.6f}, at least {self.limit:.6f} expected: {verdict}"


@dataclass(frozen=True)
class SelfTest:
    """What the self-test of a model found, tower by tower."""

    tests: tuple[TowerTest, ...]

    @property
    def passed(self) -> bool:
        """Whether every tower was tested and computes what it should."""
        return bool(self.tests) and all(test.passed for test in self.tests)

    def lines(self) -> list[str]:
        """One line a tower."""
        return [test.line() for test in self.tests]


def can_test(artifact: Artifact, tower: TowerName) -> bool:
    """Whether the artifact holds a golden embedding of a tower; those exported without verification do not."""
    return _golden(artifact, tower) is not None


def run(artifact: Artifact, session: TowerSession, tokenizer: Callable[[], Tokenizer]) -> TowerTest:
    """Test one tower.

    Args:
        artifact: the open file.
        session: the tower.
        tokenizer: gives the file's tokenizer; called for the text tower only.
    """
    tower, form, provider = session.tower, session.form, session.provider.name
    golden = _golden(artifact, tower)
    if golden is None:
        problem = "the artifact holds nothing to compare with: it was exported without verification"
        return TowerTest(tower, form, provider, None, None, problem)
    try:
        found = session.embed(_known_input(artifact, tower, tokenizer))[0]
    except (ArtifactError, ProviderError) as error:
        return TowerTest(tower, form, provider, None, None, error.message)
    limit = least_cosine(artifact, tower, form)
    if len(found) != len(golden):
        problem = f"gives {len(found)} numbers, the artifact's golden embedding has {len(golden)}"
        return TowerTest(tower, form, provider, None, limit, problem)
    expected = np.asarray(golden, np.float64)
    mine = found.astype(np.float64)
    cosine = float(mine @ expected / (np.linalg.norm(mine) * np.linalg.norm(expected)))
    problem = f"cosine {cosine:.6f} to the golden embedding; form {form} must reach {limit:.6f}"
    return TowerTest(tower, form, provider, cosine, limit, None if cosine >= limit else problem)


def least_cosine(artifact: Artifact, tower: TowerName, form: str) -> float:
    """How close to the golden embedding a form must come, by what the export measured."""
    if form == "exact":
        return 1 - ORDER
    allowed = FORMAT + MARGIN * _loss(artifact.manifest.verification, tower, form)
    if form == "int8" and largest() < EIGHT_BITS:
        allowed *= (
            4  # 7-bit weights are rounded twice as coarsely as the exporter's, and the loss is a square
        )
    return max(0.0, 1 - allowed)


def _loss(verification: Verification | None, tower: TowerName, form: str) -> float:
    """The cosine that a form loses against form exact, by what the export measured."""
    forms = {} if verification is None else verification.forms
    if form not in forms or "exact" not in forms:
        return 0.0
    ours, exact = forms[form].cosines.get(tower), forms["exact"].cosines.get(tower)
    if ours is None or exact is None:
        return 0.0
    return max(0.0, exact.mean - ours.mean, exact.worst - ours.worst)


def key(artifact: Artifact, session: TowerSession) -> str:
    """Hash of all that the outcome of a tower's self-test follows from."""
    manifest = artifact.manifest
    graph = manifest.graphs[session.tower][session.form]
    digest = hashlib.sha256(
        "\n".join(
            (
                onnxruntime().__version__,
                session.provider.ep,
                session.device,
                session.form,
                graph.sha256,
                *(f"{name!r} {manifest.tensors[name].sha256}" for name in sorted(graph.weights)),
                *([manifest.tensors[TOKEN_TABLE].sha256] if session.tower == "text" else []),
            )
        ).encode()
    )
    return digest.hexdigest()


def passed_before(cache: Path | None, name: str) -> bool:
    """Whether a test with this key has passed on this machine."""
    if cache is None:
        return False
    try:
        about = os.lstat(cache / f"{name}{TESTED}")
        ours = sys.platform == "win32" or (about.st_uid in (0, os.geteuid()) and not about.st_mode & 0o022)
        return stat.S_ISREG(about.st_mode) and ours
    except OSError:
        return False


def remember(cache: Path | None, name: str, test: TowerTest) -> None:
    """Keep in the cache that a test passed; a cache that takes nothing is no error."""
    if cache is None:
        return
    with contextlib.suppress(OSError):
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = cache / f"{name}{TESTED}"
        path.unlink(missing_ok=True)
        path.touch(0o600)
        path.write_text(json.dumps({"cosine": test.cosine, "limit": test.limit}), "ascii")


def _golden(artifact: Artifact, tower: TowerName) -> tuple[float, ...] | None:
    golden = artifact.manifest.golden
    if golden is None:
        return None
    return golden.image if tower == "image" else golden.text_embedding


def _known_input(
    artifact: Artifact, tower: TowerName, tokenizer: Callable[[], Tokenizer]
) -> NDArray[np.float32]:
    manifest = artifact.manifest
    if tower == "image":
        picture = golden_picture(manifest.preprocessing.height)
        return to_pixels(Image.fromarray(picture), manifest.preprocessing)[None]  # [1, 3, side, side]
    text = manifest.golden.text if manifest.golden is not None else ""
    return artifact.token_rows(tokenizer().encode([text]).ids)  # [1, context, width]
