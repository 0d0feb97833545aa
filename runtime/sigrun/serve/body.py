"""A request's JSON: parsed within bounds, and typed look-ups whose errors name the field."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from sigrun.serve.errors import ApiError, unprocessable


def parse_json(body: bytes, most_parts: int) -> dict[str, Any]:
    """The object that a body holds.

    Parts are counted before anything is parsed: a value costs Python up to 64 bytes, and JSON two.

    Raises:
        ApiError: it is not JSON, not an object, or of too many parts.
    """
    parts = sum(body.count(mark) for mark in (b",", b"[", b"{"))
    if parts > most_parts:
        raise ApiError(
            413,
            f"the request's JSON has up to {parts} values; at most {most_parts} are accepted",
            code="too_large",
        )
    try:
        found = json.loads(body.decode("utf-8"), parse_constant=_refuse, object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        raise ApiError(400, "the request's body is not UTF-8", code="invalid_json") from error
    except RecursionError as error:
        raise ApiError(400, "the request's JSON is nested too deeply", code="invalid_json") from error
    except ValueError as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise ApiError(400, f"the request's body is not valid JSON{where}", code="invalid_json") from error
    if not isinstance(found, dict):
        raise ApiError(400, "the request's body must be a JSON object", code="invalid_json")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, unless a name stands in it twice: of two readers each might believe another one."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ApiError(400, "the request's JSON has an object with the same name twice", code="invalid_json")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


class Fields:
    """Look-ups in a JSON object. Each raises ApiError (422) where the value is of a wrong kind; null is as absent."""

    def __init__(self, table: Mapping[str, Any], place: str = "") -> None:
        self._table = table
        self._place = place

    def path(self, name: str) -> str:
        """The field's name as errors give it."""
        return f"{self._place}.{name}" if self._place else name

    def get(self, name: str) -> Any:
        return self._table.get(name)

    def has(self, name: str) -> bool:
        return self._table.get(name) is not None

    def fail(self, name: str, problem: str, hint: str | None = None) -> ApiError:
        return unprocessable(f"{self.path(name)} {problem}", self.path(name), hint=hint)

    def text(self, name: str) -> str | None:
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.fail(name, f"must be a string, not {kind_of(value)}")
        return self.unicode(name, value)

    def unicode(self, name: str, value: str) -> str:
        if not is_unicode(value):
            raise self.fail(name, "holds a lone surrogate, which is no character")
        return value

    def texts(self, name: str, most: int) -> list[str] | None:
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise self.fail(name, "must be a list of strings")
        if not value:
            raise self.fail(name, "is empty")
        if len(value) > most:
            raise self.fail(name, f"holds {len(value)} entries; at most {most} are accepted")
        return [self.unicode(name, entry) for entry in value]

    def choice(self, name: str, allowed: Sequence[str], default: str) -> str:
        value = self.text(name)
        if value is None:
            return default
        if value not in allowed:
            raise self.fail(name, f"must be one of {', '.join(allowed)}, not {value[:40]!a}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.fail(name, f"must be true or false, not {kind_of(value)}")
        return value

    def whole(self, name: str, least: int = 1) -> int | None:
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            value = int(value)  # JSON knows one kind of number
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.fail(name, f"must be a whole number of at least {least}")
        return value

    def fraction(self, name: str) -> float | None:
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise self.fail(name, "must be a number from 0 to 1")
        return float(value)


def is_unicode(text: str) -> bool:
    """Whether a text holds characters only; JSON can smuggle half a character in."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def kind_of(value: Any) -> str:
    """What a value is, in the words of JSON; never the value itself."""
    if isinstance(value, bool):
        return "true or false"
    kinds = {str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value), "null")
