"""ONNX Runtime's providers: what is installed, and what a process of its own says of each."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import onnx
import pytest

from sigrun.providers import PROVIDERS
from sigrun_hwcheck.machine import ExecutionProvider, Npu
from sigrun_hwcheck.probe import provider_child, runtime
from sigrun_hwcheck.probe.runtime import Answer

CPU = ExecutionProvider("cpu", None)
CUDA = ExecutionProvider("cuda", None)


def installed(*packages: str, system: str = "linux") -> tuple[tuple[str, ...], tuple[str, ...], str | None]:
    found = runtime.installed(lambda package: "1.31.1" if package in packages else None, system)
    assert all(provider.loads is None for provider in found.providers)
    return found.packages, tuple(p.name for p in found.providers), found.problem


def test_what_is_installed() -> None:
    assert installed("onnxruntime") == (("onnxruntime",), ("cpu",), None)
    assert installed("onnxruntime-gpu") == (("onnxruntime-gpu",), ("cuda", "cpu"), None)
    both = installed("onnxruntime", "onnxruntime-ep-webgpu")
    assert both == (("onnxruntime", "onnxruntime-ep-webgpu"), ("webgpu", "cpu"), None)
    assert installed("onnxruntime", system="darwin")[1] == ("coreml", "cpu")


def test_none_installed() -> None:
    packages, providers, problem = installed()
    assert (packages, providers) == ((), ())
    assert "not installed" in str(problem)


def test_two_packages_over_each_other() -> None:
    assert "overwrite each other" in str(installed("onnxruntime", "onnxruntime-gpu")[2])


def test_the_cpu_loads_here_in_a_process_of_its_own() -> None:
    found, _ = runtime.tried(runtime.installed())
    cpu = next(p for p in found.providers if p.name == "cpu")
    assert cpu == ExecutionProvider("cpu", True, None)


def test_a_provider_that_is_not_there_does_not_load() -> None:
    answer = runtime.run_child("qnn")
    result, _ = runtime.judged(ExecutionProvider("qnn", None), answer)
    assert result.loads is False
    assert "not installed" in str(result.problem)


def test_a_child_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = runtime.run_child("cpu", timeout=0.001)
    assert answer.code is None
    assert runtime.judged(CPU, answer)[0] == ExecutionProvider("cpu", False, "it did not answer in time")


def said(loads: bool, problem: str | None, *npus: str) -> str:
    return json.dumps({"loads": loads, "problem": problem, "npus": npus})


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(0, said(True, None), ""), (True, None)),
        (Answer(0, f"a library prints\n{said(True, None)}\n", "and warns"), (True, None)),
        (Answer(0, said(False, "no libcudnn"), ""), (False, "no libcudnn")),
        (
            Answer(-11, "", "loading\nSegmentation fault"),
            (False, "its process died of SIGSEGV: Segmentation fault"),
        ),
        (Answer(-11, said(True, None), ""), (False, "its process died of SIGSEGV")),
        (Answer(0xC0000005, "", ""), (False, "its process ended with code 0xc0000005")),
        (Answer(1, "", ""), (False, "its process ended with code 1")),
        (Answer(0, "", ""), (False, "its process ended with code 0")),
        (Answer(0, "garbage", ""), (False, "its process ended with code 0")),
        (Answer(0, "[]", "x"), (False, "its process ended with code 0: x")),
    ],
)
def test_how_a_child_ends(answer: Answer, expected: tuple[bool, str | None]) -> None:
    result, _ = runtime.judged(CUDA, answer)
    assert (result.loads, result.problem) == expected


def test_one_crash_does_not_hide_the_others_and_npus_are_listed_once() -> None:
    start = runtime.installed(lambda package: "1" if package == "onnxruntime-gpu" else None, "linux")
    answers = {"cuda": Answer(-6, "", ""), "cpu": Answer(0, said(True, None, "AMD NPU", "AMD NPU"), "")}
    found, npus = runtime.tried(start, answers.__getitem__)
    assert [(p.name, p.loads) for p in found.providers] == [("cuda", False), ("cpu", True)]
    assert npus == (Npu("AMD NPU", None),)


def test_paths_do_not_get_into_a_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/Jane Doe")
    monkeypatch.setenv("USERPROFILE", "/home/Jane Doe")
    for words in (
        "Failed to load /home/Jane Doe/.venv/lib/onnxruntime/libonnxruntime_providers_cuda.so: no libcudnn.so.9",
        r"Error loading 'C:\Users\jane\venv\onnxruntime_providers_cuda.dll' which is missing",
        "/opt/jane/x/libfoo.so: undefined",
    ):
        result, _ = runtime.judged(CUDA, Answer(0, said(False, words), ""))
        assert "jane" not in str(result.problem).lower()
        assert "lib" in str(result.problem) or ".dll" in str(result.problem)


def test_the_model_of_the_child_is_what_it_says() -> None:
    model = onnx.load_from_string(base64.b64decode(provider_child.MODEL))
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    assert model.opset_import[0].version == 13


def test_the_child_says_why_and_finds_wrong_results(monkeypatch: pytest.MonkeyPatch) -> None:
    assert provider_child.attempt("cpu") is None
    assert "there is no provider" in str(provider_child.attempt("abacus"))
    doubled = onnx.load_from_string(base64.b64decode(provider_child.MODEL))
    weights = doubled.graph.initializer[0]
    weights.raw_data = weights.raw_data[::-1]
    changed = base64.b64encode(doubled.SerializeToString()).decode()
    monkeypatch.setattr(provider_child, "MODEL", changed)
    assert provider_child.attempt("cpu") == "it computes wrong results"


def test_every_provider_of_the_runtime_has_a_package_to_look_for() -> None:
    plugins = {p.package for p in PROVIDERS.values() if p.module is not None}
    assert {p.package for p in PROVIDERS.values()} <= plugins | set(runtime.CORES)
