"""A checkpoint's tokenizer to the arrays that an artifact holds.

Google's checkpoints bring a SentencePiece model (``spiece.model``, ``tokenizer.model``), OpenCLIP's only a
``tokenizer.json`` of the same pieces. Both give the same spec.
"""

from sigrun_exporters.tokenizer.sentencepiece_model import read_spiece
from sigrun_exporters.tokenizer.tokenizer_json import read_tokenizer_json

__all__ = ["read_spiece", "read_tokenizer_json"]
