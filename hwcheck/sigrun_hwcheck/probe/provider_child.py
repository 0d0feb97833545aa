"""The process that tries one of ONNX Runtime's providers: a product of two matrices, checked.

    python -m sigrun_hwcheck.probe.provider_child cuda

Prints one line of JSON: whether it loads, why not, and the NPUs that ONNX Runtime sees. All else that is printed here,
by whatever library, goes to stderr.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import warnings
from typing import Any

from sigrun.errors import SigrunError

# y = x @ w with x float32 [2, 4] and w float32 [4, 4], counting from 0; opset 13.
MODEL = (
    "CAg6kAEKFAoBeAoBdxIBeRoBbSIGTWF0TXVsEgFnKksIBAgEEAFCAXdKQAAAAAAAAIA/AAAAQAAAQEAAAIBAAACgQAAAwEAA"
    "AOBAAAAAQQAAEEEAACBBAAAwQQAAQEEAAFBBAABgQQAAcEFaEwoBeBIOCgwIARIICgIIAgoCCARiEwoBeRIOCgwIARIICgII"
    "AgoCCARCBAoAEA0="
)


def attempt(name: str) -> str | None:
    """Run the model on a provider; ``None`` if that went well, else why not."""
    import numpy as np

    from sigrun.onnx_runtime import onnxruntime
    from sigrun.providers import attach, named, verify

    try:
        provider = named(name)
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        attached = attach(options, provider)
        session = ort.InferenceSession(base64.b64decode(MODEL), options, providers=attached.providers)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            verify(session, provider)
        x = np.arange(8, dtype=np.float32).reshape(2, 4)
        (y,) = session.run(None, {"x": x})
        if not np.array_equal(y, x @ np.arange(16, dtype=np.float32).reshape(4, 4)):
            return "it computes wrong results"
    except SigrunError as error:
        return error.message
    except Exception as error:  # ONNX Runtime raises classes of its own that share no public base
        return f"{type(error).__name__}: {error}"
    return None


def npus() -> list[str]:
    """Names of the processors for neural networks that ONNX Runtime sees."""
    from sigrun.onnx_runtime import onnxruntime

    try:
        ort: Any = onnxruntime()
        found = [d.device for d in ort.get_ep_devices() if d.device.type == ort.OrtHardwareDeviceType.NPU]
        return sorted({f"{device.vendor or 'unknown'} NPU" for device in found})
    except Exception:  # older versions lack the list; without it there is nothing to tell
        return []


def main() -> int:
    """The process."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        problem = attempt(sys.argv[1])
        said = {"loads": problem is None, "problem": problem and " ".join(problem.split()), "npus": npus()}
        out.write(json.dumps(said) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
