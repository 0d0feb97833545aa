"""Data URIs (RFC 2397), the way in which web pages and chat APIs hand a picture over inside a text."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from typing import Final
from urllib.parse import unquote_to_bytes

from sigrun.errors import PictureError

NAME: Final = "<data URI>"  # in messages: the text itself may be megabytes long
MOST_CHARACTERS: Final = 1 << 26  # 48 MiB of picture in base64
_SCHEME: Final = re.compile(r"\s*data:", re.IGNORECASE)
_WHITESPACE: Final = re.compile(rb"\s+")
_LONGEST_HEADER: Final = 1000


def is_data_uri(text: str) -> bool:
    """Whether a text is meant as a data URI rather than as a path."""
    return _SCHEME.match(text) is not None


def data_uri_bytes(uri: str) -> bytes:
    """The bytes that a data URI holds. What it says of their type is not looked at: the bytes tell.

    Base64 is taken in both alphabets, with or without its padding, with whitespace in it, and percent-encoded.

    Raises:
        PictureError: it is malformed, or longer than :data:`MOST_CHARACTERS`.
    """
    if len(uri) > MOST_CHARACTERS:
        raise PictureError(
            f"{NAME} of {len(uri) / 1e6:.0f} million characters; at most {MOST_CHARACTERS / 1e6:.0f} million are "
            "accepted",
            hint="give the file or its bytes",
        )
    begin = uri.index(":") + 1
    comma = uri.find(",", begin, begin + _LONGEST_HEADER)
    if comma < 0:
        raise PictureError(
            f"{NAME} has no comma between its header and its data", hint="write data:image/png;base64,…"
        )
    try:
        data = uri[comma + 1 :].encode("utf-8")
    except UnicodeEncodeError as error:
        raise PictureError(f"{NAME} holds characters that are no text") from error
    in_base64 = uri[begin:comma].rpartition(";")[2].strip().lower() == "base64"
    if not in_base64:
        return unquote_to_bytes(data)
    if b"%" in data:
        data = unquote_to_bytes(data)
    data = _WHITESPACE.sub(b"", data).replace(b"-", b"+").replace(b"_", b"/").rstrip(b"=")
    try:
        return b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise PictureError(
            f"{NAME} holds broken base64: {_why(data)}",
            hint="it may have been cut short or changed on the way",
        ) from error


def _why(data: bytes) -> str:
    stranger = re.search(rb"[^A-Za-z0-9+/]", data)
    if stranger is not None:
        return f"character {stranger.start() + 1} is {chr(stranger.group()[0])!a}"
    return "its last character stands alone"
