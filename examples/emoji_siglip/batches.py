"""Sample training batches: several drawings of each of many concepts, one caption a concept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from examples.emoji_siglip.augment import augment
from examples.emoji_siglip.concepts import Captions
from examples.emoji_siglip.drawings import Drawings

VENDOR_WEIGHT = {"fluent-3d": 0.6, "fluent": 0.6, "fluent-flat": 0.6, "emojione": 1.2}
"""The three Fluent sets share their designs, so each counts less; other vendors count 1."""
MAIN_NAME, OTHER_NAME, TAGGED = 0.62, 0.16, 0.15
"""Shares of the kinds of captions; the rest are tags alone."""


@dataclass
class Batch:
    """Pixel values [N, 3, H, W], token ids [M, 64], and which caption describes which picture [N, M]."""

    pixel_values: Tensor
    input_ids: Tensor
    match: Tensor


class Sampler:
    """Draws augmented batches; all chance comes from one generator, so that a run can be resumed exactly."""

    def __init__(self, drawings: Drawings, captions: Captions, ids: Tensor, random: torch.Generator) -> None:
        concepts = len(captions.main)
        self.pixels = torch.from_numpy(drawings.pixels)
        self.table = torch.full((concepts, len(drawings.vendors)), -1)
        concept, vendor = torch.from_numpy(drawings.concept), torch.from_numpy(drawings.vendor)
        self.table[concept, vendor] = torch.arange(len(self.pixels))
        weights = torch.tensor([VENDOR_WEIGHT.get(vendor, 1.0) for vendor in drawings.vendors])
        self.weights = weights * (self.table >= 0)
        self.captions, self.ids, self.random = captions, ids, random
        self.match = torch.zeros(len(captions.texts), concepts, dtype=torch.bool)
        for row, users in enumerate(captions.matches):
            self.match[row, list(users)] = True

    def _caption(self, concept: int, dice: list[float]) -> int:
        """One caption for a concept."""
        kinds = (
            (MAIN_NAME, [self.captions.main[concept]]),
            (OTHER_NAME, self.captions.other[concept]),
            (TAGGED, self.captions.tagged[concept]),
            (1.0, self.captions.tags[concept]),
        )
        at = dice[0]
        for share, choices in kinds:
            if at < share:
                return choices[int(dice[1] * len(choices))] if choices else self.captions.main[concept]
            at -= share
        return self.captions.main[concept]

    def draw(self, concepts: int, views: int) -> Batch:
        """A batch of `concepts` captions and `views` drawings of each, by different vendors if possible."""
        chosen = torch.randperm(len(self.table), generator=self.random)[:concepts]
        noise = -torch.log(torch.rand(self.weights[chosen].shape, generator=self.random).clamp_min(1e-9))
        order = (noise / self.weights[chosen].clamp_min(1e-9)).argsort(1)[:, :views]
        rows = self.table[chosen].gather(1, order)
        rows = torch.where(rows >= 0, rows, rows[:, :1])
        dice = torch.rand(concepts, 2, generator=self.random).tolist()
        texts = torch.tensor([self._caption(c, d) for c, d in zip(chosen.tolist(), dice, strict=True)])
        match = self.match[texts][:, chosen].T.repeat_interleave(views, 0)
        pixel_values = augment(self.pixels[rows.flatten()], self.random)
        return Batch(pixel_values, self.ids[texts], match)
