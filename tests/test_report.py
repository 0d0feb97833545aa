"""The report of an export: complete, the same each time, and readable by what reads JSON, Markdown and SVG."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest

from sigrun.artifact import Artifact
from sigrun.errors import OutputError
from sigrun.manifest import Manifest, Refit
from sigrun.scores import Scoring
from sigrun.verification import Agreement, Cosines, Int8Choice, Scores, Verification
from sigrun_exporters.checkpoint import open_checkpoint
from sigrun_exporters.export import Exported, export
from sigrun_exporters.transforms import rewritten
from sigrun_exporters.verify.plot import SHADES, error_plot
from sigrun_exporters.verify.report import SUFFIXES, record, write_report
from sigrun_exporters.verify.report_text import markdown
from sigrun_exporters.verify.weight_errors import PARTS, tower_errors
from sigrun_recipes import TOWERS, Plan, TensorPlan, default_model, load, plan
from tests.checkpoints import EMOJI
from tests.conftest import roomy

SVG = "{http://www.w3.org/2000/svg}"
SCHEMA = json.loads(
    resources.files("sigrun_exporters.verify").joinpath("report.schema.json").read_text("utf-8")
)
COSINES = {"image": Cosines(0.999, 0.99), "text": Cosines(0.998, 0.98)}
SCORES = Scores(0.1, 0.001, 0.02, 0.95, 0.99)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The bundled model as Q4_K_M, verified."""
    return export(open_checkpoint(str(EMOJI)), load("q4_k_m"), tmp_path_factory.mktemp("models"))


def reports(exported: Exported) -> list[Path]:
    stem = exported.path.name.removesuffix(".gguf")
    return [exported.path.with_name(stem + suffix) for suffix in SUFFIXES]


def made_up(plan: Plan) -> dict[str, float]:
    """Errors of every tensor: none of f32, and each other tensor's own."""
    lossy = [t.spec.name for t in plan.tensors if t.encoding.name != "f32"]
    return {t.spec.name: 0.0 for t in plan.tensors} | {n: 0.001 * (i + 1) for i, n in enumerate(lossy)}


def verification(**forms: Agreement) -> Verification:
    choice = Int8Choice(("v.blk.0.ffn_down.weight",), ((0, 0.4), (1, 0.2)))
    return Verification(14, 24, "a" * 64, forms, {"image": choice, "text": Int8Choice((), ((0, 0.1),))})


def tables(text: str) -> Iterator[list[list[str]]]:
    """Every table of a Markdown text as its rows of cells, the head first."""
    block: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            block.append(line)
        elif block:
            rows = [[c.strip() for c in re.split(r"(?<!\\)\|", row)[1:-1]] for row in block]
            assert set(rows[1]) == {"---"}
            yield [rows[0], *rows[2:]]
            block = []


def test_an_export_has_a_report(exported: Exported) -> None:
    assert [p.name for p in exported.paths[1:]] == [p.name for p in reports(exported)]
    assert all(p.is_file() for p in reports(exported))
    assert not list(exported.path.parent.glob(".*"))


def test_the_json_is_as_its_schema_says_and_says_what_the_manifest_does(exported: Exported) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    data = json.loads(reports(exported)[0].read_text("utf-8"))
    jsonschema.validate(data, SCHEMA)
    manifest, planned = exported.manifest, exported.plan
    assert set(data) == set(SCHEMA["required"]) == set(SCHEMA["properties"])
    assert data["source"]["files"] == dict(manifest.source.files)
    assert data["files"] == {exported.path.name: exported.path.stat().st_size}
    assert manifest.verification is not None
    assert data["verification"]["set_sha256"] == manifest.verification.set_sha256
    for form, agreement in manifest.verification.forms.items():
        assert data["verification"]["forms"][form]["passed"] == agreement.passed
        assert (
            data["verification"]["forms"][form]["cosines"]["text"]["worst"] == agreement.cosines["text"].worst
        )
    for tower in TOWERS:
        mine = data["towers"][tower]
        assert mine["bytes"] == planned.nbytes(tower) == sum(e["bytes"] for e in mine["encodings"].values())
        assert sum(e["tensors"] for e in mine["encodings"].values()) == len(list(planned.of(tower)))


