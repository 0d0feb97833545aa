"""One export from checkpoint to files: plan, quantize, describe, verify, write."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sigrun.artifact import Artifact
from sigrun.errors import RecipeError, VerificationError
from sigrun.manifest import Manifest
from sigrun.output import finished, finished_folder, folder_with_room, refuse_existing
from sigrun.scores import logits
from sigrun_exporters.calibration import Calibration, CalibrationError, read_calibration
from sigrun_exporters.checkpoint import Checkpoint
from sigrun_exporters.collect import collect
from sigrun_exporters.describe import describe, stored_graphs
from sigrun_exporters.gguf_file import write_gguf
from sigrun_exporters.graph import Form, Graphs
from sigrun_exporters.importance import Importance, load_importance
from sigrun_exporters.notes import note
from sigrun_exporters.onnx_bundle import is_ours, write_bundle, write_hub
from sigrun_exporters.sizes import all_graphs, onnx_sizes
from sigrun_exporters.store import WeightStore, stored
from sigrun_exporters.verify.inputs import inputs
from sigrun_exporters.verify.refit import refit
from sigrun_exporters.verify.report import SUFFIXES, write_report
from sigrun_exporters.verify.verify import Proof, prove
from sigrun_recipes import TOWERS, Gate, Plan, Recipe, RecipeFileError, TowerName, plan

HEAD_BYTES = 16 * 2**20  # room for metadata, graphs and alignment beside the weights


@dataclass(frozen=True)
class Settings:
    """What an export is to do beside the recipe.

    Attributes:
        formats: ``gguf``, ``onnx`` or both.
        layout: of the ONNX files: ``bundle`` or ``hub``.
        compute: compute form of the ONNX files.
        calibration: folder of pictures that importance is measured on and the verification looks at too.
        captions: file of texts for the same, one a line.
        importance: a saved importance matrix, instead of measuring one.
        refit: fit the scoring constants to the variant where that lowers the error on pairs held back.
        verify: compare with the checkpoint's float32 function.
        allow_failing: write a variant that fails its recipe's gate.
        force: replace existing files.
    """

    formats: tuple[str, ...] = ("gguf",)
    layout: Literal["bundle", "hub"] = "bundle"
    compute: Form = "exact"
    calibration: Path | None = None
    captions: Path | None = None
    importance: Path | None = None
    refit: bool = False
    verify: bool = True
    allow_failing: bool = False
    force: bool = False


@dataclass(frozen=True)
class Exported:
    """A finished export.

    Attributes:
        paths: the artifacts, the GGUF file first if there is one, and then what goes with them.
        manifest: what the files say of themselves.
        plan: what was stored how.
        nbytes: bytes of what was written, by suffix: ``.gguf``, ``.onnx``, ``.hub``.
    """

    paths: tuple[Path, ...]
    manifest: Manifest
    plan: Plan
    nbytes: Mapping[str, int]

    @property
    def path(self) -> Path:
        """The first of the files."""
        return self.paths[0]

    @property
    def towers(self) -> tuple[TowerName, ...]:
        """The towers that were written."""
        return tuple(t for t in TOWERS if t in self.manifest.graphs)


@dataclass(frozen=True)
class Names:
    """Where an export's files go: ``OUT/<model>/<model>-<variant>.*``."""

    folder: Path
    stem: str

    @classmethod
    def of(cls, out: Path, model: str, variant: str) -> Names:
        """The names for a model's variant under ``out``."""
        return cls(out / model, f"{model}-{variant}")

    def file(self, suffix: str) -> Path:
        """A file or folder of the export, such as ``.gguf`` or ``.report.md``."""
        return self.folder / f"{self.stem}{suffix}"


