"""Which provider and form a tower gets, and that it is never another in silence.

The machines that run these tests have no accelerator. Where one is needed, ONNX Runtime is replaced by one that claims
to have it and computes on the CPU.
"""

from __future__ import annotations

import subprocess
import sys
import types
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from sigrun import (
    ArtifactError,
    ProviderError,
    ProviderWarning,
    Siglip,
    choice,
    providers,
    selftest,
    sessions,
)
from sigrun.artifact import Artifact
from sigrun.providers import CPU, PROVIDERS, named

GREY = np.full((40, 50, 3), 99, np.uint8)


class Node:
    def __init__(self, op_type: str) -> None:
        self.op_type = op_type


class Part:
    def __init__(self, ep_name: str, *ops: str) -> None:
        self.ep_name = ep_name
        self._nodes = [Node(op) for op in ops]

    def get_nodes(self) -> list[Node]:
        return self._nodes


class FakeRuntime:
    """ONNX Runtime with providers that it does not have.

    Args:
        available: ONNX Runtime's names of what it claims to have built in.
        starts: those that start; the others are dropped in silence, as ONNX Runtime does.
        devices: what its plugins find.
        parts: provider → what it says it computes; all by default.
        refuses: (provider, what the model holds) that raise.
        spoils: added to the results of these providers.
    """

    def __init__(
        self,
        *available: str,
        starts: tuple[str, ...] | None = None,
        devices: list[Any] | None = None,
        parts: Mapping[str, list[Part]] | None = None,
        refuses: tuple[str, ...] = (),
        spoils: Mapping[str, float] | None = None,
    ) -> None:
        self.available = [*available, "CPUExecutionProvider"]
        self.starts = self.available if starts is None else [*starts, "CPUExecutionProvider"]
        self.devices = devices or []
        self.parts = parts or {}
        self.refuses = refuses
        self.spoils = spoils or {}
        self.asked: list[Any] = []
        self.registered: list[tuple[str, str]] = []
        self.runs: list[str] = []
        fake = self

        class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
            def __init__(self, model: bytes, options: Any, providers: Any = None, **rest: Any) -> None:
                if rest:  # one of a tower, not of the probe for int8
                    fake.asked.append(providers)
                    assert rest.pop("enable_fallback") == 0
                names = [p if isinstance(p, str) else p[0] for p in providers or [options.chosen]]
                self.names = [name for name in names if name in fake.starts]
                if self.names and self.names[0] in fake.refuses:
                    raise RuntimeError(f"{self.names[0]}: out of memory")
                real = options.real if isinstance(options, Options) else options
                super().__init__(model, real, ["CPUExecutionProvider"], **rest)

            def get_providers(self) -> list[str]:
                return self.names

            def get_provider_graph_assignment_info(self) -> list[Part]:
                return fake.parts.get(self.names[0], [Part(self.names[0], "MatMul")])

            def run(self, outputs: Any, inputs: Any) -> Any:
                fake.runs.append(self.names[0])
                found = super().run(outputs, inputs)
                return [r + np.float32(fake.spoils.get(self.names[0], 0)) * (r == r.max()) for r in found]

        class Options:
            def __init__(self) -> None:
                object.__setattr__(self, "real", onnxruntime.SessionOptions())
                object.__setattr__(self, "chosen", "CPUExecutionProvider")

            def add_provider_for_devices(self, devices: list[Any], options: Mapping[str, str]) -> None:
                object.__setattr__(self, "chosen", devices[0].ep_name)

            def __getattr__(self, name: str) -> Any:
                return getattr(self.real, name)

            def __setattr__(self, name: str, value: Any) -> None:
                setattr(self.real, name, value)

        self.InferenceSession = Session
        self.SessionOptions = Options

    def get_available_providers(self) -> list[str]:
        return self.available

    def get_ep_devices(self) -> list[Any]:
        return self.devices

    def register_execution_provider_library(self, name: str, path: str) -> None:
        self.registered.append((name, path))

    def preload_dlls(self) -> None:
        print("Failed to load libcublas")

    def __getattr__(self, name: str) -> Any:
        return getattr(onnxruntime, name)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Replaces ONNX Runtime by the given one."""

    def put(runtime: FakeRuntime) -> FakeRuntime:
        for module in (providers, sessions):
            monkeypatch.setattr(module, "onnxruntime", lambda: runtime)
        return runtime

    monkeypatch.setattr(providers, "_registered", set())
    return put


CUDA, DML = "CUDAExecutionProvider", "DmlExecutionProvider"


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


def device(ep: str, kind: str, vendor: str = "Maker") -> Any:
    about = types.SimpleNamespace(
        type=getattr(onnxruntime.OrtHardwareDeviceType, kind), vendor=vendor, device_id=7
    )
    return types.SimpleNamespace(ep_name=ep, device=about, ep_metadata={"a": "b"})


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A wheel of the OpenVINO plugin."""
    module = types.ModuleType("onnxruntime_ep_openvino")
    module.get_library_path = lambda: "/plugins/openvino.so"  # type: ignore[attr-defined]
    module.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


