"""The OpenAPI description against the server: schemathesis makes requests of it, good and bad ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("starlette", reason="needs the extra serve")
schemathesis = pytest.importorskip("schemathesis", reason="needs the package schemathesis")

from sigrun.cli import main  # noqa: E402
from sigrun.serve.settings import ServeSettings  # noqa: E402
from tests.serving import DEMO, Client, serving  # noqa: E402


@pytest.fixture(scope="module")
def api(emoji_q4: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    index = tmp_path_factory.mktemp("schema") / "index"
    assert main(["index", str(emoji_q4), str(DEMO), "-o", str(index), "-q"]) == 0
    with serving(emoji_q4, ServeSettings(port=0, log=False, index=index)) as client:
        yield client


OPERATIONS = (
    ("/v1/embeddings", "POST"),
    ("/v1/classify", "POST"),
    ("/v1/score", "POST"),
    ("/v1/rerank", "POST"),
    ("/v1/search", "POST"),
    ("/v1/search/thumbnails/{name}", "GET"),
    ("/v1/models", "GET"),
    ("/v1/models/{name}", "GET"),
    ("/health", "GET"),
    ("/metrics", "GET"),
)


@pytest.fixture(scope="module")
def described(api: Client) -> Any:
    return schemathesis.openapi.from_url(f"{api.url}/openapi.json")


def test_every_operation_is_tried(described: Any) -> None:
    found = {(result.ok().path, result.ok().method.upper()) for result in described.get_all_operations()}
    assert found == set(OPERATIONS)


# A body that fits the description may still hold a picture that is none, or name a model that is not served: that is
# 422 or 404, which the check of accepted requests does not know. Everything else holds: no 5xx, no answer that is not
# described, and what does not fit the description is refused.
UNFIT = ("positive_data_acceptance",)


GOOD = [(path, method, "positive") for path, method in OPERATIONS]
BAD = [
    (path, method, "negative") for path, method in OPERATIONS if method == "POST"
]  # no GET takes what can be wrong


@pytest.mark.parametrize(("path", "method", "mode"), GOOD + BAD)
def test_answers_are_as_described(described: Any, path: str, method: str, mode: str) -> None:
    operation = described[path][method]
    excluded = [check for check in schemathesis.checks.CHECKS.get_all() if check.__name__ in UNFIT]
    assert len(excluded) == len(UNFIT)
    tried = 0

    @given(operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    def each(case: Any) -> None:
        nonlocal tried
        tried += 1
        if mode == "negative" and isinstance(case.body, dict) and case.body.get("on_error") in (None, "item"):
            case.body["on_error"] = "fail"  # else a bad item is an error of its row
        case.call_and_validate(excluded_checks=excluded)

    each()
    assert tried
