"""Expected seconds an item: the work by hand, and how they must move."""

from __future__ import annotations

import pytest

from sigrun_hwcheck.conditions import INSTRUCTION_SETS, Conditions
from sigrun_hwcheck.speed import CardRates, Speed, speed, work
from sigrun_hwcheck.stored import FORMS, Form, from_plan
from sigrun_recipes import Architecture, default_model, load, plan

SO400M = default_model().architecture
F32 = from_plan("so400m", plan(load("f32"), SO400M))
Q4 = from_plan("so400m", plan(load("q4_k_m"), SO400M))
CARD = CardRates(float16=100.0, float32=50.0, bandwidth=500.0)


def on_cpu(
    form: Form = "exact", instructions: str = "avx512_vnni", threads: int = 2, batch: int = 1
) -> Speed:
    found = speed(Q4, "image", form, batch, "cpu", Conditions("Linux", "1.31.1", instructions, None, threads))
    assert found is not None
    return found


def test_the_work_of_so400m_by_hand() -> None:
    """27 layers of four [1152, 1152] and two [4304, 1152] matrices; patches of 14 x 14 x 3; pooling and text head."""
    layers = 27 * (4 * 1152**2 + 2 * 1152 * 4304)
    pooling = 2 * 1152**2 * 729 + 2 * 1152**2 + 2 * 1152 * 4304
    image = 2 * (729 * (layers + 1152 * 588) + pooling)
    assert work(F32, "image").linear == image
    assert work(F32, "image").attention == 27 * 2 * 2 * 729 * 729 * 1152
    assert work(F32, "text").linear == 2 * (64 * layers + 1152 * 1152)
    assert 665e9 < image + work(F32, "image").attention < 675e9


def test_published_times_lie_within_the_ranges() -> None:
    """What BENCHMARKS.md says of two threads of a quiet machine with AVX512-VNNI."""
    where = Conditions("Linux", "1.31.1", "avx512_vnni", None, 2)
    for tower, form, seconds in (
        ("image", "exact", 2.32),
        ("text", "exact", 0.45),
        ("image", "int8", 0.82),
        ("text", "int8", 0.06),
    ):
        found = speed(Q4, "image" if tower == "image" else "text", form, 1, "cpu", where)  # type: ignore[arg-type]
        assert found is not None
        assert found.low_s < seconds < found.high_s
        assert abs(found.best_s / seconds - 1) < 0.15
        assert found.source == "measured"


@pytest.mark.parametrize("instructions", INSTRUCTION_SETS)
@pytest.mark.parametrize("form", FORMS)
def test_ranges_are_in_order_and_more_cores_are_faster(form: Form, instructions: str) -> None:
    few, many = on_cpu(form, instructions), on_cpu(form, instructions, threads=16)
    for found in (few, many):
        assert 0 < found.low_s < found.best_s < found.high_s
        assert found.items_per_s == (1 / found.high_s, 1 / found.best_s, 1 / found.low_s)
    assert many.low_s < few.low_s and many.best_s < few.best_s and many.high_s < few.high_s
    assert many.best_s > few.best_s / 8  # cores share memory and clock
    assert many.source == "estimated"


def test_decoding_weights_is_shared_by_a_batch() -> None:
    where = Conditions("Linux", "1.31.1", "avx512_vnni", None, 2)
    one, more = (speed(Q4, "text", "exact", batch, "cpu", where) for batch in (1, 16))
    assert one is not None and more is not None
    assert more.best_s < 0.6 * one.best_s
    many, all_at_once = (speed(Q4, "text", "exact", batch, "cpu", where) for batch in (64, 1024))
    assert many == all_at_once  # beyond a micro-batch nothing changes


def test_nothing_is_made_up() -> None:
    unknown = Conditions("Linux", "1.31.1", None, None, 2)
    assert speed(Q4, "image", "exact", 1, "cpu", unknown) is None
    assert speed(Q4, "image", "exact", 1, "cpu", Conditions("Linux", "1.31.1", "avx2")) is None
    assert speed(Q4, "image", "f16", 1, "cuda", unknown) is None
    assert speed(Q4, "image", "f16", 1, "cuda", unknown, card=CardRates(None, None, 500.0)) is None
    image_only = from_plan("so400m", plan(load("f32"), Architecture(SO400M.image, None)))
    assert speed(image_only, "text", "exact", 1, "cpu", Conditions(instructions="avx2", threads=2)) is None


def test_a_card_by_roofline() -> None:
    """670 GFLOP at 30 % of 100 TFLOP/s are 22 ms; half the rate takes twice as long."""
    found = speed(Q4, "image", "f16", 1, "cuda", Conditions(), card=CARD)
    slower = speed(Q4, "image", "exact", 1, "cuda", Conditions(), card=CARD)
    assert found is not None and slower is not None
    assert found.best_s == pytest.approx(0.670 / 30 + 0.005, rel=0.03)
    assert slower.best_s > 1.7 * found.best_s
    assert found.source == "estimated"
