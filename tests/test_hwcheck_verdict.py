"""Verdicts: words, reserves, the largest batch, which form and place, and what is advised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigrun.artifact import Artifact
from sigrun.choice import candidates
from sigrun.providers import PROVIDERS
from sigrun_hwcheck import NoPlaceError, check
from sigrun_hwcheck.api import predicted
from sigrun_hwcheck.constants import Range
from sigrun_hwcheck.machine import Card, ExecutionProvider, Gpus, Machine, OnnxRuntime, Ram
from sigrun_hwcheck.memory import need
from sigrun_hwcheck.places import ON_CARDS, places, preferred
from sigrun_hwcheck.rows import Settings, rows
from sigrun_hwcheck.units import GIB, MIB
from sigrun_hwcheck.verdict import VERDICTS, best, judge, reserve_bytes, works, worst
from tests.hwcheck_golden import machine

SIZES = st.integers(0, 1 << 40)


def free(nbytes: int) -> Machine:
    """A machine with so much free main memory and nothing else."""
    return replace(machine("laptop_without_gpu"), ram=Ram(64 * GIB, nbytes), gpus=())


@pytest.mark.parametrize(
    ("best_bytes", "high_bytes", "reserve", "word"),
    [
        (100, 150, 0, "fits"),
        (100, 200, 0, "fits"),
        (100, 201, 0, "tight"),
        (100, 150, 50, "fits"),
        (100, 151, 50, "tight"),
        (200, 200, 50, "tight"),
        (201, 300, 0, "does not fit"),
    ],
)
def test_words(best_bytes: int, high_bytes: int, reserve: int, word: str) -> None:
    assert judge(Range(0, best_bytes, high_bytes), 200, reserve) == word


def test_unknown_is_never_taken_for_nothing() -> None:
    assert judge(None, 10, 0) == judge(Range(0, 0, 0), None, 0) == "unknown"
    assert judge(Range(1, 1, 1), 0, 0) == "does not fit"


@given(SIZES, SIZES, SIZES, SIZES, SIZES)
def test_more_memory_is_never_worse(low: int, best_bytes: int, high: int, there: int, reserve: int) -> None:
    bounds = Range(*sorted((low, best_bytes, high)))
    order = ("fits", "tight", "does not fit")
    assert order.index(judge(bounds, there + 1, reserve)) <= order.index(judge(bounds, there, reserve))
    assert order.index(judge(bounds, there, reserve)) <= order.index(judge(bounds, there, reserve + 1))


@pytest.mark.parametrize(
    ("total", "expected"),
    [(None, 128 * MIB), (GIB, 128 * MIB), (8 * GIB, round(0.4 * GIB)), (20 * GIB, GIB), (1 << 40, GIB)],
)
def test_what_stays_free(total: int | None, expected: int) -> None:
    assert reserve_bytes(total) == expected
    assert reserve_bytes(total, 0) == 0
    assert reserve_bytes(total, 5) == 5


def test_choices_and_conjunctions() -> None:
    assert (best(VERDICTS), worst(VERDICTS)) == ("fits", "does not fit")
    assert best(()) == worst(()) == "unknown"
    assert [v for v in VERDICTS if works(v)] == ["fits", "tight"]


@pytest.mark.parametrize(
    ("tower", "form"), [("image", "exact"), ("text", "exact"), ("both", "f16"), ("text", "int8")]
)
def test_the_largest_batch_is_the_last_that_fits(tower: str, form: str) -> None:
    """Against trying every batch size, and the truth that larger ones than a micro-batch take no more."""
    stored = next(s for s in predicted() if s.variant == "q4_k_m")
    there = free(0)
    place = places(there)[0]
    needs = [need(stored, tower, form, n, "cpu", place.where) for n in range(1, 20)]  # type: ignore[arg-type]
    figures = [n.bytes.best_bytes for n in needs if n is not None]
    for available in {*figures, *(f - 1 for f in figures)}:
        settings = Settings(compute=form, reserve=0)  # type: ignore[arg-type]
        (row,) = rows([stored], [tower], places(free(available)), settings)  # type: ignore[list-item]
        fitting = sum(figure <= available for figure in figures[: row.micro_batch])
        assert row.largest_batch == fitting
        assert row.every_batch == (fitting == row.micro_batch)
        assert figures[row.micro_batch - 1 :] == [figures[row.micro_batch - 1]] * (20 - row.micro_batch)


def test_a_reserve_decides_between_fits_and_tight() -> None:
    there = machine("laptop_8gb")
    assert check(machine=there).outcome == "fits"
    assert check(machine=there, reserve=3 * GIB).outcome == "tight"
    assert check(machine=there, reserve=1 << 40).outcome == "tight"  # a reserve is no obstacle, a lack is


@pytest.mark.parametrize("name", ["tiny_q4", "emoji_q4"])
def test_the_form_is_the_one_that_the_runtime_takes(name: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(name)
    found = check([path], machine=machine("laptop_8gb"))
    with Artifact.open(path) as artifact:
        for tower in artifact.manifest.graphs:
            (first, *_) = candidates(artifact, tower, "auto", "cpu")
            assert {r.compute for r in found.rows if r.place.key == "ram" and r.tower == tower} == {
                first.form
            }


def with_provider(there: Machine, *names: str, loads: bool | None = None) -> Machine:
    """The machine with these providers of ONNX Runtime installed."""
    here = tuple(ExecutionProvider(name, loads if name != "cpu" else True, "why") for name in (*names, "cpu"))
    return replace(there, onnxruntime=OnnxRuntime("1.31.1", (), here))


def test_a_card_counts_once_its_provider_is_installed() -> None:
    there = machine("desktop_rtx_3060")
    without = check(machine=replace(with_provider(there), gpus=there.gpus))
    assert (without.judged, without.advice.provider) == (("ram",), "cpu")
    (card,) = [p for p in without.places if p.key == "nvidia:0"]
    assert (card.state, card.usable) == ("not installed", False)
    assert card.problem is not None and "sigrun[gpu]" in card.problem
    broken = check(machine=with_provider(there, "cuda", loads=False))
    assert broken.judged == ("ram",)
    assert next(p for p in broken.places if p.key == "nvidia:0").state == "does not load"
    found = check(machine=with_provider(there, "cuda"))
    assert (found.judged, found.advice.provider) == (("ram", "nvidia:0"), "cuda")
    assert found.auto is not None and found.auto.key == "nvidia:0"


def test_the_runtimes_order_of_providers() -> None:
    """Of two vendors' cards the runtime takes the provider that it tries first, and of that the first device."""
    card = Card(0, "x", 8 * GIB, 8 * GIB, 0, None)
    two = tuple(
        Gpus(vendor, "ok", None, None, (card, replace(card, index=1))) for vendor in ("amd", "nvidia")
    )
    there = replace(with_provider(machine("laptop_8gb"), "migraphx", "cuda"), gpus=two)
    found = places(there)
    assert [p.asked_as for p in found] == ["cpu", "migraphx", "migraphx:1", "cuda", "cuda:1"]
    first = preferred(found)
    assert first is not None and first.asked_as == "cuda"
    assert {name for systems in ON_CARDS.values() for name in systems.values()} <= set(PROVIDERS)


