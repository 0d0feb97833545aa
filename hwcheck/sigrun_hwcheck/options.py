"""What the command ``hwcheck`` can be asked: its options and its help."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from sigrun_hwcheck.advice import PREFERRED
from sigrun_hwcheck.memory import TOWER_CHOICES
from sigrun_hwcheck.stored import FORMS
from sigrun_hwcheck.units import parse_size
from sigrun_hwcheck.verdict import Verdict
from sigrun_recipes import names

FITS, DOES_NOT_FIT, USAGE, CANNOT_TELL, INTERRUPTED = 0, 1, 2, 3, 130

EXIT_CODES: dict[Verdict, int] = {
    "fits": FITS,
    "tight": FITS,
    "does not fit": DOES_NOT_FIT,
    "unknown": CANNOT_TELL,
}
GPUS, MODELS, DOCTOR = "gpus", "models", "doctor"

EPILOG = """\
also:
  hwcheck gpus     which graphics cards run each variant (hwcheck gpus --help)
  hwcheck models   which models of the family there are, and which of them fit
  hwcheck doctor   everything that was read of this machine, and what follows

exit codes:
  0   fits. With files: every file does. Without: at least one variant does.
      Judged for both towers (or the --tower asked for) on whatever the runtime
      can use here as things are, one device for itself being enough (or on
      --provider, or on the --ram, --vram or --gpu supposed), at every --batch
      given, or at 1 if none is given. Tight counts as fitting.
  1   does not fit, or a measurement failed
  2   wrong usage, or a file that is missing, unreadable or not Sigrun's
  3   cannot tell: the memory needed or free is not known
  130 interrupted

verdicts:
  fits           even the high end of the prediction leaves the reserve free:
                 --reserve, else 5 % of the device, 128 MiB to 1 GiB
  tight          the best figure fits, but the high end or the reserve does not
  does not fit   the best figure is more than what is free
  unknown        what is free is not known

examples:
  hwcheck                                     every variant, on this machine
  hwcheck model-q4_k_m.gguf --tower image     a file, its image tower only
  hwcheck --gpu "RTX 3060 12GB"               on a card that is not there
  hwcheck --ram 4GiB                          on a machine with less memory
  hwcheck --measure model-q4_k_m.gguf         what it really takes here
"""


def check_parser() -> argparse.ArgumentParser:
    """The parser of a plain check."""
    parser = argparse.ArgumentParser(
        prog="hwcheck",
        description="Say whether a model fits this machine: which variant, which tower, in which form, where.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_files(parser)
    asked = parser.add_argument_group("what is asked")
    asked.add_argument(
        "--batch",
        type=_batch,
        action="append",
        metavar="N",
        help="items handed over at once; may be given several times (default: 1)",
    )
    asked.add_argument(
        "--tower",
        choices=TOWER_CHOICES,
        help="one tower only, or only both together (default: all three)",
    )
    asked.add_argument(
        "--compute",
        choices=("auto", *FORMS),
        default="auto",
        help="compute form (default: auto, what the runtime would take)",
    )
    asked.add_argument(
        "--provider",
        default="auto",
        metavar="NAME",
        help="judge on what this runs on, such as cpu, cuda or cuda:1 (default: auto, whatever is installed)",
    )
    _add_reserve(asked)
    asked.add_argument(
        "--measure",
        action="store_true",
        help="run each tower and form of the files here, and compare with what was predicted",
    )
    asked.add_argument(
        "--anyway", action="store_true", help="with --measure: also run what needs more than is free"
    )
    described = add_supposed(parser)
    described.add_argument(
        "--save-machine",
        metavar="FILE",
        help="write what was read of the machine, for somebody else's --machine",
    )
    described.add_argument(
        "--force", action="store_true", help="with --save-machine: replace the file if it is there"
    )
    shown = _add_shown(parser, full="a table for every device, a line for every tower")
    shown.add_argument(
        "--explain", action="store_true", help="what the needs are made of, and how each part is known"
    )
    return parser


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="exported .gguf files; none: every variant of the default model, as predicted",
    )


def _add_one_batch(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--batch", type=_batch, default=1, metavar="N", help="items handed over at once (default: 1)"
    )


def _add_reserve(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--reserve", type=byte_size, metavar="SIZE", help="memory to leave free of each device; 0 for none"
    )


def _add_shown(parser: argparse.ArgumentParser, *, full: str) -> argparse._ArgumentGroup:
    """Add how an answer is printed; ``full`` says what ``--all`` does. Answers the group."""
    group = parser.add_argument_group("what is shown")
    kind = group.add_mutually_exclusive_group()
    kind.add_argument("--json", action="store_true", help="JSON; sizes in bytes, null is unknown")
    kind.add_argument("--markdown", action="store_true", help="tables in Markdown")
    group.add_argument("--all", action="store_true", help=full)
    return group


def add_supposed(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add options for a machine that is not this one; answers their group."""
    group = parser.add_argument_group(
        "another machine", "SIZE is a number and a unit: 8GiB, 512MiB (powers of 1024), 6GB (powers of 1000)"
    )
    group.add_argument(
        "--ram", type=byte_size, metavar="SIZE", help="as if so much main memory were installed"
    )
    group.add_argument(
        "--vram",
        type=byte_size,
        action="append",
        metavar="SIZE",
        help="as if there were a card with so much memory; with --gpu: which of that name; several times: several",
    )
    group.add_argument(
        "--gpu",
        action="append",
        metavar="NAME",
        help="as if there were this card, from our table; several times: several cards",
    )
    group.add_argument(
        "--machine", metavar="FILE", help="a machine that --save-machine, --json or hwcheck doctor described"
    )
    return group


