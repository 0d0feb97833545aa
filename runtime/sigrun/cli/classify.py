"""``sigrun classify``: how likely each label fits each picture."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from sigrun.cli.loading import add_model_options, load_model
from sigrun.cli.shell import FAILED, OK, UsageError, at_least_one, complain, json_line, raw_help
from sigrun.embeddings import LabelSet
from sigrun.errors import PictureError, TextError
from sigrun.progress import Progress
from sigrun.scores import Score

MOST_SHOWN = 60  # characters of a label in a table


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = commands.add_parser(
        "classify",
        help="score pictures against labels",
        description="Score pictures against labels. Each probability stands for itself: they do not sum to 1.",
        epilog='example:\n  sigrun classify model.gguf photo.jpg --label "a cat" --label "a dog"',
        formatter_class=raw_help,
    )
    parser.add_argument("artifact", help="a .gguf file made by sigrun-export")
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="picture files")
    parser.add_argument(
        "--label", action="append", default=[], metavar="TEXT", help="a label; repeat for more"
    )
    parser.add_argument("--labels", metavar="FILE", help="a text file with one label a line")
    parser.add_argument(
        "--template", default="{}", help='a sentence around each label, such as "a photo of {}"'
    )
    parser.add_argument("--top", type=at_least_one, metavar="N", help="show the N best labels only")
    parser.add_argument("--json", action="store_true", help="one JSON object a picture on stdout")
    add_model_options(parser)
    parser.set_defaults(run=run, more="pictures")


def run(arguments: argparse.Namespace) -> int:
    """Score every picture; a bad one is reported and the rest go on."""
    labels = arguments.label + (_read_labels(arguments.labels) if arguments.labels else [])
    if not labels:
        raise UsageError("there are no labels to score", hint='give at least one: --label "a cat"')
    failed = False
    with load_model(arguments) as model:
        with Progress("embedding labels", len(labels), "labels") as bar:
            chosen = model.label_set(labels, template=arguments.template, on_progress=bar.advance)
        _note_cut(chosen)
        for picture in arguments.pictures:
            embedded = model.embed_images([picture])
            problem = embedded.errors.get(0)
            scores = model.score(embedded, chosen)[0][: arguments.top]
            if problem is not None:
                failed = True
                complain("sigrun", problem)
            if arguments.json:
                print(json_line(_record(picture, scores, problem)), flush=True)
            elif problem is None:
                print(_table(picture, scores), flush=True)
    return FAILED if failed else OK


def _record(picture: str, scores: list[Score], problem: PictureError | None) -> dict[str, object]:
    if problem is not None:
        return {"picture": picture, "error": problem.message, "hint": problem.hint}
    return {"picture": picture, "scores": [score.to_json() for score in scores]}


def _table(picture: str, scores: list[Score]) -> str:
    shown = [_short(score.label) for score in scores]
    widest = max(map(len, shown))
    rows = [
        f"  {_percent(s.probability):>8}  {label:<{widest}}  logit {s.logit:+.2f}"
        for s, label in zip(scores, shown, strict=True)
    ]
    return "\n".join([picture, *rows])


def _short(label: str) -> str:
    """A label on one line of a table."""
    line = " ".join(label.split())
    return line if len(line) <= MOST_SHOWN else line[: MOST_SHOWN - 1] + "…"


def _percent(probability: float) -> str:
    share = 100 * probability
    return f"{share:.1f} %" if share >= 0.1 else "< 0.1 %"


def _note_cut(labels: LabelSet) -> None:
    for row in labels.embeddings.cut:
        print(
            f"sigrun: note: label {row + 1} is longer than the model reads; its end is ignored: "
            f"{labels.labels[row][:60]!r}",
            file=sys.stderr,
        )


def _read_labels(path: str) -> list[str]:
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            return [line.strip() for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise TextError(f"{path}: cannot read the labels: {reason}") from error
