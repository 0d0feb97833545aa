"""Visual search: an index of the pictures in a folder, kept up to date, and searched by text and by picture."""

from __future__ import annotations

from sigrun.search.index import Hit, SearchIndex
from sigrun.search.query import Query, Term

__all__ = ["Hit", "Query", "SearchIndex", "Term"]