OPENVINO = "OpenVINOExecutionProvider"


def test_a_plugin_is_registered_once_and_its_gpu_preferred(
    emoji_q4: Path, fake: Any, plugin: types.ModuleType
) -> None:
    runtime = fake(
        FakeRuntime(
            starts=(OPENVINO,),
            devices=[device("CPUExecutionProvider", "CPU"), device(OPENVINO, "CPU"), device(OPENVINO, "GPU")],
        )
    )
    with Siglip.load(emoji_q4) as model:
        model.embed_images([GREY])
        model.embed_texts(["owl"])
        assert model.info.running["image"].provider == "openvino"
        assert "GPU" in model.info.running["image"].device
    assert runtime.registered == [(OPENVINO, "/plugins/openvino.so")]


def test_a_plugin_that_has_a_cpu_only_is_not_for_auto(
    emoji_q4: Path, fake: Any, plugin: types.ModuleType
) -> None:
    fake(FakeRuntime(starts=(OPENVINO,), devices=[device(OPENVINO, "CPU")]))
    with (
        pytest.warns(ProviderWarning, match="'openvino' finds no device that it can use"),
        Siglip.load(emoji_q4, towers="image") as model,
    ):
        assert model.info.provider == "cpu"
    with Siglip.load(emoji_q4, provider="openvino", towers="image") as model:
        assert model.info.provider == "openvino"
    with pytest.raises(ProviderError, match="finds 1 devices; there is no number 2"):
        Siglip.load(emoji_q4, provider="openvino:2", towers="image")


def test_a_plugin_that_cannot_be_loaded(emoji_q4: Path, fake: Any, plugin: types.ModuleType) -> None:
    def fail() -> str:
        raise FileNotFoundError("no such library")

    fake(FakeRuntime(devices=[device(OPENVINO, "GPU")]))
    plugin.get_library_path = fail  # type: ignore[attr-defined]
    with pytest.raises(ProviderError, match="onnxruntime-ep-openvino cannot be loaded: no such library"):
        Siglip.load(emoji_q4, provider="openvino", towers="image")


def test_a_plugin_may_call_its_helper_otherwise(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("onnxruntime_ep_mlx")
    module.library_path = lambda: "/plugins/mlx.dylib"  # type: ignore[attr-defined]
    module.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    runtime = fake(FakeRuntime(devices=[device("MLXExecutionProvider", "GPU")]))
    providers.attach(runtime.SessionOptions(), PROVIDERS["mlx"])
    assert runtime.registered == [("MLXExecutionProvider", "/plugins/mlx.dylib")]


def test_the_cpu_loads_no_plugin(emoji_q4: Path) -> None:
    code = (
        "import sys\nfrom sigrun import Siglip\n"
        "Siglip.load(sys.argv[1], provider=sys.argv[2], towers='text')\n"
        "print([m for m in sys.modules if m.startswith('onnxruntime_') or m == 'pynvml'])"
    )
    for provider in ("cpu", "auto"):
        command = [sys.executable, "-c", code, str(emoji_q4), provider]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == "[]"


# Forms.


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
