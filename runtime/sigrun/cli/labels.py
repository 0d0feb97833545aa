"""``sigrun labels``: a label set made and kept in a file, and what such a file holds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sigrun.cli.label_options import add_label_options, check_label_options, chosen_labels
from sigrun.cli.loading import add_model_options, load_model
from sigrun.cli.shell import FAILED, OK, UsageError, complain, json_line, note, plain, raw_help
from sigrun.errors import OutputError, TextError
from sigrun.evaluation import Dataset, classes_among
from sigrun.labels import SUFFIX, LabelSet
from sigrun.model import Siglip
from sigrun.output import refuse_existing
from sigrun.progress import Progress
from sigrun.templates import ENSEMBLES

MOST_SHOWN = 10  # templates and labels in the table; --json has all


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = commands.add_parser(
        "labels",
        help="embed labels once and keep them in a file, or show such a file",
        description=(
            "Embed labels once and keep them in a file, for `sigrun classify --label-set` and other programs: a\n"
            "safetensors file with the vectors, the labels and what they are scored with. Without labels and -o, show\n"
            "what such a file holds."
        ),
        epilog="examples:\n"
        f'  sigrun labels model.gguf --label "a cat" --label "a dog" --ensemble imagenet80 -o pets{SUFFIX}\n'
        f"  sigrun labels model.gguf --label-set pets{SUFFIX} --examples my_pets -o mine{SUFFIX}\n"
        f"  sigrun labels pets{SUFFIX}",
        formatter_class=raw_help,
    )
    parser.add_argument(
        "file", metavar="FILE", help="a .gguf file made by sigrun-export; or the label set to show"
    )
    add_label_options(parser)
    parser.add_argument(
        "--examples",
        metavar="FOLDER",
        help="pictures in a folder per label, to calibrate the probabilities with; ten or more",
    )
    group = parser.add_argument_group("what to write")
    group.add_argument("-o", "--output", metavar=f"NAME{SUFFIX}", help="the file to write")
    group.add_argument("--force", action="store_true", help="replace an existing file")
    group.add_argument("--json", action="store_true", help="show the label set as one JSON object")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress and no notes on stderr")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make a label set, or show one; either way print what is in the file."""
    named = arguments.label or arguments.labels or arguments.label_set
    if arguments.output is None:
        if named or arguments.template or arguments.ensemble or arguments.examples or arguments.force:
            raise UsageError(
                "there is no file to write the label set to", hint=f"name one with -o NAME{SUFFIX}"
            )
        shown, failed = LabelSet.load(arguments.file), False
        path = arguments.file
    else:
        path = arguments.output
        shown, failed = _make(arguments, Path(path))
    print(json_line(_record(path, shown)) if arguments.json else _table(path, shown))
    return FAILED if failed else OK


def _make(arguments: argparse.Namespace, output: Path) -> tuple[LabelSet, bool]:
    """The set, written, and whether a picture could not be read."""
    if arguments.label_set and not arguments.examples:
        raise UsageError(
            "--label-set names a file that is made already",
            hint=f"to show it: sigrun labels NAME{SUFFIX}; to calibrate it, add --examples FOLDER",
        )
    check_label_options(arguments)
    if output.absolute() == Path(arguments.file).absolute():
        raise UsageError(f"{output} is the model: the label set needs a file of its own")
    refuse_existing(output, force=arguments.force)  # before minutes of work, not after them
    if not output.parent.is_dir():
        raise OutputError(f"{output}: cannot write: there is no folder {output.parent}")
    arguments.artifact = arguments.file
    with load_model(arguments) as model:
        made, failed = chosen_labels(arguments, model), False
        if arguments.examples:
            made, failed = _calibrated(arguments, model, made)
    made.save(output, force=arguments.force)
    return made, failed


def _calibrated(arguments: argparse.Namespace, model: Siglip, labels: LabelSet) -> tuple[LabelSet, bool]:
    """The set with constants fitted to the examples; says on stderr what that brought."""
    examples = _examples(arguments.examples, labels)
    truths = [examples.classes[number] for number in examples.truths]
    with Progress("embedding examples", len(truths), "pictures", quiet=arguments.quiet) as bar:
        found = model.calibrate(labels, examples.pictures, truths, on_progress=bar.advance)
    for error in found.errors.values():
        complain("sigrun", error)
    if not arguments.quiet:
        for line in examples.notes:
            note("sigrun", line)
        note(
            "sigrun",
            f"calibrated on {found.pictures} pictures; log loss of a picture that the fit did not see: "
            f"{found.before.log_loss:.3f} before, {found.after.log_loss:.3f} after"
            + ("" if found.better else "; that may be chance, more pictures would tell"),
        )
    return found.labels, bool(found.errors)


def _examples(folder: str, labels: LabelSet) -> Dataset:
    """Pictures in a folder per label; a folder is named as its label, or with ``-`` or ``_`` for spaces."""
    classes = classes_among(folder, labels.labels)
    for name, text in classes.items():
        if text not in labels.labels:
            raise TextError(
                f"{Path(folder) / name}: there is no label {text!r} in the set",
                hint="name each folder of the examples as its label",
            )
    return Dataset.from_folder(folder, classes=classes or None)


def _record(path: str, labels: LabelSet) -> dict[str, object]:
    scoring, origin = labels.constants(None), labels.origin
    return {
        "file": path,
        "labels": list(labels.labels),
        "cut": list(labels.embeddings.cut),
        "templates": list(labels.templates),
        "width": labels.embeddings.vectors.shape[1],
        "space": labels.space,
        "model": None if origin is None else origin.model,
        "canonicalisation": None if origin is None else origin.canonicalisation,
        "calibrated": labels.scoring is not None,
        "logit_scale": None if scoring is None else scoring.logit_scale,
        "logit_bias": None if scoring is None else scoring.logit_bias,
    }


def _table(path: str, labels: LabelSet) -> str:
    record, scoring = _record(path, labels), labels.constants(None)
    names = [name for name, listed in ENSEMBLES.items() if listed == labels.templates]
    kind = "calibrated" if labels.scoring is not None else "those of the model that scores; of this one:"
    constants = (
        None if scoring is None else f"logit scale {scoring.logit_scale:.4f}, bias {scoring.logit_bias:.4f}"
    )
    rows = {
        "model": record["model"] or "not known",
        "space": labels.space,
        "canonical text": record["canonicalisation"] or "not known",
        "scoring": "not known" if constants is None else f"{kind} {constants}",
        "templates": f"the {len(labels.templates)} of {names[0]}" if names else _some(labels.templates),
        "labels": f"{len(labels)}, vectors of {record['width']} numbers",
    }
    cut = set(labels.embeddings.cut)
    listed = [
        f"  {_short(label)}{'  (longer than the model reads: its end is ignored)' if row in cut else ''}"
        for row, label in enumerate(labels.labels)
        if row < MOST_SHOWN or row in cut
    ]
    left = len(labels) - len(listed)
    return "\n".join(
        [
            plain(str(path)),
            *(f"  {name:<15} {plain(str(value))}" for name, value in rows.items()),
            *(f"  {line}" for line in listed),
            *([f"    and {left} more"] if left else []),
        ]
    )


def _some(templates: tuple[str, ...]) -> str:
    shown = ", ".join(f'"{_short(each)}"' for each in templates[:MOST_SHOWN])
    left = len(templates) - MOST_SHOWN
    return f"{shown}, and {left} more" if left > 0 else shown


def _short(text: str) -> str:
    line = plain(" ".join(text.split()))
    return line if len(line) <= 60 else line[:59] + "…"
