"""Exports that prove themselves: what fails is not written, and what was found stands wherever it should."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import sigrun.cli
import sigrun_exporters.cli
import sigrun_exporters.export as export_module
import sigrun_exporters.quantize as quantizers
from sigrun import OutputError, Siglip
from sigrun.artifact import Artifact
from sigrun.errors import VerificationError
from sigrun.manifest import Manifest
from sigrun.verification import GOLDEN_TEXT, golden_picture
from sigrun_exporters.calibration import read_calibration
from sigrun_exporters.checkpoint import Checkpoint, open_checkpoint
from sigrun_exporters.export import Exported, Settings, export
from sigrun_exporters.graph import FORMS
from sigrun_exporters.verify.inputs import MOST_OWN_PICTURES, OTHER_TEXTS, Inputs, inputs, spaced
from sigrun_exporters.verify.pictures import drawings
from sigrun_exporters.verify.verify import agreements
from sigrun_recipes import load, names
from tests import checkpoints
from tests.conftest import UNVERIFIED

DEMO = checkpoints.ROOT / "examples" / "emoji_siglip" / "heldout" / "demo"
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Variant = Callable[[str], Exported]


@pytest.fixture(scope="module")
def emoji() -> Checkpoint:
    return open_checkpoint(str(checkpoints.EMOJI))


@pytest.fixture(scope="module")
def seen(emoji: Checkpoint) -> Inputs:
    return inputs(emoji, None, lambda _: None)


def left(folder: Path) -> list[str]:
    """Everything in an export's folder, hidden files and empty folders too."""
    return sorted(p.name for p in (folder / "emoji-siglip-patch10-60").iterdir())


def spoiled(checkpoint: Checkpoint, name: str, spoil: Callable[[Floats], Floats]) -> Checkpoint:
    def read(asked: str) -> Floats:
        values = checkpoint.read(asked)
        return np.ascontiguousarray(spoil(values)) if asked == name else values

    return replace(checkpoint, read=read)


# What is looked at


def test_the_built_in_set_is_for_the_towers_there_are(
    emoji: Checkpoint, seen: Inputs, tmp_path: Path
) -> None:
    count = len(drawings())
    assert [p.shape for p in seen.pixels] == [(3, 60, 60)] * count
    assert seen.ids.shape == (count + len(OTHER_TEXTS), 64)
    assert seen.golden_pixels.shape == (3, 60, 60)
    assert seen.golden_ids.shape == (64,)
    alone = inputs(replace(emoji, tokenizer=None), None, lambda _: None)
    assert (len(alone.pixels), alone.ids.size, alone.golden_ids.size) == (count, 0, 0)
    text = replace(emoji, architecture=replace(emoji.architecture, image=None))
    only = inputs(text, None, lambda _: None)
    assert (len(only.pixels), only.golden_pixels.size, len(only.ids)) == (0, 0, count + len(OTHER_TEXTS))
    tower = inputs(open_checkpoint(str(checkpoints.write_timm(tmp_path / "t"))), None, lambda _: None)
    assert ([p.shape for p in tower.pixels], tower.ids.size) == ([(3, 33, 33)] * count, 0)


