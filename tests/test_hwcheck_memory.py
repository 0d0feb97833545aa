"""Predicted memory: terms, sums, and how needs and verdicts must move."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sigrun.allocation
import sigrun.batches
import sigrun.blocks
import sigrun.nbits
from sigrun.errors import ArtifactError
from sigrun_hwcheck.conditions import Conditions
from sigrun_hwcheck.constants import Provider, Range, constants
from sigrun_hwcheck.memory import TOWER_CHOICES, TermName, TowerChoice, need
from sigrun_hwcheck.quantities import LARGE_BYTES, quantities
from sigrun_hwcheck.stored import FORMS, NBITS, Form, Stored, Tensor, from_plan
from sigrun_hwcheck.units import size
from sigrun_hwcheck.verdict import MIB, best, judge, reserve_bytes, works, worst
from sigrun_recipes import TOWERS, Architecture, default_model, load, names, plan

SO400M = default_model().architecture
PROVIDERS: tuple[Provider, ...] = ("cpu", "cuda")
VARIANTS = {name: from_plan("so400m", plan(load(name), SO400M)) for name in names()}


def term(
    stored: Stored,
    tower: TowerChoice,
    name: TermName,
    batch: int = 1,
    provider: Provider = "cpu",
    form: Form = "exact",
) -> Range:
    """A term in bytes; nothing where it is left out."""
    found = need(stored, tower, form, batch, provider)
    assert found is not None
    every = [t.bytes for phase in found.phases for t in phase.terms if t.name == name]
    return every[0] if every else Range.exactly(0)


def test_weights_of_the_exact_form() -> None:
    """Linears of Q4_K_M as MatMulNBits with float32 scales and zero points; what is small or dense as float32."""
    image = term(VARIANTS["q4_k_m"], "image", "weights")
    assert image.low_bytes == image.best_bytes == image.high_bytes
    assert 300 * MIB < image.best_bytes < 400 * MIB


def test_float32_weights_are_handed_over_from_the_file() -> None:
    stored = VARIANTS["f32"]
    assert term(stored, "image", "weights").best_bytes < 0.01 * stored.nbytes("image")  # norms and biases
    assert 0 < term(stored, "image", "packed").best_bytes < stored.nbytes("image")
    assert term(stored, "image", "unpacked").best_bytes == 0
    # Positions and what is small are no matrices: they are not laid out anew.
    assert 0.99 * stored.nbytes("image") < term(stored, "image", "mapped").best_bytes < stored.nbytes("image")


def test_quantized_weights_are_there_once() -> None:
    found = need(VARIANTS["q4_k_m"], "image", "exact", 1)
    assert found is not None
    load, run = found.phases
    assert (load.name, run.name) == ("load", "run")
    once = sum(t.bytes.best_bytes for t in run.terms if t.name == "weights")
    loading = sum(t.bytes.best_bytes for t in load.terms if t.name in ("weights", "unpacked"))
    assert once <= loading < 1.02 * once  # the patch matrix alone is dense and copied
    assert found.bytes.best_bytes == max(load.bytes.best_bytes, run.bytes.best_bytes)


def test_the_token_table_is_not_unpacked() -> None:
    stored = VARIANTS["f32"]
    table = next(t for t in stored.tensors if t.kind == "token")
    assert not table.packings
    assert term(stored, "text", "packed").best_bytes < stored.nbytes("text") - table.nbytes
    assert term(VARIANTS["q4_k_m"], "text", "weights").best_bytes < 2 * stored.nbytes("text") / 8


def test_activations_are_those_of_the_graph() -> None:
    """Attention never holds the shares of all tokens; 4304 hidden values are padded to 4352, or 8 groups of 544."""
    image = quantities(VARIANTS["q4_k_m"], "image", "exact")
    assert image.activations == 4 * (729 * (5 * 1152 + 2 * 544) + 3 * 384**2)
    assert image.scratch == 4 * 576 * 1152  # half of a matrix of attention, an eighth of the others is less
    text = quantities(VARIANTS["q4_k_m"], "text", "exact")
    assert text.activations == 4 * 64 * (6 * 1152 + 2 * 544)
    assert quantities(VARIANTS["q4_k_m"], "text", "int8").activations == 4 * 64 * (7 * 1152 + 2 * 4352)
    assert quantities(VARIANTS["f32"], "text", "exact").activations == 4 * 64 * (7 * 1152 + 2 * 4304)


def test_large_pieces_are_the_runtimes() -> None:
    assert LARGE_BYTES == sigrun.allocation.LOADING
    image = quantities(VARIANTS["f16"], "image", "exact")
    assert image.dense_small == 4 * 1152 * 3 * 14**2  # patches; all other matrices are larger as float32
    assert image.dense_largest == 4 * 1152 * 4304
    half = quantities(VARIANTS["f16"], "image", "f16")
    assert half.small16 == 27 * 4 * 2 * 1152**2  # q, k, v and what follows them


def test_minima_are_laid_out_beside_the_weights() -> None:
    """Q5_K's minima, four bytes for 32 weights, go into a product of their own."""
    stored = VARIANTS["q5_k_m"]
    weights = sum(t.size for t in stored.of("image") if t.encoding == "q5_k")
    of = quantities(stored, "image", "exact")
    assert of.minima == weights // 8 > 0
    assert term(stored, "image", "packed").best_bytes == of.dense + of.minima
    assert quantities(VARIANTS["q4_k_m"], "image", "exact").minima == 0


