"""Dataclasses from parsed JSON, strictly: every field there, none besides, each of its declared type.

Understood are the types that machine descriptions are made of: ``str``, ``bool``, ``int`` (a count or a number of
bytes, never negative), ``float`` (above 0), literals, optional values, tuples, mappings and dataclasses of those.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


class MachineFileError(ValueError):
    """A machine description is not one; the message names the field."""


def build(kind: type[T], data: object, where: str, besides: set[str] | None = None) -> T:
    """An instance of a dataclass from a JSON object.

    Args:
        kind: the dataclass.
        data: what the JSON parser made of the object.
        where: what the object is, for messages.
        besides: names that must be there too, and that the caller has looked at.

    Raises:
        MachineFileError: a field is missing, unknown or of a wrong type.
    """
    if not isinstance(data, dict):
        raise MachineFileError(f"{where} must be an object, not {type(data).__name__}")
    hints = _hints(cast(Any, kind))
    known = set(hints) | (besides or set())
    for name in data:
        if name not in known:
            raise MachineFileError(f"{where} has no field '{name}'; known: {', '.join(sorted(known))}")
    for name in sorted(known - set(data)):
        raise MachineFileError(f"{where}: the field '{name}' is missing")
    prefix = "" if where == "machine" else f"{where}."
    return kind(**{name: _value(hints[name], data[name], f"{prefix}{name}") for name in hints})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _value(hint: Any, value: object, where: str) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        (rest,) = (option for option in inner if option is not type(None))
        return _value(rest, value, where)
    if origin is Literal:
        if not isinstance(value, str) or value not in inner:
            raise MachineFileError(f"{where} is {value!r}; known: {', '.join(inner)}")
        return value
    if origin is tuple:
        return _tuple(inner, value, where)
    if origin is Mapping:
        if not isinstance(value, dict):
            raise MachineFileError(f"{where} must be an object, not {type(value).__name__}")
        return {str(name): _value(inner[1], entry, f"{where}.{name}") for name, entry in value.items()}
    if hint in _PLAIN:
        accepts, words = _PLAIN[hint]
        if not accepts(value):
            raise MachineFileError(f"{where} must be {words}, not {value!r}")
        return value
    return build(hint, value, where)


def _tuple(inner: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise MachineFileError(f"{where} must be a list, not {value!r}")
    if inner[-1] is Ellipsis:
        return tuple(_value(inner[0], entry, f"{where}[{i}]") for i, entry in enumerate(value))
    if len(value) != len(inner):
        raise MachineFileError(f"{where} must have {len(inner)} entries, not {len(value)}")
    return tuple(
        _value(hint, entry, f"{where}[{i}]") for i, (hint, entry) in enumerate(zip(inner, value, strict=True))
    )


_PLAIN: dict[Any, tuple[Any, str]] = {
    str: (lambda v: isinstance(v, str), "a string"),
    bool: (lambda v: isinstance(v, bool), "true or false"),
    int: (lambda v: type(v) is int and 0 <= v < 2**63, "a whole number, 0 or more"),
    float: (lambda v: type(v) in (int, float) and 0 < v < 1e30, "a number above 0"),
}
