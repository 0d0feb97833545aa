"""ONNX Runtime, imported when it is first needed.

It comes in flavours that cannot be installed together (``onnxruntime``, ``onnxruntime-gpu``), so it is an extra of the
package, and reading an artifact works without it.
"""

from __future__ import annotations

import importlib
from typing import Any

from sigrun.errors import ProviderError


def onnxruntime() -> Any:
    """The module ``onnxruntime``.

    Raises:
        ProviderError: it is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ProviderError(
            f"ONNX Runtime cannot be loaded: {error}",
            hint="pip install 'sigrun[cpu]' (or 'sigrun[gpu]' for NVIDIA cards)",
        ) from error