def test_batches_beyond_the_micro_batch_need_no_more() -> None:
    stored, most = VARIANTS["q4_k_m"], sigrun.batches.micro_batch(64, "exact")
    assert most > 1 and sigrun.batches.micro_batch(729, "exact") <= 2
    for tower in TOWERS:
        assert term(stored, tower, "activations", form="int8") == term(
            stored, tower, "activations", 9, form="int8"
        )
    assert term(stored, "image", "activations", 2) == term(stored, "image", "activations", 64)
    assert term(stored, "text", "activations", most) == term(stored, "text", "activations", 1000)
    below = term(stored, "text", "activations", most - 1)
    assert below.best_bytes < term(stored, "text", "activations", most).best_bytes


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_runtimes_micro_batch_is_the_one_predicted(provider: Provider) -> None:
    known = constants(provider)
    assert known.micro_batch_tokens == sigrun.batches.MICRO_BATCH_TOKENS
    for tower, tokens in (("image", 729), ("text", 64)):
        for form in FORMS:
            found = need(VARIANTS["q4_k_m"], "image" if tower == "image" else "text", form, 999, provider)
            assert found is not None
            assert found.micro_batch == sigrun.batches.micro_batch(tokens, form)


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
        "v.blk.0.attn_q.weight",
        "image",
        "linear",
        encoding,
        (rows, columns),
        data.nbytes,
        {"exact": "nbits", "w4f16": "nbits16"},
    )
    stored = Stored(
        model="m",
        variant="v",
        origin="file",
        path="p",
        architecture=Architecture(SO400M.image, None),
        tensors=(tensor,),
        file_bytes=data.nbytes,
        forms={"image": ("exact", "w4f16")},
        passed={},
        int8_known=True,
        weights_sha256="0",
    )
    halves = [value for value in vars(packed.half()).values() if isinstance(value, np.ndarray)]
    assert term(stored, "image", "weights", form="w4f16").best_bytes == sum(a.nbytes for a in halves)
    assert term(stored, "image", "weights").best_bytes == sum(a.nbytes for a in arrays)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_both_towers_share_one_runtime_and_load_one_after_the_other(provider: Provider, form: Form) -> None:
    for stored in VARIANTS.values():
        image, text, both = (need(stored, tower, form, 3, provider) for tower in TOWER_CHOICES)
        assert image is not None and text is not None and both is not None
        runtime = constants(provider).runtime.of(1).best_bytes
        (image_load, image_run), (text_load, text_run) = (
            [phase.bytes.best_bytes for phase in found.phases] for found in (image, text)
        )
        load, run = (phase.bytes.best_bytes for phase in both.phases)
        assert run == image_run + text_run - runtime
        assert load <= max(image_load + text_run, image_run + text_load) - runtime
        assert both.bytes.best_bytes >= max(image.bytes.best_bytes, text.bytes.best_bytes)