def test_own_pictures_and_texts_join_evenly_spaced(emoji: Checkpoint, seen: Inputs, tmp_path: Path) -> None:
    many = MOST_OWN_PICTURES + 7
    for i in range(many):
        Image.new("RGB", (4, 4), (i, i, i)).save(tmp_path / f"{i:03}.png")
    (tmp_path / "captions.txt").write_text("an owl\n?!\na wolf\n", "utf-8")
    notes: list[str] = []
    calibration = read_calibration(tmp_path, tmp_path / "captions.txt", notes.append)
    found = inputs(emoji, calibration, notes.append)
    own = found.pixels[len(seen.pixels) :]
    shades = [round((float(p.mean()) + 1) * 127.5) for p in own]  # as mean and deviation of 0.5 leave them
    assert shades == [i * many // MOST_OWN_PICTURES for i in range(MOST_OWN_PICTURES)]
    assert np.array_equal(found.pixels[: len(seen.pixels)], seen.pixels)
    assert np.array_equal(found.ids[: len(seen.ids)], seen.ids)
    assert len(found.ids) == len(seen.ids) + 2
    assert any("caption left out" in line for line in notes)


@pytest.mark.parametrize(("count", "most"), [(0, 4), (3, 4), (4, 4), (5, 4), (1000, 64)])
def test_spacing_is_even(count: int, most: int) -> None:
    places = spaced(count, most)
    assert len(places) == min(count, most)
    assert places[:1] == ([0] if count else [])
    assert all(place < count for place in places)
    gaps = set(np.diff([*places, count]).tolist())
    assert max(gaps, default=1) - min(gaps, default=1) <= 1


def test_the_sets_hash_tells_any_change(seen: Inputs) -> None:
    pixels = [p.copy() for p in seen.pixels]
    pixels[-1][2, 5, 7] += 0.01
    ids = seen.ids.copy()
    ids[-1, -1] += 1
    changed = [
        replace(seen, pixels=tuple(pixels)),
        replace(seen, ids=ids),
        replace(seen, pixels=seen.pixels[::-1]),
        replace(seen, pixels=seen.pixels[:-1]),
        replace(seen, ids=seen.ids[:-1]),
    ]
    assert len({seen.sha256, *(c.sha256 for c in changed)}) == 1 + len(changed)
    assert replace(seen, pixels=tuple(p.copy() for p in seen.pixels)).sha256 == seen.sha256


# Gates


def test_an_honest_export_passes_in_every_form(emoji_variant: Variant) -> None:
    for name in ("q4_k_m", "f32"):
        verification = emoji_variant(name).manifest.verification
        assert verification is not None
        assert set(verification.forms) == set(FORMS)
        assert all(a.passed for a in verification.forms.values()), verification.lines()


def colours_reversed(patch: Floats) -> Floats:
    return patch.reshape(len(patch), 3, -1)[:, ::-1].reshape(patch.shape)


def rows_for_columns(patch: Floats) -> Floats:
    side = round((patch.size / len(patch) / 3) ** 0.5)
    return patch.reshape(len(patch), 3, side, side).swapaxes(2, 3).reshape(patch.shape)


FAULTS: dict[str, tuple[str, Callable[[Floats], Floats]]] = {
    "a matrix transposed": ("v.blk.2.attn_out.weight", np.transpose),
    "a matrix of zeros": ("v.blk.2.ffn_down.weight", np.zeros_like),
    "a text matrix transposed": ("t.blk.0.attn_q.weight", np.transpose),
    "a wrong sign of a bias": ("v.post_ln.bias", np.negative),
    "colours in reverse": ("v.patch_embd.weight", colours_reversed),
    "rows for columns": ("v.patch_embd.weight", rows_for_columns),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_anywhere_fails_every_recipes_gate(
    emoji: Checkpoint, emoji_variant: Variant, seen: Inputs, fault: str
) -> None:
    """The fault is in the checkpoint that the honest files are held against, which is as far off and far cheaper."""
    wrong = spoiled(emoji, *FAULTS[fault])
    # Gates are the wider the fewer bits; two faults are tried on all of them.
    tried = names() if fault in ("a matrix transposed", "rows for columns") else ("q4_k_m", "q4_k_s")
    for name in tried:
        found = agreements(emoji_variant(name).path, wrong, load(name).gate, seen, ("exact",))["exact"]
        assert any("cosine" in problem for problem in found.problems), (name, found.line())


@pytest.mark.parametrize(
    "bias", ["v.blk.1.attn_v.bias", "v.blk.4.ffn_down.bias", "v.head.ffn_down.bias", "t.blk.1.ffn_down.bias"]
)
def test_a_faint_fault_fails_the_gates_of_whole_numbers(
    emoji: Checkpoint, emoji_variant: Variant, seen: Inputs, bias: str
) -> None:
    """Biases are f32 in every recipe, so one exported wrongly shows where nothing else is off."""
    wrong = spoiled(emoji, bias, np.negative)
    for name in ("f32", "f16"):
        found = agreements(emoji_variant(name).path, wrong, load(name).gate, seen, ("exact",))["exact"]
        assert not found.passed, (name, found.line())


def test_what_changes_nothing_passes(emoji: Checkpoint, emoji_variant: Variant, seen: Inputs) -> None:
    """A key's bias adds the same to all logits of a softmax."""
    wrong = spoiled(emoji, "v.blk.1.attn_k.bias", np.negative)
    assert agreements(emoji_variant("f32").path, wrong, load("f32").gate, seen, ("exact",))["exact"].passed


HEADS = {  # where a block keeps its scales
    "q8_0": slice(0, 2),
    "q6_k": slice(192, 210),
    "q5_k": slice(0, 16),
    "q4_k": slice(0, 16),
}


def neighbours_scales(encode: Callable[..., Bytes], where: slice) -> Callable[..., Bytes]:
    def wrong(*arguments: Any) -> Bytes:
        blocks = encode(*arguments)
        even = len(blocks) // 2 * 2
        pairs = blocks[:even].reshape(-1, 2, blocks.shape[1])
        pairs[:, :, where] = pairs[:, ::-1, where].copy()
        return blocks

    return wrong


@pytest.mark.parametrize(
    ("name", "kind"),
    [("q8_0", "q8_0"), ("q6_k", "q6_k"), ("q5_k_m", "q5_k"), ("q4_k_m", "q4_k"), ("q4_k_s", "q4_k")],
)
def test_a_quantizer_that_mixes_up_scales_is_found_out(
    emoji: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    wrong = neighbours_scales(quantizers.ENCODERS[kind], HEADS[kind])
    monkeypatch.setitem(quantizers.ENCODERS, kind, wrong)
    with pytest.raises(VerificationError, match=f"as {name} fails its gate: worst image cosine"):
        export(emoji, load(name), tmp_path, Settings(formats=("gguf", "onnx")))
    assert left(tmp_path) == []


# What a failing or unverified export leaves and says


def info(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert sigrun.cli.main(["info", str(path)]) == 0
    return capsys.readouterr().out


def convert(out: Path, *more: str) -> int:
    command = ["convert", str(checkpoints.EMOJI), "--variant", "q4_k_m", "-o", str(out), *more]
    return sigrun_exporters.cli.main(command)


def test_a_failing_variant_is_written_on_request_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = neighbours_scales(quantizers.ENCODERS["q4_k"], HEADS["q4_k"])
    monkeypatch.setitem(quantizers.ENCODERS, "q4_k", wrong)
    assert convert(tmp_path) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("error:") == 1
    assert "fails its gate: worst image cosine" in printed.err
    assert "--allow-failing" in printed.err
    assert left(tmp_path) == []
    assert convert(tmp_path, "--allow-failing") == 0
    printed = capsys.readouterr()
    assert "note: form exact fails its gate: worst image cosine" in printed.err
    assert "FAILED: worst image cosine" in printed.err
    gguf, report, text, _ = map(Path, printed.out.splitlines())
    with Artifact.open(gguf) as artifact:
        verification = artifact.manifest.verification
    assert verification is not None
    assert verification.forms["exact"].problems
    assert json.loads(report.read_text("utf-8"))["verification"]["forms"]["exact"]["passed"] is False
    assert "Failed its gate" in text.read_text("utf-8")
    assert "FAILED: worst image cosine" in info(gguf, capsys)


def test_an_unverified_variant_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(tmp_path, "--no-verify") == 0
    printed = capsys.readouterr()
    assert "not verified" in printed.err
    gguf, report, text, _ = map(Path, printed.out.splitlines())
    with Artifact.open(gguf) as artifact:
        assert (artifact.manifest.verification, artifact.manifest.golden) == (None, None)
    assert json.loads(report.read_text("utf-8"))["verification"] is None
    assert "Not verified" in text.read_text("utf-8")
    assert "not verified" in info(gguf, capsys)


def test_info_shows_what_was_found_in_each_form(emoji_q4: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = info(emoji_q4, capsys).splitlines()
    count = f"{len(drawings())} pictures, {len(drawings()) + len(OTHER_TEXTS)} texts"
    assert any(line.startswith("  verification") and count in line for line in lines)
    for form in FORMS:
        assert sum(line.startswith(f"    {form} ") and line.endswith(": passed") for line in lines) == 1
    assert any(line.startswith("  importance    none") for line in lines)


# The record


@pytest.mark.parametrize("name", ["f32", "q4_k_m"])
def test_golden_embeddings_are_what_the_runtime_gives(emoji_variant: Variant, name: str) -> None:
    done = emoji_variant(name)
    golden = done.manifest.golden
    assert golden is not None
    assert golden.text == GOLDEN_TEXT
    model = Siglip.load(str(done.path), compute="exact")
    image = model.embed_images([Image.fromarray(golden_picture(60))]).vectors[0]
    text = model.embed_texts([GOLDEN_TEXT]).vectors[0]
    np.testing.assert_allclose(golden.image, image, rtol=0, atol=1e-6)
    np.testing.assert_allclose(golden.text_embedding, text, rtol=0, atol=1e-6)


def test_the_record_comes_back_from_json_and_obeys_the_schema(emoji_variant: Variant) -> None:
    manifest = emoji_variant("q4_k_m").manifest
    text = manifest.to_json()
    again = Manifest.from_json(text, "x.gguf")
    assert (again.verification, again.golden) == (manifest.verification, manifest.golden)
    assert again.to_json() == text
    with Artifact.open(emoji_variant("q4_k_m").path) as artifact:
        assert artifact.manifest.to_json() == text
    schema = json.loads(resources.files("sigrun").joinpath("manifest.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(schema).validate(json.loads(text))


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def demo(folder: Path, count: int = 3) -> Settings:
    """A little calibration data and settings that use it."""
    folder.mkdir()
    for path in sorted(DEMO.glob("*.png"))[:count]:
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "captions.txt").write_text("an owl\na red apple\na fire engine\n", "utf-8")
    return Settings(
        formats=("gguf", "onnx"), calibration=folder, captions=folder / "captions.txt", verify=False
    )


@pytest.mark.parametrize("layout", ["bundle", "hub"])
def test_two_exports_are_the_same_byte_for_byte(emoji: Checkpoint, tmp_path: Path, layout: Any) -> None:
    settings = replace(demo(tmp_path / "mine"), verify=layout == "bundle", layout=layout)
    found = []
    for name in ("a", "b"):
        done = export(emoji, load("q4_k_m"), tmp_path / name, settings)
        assert {p.name.split("q4_k_m", 1)[1] for p in done.paths} == {
            ".gguf",
            ".onnx" if layout == "bundle" else ".hub",
            ".imatrix.gguf",
            ".report.json",
            ".report.md",
            ".report.svg",
        }
        assert all(p.exists() for p in done.paths)
        found.append(files(tmp_path / name))
    assert found[0].keys() == found[1].keys()
    for name, data in found[0].items():
        assert data == found[1][name], name
    assert not any("calibration.state" in name for name in found[0])


@pytest.mark.parametrize("where", ["prove", "write_bundle", "write_gguf"])
@pytest.mark.parametrize(
    ("fault", "raised"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "No space left on device"), OutputError)],
)
def test_an_interrupt_leaves_nothing_but_the_calibration(
    emoji: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    fault: BaseException,
    raised: type[BaseException],
) -> None:
    settings = demo(tmp_path / "mine", 1)
    if where == "prove":
        settings = replace(settings, verify=True)

    def stop(path: Path, *_: Any, **__: Any) -> None:
        (path / "half" if path.is_dir() else path).write_bytes(b"half")
        raise fault

    monkeypatch.setattr(export_module, where, stop)
    with pytest.raises(raised):
        export(emoji, load("q8_0"), tmp_path, settings)
    assert left(tmp_path) == ["calibration.state"]
    monkeypatch.undo()
    done = export(emoji, load("q8_0"), tmp_path, replace(settings, verify=False))
    assert left(tmp_path) == sorted(p.name for p in done.paths)


def test_a_tower_alone_is_verified_without_scores(tmp_path: Path) -> None:
    opened = open_checkpoint(str(checkpoints.write_timm(tmp_path / "tower")))
    done = export(opened, load("f32"), tmp_path / "models")
    verification, golden = done.manifest.verification, done.manifest.golden
    assert verification is not None
    assert golden is not None
    assert (verification.texts, verification.forms["exact"].scores) == (0, None)
    assert (golden.text, golden.text_embedding) == ("", None)
    assert all(set(a.cosines) == {"image"} and a.passed for a in verification.forms.values())


def test_forms_are_not_measured_when_it_is_not_asked(
    emoji: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "prove", lambda *_: pytest.fail("was verified"))
    assert export(emoji, load("q8_0"), tmp_path, UNVERIFIED).manifest.verification is None


def test_onnx_files_alone_have_a_report_of_their_own(emoji: Checkpoint, tmp_path: Path) -> None:
    """They must not turn the report of a verified GGUF file beside them into one of something else."""
    gguf = export(emoji, load("q8_0"), tmp_path, UNVERIFIED)
    onnx = export(emoji, load("q8_0"), tmp_path, replace(UNVERIFIED, formats=("onnx",)))
    assert {p.name for p in gguf.paths}.isdisjoint(p.name for p in onnx.paths)
    assert ".onnx.report.md" in onnx.paths[2].name or ".onnx.report.json" in onnx.paths[1].name


@pytest.mark.parametrize("suffix", [".report.json", ".report.md", ".report.svg"])
def test_somebody_elses_report_is_not_overwritten(emoji: Checkpoint, tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "emoji-siglip-patch10-60"
    folder.mkdir()
    mine = folder / f"emoji-siglip-patch10-60-q8_0{suffix}"
    mine.write_text("mine", "utf-8")
    with pytest.raises(OutputError, match="exists already"):
        export(emoji, load("q8_0"), tmp_path, UNVERIFIED)
    assert mine.read_text("utf-8") == "mine"
    assert left(tmp_path) == [mine.name]