def test_a_full_first_card_is_passed_over_by_name() -> None:
    """The runtime would take the first card; the advice names the second."""
    there = machine("two_rtx_4090")
    (gpus,) = there.gpus
    swapped = replace(there, gpus=(replace(gpus, cards=tuple(reversed(gpus.cards))),))
    found = check(machine=swapped)
    assert found.advice.provider == "cuda:1"
    assert found.outcome == "fits"
    file = replace(found.variants[0], path="x.gguf")
    assert file.path is not None


def test_a_command_names_the_provider_where_the_runtime_would_take_another(emoji_q4: Path) -> None:
    there = machine("two_rtx_4090")
    (gpus,) = there.gpus
    full = tuple(replace(card, free_bytes=MIB) for card in gpus.cards)
    found = check([emoji_q4], machine=replace(there, gpus=(replace(gpus, cards=full),)))
    assert found.outcome == "fits"
    assert found.advice.command is not None and found.advice.command.endswith(" --provider cpu")
    usual = check([emoji_q4], machine=there)
    assert usual.advice.command is not None and "--provider" not in usual.advice.command
    asked = check([emoji_q4], machine=there, compute="exact")
    assert asked.advice.command is not None and asked.advice.command.endswith(" --compute exact")


@pytest.mark.parametrize(
    ("provider", "judged"),
    [
        ("auto", ("ram", "nvidia:0", "nvidia:1")),
        ("cpu", ("ram",)),
        ("cuda", ("nvidia:0", "nvidia:1")),
        ("cuda:0", ("nvidia:0",)),
        ("cuda:1", ("nvidia:1",)),
    ],
)
def test_what_a_provider_is_judged_on(provider: str, judged: tuple[str, ...]) -> None:
    assert check(machine=machine("two_rtx_4090"), provider=provider).judged == judged


