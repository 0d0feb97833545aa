"""``sigrun-export verify``: an artifact against the checkpoint it was made of."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sigrun.artifact import Artifact
from sigrun.choice import FORMS
from sigrun.cli.shell import FAILED, OK, raw_help
from sigrun.errors import RecipeError, SpaceError
from sigrun.verification import form_lines
from sigrun_exporters.notes import note
from sigrun_recipes import Recipe, RecipeFileError, load, load_file, names

if TYPE_CHECKING:
    from sigrun.manifest import Manifest
    from sigrun_exporters.checkpoint import Checkpoint
    from sigrun_exporters.graph import Form
    from sigrun_exporters.verify.inputs import Inputs

ORACLES = ("transformers", "optimum")
ORACLE_COSINE = 0.9999


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = commands.add_parser(
        "verify",
        help="compare an artifact with its checkpoint",
        description="Compare an artifact, in every compute form, with the checkpoint's own float32 function.\n"
        "Takes seconds for small models, and some minutes for one of SO400M's size.",
        epilog="examples:\n"
        "  sigrun-export verify model-q4_k_m.gguf --reference path/to/checkpoint\n"
        "  sigrun-export verify model-q4_k_m.gguf --reference path/to/checkpoint --against transformers\n"
        "\n"
        "exit codes: 0 passed; 1 failed its gate, differs, or cannot be read; 2 wrong usage",
        formatter_class=raw_help,
    )
    parser.add_argument("artifact", metavar="ARTIFACT", help="a .gguf file made by sigrun-export")
    parser.add_argument(
        "--reference", required=True, metavar="MODEL", help="the checkpoint: a local folder or a hub id"
    )
    parser.add_argument("--revision", help="commit, tag or branch of the hub repository")
    parser.add_argument("--recipe", metavar="FILE.toml", help="the recipe, if it was one of your own")
    parser.add_argument("--calibration", metavar="DIR", help="pictures to look at beside the built-in ones")
    parser.add_argument("--captions", metavar="FILE", help="texts to look at beside the built-in ones")
    parser.add_argument(
        "--against",
        action="append",
        choices=ORACLES,
        help="compare with this library's embeddings too; may be given twice (needs the extra reference)",
    )
    parser.add_argument(
        "--compute", action="append", choices=FORMS, help="only this compute form; may be given several times"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Verify, print the figures, and say whether the artifact passed."""
    from sigrun_exporters import graph
    from sigrun_exporters.calibration import read_calibration
    from sigrun_exporters.checkpoint import locate, open_checkpoint
    from sigrun_exporters.verify.inputs import inputs
    from sigrun_exporters.verify.verify import agreements

    path = Path(arguments.artifact)
    with Artifact.open(path) as artifact:
        manifest = artifact.manifest
    recipe = _recipe(manifest, arguments.recipe)
    checkpoint = open_checkpoint(arguments.reference, arguments.revision)
    problems = _same_source(path, manifest, checkpoint)
    calibration = None
    if arguments.calibration or arguments.captions:
        folder, captions = (Path(p) if p else None for p in (arguments.calibration, arguments.captions))
        calibration = read_calibration(folder, captions, note)
    seen = inputs(checkpoint, calibration, note)
    forms: tuple[Form, ...] = tuple(arguments.compute) if arguments.compute else graph.FORMS
    found = agreements(path, checkpoint, recipe.gate, seen, forms)
    record: dict[str, Any] = {
        "model": manifest.model,
        "variant": manifest.variant,
        "pictures": len(seen.pixels),
        "texts": len(seen.ids),
        "forms": {
            form: asdict(agreement) | {"passed": agreement.passed} for form, agreement in found.items()
        },
    }
    lines = form_lines(found)
    for name in arguments.against or ():
        differs = _against(name, checkpoint, locate(arguments.reference, arguments.revision).path, seen)
        record.setdefault("against", {})[name] = differs
        for tower, cosine in differs.items():
            lines.append(f"{name}: worst {tower} cosine with the float32 reference {cosine:.7f}")
            if cosine < ORACLE_COSINE:
                problems.append(f"the {tower} tower differs from {name}'s")
    problems += [f"form {form}: {p}" for form, a in found.items() for p in a.problems if form == "exact"]
    record["problems"] = problems
    if arguments.json:
        print(json.dumps(record, indent=2))
    else:
        print(f"{manifest.model} {manifest.variant}, {len(seen.pixels)} pictures, {len(seen.ids)} texts")
        print("\n".join(f"  {line}" for line in lines))
        print("\n".join(f"  problem: {p}" for p in problems) if problems else "  passed")
    return FAILED if problems else OK


def _recipe(manifest: Manifest, own: str | None) -> Recipe:
    """The recipe that the artifact names, for its gate."""
    try:
        if own is not None:
            recipe = load_file(Path(own))
        elif manifest.variant in names():
            recipe = load(manifest.variant)
        else:
            raise RecipeError(
                f"the artifact was made by a recipe '{manifest.variant}' that is not Sigrun's",
                hint="pass it with --recipe FILE.toml: it holds the gate",
            )
    except RecipeFileError as error:
        raise RecipeError(str(error)) from error
    if recipe.name != manifest.variant:
        raise RecipeError(
            f"the artifact was made by the recipe '{manifest.variant}', and --recipe is '{recipe.name}'"
        )
    if recipe.sha256 != manifest.recipe_sha256:
        note(f"the recipe '{recipe.name}' has changed since the artifact was made; its present gate is used")
    return recipe


def _same_source(path: Path, manifest: Manifest, checkpoint: Checkpoint) -> list[str]:
    """Refuse another checkpoint than the artifact's; for a published one, what is not as published."""
    from sigrun_exporters.verify.published import compared

    source = checkpoint.source()
    if dict(source.files) != dict(manifest.source.files):
        raise SpaceError(
            f"{path} was made of another checkpoint ({manifest.source.model}): the files' hashes differ",
            hint="pass the very checkpoint that it was exported from",
        )
    published = compared(manifest)
    if published is None:
        return []
    if published.cosine is not None:
        note(f"cosine with the published embedding of the golden picture: {published.cosine:.5f}")
    problems = list(published.problems)
    if published.problem is not None:
        problems.append(published.problem)
    return problems


def _against(name: str, checkpoint: Checkpoint, folder: Path, seen: Inputs) -> dict[str, float]:
    """Worst cosine by tower between our float32 reference and another library's."""
    from sigrun_exporters.reference import Reference
    from sigrun_exporters.verify.measure import cosines
    from sigrun_exporters.verify.oracles import ORACLES as LIBRARIES

    theirs = LIBRARIES[name](folder, seen)
    reference = Reference(checkpoint)
    ours = {"image": reference.images(seen.pixels), "text": reference.texts(seen.ids)}
    return {tower: cosines(ours[tower], found).worst for tower, found in theirs.items()}
