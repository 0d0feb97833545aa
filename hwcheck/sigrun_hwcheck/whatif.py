"""Machines that nobody sits at: with other memory, with another card, or described in a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sigrun.errors import SigrunError
from sigrun.output import finished
from sigrun_hwcheck.cards import CardModel, CardNameError, find
from sigrun_hwcheck.machine import Card, Gpus, Machine, MachineFileError, OnnxRuntime, Ram
from sigrun_hwcheck.speed import CardRates
from sigrun_hwcheck.units import GIB, MIB, size

MOST_FILE_BYTES = 1 << 20

RAM_IN_USE_BYTES, RAM_IN_USE_SHARE = 2 * GIB, 0.5
CARD_IN_USE_BYTES, CARD_IN_USE_SHARE = 512 * MIB, 0.1
"""What the system and other programs are taken to hold of supposed memory, and the share of it that is the most."""

METAL_SHARE = 2 / 3
"""Of main memory, what an Apple chip's graphics are taken to be allowed."""


class WhatIfError(SigrunError):
    """A machine cannot be supposed as asked, or its file cannot be read."""


@dataclass(frozen=True)
class Supposed:
    """What of a machine is made up.

    Attributes:
        summary: in words; empty: nothing.
        keys: of the devices that are made up, by which the answer is judged.
        rates: device key → what a card can do on paper.
    """

    summary: str = ""
    keys: tuple[str, ...] = ()
    rates: tuple[tuple[str, CardRates], ...] = ()


def in_use(total_bytes: int, most_bytes: int, most_share: float) -> int:
    """What is taken to be in use of so much memory."""
    return min(most_bytes, round(total_bytes * most_share))


def card_memory(model: CardModel, gib: int) -> tuple[int, int]:
    """Total and free bytes of a card on paper, of those sizes of main memory that there are where it works in that."""
    total = gib * GIB
    if not model.unified:
        return total, total - in_use(total, CARD_IN_USE_BYTES, CARD_IN_USE_SHARE)
    free = total - in_use(total, RAM_IN_USE_BYTES, RAM_IN_USE_SHARE)
    limit = _limit(model, total)
    return (total, free) if limit is None else (min(total, limit), min(free, limit))


def _limit(model: CardModel, ram: int) -> int | None:
    return round(ram * METAL_SHARE) if model.vendor == "apple" else None


def suppose(
    machine: Machine,
    *,
    ram: int | None = None,
    vram: Sequence[int] = (),
    gpus: Sequence[str] = (),
) -> tuple[Machine, Supposed]:
    """A machine with other memory, other cards, or both.

    Of one card its memory says which of several of that name is meant; without a name it is any card of that memory.
    A card that works in main memory brings that memory with it.

    Args:
        machine: what is not supposed is as there.
        ram: bytes of main memory.
        vram: bytes of each card's memory.
        gpus: names of cards in our table.

    Raises:
        CardNameError: a name means no card of the table, or several.
        WhatIfError: the sizes do not go with the cards.
    """
    if ram == 0 or 0 in vram:
        raise WhatIfError("a machine without memory runs nothing: give a size above 0")
    if gpus and len(vram) not in (0, len(gpus)):
        raise WhatIfError(
            f"{len(gpus)} cards and {len(vram)} sizes: which belongs to which cannot be told",
            hint="give one --vram for each --gpu, or none",
        )
    wanted = [(name, vram[i] if vram else None) for i, name in enumerate(gpus)]
    models = [_model(name, nbytes, ram) for name, nbytes in wanted]
    if len({m.unified for m in models}) > 1 or (len(models) > 1 and models[0].unified):
        raise WhatIfError(
            "a machine whose card works in main memory has one card", hint="ask for each on its own"
        )
    summary, keys = [], []
    if models and models[0].unified:
        ram = _unified_bytes(models[0], ram, vram[0] if vram else None)
    if ram is not None:
        held = in_use(ram, RAM_IN_USE_BYTES, RAM_IN_USE_SHARE)
        machine = replace(machine, ram=Ram(ram, ram - held))
        summary.append(f"{size(ram)} of main memory, {size(held)} of it in use (assumed)")
        if not models or not models[0].unified:
            keys.append("ram")
    # A card's own size is the table's: --vram has said which of that name is meant.
    found = [_card(i, m, ram if m.unified else m.memory_gib[0] * GIB) for i, m in enumerate(models)]
    if not models:
        found = [_card(i, None, nbytes) for i, nbytes in enumerate(vram)]
    if found:
        vendors = [m.vendor for m in models] or ["nvidia"] * len(found)
        machine = _with_cards(machine, list(zip(vendors, found, strict=True)))
        summary += [_in_words(card) for card in found]
        counts: dict[str, int] = {}
        for vendor in vendors:
            keys.append(f"{vendor}:{counts.get(vendor, 0)}")
            counts[vendor] = counts.get(vendor, 0) + 1
    card_keys = [key for key in keys if key != "ram"]
    rates = tuple((key, m.rates) for key, m in zip(card_keys, models, strict=False))
    return machine, Supposed("; ".join(summary), tuple(keys), rates)


