"""Targets that are files which users write: descriptions of machines, recipes."""

from __future__ import annotations

import json
import random
import zlib
from pathlib import Path

from sigrun_hwcheck.api import check
from sigrun_hwcheck.machine import Machine, MachineFileError
from sigrun_recipes import RecipeFileError
from sigrun_recipes.recipe import parse
from tests.fuzzing import well_refused
from tests.fuzzing.mutate import hostile, mutated_bytes, mutated_text

DATA = Path(__file__).parent.parent / "data"


class Machines:
    """hwcheck's descriptions of machines, and the verdicts on those that are accepted."""

    name, cap_mib, pace = "machine description", 96, 400

    def __init__(self) -> None:
        found = [json.loads(p.read_text("utf-8")) for p in sorted((DATA / "machines").glob("*.json"))]
        self.seeds = [data for data in found if isinstance(data, dict) and "ram" in data]

    def sound(self) -> bytes:
        return json.dumps(self.seeds[0]).encode()

    def case(self, rng: random.Random) -> bytes:
        return mutated_text(rng.choice(self.seeds), rng).encode("utf-8", "surrogatepass")

    def read(self, content: bytes, place: Path) -> bool:
        try:
            data = json.loads(content)
        except (ValueError, RecursionError):  # which is for the command line to report
            return False
        try:
            machine = Machine.from_json(data)
        except MachineFileError as error:
            return well_refused(error, "", own=True)
        if zlib.crc32(content) % 4 == 0:  # it takes long
            check(machine=machine)
        return True


class Recipes:
    """Recipe files."""

    name, cap_mib, pace = "recipe", 64, 1000

    def __init__(self) -> None:
        folder = Path(__file__).parent.parent.parent / "quant_recipes" / "sigrun_recipes"
        self.seeds = [p.read_bytes() for p in sorted(folder.glob("*.toml")) if p.name != "models.toml"]

    def sound(self) -> bytes:
        return self.seeds[0]

    def case(self, rng: random.Random) -> bytes:
        seed = rng.choice(self.seeds)
        if rng.random() < 0.4:
            return mutated_bytes(seed, rng, front=len(seed))
        lines = seed.decode().split("\n")
        for _ in range(rng.choice((1, 2))):
            at = rng.choice([n for n, line in enumerate(lines) if "=" in line])
            value = json.dumps(hostile(rng), ensure_ascii=False).replace("null", "inf").replace("NaN", "nan")
            lines[at] = f"{lines[at].split('=')[0]}= {value}"
        return "\n".join(lines).encode("utf-8", "surrogatepass")

    def read(self, content: bytes, place: Path) -> bool:
        try:
            parse(content, "recipe.toml")
        except RecipeFileError as error:
            return well_refused(error, "recipe.toml", own=True)
        return True
