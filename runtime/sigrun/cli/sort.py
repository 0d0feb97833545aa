"""``sigrun sort``: the best label of every picture of an index; on request, pictures go into a folder each."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sigrun.cli.indexes import add_index_options, opened, share
from sigrun.cli.label_options import add_label_options, check_label_options, chosen_labels
from sigrun.cli.loading import add_model_options
from sigrun.cli.shell import FAILED, OK, complain, json_line, note, plain, raw_help
from sigrun.errors import ArtifactError, OutputError
from sigrun.gather import safe
from sigrun.labels import LabelSet
from sigrun.progress import Progress
from sigrun.scores import rank
from sigrun.search.filing import LOG, Filing
from sigrun.search.index import SearchIndex


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = commands.add_parser(
        "sort",
        help="sort the pictures of an index by labels",
        description=(
            "Print the best of some labels for every picture of an index: path, label and probability, in columns.\n"
            "With --copy-to or --move-to, pictures go into a folder for each label; no file is ever replaced, and\n"
            f"{LOG} there says what went where. Interrupted, the same command goes on."
        ),
        epilog="examples:\n"
        "  sigrun sort photos.sigrun --labels labels.txt > table.tsv\n"
        '  sigrun sort photos.sigrun --label "a receipt" --label "a photo of people" --threshold 0.5 --copy-to sorted',
        formatter_class=raw_help,
    )
    parser.add_argument("index", metavar="INDEX", help="a folder made by `sigrun index`")
    add_label_options(parser)
    group = parser.add_argument_group("what to do")
    group.add_argument(
        "--threshold", type=share, metavar="P", help="no label, and no folder, below this probability"
    )
    group.add_argument("--json", action="store_true", help="one JSON object a picture on stdout")
    where = group.add_mutually_exclusive_group()
    where.add_argument("--copy-to", metavar="FOLDER", help="copy pictures into FOLDER/label")
    where.add_argument("--move-to", metavar="FOLDER", help="move pictures into FOLDER/label")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress and no notes on stderr")
    add_index_options(parser)
    add_model_options(parser, pictures=False)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Label every picture."""
    check_label_options(arguments)
    with opened(arguments, model=not arguments.label_set) as index:
        model = index.model
        labels = LabelSet.load(arguments.label_set) if model is None else chosen_labels(arguments, model)
        target = arguments.copy_to or arguments.move_to
        if target is None:
            return _sort(arguments, index, labels, None)
        if arguments.copy_to and not arguments.quiet and _inside(Path(target), Path(index.about.folder)):
            note(
                "sigrun", f"{target} lies in the indexed folder: an update of the index finds the copies, too"
            )
        with Filing(Path(target), "copy" if arguments.copy_to else "move") as filing:
            code = _sort(arguments, index, labels, filing)
    if arguments.move_to and not arguments.quiet:
        note(
            "sigrun", f"the pictures are elsewhere now: update the index with sigrun index {arguments.index}"
        )
    return code


def _inside(path: Path, folder: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a link to itself
        return False


def _sort(arguments: argparse.Namespace, index: SearchIndex, labels: LabelSet, filing: Filing | None) -> int:
    scoring = labels.constants(index.about.scoring)
    if scoring is None:
        raise ArtifactError("neither the index nor the label set knows how cosines become probabilities")
    failed = False
    if not arguments.json:
        print("path\tlabel\tprobability" + ("\tto" if filing else ""))
    with Progress(
        "sorting", len(index), "pictures", lines=True, quiet=arguments.quiet or filing is None
    ) as bar:
        for path, cosines in index.scores(labels):
            bar.advance()
            found = rank(labels.labels, cosines, scoring, top=1, threshold=arguments.threshold)
            record: dict[str, object] = {"path": safe(path), "label": None, "probability": None}
            if found:
                record |= {"label": found[0].label, "probability": found[0].probability}
                if filing is not None:
                    try:
                        to = filing.file(Path(path), found[0].label, found[0].probability).path
                        record["to"] = safe(str(to))
                    except OutputError as error:
                        failed = True
                        bar.close()
                        complain("sigrun", error)
                        record |= {"error": error.message}
            _print(arguments, record, filing is not None)
    return FAILED if failed else OK


def _print(arguments: argparse.Namespace, record: dict[str, object], filed: bool) -> None:
    if arguments.json:
        print(json_line(record))
        return
    probability = record["probability"]
    shown = "" if not isinstance(probability, float) else f"{probability:.6f}"
    columns = [str(record["path"]), str(record["label"] or ""), shown]
    if filed:
        columns.append(str(record.get("to", "")))
    print("\t".join(map(plain, columns)))
