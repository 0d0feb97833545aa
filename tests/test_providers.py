"""Which provider and form a tower gets, and that it is never another in silence.

The machines that run these tests have no accelerator. Where one is needed, ONNX Runtime is replaced by one that claims
to have it and computes on the CPU.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from sigrun import (
    ProviderError,
    ProviderWarning,
    Siglip,
    choice,
    providers,
)
from sigrun.providers import PROVIDERS, named
from tests.runtime_fake import CUDA, DML, GREY, FakeRuntime, Part, replaced


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replaces ONNX Runtime by the given one."""
    return replaced(monkeypatch)


def test_the_order_of_auto_ends_with_the_cpu() -> None:
    assert list(PROVIDERS) == [
        *("cuda", "tensorrt-rtx", "migraphx", "rocm", "mlx", "directml", "openvino", "qnn", "webgpu"),
        *("coreml", "cpu"),
    ]
    assert [p.name for p in PROVIDERS.values() if not p.auto] == ["coreml"]
    known = {*onnxruntime.get_all_providers(), "MLXExecutionProvider", "ROCMExecutionProvider"}
    assert {p.ep for p in PROVIDERS.values()} <= known
    assert all(set(p.forms) <= set(choice.FORMS) for p in PROVIDERS.values())


@pytest.mark.parametrize("name", ["tpu", "", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cpu:1", "auto:0"])
def test_there_is_no_such_provider(name: str, emoji_q4: Path) -> None:
    with pytest.raises(ProviderError, match="there is no provider"):
        Siglip.load(emoji_q4, provider=name)


def test_a_number_picks_the_device() -> None:
    assert named("cuda:3").device == 3
    assert named("cuda").device == 0


def test_what_is_not_installed_is_said_with_the_way_out(emoji_q4: Path) -> None:
    """On a real ONNX Runtime without any."""
    here = onnxruntime.get_available_providers()
    for name, provider in PROVIDERS.items():
        if provider.ep in here or providers.is_installed(provider):
            continue
        with Siglip.load(emoji_q4, provider=name) as model:
            with pytest.raises(ProviderError, match=f"provider '{name}' is not installed") as caught:
                model.embed_images([GREY])
            assert caught.value.hint is not None
            assert f"pip install {provider.package}" in caught.value.hint
    with pytest.raises(ProviderError, match="not installed"):
        Siglip.load(emoji_q4, provider="cuda", towers="image")


def test_here_auto_is_the_cpu_without_a_word(emoji_q4: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Siglip.load(emoji_q4, towers="both") as model:
            assert (model.info.compute, model.info.provider) == ("int8", "cpu")
            assert {t: (r.compute, r.provider) for t, r in model.info.running.items()} == {
                "image": ("int8", "cpu"),
                "text": ("int8", "cpu"),
            }


def test_the_first_that_works_is_taken(emoji_q4: Path, fake: Any) -> None:
    runtime = fake(FakeRuntime(DML, CUDA))
    with Siglip.load(emoji_q4) as model:
        assert (model.info.compute, model.info.provider) == ("f16", "cuda")
        assert model.info.running == {}
        model.embed_images([GREY])
        assert (model.info.running["image"].provider, model.info.running["image"].compute) == ("cuda", "f16")
    (asked,) = runtime.asked
    assert asked[1] == "CPUExecutionProvider"
    assert asked[0][0] == CUDA
    assert asked[0][1] == {
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",
        "device_id": "0",
    }
    assert runtime.runs == [CUDA, CUDA], "the self-test, then the picture"


def test_device_and_memory_limit_are_passed_on(
    emoji_q4: Path, fake: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIGRUN_GPU_MEM_LIMIT", "1000000000")
    runtime = fake(FakeRuntime(CUDA))
    Siglip.load(emoji_q4, provider="cuda:1", towers="text").close()
    assert runtime.asked[0][0][1]["device_id"] == "1"
    assert runtime.asked[0][0][1]["gpu_mem_limit"] == "1000000000"
    said = capsys.readouterr()
    assert said.out == ""
    assert "libcublas" in said.err


def test_auto_says_what_it_passes_over(emoji_q4: Path, fake: Any) -> None:
    fake(FakeRuntime(CUDA, DML, starts=(DML,)))
    with Siglip.load(emoji_q4) as model:
        with pytest.warns(ProviderWarning, match=r"'cuda' did not start.*trying provider 'directml'") as seen:
            model.embed_images([GREY])
        assert len(seen) == 1, "a provider that is not here is not tried in another form"
        assert model.info.provider == "directml"


def test_auto_ends_at_the_cpu(emoji_q4: Path, fake: Any) -> None:
    fake(FakeRuntime(CUDA, DML, starts=()))
    with Siglip.load(emoji_q4) as model:
        with pytest.warns(ProviderWarning) as seen:
            model.embed_texts(["owl"])
        assert len(seen) == 2
        assert (model.info.running["text"].provider, model.info.running["text"].compute) == ("cpu", "int8")


def test_one_that_was_named_must_start(emoji_q4: Path, fake: Any) -> None:
    fake(FakeRuntime(CUDA, starts=()))
    with pytest.raises(ProviderError, match=r"'cuda' did not start: .* with CPUExecutionProvider") as caught:
        Siglip.load(emoji_q4, provider="cuda", towers="image")
    assert "provider cpu" in str(caught.value.hint)
    assert emoji_q4.name in caught.value.message


def test_want_of_memory_has_a_way_out_of_its_own(
    emoji_q4: Path, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime says it in words alone; another version of it would not help."""
    with Siglip.load(emoji_q4, compute="exact", towers="image") as model:

        class Full:
            def run(self, *_: object) -> None:
                raise RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc")

        monkeypatch.setattr(model._towers.get("image"), "_session", Full())
        with pytest.raises(ProviderError, match="cannot run the image tower") as running:
            model.embed_images([GREY])
    fake(FakeRuntime(refuses=("CPUExecutionProvider",)))
    with pytest.raises(ProviderError, match="cannot load the image tower") as loading:
        Siglip.load(emoji_q4, compute="exact", towers="image")
    for caught in (running, loading):
        assert caught.value.hint is not None
        assert "not enough memory" in caught.value.hint
        assert "ONNX Runtime" not in caught.value.hint


def test_a_form_that_is_refused_gives_way_to_the_next(emoji_q4: Path, fake: Any) -> None:
    fake(FakeRuntime(CUDA, refuses=(CUDA,)))
    with (
        pytest.warns(ProviderWarning, match="out of memory"),
        pytest.raises(ProviderError, match=r"form 'exact' with provider 'cuda'.*out of memory"),
    ):
        Siglip.load(emoji_q4, provider="cuda", towers="image")
    with pytest.raises(ProviderError, match=r"form 'f16' with provider 'cuda'"):
        Siglip.load(emoji_q4, provider="cuda", compute="f16", towers="image")


def test_a_provider_that_takes_nothing_is_none(emoji_q4: Path, fake: Any) -> None:
    fake(FakeRuntime(CUDA, parts={CUDA: [Part("CPUExecutionProvider", "MatMul", "Softmax")]}))
    with pytest.raises(ProviderError, match="takes no part of the model"):
        Siglip.load(emoji_q4, provider="cuda", compute="f16", towers="image")
    fake(FakeRuntime(CUDA, parts={CUDA: [Part(CUDA, "MatMul"), Part("CPUExecutionProvider", "Conv", "Add")]}))
    with pytest.warns(ProviderWarning, match="leaves 1 matrix products"):
        Siglip.load(emoji_q4, provider="cuda", compute="f16", towers="image").close()


def test_what_computes_wrongly_is_refused(emoji_q4: Path, fake: Any) -> None:
    fake(FakeRuntime(CUDA, spoils={CUDA: 0.1}))
    with pytest.raises(
        ProviderError, match=r"fails its self-test on provider 'cuda' in form 'exact': cosine"
    ):
        Siglip.load(emoji_q4, provider="cuda", compute="exact", towers="image")
    with pytest.warns(ProviderWarning, match="fails its self-test") as seen, Siglip.load(emoji_q4) as model:
        model.embed_texts(["owl"])
        assert model.info.running["text"].provider == "cpu"
    assert [str(w.message).rpartition("; ")[2] for w in seen] == [
        "trying provider 'cuda' in form 'w4f16'",
        "trying provider 'cuda' in form 'exact'",
        "trying provider 'cpu' in form 'int8'",
    ]


def test_the_self_test_runs_once_a_machine(emoji_q4: Path, fake: Any, tmp_path: Path) -> None:
    runtime = fake(FakeRuntime(CUDA, DML))
    for provider, form, runs in (
        *(("cuda", "f16", 1), ("cuda", "f16", 0), ("cuda", "w4f16", 1), ("directml", "f16", 1)),
        *(("cuda:1", "f16", 1), ("cuda", "f16", 0)),
    ):
        runtime.runs.clear()
        Siglip.load(emoji_q4, provider=provider, compute=form, towers="image", cache=tmp_path).close()
        assert len(runtime.runs) == runs, (provider, form)


def test_an_artifact_without_golden_vectors_is_said_to_be_untested(tiny_q4: Path, fake: Any) -> None:
    fake(FakeRuntime(CUDA))
    with pytest.warns(ProviderWarning, match="could not be tested"):
        Siglip.load(tiny_q4, towers="image").close()
