"""Which provider and compute form to try for a tower, in which order.

``compute="auto"`` is, on the CPU, ``int8`` where the artifact's own verification found it good enough, else ``exact``.
On a GPU it is ``f16`` where that fits into the GPU's free memory, else ``w4f16``, which holds its matrices in 4 bits. A
form that the artifact lacks is passed over.

Free memory is asked of NVIDIA's driver through ``pynvml`` where that is installed. Where it is not known, ``f16`` is
taken for a tower that needs at most ``SMALL_BYTES``, which nearly every GPU has.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass

from sigrun.artifact import Artifact
from sigrun.manifest import TowerName
from sigrun.providers import CPU, Provider, in_order

FORMS = ("exact", "int8", "f16", "w4f16")
WORKING_BYTES = 768 << 20  # of a GPU session beside its weights: CUDA's context, activations of a micro-batch
SMALL_BYTES = 2 << 30


@dataclass(frozen=True)
class Candidate:
    """One way to run a tower."""

    provider: Provider
    form: str


def candidates(artifact: Artifact, tower: TowerName, compute: str, provider: str) -> tuple[Candidate, ...]:
    """The ways to try, at least one.

    Args:
        artifact: the open file.
        tower: the tower, which the file has.
        compute: a compute form, or ``auto``.
        provider: a provider's name, or ``auto``.

    Raises:
        ProviderError: there is no such provider, or ONNX Runtime is missing.
    """
    return tuple(
        Candidate(where, form)
        for where in in_order(provider)
        for form in ((compute,) if compute != "auto" else forms(artifact, tower, where))
    )


def forms(artifact: Artifact, tower: TowerName, provider: Provider) -> tuple[str, ...]:
    """The compute forms to try on a provider, best first, of those that the artifact has."""
    stored = artifact.manifest.graphs[tower]
    wanted = [form for form in provider.forms if form in stored]
    if provider is CPU:
        if not verified(artifact, "int8"):
            wanted = [form for form in wanted if form != "int8"]
        wanted = wanted[:1]  # both run on every CPU
    elif {"f16", "w4f16"} <= set(wanted) and not fits(artifact, tower, free_bytes(provider)):
        wanted.remove("f16")
    return tuple(wanted) or tuple(form for form in FORMS if form in stored)[:1] or ("exact",)


def verified(artifact: Artifact, form: str) -> bool:
    """Whether the artifact's own verification found a form good enough."""
    verification = artifact.manifest.verification
    agreement = None if verification is None else verification.forms.get(form)
    return agreement is not None and agreement.passed


def fits(artifact: Artifact, tower: TowerName, free: int | None) -> bool:
    """Whether a tower in form ``f16`` fits into so many free bytes; none if they are not known."""
    weights = artifact.manifest.graphs[tower]["f16"].weights
    needed = 2 * sum(artifact.tensors[name].size for name in weights) + WORKING_BYTES
    return needed <= (SMALL_BYTES if free is None else free)


def free_bytes(provider: Provider) -> int | None:
    """Free memory of a provider's NVIDIA GPU, if that can be told."""
    if provider.name != "cuda":
        return None
    try:
        nvml = importlib.import_module("pynvml")
        index = _nvml_index(provider.device)
        if index is None:
            return None
        nvml.nvmlInit()
        try:
            return int(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(index)).free)
        finally:
            nvml.nvmlShutdown()
    except Exception:  # not installed, no driver, no such GPU: each in classes of its own
        return None


def _nvml_index(device: int) -> int | None:
    """The driver's number of the GPU that CUDA calls ``device``; none where they cannot be matched."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return device
    listed = [entry.strip() for entry in visible.split(",")]
    return int(listed[device]) if device < len(listed) and listed[device].isdecimal() else None
