"""Lets torchvision be imported beside a torch without CUDA. Importing this module is enough.

Package registries have torchvision built for CUDA alone. Its compiled operators do not load beside a CPU build of
torch, and it then refuses to be imported because two of them are missing; transformers imports it wherever it finds
it. Neither has to do with preparing pictures, so their names are declared just before its import, and everything else
of it is its own code. Where the operators load, nothing is done.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_OPERATORS = ("nms", "qnms")
_ARGUMENTS = "Tensor dets, Tensor scores, float iou_threshold"
_declared: list[Any] = []  # a library's declarations live as long as it does


class _BeforeTorchvision(MetaPathFinder):
    """Finds nothing, but is asked first."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "torchvision" and not _declared:
            found = PathFinder.find_spec(fullname)
            if found is not None and found.origin is not None and not _loads(Path(found.origin).parent):
                import torch

                library = torch.library.Library("torchvision", "DEF")
                for name in _OPERATORS:
                    library.define(f"{name}({_ARGUMENTS}) -> Tensor")
                _declared.append(library)
        return None


def _loads(folder: Path) -> bool:
    """Whether torchvision's compiled operators load here."""
    import torch  # noqa: F401  # they link to its libraries

    compiled = sorted(folder.glob("_C*.so")) + sorted(folder.glob("_C*.pyd"))
    try:
        for path in compiled:
            ctypes.CDLL(str(path))
    except OSError:
        return False
    return bool(compiled)


if not any(isinstance(finder, _BeforeTorchvision) for finder in sys.meta_path):
    sys.meta_path.insert(0, _BeforeTorchvision())