def test_errors_are_those_of_what_is_stored(exported: Exported) -> None:
    """Read back from the file, and compared with the checkpoint."""
    data = json.loads(reports(exported)[0].read_text("utf-8"))
    checkpoint = open_checkpoint(str(EMOJI))
    cells = data["weight_errors"]["image"]["layers"][2] | data["weight_errors"]["image"]["head"]
    cells |= {c["tensor"]: c for c in data["weight_errors"]["text"]["other"]}
    assert len(cells) == 6 + 3
    with Artifact.open(exported.path) as artifact:
        for cell in cells.values():
            tensor = next(t for t in exported.plan.tensors if t.spec.name == cell["tensor"])
            assert cell["encoding"] == tensor.encoding.name
            weights = rewritten(checkpoint.read(cell["tensor"]), tensor).astype(np.float64)
            found = artifact.dense(cell["tensor"]).reshape(weights.shape)
            error = np.linalg.norm(found - weights) / np.linalg.norm(weights)
            assert cell["error"] == pytest.approx(error, rel=1e-4, abs=1e-8)


def test_every_tensor_is_in_the_table_once(exported: Exported) -> None:
    for tower in TOWERS:
        found = tower_errors(exported.plan, made_up(exported.plan), tower)
        wanted = [t.spec.name for t in exported.plan.of(tower) if t.spec.kind not in ("norm", "bias")]
        assert sorted(c.tensor for c in found.cells()) == sorted(wanted)
        assert found.plain == len(list(exported.plan.of(tower))) - len(wanted)
        assert all(tuple(row) == PARTS for row in found.layers)
        assert all(
            f".blk.{i}.{part}." in c.tensor for i, row in enumerate(found.layers) for part, c in row.items()
        )
    assert tuple(tower_errors(exported.plan, made_up(exported.plan), "image").head) == PARTS


def test_the_markdown_has_every_figure(exported: Exported) -> None:
    text = reports(exported)[1].read_text("utf-8")
    found = list(tables(text))
    for table in found:
        assert len({len(row) for row in table}) == 1, table
    assert exported.manifest.verification is not None
    forms = next(t for t in found if t[0][0] == "form")
    assert [row[0] for row in forms[1:]] == list(exported.manifest.verification.forms)
    for row, agreement in zip(forms[1:], exported.manifest.verification.forms.values(), strict=True):
        assert row[2] == f"{agreement.cosines['image'].mean:.5f} / {agreement.cosines['image'].worst:.5f}"
        assert row[-1] == "passed"
    worst = next(t for t in found if t[0][0] == "tensor" and t[0][-1] == "error")
    errors = [float(row[2]) for row in worst[1:]]
    assert len(errors) == 10 and errors == sorted(errors, reverse=True)
    assert f"]({reports(exported)[2].name})" in text
    assert exported.manifest.recipe_sha256 in text


def test_no_path_of_this_machine_is_in_a_report(exported: Exported) -> None:
    for path in reports(exported):
        text = path.read_text("utf-8")
        for where in (str(exported.path.parent), str(EMOJI), str(Path.home()), sys.prefix):
            assert where not in text


