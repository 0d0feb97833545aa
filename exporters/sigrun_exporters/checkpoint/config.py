"""Typed look-ups in a checkpoint's configs, whose errors name the file and the field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sigrun.errors import CheckpointError

MOST_LAYERS = 512
WAY_OUT = "google/siglip-so400m-patch14-384 is the model this is made for"


class Config:
    """One object of a config.

    Args:
        data: the object.
        where: the file.
        name: where in the file; empty for the whole of it.
    """

    def __init__(self, data: Mapping[str, Any], where: str, name: str = "") -> None:
        self.data = data
        self.where = where
        self.name = name

    def fail(self, key: str, problem: str, hint: str | None = None) -> CheckpointError:
        """The error of one field."""
        return CheckpointError(f"{self.where}: {self._at(key)} {problem}", hint=hint)

    def part(self, key: str, *, needed: bool = False) -> Config:
        """An object inside; empty where it is left out and not ``needed``."""
        part = self.data.get(key)
        if part is None and not needed:
            part = {}
        if not isinstance(part, dict):
            raise self.fail(key, "is missing" if part is None else "is not an object")
        return Config(part, self.where, self._at(key))

    def whole(self, key: str, default: int | None = None) -> int:
        """A positive whole number."""
        value = self.data.get(key, default)
        if type(value) is not int or not 0 < value < 2**31:
            raise self.fail(key, f"must be a positive whole number, not {value!r}")
        return value

    def side(self, key: str) -> int:
        """The side of a square, written as one number or as two equal ones."""
        value = self.data.get(key)
        if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
            return Config({key: value[0]}, self.where, self.name).whole(key)
        return self.whole(key)

    def number(self, key: str, default: float | None, least: float, most: float) -> float:
        """A number between two others."""
        value = self.data.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least < value < most:
            raise self.fail(key, f"must lie between {least:g} and {most:g}, not {value!r}")
        return float(value)

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self.data.get(key, default)
        if not isinstance(value, str):
            raise self.fail(key, f"must be a string, not {value!r}")
        return value

    def must_be(self, values: Mapping[str, Any]) -> None:
        """Fields that, where given, must have these values."""
        for key, wanted in values.items():
            value = self.data.get(key, wanted)
            if value != wanted or isinstance(value, bool) != isinstance(wanted, bool):
                raise self.fail(key, f"is {value!r}; Sigrun exports models where it is {wanted!r}")

    def only(self, known: Iterable[str]) -> None:
        """No field but the known ones: an unknown one may change what the model computes."""
        unknown = sorted(
            key for key, value in self.data.items() if key not in set(known) and value is not None
        )
        if unknown:
            raise self.fail(unknown[0], f"({self.data[unknown[0]]!r}) is a setting that Sigrun does not know")

    def tower(self, *, layers: int, width: int, heads: int) -> dict[str, int]:
        """Checked sizes of a tower."""
        if layers > MOST_LAYERS:
            raise CheckpointError(f"{self.where}: {self.name} has {layers} layers, more than {MOST_LAYERS}")
        if width % heads:
            raise CheckpointError(
                f"{self.where}: {self.name}: {heads} heads do not divide a width of {width}"
            )
        return {"layers": layers, "width": width, "heads": heads}

    def _at(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key
