"""Typed look-ups in JSON values, whose errors name the file and the field."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sigrun.errors import ArtifactError

T = TypeVar("T")
MOST = 1e30  # no number in a manifest is larger
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def strict_json(text: str) -> Any:
    """Parse JSON as its standard has it: each name once in an object, no NaN.

    Raises:
        ValueError: it is not JSON; the message says where or what.
    """
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def printable_json(text: str) -> Any:
    """As :func:`strict_json`, and no text in it holds a lone surrogate, which is no character and cannot be printed.

    Raises:
        ValueError: it is not such JSON.
    """
    value = strict_json(text)
    try:
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeEncodeError as error:
        around = error.object[max(0, error.start - 30) : error.end]
        raise ValueError(f"a lone surrogate, which is no character, ends {around!a}") from error
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{max(names, key=names.count)[:60]!a} appears twice in one object")
    return found


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


class Fields:
    """Look-ups in the manifest of the file ``where``. Each raises :class:`ArtifactError` on a value of a wrong type."""

    def __init__(self, where: str) -> None:
        self.where = where

    def fail(self, field: str, problem: str) -> ArtifactError:
        return ArtifactError(f"{self.where}: the manifest's {field} {problem}")

    def part(self, make: Callable[[], T]) -> T:
        """What ``make`` makes; an error of its own gets the file's name."""
        try:
            return make()
        except ArtifactError as error:
            raise error.at(self.where) from error

    def table(self, value: Any, field: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise self.fail(field, "must be an object")
        return value

    def plain(self, value: Any, field: str) -> Mapping[str, Any]:
        """A table of strings, numbers, truth values and nulls."""
        data = self.table(value, field)
        for name, entry in data.items():
            if isinstance(entry, dict | list):
                raise self.fail(f"{field}.{name}", "must be a plain value")
            if isinstance(entry, int | float):
                self.number(entry if not isinstance(entry, bool) else 0, f"{field}.{name}")
        return data

    def text(self, value: Any, field: str) -> str:
        if not isinstance(value, str):
            raise self.fail(field, f"must be a string, not {value!r}")
        return value

    def maybe_text(self, value: Any, field: str) -> str | None:
        return None if value is None else self.text(value, field)

    def texts(self, value: Any, field: str) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise self.fail(field, "must be a list")
        return tuple(self.text(v, field) for v in value)

    def number(self, value: Any, field: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not -MOST <= value <= MOST:
            raise self.fail(field, f"must be a number of ordinary size, not {str(value)[:40]}")
        return float(value)

    def count(self, value: Any, field: str) -> int:
        if type(value) is not int or not 0 <= value < 2**53:
            raise self.fail(field, f"must be a whole number, not {value!r}")
        return value

    def flag(self, value: Any, field: str) -> bool:
        if not isinstance(value, bool):
            raise self.fail(field, f"must be true or false, not {value!r}")
        return value

    def numbers(self, value: Any, field: str) -> tuple[float, ...]:
        if not isinstance(value, list):
            raise self.fail(field, "must be a list")
        return tuple(self.number(v, field) for v in value)

    def items(self, value: Any, field: str) -> list[Any]:
        if not isinstance(value, list):
            raise self.fail(field, "must be a list")
        return value

    def maybe(self, value: Any, read: Callable[[Any, str], T], field: str) -> T | None:
        """``None`` for null, else what ``read`` makes of it."""
        return None if value is None else read(value, field)
