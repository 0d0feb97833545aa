"""A report's JSON as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

MIB = 2**20
WORST = 10
HALF = ("f16", "w4f16")  # compute forms made for GPUs
Record = Mapping[str, Any]


def markdown(record: Record, picture: str) -> str:
    """The report for people.

    Args:
        record: the report as :func:`sigrun_exporters.verify.report.record` gives it.
        picture: file name of the errors' picture, which lies beside it.
    """
    parts = [
        [f"# {_plain(record['model'])} as {_plain(record['variant'])}", "", _verdict(record)],
        ["## What this does not show", "", *(f"* {line}" for line in _limits(record))],
        ["## Verification", "", *_verification(record)],
        ["## Size", "", *_size(record)],
        ["## Weights", "", *_weights(record, picture)],
        ["## Importance and scoring", "", *_scoring(record)],
        ["## Source", "", *_source(record)],
        ["## Tools", "", *_table(("tool", "version"), sorted(record["tools"].items()))],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _verdict(record: Record) -> str:
    verification = record["verification"]
    if verification is None:
        return "**Not verified**: nothing was measured of how closely this variant follows its checkpoint."
    forms = verification["forms"]
    failed = [form for form, agreement in forms.items() if not agreement["passed"]]
    seen = f"on {verification['pictures']} pictures and {verification['texts']} texts"
    if not failed:
        return f"Every compute form passed its gate {seen}."
    if "exact" in failed:
        return f"**Failed its gate** {seen}, in form{_s(failed)} {_listed(failed)}, and was written all the same."
    return f"Passed its gate {seen}, but **form{_s(failed)} {_listed(failed)} failed**."


def _limits(record: Record) -> Iterator[str]:
    """What could not be verified, in sentences."""
    verification = record["verification"]
    if verification is None:
        yield "How closely the variant follows its checkpoint, in any form: the export was asked not to verify."
    else:
        yield (
            "Accuracy. The verification says how closely the variant follows its checkpoint on a small set, "
            "not how well either does at a task."
        )
        for form, agreement in verification["forms"].items():
            if agreement["pictures"] < verification["pictures"] or agreement["texts"] < verification["texts"]:
                yield (
                    f"Form {form} on the whole set. It was measured on {agreement['pictures']} of "
                    f"{verification['pictures']} pictures and {agreement['texts']} of {verification['texts']} texts, "
                    "because CPUs are slow at it."
                )
        half = [form for form in verification["forms"] if form in HALF]
        if half:
            yield (
                f"GPUs. Form{_s(half)} {_listed(half)} {'is' if len(half) == 1 else 'are'} made for them, and "
                f"{'was' if len(half) == 1 else 'were'} measured on the CPU, rounding each result to float16."
            )
        if verification["pictures"] and verification["texts"] and record["scoring"] is None:
            yield "Scores. The checkpoint has no logit scale and bias, so only embeddings were compared."
    if len(record["towers"]) < 2:
        yield f"Scores. The checkpoint has the {next(iter(record['towers']))} tower only, so there are none."
    public = record["published"]
    if public is None:
        yield "The source. No hashes of published files are known for this model, so it was not held against any."
    elif public["cosine"] is None:
        yield (
            "The published embedding. It was not compared: the weights are not the published ones, or nothing was "
            "verified."
        )


def _verification(record: Record) -> Iterator[str]:
    verification = record["verification"]
    if verification is None:
        yield "None."
        return
    towers = list(record["towers"])
    yield (
        "Against the checkpoint's own float32 function. Cosines and errors: mean / worst. Top-1: share of pictures "
        "whose best text stays one of the checkpoint's best. Rank: mean Spearman correlation of the order of texts."
    )
    yield ""
    head = ["form", "pictures x texts", *(f"{tower} cosine" for tower in towers)]
    head += ["logit error", "probability error", "top-1", "rank", "gate"]
    yield from _table(head, (_form(form, a, towers) for form, a in verification["forms"].items()))
    gate = record["gate"]
    yield ""
    yield (
        f"The recipe's gate, for form exact: cosine at least {gate['cosine']:g}, mean probability error at most "
        f"{gate['score_error']:g}, top-1 at least {gate['top1']:g}. Other forms round once more and are allowed "
        f"a little more. Set: SHA-256 `{verification['set_sha256']}`."
    )
    for tower, choice in verification["int8"].items():
        yield ""
        left = choice["exact"]
        names = f" ({_listed([_code(name) for name in left])})" if left else ""
        tried = ", ".join(
            f"{count}: {error:.4g}" if error is not None else f"{count}: no number"
            for count, error in choice["trail"]
        )
        unit = (
            "mean difference of logits from form exact"
            if record["scoring"]
            else "1 - mean cosine to form exact"
        )
        yield (
            f"Form int8 leaves {len(left) or 'no'} matri{'x' if len(left) == 1 else 'ces'} of the {tower} tower "
            f"exact{names}. Its {unit}, by the number left exact, in the order tried: {tried or 'nothing was tried'}."
        )
    public = record["published"]
    if public is not None and public["cosine"] is not None:
        yield ""
        says = "as near as it has to be" if public["problem"] is None else f"**{_plain(public['problem'])}**"
        yield f"The published embedding of the golden picture: cosine {public['cosine']:.5f}, {says}."


def _form(form: str, agreement: Record, towers: Sequence[str]) -> list[str]:
    cosines, scores = agreement["cosines"], agreement["scores"]
    row = [form, f"{agreement['pictures']} x {agreement['texts']}"]
    for tower in towers:
        each = cosines.get(tower)
        row.append(f"{each['mean']:.5f} / {each['worst']:.5f}" if each is not None else "–")
    if scores is None:
        row += ["–"] * 4
    else:
        row += [
            f"{scores['logit_error']:.4f}",
            f"{scores['probability_error']:.5f} / {scores['probability_error_worst']:.5f}",
            f"{scores['top1']:.3f}",
            f"{scores['rank']:.4f}",
        ]
    return [*row, "passed" if agreement["passed"] else f"**failed**: {'; '.join(agreement['problems'])}"]


def _size(record: Record) -> Iterator[str]:
    yield from _table(
        ("file", "bytes", "MiB"),
        ((_code(name), f"{n:,}", f"{n / MIB:.1f}") for name, n in sorted(record["files"].items())),
    )
    yield ""
    yield from _table(
        ("tower", "weights", "bytes", "true bits per weight", "tensors by type"),
        (
            (
                tower,
                f"{each['weights']:,}",
                f"{each['bytes']:,}",
                f"{each['bits_per_weight']:.2f}",
                ", ".join(f"{kind} {n['tensors']}" for kind, n in sorted(each["encodings"].items())),
            )
            for tower, each in record["towers"].items()
        ),
    )
    substituted = [s for each in record["towers"].values() for s in each["substitutions"]]
    yield ""
    if not substituted:
        yield "Every tensor has the type its recipe asks for."
        return
    yield f"{len(substituted)} tensor{_s(substituted)} did not get the type the recipe asks for:"
    yield ""
    yield from _table(
        ("tensor", "asked for", "stored as"),
        ((_code(s["tensor"]), s["target"], s["encoding"]) for s in substituted),
    )


def _weights(record: Record, picture: str) -> Iterator[str]:
    cells = [
        cell
        for tower in record["weight_errors"].values()
        for row in (*tower["layers"], tower["head"], {str(i): c for i, c in enumerate(tower["other"])})
        for cell in row.values()
    ]
    plain = sum(tower["norms_and_biases"]["tensors"] for tower in record["weight_errors"].values())
    yield (
        "Relative error: the norm of what storing changed, over the norm of the weights. "
        f"{plain} norms and biases are stored as f32 and not listed."
    )
    yield ""
    by_encoding: dict[str, list[float]] = {}
    for cell in cells:
        by_encoding.setdefault(cell["encoding"], []).append(cell["error"])
    yield from _table(
        ("type", "matrices", "mean error", "largest"),
        (
            (kind, str(len(each)), f"{math.fsum(each) / len(each):.6f}", f"{max(each):.6f}")
            for kind, each in sorted(by_encoding.items())
        ),
    )
    worst = sorted((c for c in cells if c["error"] > 0), key=lambda c: (-c["error"], c["tensor"]))[:WORST]
    if worst:
        yield ""
        yield f"The {len(worst)} with the largest errors:" if len(worst) > 1 else "The one with an error:"
        yield ""
        yield from _table(
            ("tensor", "type", "error"),
            ((_code(c["tensor"]), c["encoding"], f"{c['error']:.6f}") for c in worst),
        )
    yield ""
    yield f"![Relative error of each matrix, by layer and part]({quote(picture)})"


def _scoring(record: Record) -> Iterator[str]:
    importance = record["importance"]
    yield (
        f"Quantizers weighed their errors by an importance matrix, SHA-256 `{importance}`."
        if importance is not None
        else "Quantized without an importance matrix."
    )
    scoring, refit = record["scoring"], record["refit"]
    yield ""
    if scoring is None:
        yield "There are no scoring constants."
    elif refit is None:
        yield (
            f"The scoring constants are the checkpoint's: logit scale {scoring['logit_scale']:.6f}, "
            f"bias {scoring['logit_bias']:.6f}."
        )
    else:
        source = refit["source"]
        yield "The scoring constants are fitted to the variant. Errors are of probabilities, on pairs held back:"
        yield ""
        yield from _table(
            ("", "logit scale", "logit bias", "mean error"),
            (
                (name, f"{c['logit_scale']:.6f}", f"{c['logit_bias']:.6f}", f"{error:.6f}")
                for name, c, error in (
                    ("the checkpoint's", source, refit["error_before"]),
                    ("fitted", scoring, refit["error_after"]),
                )
            ),
        )
        yield ""
        yield "The table of the verification is by the fitted constants."


def _source(record: Record) -> Iterator[str]:
    source = record["source"]
    yield from _table(
        ("what", "value"),
        (
            ("model", _plain(source["model"])),
            ("revision", _plain(source["revision"] or "not known: a local folder")),
            ("licence", _plain(source["licence"] or "not stated")),
            ("recipe", f"{_plain(record['variant'])}, SHA-256 `{record['recipe_sha256']}`"),
            ("rewrites", ", ".join(record["rewrites"]) or "none"),
            ("embedding space", f"`{record['space']}`"),
            ("stored weights", f"SHA-256 `{record['weights_sha256']}`"),
        ),
    )
    yield ""
    yield from _table(
        ("source file", "SHA-256"),
        ((_code(name), f"`{sha256}`") for name, sha256 in sorted(source["files"].items())),
    )
    public = record["published"]
    if public is None:
        return
    yield ""
    of = f"{public['model']} at revision {public['revision']}"
    if not public["problems"]:
        yield f"Of these, every file whose hash is known is that of {of}."
        return
    yield f"**These are not the files of {of}:**"
    yield ""
    for problem in public["problems"]:
        yield f"* {_plain(problem)}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for line in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |"


def _plain(text: str) -> str:
    """A name from outside, on one line and without what Markdown or HTML would take for markup."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return "".join(f"\\{c}" if c in "\\`*<>[]&" else c for c in shown)


def _code(text: str) -> str:
    """The same as code, where a backtick would end it."""
    return f"`{''.join(c if c.isprintable() and c != '`' else ' ' for c in text)}`"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


def _s(things: Sequence[Any]) -> str:
    return "" if len(things) == 1 else "s"
