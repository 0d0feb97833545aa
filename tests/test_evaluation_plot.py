"""The drawing of an evaluation: every figure as text, everything within its frame."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np

from sigrun.evaluation import Comparison, Dataset, Evaluation, compare, evaluation_plot
from tests.judge import OTHER, SIX, VECTORS, Judge, judged

SVG = "{http://www.w3.org/2000/svg}"


def drawing(found: Evaluation, compared: Comparison | None = None) -> tuple[ElementTree.Element, list[str]]:
    text = evaluation_plot(found, compared)
    assert text == evaluation_plot(found, compared)
    root = ElementTree.fromstring(text)
    return root, ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


def test_the_plot_says_in_words_what_it_draws() -> None:
    found, reference = judged(Judge(OTHER, "q4"), SIX), judged(Judge(VECTORS), SIX)
    root, texts = drawing(found, compare(found, reference))
    for said in (
        "judge, q4, exact",
        "compared with judge, f32, exact (hollow bars and squares)",
        "top-1, q4",
        "66.7 %",
        "top-1, f32",
        "50.0 %",
        "+16.67; lost 1, won 2; p 1.000",
        "1 of 2; reference 1",
        "dog taken for cow",
    ):
        assert said in texts
    titles = ["".join(t.itertext()) for t in root.iter(f"{SVG}title")]
    assert titles[0] == "judge, q4, exact: accuracy on 6 pictures of 3 classes"
    assert len(titles) == 1 + 2 + 1 + 3 + 2  # the drawing, both models, the difference, classes, confusions
    described = root.find(f"{SVG}desc")
    assert described is not None and described.text is not None
    assert "1 pictures were lost and 2 won" in described.text


def test_every_part_of_the_plot_lies_within_it() -> None:
    """Ninety classes with long names, one of them no XML; a share for each that the bar's length tells."""
    classes = tuple(f"<{i}> & \x07 a rather long name of a class {i}" for i in range(90))
    vectors = np.eye(90, dtype=np.float32)[[(i * 7) % 90 for i in range(180)]]
    dataset = Dataset(classes, tuple(map(str, range(180))), tuple(i % 90 for i in range(180)))
    root, texts = drawing(judged(Judge(vectors), dataset))
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    assert "the 15 weakest of 90 classes" in texts
    assert height < 1000
    for box in root.iter(f"{SVG}rect"):
        x, y = float(box.get("x", 0)), float(box.get("y", 0))
        assert 0 <= x <= x + float(box.get("width", 0)) <= width and y >= 0
    for element in root.iter(f"{SVG}text"):
        letters = 6.2 * len("".join(element.itertext()))  # pixels, about
        style = element.get("class", "")
        start = (
            float(element.get("x", 0))
            - letters * ("end" in style.split())
            - letters / 2 * ("middle" in style)
        )
        assert start >= 0 and start + letters <= width, "".join(element.itertext())
