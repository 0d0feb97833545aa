"""The pictures and texts of a request, in each of the shapes in which clients send them.

A picture is bytes from here on, or an address that is yet to be fetched. Nothing in a request is ever taken for the
path of a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sigrun.data_uri import data_uri_bytes
from sigrun.errors import PictureError
from sigrun.serve.body import is_unicode, kind_of
from sigrun.serve.errors import ApiError, unprocessable
from sigrun.serve.settings import Limits

Modality = Literal["auto", "text", "image"]
MODALITIES: tuple[Modality, ...] = ("auto", "text", "image")

_PICTURE = re.compile(r"\s*data:(image/|[^,]{0,100};base64,)", re.IGNORECASE)
_DATA = re.compile(r"\s*data:", re.IGNORECASE)
_REMOTE = re.compile(r"\s*https?:", re.IGNORECASE)
_OTHER_SCHEME = re.compile(r"\s*([a-zA-Z][a-zA-Z0-9+.-]{1,20}):")


@dataclass(frozen=True, slots=True)
class Text:
    """A text to embed."""

    text: str


@dataclass(frozen=True, slots=True)
class Bytes:
    """A picture's file."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Remote:
    """A picture that is yet to be fetched."""

    url: str


Item = Text | Bytes | Remote


@dataclass(frozen=True, slots=True)
class Bad:
    """An item that cannot be used, and why."""

    error: ApiError


def as_list(value: Any) -> list[Any]:
    """One or several items: ``input`` may be either."""
    return value if isinstance(value, list) else [value]


def read_items(value: Any, param: str, limits: Limits, modality: Modality = "auto") -> list[Item | Bad]:
    """All items of a field. What is wrong with one stays with it.

    Raises:
        ApiError: there are none, or too many, or they are token ids.
    """
    if value is None:
        raise unprocessable(f"{param} is missing", param, code="missing")
    entries = as_list(value)
    if not entries:
        raise unprocessable(f"{param} is empty", param, hint="give at least one picture or text")
    if all(isinstance(entry, int | float | list) for entry in entries):
        raise unprocessable(
            f"{param} must hold texts or pictures",
            param,
            hint="token ids are not taken: send the text itself",
        )
    if len(entries) > limits.items:
        raise unprocessable(
            f"{param} holds {len(entries)} items; at most {limits.items} are accepted in one request", param,
            hint="send them in several requests", code="too_many_items",
        )  # fmt: skip
    items: list[Item | Bad] = []
    for index, entry in enumerate(entries):
        try:
            items.append(
                read_item(entry, f"{param}[{index}]" if isinstance(value, list) else param, limits, modality)
            )
        except ApiError as error:
            items.append(Bad(error))
    return items


def read_item(value: Any, param: str, limits: Limits, modality: Modality = "auto") -> Item:
    """One item: a string, or an object in Jina's, OpenAI's chat, OpenRouter's or llama.cpp's shape.

    Raises:
        ApiError: it is none of these.
    """
    if isinstance(value, str):
        if modality == "image" or (modality == "auto" and _PICTURE.match(value)):
            return _picture(value, param, limits)
        return _text(value, param, limits)
    if not isinstance(value, dict):
        raise unprocessable(f"{param} must be a text or a picture, not {kind_of(value)}", param)
    if "content" in value:
        return _content(value["content"], f"{param}.content", limits)
    return _part(value, param, limits)


def read_messages(value: Any, limits: Limits) -> Item:
    """The one text or picture in a chat, vLLM's shape.

    Raises:
        ApiError: there is none, or several.
    """
    if not isinstance(value, list) or not value:
        raise unprocessable("messages must be a list with a message", "messages")
    parts: list[tuple[str, Any]] = []
    for number, message in enumerate(value):
        param = f"messages[{number}]"
        if not isinstance(message, dict):
            raise unprocessable(f"{param} must be an object, not {kind_of(message)}", param)
        content = message.get("content")
        if isinstance(content, list):
            parts += [(f"{param}.content[{i}]", part) for i, part in enumerate(content)]
        elif isinstance(content, str):
            parts.append((f"{param}.content", content))
        else:
            raise unprocessable(f"{param}.content must be a text or a list of parts", f"{param}.content")
    return _only(parts, "messages", limits)


