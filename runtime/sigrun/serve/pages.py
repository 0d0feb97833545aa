"""The static pages, read once, with the policy that each is sent with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sigrun.serve.security import content_policy


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        html: all of it; it loads nothing else.
        policy: its Content-Security-Policy.
    """

    html: str
    policy: str


@cache
def page(name: str) -> Page:
    """A page of this package: ``playground`` or ``docs``."""
    html = Path(__file__).with_name(f"{name}.html").read_text("utf-8")
    return Page(html, content_policy(html))
