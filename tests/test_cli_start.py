"""What lies around a command: interrupts while it loads, standard input that is closed, decoders that talk."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import checkpoints

APPLE = str(checkpoints.ROOT / "examples" / "emoji_siglip" / "heldout" / "demo" / "red-apple.png")
INTERRUPTED = """
import sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == "numpy":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from {module} import main

sys.exit(main({words}))
"""


@pytest.mark.parametrize(
    ("program", "module", "words"),
    [("sigrun", "sigrun.cli", ["info", "x.gguf"]), ("sigrun-export", "sigrun_exporters.cli", ["recipes"])],
)
def test_an_interrupt_while_the_commands_load_is_one_line(
    program: str, module: str, words: list[str]
) -> None:
    code = INTERRUPTED.format(module=module, words=words)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == f"\n{program}: interrupted\n"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["classify", "MODEL", "--from", "-", "--label", "owl"], 1, "the list of pictures is empty"),
        (["classify", "MODEL", "@-", "--label", "owl"], 1, "the list of pictures is empty"),
        (["classify", "MODEL", APPLE, "--labels", "-"], 2, "there are no labels"),
        (["embed", "MODEL", "--texts", "-"], 1, "the list is empty"),
    ],
)
def test_standard_input_that_is_closed_is_empty(
    words: list[str], code: int, says: str, emoji_q4: Path
) -> None:
    given = ["sigrun", *(str(emoji_q4) if word == "MODEL" else word for word in words)]
    script = (
        f"import sys; sys.stdin = None; sys.argv = {given!r}\nfrom sigrun.cli import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("sigrun: error: ")
    assert says in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="libtiff's functions are not to be had there")
def test_decoders_write_nothing_of_their_own(emoji_q4: Path, tmp_path: Path) -> None:
    """A spoiled fax is a line of libtiff's for each of its lines, and Pillow warns of tags."""
    noise = np.random.default_rng(0).integers(0, 2, (64, 64), np.uint8) * 255
    for name, at in (("fax.tif", slice(20, 400)), ("tag.tif", slice(-30, -10))):
        with BytesIO() as file:
            Image.fromarray(noise).convert("1").save(file, "TIFF", compression="group4")
            data = bytearray(file.getvalue())
        data[at] = b"\x55" * len(data[at])
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-m", "sigrun", "classify", str(emoji_q4), str(tmp_path), "--label", "owl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(str(tmp_path / "fax.tif"))
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"sigrun: error: {tmp_path / 'tag.tif'} cannot be decoded")
