"""``sigrun evaluate``: how often a model finds the class of the user's own pictures."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sigrun.artifact import Artifact
from sigrun.choice import FORMS, candidates
from sigrun.cli.evaluate_text import comparison_text, evaluation_text
from sigrun.cli.label_options import chosen_labels
from sigrun.cli.loading import add_model_options, load_model
from sigrun.cli.shell import OK, UsageError, at_least_one, note, raw_help
from sigrun.embeddings import same_space
from sigrun.errors import OutputError
from sigrun.evaluation import (
    Comparison,
    Dataset,
    Evaluation,
    classes_among,
    compare,
    evaluate,
    evaluation_plot,
    read_classes,
)
from sigrun.labels import LabelSet
from sigrun.manifest import TOWERS, TowerName
from sigrun.output import finished, refuse_existing
from sigrun.progress import Progress
from sigrun.templates import ENSEMBLES
from sigrun.towers import no_such_tower

FORMAT = 1  # of the JSON
PLOT = ".svg"


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = commands.add_parser(
        "evaluate",
        help="count right answers on your own pictures",
        description=(
            "Count how often a model finds the class of pictures whose class is known: FOLDER holds a folder for\n"
            "each class, named as the class. Prints top-1 and top-5 with 95 % intervals, the weakest classes and\n"
            "the most frequent confusions. With --compare, the paired difference to another artifact or compute\n"
            "form on the same pictures. Pictures that cannot be read are counted and listed, and the rest judged."
        ),
        epilog="examples:\n  sigrun evaluate model-q4_k_m.gguf photos\n"
        '  sigrun evaluate model-q4_k_m.gguf photos --template "a photo of a {}." --plot q4.svg\n'
        "  sigrun evaluate model-q4_k_m.gguf photos --compare model-f32.gguf --json -\n"
        "  sigrun evaluate model-q4_k_m.gguf photos --compute int8 --compare-compute exact",
        formatter_class=raw_help,
    )
    parser.add_argument("artifact", help="a .gguf file made by sigrun-export")
    parser.add_argument(
        "folder", metavar="FOLDER", help="a folder that holds a folder of pictures for each class"
    )
    group = parser.add_argument_group("the pictures and their classes")
    group.add_argument(
        "--classes",
        metavar="FILE",
        help="the text of each folder's class: lines of folder, tab, text, or a JSON object; other folders are left "
        "out (default: the folders' names, with spaces for _, and for - in fire-engine but not in t-shirt_dress)",
    )
    group.add_argument(
        "--template",
        action="append",
        default=[],
        metavar="TEXT",
        help='a sentence around each class, such as "a photo of {}"; repeat for the mean of several',
    )
    group.add_argument(
        "--ensemble", choices=sorted(ENSEMBLES), help="a named list of templates, instead of your own"
    )
    group.add_argument(
        "--label-set",
        metavar="FILE",
        help="labels that `sigrun labels` embedded before, the classes among them; all are possible answers",
    )
    group.add_argument(
        "--limit", type=at_least_one, metavar="N", help="take N pictures of each class at most"
    )
    group.add_argument(
        "--seed", type=int, default=0, metavar="N", help="which ones --limit takes (default: %(default)s)"
    )
    group = parser.add_argument_group("what to compare with, on the same pictures")
    group.add_argument("--compare", metavar="ARTIFACT", help="another artifact")
    group.add_argument(
        "--compare-compute",
        choices=("auto", *FORMS),
        help="another compute form, of that artifact or of the same one (default: as --compute)",
    )
    group = parser.add_argument_group("what to write")
    group.add_argument(
        "--json", metavar="FILE", help="all figures as JSON; - prints them instead of the text"
    )
    group.add_argument("--plot", metavar="FILE.svg", help="a drawing of the figures")
    group.add_argument("--force", action="store_true", help="replace existing files")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress and no notes on stderr")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, and print or write the figures."""
    _check_labels(arguments)
    labels = LabelSet.load(arguments.label_set) if arguments.label_set else None
    _check(arguments, labels)
    dataset = _dataset(arguments, labels)
    found = _evaluate(arguments, dataset, labels)
    comparison = None
    if _compares(arguments):
        other = {"artifact": arguments.compare or arguments.artifact}
        if arguments.compare_compute is not None:
            other["compute"] = arguments.compare_compute
        reference = _evaluate(argparse.Namespace(**{**vars(arguments), **other}), dataset, labels)
        comparison = compare(found, reference)
    record = json.dumps(_record(arguments, found, comparison), indent=1, ensure_ascii=True, allow_nan=False)
    try:
        if arguments.json and arguments.json != "-":
            _write(Path(arguments.json), f"{record}\n", arguments.force)
        if arguments.plot:
            _write(Path(arguments.plot), evaluation_plot(found, comparison), arguments.force)
    finally:  # hours of work are not lost to a full disk
        print(record if arguments.json == "-" else _text(found, comparison))
    return OK


