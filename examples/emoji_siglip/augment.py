"""Turn cached RGBA drawings into model inputs, varied afresh each time, all in vectorised torch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from torch import Tensor

IMAGE = 60
"""Side of the pictures the model sees."""


def _uniform(rows: int, low: float, high: float, random: torch.Generator) -> Tensor:
    """Uniform numbers of shape [rows]."""
    return torch.empty(rows).uniform_(low, high, generator=random)


def _chance(rows: int, probability: float, random: torch.Generator) -> Tensor:
    """True with the given probability, shape [rows, 1, 1, 1]."""
    return (torch.rand(rows, generator=random) < probability).view(-1, 1, 1, 1)


def _place(drawings: Tensor, random: torch.Generator) -> Tensor:
    """Scale, turn, shear and shift at random while resampling premultiplied RGBA to IMAGE pixels."""
    rows = len(drawings)
    scale = _uniform(rows, 0.82, 1.22, random)
    aspect = torch.exp(_uniform(rows, -0.12, 0.12, random))
    widest = torch.where(torch.rand(rows, generator=random) < 0.85, 0.14, 0.45)
    angle = _uniform(rows, -1, 1, random) * widest
    shear = _uniform(rows, -0.15, 0.15, random)
    cos, sin = torch.cos(angle), torch.sin(angle)
    theta = torch.zeros(rows, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = scale * aspect * cos, -scale * sin + shear
    theta[:, 1, 0], theta[:, 1, 1] = scale * sin, scale / aspect * cos
    theta[:, :, 2] = torch.empty(rows, 2).uniform_(-0.13, 0.13, generator=random)
    grid = functional.affine_grid(theta, [rows, 4, IMAGE, IMAGE], align_corners=False)
    return functional.grid_sample(drawings, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _grounds(rows: int, random: torch.Generator) -> Tensor:
    """Backgrounds: half white or nearly so, the rest one colour or a gradient between two."""
    colours = torch.rand(rows, 2, 3, 1, 1, generator=random)
    tint = 0.12 * torch.rand(rows, 3, 1, 1, generator=random)
    pale = 1 - tint * _chance(rows, 0.5, random)
    direction = _uniform(rows, 0, 2 * math.pi, random).view(-1, 1, 1)
    axis = torch.linspace(-0.7, 0.7, IMAGE)
    ramp = torch.cos(direction) * axis.view(1, 1, -1) + torch.sin(direction) * axis.view(1, -1, 1)
    ramp = (ramp * 0.5 + 0.5).clamp(0, 1).unsqueeze(1) * _chance(rows, 0.5, random)
    gradient = colours[:, 0] * (1 - ramp) + colours[:, 1] * ramp
    return torch.where(_chance(rows, 0.55, random), pale.expand_as(gradient), gradient)


def _recolour(pixels: Tensor, random: torch.Generator) -> Tensor:
    """Turn the hue, change saturation, brightness and contrast of RGB in 0..1; some lose all colour."""
    rows = len(pixels)
    wide = torch.rand(rows, generator=random) < 0.1
    hue = torch.randn(rows, generator=random) * torch.where(wide, 0.9, 0.12)
    cos, sin = torch.cos(hue), torch.sin(hue)
    third, root = (1 - cos) / 3, sin / math.sqrt(3)
    same, left, right = cos + third, third - root, third + root
    turn = torch.stack([same, left, right, right, same, left, left, right, same], 1).view(rows, 3, 3)
    saturation = _uniform(rows, 0.6, 1.5, random)
    saturation[torch.rand(rows, generator=random) < 0.06] = 0.0
    grey = torch.tensor([0.299, 0.587, 0.114]).expand(3, 3)
    keep = saturation.view(-1, 1, 1)
    turn = (keep * torch.eye(3) + (1 - keep) * grey) @ turn
    contrast = _uniform(rows, 0.75, 1.25, random).view(-1, 1, 1)
    shift = (0.5 - 0.5 * contrast) + _uniform(rows, -0.12, 0.12, random).view(-1, 1, 1)
    mixed = torch.baddbmm(shift.expand(rows, 3, 1), contrast * turn, pixels.flatten(2))
    mixed = mixed.clamp_(0, 1).view_as(pixels)
    return mixed


def _soften(pixels: Tensor, random: torch.Generator) -> Tensor:
    """Blur some pictures and sharpen some others, each by its own amount."""
    chosen = (torch.rand(len(pixels), generator=random) < 0.4).nonzero().squeeze(1)
    sharp = pixels[chosen]
    blurred = functional.avg_pool2d(sharp, 3, stride=1, padding=1, count_include_pad=False)
    amount = _uniform(len(chosen), -0.6, 0.9, random).view(-1, 1, 1, 1)
    pixels[chosen] = torch.lerp(sharp, blurred, amount).clamp_(0, 1)
    return pixels


def _cover(pixels: Tensor, random: torch.Generator) -> Tensor:
    """Hide one random rectangle of some pictures behind a colour."""
    rows = len(pixels)
    axis = torch.arange(IMAGE).view(1, -1)
    inside = []
    for _ in range(2):
        centre = _uniform(rows, 0, IMAGE, random).view(-1, 1)
        half = _uniform(rows, 3, 11, random).view(-1, 1)
        inside.append((axis - centre).abs() < half)
    mask = (inside[0].unsqueeze(1) & inside[1].unsqueeze(2)).unsqueeze(1) & _chance(rows, 0.25, random)
    return torch.where(mask, torch.rand(rows, 3, 1, 1, generator=random), pixels)


def augment(drawings: Tensor, random: torch.Generator) -> Tensor:
    """uint8 straight RGBA [N, H, W, 4] -> float pixel values in -1..1, [N, 3, IMAGE, IMAGE]."""
    rgba = drawings.permute(0, 3, 1, 2).float().div_(255)
    alpha = rgba[:, 3:]
    colour = _recolour(rgba[:, :3], random)
    placed = _place(torch.cat([colour * alpha, alpha], 1), random)
    pixels = placed[:, :3] + (1 - placed[:, 3:]) * _grounds(len(drawings), random)
    pixels = _cover(_soften(pixels.clamp_(0, 1), random), random)
    return pixels * 2 - 1
