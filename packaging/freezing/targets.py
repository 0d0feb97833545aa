"""Machines that wheels are gathered for: what pip is told of them, and how their markers evaluate."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass

HERE = "here"
TARGETS = {
    # name: tags that pip takes, newest first; os_name, sys_platform, platform_system, platform_machine
    "linux-x86_64": (
        [
            *(f"manylinux_2_{n}_x86_64" for n in (28, 27, 24, 17, 12, 5)),
            "manylinux2014_x86_64",
            "linux_x86_64",
        ],
        ("posix", "linux", "Linux", "x86_64"),
    ),
    "linux-aarch64": (
        [*(f"manylinux_2_{n}_aarch64" for n in (28, 27, 24, 17)), "manylinux2014_aarch64", "linux_aarch64"],
        ("posix", "linux", "Linux", "aarch64"),
    ),
    "windows-x86_64": (["win_amd64"], ("nt", "win32", "Windows", "AMD64")),
    "windows-arm64": (["win_arm64"], ("nt", "win32", "Windows", "ARM64")),
    "macos-arm64": (
        [f"macosx_{n}_0_{kind}" for n in (14, 13, 12, 11) for kind in ("arm64", "universal2")],
        ("posix", "darwin", "Darwin", "arm64"),
    ),
}
"""Platforms by name. Tags of older systems stand for newer ones too; a machine must be as new as the first."""


@dataclass(frozen=True)
class Target:
    """A machine that wheels are gathered for.

    Attributes:
        platform: a name of TARGETS, or ``here``.
        python: its Python's version, major and minor.
    """

    platform: str
    python: tuple[int, int]

    @staticmethod
    def named(platform_name: str, python: str | None = None) -> Target:
        """The target that a user asked for.

        Args:
            platform_name: a name of TARGETS, or ``here``.
            python: such as ``3.12``; None for this one's.

        Raises:
            ValueError: there is no such platform, or that is no version.
        """
        if platform_name != HERE and platform_name not in TARGETS:
            raise ValueError(
                f"there is no platform '{platform_name}'; there are: {HERE}, {', '.join(TARGETS)}"
            )
        if python is None:
            return Target(platform_name, sys.version_info[:2])
        major, dot, minor = python.partition(".")
        if not (dot and major.isdecimal() and minor.isdecimal()):
            raise ValueError(f"'{python}' is no version of Python such as 3.12")
        if (int(major), int(minor)) < (3, 11):
            raise ValueError(f"Sigrun needs Python 3.11 or newer, not {python}")
        return Target(platform_name, (int(major), int(minor)))

    @property
    def is_here(self) -> bool:
        """Whether this is the kind of machine and Python that runs now."""
        return self.platform == HERE and self.python == sys.version_info[:2]

    @property
    def words(self) -> str:
        """For people."""
        name = f"{platform.system()} {platform.machine()}" if self.platform == HERE else self.platform
        return f"{name}, Python {self.python[0]}.{self.python[1]}"

    def options(self) -> list[str]:
        """What ``pip download`` is told."""
        if self.is_here:
            return []
        major, minor = self.python
        told = ["--implementation", "cp", "--python-version", f"{major}.{minor}"]
        told += ["--abi", f"cp{major}{minor}", "--abi", "abi3", "--abi", "none"]
        if self.platform != HERE:
            told += [word for tag in TARGETS[self.platform][0] for word in ("--platform", tag)]
        return told

    def environment(self) -> dict[str, str]:
        """What markers of requirements are evaluated with; pip takes this machine's, whatever it downloads for."""
        from packaging.markers import default_environment

        found = {key: str(value) for key, value in default_environment().items()}
        if self.python != sys.version_info[:2]:
            version = f"{self.python[0]}.{self.python[1]}"
            found |= {"python_version": version, "python_full_version": f"{version}.0"}
        if self.platform != HERE:
            os_name, sys_platform, system, machine = TARGETS[self.platform][1]
            found |= {"os_name": os_name, "sys_platform": sys_platform, "platform_system": system}
            found |= {"platform_machine": machine, "platform_release": "", "platform_version": ""}
        return found
