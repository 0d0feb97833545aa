"""What the benchmarks compute with: counts, child processes, the page they write."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import report
from benchmarks.children import MIB, run
from benchmarks.emoji_accuracy import Embedded, accuracy, judge, right, rivals
from sigrun.scores import Scoring


def test_the_right_names_of_a_part_of_the_pictures() -> None:
    matrix = np.array([[3, 1, 2], [5, 5, 1]], np.float32)  # pictures of names 2 and 1
    assert rivals(matrix, np.array([2, 1])).tolist() == [1, 1]  # a tie counts
    assert accuracy(matrix, np.array([0, 2])) == (0.5, 1.0)


def test_a_part_is_judged_among_all_names() -> None:
    texts = np.eye(4, dtype=np.float32)
    images = texts[[0, 1, 2, 2]]  # the last picture looks like name 2
    found = Embedded(images, texts, Scoring(1.0, 0.0))
    assert right(found).tolist() == [True, True, True, False]
    assert right(found, slice(1, None, 2)).tolist() == [True, False]
    figures = judge(found, texts, texts, slice(1, None, 2))
    assert (figures.pictures, figures.top1) == (2, 0.5)
    assert (figures.mean_cosine, figures.worst_cosine) == (0.5, 0.0)
    # Of 2 x 4 probabilities two are wrong: sigmoid(e) where it should be sigmoid(0), and the other way round.
    wrong = 1 / (1 + np.exp(-np.e)) - 0.5
    assert figures.probability_error == pytest.approx(2 * wrong / 8)
    assert figures.right_probability_error == pytest.approx(wrong / 2)


def test_a_child_is_charged_with_its_own_memory() -> None:
    held = np.ones(400 * MIB // 8)  # what the parent holds must not show
    idle = run([sys.executable, "-I", "-S", "-c", "print('done')"])
    greedy = run([sys.executable, "-I", "-S", "-c", f"x = b'1' * {200 * MIB}"])
    assert idle.output == "done\n" and held.nbytes > 300 * MIB
    assert idle.peak_bytes < 100 * MIB
    assert 200 * MIB <= greedy.peak_bytes < 300 * MIB


def test_a_child_that_fails_ends_the_benchmark() -> None:
    with pytest.raises(SystemExit, match="exit 3"):
        run([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(SystemExit, match="could not be started"):
        run(["/nowhere/at-all"])


def test_a_section_is_replaced_and_the_others_stay() -> None:
    first, second, *_ = report.TITLES
    page = report.page({second: "two\n\n### part\n\n| a |", first: "one", "gone": "old"})
    assert report.sections(page) == {first: "one", second: "two\n\n### part\n\n| a |"}
    assert page.index("one") < page.index("two")
    again = report.page({**report.sections(page), first: "new"})
    assert again == page.replace("one", "new")


@pytest.mark.parametrize("command", [command for _, command, _ in report.SECTIONS])
def test_every_section_names_a_benchmark_that_can_be_run(command: tuple[str, ...]) -> None:
    assert command[0] == "-m"
    found = importlib.util.find_spec(command[1])
    assert found is not None
    assert "__main__" in Path(found.origin or "").read_text("utf-8") or (
        importlib.util.find_spec(f"{command[1]}.__main__") is not None
    )
