"""The class inside Spark, Daft and ``datasets``, as the documentation has it, where they are installed."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sigrun import Siglip
from sigrun.bulk import Embedder
from tests.bulk_data import picture

pa = pytest.importorskip("pyarrow")

pytestmark = [pytest.mark.bulk, pytest.mark.filterwarnings("ignore")]  # the engines' own

PICTURES = [*map(picture, range(5)), b"broken"]


@pytest.fixture(scope="module")
def expected(emoji_q4: Path) -> np.ndarray:
    with Siglip.load(emoji_q4) as model:
        return model.embed_images(PICTURES[:-1]).vectors


def check(rows: list[tuple[int, Any, Any]], expected: np.ndarray) -> None:
    """Rows of id, embedding and error are the plain runtime's."""
    assert sorted(row[0] for row in rows) == [*range(6)]
    for at, vector, error in rows:
        if at == 5:
            assert vector is None
            assert "is not a picture" in error
        else:
            assert error is None
            assert (np.asarray(vector, np.float32) == expected[at]).all()


def test_spark(emoji_q4: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    sql = pytest.importorskip("pyspark.sql")
    pytest.importorskip("pandas")
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("Spark needs Java")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    builder = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1")
    spark = builder.getOrCreate()
    try:
        spark.sparkContext.setLogLevel("OFF")
        rows = [(at, bytearray(data)) for at, data in enumerate(PICTURES)]
        frame = spark.createDataFrame(rows, "id int, image binary")
        embedder = Embedder(emoji_q4, threads=1)
        schema = "id int, image binary, embedding array<float>, error string"
        out = frame.mapInPandas(embedder.each, schema=schema).collect()
        check([(row["id"], row["embedding"], row["error"]) for row in out], expected)
    finally:
        spark.stop()


def test_daft(emoji_q4: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAFT_ANALYTICS_ENABLED", "0")
    daft = pytest.importorskip("daft")
    if not hasattr(daft, "cls"):
        pytest.skip("this Daft has no classes")
    embedder = Embedder(emoji_q4, threads=1)
    kind = daft.DataType.struct(
        {
            "embedding": daft.DataType.embedding(daft.DataType.float32(), embedder.width),
            "error": daft.DataType.string(),
        }
    )

    def embed(self: Any, image: Any) -> Any:
        found = embedder(pa.table({"image": image.to_arrow()})).select(["embedding", "error"])
        return daft.Series.from_arrow(found.to_struct_array().combine_chunks())

    pictures = daft.cls(type("Pictures", (), {"embed": daft.method.batch(embed, return_dtype=kind)}))()
    frame = daft.from_pydict({"id": [*range(6)], "image": PICTURES})
    frame = frame.with_column("found", pictures.embed(frame["image"]))
    out = frame.select(
        "id", frame["found"].get("embedding").alias("v"), frame["found"].get("error").alias("e")
    )
    found = out.to_pydict()
    check([*zip(found["id"], found["v"], found["e"], strict=True)], expected)


def test_datasets(
    emoji_q4: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    datasets = pytest.importorskip("datasets")
    cells = [{"bytes": data, "path": None} for data in PICTURES]
    dataset = datasets.Dataset.from_dict({"id": [*range(6)], "image": cells})
    dataset = dataset.cast_column("image", datasets.Image(decode=False))
    new = {"embedding": datasets.List(datasets.Value("float32")), "error": datasets.Value("string")}
    features = datasets.Features({**dataset.features, **new})
    out = dataset.map(Embedder(emoji_q4, threads=1), batched=True, batch_size=2, features=features)
    check([(row["id"], row["embedding"], row["error"]) for row in out], expected)
