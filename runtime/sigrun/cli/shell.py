"""What every command of ours does alike: plain errors, exit codes, one way to print."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

from sigrun import __version__
from sigrun.errors import ProviderWarning, SigrunError

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
EXIT_CODES = "exit codes: 0 done; 1 something failed, the message says what; 2 wrong usage; 130 interrupted"
EXTRAS = {"sigrun-export": "export"}  # what a command needs beside the runtime


class UsageError(SigrunError):
    """The command line asks for something that cannot be meant."""


class Command(Protocol):
    """A module that adds one subcommand, with ``run`` among its defaults."""

    def add_to(self, commands: Any) -> None:
        """Add the command to a parser's subcommands."""


def command_line(program: str, description: str, commands: Sequence[Command]) -> argparse.ArgumentParser:
    """The parser of a program with subcommands; the help of each ends with the exit codes."""
    root = argparse.ArgumentParser(
        program,
        description=description,
        epilog=EXIT_CODES,
        formatter_class=raw_help,
    )
    root.add_argument("-V", "--version", action="version", version=f"{program} {__version__}")
    subparsers = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in commands:
        command.add_to(subparsers)
    for parser in subparsers.choices.values():
        if "exit codes:" not in (parser.epilog or ""):
            parser.epilog = f"{parser.epilog}\n\n{EXIT_CODES}" if parser.epilog else EXIT_CODES
    return root


def run_program(
    program: str, make_parser: Callable[[], argparse.ArgumentParser], argv: Sequence[str] | None
) -> int:
    """As :func:`run_command`, for a parser that is yet to be made: loading the commands takes a while, and an
    interrupt or a missing package is met there as it is later.
    """
    open_streams()
    return guarded(program, lambda: run_command(make_parser(), argv))


def run_command(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Parse a command line and run the subcommand it names; the result is the exit code.

    argparse takes positional arguments in one stretch only. A command that sets the default ``more`` to the name of
    its last positional argument takes the rest of them wherever they stand.
    """
    open_streams()
    if not (sys.argv[1:] if argv is None else argv):  # somebody who looks what there is
        parser.print_help(sys.stderr)
        return USAGE
    arguments, rest = parser.parse_known_args(argv)
    more = getattr(arguments, "more", None)
    if more is not None and not any(word.startswith("-") for word in rest):
        getattr(arguments, more).extend(rest)
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    with _terminated_as_interrupted(), _plain_warnings(parser.prog):
        return guarded(parser.prog, lambda: arguments.run(arguments))


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let a request to end (SIGTERM) clean up as Ctrl-C does; only a program's main thread may ask for that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _plain_warnings(program: str) -> Iterator[None]:
    """Show the runtime's own warnings as notes, without the line of code that they come from.

    Pillow's are not shown: they name no file, and what becomes of a picture is said anyway.
    """
    before = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, ProviderWarning):
            note(program, str(message))
        elif "PIL" not in Path(filename).parts:
            before(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


def open_streams() -> None:
    """Make printing safe: closed streams swallow it, and no character can fail for want of an encoding.

    Standard input that is closed is empty.
    """
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 (until exit)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 (until exit)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def json_line(record: object) -> str:
    """A record as one line of JSON that any encoding of stdout can hold; NaN is refused."""
    return json.dumps(record, ensure_ascii=(sys.stdout.encoding or "").lower() != "utf-8", allow_nan=False)


def guarded(program: str, action: Callable[[], int]) -> int:
    """Run a command: an error of ours becomes one plain message on stderr, never a traceback.

    Returns:
        The exit code: what ``action`` returned, 1 after an error, 2 after wrong usage, 130 after Ctrl-C.
    """
    try:
        code = action()
        sys.stdout.flush()
        return code
    except SigrunError as error:
        complain(program, error)
        return USAGE if isinstance(error, UsageError) else FAILED
    except KeyboardInterrupt:
        print(f"\n{program}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(program, "cpu")
        complain(
            program,
            SigrunError(
                f"the package '{error.name}' is not installed",
                hint=f"pip install 'sigrun[{extra}]' (in a clone: pip install '.[{extra}]')",
            ),
        )
        return FAILED
    except MemoryError:
        complain(program, SigrunError("there is not enough memory", hint="hwcheck says what would fit"))
        return FAILED
    except BrokenPipeError:
        _leave_stdout()
        return FAILED
    except OSError as error:
        _leave_stdout()
        complain(program, SigrunError(f"cannot write the output: {error.strerror or error}"))
        return FAILED


def _leave_stdout() -> None:
    """Point stdout elsewhere after it failed, so that the interpreter's exit does not fail on it again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(program: str, error: SigrunError) -> None:
    """Print an error and its hint on stderr; names of files in them cannot control the terminal."""
    message = "\n".join(map(plain, error.message.split("\n")))
    print(f"{program}: error: {message}", file=sys.stderr)
    if error.hint is not None:
        print(f"  hint: {plain(error.hint)}", file=sys.stderr)


def note(program: str, text: str) -> None:
    """Print on stderr what the user should know though nothing failed."""
    print(f"{program}: note: {plain(text)}", file=sys.stderr)


def plain(text: str) -> str:
    """Text from a file, without characters that would control a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def at_least_one(text: str) -> int:
    """An argparse type: a whole number from 1 to a million."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to a million, not {text!r}")
    return value


def raw_help(prog: str) -> argparse.HelpFormatter:
    """A help formatter that keeps the lines of descriptions and examples and never depends on the terminal."""
    return argparse.RawDescriptionHelpFormatter(prog, width=96)