def export(checkpoint: Checkpoint, recipe: Recipe, out: Path, settings: Settings | None = None) -> Exported:
    """Export a checkpoint.

    Args:
        checkpoint: the opened source.
        recipe: the variant.
        out: folder under which the model's own folder is made.
        settings: what else to do; by default a verified GGUF file.

    Raises:
        CheckpointError: the source's weights cannot be read or stored.
        RecipeError: the recipe does not fit the model.
        CalibrationError: calibration data cannot be used, or lacks for what is asked.
        VerificationError: the variant fails its gate.
        OutputError: a file exists already or cannot be written.
    """
    chosen = settings or Settings()
    names = Names.of(out, checkpoint.name, recipe.name)
    artifact, bundle = names.file(".gguf"), names.file(".onnx" if chosen.layout == "bundle" else ".hub")
    if "gguf" in chosen.formats:
        refuse_existing(artifact, force=chosen.force)
    if "onnx" in chosen.formats:
        refuse_existing(bundle, force=chosen.force, folder=True)
    # Beside a GGUF file lies its report; ONNX files exported without it get one of their own.
    report = "" if "gguf" in chosen.formats else bundle.suffix
    for suffix in SUFFIXES:
        refuse_existing(names.file(report + suffix), force=chosen.force)
    try:
        planned = plan(recipe, checkpoint.architecture)
    except RecipeFileError as error:
        raise RecipeError(str(error)) from error
    calibration = _calibration(checkpoint, chosen)
    graphs = all_graphs(planned)
    folder_with_room(names.folder, _room(planned, graphs, chosen))
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        source = pool.submit(checkpoint.source)  # hashing gigabytes goes on beside the rest
        checkpoint = replace(checkpoint, source=source.result)
        importance = _importance(checkpoint, calibration, names, chosen)
        weigh = importance.of if importance is not None else None
        keep = "gguf" in chosen.formats
        partial = stack.enter_context(finished(artifact, force=chosen.force, keep=keep))
        store = stack.enter_context(stored(checkpoint, planned, names.folder, weigh))
        manifest = describe(
            checkpoint,
            planned,
            graphs,
            checkpoint.source(),
            store.digests,
            store.sha256,
            importance.digest if importance is not None else None,
        )
        _write(partial, manifest, checkpoint, store, graphs)
        if chosen.verify:
            seen = inputs(checkpoint, calibration, note)
            proof = prove(partial, checkpoint, planned, seen)
            graphs = proof.graphs
            manifest = _verified(manifest, proof, recipe.gate, chosen)
            _gate(manifest, chosen)
            _write(partial, manifest, checkpoint, store, graphs)
        written = [artifact] if keep else []
        if "onnx" in chosen.formats:
            folder = stack.enter_context(finished_folder(bundle, force=chosen.force, ours=is_ours))
            write = write_bundle if chosen.layout == "bundle" else write_hub
            write(folder, manifest, planned, store, checkpoint.tokenizer, form=chosen.compute, graphs=graphs)
            written.append(bundle)
        sizes = {artifact.name: partial.stat().st_size} if keep else {}
        errors = store.errors
    sizes |= {
        f"{bundle.name}/{p.relative_to(bundle).as_posix()}": p.stat().st_size for p in _files(bundle, chosen)
    }
    if importance is not None and chosen.importance is None:
        importance.save(names.file(".imatrix.gguf"), force=True)
        written.append(names.file(".imatrix.gguf"))
    written += write_report(lambda suffix: names.file(report + suffix), manifest, planned, errors, sizes)
    _state(names).unlink(missing_ok=True)
    whole = {artifact.suffix: sizes.pop(artifact.name)} if keep else {}
    if sizes:
        whole[bundle.suffix] = sum(sizes.values())
    return Exported(tuple(written), manifest, planned, whole)


def _calibration(checkpoint: Checkpoint, chosen: Settings) -> Calibration | None:
    if chosen.refit and checkpoint.scoring is None:
        raise CalibrationError("--refit: this model has one tower, so there are no scores to fit")
    if chosen.refit and (chosen.calibration is None or chosen.captions is None):
        raise CalibrationError(
            "--refit needs pictures and texts to fit the scores on", hint="pass --calibration and --captions"
        )
    if chosen.refit and not chosen.verify:
        raise CalibrationError("--refit fits to what the verification measures", hint="leave out --no-verify")
    if chosen.calibration is None and chosen.captions is None:
        return None
    return read_calibration(chosen.calibration, chosen.captions, note)