@pytest.mark.parametrize("provider", ["cuda:7", "migraphx", "gpu", "cuda:x", ""])
def test_a_provider_without_a_device_is_an_error(provider: str) -> None:
    with pytest.raises(NoPlaceError):
        check(machine=machine("two_rtx_4090"), provider=provider)


def test_where_nothing_fits_the_lack_and_the_largest_part_are_named() -> None:
    found = check(machine=machine("container_512mib"))
    least = min((r for r in found.rows), key=lambda r: r.last.need.bytes.best_bytes)
    assert found.advice.variant is None
    assert f"the {least.tower} tower of {least.stored.variant}" in found.advice.sentence
    assert "raise the container's limit" in found.advice.sentence
    assert found.advice.notes[0].startswith("Most of it: ")
    assert found.advice.command is None


def test_another_form_is_offered_where_it_would_fit() -> None:
    """Form int8 holds a byte a weight, form exact half of one: between them lies a machine that has room for one."""
    stored = next(s for s in predicted() if s.variant == "q4_k_s")
    where = places(free(0))[0].where
    needs = {form: need(stored, "both", form, 1, "cpu", where) for form in ("exact", "int8")}
    least = {form: n.bytes.best_bytes for form, n in needs.items() if n is not None}
    assert least["exact"] < least["int8"]
    found = check(machine=free(least["exact"]))
    assert any("--compute exact" in note for note in found.advice.notes)
    assert found.outcome == "does not fit"
    assert check(machine=free(least["exact"]), compute="exact").outcome == "tight"


def test_larger_variants_than_the_preferred_one_are_never_advised() -> None:
    """f32 may need less than q4_k_m once it is int8; nobody should download six times as much for that."""
    for available in range(500, 1600, 200):
        found = check(machine=free(available * MIB))
        assert found.advice.variant in (None, "q4_k_m", "q4_k_s")


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="batch"):
        check(batches=[0])
    with pytest.raises(ValueError, match="compute form"):
        check(compute="int4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reserve"):
        check(reserve=-1)


def test_speed_is_the_image_towers_and_never_of_both() -> None:
    found = check(machine=machine("two_rtx_4090"))
    assert all((row.speed is None) == (row.tower == "both") for row in found.rows)
    on_card = {
        row.speed.best_s
        for row in found.rows
        if row.speed and row.place.key == "nvidia:0" and row.tower == "image"
    }
    on_cpu = {
        row.speed.best_s
        for row in found.rows
        if row.speed and row.place.key == "ram" and row.tower == "image"
    }
    assert max(on_card) < min(on_cpu)
    assert {row.speed.source for row in found.rows if row.speed} <= {"measured", "estimated"}