def test_a_missing_tower_is_not_zero() -> None:
    image_only = from_plan("so400m", plan(load("f32"), Architecture(SO400M.image, None)))
    assert need(image_only, "text", "auto", 1) is None
    assert need(image_only, "both", "auto", 1) is None
    assert need(image_only, "image", "auto", 1) is not None


def test_a_batch_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        need(VARIANTS["f32"], "image", "auto", 0)


batches = st.integers(1, 4096)
variants = st.sampled_from(sorted(VARIANTS))
towers = st.sampled_from(TOWER_CHOICES)
amounts = st.integers(0, 1 << 40)


@given(variants, towers, st.sampled_from(FORMS), st.sampled_from(PROVIDERS), batches, batches)
def test_need_grows_with_the_batch(
    name: str, tower: TowerChoice, form: Form, provider: Provider, one: int, other: int
) -> None:
    small, large = (need(VARIANTS[name], tower, form, b, provider) for b in sorted((one, other)))
    assert small is not None and large is not None
    for a, b in ((small.bytes, large.bytes), (small.resident_bytes, large.resident_bytes)):
        assert (a.low_bytes, a.best_bytes, a.high_bytes) <= (b.low_bytes, b.best_bytes, b.high_bytes)


@given(variants, towers, st.sampled_from(FORMS), st.sampled_from(PROVIDERS), batches, st.booleans())
def test_bounds_enclose_the_best_figure(
    name: str, tower: TowerChoice, form: Form, provider: Provider, batch: int, elsewhere: bool
) -> None:
    where = Conditions("Windows", "1.40.0", "avx2", threads=64) if elsewhere else None
    found = need(VARIANTS[name], tower, form, batch, provider, where)
    assert found is not None
    for part in (found.bytes, found.resident_bytes, *(t.bytes for p in found.phases for t in p.terms)):
        assert 0 <= part.low_bytes <= part.best_bytes <= part.high_bytes


@given(amounts, amounts, amounts, amounts, amounts)
def test_more_memory_never_turns_a_yes_into_a_no(a: int, b: int, free: int, used: int, more: int) -> None:
    wanted = Range(min(a, b), min(a, b), max(a, b))
    before = judge(wanted, free, reserve_bytes(free + used))
    after = judge(wanted, free + more, reserve_bytes(free + used + more))
    order = ["does not fit", "tight", "fits"]
    assert order.index(after) >= order.index(before)
    assert works(after) or not works(before)


@given(amounts)
def test_the_reserve_stays_within_its_bounds(total: int) -> None:
    assert 128 * MIB <= reserve_bytes(total) <= 1024 * MIB


def test_verdicts() -> None:
    wanted = Range(800 * MIB, 1000 * MIB, 1200 * MIB)
    assert judge(wanted, 999 * MIB, reserve_bytes(4096 * MIB)) == "does not fit"
    assert judge(wanted, 1000 * MIB, reserve_bytes(4096 * MIB)) == "tight"
    assert judge(wanted, 1300 * MIB, reserve_bytes(4096 * MIB)) == "tight"
    assert judge(wanted, 1500 * MIB, reserve_bytes(4096 * MIB)) == "fits"
    assert judge(wanted, None, reserve_bytes(4096 * MIB)) == "unknown"
    assert judge(None, 1500 * MIB, reserve_bytes(None)) == "unknown"
    assert judge(wanted, 0, reserve_bytes(None)) == "does not fit"


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
