"""ONNX Runtime with providers that it does not have, for machines without an accelerator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime
import pytest

from sigrun import providers, sessions

GREY = np.full((40, 50, 3), 99, np.uint8)
CUDA, DML = "CUDAExecutionProvider", "DmlExecutionProvider"


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


def replaced(patch: pytest.MonkeyPatch) -> Callable[[FakeRuntime], FakeRuntime]:
    """What puts a runtime in the place of ONNX Runtime."""

    def put(runtime: FakeRuntime) -> FakeRuntime:
        for module in (providers, sessions):
            patch.setattr(module, "onnxruntime", lambda: runtime)
        return runtime

    patch.setattr(providers, "_registered", set())
    return put
