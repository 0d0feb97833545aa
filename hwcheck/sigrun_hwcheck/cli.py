"""The command ``hwcheck``."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sigrun.errors import SigrunError
from sigrun.output import refuse_existing
from sigrun_hwcheck.options import (
    DOCTOR,
    DOES_NOT_FIT,
    EXIT_CODES,
    FITS,
    GPUS,
    INTERRUPTED,
    MODELS,
    USAGE,
    check_parser,
    doctor_parser,
    gpus_parser,
    joined,
    models_parser,
)
from sigrun_hwcheck.stored import StoredFileError

if TYPE_CHECKING:
    from sigrun_hwcheck.machine import Machine
    from sigrun_hwcheck.whatif import Supposed


def main(argv: list[str] | None = None) -> int:
    """Run the command; ``argv`` without the program's name. Returns the exit code."""
    _open_streams()
    words = joined(sys.argv[1:] if argv is None else argv)
    if words and words[0] in COMMANDS:
        name = words[0]
        if Path(name).is_file():  # a folder of that name, where exports go by default, is none
            print(
                f"hwcheck: note: '{name}' is the command here, not the file; that is ./{name}",
                file=sys.stderr,
            )
        command_parser, action = COMMANDS[name]
        of_command = command_parser().parse_args(words[1:])
        return _guarded(lambda: action(of_command))
    parser = check_parser()
    arguments = parser.parse_intermixed_args(words)
    problem = _contradiction(arguments)
    if problem is not None:
        parser.error(problem)
    return _guarded(lambda: _measure(arguments) if arguments.measure else _check(arguments))


def _contradiction(arguments: argparse.Namespace) -> str | None:
    """What of the options cannot be meant together, in words."""
    supposed = [o for o in ("ram", "vram", "gpu", "machine") if getattr(arguments, o) is not None]
    if arguments.measure and not arguments.files:
        return "--measure needs a file to run"
    if arguments.measure and supposed:
        return f"--measure runs on this machine: leave --{supposed[0]} away"
    if arguments.measure and (arguments.markdown or arguments.explain or arguments.all):
        return "--measure prints its own table: leave --markdown, --all and --explain away"
    if arguments.force and arguments.save_machine is None:
        return "--force goes with --save-machine: nothing else is written"
    if arguments.measure and arguments.save_machine is not None:
        return "--measure describes no machine: leave --save-machine away"
    if arguments.anyway and not arguments.measure:
        return "--anyway goes with --measure: a check never refuses anything"
    return None