def test_an_export_done_again_gives_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    again = export(open_checkpoint(str(EMOJI)), load("q4_k_m"), tmp_path)
    for first, second in zip(reports(exported), reports(again), strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_an_older_report_is_replaced_only_if_it_may_be(exported: Exported, tmp_path: Path) -> None:
    arguments = (exported.manifest, exported.plan, made_up(exported.plan), {"x.gguf": 3})

    def place(suffix: str) -> Path:
        return tmp_path / f"x{suffix}"

    assert [p.name for p in write_report(place, *arguments, force=False)] == [f"x{s}" for s in SUFFIXES]
    with pytest.raises(OutputError, match=r"x\.report\.json exists already"):
        write_report(place, *arguments, force=False)
    write_report(place, *arguments)
    assert len(list(tmp_path.iterdir())) == 3


def told(manifest: Manifest, plan: Plan) -> tuple[dict[str, Any], str]:
    data = json.loads(json.dumps(record(manifest, plan, made_up(plan), {"x.gguf": 3}), allow_nan=False))
    jsonschema.validate(data, SCHEMA)
    return data, markdown(data, "x.report.svg")


def test_what_was_not_verified_is_said(exported: Exported) -> None:
    data, text = told(dataclasses.replace(exported.manifest, verification=None, golden=None), exported.plan)
    assert data["verification"] is None
    assert "**Not verified**" in text and "passed" not in text.lower()


def test_a_form_that_failed_is_said_first(exported: Exported) -> None:
    good = Agreement(14, 24, COSINES, SCORES, ())
    bad = Agreement(14, 24, COSINES, SCORES, ("worst text cosine 0.90000 is less than 0.965",))
    manifest = dataclasses.replace(exported.manifest, verification=verification(exact=good, int8=bad))
    _, text = told(manifest, exported.plan)
    assert "**form int8 failed**" in text.splitlines()[2]
    forms = next(t for t in tables(text) if t[0][0] == "form")
    assert forms[2][-1] == "**failed**: worst text cosine 0.90000 is less than 0.965"
    manifest = dataclasses.replace(exported.manifest, verification=verification(exact=bad))
    assert "**Failed its gate**" in told(manifest, exported.plan)[1].splitlines()[2]


def test_a_form_measured_on_a_part_or_without_numbers_is_said(exported: Exported) -> None:
    half = Agreement(4, 5, {}, None, ("gives values that are no numbers",))
    found = verification(exact=Agreement(14, 24, COSINES, SCORES, ()), f16=half)
    trail = Int8Choice((), ((0, float("inf")), (1, 0.2)))
    found = dataclasses.replace(found, int8={"image": trail})
    data, text = told(dataclasses.replace(exported.manifest, verification=found), exported.plan)
    assert "measured on 4 of 14 pictures and 5 of 24 texts" in text
    assert data["verification"]["int8"]["image"]["trail"] == [[0, None], [1, 0.2]]
    assert "0: no number, 1: 0.2" in text


def test_exact_matrices_importance_and_fitted_constants_are_told(exported: Exported) -> None:
    found = verification(exact=Agreement(14, 24, COSINES, SCORES, ()))
    manifest = dataclasses.replace(
        exported.manifest,
        verification=found,
        importance="b" * 64,
        scoring=Scoring(3.5, -11.0),
        refit=Refit(Scoring(3.25, -12.0), 0.004, 0.003),
    )
    _, text = told(manifest, exported.plan)
    assert "leaves 1 matrix of the image tower exact (`v.blk.0.ffn_down.weight`)" in text
    assert "0: 0.4, 1: 0.2" in text
    assert "b" * 64 in text
    constants = next(t for t in tables(text) if t[0][1] == "logit scale")
    assert constants[1] == ["the checkpoint's", "3.250000", "-12.000000", "0.004000"]
    assert constants[2] == ["fitted", "3.500000", "-11.000000", "0.003000"]


def test_substitutions_are_listed(exported: Exported) -> None:
    def substituted(tensor: TensorPlan) -> TensorPlan:
        return dataclasses.replace(tensor, target="q5_k") if tensor.spec.name == "t.head.weight" else tensor

    planned = dataclasses.replace(exported.plan, tensors=tuple(substituted(t) for t in exported.plan.tensors))
    data, text = told(exported.manifest, planned)
    wanted = {"tensor": "t.head.weight", "target": "q5_k", "encoding": "q8_0"}
    assert data["towers"]["text"]["substitutions"] == [wanted]
    assert ["`t.head.weight`", "q5_k", "q8_0"] in next(t for t in tables(text) if t[0][1] == "asked for")
    assert "1 tensor did not get" in text


def test_names_from_outside_break_neither_text_nor_picture(exported: Exported) -> None:
    name = "a|b`c<script>&\x01\n# d"
    manifest = dataclasses.replace(
        exported.manifest,
        model=name,
        source=dataclasses.replace(exported.manifest.source, model=name, files={name: "0" * 64}),
    )
    _, text = told(manifest, exported.plan)
    assert text.splitlines()[0] == "# a|b\\`c\\<script\\>\\&  # d as q4_k_m"
    assert "\n# d" not in text
    assert "<script>" not in re.sub("`[^`]*`", "", text)  # as code it is shown as it stands
    for table in tables(text):
        assert len({len(row) for row in table}) == 1, table
    drawing = error_plot(exported.plan, made_up(exported.plan), TOWERS, name)
    ElementTree.fromstring(drawing)


def titles(drawing: str) -> list[str]:
    """Titles of the cells of a drawing that is valid XML."""
    root = ElementTree.fromstring(drawing)
    assert root.tag == f"{SVG}svg"
    return [str(g[0].text) for g in root.iter(f"{SVG}g") if len(g) and g[0].tag == f"{SVG}title"]


def test_the_drawing_has_every_tensor_with_its_figures() -> None:
    """At SO400M's size."""
    planned = plan(load("q4_k_m"), default_model().architecture)
    errors = made_up(planned)
    drawing = error_plot(planned, errors, TOWERS, "so400m")
    wanted = {
        f"{t.spec.name}: {t.encoding.name}, relative error {errors[t.spec.name]:.6f}"
        for t in planned.tensors
        if t.spec.kind not in ("norm", "bias")
    }
    assert len(wanted) == 2 * 27 * 6 + 6 + 6
    found = titles(drawing)
    assert len(found) == len(wanted) and set(found) == wanted
    plain = sum(t.spec.kind in ("norm", "bias") for t in planned.tensors)
    assert f"{plain} norms and biases are stored as f32, error 0 %" in drawing


def test_everything_drawn_lies_within_the_drawing_and_no_cells_overlap() -> None:
    planned = plan(load("q4_k_m"), default_model().architecture)
    root = ElementTree.fromstring(error_plot(planned, made_up(planned), TOWERS, "so400m"))
    _, _, width, height = (float(v) for v in root.attrib["viewBox"].split())
    cells = [
        tuple(float(r.attrib[k]) for k in ("x", "y", "width", "height"))
        for r in root.iter(f"{SVG}rect")
        if r.attrib.get("class") == "cell"
    ]
    for x, y, w, h in cells:
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
    spots = {(x, y) for x, y, _, _ in cells}
    assert len(spots) == len(cells)
    for text in root.iter(f"{SVG}text"):
        assert 0 <= float(text.attrib["x"]) <= width and 0 <= float(text.attrib["y"]) <= height
    assert "prefers-color-scheme: dark" in str(root.find(f"{SVG}style").text)  # type: ignore[union-attr]


def luminance(shade: tuple[int, ...]) -> float:
    parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in shade]
    return float(np.dot(parts, (0.2126, 0.7152, 0.0722)))


