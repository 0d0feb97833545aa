"""``sigrun index``: makes an index of the pictures in a folder, and brings it up to date."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sigrun.cli.indexes import model_for, refuse_missing
from sigrun.cli.loading import add_model_options, load_model, max_pixels
from sigrun.cli.shell import FAILED, OK, UsageError, complain, json_line, note, plain, raw_help
from sigrun.embeddings import EmbeddedPicture
from sigrun.errors import OutputError, SigrunError, SpaceError
from sigrun.gather import safe
from sigrun.model import Siglip
from sigrun.progress import Progress
from sigrun.search import approximate, update
from sigrun.search.about import About, Encoding, described, refuse_other_space
from sigrun.search.index import SearchIndex, differs
from sigrun.search.scan import Changes, scan
from sigrun.search.store import Store
from sigrun.search.vectors import Rows

SUFFIX = ".sigrun"
CHANGING = ("retry", "rehash", "rebuild", "compact", "approximate")
ENCODING: Encoding = "float16"


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = commands.add_parser(
        "index",
        usage="sigrun index [options] MODEL FOLDER [-o INDEX]\n       sigrun index [options] INDEX",
        help="index the pictures in a folder, for searching; update an index",
        description=(
            "Index the pictures in a folder and all folders in it, for `sigrun search` and `sigrun sort`. The index\n"
            "is a folder of its own, FOLDER.sigrun beside FOLDER unless -o names another; it remembers its model\n"
            "and folder, so that `sigrun index INDEX` brings it up to date. Files of the same size and time are not\n"
            "opened again, moved files are recognised by their content, deleted ones are dropped.\n"
            "\n"
            "It may be interrupted at any moment, by Ctrl-C, a crash or a power cut: the same command goes on.\n"
            "The index can be searched while it is updated."
        ),
        epilog="examples:\n"
        "  sigrun index model.gguf ~/Pictures\n"
        "  sigrun index ~/Pictures.sigrun\n"
        "  sigrun index ~/Pictures.sigrun --errors",
        formatter_class=raw_help,
    )
    parser.add_argument(
        "what", nargs="+", metavar="MODEL FOLDER, or INDEX", help="what to index, or to update"
    )
    parser.add_argument("-o", "--output", metavar="INDEX", help="where the index lies")
    parser.add_argument(
        "--encoding",
        choices=("float16", "int8"),
        help="how vectors of a new index are stored; int8 takes half the space and rounds cosines by about 0.001 "
        f"(default: {ENCODING})",
    )
    group = parser.add_argument_group("beside updating")
    group.add_argument("--retry", action="store_true", help="try pictures again that could not be read")
    group.add_argument(
        "--rehash", action="store_true", help="compare the content of all files, not their size and time"
    )
    group.add_argument(
        "--rebuild", action="store_true", help="embed everything anew, with another model if named"
    )
    group.add_argument("--compact", action="store_true", help="give the space of dropped pictures back now")
    group.add_argument(
        "--approximate",
        action="store_true",
        help="also build what `sigrun search --approximate` needs, for millions of pictures (needs usearch)",
    )
    group = parser.add_argument_group("instead of updating").add_mutually_exclusive_group()
    group.add_argument(
        "--errors", action="store_true", help="list the pictures that could not be read, and why"
    )
    group.add_argument("--check", action="store_true", help="look at the whole index for damage")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress and no notes on stderr")
    add_model_options(parser)
    parser.set_defaults(run=run, more="what")


def run(arguments: argparse.Namespace) -> int:
    """Make or update an index, or say what is wrong in one."""
    words = arguments.what
    if len(words) > 2:
        raise UsageError(
            f"one folder makes one index, and {len(words) - 1} were named", hint="name their parent"
        )
    if len(words) == 1:
        index, artifact, folder = Path(words[0]), None, None
        if arguments.output:
            raise UsageError("an index that exists stays where it is", hint="-o goes with MODEL FOLDER")
        if index.is_file():
            raise UsageError(f"{words[0]} is a file, not an index", hint="write sigrun index MODEL FOLDER")
    else:
        artifact, folder = Path(words[0]).absolute(), Path(words[1]).absolute()
        index = Path(arguments.output) if arguments.output else _beside(folder)
    if arguments.errors or arguments.check:
        changing = [f"--{name}" for name in CHANGING if getattr(arguments, name)]
        if changing:
            raise UsageError(f"{changing[0]} changes the index, --errors and --check only look at it")
        return _errors(arguments, index) if arguments.errors else _check(index)
    return _update(arguments, index, artifact, folder)


def _beside(folder: Path) -> Path:
    resolved = folder.resolve()
    if not resolved.name:
        raise UsageError("the index cannot lie beside this folder", hint="name a place with -o")
    return resolved.with_name(resolved.name + SUFFIX)


def _update(arguments: argparse.Namespace, index: Path, artifact: Path | None, folder: Path | None) -> int:
    """Look for changes, embed what is new; the model is loaded when it is known to be needed."""
    models: list[Siglip] = []
    encoding: Encoding | None = arguments.encoding

    def about() -> About:
        """What a new index is of."""
        assert artifact is not None and folder is not None
        _refuse_no_folder(folder)
        arguments.artifact = str(artifact)
        models.append(load_model(arguments))
        return described(
            models[0],
            str(folder),
            str(artifact),
            decode=arguments.decode,
            max_pixels=max_pixels(arguments),
            encoding=encoding or ENCODING,
        )

    if arguments.rebuild:
        old = _old(index, needed=artifact is None)
        if old is not None:
            artifact, folder = artifact or Path(old.artifact), folder or Path(old.folder)
            encoding = encoding or old.encoding
    new = None if artifact is None else about
    try:
        with update.writer(index, new, anew=arguments.rebuild) as store:
            if encoding not in (None, store.about.encoding):
                raise UsageError(
                    f"{store.where} holds its vectors as {store.about.encoding}",
                    hint="pass --rebuild too, to embed all pictures anew",
                )
            if artifact is not None and folder is not None:
                _remember(store, artifact, folder, models)
            with Progress("looking", None, "pictures", quiet=arguments.quiet) as bar:
                changes = scan(
                    store,
                    store.about.folder,
                    rehash=arguments.rehash,
                    retry=arguments.retry,
                    on_found=bar.advance,
                )
            for error in changes.unreadable:
                complain("sigrun", error)
            embedded, failed = 0, 0
            if changes.todo:
                if not models:
                    models.append(_model(arguments, store))
                embedded, failed = _embed(arguments, store, models[0], changes)
            _tidy(arguments, store)
            _say(arguments, store, changes, embedded, failed)
    finally:
        for model in models:
            model.close()
    return FAILED if failed or changes.unreadable else OK


def _old(index: Path, *, needed: bool) -> About | None:
    """What an index that is to be made anew is of; none if it is damaged or new, and that does not matter."""
    try:
        store = Store.open(index)
    except SigrunError:
        if needed:
            raise
        return None
    try:
        return store.about
    finally:
        store.close()


def _remember(store: Store, artifact: Path, folder: Path, models: list[Siglip]) -> None:
    """Take over that model and folder have another path now; refuse other ones."""
    about = store.about
    if about.folder != str(folder):
        before = Path(about.folder)
        if before.is_dir() and not before.samefile(folder):
            raise OutputError(
                f"{store.where} is an index of {safe(about.folder)}, which is still there",
                hint="name another index with -o",
            )
        _refuse_no_folder(folder)
    if about.artifact != str(artifact) and not models:
        with Siglip.load(artifact) as model:
            _refuse_other(about, model, store.where)
    changed = replace(about, folder=str(folder), artifact=str(artifact))
    if changed != about:
        with store.writing():
            store.set_about(changed)


def _refuse_no_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise OutputError(
            f"{safe(str(folder))} is not a folder", hint="the model comes first: sigrun index MODEL FOLDER"
        )


def _model(arguments: argparse.Namespace, store: Store) -> Siglip:
    """The model that made the index, running as it did then."""
    about = store.about
    refuse_missing(about.artifact, "sigrun index MODEL FOLDER -o INDEX")
    model = model_for(arguments, about, as_indexed=True)
    try:
        model.embed_images([])  # how the image tower runs is known afterwards
        _refuse_other(about, model, store.where)
    except BaseException:
        model.close()
        raise
    return model


def _refuse_other(about: About, model: Siglip, where: str) -> None:
    refuse_other_space(about, model.space, where)
    difference = differs(about, model, where)
    if difference:
        raise SpaceError(
            f"{where} was made by {difference}: one index holds the vectors of one model",
            hint="pass --rebuild to embed all pictures anew, or make another index with -o",
        )


def _embed(arguments: argparse.Namespace, store: Store, model: Siglip, changes: Changes) -> tuple[int, int]:
    with Progress("indexing", changes.todo, "pictures", lines=True, quiet=arguments.quiet) as bar:

        def done(_: str, picture: EmbeddedPicture) -> None:
            if picture.error is not None:
                bar.close()
                complain("sigrun", picture.error)
            bar.advance()

        return update.embed_all(store, store.about.folder, _embedder(model), done)


def _embedder(model: Siglip) -> update.Embed:
    """What embeds pictures; tests put another in its place."""

    def embed(pictures: Iterable[str]) -> Iterator[EmbeddedPicture]:
        return model.iter_images(pictures)

    return embed


def _tidy(arguments: argparse.Namespace, store: Store) -> None:
    """Give back the space of dropped vectors where it is worth it, and build the approximate index."""
    rows, unused = update.holes(store)
    if unused and (arguments.compact or unused > update.HOLES * rows):
        update.compact(store)
    if not arguments.approximate:
        return
    with store.reading():
        count, generation = store.number("rows"), store.number("generation")
    about = store.about
    vectors = Rows(store.vectors(generation), count, about.width, about.encoding, store.where)
    if not approximate.graph(store.folder, (generation, count)).exists():
        with Progress("building", count, "vectors", lines=True, quiet=arguments.quiet) as bar:
            approximate.build(store.folder, (generation, count), vectors, bar.advance)


def _say(arguments: argparse.Namespace, store: Store, changes: Changes, embedded: int, failed: int) -> None:
    with store.reading():
        pictures, good = store.db.execute("SELECT count(*), count(row) FROM pictures").fetchone()
    values = {
        "index": safe(str(store.folder)),
        "pictures": good,
        "unreadable": pictures - good,
        "embedded": embedded,
        "failed": failed,
        "unchanged": changes.unchanged,
        "moved": changes.moved,
        "removed": changes.removed,
    }
    if arguments.json:
        print(json_line(values))
        return
    words = [f"{values[name]:,} {name}" for name in ("embedded", "moved", "removed") if values[name]]
    unread = f"; {pictures - good:,} cannot be read (--errors lists them)" if pictures > good else ""
    print(plain(f"{values['index']}: {good:,} pictures ({', '.join(words) or 'nothing new'}){unread}"))


def _errors(arguments: argparse.Namespace, index: Path) -> int:
    with SearchIndex.open(index) as opened:
        count = 0
        for path, error, hint in opened.errors():
            count += 1
            if arguments.json:
                print(json_line({"picture": safe(path), "error": error, "hint": hint}))
            else:
                print(plain(error) + (f"\n  hint: {plain(hint)}" if hint else ""))
        if not count and not arguments.quiet:
            note("sigrun", "every picture could be read")
    return OK


def _check(index: Path) -> int:
    store = Store.open(index)
    try:
        problems = 0
        for problem in update.check(store):
            problems += 1
            print(plain(problem))
    finally:
        store.close()
    if problems:
        print("make the index again with --rebuild", file=sys.stderr)
    else:
        print(plain(f"{safe(str(index))}: in order"))
    return FAILED if problems else OK