def _model(name: str, vram: int | None, ram: int | None) -> CardModel:
    """The card of the table that is meant, by its memory where that is given."""
    nbytes = vram if vram is not None else None
    if nbytes is None:
        try:
            return find(name)
        except CardNameError:
            if ram is None:
                raise
            model = find(name, _gib(ram))  # an M3 of 16 GiB says it by its main memory
            if not model.unified:
                raise
            return model
    return find(name, _gib(nbytes))


def _gib(nbytes: int) -> float:
    """GiB, where makers' GB count as GiB: nobody sells cards by the power of ten."""
    for unit in (GIB, 10**9):
        if nbytes % unit == 0:
            return nbytes // unit
    return nbytes / GIB


def _unified_bytes(model: CardModel, ram: int | None, vram: int | None) -> int:
    if ram is not None and vram is not None and ram != vram:
        raise WhatIfError(f"{model.name} works in main memory: --ram and --vram are the same there")
    asked = ram if ram is not None else vram
    if asked is not None:
        return asked
    if len(model.memory_gib) > 1:
        sizes = " or ".join(f"--ram {gib}GiB" for gib in model.memory_gib)
        raise WhatIfError(
            f"{model.name} works in main memory, of which there are several sizes", hint=f"add {sizes}"
        )
    return model.memory_gib[0] * GIB


def _card(index: int, model: CardModel | None, nbytes: int | None) -> Card:
    """A card with so much memory of its own, or that works in so much main memory."""
    assert nbytes is not None  # the table tells it, or the user did
    if model is not None and model.unified:
        limit = _limit(model, nbytes)
        return Card(
            index,
            model.name,
            None,
            None,
            None,
            model.compute_capability,
            kind="integrated",
            memory="unified",
            shared_total_bytes=limit,
            estimated=True,
        )
    held = in_use(nbytes, CARD_IN_USE_BYTES, CARD_IN_USE_SHARE)
    name = f"a card of {size(nbytes)}" if model is None else model.name
    capability = None if model is None else model.compute_capability
    return Card(index, name, nbytes, nbytes - held, held, capability, estimated=True)


def _in_words(card: Card) -> str:
    if card.total_bytes is None or card.used_bytes is None:
        return f"{card.name}, which works in main memory"
    name = f"{card.name}, " if card.name and not card.name.startswith("a card of") else "a card with "
    return f"{name}{size(card.total_bytes)}, {size(card.used_bytes)} of it in use (assumed)"


def _with_cards(machine: Machine, found: Sequence[tuple[str, Card]]) -> Machine:
    """The machine with these cards alone."""
    by_vendor: dict[str, list[Card]] = {}
    for vendor, card in found:
        of_vendor = by_vendor.setdefault(vendor, [])
        of_vendor.append(replace(card, index=len(of_vendor)))
    gpus = tuple(Gpus(vendor, "ok", None, None, tuple(cards)) for vendor, cards in by_vendor.items())
    apple = "apple" in by_vendor
    # Nothing runs on other vendors' cards in a Mac.
    system = "Darwin" if apple else "Linux" if machine.system == "Darwin" else machine.system
    version = None if machine.onnxruntime is None else machine.onnxruntime.version
    # What is installed here says nothing of a machine with that card.
    runtime = None if version is None else OnnxRuntime(version, ())
    return replace(machine, gpus=gpus, system=system, onnxruntime=runtime, npus=())


def read_file(path: Path) -> Machine:
    """A machine as another run of hwcheck saved it.

    Raises:
        WhatIfError: the file cannot be read, or describes no machine.
    """
    try:
        with path.open("rb") as file:  # which may be a pipe, or endless
            content = file.read(MOST_FILE_BYTES + 1)
        if len(content) > MOST_FILE_BYTES:
            raise WhatIfError(f"{path}: is too large for the description of a machine")
        data = json.loads(content)  # UTF-8, or UTF-16 as PowerShell writes it
        # The JSON of a whole report has the machine in it.
        described = (
            data["machine"] if isinstance(data, dict) and isinstance(data.get("machine"), dict) else data
        )
        return Machine.from_json(described)
    except OSError as error:
        raise WhatIfError(f"{path}: cannot be read: {error.strerror or error}") from error
    except MachineFileError as error:
        raise WhatIfError(
            f"{path}: describes no machine: {error}", hint="hwcheck --save-machine FILE writes such a file"
        ) from error
    except (ValueError, RecursionError) as error:
        raise WhatIfError(
            f"{path}: is no JSON: {error}", hint="hwcheck --save-machine FILE writes such a file"
        ) from error


def save_file(machine: Machine, path: Path, *, force: bool = False) -> None:
    """Write a machine's description: whole or not at all.

    Raises:
        OutputError: the file exists and ``force`` is false, or it cannot be written.
    """
    with finished(path, force=force) as partial:
        partial.write_text(json.dumps(machine.to_json(), indent=2) + "\n", "utf-8")