def test_larger_errors_are_lighter_and_figures_legible_on_every_shade() -> None:
    lights = [luminance(shade) for shade in SHADES]
    assert lights == sorted(lights)
    planned = plan(roomy("q4_k_m"), default_model().architecture)
    names = [t.spec.name for t in planned.tensors]
    errors = dict(zip(names, np.geomspace(1e-5, 2, len(names)).tolist(), strict=True))
    root = ElementTree.fromstring(error_plot(planned, errors, TOWERS, "x"))
    for cell in root.iter(f"{SVG}g"):
        if cell[0].tag != f"{SVG}title":
            continue
        shade = tuple(int(v) for v in re.findall(r"\d+", cell[1].attrib["fill"]))
        text = 1.0 if "on-dark" in cell[2].attrib["class"] else 0.0
        low, high = sorted((luminance(shade), text))
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_one_tower_alone_is_reported(exported: Exported) -> None:
    architecture = dataclasses.replace(exported.plan.source, text=None)
    planned = plan(load("q4_k_m"), architecture)
    manifest = dataclasses.replace(
        exported.manifest,
        graphs={"image": exported.manifest.graphs["image"]},
        scoring=None,
        verification=verification(exact=Agreement(14, 0, {"image": COSINES["image"]}, None, ())),
    )
    data, text = told(manifest, planned)
    assert list(data["towers"]) == ["image"]
    assert "has the image tower only" in text
    forms = next(t for t in tables(text) if t[0][0] == "form")
    assert forms[1][3:] == ["–", "–", "–", "–", "passed"]
    assert len(titles(error_plot(planned, made_up(planned), ("image",), "x"))) == 5 * 6 + 6 + 3