def _importance(
    checkpoint: Checkpoint, calibration: Calibration | None, names: Names, chosen: Settings
) -> Importance | None:
    """What the quantizers weigh their errors by: from a file, from calibration data, or nothing."""
    if chosen.importance is not None:
        importance = load_importance(chosen.importance)
        importance.check(checkpoint.architecture, str(chosen.importance))
    elif calibration is not None:
        importance = collect(checkpoint, calibration, _state(names), note=note)
    else:
        return None
    covered = importance.towers(checkpoint.architecture)
    for tower in TOWERS:
        if checkpoint.architecture.tower(tower) is not None and tower not in covered:
            note(f"nothing was measured for the {tower} tower: it is quantized without importance")
    return importance


def _write(
    path: Path, manifest: Manifest, checkpoint: Checkpoint, store: WeightStore, graphs: Graphs
) -> None:
    """Write the GGUF file and open it as the runtime does: what that would refuse must not get its final name."""
    path.unlink(missing_ok=True)
    write_gguf(path, manifest, checkpoint.tokenizer, graphs, store)
    with Artifact.open(path) as artifact:
        if checkpoint.tokenizer is not None:
            artifact.tokenizer()


def _verified(manifest: Manifest, proof: Proof, gate: Gate, chosen: Settings) -> Manifest:
    """The manifest with what the verification found, its scoring fitted to the variant if that was asked for."""
    own = manifest.scoring
    if chosen.refit:
        manifest = _refitted(manifest, proof)
    return replace(
        manifest,
        graphs=stored_graphs(proof.graphs),
        verification=proof.verification(gate, own, manifest.scoring),
        golden=proof.golden,
    )


def _refitted(manifest: Manifest, proof: Proof) -> Manifest:
    assert manifest.scoring is not None  # --refit was refused else
    images, texts = proof.towers["image"].expected, proof.towers["text"].expected
    found = proof.exact("image") @ proof.exact("text").T
    fitted = refit(logits(images, texts, manifest.scoring), found, manifest.scoring)
    if fitted is None:
        note("the scoring constants stay the checkpoint's: others are no better on pairs held back")
        return manifest
    scoring, record = fitted
    return replace(manifest, scoring=scoring, refit=record)


def _gate(manifest: Manifest, chosen: Settings) -> None:
    """Refuse a variant whose form exact fails; say of other forms that they do."""
    assert manifest.verification is not None
    for form, agreement in manifest.verification.forms.items():
        if agreement.passed:
            continue
        problems = "; ".join(agreement.problems)
        if form == "exact" and not chosen.allow_failing:
            raise VerificationError(
                f"{manifest.model} as {manifest.variant} fails its gate: {problems}",
                hint="choose a variant of more bits, give calibration data (--calibration), or write it all the same "
                "with --allow-failing",
            )
        note(f"form {form} fails its gate: {problems}")


def _room(planned: Plan, graphs: Graphs, chosen: Settings) -> int:
    """Bytes that an export needs while it works: the waiting weights, the GGUF file, and the ONNX files."""
    nbytes = sum(planned.nbytes(tower) for tower in TOWERS)
    room = 2 * nbytes + HEAD_BYTES
    if "onnx" in chosen.formats:
        sizes = onnx_sizes(planned, graphs, chosen.compute)
        room += sum(sizes.values()) * (
            2 if chosen.layout == "hub" else 1
        )  # the hub's joint model comes on top
    return room


def _files(folder: Path, chosen: Settings) -> list[Path]:
    if "onnx" not in chosen.formats:
        return []
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _state(names: Names) -> Path:
    """Where an interrupted calibration is kept, for the next run to go on from."""
    return names.folder / "calibration.state"
