"""Where a tower can run: ONNX Runtime's execution providers, how each is asked for, and proof that it was got.

A provider is part of the installed ONNX Runtime (``onnxruntime-gpu`` has CUDA), or a plugin: a wheel beside it, whose
library ONNX Runtime loads when it is told to. ONNX Runtime answers a provider that cannot start by running on the CPU;
here that is an error.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sigrun.errors import ProviderError, ProviderWarning
from sigrun.onnx_runtime import onnxruntime

CPU_EP = "CPUExecutionProvider"
PRODUCTS = frozenset(
    {
        "Attention",
        "Conv",
        "DynamicQuantizeMatMul",
        "FusedMatMul",
        "Gemm",
        "MatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "MultiHeadAttention",
    }
)
"""Operators that take nearly all of a tower's time."""
MEMORY_LIMIT = "SIGRUN_GPU_MEM_LIMIT"
"""Environment variable: most bytes that a CUDA session of ours may take."""


@dataclass(frozen=True)
class Provider:
    """An execution provider.

    Attributes:
        name: what users write.
        ep: ONNX Runtime's name.
        kind: where it computes.
        forms: compute forms in the order in which ``compute="auto"`` tries them.
        package: what to install for it.
        module: the plugin's module, if it comes as a plugin.
        options: ONNX Runtime's options of it.
        auto: whether ``provider="auto"`` takes it.
        device: which of several devices.
    """

    name: str
    ep: str
    kind: Literal["cpu", "gpu", "npu"]
    forms: tuple[str, ...]
    package: str
    module: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    auto: bool = True
    device: int = 0


class NotHereError(ProviderError):
    """A provider cannot run anything on this machine, in whichever form."""


CPU = Provider("cpu", CPU_EP, "cpu", ("int8", "exact"), "onnxruntime")
_HALF = ("f16", "exact")
PROVIDERS: dict[str, Provider] = {
    provider.name: provider
    for provider in (
        Provider(
            "cuda",
            "CUDAExecutionProvider",
            "gpu",
            ("f16", "w4f16", "exact"),
            "onnxruntime-gpu",
            options={
                # Memory grows by what is asked for, not by powers of two, so that it can be predicted.
                "arena_extend_strategy": "kSameAsRequested",
                # The default, EXHAUSTIVE, tries every algorithm, each with a workspace of its own.
                "cudnn_conv_algo_search": "HEURISTIC",
                # Form exact is float32 throughout; TF32 would keep 10 bits of each factor.
                "use_tf32": "0",
            },
        ),
        Provider(
            "tensorrt-rtx",
            "NvTensorRTRTXExecutionProvider",
            "gpu",
            _HALF,
            "onnxruntime-ep-nv-tensorrt-rtx",
            "onnxruntime_ep_nv_tensorrt_rtx",
        ),
        Provider("migraphx", "MIGraphXExecutionProvider", "gpu", _HALF, "onnxruntime-migraphx"),
        Provider("rocm", "ROCMExecutionProvider", "gpu", _HALF, "onnxruntime-rocm"),
        Provider("mlx", "MLXExecutionProvider", "gpu", _HALF, "onnxruntime-ep-mlx", "onnxruntime_ep_mlx"),
        Provider("directml", "DmlExecutionProvider", "gpu", _HALF, "onnxruntime-directml"),
        Provider(
            "openvino",
            "OpenVINOExecutionProvider",
            "gpu",
            _HALF,
            "onnxruntime-ep-openvino",
            "onnxruntime_ep_openvino",
        ),
        Provider("qnn", "QNNExecutionProvider", "npu", _HALF, "onnxruntime-qnn", "onnxruntime_qnn"),
        Provider(
            "webgpu",
            "WebGpuExecutionProvider",
            "gpu",
            _HALF,
            "onnxruntime-ep-webgpu",
            "onnxruntime_ep_webgpu",
        ),
        # In every wheel for macOS, so that its presence is nobody's wish: by name only.
        Provider("coreml", "CoreMLExecutionProvider", "npu", _HALF, "onnxruntime", auto=False),
        CPU,
    )
}
"""Every provider by name, in the order in which ``provider="auto"`` tries them; the CPU is last."""


def named(name: str) -> Provider:
    """The provider that a user asked for: ``cuda``, or ``cuda:1`` for the second device.

    Raises:
        ProviderError: there is none of that name.
    """
    base, colon, number = name.partition(":")
    provider = PROVIDERS.get(base)
    if provider is None or (colon and (not number.isdecimal() or provider is CPU)):
        raise ProviderError(
            f"there is no provider '{name}'; there are: auto, {', '.join(PROVIDERS)}",
            hint="a number after a colon picks one of several devices, such as cuda:1",
        )
    return replace(provider, device=int(number)) if colon else provider


def is_installed(provider: Provider) -> bool:
    """Whether the provider is here; nothing of it is loaded to find out."""
    if provider is CPU or provider.ep in onnxruntime().get_available_providers():
        return True
    return provider.module is not None and importlib.util.find_spec(provider.module) is not None


def in_order(asked: str) -> tuple[Provider, ...]:
    """The providers to try, in this order.

    Args:
        asked: a provider's name, or ``auto`` for the first of those installed that works.

    Raises:
        ProviderError: there is no such provider, or ONNX Runtime is missing.
    """
    if asked != "auto":
        return (named(asked),)
    return tuple(p for p in PROVIDERS.values() if p.auto and is_installed(p))


