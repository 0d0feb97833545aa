"""``sigrun info``: what an artifact is and what it claims."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import Any

from sigrun.artifact import Artifact
from sigrun.choice import candidates
from sigrun.cli.shell import OK, plain, raw_help
from sigrun.cpus import default_threads
from sigrun.errors import SigrunError
from sigrun.manifest import Manifest
from sigrun.providers import PROVIDERS, is_installed


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = commands.add_parser(
        "info",
        help="say what an artifact is",
        description="Say what an artifact is: model, variant, true bits per weight, towers, scoring, source,\n"
        "how it would run here, and how closely each compute form follows the float32 checkpoint.",
        formatter_class=raw_help,
    )
    parser.add_argument("artifact", help="a .gguf file made by sigrun-export")
    parser.add_argument("--json", action="store_true", help="the whole manifest as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the summary, or the manifest."""
    with Artifact.open(arguments.artifact) as artifact:
        manifest = artifact.manifest
        if arguments.json:
            print(json.dumps(json.loads(manifest.to_json()), indent=2, ensure_ascii=False))
            return OK
        print(f"{plain(manifest.model)}  {plain(manifest.variant)}  {artifact.nbytes / 2**20:.1f} MiB")
        for tower in artifact.towers:
            types = Counter(t.encoding for t in artifact.tensors.values() if t.tower == tower)
            listed = ", ".join(f"{count} {name}" for name, count in types.most_common())
            print(
                f"  {tower:5} tower  {artifact.tower_nbytes(tower) / 2**20:8.1f} MiB  "
                f"{manifest.bits_per_weight[tower]:.2f} bits per weight  ({listed})"
            )
        for name, tensor in manifest.substitutions().items():
            print(f"  not as asked: {name} is {tensor.encoding}, the recipe asked for {tensor.target}")
        prep = manifest.preprocessing
        if "image" in artifact.towers:
            print(f"  pictures      {prep.in_words()}, {prep.resample}")
        if manifest.canonicalisation is None:
            print("  texts         none: the file has no text tower")
        else:
            print(f"  texts         canonicalised as '{manifest.canonicalisation}'")
        scoring, source = manifest.scoring, manifest.source
        revision = f" @ {source.revision}" if source.revision else ""
        if scoring is not None:
            print(
                f"  scoring       sigmoid, logit_scale {scoring.logit_scale:.4f}, "
                f"logit_bias {scoring.logit_bias:.4f}"
            )
        for line in (*_here(artifact), *_proof(manifest)):
            print(plain(line))
        print(f"  source        {plain(source.model)}{plain(revision)}")
        print(f"  licence       {plain(source.licence or 'not stated by the source')}")
        print(f"  space         {plain(manifest.space)}")
        print(f"  made by       {plain(manifest.generator)}")
    return OK


def _here(artifact: Artifact) -> list[str]:
    """What ``auto`` would choose on this machine, and what else is installed."""
    try:
        ways = {tower: candidates(artifact, tower, "auto", "auto") for tower in artifact.towers}
        installed = [name for name, provider in PROVIDERS.items() if is_installed(provider)]
    except (SigrunError, ImportError):
        return ["  here          ONNX Runtime is missing: nothing can run (pip install 'sigrun[cpu]')"]
    lines: list[str] = []
    for tower, tried in ways.items():
        words = ", else ".join(f"{way.form} on {way.provider.name}" for way in tried)
        lines.append(f"  {'here' if not lines else '':13} {tower} tower: {words} (--compute auto)")
    return [*lines, f"{'':16}{default_threads()} threads; providers installed: {', '.join(installed)}"]


def _proof(manifest: Manifest) -> list[str]:
    """How the variant was fitted and what was measured of it, one line each."""
    lines = []
    if manifest.refit is not None:
        source, before, after = manifest.refit.source, manifest.refit.error_before, manifest.refit.error_after
        lines.append(
            f"  refit         from logit_scale {source.logit_scale:.4f}, logit_bias {source.logit_bias:.4f}: "
            f"mean probability error {before:.5f} -> {after:.5f} on pairs held back"
        )
    lines.append(f"  importance    {manifest.importance or 'none: all columns of a matrix counted alike'}")
    if manifest.verification is None:
        return [*lines, "  verification  not verified"]
    lines.append(f"  verification  against the float32 checkpoint, {manifest.verification.described()}")
    return [*lines, *(f"    {line}" for line in manifest.verification.lines())]