def _content(value: Any, param: str, limits: Limits) -> Item:
    parts = list(value) if isinstance(value, list) else [value]
    return _only([(f"{param}[{index}]", part) for index, part in enumerate(parts)], param, limits)


def _only(parts: Sequence[tuple[str, Any]], param: str, limits: Limits) -> Item:
    if len(parts) != 1:
        raise unprocessable(
            f"{param} has {len(parts)} parts; a vector is made of exactly one text or picture", param,
            hint="send them as separate items of input",
        )  # fmt: skip
    place, part = parts[0]
    if isinstance(part, str):
        return _text(part, place, limits)
    if not isinstance(part, dict):
        raise unprocessable(f"{place} must be a text or a picture, not {kind_of(part)}", place)
    return _part(part, place, limits)


def _part(value: Mapping[str, Any], param: str, limits: Limits) -> Item:
    """``{"text"}``, ``{"image"}``, ``{"image_url"}``, with or without a ``type`` that says which."""
    names = [name for name in ("text", "image", "image_url", "url") if value.get(name) is not None]
    if len(names) != 1:
        raise unprocessable(
            f"{param} must have exactly one of text, image and image_url; it has {' and '.join(names) or 'none'}",
            param,
        )
    name = names[0]
    said = value.get("type")
    kinds = ("text", "input_text") if name == "text" else ("image", "image_url", "input_image")
    if said is not None and said not in kinds:
        raise unprocessable(f"{param}.type does not fit its {name}", f"{param}.type")
    found = value[name]
    if name == "image_url" and isinstance(found, dict):
        found = found.get("url")
    if not isinstance(found, str):
        raise unprocessable(f"{param}.{name} must be a string, not {kind_of(found)}", f"{param}.{name}")
    if name == "text":
        return _text(found, f"{param}.text", limits)
    return _picture(found, f"{param}.{name}", limits)


def _text(value: str, param: str, limits: Limits) -> Text:
    if len(value) > limits.text_characters:
        raise unprocessable(
            f"{param} is a text of {len(value)} characters; at most {limits.text_characters} are accepted", param,
            hint="the model reads the first few dozen words" if not _DATA.match(value) else
            "a picture in base64 is sent as data:image/png;base64,…",
        )  # fmt: skip
    if not is_unicode(value):
        raise unprocessable(f"{param} holds a lone surrogate, which is no character", param)
    if not value.strip():
        raise unprocessable(f"{param} is empty", param)
    return Text(value)


def _picture(value: str, param: str, limits: Limits) -> Bytes | Remote:
    """A data URI, bare base64 as Jina's clients send it, or an address."""
    if _REMOTE.match(value):
        if len(value) > 4096:
            raise unprocessable(f"{param} is an address of more than 4096 characters", param)
        return Remote(value.strip())
    if len(value) * 3 // 4 > limits.picture_bytes + 1024:
        raise too_large(param, limits.picture_bytes)
    scheme = _OTHER_SCHEME.match(value)
    if scheme is not None and not _DATA.match(value):
        raise unprocessable(
            f"{param} begins with {scheme[1]!a}: only data URIs and base64 are taken as pictures", param,
            hint="read the file and send its bytes: data:image/png;base64,…",
        )  # fmt: skip
    try:
        data = data_uri_bytes(value if scheme is not None else f"data:;base64,{value}")
    except PictureError as error:
        hint = (
            error.hint
            if scheme is not None
            else "send data:image/png;base64,…; files are not read by their path"
        )
        raise unprocessable(f"{param}: {error.message}", param, hint=hint, code="invalid_picture") from error
    if len(data) > limits.picture_bytes:
        raise too_large(param, limits.picture_bytes)
    return Bytes(data)


def too_large(param: str, most: int) -> ApiError:
    """A picture's file has too many bytes."""
    return unprocessable(
        f"{param} is a picture of more than {most} bytes",
        param,
        hint="make it smaller",
        code="picture_too_large",
    )
