"""Labels on a command line: the options that name them, and the label set that they ask for."""

from __future__ import annotations

import argparse
from collections import Counter

from sigrun.cli.lines import read_lines
from sigrun.cli.shell import UsageError, note
from sigrun.labels import LabelSet
from sigrun.model import Siglip
from sigrun.progress import Progress
from sigrun.templates import ENSEMBLES


def add_label_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--label``, ``--labels``, ``--label-set``, ``--template`` and ``--ensemble``."""
    group = parser.add_argument_group("what to score")
    group.add_argument(
        "--label", action="append", default=[], metavar="TEXT", help="a label; repeat for more"
    )
    group.add_argument(
        "--labels",
        metavar="FILE",
        help="a text file with one label a line, empty lines left out; - for standard input",
    )
    group.add_argument(
        "--label-set", metavar="FILE", help="labels that `sigrun labels` embedded before; needs no text tower"
    )
    group.add_argument(
        "--template",
        action="append",
        default=[],
        metavar="TEXT",
        help='a sentence around each label, such as "a photo of {}"; repeat for the mean of several',
    )
    group.add_argument(
        "--ensemble", choices=sorted(ENSEMBLES), help="a named list of templates, instead of your own"
    )


def check_label_options(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be meant, before anything is loaded.

    Raises:
        UsageError: there are no labels, or two sources of what can have one only.
    """
    own = bool(arguments.label or arguments.labels)
    if arguments.template and arguments.ensemble:
        raise UsageError("--template and --ensemble are both given, and only one can be meant")
    if arguments.label_set and (own or arguments.template or arguments.ensemble):
        raise UsageError(
            "--label-set holds labels and their templates already",
            hint="leave --label, --labels, --template and --ensemble away",
        )
    if not own and not arguments.label_set:
        raise UsageError("there are no labels to score", hint='give at least one: --label "a cat"')


def chosen_labels(arguments: argparse.Namespace, model: Siglip) -> LabelSet:
    """The labels that a command line names, embedded; the text tower's memory is given back.

    Raises:
        UsageError: there are none.
        SigrunError: a file cannot be read, or a label cannot be used.
    """
    if arguments.label_set:
        return LabelSet.load(arguments.label_set)
    labels = arguments.label + (read_lines(arguments.labels, "labels") if arguments.labels else [])
    if not labels:
        raise UsageError(f"there are no labels to score: {arguments.labels} is empty")
    given, labels = labels, list(dict.fromkeys(labels))
    if len(labels) < len(given) and not arguments.quiet:
        (again, _), *_ = Counter(given).most_common(1)
        note("sigrun", f"labels given twice count once, {again[:60]!r} among them: {len(labels):,} are left")
    templates = ENSEMBLES[arguments.ensemble] if arguments.ensemble else arguments.template or ["{}"]
    with Progress("embedding labels", len(labels), "labels", quiet=arguments.quiet) as bar:
        chosen = model.label_set(labels, templates=templates, on_progress=bar.advance)
    model.unload("text")
    if not arguments.quiet:
        for row in chosen.embeddings.cut:
            shown = chosen.labels[row][:60]
            note("sigrun", f"label {row + 1} is longer than the model reads; its end is ignored: {shown!r}")
    return chosen