def gpus_parser() -> argparse.ArgumentParser:
    """The parser of ``hwcheck gpus``."""
    parser = argparse.ArgumentParser(
        prog="hwcheck gpus",
        description="Say which graphics cards run each variant, from our own table of cards: the least memory that a\n"
        "card must have, and what each card could do. Nothing of it was measured on a card.",
        epilog="exit codes: 0 done; 2 wrong usage, or a file that is missing, unreadable or not Sigrun's",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_files(parser)
    asked = parser.add_argument_group("what is asked")
    _add_one_batch(asked)
    _add_reserve(asked)
    _add_shown(parser, full="a line for every card, with its speed, in 100 columns")
    return parser


def models_parser() -> argparse.ArgumentParser:
    """The parser of ``hwcheck models``."""
    parser = argparse.ArgumentParser(
        prog="hwcheck models",
        description="Compare the models of the SigLIP family: how large they are, how good they are said to be, and\n"
        "which of them fit here, so that you can take one that is a size smaller or larger.",
        epilog="exit codes: 0 done; 2 wrong usage, or a machine file that cannot be read",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    asked = parser.add_argument_group("what is asked")
    asked.add_argument(
        "--variant", choices=names(), default=PREFERRED, help=f"how weights are stored (default: {PREFERRED})"
    )
    asked.add_argument(
        "--tower", choices=TOWER_CHOICES, default="both", help="one tower only (default: both together)"
    )
    _add_one_batch(asked)
    _add_reserve(asked)
    add_supposed(parser)
    _add_shown(parser, full="also context lengths and speeds, in 100 columns")
    return parser


def doctor_parser() -> argparse.ArgumentParser:
    """The parser of ``hwcheck doctor``."""
    parser = argparse.ArgumentParser(
        prog="hwcheck doctor",
        description="Print everything that hwcheck reads of this machine, beside what it makes of it. Names, serial\n"
        "numbers, addresses and folders of yours are left out or replaced.",
        epilog="The file of -o is for a bug report and for --machine. Look at it before you share it.\n\n"
        "exit codes: 0 done; 2 wrong usage, or the file cannot be written",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="also write all of it to one file, as JSON")
    parser.add_argument("--force", action="store_true", help="replace the file if it is there")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="do not try whether ONNX Runtime's providers load, which takes seconds and wakes cards",
    )
    parser.add_argument("--json", action="store_true", help="print what -o writes instead of text")
    return parser


def joined(words: Sequence[str]) -> list[str]:
    """The words of a command, a negative value joined to its option: argparse would take ``-3GiB`` for an option, and
    say that the one before it lacks a value."""
    found: list[str] = []
    for word in words:
        if re.match(r"-[0-9.]", word) and found and re.fullmatch(r"--[a-z-]+", found[-1]):
            found[-1] += f"={word}"
        else:
            found.append(word)
    return found


def byte_size(text: str) -> int:
    """An argparse type: a size."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _batch(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0
    if not 1 <= number <= 65536:
        raise argparse.ArgumentTypeError(f"'{text}' is no batch size: give a whole number from 1 to 65536")
    return number
