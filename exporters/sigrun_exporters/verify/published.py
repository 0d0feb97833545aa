"""What others published of a checkpoint, to hold an export against: hashes of its files, and an embedding.

None of this has ever been run on the published weights, which could not be had where Sigrun was built. It is here for
whoever has them: every export of a model that is listed looks at it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from sigrun.manifest import Manifest, Source
from sigrun_recipes import KnownModel, known

EMBEDDINGS = "published_so400m.npz"
EMBEDDED = "google/siglip-so400m-patch14-384"
LEAST_COSINE = 0.995
"""With the published embedding, which is by a tower of 8-bit palettised weights and itself at 0.99905 to float16."""
WEIGHTS = ".safetensors"


@dataclass(frozen=True)
class Published:
    """An export held against what is published of its model.

    Attributes:
        model: hub id of the published model.
        revision: the commit that its files are of.
        problems: in which way the source's files are not those; none if they all are.
        cosine: of the export's embedding with the published one; none where there is none to compare.
        problem: what is wrong with the cosine; none if it is near enough.
    """

    model: str
    revision: str
    problems: tuple[str, ...]
    cosine: float | None
    problem: str | None


def published(source: Source) -> KnownModel | None:
    """The model that a checkpoint is or says it is, if hashes of its files are known.

    Either its hub id or folder name says so, or its weights do, whatever they are called.
    """
    for model in known():
        named = source.model in (model.repo, model.repo.split("/")[-1])
        if model.files and (named or _same_weights(source, model)):
            return model
    return None


def check_files(source: Source) -> list[str]:
    """What in a checkpoint differs from the published files of its model; nothing where none are known.

    Args:
        source: the checkpoint's own account, with the hashes of the files that were read.
    """
    model = published(source)
    if model is None:
        return []
    problems = []
    if source.revision is not None and source.revision != model.revision:
        problems.append(f"the revision is {source.revision}; known are the files of {model.revision}")
    for name, sha256 in sorted(source.files.items()):
        wanted = model.files.get(name)
        if wanted is not None and sha256 != wanted:
            problems.append(f"{name} has SHA-256 {sha256}; the published file has {wanted}")
    if not any(name.endswith(WEIGHTS) and name in model.files for name in source.files):
        problems.append("the weights are in no file whose hash is known")
    return problems


def check_embedding(
    vector: Sequence[float] | NDArray[np.float32], least: float = LEAST_COSINE
) -> tuple[float, str | None]:
    """Hold an embedding of the golden picture at 384 pixels by SO400M/14-384 against the published one.

    Args:
        vector: 1152 numbers.
        least: the cosine to reach; the default is for the checkpoint itself and variants that hardly differ from it.

    Returns:
        Their cosine, and what is wrong with it; none if it is near enough.

    Raises:
        ValueError: the vector is not of 1152 numbers.
    """
    with (
        resources.files("sigrun_exporters.verify").joinpath(EMBEDDINGS).open("rb") as file,
        np.load(file) as arrays,
    ):
        wanted = arrays["p8"].astype(np.float64)
    found = np.asarray(vector, np.float64)
    if found.shape != wanted.shape:
        raise ValueError(f"the published embedding has shape {wanted.shape}, this one {found.shape}")
    length = float(np.linalg.norm(found) * np.linalg.norm(wanted))
    if not (np.isfinite(length) and length > 0):
        return 0.0, "the embedding of the golden picture is zero or not finite"
    cosine = round(float(found @ wanted) / length, 8)
    if cosine >= least:
        return cosine, None
    return cosine, (
        f"the golden picture's embedding is at cosine {cosine:.5f} to the published one; it must reach {least:.5f}"
    )


def compared(manifest: Manifest) -> Published | None:
    """Hold an export against what is published; none if nothing is of its model.

    The embedding is compared where the weights are the published ones and the export was verified. Its angle to the
    published one may be larger by the largest that the verification found between the variant and its checkpoint.
    """
    model = published(manifest.source)
    if model is None or model.revision is None:
        return None
    cosine, problem = None, None
    golden = manifest.golden.image if manifest.golden is not None else None
    if golden is not None and model.repo == EMBEDDED and _same_weights(manifest.source, model):
        cosine, problem = check_embedding(golden, _least(manifest))
    return Published(model.repo, model.revision, tuple(check_files(manifest.source)), cosine, problem)


def _same_weights(source: Source, model: KnownModel) -> bool:
    return bool(_weights(model) & set(source.files.values()))


def _weights(model: KnownModel) -> set[str]:
    return {sha256 for name, sha256 in model.files.items() if name.endswith(WEIGHTS)}


def _least(manifest: Manifest) -> float:
    """The cosine that a variant must reach, which may be off from the checkpoint by itself."""
    verification = manifest.verification
    exact = verification.forms.get("exact") if verification is not None else None
    own = exact.cosines.get("image") if exact is not None else None
    if own is None:
        return LEAST_COSINE
    return math.cos(min(math.acos(LEAST_COSINE) + math.acos(min(max(own.worst, -1.0), 1.0)), math.pi))