@dataclass(frozen=True)
class Attached:
    """What a session is created with.

    Attributes:
        providers: the argument ``providers``; none where the options hold the device already.
        device: which device it is, to tell results of one from those of another.
    """

    providers: list[str | tuple[str, dict[str, str]]] | None
    device: str


def attach(options: Any, provider: Provider, *, automatic: bool = False) -> Attached:
    """Make session options ask for a provider.

    Args:
        options: ONNX Runtime's session options; changed.
        provider: the provider.
        automatic: the user did not name it, so that a device of it that is a mere CPU will not do.

    Raises:
        NotHereError: it is not installed, cannot be loaded, or finds no device.
    """
    if provider is CPU:
        return Attached([CPU_EP], "cpu")
    ort = onnxruntime()
    # So that it can be told afterwards what runs where.
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if provider.ep in ort.get_available_providers():
        given = dict(provider.options)
        if provider.name in ("cuda", "rocm", "migraphx", "directml"):
            given["device_id"] = str(provider.device)
        if provider.name == "cuda":
            _preload_cuda()
            if os.environ.get(MEMORY_LIMIT):
                given["gpu_mem_limit"] = os.environ[MEMORY_LIMIT]
        return Attached([(provider.ep, given), CPU_EP], f"{provider.device}")
    if provider.module is None or importlib.util.find_spec(provider.module) is None:
        raise NotHereError(
            f"provider '{provider.name}' is not installed: ONNX Runtime {ort.__version__} here has "
            f"{', '.join(ort.get_available_providers())}",
            hint=f"pip install {provider.package}, or use provider cpu",
        )
    _register(provider)
    return _plugin_device(options, provider, automatic)


def verify(session: Any, provider: Provider) -> None:
    """Make sure that a session runs where it was asked to.

    Warns:
        ProviderWarning: some of its products are computed by the CPU.

    Raises:
        NotHereError: it did not start.
        ProviderError: it leaves everything to the CPU.
    """
    got = list(session.get_providers())
    if got[:1] != [provider.ep]:
        raise NotHereError(
            f"provider '{provider.name}' did not start: ONNX Runtime runs the model with "
            f"{', '.join(got) or 'nothing'} instead",
            hint=f"install the drivers and libraries that {provider.package} asks for, or use provider cpu",
        )
    if provider is CPU:
        return
    counts: dict[bool, int] = {True: 0, False: 0}
    for part in session.get_provider_graph_assignment_info():
        for node in part.get_nodes():
            # What was compiled into one node of the provider's own is no product of ours any more.
            counts[part.ep_name == provider.ep] += node.op_type in PRODUCTS or part.ep_name == provider.ep
    there, here = counts[True], counts[False]
    if here and not there:
        raise ProviderError(
            f"provider '{provider.name}' takes no part of the model: all of it would run on the CPU",
            hint="use provider cpu, which has forms made for it",
        )
    if here:
        warnings.warn(
            f"provider '{provider.name}' leaves {here} matrix products of the model to the CPU",
            ProviderWarning,
            stacklevel=2,
        )


_registered: set[str] = set()
_lock = threading.Lock()


def _register(provider: Provider) -> None:
    """Load a plugin's library, once a process."""
    with _lock:
        if provider.name in _registered:
            return
        try:
            module = importlib.import_module(str(provider.module))
            find = getattr(module, "get_library_path", None) or module.library_path
            onnxruntime().register_execution_provider_library(provider.ep, find())
        except Exception as error:  # a plugin and ONNX Runtime raise what they like
            raise NotHereError(
                f"provider '{provider.name}': the plugin {provider.package} cannot be loaded: {error}",
                hint=f"pip install -U onnxruntime {provider.package}, or use provider cpu",
            ) from error
        _registered.add(provider.name)


def _plugin_device(options: Any, provider: Provider, automatic: bool) -> Attached:
    ort = onnxruntime()
    kinds = ort.OrtHardwareDeviceType
    rank = {kinds.GPU: 0, kinds.NPU: 1, kinds.CPU: 2}
    found = [d for d in ort.get_ep_devices() if d.ep_name == provider.ep]
    found.sort(key=lambda d: rank.get(d.device.type, 3))
    usable = [d for d in found if not automatic or d.device.type != kinds.CPU]
    if provider.device >= len(usable):
        raise NotHereError(
            f"provider '{provider.name}' finds no device that it can use"
            if not usable
            else f"provider '{provider.name}' finds {len(usable)} devices; there is no number {provider.device}",
            hint="install the drivers of the device, or use provider cpu",
        )
    chosen = usable[provider.device]
    options.add_provider_for_devices([chosen], dict(provider.options))
    about = chosen.device
    return Attached(None, f"{about.type} {about.vendor} {about.device_id} {dict(chosen.ep_metadata)}")


def _preload_cuda() -> None:
    """Let ONNX Runtime find CUDA's libraries where pip puts them; what it says of it belongs on stderr."""
    preload = getattr(onnxruntime(), "preload_dlls", None)
    if preload is not None:
        with contextlib.redirect_stdout(sys.stderr):
            preload()
