"""Runs the targets: ``python -m tests.fuzzing --minutes 10`` for long, as the tests do for a few seconds.

Every target runs in a process of its own, whose address space is capped. Faults are kept in a folder, to become
crashers (``tests/data/crashers``), and the table of cases is printed.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fuzzing import Fault, Tally, Target, seeded

ROOT = Path(__file__).parent.parent.parent
MOST_FAULTS = 12  # after which a target stops
HANGS_S = 240  # after which a child is given up, beyond the time it was given
CHATTER = {  # of libraries that cannot be told to be silent, by target
    "artifact head": re.compile("Treating it as an UNUSED piece|before absl::InitializeLog"),
    "tokenizer": re.compile("Treating it as an UNUSED piece|before absl::InitializeLog"),
    "picture": re.compile(r"^\w[\w.]*: "),  # libtiff: the function that met the damage, and what it is
}
CASE_S = 30  # of processor time that one case may take


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing", description=__doc__)
    parser.add_argument("--minutes", type=float, help="in all, shared among the targets")
    parser.add_argument("--cases", type=int, help="of each target; by default as many as in CI")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", action="append", help="this target alone; may be given again")
    parser.add_argument("--artifact", type=Path, help="a small artifact; by default one is exported")
    parser.add_argument("--keep", type=Path, help="folder for faults")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)  # where the child reports
    given = parser.parse_args()
    if given.child is not None:
        return _child(given)
    from tests.fuzzing.targets import NAMES

    wanted = given.target or list(NAMES)
    with tempfile.TemporaryDirectory() as folder:
        artifact = given.artifact or _exported(Path(folder))
        seconds = None if given.minutes is None else given.minutes * 60 / len(wanted)
        tallies = [
            run(name, artifact, seed=given.seed, cases=given.cases, seconds=seconds) for name in wanted
        ]
    print(table(tallies))
    for tally in tallies:
        for fault in tally.faults:
            print(f"\n{tally.target}, seed {given.seed}, case {fault.index}:\n{fault.what}")
            if given.keep is not None:
                keep(fault, given.keep / tally.target.replace(" ", "_"))
    return int(any(tally.faults for tally in tallies))


def table(tallies: list[Tally]) -> str:
    """Cases by reader."""
    rows = [f"{'reader':24} {'cases':>9} {'accepted':>9} {'refused':>9} {'faults':>7}"]
    rows += [f"{t.target:24} {t.cases:9,} {t.accepted:9,} {t.refused:9,} {len(t.faults):7,}" for t in tallies]
    return "\n".join([*rows, f"{'all':24} {sum(t.cases for t in tallies):9,}"])


def keep(fault: Fault, folder: Path) -> None:
    """Write the input of a fault to a file named by its content."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{hashlib.sha256(fault.content).hexdigest()[:12]}.bin").write_bytes(fault.content)


def run(
    name: str, artifact: Path, *, seed: int = 0, cases: int | None = None, seconds: float | None = None
) -> Tally:
    """Run a target in a child; a child that dies leaves the index of the case that it died of."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report"
        command = [sys.executable, "-W", "error", "-m", "tests.fuzzing", "--child", str(report)]
        command += ["--target", name, "--artifact", str(artifact), "--seed", str(seed)]
        command += [] if cases is None else ["--cases", str(cases)]
        command += [] if seconds is None else ["--minutes", str(seconds / 60)]
        environment = {**os.environ, "SIGRUN_CACHE": "off", "TMPDIR": folder}
        tally = Tally(name)
        try:
            limit = (seconds or 0) + HANGS_S
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=limit
            )
        except subprocess.TimeoutExpired:
            tally.faults.append(Fault(int(report.with_suffix(".at").read_text()), "it hangs"))
            return tally
        if report.exists():
            found = json.loads(report.read_text())
            tally = Tally(name, found["accepted"], found["refused"])
            tally.faults = [
                Fault(f["index"], f["what"], bytes.fromhex(f["content"])) for f in found["faults"]
            ]
        lines = (done.stdout + done.stderr).decode(errors="replace").splitlines()
        silly = CHATTER.get(name)
        said = "\n".join(line for line in lines if silly is None or not silly.search(line))
        if done.returncode or said:
            index = report.with_suffix(".at")
            at = int(index.read_text() or -1) if index.exists() else -1
            tally.faults.append(Fault(at, f"exit status {done.returncode}, and it said: {said[:2000]}"))
        return tally


def _exported(folder: Path) -> Path:
    from sigrun_exporters.checkpoint import open_checkpoint
    from sigrun_exporters.export import export
    from tests import checkpoints
    from tests.conftest import UNVERIFIED, roomy

    source = open_checkpoint(str(checkpoints.write(folder / "tiny")))
    return export(source, roomy("q4_k_m"), folder / "models", UNVERIFIED).path


def _child(given: argparse.Namespace) -> int:
    from tests.fuzzing.targets import make

    faulthandler.enable()
    target = make(given.target[0], given.artifact)
    cases = given.cases or (target.pace if given.minutes is None else sys.maxsize)
    end = time.monotonic() + given.minutes * 60 if given.minutes is not None else float("inf")
    tally = Tally(target.name)
    place = Path(tempfile.gettempdir()) / "fuzzed.bin"
    assert target.read(target.sound(), place), "the start is not accepted"
    _cap(target.cap_mib)
    seen: Counter[str] = Counter()
    with given.child.with_suffix(".at").open("w") as at:
        for index in range(cases):
            if time.monotonic() > end or len(tally.faults) >= MOST_FAULTS:
                break
            at.seek(0)
            at.write(f"{index:12}")
            at.flush()
            content = target.case(seeded(target.name, given.seed, index))
            what = _outcome(target, content, place, tally)
            if what is not None:
                kind = "\n".join(line for line in what.split("\n") if line.startswith("  File "))
                seen[kind] += 1
                if seen[kind] == 1:
                    tally.faults.append(Fault(index, what, content))
    found: dict[str, Any] = {"accepted": tally.accepted, "refused": tally.refused}
    found["faults"] = [{"index": f.index, "what": f.what, "content": f.content.hex()} for f in tally.faults]
    given.child.write_text(json.dumps(found))
    return 0


def _outcome(target: Target, content: bytes, place: Path, tally: Tally) -> str | None:
    """Count a case; what went wrong, if something did."""
    _alarm(CASE_S)
    try:
        if target.read(content, place):
            tally.accepted += 1
        else:
            tally.refused += 1
    except Exception:
        lines = traceback.format_exc().rstrip().split("\n")
        lines = [*lines[:6], *lines[-14:]] if len(lines) > 20 else lines
        return "\n".join(line if len(line) < 400 else f"{line[:300]} … {line[-90:]}" for line in lines)
    finally:
        _alarm(0)
    return None


def _cap(mebibytes: int) -> None:
    """Let this process have so much more address space, where the system has such a limit."""
    if sys.platform != "linux":
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (mebibytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _alarm(seconds: int) -> None:
    """Raise TimeoutError after so much processor time."""
    if sys.platform == "win32":
        return
    import signal

    def late(*_: object) -> None:
        raise TimeoutError(f"one case took {seconds} seconds of processor time")

    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)


if __name__ == "__main__":
    sys.exit(main())
