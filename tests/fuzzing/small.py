"""Small sound files, as starts for mutations."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

from tests.fuzzing.spans import CODES, STRING, text_value

SMALL_TENSORS = (  # name, type, extents (innermost first), bytes
    ("f32", 0, (3, 2), 24),
    ("f16", 1, (5,), 10),
    ("q8_0", 8, (32, 3), 102),
    ("q4_k", 12, (256, 2), 288),
    ("q5_k", 13, (512,), 352),
    ("q6_k", 14, (256, 1, 1, 1), 210),
    ("i8", 24, (2, 3, 4), 24),
    ("scalar", 0, (), 4),
    ("nothing", 24, (0, 7), 0),
)


def small_gguf() -> bytes:
    """A GGUF file with a value and an array of every type, and a tensor of every type and rank."""
    pairs = [("general.alignment", 4, struct.pack("<I", 16))]
    for kind, code in CODES.items():
        pairs.append((f"one.{code}", kind, struct.pack("<" + code, 1)))
        pairs.append((f"many.{code}", 9, struct.pack(f"<IQ5{code}", kind, 5, *[1] * 5)))
    words = b"".join(text_value(word) for word in ("", "zwei", "三"))
    pairs += [
        ("text", STRING, text_value("Grüße, 世界")),
        ("empty", STRING, text_value("")),
        ("words", 9, struct.pack("<IQ", STRING, 3) + words),
        ("no words", 9, struct.pack("<IQ", STRING, 0)),
        ("no numbers", 9, struct.pack("<IQ", 6, 0)),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(SMALL_TENSORS), len(pairs))
    for key, kind, value in pairs:
        head += text_value(key) + struct.pack("<I", kind) + value
    body = b""
    for name, kind, extents, nbytes in SMALL_TENSORS:
        head += text_value(name) + struct.pack(
            f"<I{len(extents)}QIQ", len(extents), *extents, kind, len(body)
        )
        body += bytes(range(1, 1 + nbytes % 256)).ljust(nbytes, b"\x11")
        body += bytes(-len(body) % 16)
    return head + bytes(-len(head) % 16) + body


def nested_arrays(depth: int) -> bytes:
    """A GGUF file with one value: arrays in arrays, so many deep."""
    value = struct.pack("<IQ", 9, 1) * depth + struct.pack("<IQB", 0, 1, 1)
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text_value("deep") + struct.pack("<I", 9) + value


def full_manifest(text: str) -> dict[str, Any]:
    """A manifest as JSON in which no optional part is missing, and of tensors only a few are there."""
    data: dict[str, Any] = json.loads(text)
    few = ("v.blk.0.attn_q.weight", "v.post_ln.bias", "t.token_embd.weight")
    data["tensors"] = {name: data["tensors"][name] for name in few}
    for forms in data["graphs"].values():
        for graph in forms.values():
            graph["weights"] = dict(list(graph["weights"].items())[:3])
    cosines = {"image": {"mean": 1.0, "worst": 0.99}, "text": {"mean": 1.0, "worst": 0.99}}
    scores = dict.fromkeys(
        ("logit_error", "probability_error", "probability_error_worst", "top1", "rank"), 0.5
    )
    agreement = {"pictures": 3, "texts": 4, "cosines": cosines, "scores": scores, "problems": ["too far"]}
    data["verification"] = {
        "pictures": 3,
        "texts": 4,
        "set_sha256": "0" * 64,
        "forms": {"exact": agreement, "int8": agreement},
        "int8": {"image": {"exact": ["v.blk.0.attn_q.weight"], "trail": [[0, 0.5], [1, 0.25]]}},
    }
    data["golden"] = {"image": [0.5] * 8, "text": "a red apple", "text_embedding": [0.25] * 8}
    data["refit"] = {
        "source": {"logit_scale": 2.0, "logit_bias": -1.0},
        "error_before": 0.1,
        "error_after": 0.05,
    }
    data["importance"] = "0" * 64
    data["source"] |= {"revision": "main", "licence": "apache-2.0"}
    return data


def small_labels() -> tuple[dict[str, Any], bytes]:
    """Header and numbers of a label set."""
    matrix = np.eye(3, 8, dtype=np.float32)
    strings = {
        "sigrun_labels": "1",
        "labels": json.dumps(["owl", "red apple", "世界"]),
        "templates": json.dumps(["a photo of {}"]),
        "cut": "[1]",
        "space": "a/space",
        "model": "tiny q4_k_m",
        "canonicalisation": "hf",
        "model_logit_scale": "2.5",
        "model_logit_bias": "-3.0",
        "logit_scale": "2.5",
        "logit_bias": "-3.5",
        "scoring": "calibrated",
    }
    tensor = {"dtype": "F32", "shape": [3, 8], "data_offsets": [0, 96]}
    return {"__metadata__": strings, "embeddings": tensor}, matrix.tobytes()
