"""Packages that only bulk work needs, imported where it needs them."""

from __future__ import annotations

import importlib
from typing import Any

from sigrun.errors import SigrunError


def pyarrow() -> Any:
    """The module ``pyarrow``, with ``pyarrow.parquet`` in it.

    Raises:
        SigrunError: it is not installed.
    """
    return _imported("pyarrow.parquet", "pyarrow", "parquet", "data sets are read and written as Parquet")


def ray() -> Any:
    """The module ``ray``, with ``ray.data`` in it.

    Raises:
        SigrunError: it is not installed.
    """
    return _imported("ray.data", "ray", "ray", "--engine ray runs on Ray Data")


def _imported(module: str, package: str, extra: str, why: str) -> Any:
    try:
        importlib.import_module(module)
    except ImportError as error:
        missing = error.name or package
        raise SigrunError(
            f"{why}, which takes the package '{missing}': it is not installed",
            hint=f"pip install 'sigrun[{extra}]' (in a clone: pip install '.[{extra}]')",
        ) from error
    return importlib.import_module(package)
