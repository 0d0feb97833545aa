"""Sentences to put labels into.

A label alone is seldom how a picture was captioned, so a sentence around it often serves better, and the mean over many
sentences better still. ``{}`` is where the label goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from sigrun.errors import TextError

PLACE = "{}"

IMAGENET_80: tuple[str, ...] = (
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a plushie {}.",
    "a photo of the nice {}.",
    "a photo of the small {}.",
    "a photo of the weird {}.",
    "the cartoon {}.",
    "art of the {}.",
    "a drawing of the {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "the plushie {}.",
    "a dark photo of a {}.",
    "itap of a {}.",
    "graffiti of the {}.",
    "a toy {}.",
    "itap of my {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "a tattoo of the {}.",
)
"""The 80 sentences that CLIP was evaluated with on ImageNet, in OpenAI's order, as OpenCLIP has them."""

ENSEMBLES: Mapping[str, tuple[str, ...]] = MappingProxyType({"imagenet80": IMAGENET_80})
"""Lists of templates by name."""


def chosen(template: str, templates: Sequence[str] | None) -> tuple[str, ...]:
    """The templates that a caller means by one of two arguments.

    Raises:
        TextError: both are given, the list is empty or no list, or a template has no place for the label.
    """
    if templates is None:
        listed: tuple[str, ...] = (template,)
    elif template != PLACE:
        raise TextError(
            "template and templates are both given, and only one can be meant",
            hint="put all of them into templates",
        )
    elif isinstance(templates, str):
        raise TextError(
            "templates must be a list of sentences, not one sentence", hint=f"write [{templates!r}]"
        )
    else:
        listed = tuple(templates)
    if not listed:
        raise TextError("the list of templates is empty", hint='give at least one, such as "a photo of {}"')
    for each in listed:
        if not isinstance(each, str):
            raise TextError(f"a template must be a text, not {each!r}")
        if PLACE not in each:
            raise TextError(f"the template {each!r} has no {{}} where the label would go")
    return listed