def _text(found: Evaluation, comparison: Comparison | None) -> str:
    lines = [] if comparison is None else ["", *comparison_text(comparison)]
    return "\n".join([*evaluation_text(found), *lines])


def _check_labels(arguments: argparse.Namespace) -> None:
    ways = [name for name in ("template", "ensemble", "label_set") if getattr(arguments, name)]
    if len(ways) > 1:
        raise UsageError(
            "give --template, --ensemble or --label-set, not several: each says what the labels are"
        )


def _check(arguments: argparse.Namespace, labels: LabelSet | None) -> None:
    """Refuse at once what would fail after hours."""
    if _compares(arguments) and not _differs(arguments):
        raise UsageError(
            "the artifact would be compared with itself", hint="name another artifact or --compare-compute"
        )
    if arguments.compare is not None:
        _check_other(arguments.compare, labels)
    elif arguments.compare_compute is not None:
        _check_forms(arguments)
    if arguments.plot and Path(arguments.plot).suffix.lower() != PLOT:
        raise OutputError(f"{arguments.plot}: drawings are written as {PLOT}", hint="name the file so")
    for name in (arguments.plot, None if arguments.json == "-" else arguments.json):
        if name:
            path = Path(name)
            refuse_existing(path, force=arguments.force)
            if not path.parent.is_dir():
                raise OutputError(f"{path}: cannot write: there is no folder {path.parent}")


def _check_other(artifact: str, labels: LabelSet | None) -> None:
    """Refuse an artifact that could not be evaluated once its turn comes."""
    with Artifact.open(artifact) as other:
        needed: tuple[TowerName, ...] = TOWERS if labels is None else ("image",)
        for tower in needed:
            if tower not in other.towers:
                raise no_such_tower(other, tower)
        if labels is not None:
            same_space(other.manifest.space, labels.space)


def _check_forms(arguments: argparse.Namespace) -> None:
    """Refuse two names of one compute form, such as ``auto`` and what it stands for here."""
    with Artifact.open(arguments.artifact) as artifact:
        if "image" not in artifact.towers:
            return  # whoever runs it says so
        first, second = (
            candidates(artifact, "image", compute, arguments.provider)[0].form
            for compute in (arguments.compute, arguments.compare_compute)
        )
    if first == second:
        raise UsageError(
            f"form {first} would be compared with itself: that is what --compute {arguments.compute} is here",
            hint="name another --compare-compute, or another artifact with --compare",
        )


def _compares(arguments: argparse.Namespace) -> bool:
    return arguments.compare is not None or arguments.compare_compute is not None


def _differs(arguments: argparse.Namespace) -> bool:
    other = arguments.compare
    if other is not None and Path(other).absolute() != Path(arguments.artifact).absolute():
        return True
    return arguments.compare_compute not in (None, arguments.compute)


def _dataset(arguments: argparse.Namespace, labels: LabelSet | None) -> Dataset:
    """The pictures; a folder that is called as a label is of that label."""
    classes: Mapping[str, str] | None = None
    if arguments.classes:
        classes = read_classes(arguments.classes)
    elif labels is not None:
        classes = classes_among(arguments.folder, labels.labels) or None
    return Dataset.from_folder(arguments.folder, classes=classes, limit=arguments.limit, seed=arguments.seed)


def _evaluate(arguments: argparse.Namespace, dataset: Dataset, labels: LabelSet | None) -> Evaluation:
    """Run one artifact over the pictures."""
    total, done = len(dataset.pictures), 0

    def advance(amount: int) -> None:
        nonlocal done
        done += amount
        bar.advance(amount)

    with load_model(arguments) as model:
        if labels is None:
            named = {"label": list(dataset.classes), "labels": None}
            labels = chosen_labels(argparse.Namespace(**{**vars(arguments), **named}), model)
        with Progress("evaluating", total, "pictures", lines=True, quiet=arguments.quiet) as bar:
            try:
                return evaluate(model, dataset, labels, on_progress=advance)
            except KeyboardInterrupt:
                bar.close()
                # What is known by now is of the first classes alone: no figure of it would be one of the dataset.
                print(file=sys.stderr)
                note("sigrun", f"stopped after {done:,} of {total:,} pictures: nothing is told or written")
                raise


def _record(
    arguments: argparse.Namespace, found: Evaluation, comparison: Comparison | None
) -> dict[str, object]:
    record: dict[str, object] = {"format": FORMAT, "limit": arguments.limit, "seed": arguments.seed}
    record["templates"] = list(found.labels.templates)
    record["evaluation"] = found.to_json()
    if comparison is not None:
        record["reference"] = comparison.reference.to_json()
        record["comparison"] = comparison.to_json()
    return record


def _write(path: Path, text: str, force: bool) -> None:
    with finished(path, force=force) as partial:
        partial.write_text(text, "utf-8", newline="\n")
