"""Concepts and their captions: what every emoji is called, from emoji-datasource and emojibase-data.

A concept is an emoji that Twitter has drawn, without flags and without skin tones. Its evaluation caption is
its CLDR short name ("red apple"); no two are equal after SigLIP's canonicalisation.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from examples.emoji_siglip.fetch import package_root

LEFT_OUT = ("Flags", "Component")
TEMPLATES = (
    "{} emoji",
    "an emoji of {}",
    "a picture of {}",
    "a drawing of {}",
    "this is a photo of {}",
    "{} icon",
)
WIDEST_TAG = 40
"""A tag that more concepts than this share is no caption of its own."""
_SYMBOLS = {"#": "hash", "*": "asterisk", "!": "exclamation", "?": "question"}


@dataclass
class Concept:
    """One emoji: its caption for evaluation, other names, and tags."""

    key: str
    """Code points in lower-case hex joined by "-", without variation selectors."""
    image: str
    """File name of the drawing in emoji-datasource."""
    caption: str
    category: str
    names: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)

    @property
    def slug(self) -> str:
        """File-name form of the caption."""
        return slug(self.caption)


@dataclass
class Captions:
    """All distinct captions, who they describe and how often each concept should use them."""

    texts: list[str]
    matches: list[frozenset[int]]
    """For each text, the concepts it describes."""
    main: list[int]
    """For each concept, the index of its evaluation caption."""
    other: list[list[int]]
    """Other names of each concept."""
    tagged: list[list[int]]
    """Name-and-tag and template captions of each concept."""
    tags: list[list[int]]
    """Captions that are a tag alone, perhaps shared with other concepts."""


def key_of(code_points: str) -> str:
    """Normal form of a code point sequence."""
    parts = [part.lower().lstrip("0") for part in code_points.split("-")]
    return "-".join(part for part in parts if part != "fe0f")


def slug(text: str) -> str:
    """Lower-case words joined by "-"."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("&", "and").replace("’", "")).strip("-")


def canonical(text: str) -> str:
    """SigLIP's canonicalisation as transformers' SiglipTokenizer does it."""
    text = text.translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\s+", " ", text).strip().lower()


def _clean(text: str) -> str:
    """A name without typographic marks, so that canonicalisation glues no words together."""
    for mark, word in _SYMBOLS.items():
        if text.endswith(f": {mark}"):
            text = text[: -len(mark)] + word
    text = text.replace("’", "'").replace("“", "").replace("”", "").replace("_", " ").replace("-", " ")
    return re.sub(r"\s+", " ", text).strip().lower()


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def load_concepts(data: Path) -> list[Concept]:
    """All concepts, in the order of the Unicode emoji list."""
    rows: list[dict[str, Any]] = read_json(package_root(data, "twitter") / "emoji.json")
    base_rows = read_json(package_root(data, "emojibase") / "en" / "data.json")
    base: dict[str, dict[str, Any]] = {key_of(row["hexcode"]): row for row in base_rows}
    concepts: list[Concept] = []
    for row in sorted(rows, key=lambda row: row["sort_order"]):
        if not row["has_img_twitter"] or row["category"] in LEFT_OUT:
            continue
        key = key_of(row["unified"])
        entry = base[key]
        concept = Concept(key, row["image"], _clean(entry["label"]), row["category"])
        names = [_clean(row["name"] or ""), *(_clean(name) for name in row["short_names"])]
        concept.names = [name for name in dict.fromkeys(names) if canonical(name) and name != concept.caption]
        tags = dict.fromkeys(_clean(tag) for tag in entry.get("tags", []))
        concept.tags = [tag for tag in tags if canonical(tag)]
        concepts.append(concept)
    counts = Counter(canonical(concept.caption) for concept in concepts)
    clashes = [concept.caption for concept in concepts if counts[canonical(concept.caption)] > 1]
    if clashes:
        raise ValueError(f"captions that canonicalisation makes equal: {clashes}")
    return concepts


def build_captions(concepts: list[Concept]) -> Captions:
    """Index every caption and find out which concepts each of them describes."""
    tag_users: defaultdict[str, set[int]] = defaultdict(set)
    for index, concept in enumerate(concepts):
        for tag in concept.tags:
            tag_users[canonical(tag)].add(index)
    index_of: dict[str, int] = {}
    users: list[set[int]] = []

    def add(text: str, concept: int) -> int:
        position = index_of.setdefault(text, len(index_of))
        if position == len(users):
            users.append(set())
        users[position].add(concept)
        return position

    captions = Captions([], [], [], [], [], [])
    for index, concept in enumerate(concepts):
        captions.main.append(add(canonical(concept.caption), index))
        captions.other.append([add(canonical(name), index) for name in concept.names])
        tagged = [f"{concept.caption} {tag}" for tag in concept.tags]
        tagged += [template.format(concept.caption) for template in TEMPLATES]
        captions.tagged.append([add(canonical(text), index) for text in tagged])
        narrow = [tag for tag in concept.tags if len(tag_users[canonical(tag)]) <= WIDEST_TAG]
        captions.tags.append([add(canonical(tag), index) for tag in narrow])
    captions.texts = list(index_of)
    for text, concept_ids in zip(captions.texts, users, strict=True):
        concept_ids |= tag_users.get(text, set())
    captions.matches = [frozenset(concept_ids) for concept_ids in users]
    return captions
