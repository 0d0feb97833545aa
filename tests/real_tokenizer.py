"""The real SigLIP tokenizer (c4_en, 32,000 pieces) from tests/data, for the tests that need it."""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from pathlib import Path

from sigrun.canonical import Canonicalisation
from sigrun.tokens import Tokenizer, TokenizerSpec
from sigrun_exporters.tokenizer import read_tokenizer_json

DATA = Path(__file__).parent / "data"
_SHA256 = "c6e405cb7c670d56636a9402c81023a55bc6c3c53d89cf02b92f5c5005bfe920"  # of the published file


@cache
def tokenizer_json() -> bytes:
    content = gzip.decompress((DATA / "siglip_tokenizer.json.gz").read_bytes())
    assert hashlib.sha256(content).hexdigest() == _SHA256
    return content


@cache
def real_spec(canonicalisation: Canonicalisation = "hf") -> TokenizerSpec:
    return read_tokenizer_json(
        tokenizer_json(), canonicalisation=canonicalisation, context=64, eos_id=1, pad_id=1
    )


@cache
def real_tokenizer(canonicalisation: Canonicalisation = "hf") -> Tokenizer:
    return Tokenizer(real_spec(canonicalisation))
