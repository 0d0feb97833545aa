"""Whether this process runs in a container or in Windows' Linux, where cards may be hidden from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from sigrun_hwcheck.machine import Surroundings
from sigrun_hwcheck.probe import tree


def read(root: Path, system: str, environ: Mapping[str, str]) -> Surroundings:
    """What this process runs in; a container inside WSL counts as WSL, for that decides where the driver is."""
    if system != "Linux":
        return "native"
    release = tree.text(root / "proc/sys/kernel/osrelease") or ""
    if "microsoft" in release.lower():
        return "wsl2" if "wsl2" in release.lower() or "Microsoft" not in release else "wsl1"
    if tree.there(root / ".dockerenv") or tree.there(root / "run/.containerenv"):
        return "container"
    if environ.get("KUBERNETES_SERVICE_HOST") or environ.get("container"):
        return "container"
    groups = tree.text(root / "proc/1/cgroup") or ""
    return "container" if re.search(r"/(docker|kubepods|lxc|libpod|containerd)", groups) else "native"
