"""``sigrun self-test``: whether an artifact computes here what it computed where it was exported."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from sigrun.artifact import Artifact
from sigrun.choice import FORMS
from sigrun.cli.loading import add_model_options, load_model
from sigrun.cli.shell import FAILED, OK, UsageError, json_line, plain, raw_help
from sigrun.model import Siglip
from sigrun.providers import PROVIDERS, is_installed
from sigrun.selftest import TowerTest


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = commands.add_parser(
        "self-test",
        help="check that an artifact computes the right numbers here",
        description="Embed a known picture and a known text and compare the vectors with those that the artifact\n"
        "holds for them. The cosine that each compute form must reach follows from what the export measured.",
        epilog="exit code 1 where a tower deviates, cannot run, or has nothing to compare with",
        formatter_class=raw_help,
    )
    parser.add_argument("artifact", help="a .gguf file made by sigrun-export")
    parser.add_argument(
        "--all",
        action="store_true",
        help="every compute form in the file on every provider that is installed, instead of what --compute and "
        "--provider say",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a tower")
    add_model_options(parser, pictures=False)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Test, print each tower as it comes, and say whether all passed."""
    if arguments.all and (arguments.compute, arguments.provider) != ("auto", "auto"):
        raise UsageError("--all tries every form and provider", hint="leave --compute and --provider away")
    passed = True
    for test in _all(arguments) if arguments.all else _one(arguments):
        passed &= test.passed
        print(json_line(_record(test)) if arguments.json else plain(test.line()), flush=True)
    return OK if passed else FAILED


def _one(arguments: argparse.Namespace) -> Iterator[TowerTest]:
    """The towers as the command line has them run."""
    with load_model(arguments) as model:
        yield from model.self_test().tests


def _all(arguments: argparse.Namespace) -> Iterator[TowerTest]:
    """Every tower in every form on every provider, one at a time in memory."""
    with Artifact.open(arguments.artifact) as artifact:
        stored = {tower: tuple(artifact.manifest.graphs[tower]) for tower in artifact.towers}
    for provider in (provider for provider in PROVIDERS.values() if is_installed(provider)):
        for form in FORMS:
            for tower, forms in stored.items():
                if form in forms:
                    with Siglip.load(
                        arguments.artifact, compute=form, provider=provider.name, threads=arguments.threads
                    ) as model:
                        yield from model.self_test(tower).tests


def _record(test: TowerTest) -> dict[str, object]:
    return {
        "tower": test.tower,
        "compute": test.form,
        "provider": test.provider,
        "cosine": test.cosine,
        "limit": test.limit,
        "passed": test.passed,
        "problem": test.problem,
    }
