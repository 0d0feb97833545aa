"""``sigrun serve``: a local HTTP API that OpenAI's and other clients can call, with a page to try it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from sigrun.cli.indexes import note_difference
from sigrun.cli.loading import add_model_options, load_model
from sigrun.cli.shell import OK, UsageError, at_least_one, note, raw_help
from sigrun.errors import SigrunError
from sigrun.labels import LabelSet
from sigrun.search import SearchIndex

TOKEN_VARIABLE = "SIGRUN_SERVE_TOKEN"
_MEGAPIXELS = 50


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = commands.add_parser(
        "serve",
        help="serve a model over HTTP to programs on this machine",
        description="Serve a model over HTTP: embeddings in OpenAI's, Jina's, infinity's and vLLM's shapes, labels\n"
        "and scores for pictures, and a page to try it at /. Needs the extra 'serve'.",
        epilog="""examples:
  sigrun serve MODEL.gguf
  sigrun serve MODEL.gguf --port 8080 --preload image --preload text
  sigrun serve MODEL.gguf --label-set birds=birds.labels.safetensors
  sigrun serve MODEL.gguf --index ~/Pictures.sigrun
  sigrun serve MODEL.gguf --host 0.0.0.0 --token-file token.txt""",
        formatter_class=raw_help,
    )
    parser.add_argument("artifact", help="a .gguf file made by sigrun-export")
    _add_address(parser)
    _add_model(parser)
    _add_limits(parser)
    add_model_options(parser, megapixels=_MEGAPIXELS)
    parser.set_defaults(run=run, max_megapixels=_MEGAPIXELS)


def _add_address(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("who may ask")
    group.add_argument(
        "--host", default="127.0.0.1", help="address to bind (default: %(default)s, this machine only)"
    )
    group.add_argument(
        "--port", type=_port, default=8000, help="port; 0 for any that is free (default: %(default)s)"
    )
    group.add_argument(
        "--token-file",
        metavar="FILE",
        help=f"clients must send the token that stands in FILE; or set {TOKEN_VARIABLE}",
    )
    group.add_argument(
        "--allow-anyone", action="store_true", help="let a server that others can reach do without a token"
    )
    group.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name of this machine; may be repeated",
    )
    group.add_argument(
        "--allow-url",
        action="append",
        default=[],
        metavar="HOST",
        help="fetch pictures from addresses of HOST, or HOST:PORT; may be repeated (default: fetch nothing)",
    )
    group.add_argument("-q", "--quiet", action="store_true", help="do not log requests")


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the model")
    group.add_argument(
        "--model-name",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name to serve it under; may be repeated",
    )
    group.add_argument(
        "--label-set",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="labels that clients may name; may be repeated",
    )
    group.add_argument(
        "--index", metavar="INDEX", help="an index that clients may search, made by `sigrun index`"
    )
    group.add_argument(
        "--other-variant",
        action="store_true",
        help="allow an index that another variant or compute form of the model made",
    )
    group.add_argument(
        "--preload",
        action="append",
        default=[],
        choices=("image", "text"),
        help="load a tower before the first request",
    )
    group.add_argument(
        "--idle-unload",
        type=_seconds,
        metavar="SECONDS",
        help="give a tower's memory back after so long without use",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how much it takes on")
    group.add_argument(
        "--max-batch", type=at_least_one, default=8, metavar="N", help="items a batch (default: %(default)s)"
    )
    group.add_argument(
        "--max-wait",
        type=_milliseconds,
        metavar="MS",
        help="wait for fuller batches (default: 0 on CPUs, 5 on GPUs)",
    )
    group.add_argument(
        "--max-queue",
        type=at_least_one,
        default=2048,
        metavar="N",
        help="items that wait for a tower (default: %(default)s)",
    )
    group.add_argument(
        "--max-items",
        type=at_least_one,
        default=1024,
        metavar="N",
        help="items of one request (default: %(default)s)",
    )
    group.add_argument(
        "--max-body",
        type=at_least_one,
        default=32,
        metavar="MIB",
        help="size of one request (default: %(default)s MiB)",
    )
    group.add_argument(
        "--timeout",
        type=_seconds,
        default=120.0,
        metavar="SECONDS",
        help="for one answer (default: %(default)g)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    try:
        from sigrun.serve import security, server, settings
    except ModuleNotFoundError as error:
        raise SigrunError(
            f"the package '{error.name}' is not installed",
            hint="pip install 'sigrun[serve]' (in a clone: pip install '.[serve]')",
        ) from error
    if arguments.max_items > arguments.max_queue:
        raise UsageError("--max-items is more than --max-queue: no such request could ever be taken")
    limits = settings.Limits(
        body_bytes=arguments.max_body * settings.MIB,
        held_bytes=max(4 * arguments.max_body, 128) * settings.MIB,
        items=arguments.max_items,
        queue=arguments.max_queue,
        picture_bytes=arguments.max_body * settings.MIB * 5 // 8,  # base64 takes four bytes for three
        batch=arguments.max_batch,
        wait_ms=arguments.max_wait,
        answer_seconds=arguments.timeout,
        idle_seconds=arguments.idle_unload,
    )
    chosen = settings.ServeSettings(
        host=arguments.host,
        port=arguments.port,
        token=_token(arguments),
        anyone=arguments.allow_anyone,
        names=tuple(arguments.allow_host),
        aliases=tuple(arguments.model_name),
        label_sets=_label_sets(arguments.label_set),
        index=None if arguments.index is None else Path(arguments.index),
        other_variant=arguments.other_variant,
        preload=tuple(dict.fromkeys(arguments.preload)),
        log=not arguments.quiet,
        limits=limits,
        fetch=settings.FetchLimits(hosts=tuple(arguments.allow_url), nbytes=limits.picture_bytes),
    )
    security.check_settings(chosen)  # before anything is loaded
    if chosen.token is None and chosen.anyone:
        note("sigrun", "no token is asked for: everybody who can reach this machine may use the model")
    model = load_model(arguments)
    if chosen.index is not None and chosen.other_variant:
        with SearchIndex.open(chosen.index, model, other_variant=True) as index:
            if index.difference is not None:
                note_difference(index)
    server.serve(model, chosen)
    return OK


def _token(arguments: argparse.Namespace) -> str | None:
    if arguments.token_file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        token = Path(arguments.token_file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{arguments.token_file} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    if not token:
        raise UsageError(f"{arguments.token_file} is empty: there is no token in it")
    return token


def _label_sets(given: list[str]) -> dict[str, LabelSet]:
    found: dict[str, LabelSet] = {}
    for entry in given:
        name, mark, path = entry.partition("=")
        if not name or not mark or not path:
            raise UsageError(f"--label-set {entry} is not NAME=FILE")
        if name in found:
            raise UsageError(f"--label-set names {name} twice")
        found[name] = LabelSet.load(path)
    return found


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 65535, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    return _number(text, 0.1, 1e6)


def _milliseconds(text: str) -> float:
    return _number(text, 0, 10_000)


def _number(text: str, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"must be a number from {least:g} to {most:g}, not {text!r}")
    return value
