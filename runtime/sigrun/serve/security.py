"""Who may talk to the server: the token, the names it answers to, where it may be bound."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import Final

from sigrun.errors import SigrunError
from sigrun.serve.addresses import is_loopback, parse_address
from sigrun.serve.errors import ApiError
from sigrun.serve.settings import ServeSettings

LEAST_TOKEN: Final = 16
OPEN_PATHS: Final = frozenset({"/", "/docs", "/health", "/openapi.json", "/favicon.ico"})
"""What anybody may see: pages and descriptions that hold nothing of the model's user."""

HEADERS: Final = (
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("x-frame-options", "DENY"),
)
_INLINE: Final = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)


class ServeError(SigrunError):
    """A server that would not be safe, or cannot start."""


def check_settings(settings: ServeSettings) -> None:
    """Refuse to start a server that others could use unasked.

    Raises:
        ServeError: it would be reachable without a token, or the token is too short.
    """
    if settings.token is not None and (len(settings.token) < LEAST_TOKEN or not settings.token.isascii()):
        raise ServeError(
            f"the token must be at least {LEAST_TOKEN} ASCII characters",
            hint="make one: python -c 'import secrets; print(secrets.token_urlsafe())'",
        )
    if settings.token is None and not settings.anyone and not is_loopback(settings.host):
        raise ServeError(
            f"host {settings.host} can be reached from other machines, and there is no token",
            hint="give --token-file FILE, or --allow-anyone if everybody who can reach it may use it",
        )


def has_token(header: str | None, token: str) -> bool:
    """Whether an Authorization header holds the token; the time that takes tells nothing of it."""
    scheme, _, given = (header or "").partition(" ")
    expected = hashlib.sha256(token.encode("utf-8")).digest()
    found = hashlib.sha256(given.strip().encode("utf-8", "surrogateescape")).digest()
    return hmac.compare_digest(found, expected) and scheme.lower() == "bearer"


class Names:
    """The names a server answers to. A page on another site can make a browser look up its own name here (DNS
    rebinding), but not make it send another name: names that are not ours are refused, bare addresses are not.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {"localhost", *(name.lower().rstrip(".") for name in names)}

    def check(self, host: str | None, origin: str | None) -> None:
        """Refuse a request that was meant for another name, or sent by a page of another site.

        Raises:
            ApiError: it was.
        """
        if host is None or not self._ours(host):
            raise ApiError(
                421,
                "this server does not answer to that name",
                hint="--allow-host NAME lets it",
                code="wrong_host",
                close=True,
            )
        if origin is not None:
            scheme, _, rest = origin.partition("://")
            if scheme not in ("http", "https") or rest.lower() != host.lower():
                raise ApiError(
                    403, "pages of other sites may not use this server", code="wrong_origin", close=True
                )

    def _ours(self, host: str) -> bool:
        found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)(:\d{1,5})?", host)
        if found is None:
            return False
        name = found[1].lower().strip("[]").rstrip(".")
        return name in self._names or parse_address(name) is not None


def content_policy(page: str) -> str:
    """A Content-Security-Policy by which a page may run what stands in it, ask this server, and nothing else."""
    hashes: dict[str, list[str]] = {"style": [], "script": []}
    for kind, text in _INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
        hashes[kind].append(f"'sha256-{digest}'")
    script, style = (" ".join(found) or "'none'" for found in (hashes["script"], hashes["style"]))
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; img-src blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
