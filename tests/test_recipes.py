"""Recipes, plans and the sizes they predict."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sigrun.blocks
import sigrun.gguf
from sigrun_recipes import (
    ENCODINGS,
    Architecture,
    RecipeFileError,
    default_model,
    load,
    load_file,
    names,
    plan,
)
from sigrun_recipes.recipe import Gate, more_bits, parse
from tests.checkpoints import TINY

MINIMAL = """
format = 1
name = "mine"
summary = "mine"
rewrites = []
[limit]
bits_per_weight = 32
[gate]
cosine = 0.9
score_error = 0.1
top1 = 0.5
[default]
linear = "q8_0"
token = "f16"
patch = "f32"
"""
GATE = "[gate]\ncosine = 0.9\nscore_error = 0.1\ntop1 = 0.5\n"
SO400M = default_model().architecture
MIB = 2**20


def test_so400m_is_counted_right() -> None:
    """428M is the image tower alone; with the two scalars the published file holds 877,960,498 weights."""
    assert SO400M.parameters("image") == 428_225_600
    assert SO400M.parameters("text") == 449_734_896
    assert SO400M.parameters("image") + SO400M.parameters("text") + 2 == 877_960_498


def test_layers_with_more_bits() -> None:
    assert more_bits(27) == (0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26)


def test_q4_k_m_of_so400m_is_what_its_name_says() -> None:
    planned = plan(load("q4_k_m"), SO400M)
    assert planned.substitutions() == ()
    assert planned.nbytes("image") / MIB == pytest.approx(264.0, abs=0.05)
    assert planned.nbytes("text") / MIB == pytest.approx(274.4, abs=0.05)
    by_name = {t.spec.name: t for t in planned.tensors}
    down = by_name["v.blk.3.ffn_down.weight"]
    assert (down.shape, down.spec.shape, down.stored_shape) == ((1152, 4304), (1152, 4352), (1152, 4352))
    query = by_name["t.blk.3.attn_q.weight"]
    assert (query.encoding.name, query.fold, query.stored_shape) == ("q4_k", 2, (576, 2304))
    assert {i for i in range(27) if by_name[f"v.blk.{i}.attn_v.weight"].encoding.name == "q6_k"} == set(
        more_bits(27)
    )
    assert by_name["v.blk.0.ln1.weight"].encoding.name == "f32"


@pytest.mark.parametrize("name", names())
def test_recipes_of_the_house_are_sound(name: str) -> None:
    recipe = load(name)
    assert recipe.name == name
    planned = plan(recipe, SO400M)
    for tower in ("image", "text"):
        assert planned.bits_per_weight(tower) <= recipe.max_bits_per_weight


def test_precedence_is_exact_name_then_first_rule_then_default() -> None:
    text = MINIMAL + (
        '[tensors]\n"v.blk.0.attn_q.weight" = "f32"\n'
        '[[rules]]\nmatch = "v.blk.0.*"\nencoding = "f16"\n'
        '[[rules]]\nmatch = "v.blk.?.attn_q.weight"\nlayers = [0, 1]\nencoding = "q6_k"\n'
    )
    recipe = parse(text.encode(), "mine.toml")
    by_name = {t.name: t for t in SO400M.tensors()}
    chosen = {
        name: recipe.target(by_name[name], 27)
        for name in (
            "v.blk.0.attn_q.weight",
            "v.blk.0.attn_k.weight",
            "v.blk.1.attn_q.weight",
            "v.blk.2.attn_q.weight",
        )
    }
    assert list(chosen.values()) == ["f32", "f16", "q6_k", "q8_0"]
    assert recipe.target(by_name["v.blk.0.ln1.weight"], 27) == "f32"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("format = 1", "format = 2"), "format"),
        (('name = "mine"', ""), "name"),
        (("rewrites = []", 'rewrites = ["fold_everything"]'), "fold_everything"),
        (('linear = "q8_0"', 'linear = "q9_z"'), "default.linear"),
        (('linear = "q8_0"', 'linera = "q8_0"'), "default.linera"),
        (("bits_per_weight = 32", "bits_per_weight = 99"), "limit.bits_per_weight"),
        (("[default]", "[defaults]"), "defaults"),
        (
            ('patch = "f32"', 'patch = "f32"\n[[rules]]\nmatch = "*"\nlayers = "some"\nencoding = "f16"'),
            "rules[0].layers",
        ),
        (("format = 1", "format = = 1"), "not a TOML file"),
    ],
)
def test_malformed_recipes_are_refused_with_the_key(change: tuple[str, str], named: str) -> None:
    text = MINIMAL.replace(*change)
    assert text != MINIMAL
    with pytest.raises(RecipeFileError, match=r"mine\.toml") as caught:
        parse(text.encode(), "mine.toml")
    assert named in str(caught.value)


def test_a_label_must_be_honest() -> None:
    recipe = dataclasses.replace(load("q4_k_m"), max_bits_per_weight=4.5)
    with pytest.raises(RecipeFileError, match=r"image tower would take 5\.17 bits"):
        plan(recipe, SO400M)


def test_an_unknown_tensor_name_is_an_error() -> None:
    recipe = parse((MINIMAL + '[tensors]\n"v.blk.99.attn_q.weight" = "f32"\n').encode(), "mine.toml")
    with pytest.raises(RecipeFileError, match=r"v\.blk\.99"):
        plan(recipe, SO400M)


def test_without_padding_the_published_shapes_fall_back() -> None:
    """What other quantizers run into: 4304 fills no block of 32, and folding would mix rows in a sub-block."""
    recipe = dataclasses.replace(load("q4_k_m"), rewrites=(), max_bits_per_weight=32)
    downs = [t for t in plan(recipe, SO400M).substitutions() if "ffn_down" in t.spec.name]
    assert len(downs) == 27 + 1 + 27
    assert {t.encoding.name for t in downs} == {"f16"}


def test_substitutions_are_kept_in_the_plan() -> None:
    wide = dataclasses.replace(TINY.text, vocabulary=2001)  # type: ignore[type-var]
    planned = plan(
        dataclasses.replace(load("q4_k_m"), max_bits_per_weight=32), Architecture(TINY.image, wide)
    )
    table = next(t for t in planned.tensors if t.spec.kind == "token")
    assert (table.target, table.encoding.name) == ("q6_k", "q8_0")  # 2001 rows of 96 do not fold to 256
    assert table in planned.substitutions()


def test_both_tables_of_encodings_agree_with_each_other_and_with_gguf() -> None:
    """The runtime may not import the recipes, so it has a table of its own."""
    assert {name: (e.weights, e.size) for name, e in ENCODINGS.items()} == {
        name: tuple(block) for name, block in sigrun.blocks.BLOCKS.items()
    }
    for name, encoding in ENCODINGS.items():
        kind = gguf.GGMLQuantizationType[name.upper()]
        assert kind.value == encoding.ggml_id
        assert gguf.GGML_QUANT_SIZES[kind] == (encoding.weights, encoding.size)
        assert sigrun.gguf.TENSOR_TYPES[encoding.ggml_id].name == name


@given(st.sampled_from(sorted(ENCODINGS)), st.integers(1, 512), st.integers(1, 4096))
def test_folding_fills_blocks_and_never_splits_a_sub_block(name: str, rows: int, columns: int) -> None:
    encoding = ENCODINGS[name]
    fold = encoding.fold(rows, columns)
    if fold is None:
        return
    assert rows % fold == 0
    assert fold * columns % encoding.weights == 0
    assert fold == 1 or columns % 32 == 0
    assert encoding.nbytes(rows * columns) == rows // fold * encoding.nbytes(fold * columns)


def test_unknown_recipe_lists_the_known() -> None:
    with pytest.raises(RecipeFileError, match="q4_k_m"):
        load("q4_k_xl")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (MINIMAL.replace('"q8_0"', '"q9_z"'), "mine.toml, line 13: default.linear is 'q9_z'"),
        (MINIMAL.replace("patch =", "ptch ="), "mine.toml, line 15: default.ptch is not a key"),
        (MINIMAL + '[tensors]\n"v.head.probe" = "f8"\n', "mine.toml, line 17: tensors.v.head.probe is 'f8'"),
        (
            MINIMAL + '[[rules]]\nmatch = "a"\nencoding = "f16"\n[[rules]]\nmatch = "b"\nencoding = "x"\n',
            "mine.toml, line 21: rules[1].encoding is 'x'",
        ),
        (MINIMAL + '[[rules]]\nencoding = "f16"\n', "mine.toml, line 16: rules[0].match must be a string"),
        (MINIMAL.replace("summary", "note"), "mine.toml, line 4: note is not a key"),
    ],
)
def test_errors_name_the_line(text: str, says: str) -> None:
    with pytest.raises(RecipeFileError) as caught:
        parse(text.encode(), "mine.toml")
    assert says in str(caught.value)


def test_a_recipe_of_ones_own_may_not_take_a_name_of_the_house(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL.replace('"mine"', '"q4_k_m"', 1), "utf-8")
    with pytest.raises(RecipeFileError, match="is taken"):
        load_file(path)
    path.write_text(MINIMAL.replace('"mine"', '"../escape"', 1), "utf-8")
    with pytest.raises(RecipeFileError, match="file name"):
        load_file(path)
    with pytest.raises(RecipeFileError, match="cannot read"):
        load_file(tmp_path / "none.toml")


def test_a_rule_that_matches_nothing_is_an_error() -> None:
    recipe = parse((MINIMAL + '[[rules]]\nmatch = "v.nothing.*"\nencoding = "f16"\n').encode(), "mine.toml")
    with pytest.raises(RecipeFileError, match=r"rules\[0\] matches 'v\.nothing\.\*', which no tensor"):
        plan(recipe, SO400M)


@pytest.mark.parametrize("layers", ["[99]", "[-1]", "[]"])
def test_a_rule_for_layers_that_there_are_not_is_an_error(layers: str) -> None:
    rule = f'[[rules]]\nmatch = "v.blk.*.attn_q.weight"\nlayers = {layers}\nencoding = "f16"\n'
    recipe = parse((MINIMAL + rule).encode(), "mine.toml")
    with pytest.raises(RecipeFileError, match=r"rules\[0\] is for layers"):
        plan(recipe, SO400M)


@pytest.mark.parametrize("line", ["rewrites = []", "format = 1", "[limit]\nbits_per_weight = 32", GATE])
def test_what_is_missing_is_said(line: str) -> None:
    with pytest.raises(RecipeFileError, match="is missing"):
        parse(MINIMAL.replace(line, "").encode(), "mine.toml")


def test_a_gate_is_read_and_each_recipe_of_the_house_has_one() -> None:
    assert parse(MINIMAL.encode(), "mine.toml").gate == Gate(cosine=0.9, score_error=0.1, top1=0.5)
    gates = [
        load(name).gate for name in names()
    ]  # least bits last: no variant is held to more than its betters
    assert [g.cosine for g in gates] == sorted((g.cosine for g in gates), reverse=True)
    assert [g.score_error for g in gates] == sorted(g.score_error for g in gates)


@pytest.mark.parametrize("value", ["1.01", "-0.1", '"0.9"', "true", "nan", "inf"])
@pytest.mark.parametrize(
    ("key", "line", "now"), [("cosine", 9, "0.9"), ("score_error", 10, "0.1"), ("top1", 11, "0.5")]
)
def test_a_gate_out_of_range_names_its_line(key: str, line: int, now: str, value: str) -> None:
    text = MINIMAL.replace(f"{key} = {now}", f"{key} = {value}")
    with pytest.raises(RecipeFileError) as caught:
        parse(text.encode(), "mine.toml")
    assert f"mine.toml, line {line}: gate.{key} must be a number from 0 to 1" in str(caught.value)


@pytest.mark.parametrize("key", ["cosine", "score_error", "top1"])
def test_a_gate_must_be_whole(key: str) -> None:
    lines = [line for line in MINIMAL.splitlines() if not line.startswith(f"{key} =")]
    with pytest.raises(RecipeFileError, match=rf"mine\.toml: gate\.{key} must be a number"):
        parse("\n".join(lines).encode(), "mine.toml")


def test_a_gate_knows_no_other_key() -> None:
    text = MINIMAL.replace("top1 = 0.5", "top1 = 0.5\nspeed = 1.0")
    with pytest.raises(RecipeFileError, match=r"line 12: gate\.speed is not a key"):
        parse(text.encode(), "mine.toml")
