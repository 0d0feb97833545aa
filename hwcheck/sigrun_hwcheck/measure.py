"""Measures what a file really takes here: each tower and compute form in a process of its own.

Every run is a fresh interpreter (:mod:`sigrun_hwcheck.measure_child`), so that no peak holds what another left, and one
that the system kills for lack of memory takes nothing along. What was measured goes into the user's cache
(:mod:`sigrun_hwcheck.measured`), and predictions use it from then on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sigrun_hwcheck.conditions import Conditions
from sigrun_hwcheck.constants import Provider, constants
from sigrun_hwcheck.measured import Measured
from sigrun_hwcheck.memory import need
from sigrun_hwcheck.quantities import quantities
from sigrun_hwcheck.stored import Form, Stored
from sigrun_hwcheck.terms import micro_batch
from sigrun_hwcheck.units import size
from sigrun_recipes import TowerName

TIMEOUT_S = 900.0
"""For one run; a card's first session alone can take a minute."""

Start = Callable[[Sequence[str], dict[str, str], float], "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Job:
    """One run. ``cached``: form int8 with its matrices in the cache already."""

    tower: TowerName
    form: Form
    batch: int
    cached: bool = False

    def __str__(self) -> str:
        again = ", from the cache" if self.cached else ""
        return f"{self.tower} tower, {self.form}{again}, batch {self.batch}"


@dataclass(frozen=True)
class Failure:
    """A run that gave no figures, and why, in words."""

    job: Job
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What came of measuring one file."""

    measured: tuple[Measured, ...]
    failures: tuple[Failure, ...]


def jobs(
    stored: Stored,
    provider: Provider,
    *,
    towers: Sequence[TowerName] = (),
    forms: Sequence[Form] = (),
    batches: Sequence[int] = (),
) -> tuple[Job, ...]:
    """What there is to measure: every tower and form, at one item and at as many as the runtime runs at once.

    Larger batches are cut down to the latter. Form ``int8`` comes twice: the first run fills the cache that the next
    ones find.
    """
    known = constants(provider)
    found: list[Job] = []
    for tower in towers or stored.towers:
        for form in stored.forms.get(tower, ()):
            if forms and form not in forms:
                continue
            most = micro_batch(quantities(stored, tower, form), known, form)
            sizes = sorted({min(batch, most) for batch in batches} or {1, most})
            for batch in sizes:
                found.append(Job(tower, form, batch))
                if form == "int8" and provider == "cpu":
                    found.append(Job(tower, form, batch, cached=True))
    return tuple(found)


def measure(
    stored: Stored,
    todo: Sequence[Job],
    provider: Provider,
    where: Conditions,
    *,
    card: str | None = None,
    free_bytes: int | None = None,
    timeout_s: float = TIMEOUT_S,
    on_progress: Callable[[Job], object] | None = None,
    start: Start | None = None,
) -> Outcome:
    """Measure a file.

    Args:
        stored: the file.
        todo: see :func:`jobs`.
        provider: what runs it.
        where: this machine's conditions; ``device`` and ``onnxruntime`` are known.
        card: NVML's number of the card on which memory is measured, ``0.1`` of a slice of one; none where that is main
            memory.
        free_bytes: what is free; runs that need more by prediction are left out and told. None runs everything.
        timeout_s: seconds for one run.
        on_progress: called before each run.
        start: how to run a command; given by tests.

    Raises:
        ValueError: the variant is no file, or the conditions do not name device and version.
    """
    if stored.path is None or stored.weights_sha256 is None:
        raise ValueError(f"{stored.variant} is not exported: there is nothing to measure")
    if where.device is None or where.onnxruntime is None:
        raise ValueError("what was measured must name its device and the version of ONNX Runtime")
    run = _start if start is None else start
    measured, failures = [], []
    for job, environment in _in_order(todo):
        if on_progress is not None:
            on_progress(job)
        too_much = _too_much(stored, job, provider, where, free_bytes)
        if too_much is not None:
            failures.append(Failure(job, too_much))
            continue
        command = _command(stored.path, job, provider, card)
        try:
            seen = _seen(run(command, environment, timeout_s), on_card=card is not None)
        except subprocess.TimeoutExpired:
            failures.append(Failure(job, f"took longer than {timeout_s:g} s and was stopped"))
        except OSError as error:
            failures.append(Failure(job, f"could not be started: {error.strerror or error}"))
        except _FailedError as error:
            failures.append(Failure(job, str(error)))
        else:
            measured.append(_measured(stored.weights_sha256, job, provider, where, seen))
    return Outcome(tuple(measured), tuple(failures))


def _in_order(todo: Sequence[Job]) -> Iterator[tuple[Job, dict[str, str]]]:
    """Each job with its environment. A run from the cache finds what the one before left; others find it empty."""
    with tempfile.TemporaryDirectory(prefix="sigrun-measure-", ignore_cleanup_errors=True) as folder:
        fresh = 0
        for job in todo:
            if not job.cached:
                fresh += 1
            yield job, {**os.environ, "SIGRUN_CACHE": str(Path(folder) / str(fresh))}


def _too_much(
    stored: Stored, job: Job, provider: Provider, where: Conditions, free_bytes: int | None
) -> str | None:
    needed = need(stored, job.tower, job.form, job.batch, provider, where, cached=job.cached)
    if free_bytes is None or needed is None or needed.bytes.best_bytes <= free_bytes:
        return None
    return f"not run: it needs {size(needed.bytes.best_bytes)}, and {size(free_bytes)} is free"


def _command(path: str, job: Job, provider: Provider, card: str | None) -> list[str]:
    command = [sys.executable, "-m", "sigrun_hwcheck.measure_child", path, job.tower, job.form]
    command += ["--batch", str(job.batch), "--provider", provider]
    return command if card is None else [*command, "--card", card]


def _start(
    command: Sequence[str], environment: dict[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(command),
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=timeout_s,
        check=False,
    )


class _FailedError(Exception):
    """A child gave no figures; the message says why."""


def _seen(done: subprocess.CompletedProcess[str], *, on_card: bool) -> dict[str, Any]:
    """What a child printed; on a card with memory of its own, with what it held there.

    Raises:
        _FailedError: it failed, was killed, or printed something else.
    """
    if done.returncode:
        raise _FailedError(_why(done))
    try:
        seen = json.loads(done.stdout)
    except ValueError:
        seen = None
    if not isinstance(seen, dict) or not isinstance(seen.get("load_peak_bytes"), int):
        raise _FailedError("gave no figures: this system does not tell a process's peak")
    if on_card and not isinstance(seen.get("device_bytes"), int):
        raise _FailedError("gave no figures: the driver does not tell what a process holds on the card")
    return seen


def _why(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode in (-9, 137):
        return "was killed by the system, most likely for lack of memory"
    if done.returncode < 0:
        return f"was ended by signal {-done.returncode}"
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"failed with exit code {done.returncode} and said nothing"


def _measured(
    weights_sha256: str, job: Job, provider: Provider, where: Conditions, seen: dict[str, Any]
) -> Measured:
    assert where.device is not None and where.onnxruntime is not None  # checked by the caller
    on_card = provider != "cpu"
    held = seen.get("device_bytes") if on_card else None
    if on_card and held is None:
        held = seen["run_peak_bytes"]
    load_peak, run_peak = (
        (held, held) if held is not None else (seen["load_peak_bytes"], seen["run_peak_bytes"])
    )
    return Measured(
        weights_sha256=weights_sha256,
        tower=job.tower,
        form=job.form,
        provider=provider,
        device=where.device,
        onnxruntime=where.onnxruntime,
        threads=seen["threads"],
        batch=job.batch,
        cached=job.cached,
        base_bytes=0 if on_card else seen["base_bytes"],
        load_peak_bytes=load_peak,
        run_peak_bytes=run_peak,
        mapped_bytes=0 if on_card else seen["mapped_bytes"] or 0,
        load_s=float(seen["load_s"]),
        item_s=float(seen["item_s"]),
    )
