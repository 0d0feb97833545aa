"""Which compute form a tower gets on which provider."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sigrun import (
    ArtifactError,
    ProviderError,
    Siglip,
    choice,
    providers,
    selftest,
    sessions,
)
from sigrun.artifact import Artifact
from sigrun.providers import CPU, PROVIDERS, named
from tests.runtime_fake import GREY


@pytest.fixture(scope="module")
def artifact(emoji_q4: Path) -> Iterator[Artifact]:
    with Artifact.open(emoji_q4) as opened:
        yield opened


def test_the_form_of_the_cpu(artifact: Artifact, tiny_q4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choice.forms(artifact, "image", CPU) == ("int8",)
    with Artifact.open(tiny_q4) as unverified:
        assert choice.forms(unverified, "image", CPU) == ("exact",)
    verification = artifact.manifest.verification
    assert verification is not None
    agreement = verification.forms["int8"]
    monkeypatch.setitem(agreement.__dict__, "problems", ("too far",))
    assert choice.forms(artifact, "image", CPU) == ("exact",)


@pytest.mark.parametrize(("free", "expected"), [(1 << 40, "f16"), (1 << 20, "w4f16"), (None, "f16")])
def test_the_form_of_a_gpu_follows_its_free_memory(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch, free: int | None, expected: str
) -> None:
    monkeypatch.setattr(choice, "free_bytes", lambda _: free)
    found = choice.forms(artifact, "image", PROVIDERS["cuda"])
    assert found[0] == expected
    assert found[-1] == "exact"
    assert choice.forms(artifact, "image", PROVIDERS["directml"]) == ("f16", "exact")


def test_what_f16_needs(artifact: Artifact) -> None:
    weights = sum(t.size for t in artifact.tensors.values() if t.tower == "image")
    assert choice.fits(artifact, "image", 2 * weights + choice.WORKING_BYTES)
    assert not choice.fits(artifact, "image", 2 * weights + choice.WORKING_BYTES - 1)
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(choice, "SMALL_BYTES", 1 << 20)
        assert not choice.fits(artifact, "image", None)


def test_a_form_that_the_artifact_lacks_is_passed_over(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = {
        t: {f: g for f, g in forms.items() if f != "f16"} for t, forms in artifact.manifest.graphs.items()
    }
    monkeypatch.setitem(artifact.manifest.__dict__, "graphs", graphs)
    assert choice.forms(artifact, "image", PROVIDERS["cuda"])[0] == "w4f16"
    assert choice.forms(artifact, "image", PROVIDERS["webgpu"]) == ("exact",)
    with pytest.raises(ArtifactError, match="has no image graph of form 'f16'"):
        sessions.TowerSession(artifact, "image", "f16", 1)


class Nvml(types.ModuleType):
    """NVIDIA's driver with two cards."""

    def __init__(self, free: list[int]) -> None:
        super().__init__("pynvml")
        self.free, self.open = free, 0

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return self.free[index]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return types.SimpleNamespace(free=handle)


@pytest.mark.parametrize(
    ("visible", "name", "expected"),
    [
        *((None, "cuda", 11), (None, "cuda:1", 22), (None, "cuda:2", None)),
        *(("1,0", "cuda", 22), ("1", "cuda:1", None), ("GPU-1234", "cuda", None), ("", "cuda", None)),
        (None, "directml", None),
    ],
)
def test_free_memory_is_that_of_the_card(
    visible: str | None, name: str, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = Nvml([11, 22])
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert choice.free_bytes(named(name)) == expected
    assert nvml.open == 0


def test_pynvml_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert choice.free_bytes(PROVIDERS["cuda"]) is None


def test_forms_for_gpus_run_on_the_cpu_by_name(emoji_q4: Path) -> None:
    with Siglip.load(emoji_q4, compute="exact") as model:
        expected = model.embed_images([GREY]).vectors[0]
    for form in ("f16", "w4f16"):
        with Siglip.load(emoji_q4, compute=form) as model:
            found = model.embed_images([GREY]).vectors[0]
            assert model.info.compute == form
        assert 1e-9 < 1 - float(found.astype(np.float64) @ expected) < 1e-4


def test_without_onnxruntime_the_file_still_opens(emoji_q4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise ProviderError("ONNX Runtime cannot be loaded", hint="pip install 'sigrun[cpu]'")

    for module in (providers, sessions, selftest):
        monkeypatch.setattr(module, "onnxruntime", missing)
    with Siglip.load(emoji_q4) as model:
        assert model.info.provider == "cpu"
        with pytest.raises(ProviderError, match="cannot be loaded"):
            model.embed_images([GREY])
