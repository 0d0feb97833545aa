"""``sigrun-export inspect``: what is in a GGUF file, tensor by tensor, of ours or of others."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sigrun.cli.shell import OK, raw_help
from sigrun.errors import ArtifactError

MIB = 2**20


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = commands.add_parser(
        "inspect",
        help="list what is in a GGUF file",
        description="List the tensors of a GGUF file, of ours or of others: name, type, stored shape, bytes,\n"
        "bits per weight. Types that Sigrun does not run are listed too.",
        formatter_class=raw_help,
    )
    parser.add_argument("file", metavar="FILE", help="a .gguf file")
    parser.add_argument("--json", action="store_true", help="one JSON object a tensor")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print every tensor, then the totals by type."""
    tensors = _tensors(Path(arguments.file))
    if arguments.json:
        for tensor in tensors:
            print(json.dumps(tensor))
        return OK
    widest = max((len(t["name"]) for t in tensors), default=0)
    for t in tensors:
        shape = " x ".join(map(str, t["shape"]))
        print(
            f"{t['name']:{widest}}  {t['type']:6} {shape:>14}  {t['bytes']:>12,}  {t['bits_per_weight']:6.3f}"
        )
    print()
    for kind in sorted({t["type"] for t in tensors}):
        of = [t for t in tensors if t["type"] == kind]
        size = sum(t["bytes"] for t in of)
        print(f"{len(of):5} {kind:6} {size / MIB:10.1f} MiB")
    return OK


def _tensors(path: Path) -> list[dict[str, Any]]:
    import gguf

    try:
        tensors = gguf.GGUFReader(path).tensors
    except OSError as error:
        raise ArtifactError(f"{path}: cannot open: {error.strerror or error}") from error
    except Exception as error:  # the package raises whatever its arithmetic on a damaged file runs into
        raise ArtifactError(f"{path}: not a sound GGUF file: {error}") from error
    return [
        {
            "name": t.name,
            "type": t.tensor_type.name.lower(),
            "shape": [int(n) for n in reversed(t.shape.tolist())],
            "bytes": int(t.n_bytes),
            "bits_per_weight": 8 * int(t.n_bytes) / max(1, int(t.n_elements)),
        }
        for t in tensors
    ]
