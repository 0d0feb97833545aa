"""One model by every runtime that people use today, image tower and text tower, from one run.

The model is the synthetic checkpoint of the published size, or one given with --checkpoint. Files of other runtimes
are made once and kept under benchmarks/work/peers (14 GB, some ten minutes); OpenVINO and NNCF go into an
environment of their own, .venv-openvino. Then every peer runs in a process of its own, one after the other, in
rounds; about 25 minutes for three rounds on two cores.

    python -m benchmarks.today
    python -m benchmarks.today --rounds 1 --only "Sigrun q4_k_m, int8" --only "ONNX Runtime, fp32"
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from benchmarks.exports import WORK, convert, say
from benchmarks.synthetic import checkpoint
from benchmarks.today.catalogue import LEFT_OUT, PEERS, Peer, disk_bytes, find
from benchmarks.today.environments import OPENVINO, MissingError, versions
from benchmarks.today.figures import Disk, Row, rows
from benchmarks.today.files import Files
from benchmarks.today.given import FITTED, PICTURES, TEXTS, TOWERS, Tower
from benchmarks.today.rounds import Placed, Plan, cache_folder, measure, reference
from benchmarks.today.tables import left_out, plot, tower_table
from sigrun.cpus import default_threads

CAVEATS = (
    "Every runtime has a process of its own with the one tower and {threads} threads, and its files in the "
    "page cache. Peers take turns in {rounds} rounds, every second one backwards. A time is the median of "
    "the rounds' medians over {pictures} drawn pictures or {texts} texts, one at a time, and the least of "
    "all; a ratio is the median of the rounds' own ratios. All get the same pixel values and token ids; "
    "ours makes them from decoded pictures of the model's size and from texts, which its times include. "
    "'Process start to first embedding' includes imports; 'load' is reading the weights alone. Peak memory "
    "is up to the last single item and counts mapped file pages. Cosines are with transformers' float32 "
    "embeddings; random weights are no trained model's, so they tell how near a runtime comes, not what "
    "accuracy it keeps.",
    "Sigrun runs the GGUF file of the named variant; 'nothing cached' first rounds its matrices to 8 bits, "
    "as the first process on a machine does; the others find them in the cache. transformers in bf16 reads "
    "the same float32 file. ONNX Runtime runs optimum's export with its default settings; 'dynamic int8' is "
    "its `quantize_dynamic` of the MatMuls (signed weights, unsigned activations), '4 bit' its MatMulNBits "
    "(symmetric, accuracy level 4). OpenVINO's int8 is NNCF's: weights alone, or weights and activations "
    "fitted to {fitted} pictures and texts; the rest in what OpenVINO chooses here, which is bf16 where a "
    "CPU has it. open_clip has the weights under its own names, computes its texts' GELU exactly where the "
    "checkpoint has the tanh approximation, and holds both towers.",
)
"""What stands below the tables, a paragraph each."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what is missing, measure, and print Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint folder in Hugging Face's layout")
    parser.add_argument(
        "--only", action="append", choices=[p.name for p in PEERS], metavar="PEER", help="may be repeated"
    )
    parser.add_argument(
        "--artifact",
        action="append",
        type=_artifact,
        default=[],
        metavar="VARIANT=FILE",
        help="take ours from a file instead of exporting it; may be repeated",
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="1 is quick, and at the mercy of what else runs"
    )
    parser.add_argument("--tower", action="append", choices=TOWERS, help="may be repeated; default: both")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--batch", type=int, default=8, help="items of the batch; 0: none")
    parser.add_argument("--plot", type=Path, help="also draw seconds per image into this .svg")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    chosen = parser.parse_args(arguments)
    towers: Sequence[Tower] = chosen.tower or TOWERS
    wanted = [p for p in PEERS if not chosen.only or p.name in chosen.only]
    files = Files(chosen.checkpoint or checkpoint())
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=WORK)))
        placed, missing = place(wanted, files, work, dict(chosen.artifact))
        plan = Plan(files.inputs, work, chosen.rounds, chosen.threads, chosen.batch, towers)
        truths = {tower: reference(files.checkpoint, plan, tower) for tower in towers}
        results = measure(placed, plan)
        disk = {each.peer.name: _disk(each, work) for each in placed}
        found = {tower: rows(results, tower, truths[tower], disk, chosen.batch) for tower in towers}
    if chosen.plot is not None and "image" in found:
        about = f"{files.checkpoint.name}, one at a time, {chosen.threads} threads"
        chosen.plot.write_text(plot(found["image"], about), "utf-8")
        print(f"![Seconds per image by runtime, as bars]({chosen.plot.as_posix()})\n")
    print(markdown(found, {**missing, **results.failed, **LEFT_OUT}, plan))
    if chosen.json is not None:
        chosen.json.write_text(
            json.dumps({t: list(map(asdict, r)) for t, r in found.items()}, indent=1), "utf-8"
        )
    return 0


def _artifact(value: str) -> tuple[str, Path]:
    variant, _, path = value.partition("=")
    if not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"'{value}' is no VARIANT=FILE")
    return variant, Path(path)


def place(
    wanted: Sequence[Peer], files: Files, work: Path, artifacts: Mapping[str, Path]
) -> tuple[list[Placed], dict[str, str]]:
    """Peers with their files, ours exported now where none is given, and why some have none."""
    ours = dict(artifacts)
    placed, missing = [], {}
    for peer in wanted:
        if peer.runtime == "sigrun":
            if peer.files not in ours:
                ours[peer.files] = convert(files.checkpoint, peer.files, work, "--no-verify").path
            placed.append(Placed(peer, ours[peer.files]))
            continue
        try:
            path, python = find(peer, files)
        except MissingError as reason:
            say(f"left out: {peer.name}: {reason}")
            missing[peer.name] = str(reason)
            continue
        placed.append(Placed(peer, path, python or Path(sys.executable)))
    return placed, missing


def markdown(found: dict[Tower, list[Row]], missing: dict[str, str], plan: Plan) -> str:
    """The section."""
    counts = {"pictures": PICTURES - 1, "texts": TEXTS - 1, "fitted": FITTED}
    caveats = "\n\n".join(CAVEATS).format(rounds=plan.rounds, threads=plan.threads, **counts)
    parts = []
    for tower, each in found.items():
        parts += [f"### {tower.capitalize()} tower", tower_table(tower, each, plan.batch)]
    if plan.rounds == 1:
        caveats = caveats.replace("in 1 rounds, every second one backwards", "in one round")
    return "\n\n".join([*parts, caveats, f"Not in the tables:\n\n{left_out(missing)}", used()])


def used() -> str:
    """Versions of everything that ran."""
    here = versions(None)
    if OPENVINO.exists():
        here |= versions(OPENVINO / "bin" / "python")
    return f"Versions: {', '.join(f'{name} {number}' for name, number in here.items())}."


def _disk(placed: Placed, work: Path) -> Disk:
    cached = 0
    if placed.peer.cache == "filled":
        folder = cache_folder(placed.peer, work)
        cached = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    return Disk(disk_bytes(placed.peer, placed.path), cached)


if __name__ == "__main__":
    sys.exit(main())
