"""``sigrun search``: finds pictures in an index, by text and by picture; near-duplicates among them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sigrun.cli.indexes import add_index_options, opened, share
from sigrun.cli.loading import add_model_options, max_pixels
from sigrun.cli.shell import OK, UsageError, at_least_one, json_line, note, plain, raw_help
from sigrun.gather import safe
from sigrun.output import finished, refuse_existing
from sigrun.progress import Progress
from sigrun.search import gallery
from sigrun.search.gallery import Section, Shown
from sigrun.search.index import Hit, SearchIndex
from sigrun.search.query import Query, Term, names

ABOVE = 0.95
TOP = 20


class _AddTerm(argparse.Action):
    """Appends a term, [text or picture, sign, what, weight]."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        kind = "text" if option_string in ("--plus", "--minus") else "picture"
        sign = -1.0 if option_string in ("--minus", "--unlike") else 1.0
        namespace.terms = [*(namespace.terms or []), [kind, sign, values, 1.0]]


class _SetWeight(argparse.Action):
    """Sets the weight of the term before it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if not namespace.terms:
            parser.error("--weight comes after the --plus, --minus, --like or --unlike that it is for")
        namespace.terms[-1][3] = values


def _weight(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError(f"must be a number above 0, up to 1000, not {text!r}")
    return value


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = commands.add_parser(
        "search",
        help="search the pictures of an index, by text or picture",
        description=(
            "Search the pictures of an index. The words after INDEX are one text. With a single text, each hit shows\n"
            "the probability that the text fits, as the model was trained to say; with a single picture, the cosine.\n"
            "Of several terms each counts in standard deviations over the index, times its weight: such a score\n"
            "ranks and is no probability."
        ),
        epilog="examples:\n"
        '  sigrun search photos.sigrun "red car at night"\n'
        "  sigrun search photos.sigrun --like bicycle.jpg --plus snow --weight 0.5 --minus people\n"
        "  sigrun search photos.sigrun sunset --threshold 0.5 --paths -0 | xargs -0 ls\n"
        "  sigrun search photos.sigrun dog --html dogs.html\n"
        "  sigrun search photos.sigrun --duplicates --above 0.97",
        formatter_class=raw_help,
    )
    parser.add_argument("index", metavar="INDEX", help="a folder made by `sigrun index`")
    parser.add_argument("words", nargs="*", metavar="TEXT", help="what to search for")
    group = parser.add_argument_group("further terms, in any order and number")
    for option, what, help_ in (
        ("--plus", "TEXT", "and this"),
        ("--minus", "TEXT", "and not this"),
        ("--like", "PICTURE", "and like this picture, in the index or not"),
        ("--unlike", "PICTURE", "and not like this picture"),
    ):
        group.add_argument(option, dest="terms", action=_AddTerm, metavar=what, help=help_)
    group.add_argument(
        "--weight",
        dest="terms",
        action=_SetWeight,
        type=_weight,
        metavar="W",
        help="how much the term before it counts (default: 1, as TEXT does)",
    )
    group = parser.add_argument_group("what to show")
    group.add_argument(
        "--top",
        type=at_least_one,
        metavar="N",
        help=f"the N best only (default: {TOP}; with --threshold, all)",
    )
    group.add_argument(
        "--threshold",
        type=share,
        metavar="P",
        help="only pictures that each text wanted fits with probability P",
    )
    group.add_argument(
        "--duplicates", action="store_true", help="groups of pictures that are nearly alike, instead"
    )
    group.add_argument(
        "--above",
        type=share,
        default=None,
        metavar="C",
        help=f"how alike: the least cosine of a pair (default: {ABOVE})",
    )
    form = group.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a picture or group on stdout")
    form.add_argument("--paths", action="store_true", help="nothing but paths")
    group.add_argument("-0", "--null", action="store_true", help="paths end in a zero byte, for xargs -0")
    group.add_argument("--html", metavar="FILE", help="also write a page with thumbnails, in one file")
    group.add_argument("--force", action="store_true", help="replace an existing page")
    parser.add_argument(
        "--approximate",
        action="store_true",
        help="for millions of pictures; see `sigrun index --approximate`",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress and no notes on stderr")
    add_index_options(parser)
    add_model_options(parser)
    parser.set_defaults(run=run, more="words", terms=[])


def run(arguments: argparse.Namespace) -> int:
    """Search, and show what was found."""
    if arguments.null and not arguments.paths:
        raise UsageError("-0 goes with --paths")
    if arguments.html:
        refuse_existing(Path(arguments.html), force=arguments.force)
    if arguments.duplicates:
        if arguments.words or arguments.terms or arguments.threshold is not None:
            raise UsageError("--duplicates compares pictures with each other: it takes no query")
        return _duplicates(arguments)
    if arguments.above is not None:
        raise UsageError("--above goes with --duplicates")
    terms: list[list[Any]] = [["text", 1.0, " ".join(arguments.words), 1.0]] if arguments.words else []
    terms += arguments.terms
    if not terms:
        raise UsageError("there is nothing to search for", hint="give a text, --like PICTURE or --duplicates")
    texts = [what for kind, sign, what, _ in terms if kind == "text"]
    if any(not text.strip() for text in texts):
        raise UsageError("a text to search for is empty")
    unknown = False
    if any(kind == "picture" for kind, *_ in terms):
        with SearchIndex.open(arguments.index) as index:
            unknown = any(kind == "picture" and index.vector(what) is None for kind, _, what, _ in terms)
    with opened(arguments, model=bool(texts) or unknown, as_indexed=unknown) as index:
        query = Query(tuple(_term(index, *term) for term in terms))
        for term in query.terms:
            if term.cut and not arguments.quiet:
                note(
                    "sigrun", f"a text is longer than the model reads; its end is ignored: {term.name[:60]!r}"
                )
        top = arguments.top or (None if arguments.threshold is not None else TOP)
        hits = index.search(query, top=top, threshold=arguments.threshold, quick=arguments.approximate)
        _show(arguments, hits)
        if arguments.html:
            _page(arguments, index, query.terms, hits)
    return OK


def _term(index: SearchIndex, kind: str, sign: float, what: str, weight: float) -> Term:
    return index.text(what, sign * weight) if kind == "text" else index.picture(what, sign * weight)


def _score(hit: Hit) -> str:
    if hit.probability is not None:
        return _percent(hit.probability)
    return f"{hit.cosine:.4f}" if hit.cosine is not None else f"{hit.score:+.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "< 0.1 %"


def _show(arguments: argparse.Namespace, hits: Sequence[Hit]) -> None:
    for hit in hits:
        if arguments.paths:
            _print_path(hit.path, arguments.null)
        elif arguments.json:
            print(json_line({**hit.to_json(), "path": safe(hit.path)}))
        else:
            print(f"{_score(hit):>8}  {plain(hit.path)}")
    if not hits and not arguments.quiet:
        note("sigrun", "no picture was found")


def _print_path(path: str, null: bool) -> None:
    """A path as its very bytes where that can be."""
    end = b"\0" if null else b"\n"
    out = getattr(sys.stdout, "buffer", None)
    if out is None:
        print(path, end=end.decode("ascii"))
    else:
        sys.stdout.flush()
        out.write(os.fsencode(path) + end)


def _page(
    arguments: argparse.Namespace, index: SearchIndex, terms: Sequence[Term], hits: Sequence[Hit]
) -> None:
    shown = [Shown(hit.path, _score(hit), hit.probability) for hit in hits]
    about = index.about
    line = f"{len(hits):,} of {len(index):,} pictures in {safe(about.folder)} · {about.model} {about.variant}"
    _write(arguments, names(terms), line, [Section("", shown)])


def _write(arguments: argparse.Namespace, title: str, line: str, sections: Sequence[Section]) -> None:
    path = Path(arguments.html)
    total = sum(len(section.pictures) for section in sections)
    with (
        finished(path, force=arguments.force) as partial,
        partial.open("w", encoding="utf-8", newline="\n") as out,
        Progress("drawing", total, "pictures", quiet=arguments.quiet) as bar,
    ):
        limit = max_pixels(arguments)
        gallery.write(out, title, line, sections, max_pixels=limit, on_done=bar.advance)
    if not arguments.quiet:
        note("sigrun", f"wrote {safe(str(path))}")


def _duplicates(arguments: argparse.Namespace) -> int:
    above = ABOVE if arguments.above is None else arguments.above
    with SearchIndex.open(arguments.index) as index:
        pairs = len(index) * (len(index) + 1) / 2
        with Progress("comparing", pairs, "pairs", lines=True, quiet=arguments.quiet) as bar:
            listed = index.duplicates(above, bar.advance)[: arguments.top]
        for number, pictures in enumerate(listed, 1):
            _show_group(arguments, number, pictures)
        if not listed and not arguments.quiet:
            note("sigrun", f"no two pictures have a cosine of {above:g} or more")
        if arguments.html:
            sections = [
                Section(f"Group {number}", [Shown(path, f"{cosine:.4f}") for path, cosine in pictures])
                for number, pictures in enumerate(listed, 1)
            ]
            line = f"{len(listed):,} groups among {len(index):,} pictures in {safe(index.about.folder)}"
            _write(arguments, f"Pictures that are alike, cosine {above:g} or more", line, sections)
    return OK


def _show_group(arguments: argparse.Namespace, number: int, pictures: Sequence[tuple[str, float]]) -> None:
    if arguments.json:
        record = [{"path": safe(path), "cosine": cosine} for path, cosine in pictures]
        print(json_line({"group": number, "pictures": record}))
        return
    if number > 1:
        sys.stdout.flush()
        _print_path("", arguments.null) if arguments.paths else print()
    for path, cosine in pictures:
        if arguments.paths:
            _print_path(path, arguments.null)
        else:
            print(f"{cosine:8.4f}  {plain(path)}")
