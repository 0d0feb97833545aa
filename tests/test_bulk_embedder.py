"""``sigrun.bulk.Embedder``: every container, every kind of cell, and the vectors of the plain runtime."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sigrun import Siglip, SigrunError
from sigrun.bulk import Embedder
from sigrun.bulk import loaded as loading
from tests import checkpoints

pa = pytest.importorskip("pyarrow")

DEMO = checkpoints.ROOT / "examples" / "emoji_siglip" / "heldout" / "demo"
PATHS = [str(path) for path in sorted(DEMO.glob("*.png"))][:4]
BYTES = [Path(path).read_bytes() for path in PATHS]
STRUCTS = [{"bytes": data, "path": path} for data, path in zip(BYTES, PATHS, strict=True)]


@pytest.fixture(scope="module")
def expected(emoji_q4: Path) -> np.ndarray:
    """The vectors of ``PATHS``, from the plain runtime."""
    with Siglip.load(emoji_q4) as model:
        return model.embed_images(PATHS).vectors


@pytest.fixture(scope="module")
def embedder(emoji_q4: Path) -> Embedder:
    return Embedder(emoji_q4, pictures="image")


def arrays(cells: list[Any]) -> dict[str, Any]:
    column = np.empty(len(cells), object)
    column[:] = cells
    return {"image": column, "id": np.arange(len(cells))}


def lists(cells: list[Any]) -> dict[str, Any]:
    return {"image": cells, "id": list(range(len(cells)))}


def table(cells: list[Any]) -> Any:
    return pa.table({"image": cells, "id": range(len(cells))})


def record_batch(cells: list[Any]) -> Any:
    return pa.RecordBatch.from_pydict({"image": cells, "id": list(range(len(cells)))})


def frame(cells: list[Any]) -> Any:
    pd = pytest.importorskip("pandas")
    return pd.DataFrame({"image": pd.Series(cells, dtype=object), "id": range(len(cells))}).set_index(
        np.arange(len(cells)) // 2  # an index with doubles, as after a concat
    )


CONTAINERS = [arrays, lists, table, record_batch, pytest.param(frame, marks=pytest.mark.bulk)]


def rows_of(batch: Any) -> tuple[list[Any], list[Any]]:
    """Embeddings (None where null) and errors of any container."""
    if type(batch).__module__.startswith("pyarrow"):
        return batch.column("embedding").to_pylist(), batch.column("error").to_pylist()
    return list(batch["embedding"]), list(batch["error"])


@pytest.mark.parametrize("make", CONTAINERS)
@pytest.mark.parametrize("cells", [PATHS, BYTES, STRUCTS], ids=["paths", "bytes", "structs"])
def test_vectors_are_the_plain_runtimes_in_every_container(
    embedder: Embedder, expected: np.ndarray, make: Callable[[list[Any]], Any], cells: list[Any]
) -> None:
    batch = make(cells)
    out = embedder(batch)
    assert type(out) is type(batch)
    assert out is not batch
    assert "embedding" not in (batch if isinstance(batch, dict) else getattr(batch, "columns", ()))
    vectors, errors = rows_of(out)
    assert (np.array(vectors, np.float32) == expected).all()
    assert errors == [None] * 4
    ids = out.column("id").to_pylist() if hasattr(out, "to_pylist") else list(out["id"])
    assert ids == [0, 1, 2, 3]


@pytest.mark.parametrize("make", CONTAINERS)
def test_a_bad_cell_fails_alone(
    embedder: Embedder, expected: np.ndarray, make: Callable[[list[Any]], Any]
) -> None:
    cells = [BYTES[0], None, b"no picture", BYTES[3], b"", BYTES[2][:200]]
    vectors, errors = rows_of(embedder(make(cells)))
    assert [why is None for why in errors] == [True, False, False, True, False, False]
    assert errors[1] == errors[4] == "there is no picture in this row"
    assert all(isinstance(why, str) for why in (errors[2], errors[5]))
    assert (np.array([vectors[0], vectors[3]], np.float32) == expected[[0, 3]]).all()
    for row in (1, 2, 4, 5):
        assert vectors[row] is None or (make is arrays and np.isnan(vectors[row]).all())


@pytest.mark.parametrize("make", CONTAINERS)
def test_no_rows_keep_the_schema_and_load_nothing(
    emoji_q4: Path, make: Callable[[list[Any]], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Siglip, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    embedder = Embedder(emoji_q4, threads=7)
    out = embedder(make([]))
    if make in (table, record_batch):
        assert out.schema.field("embedding").type == pa.list_(pa.float32(), 160)
        assert out.schema.field("error").type == pa.string()
        assert out.num_rows == 0
    else:
        assert list(out) == ["image", "id", "embedding", "error"]
        assert len(out["embedding"]) == len(out["error"]) == 0
    if make is arrays:
        assert out["embedding"].shape == (0, 160)
        assert out["embedding"].dtype == np.float32


def test_arrow_columns_have_fixed_size_and_nulls(embedder: Embedder) -> None:
    out = embedder(pa.table({"image": pa.chunked_array([[PATHS[0], None], [PATHS[1]]])}))
    assert out.schema.field("embedding").type == pa.list_(pa.float32(), 160)
    assert out.column("embedding").null_count == 1
    assert out.column("error").null_count == 2


def test_pictures_that_are_decoded_already(embedder: Embedder, expected: np.ndarray) -> None:
    images = [Image.open(BytesIO(data)).convert("RGBA") for data in BYTES]
    with_pillow = embedder({"image": images})["embedding"]
    stacked = embedder({"image": np.stack([np.asarray(image) for image in images])})["embedding"]
    assert (np.array(with_pillow) == expected).all()
    assert (stacked == expected).all()


def test_texts(emoji_q4: Path) -> None:
    texts = ["an owl", "a fire engine"]
    with Siglip.load(emoji_q4) as model:
        plain = model.embed_texts(texts).vectors
    embedder = Embedder(emoji_q4, texts="caption", embedding="v", error="why")
    out = embedder({"caption": np.array(texts)})
    assert (out["v"] == plain).all()
    out = embedder({"caption": [texts[0], None, "  ", texts[1], 3]})
    assert [why is None for why in out["why"]] == [True, False, False, True, False]
    assert out["why"][1] == "there is no text in this row"
    assert "is empty" in out["why"][2]
    assert (np.stack([out["v"][0], out["v"][3]]) == plain).all()


def test_it_is_small_to_send_and_loads_once_a_process(
    emoji_q4: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = Embedder(emoji_q4, threads=1)
    embedder(lists(PATHS[:1]))
    data = pickle.dumps(embedder)
    assert len(data) < 1000
    held = loading.loaded(embedder.how)
    again = pickle.loads(data)
    monkeypatch.setattr(Siglip, "load", lambda *_, **__: pytest.fail("a second model was loaded"))
    assert (np.array(again(lists(PATHS))["embedding"]) == expected).all()
    assert loading.loaded(again.how) is held
    monkeypatch.undo()
    embedder.close()
    assert loading.loaded(again.how) is not held
    again.close()


def test_each_takes_batches_as_they_come(embedder: Embedder) -> None:
    batches = embedder.each(lists([path]) for path in PATHS)
    assert next(batches)["id"] == [0]
    assert len(list(batches)) == 3


def test_columns_that_cannot_be_meant(embedder: Embedder, emoji_q4: Path) -> None:
    with pytest.raises(SigrunError, match="no column 'image'; its columns are: picture, id"):
        embedder({"picture": PATHS, "id": [1, 2, 3, 4]})
    with pytest.raises(SigrunError, match="has a column 'error' already"):
        embedder(pa.table({"image": PATHS, "error": PATHS}))
    with pytest.raises(SigrunError, match="a list is not a batch"):
        embedder(PATHS)
    with pytest.raises(ValueError, match="either"):
        Embedder(emoji_q4, pictures="a", texts="b")


def test_a_missing_model_is_said_on_the_first_call(tmp_path: Path) -> None:
    embedder = Embedder(tmp_path / "none.gguf")
    with pytest.raises(SigrunError, match=r"none\.gguf"):
        embedder({"image": PATHS})


def test_making_one_imports_no_engine() -> None:
    code = "import sys, sigrun.bulk; print([m for m in ('pyarrow', 'pandas', 'ray') if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout == "[]\n"
