"""What ``/v1/search`` is asked for: texts and pictures, each with a weight, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sigrun.serve.body import Fields
from sigrun.serve.errors import unprocessable
from sigrun.serve.items import Item, Text, read_item
from sigrun.serve.settings import Limits

MOST_TERMS: Final = 32
MOST_WEIGHT: Final = 1000.0
TOP: Final = 20
THUMBNAILS: Final = "/v1/search/thumbnails/"


@dataclass(frozen=True)
class Search:
    """``/v1/search``.

    Attributes:
        model: the model asked for, if one was named.
        items: texts and pictures to search for.
        weights: how much each counts; below 0, against.
        many: whether they came as a list.
        top: how many pictures to give.
        threshold: the least probability of each text that counts for.
    """

    model: str | None
    items: list[Item]
    weights: list[float]
    many: bool
    top: int
    threshold: float | None

    @property
    def pictures(self) -> bool:
        """Whether a picture is searched for."""
        return any(not isinstance(item, Text) for item in self.items)


def read_search(body: Mapping[str, Any], limits: Limits) -> Search:
    """A request to search.

    Raises:
        ApiError: it cannot be meant; the message names the field.
    """
    fields = Fields(body)
    model = fields.text("model")
    if not fields.has("query"):
        raise unprocessable("query is missing", "query", hint="give a text or a picture", code="missing")
    query = body["query"]
    many = isinstance(query, list)
    terms = query if many else [query]
    if not 0 < len(terms) <= MOST_TERMS:
        problem = "is empty" if not terms else f"has {len(terms)} terms; at most {MOST_TERMS} are accepted"
        raise fields.fail("query", problem)
    threshold = fields.fraction("threshold")
    top = fields.whole("top") or (TOP if threshold is None else limits.hits)
    if top > limits.hits:
        raise fields.fail("top", f"can be {limits.hits} at most")
    places = [f"query[{number}]" if many else "query" for number in range(len(terms))]
    weights = [_weight(term, place) for term, place in zip(terms, places, strict=True)]
    items = [read_item(term, place, limits) for term, place in zip(terms, places, strict=True)]
    wanted = any(isinstance(item, Text) and weight > 0 for item, weight in zip(items, weights, strict=True))
    if threshold is not None and not wanted:
        raise fields.fail("threshold", "is a probability, which only a text that counts for has")
    return Search(model, items, weights, many, top, threshold)


def _weight(term: Any, place: str) -> float:
    value = term.get("weight") if isinstance(term, dict) else None
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < abs(value) <= MOST_WEIGHT:
        raise unprocessable(
            f"{place}.weight must be a number from -{MOST_WEIGHT:g} to {MOST_WEIGHT:g}, and not 0",
            f"{place}.weight",
        )
    return float(value)
