"""Predicted memory: terms, sums, and how needs and verdicts must move."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sigrun.blocks
import sigrun.model
import sigrun.nbits
from sigrun.errors import ArtifactError
from sigrun_hwcheck import memory
from sigrun_hwcheck.constants import Provider, Range, constants
from sigrun_hwcheck.memory import TOWER_CHOICES, TermName, TowerChoice, need
from sigrun_hwcheck.stored import NBITS, Stored, Tensor, from_file, from_plan
from sigrun_hwcheck.units import size
from sigrun_hwcheck.verdict import MIB, best, judge, reserve_bytes, works, worst
from sigrun_recipes import Architecture, default_model, load, names, plan

SO400M = default_model().architecture
PROVIDERS: tuple[Provider, ...] = ("cpu", "cuda")
VARIANTS = {name: from_plan("so400m", plan(load(name), SO400M)) for name in names()}


def term(
    stored: Stored, tower: TowerChoice, name: TermName, batch: int = 1, provider: Provider = "cpu"
) -> Range:
    found = need(stored, tower, batch, provider)
    assert found is not None
    return next(t.bytes for phase in found.phases for t in phase.terms if t.name == name)


def test_weights_of_the_exact_form() -> None:
    """Linears of Q4_K_M as MatMulNBits with float32 scales and zero points; what is small or dense as float32."""
    image = term(VARIANTS["q4_k_m"], "image", "weights")
    assert image.low_bytes == image.best_bytes == image.high_bytes
    assert 300 * MIB < image.best_bytes < 400 * MIB


def test_float32_weights_are_handed_over_from_the_file() -> None:
    stored = VARIANTS["f32"]
    assert term(stored, "image", "weights").best_bytes == 0
    assert 0 < term(stored, "image", "packed").best_bytes < stored.nbytes("image")
    assert term(stored, "image", "unpacked").best_bytes == 0
    assert term(stored, "image", "mapped").best_bytes >= stored.nbytes("image")


def test_quantized_weights_are_there_once() -> None:
    found = need(VARIANTS["q4_k_m"], "image", 1)
    assert found is not None
    load, run = found.phases
    assert (load.name, run.name) == ("load", "run")
    once = sum(t.bytes.best_bytes for t in run.terms if t.name == "weights")
    loading = sum(t.bytes.best_bytes for t in load.terms if t.name in ("weights", "unpacked"))
    assert once <= loading < 1.01 * once  # the patch matrix alone is dense and copied
    assert found.bytes.best_bytes == max(load.bytes.best_bytes, run.bytes.best_bytes)


def test_the_token_table_is_not_unpacked() -> None:
    stored = VARIANTS["f32"]
    table = next(t for t in stored.tensors if t.kind == "token")
    assert table.packing is None
    assert term(stored, "text", "packed").best_bytes < stored.nbytes("text") - table.nbytes
    assert term(VARIANTS["q4_k_m"], "text", "weights").best_bytes < 2 * stored.nbytes("text") / 8


def test_a_session_that_shares_its_arrays_needs_them_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = VARIANTS["q4_k_m"]
    shared = need(stored, "image", 1)
    assert term(VARIANTS["f32"], "image", "weights").best_bytes == 0
    assert term(VARIANTS["f32"], "image", "packed").best_bytes > 0
    copies = dataclasses.replace(constants("cpu"), handover="copied")
    monkeypatch.setattr(memory, "constants", lambda provider: copies)
    copied = need(stored, "image", 1)
    assert copied is not None and shared is not None
    assert shared.bytes.best_bytes < copied.bytes.best_bytes


def test_attention_scores_dominate_the_image_towers_activations() -> None:
    alive = term(VARIANTS["q4_k_m"], "image", "activations").best_bytes / constants("cpu").activations.best
    scores = 2 * 16 * 729**2 * 4
    assert scores < alive < 1.5 * scores


def test_batches_beyond_the_micro_batch_need_no_more() -> None:
    stored = VARIANTS["q4_k_m"]
    assert term(stored, "image", "activations", 2) == term(stored, "image", "activations", 64)
    assert term(stored, "text", "activations", 23) == term(stored, "text", "activations", 1000)
    assert (
        term(stored, "text", "activations", 22).best_bytes
        < term(stored, "text", "activations", 23).best_bytes
    )


def test_the_runtimes_micro_batch_is_the_one_predicted() -> None:
    assert constants("cpu").micro_batch_tokens == sigrun.model.MICRO_BATCH_TOKENS


@pytest.mark.parametrize("encoding", sorted(sigrun.blocks.BLOCKS))
def test_packed_sizes_are_the_runtimes(encoding: str) -> None:
    """The prediction's bytes are those of the arrays that the runtime unpacks."""
    block = sigrun.blocks.BLOCKS[encoding]
    rows, columns = 4, 256
    data = np.zeros(rows * columns // block.weights * block.size, np.uint8)
    if encoding not in NBITS:
        with pytest.raises(ArtifactError):
            sigrun.nbits.to_nbits(encoding, data, rows, columns)
        return
    packed = sigrun.nbits.to_nbits(encoding, data, rows, columns)
    arrays = [value for value in vars(packed).values() if isinstance(value, np.ndarray)]
    tensor = Tensor(
        "v.blk.0.attn_q.weight", "image", "linear", encoding, (rows, columns), data.nbytes, "nbits"
    )
    stored = Stored("m", "v", "file", "p", Architecture(SO400M.image, None), (tensor,), data.nbytes)
    assert term(stored, "image", "weights").best_bytes == sum(a.nbytes for a in arrays)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_both_towers_share_one_runtime_and_load_one_after_the_other(provider: Provider) -> None:
    for stored in VARIANTS.values():
        image, text, both = (need(stored, tower, 3, provider) for tower in TOWER_CHOICES)
        assert image is not None and text is not None and both is not None
        runtime = constants(provider).runtime.bytes.best_bytes
        (image_load, image_run), (text_load, text_run) = (
            [phase.bytes.best_bytes for phase in found.phases] for found in (image, text)
        )
        load, run = (phase.bytes.best_bytes for phase in both.phases)
        assert run == image_run + text_run - runtime
        assert load <= max(image_load + text_run, image_run + text_load) - runtime
        assert both.bytes.best_bytes >= max(image.bytes.best_bytes, text.bytes.best_bytes)


def test_a_missing_tower_is_not_zero() -> None:
    image_only = from_plan("so400m", plan(load("f32"), Architecture(SO400M.image, None)))
    assert need(image_only, "text", 1) is None
    assert need(image_only, "both", 1) is None
    assert need(image_only, "image", 1) is not None


def test_a_batch_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        need(VARIANTS["f32"], "image", 0)


batches = st.integers(1, 4096)
variants = st.sampled_from(sorted(VARIANTS))
towers = st.sampled_from(TOWER_CHOICES)
amounts = st.integers(0, 1 << 40)


@given(variants, towers, st.sampled_from(PROVIDERS), batches, batches)
def test_need_grows_with_the_batch(
    name: str, tower: TowerChoice, provider: Provider, one: int, other: int
) -> None:
    small, large = (need(VARIANTS[name], tower, b, provider) for b in sorted((one, other)))
    assert small is not None and large is not None
    for a, b in ((small.bytes, large.bytes), (small.resident_bytes, large.resident_bytes)):
        assert (a.low_bytes, a.best_bytes, a.high_bytes) <= (b.low_bytes, b.best_bytes, b.high_bytes)


@given(variants, towers, st.sampled_from(PROVIDERS), batches)
def test_bounds_enclose_the_best_figure(
    name: str, tower: TowerChoice, provider: Provider, batch: int
) -> None:
    found = need(VARIANTS[name], tower, batch, provider)
    assert found is not None
    for part in (found.bytes, found.resident_bytes, *(t.bytes for p in found.phases for t in p.terms)):
        assert 0 <= part.low_bytes <= part.best_bytes <= part.high_bytes


@given(amounts, amounts, amounts, amounts, amounts)
def test_more_memory_never_turns_a_yes_into_a_no(a: int, b: int, free: int, used: int, more: int) -> None:
    wanted = Range(min(a, b), min(a, b), max(a, b))
    before = judge(wanted, free, free + used)
    after = judge(wanted, free + more, free + used + more)
    order = ["does not fit", "tight", "fits"]
    assert order.index(after) >= order.index(before)
    assert works(after) or not works(before)


@given(amounts)
def test_the_reserve_stays_within_its_bounds(total: int) -> None:
    assert 128 * MIB <= reserve_bytes(total) <= 1024 * MIB


def test_verdicts() -> None:
    wanted = Range(800 * MIB, 1000 * MIB, 1200 * MIB)
    assert judge(wanted, 999 * MIB, 4096 * MIB) == "does not fit"
    assert judge(wanted, 1000 * MIB, 4096 * MIB) == "tight"
    assert judge(wanted, 1300 * MIB, 4096 * MIB) == "tight"
    assert judge(wanted, 1500 * MIB, 4096 * MIB) == "fits"
    assert judge(wanted, None, 4096 * MIB) == "unknown"
    assert judge(None, 1500 * MIB, None) == "unknown"
    assert judge(wanted, 0, None) == "does not fit"


def test_verdicts_together() -> None:
    assert worst(["fits", "tight", "unknown"]) == "unknown"
    assert worst(["unknown", "does not fit"]) == "does not fit"
    assert best(["unknown", "does not fit"]) == "unknown"
    assert best(["does not fit", "tight"]) == "tight"
    assert worst([]) == best([]) == "unknown"


@pytest.mark.parametrize(
    ("nbytes", "words"),
    [
        (None, "unknown"),
        (0, "0 bytes"),
        (9_999, "9999 bytes"),
        (276_824_064, "264 MiB"),
        (1023 * MIB, "1.00 GiB"),
        (1_740_000_000, "1.62 GiB"),
        (25_276_502_016, "23.5 GiB"),
        (1 << 41, "2048 GiB"),
    ],
)
def test_sizes_in_words(nbytes: int | None, words: str) -> None:
    assert size(nbytes) == words


PEAK = """
import sys
import numpy as np
from sigrun import Siglip
with Siglip.load(sys.argv[1]) as model:
    for _ in range(2):
        model.embed_images([np.zeros((60, 60, 3), np.uint8)] * 8)
        model.embed_texts(["a cat"] * 8)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_a_small_model_stays_within_its_bounds(emoji_q4: Path) -> None:
    """Measured in a process of its own; true sizes are measured by a benchmark, not here."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(emoji_q4)], capture_output=True, text=True, check=True
    )
    peak = int(done.stdout) * 1024
    found = need(from_file(str(emoji_q4)), "both", 8)
    assert found is not None
    assert found.resident_bytes.low_bytes <= peak <= found.resident_bytes.high_bytes