def _guarded(action: Callable[[], int]) -> int:
    """Run a command: an error of ours becomes one plain message on stderr, never a traceback."""
    try:
        code = action()
        sys.stdout.flush()
        return code
    except (StoredFileError, SigrunError) as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint is not None:
            print(f"  hint: {error.hint}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:
        # Whoever read our output has had enough; keep the interpreter from failing on its last flush.
        _leave_stdout()
        return FITS
    except OSError as error:
        _leave_stdout()
        print(f"error: cannot write the output: {error.strerror or error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("hwcheck: interrupted", file=sys.stderr)
        return INTERRUPTED


def _leave_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check(arguments: argparse.Namespace) -> int:
    from sigrun_hwcheck import report as reports
    from sigrun_hwcheck import report_json
    from sigrun_hwcheck.api import check
    from sigrun_hwcheck.whatif import save_file

    if arguments.save_machine is not None:
        refuse_existing(Path(arguments.save_machine), force=arguments.force)
    machine, supposed = _machine(arguments)
    report = check(
        arguments.files,
        batches=arguments.batch or (),
        tower=arguments.tower,
        machine=machine,
        compute=arguments.compute,
        provider=arguments.provider,
        reserve=arguments.reserve,
        supposed=supposed,
    )
    if arguments.save_machine is not None:
        save_file(report.machine, Path(arguments.save_machine), force=arguments.force)
        print(
            f"hwcheck: note: {arguments.save_machine} describes the machine; look at it before you share it",
            file=sys.stderr,
        )
    code = EXIT_CODES[report.outcome]
    if arguments.json:
        _print_json(report_json.to_json(report, code))
    elif arguments.markdown:
        print(reports.markdown(report), end="")
    else:
        print(reports.text(report, full=arguments.all, explain=arguments.explain), end="")
    return code


def _machine(arguments: argparse.Namespace) -> tuple[Machine | None, Supposed]:
    """The machine that is asked about, ``None`` for this one, and what of it is made up."""
    from sigrun_hwcheck.probe import read_machine
    from sigrun_hwcheck.whatif import Supposed, read_file, suppose

    machine = None
    supposed = Supposed()
    if arguments.machine is not None:
        machine = read_file(Path(arguments.machine))
        supposed = Supposed("one described in a file")
    if arguments.ram is not None or arguments.vram or arguments.gpu:
        described = f"{supposed.summary}, but with " if supposed.summary else ""
        machine, supposed = suppose(
            read_machine() if machine is None else machine,
            ram=arguments.ram,
            vram=arguments.vram or (),
            gpus=arguments.gpu or (),
        )
        rest = "; all else as here" if arguments.machine is None else ""
        supposed = replace(supposed, summary=described + supposed.summary + rest)
    return machine, supposed


def _models(arguments: argparse.Namespace) -> int:
    from sigrun_hwcheck import report_models
    from sigrun_hwcheck.models import compare

    machine, supposed = _machine(arguments)
    found = compare(
        arguments.variant,
        tower=arguments.tower,
        batch=arguments.batch,
        machine=machine,
        reserve=arguments.reserve,
        supposed=supposed,
    )
    if arguments.json:
        _print_json(report_models.to_json(found))
    elif arguments.markdown:
        print(report_models.markdown(found), end="")
    else:
        print(report_models.text(found, full=arguments.all), end="")
    return FITS


def _doctor(arguments: argparse.Namespace) -> int:
    from sigrun_hwcheck.doctor import examine, save, text

    if arguments.output is not None:
        refuse_existing(Path(arguments.output), force=arguments.force)  # before seconds are spent
    found = examine(try_providers=not arguments.quick)
    if arguments.output is not None:
        save(found, Path(arguments.output), force=arguments.force)
    if arguments.json:
        _print_json(found.to_json())
    else:
        print(text(found), end="")
    return FITS


def _gpus(arguments: argparse.Namespace) -> int:
    from sigrun_hwcheck import report_gpus
    from sigrun_hwcheck.api import predicted
    from sigrun_hwcheck.gpus import on_cards
    from sigrun_hwcheck.stored import from_file

    files: Sequence[str] = arguments.files
    variants = tuple(from_file(file) for file in files) if files else predicted()
    report = on_cards(variants, arguments.batch, arguments.reserve)
    if arguments.json:
        _print_json(report_gpus.to_json(report))
    elif arguments.markdown:
        print(report_gpus.markdown(report), end="")
    else:
        print(report_gpus.text(report, full=arguments.all), end="")
    return FITS


def _measure(arguments: argparse.Namespace) -> int:
    from sigrun.progress import Progress
    from sigrun_hwcheck import measuring
    from sigrun_hwcheck.probe import read_machine

    progress: Progress | None = None

    def begin(number: int, count: int, words: str) -> None:
        nonlocal progress
        if progress is None:
            progress = Progress("measuring", count, "runs", lines=True)
        progress.label = f"measuring {words}"
        progress.advance(number - progress.done)

    try:
        found = measuring.measure_files(
            arguments.files,
            read_machine(),
            tower=arguments.tower,
            compute=arguments.compute,
            provider=arguments.provider,
            batches=arguments.batch or (),
            anyway=arguments.anyway,
            on_progress=begin,
        )
    finally:
        if progress is not None:
            progress.close()
    if arguments.json:
        _print_json(measuring.to_json(found))
    else:
        print(measuring.text(found), end="")
    return DOES_NOT_FIT if found.failures else FITS


COMMANDS: dict[str, tuple[Callable[[], argparse.ArgumentParser], Callable[[argparse.Namespace], int]]] = {
    GPUS: (gpus_parser, _gpus),
    MODELS: (models_parser, _models),
    DOCTOR: (doctor_parser, _doctor),
}


def _print_json(document: object) -> None:
    print(json.dumps(document, indent=2, allow_nan=False))


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
