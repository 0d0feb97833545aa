"""The stored reference of the bundled model, made again by transformers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.emoji_accuracy import CHECKPOINT, EXAMPLE

pytestmark = pytest.mark.reference


@pytest.mark.filterwarnings("ignore")  # what torch and transformers warn of among themselves
def test_the_stored_reference_is_what_transformers_computes() -> None:
    from examples.emoji_siglip.make_reference import build

    arrays, description = build(CHECKPOINT, EXAMPLE / "heldout")
    stored = np.load(EXAMPLE / "reference.npz")
    stated = json.loads((EXAMPLE / "reference.json").read_text("utf-8"))
    assert set(arrays) == set(stored)
    for name, values in arrays.items():
        if np.issubdtype(values.dtype, np.integer) or name == "pixel_values":
            assert np.array_equal(values, stored[name]), name
        else:
            np.testing.assert_allclose(values, stored[name].astype(np.float32), atol=2e-5, err_msg=name)
    assert description["sheet"] == pytest.approx(stated["sheet"], abs=2e-3)
    assert description["checkpoint_sha256"] == stated["checkpoint_sha256"]
