"""``sigrun classify``: how likely each label fits each picture."""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sigrun.cli.label_options import add_label_options, check_label_options, chosen_labels
from sigrun.cli.loading import add_model_options, load_model
from sigrun.cli.pictures import add_picture_options, named_pictures, names_pictures
from sigrun.cli.rows import Row, embedded_pictures, failure, remark, report
from sigrun.cli.shell import FAILED, OK, UsageError, at_least_one, json_line, plain, raw_help
from sigrun.embeddings import Embeddings
from sigrun.errors import SigrunError
from sigrun.progress import Progress
from sigrun.scores import Score, softmax

ACTIVATIONS = ("sigmoid", "softmax", "logit", "cosine")
RANGES = {"sigmoid": (0.0, 1.0), "softmax": (0.0, 1.0), "cosine": (-1.0, 1.0)}  # a logit is any number
MOST_SHOWN = 60  # characters of a label in a table
BAR_WIDTH = 20

Valued = tuple[Score, float]
"""A score, and its value in the activation that was asked for."""
Print = Callable[[Row, Sequence[Valued]], None]


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = commands.add_parser(
        "classify",
        help="score pictures against labels",
        description="Score pictures against labels. Each probability stands for itself: they do not sum to 1.\n"
        "A picture that cannot be read is reported and the others go on.",
        epilog="examples:\n"
        '  sigrun classify model.gguf photo.jpg --label "a cat" --label "a dog"\n'
        "  sigrun classify model.gguf photos --labels labels.txt --top 3 --json > scores.jsonl",
        formatter_class=raw_help,
    )
    parser.add_argument("artifact", help="a .gguf file made by sigrun-export")
    add_picture_options(parser)
    add_label_options(parser)
    group = parser.add_argument_group("what to show")
    group.add_argument(
        "--activation",
        choices=ACTIVATIONS,
        default=ACTIVATIONS[0],
        help="sigmoid: each label by itself, as the model was trained; softmax: shares of all labels, for when "
        "exactly one is right; logit and cosine: the numbers behind them (default: %(default)s)",
    )
    group.add_argument("--top", type=at_least_one, metavar="N", help="the N best labels only")
    group.add_argument(
        "--threshold", type=float, metavar="X", help="only labels that reach X in the chosen activation"
    )
    form = group.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a picture on stdout, as it comes")
    form.add_argument("--csv", action="store_true", help="one line a picture and label, for spreadsheets")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress and no notes on stderr")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Score every picture; a bad one is reported and the rest go on."""
    if not names_pictures(arguments):
        raise UsageError("there are no pictures to score", hint="name a picture or a folder")
    check_label_options(arguments)
    _check_threshold(arguments)
    show = _printer(arguments)
    failed, empty = False, True
    with load_model(arguments) as model:
        pictures, count = named_pictures(arguments)
        labels = chosen_labels(arguments, model)
        quiet = arguments.quiet or sys.stdout.isatty()  # what is printed there shows the progress
        with Progress("scoring", count, "pictures", lines=True, quiet=quiet) as bar:
            for row in embedded_pictures(model, pictures):
                empty = False
                failed |= report(row, bar, quiet=arguments.quiet)
                scores: list[Score] = []
                if row.vector is not None:
                    scores = model.score(Embeddings(row.vector[np.newaxis], model.space), labels)[0]
                show(row, _chosen(scores, arguments))
                bar.advance()
    if empty:
        raise SigrunError("there is nothing to score: the list of pictures is empty")
    return FAILED if failed else OK


def _check_threshold(arguments: argparse.Namespace) -> None:
    """Refuse a threshold that no label could reach, or that every label reaches."""
    least = arguments.threshold
    low, high = RANGES.get(arguments.activation, (-math.inf, math.inf))
    if least is None or (low <= least <= high and math.isfinite(least)):
        return
    must = f"from {low:g} to {high:g}" if math.isfinite(low) else "a number"
    raise UsageError(
        f"--threshold {least:g} cannot be meant: with --activation {arguments.activation} it must be {must}",
        hint=f"{least:g} % is {least / 100:g}" if high == 1 < least <= 100 and low == 0 else None,
    )


def _chosen(scores: list[Score], arguments: argparse.Namespace) -> list[Valued]:
    """The scores to show, best first, with their values."""
    if not scores:
        return []
    kind = arguments.activation
    if kind == "softmax":  # over all labels, however many are shown
        values = softmax([score.logit for score in scores]).tolist()
    else:
        name = "probability" if kind == "sigmoid" else kind
        values = [getattr(score, name) for score in scores]
    least = arguments.threshold
    kept = [(s, v) for s, v in zip(scores, values, strict=True) if least is None or v >= least]
    return kept[: arguments.top]


def _printer(arguments: argparse.Namespace) -> Print:
    """What prints a picture's scores in the form that was asked for."""
    softmaxed = arguments.activation == "softmax"
    if arguments.json:
        return lambda row, scores: print(json_line(_record(row, scores, softmaxed)), flush=True)
    if arguments.csv:
        return _csv(softmaxed)
    return lambda row, scores: _table(row, scores, arguments)


def _fields(score: Score, value: float, softmaxed: bool) -> dict[str, object]:
    return {**score.to_json(), "softmax": value} if softmaxed else {**score.to_json()}


def _record(row: Row, scores: Sequence[Valued], softmaxed: bool) -> dict[str, object]:
    if row.error is not None:
        return {"picture": row.name, **failure(row)}
    listed = [_fields(s, value, softmaxed) for s, value in scores]
    return {"picture": row.name, "scores": listed, **remark(row)}


def _csv(softmaxed: bool) -> Print:
    """Comma-separated values with a heading; a picture that failed has one line with its error."""
    extra = ["softmax"] if softmaxed else []
    table = csv.DictWriter(
        sys.stdout,
        ["picture", "label", "probability", "logit", "cosine", *extra, "error"],
        lineterminator="\n",
    )
    table.writeheader()

    def show(row: Row, scores: Sequence[Valued]) -> None:
        if row.error is not None:
            table.writerow({"picture": row.name, "error": row.error.message})
        for score, value in scores:
            table.writerow({"picture": row.name, **_fields(score, value, softmaxed)})
        sys.stdout.flush()

    return show


def _table(row: Row, scores: Sequence[Valued], arguments: argparse.Namespace) -> None:
    """A picture and its labels, aligned; a picture that failed was reported already."""
    if row.error is not None:
        return
    lines = [plain(row.name)]
    for score, value in scores:
        if arguments.activation in ("sigmoid", "softmax"):
            filled = round(value * BAR_WIDTH)
            bar = "#" * filled + "." * (BAR_WIDTH - filled)
            shown = f"{_percent(value):>8}  {bar}  logit {score.logit:+6.2f}"
        else:
            shown = f"{value:+8.2f}" if arguments.activation == "logit" else f"{value:+8.4f}"
        lines.append(f"  {shown}  {_short(score.label)}")  # last: letters differ in width
    if not scores:
        lines.append(f"  no label reaches {arguments.threshold:g}")
    print("\n".join(lines), flush=True)


def _short(label: str) -> str:
    """A label on one line of a table."""
    line = plain(" ".join(label.split()))
    return line if len(line) <= MOST_SHOWN else line[: MOST_SHOWN - 1] + "…"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "< 0.1 %"
