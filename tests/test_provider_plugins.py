"""Providers that come as plugins in wheels: found, registered once, and used for their devices."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from sigrun import (
    ProviderError,
    ProviderWarning,
    Siglip,
    providers,
)
from sigrun.providers import PROVIDERS
from tests.runtime_fake import GREY, FakeRuntime, replaced


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replaces ONNX Runtime by the given one."""
    return replaced(monkeypatch)


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
