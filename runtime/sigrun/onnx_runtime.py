"""ONNX Runtime, imported when it is first needed.

It comes in flavours that cannot be installed together (``onnxruntime``, ``onnxruntime-gpu``), so it is an extra of the
package, and reading an artifact works without it.

Since version 1.29 it reports its use to Microsoft unless it is told not to before it is imported. Sigrun tells it not
to; who wants the reports sets ``ORT_DISABLE_TELEMETRY=0``. Its reporting threads would also keep a forked process from
ending. A program that imports ``onnxruntime`` before it uses Sigrun has decided for itself.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from sigrun.errors import ProviderError

OPT_OUT = "ORT_DISABLE_TELEMETRY"


def onnxruntime() -> Any:
    """The module ``onnxruntime``.

    Raises:
        ProviderError: it is not installed, or cannot be loaded.
    """
    if "onnxruntime" not in sys.modules:
        os.environ.setdefault(OPT_OUT, "1")
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ProviderError(
            f"ONNX Runtime cannot be loaded: {error}",
            hint="pip install 'sigrun[cpu]' (or 'sigrun[gpu]' for NVIDIA cards; in a clone: '.[cpu]')",
        ) from error
