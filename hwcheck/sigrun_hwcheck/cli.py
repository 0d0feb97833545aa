"""The command ``hwcheck``."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from pathlib import Path

from sigrun_hwcheck import report as reports
from sigrun_hwcheck.api import check
from sigrun_hwcheck.memory import TOWER_CHOICES
from sigrun_hwcheck.stored import StoredFileError
from sigrun_hwcheck.verdict import Verdict

FITS, DOES_NOT_FIT, USAGE, CANNOT_TELL, INTERRUPTED = 0, 1, 2, 3, 130

EXIT_CODES: dict[Verdict, int] = {
    "fits": FITS,
    "tight": FITS,
    "does not fit": DOES_NOT_FIT,
    "unknown": CANNOT_TELL,
}

EPILOG = """\
exit codes:
  0   fits. With files: every file does. Without: at least one variant does.
      Judged for both towers (or the --tower asked for) on the CPU, at every
      --batch given, or at 1 if none is given. Tight counts as fitting.
  1   does not fit
  2   wrong usage, or a file that is missing, unreadable or not Sigrun's
  3   cannot tell: the memory needed or free is not known

verdicts:
  fits           even the high end of the prediction leaves a reserve of 5 %
                 (128 MiB to 1 GiB) of the device free
  tight          the best figure fits, but the high end or the reserve does not
  does not fit   the best figure is more than what is free
  unknown        what is free is not known
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; ``argv`` without the program's name. Returns the exit code."""
    _open_streams()
    arguments = _parser().parse_args(argv)
    try:
        report = check(arguments.files, batches=arguments.batch or (), tower=arguments.tower)
        code = EXIT_CODES[report.outcome]
        if arguments.json:
            print(json.dumps(reports.to_json(report, code), indent=2))
        else:
            print(reports.text(report), end="")
        sys.stdout.flush()
    except StoredFileError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint is not None:
            print(f"  hint: {error.hint}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:
        # Whoever read our output has had enough; keep the interpreter from failing on its last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"error: cannot write the output: {error.strerror or error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hwcheck",
        description="Say whether a model fits this machine: which variant, which tower, at which batch size.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="exported .gguf files; none: every variant of the default model, as predicted",
    )
    parser.add_argument(
        "--batch",
        type=_batch,
        action="append",
        metavar="N",
        help="inputs at once; may be given several times (default: 1 and 8, judged at 1)",
    )
    parser.add_argument(
        "--tower",
        choices=TOWER_CHOICES,
        help="look at one tower only, or only at both together (default: all three)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON; sizes in bytes, null is unknown")
    return parser


def _batch(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= 65536:
        raise argparse.ArgumentTypeError(f"'{text}' is no batch size: give a whole number from 1 to 65536")
    return number


def _open_streams() -> None:
    """Make printing safe: closed streams swallow it, and names may hold what a terminal cannot show.

    The same as ``sigrun.cli.shell.open_streams``, which would load numpy and ONNX Runtime here.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 (until exit)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
