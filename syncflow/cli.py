"""The command line: options, errors and exit codes; the commands are in `syncflow.commands`.

A mistake of the user's is one line on stderr and exit code 2; Ctrl-C is one line and 130. Handlers
import what they need when they run, so that ``--help`` and mistakes answer at once.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from types import ModuleType
from typing import NoReturn

from syncflow import extras, faults, terminal
from syncflow.commands import demo, generate, impacts, import_, info, prepare, serve, train
from syncflow.commands.evaluate import (
    accelerations,
    calibrate,
    contacts,
    continuation,
    counterfactual,
    diversity,
    export,
    fit,
    lengths,
    paper,
    preview,
    redraw,
    suite,
    sweep,
    sync,
)

_USER_ERRORS = (ValueError, OSError, ModuleNotFoundError)
_EXIT_USER_ERROR = 2

_COMMANDS: dict[str, ModuleType] = {
    "generate": generate,
    "prepare": prepare,
    "train": train,
    "demo": demo,
    "serve": serve,
    "info": info,
}
_GROUPS: dict[str, tuple[str, dict[str, ModuleType]]] = {
    "data": ("make training data", {"impacts": impacts}),
    "import": ("make a model from published weights", {"opensora": import_}),
    "evaluate": (
        "measure a model",
        {
            "sync": sync,
            "suite": suite,
            "paper": paper,
            "preview": preview,
            "sweep": sweep,
            "accelerations": accelerations,
            "calibrate": calibrate,
            "contacts": contacts,
            "continuation": continuation,
            "counterfactual": counterfactual,
            "diversity": diversity,
            "export": export,
            "fit": fit,
            "lengths": lengths,
            "redraw": redraw,
        },
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the process's exit code."""
    terminal.catch_interrupts()
    try:
        with terminal.outliving_readers():
            return _run(list(sys.argv[1:] if argv is None else argv))
    finally:
        terminal.let_interrupts_go()


def _run(argv: list[str]) -> int:
    _let_waiting_threads_sleep()
    if argv[:1] == ["evaluate"] and any(word.split("=")[0] == "--suite" for word in argv[1:2]):
        argv.insert(1, "suite")  # the short way to say it
    debug = "--debug" in argv
    try:
        args = _parser().parse_args(argv)
        code = args.handler(args) or 0
        if sys.stdout is not None:
            sys.stdout.flush()  # a full disk is heard of here
        return code
    except KeyboardInterrupt:
        if debug:
            raise
        return _interrupted()
    except Exception as error:
        if terminal.interrupted() and not debug:
            return _interrupted()
        out_of_memory = faults.out_of_memory(error)
        if debug or not (isinstance(error, _USER_ERRORS) or out_of_memory):
            raise
        if out_of_memory:
            error = ValueError("out of memory: ask for fewer prompts or takes, or a smaller size")
        return _fail(_one_line(error), _EXIT_USER_ERROR)


def _let_waiting_threads_sleep() -> None:
    """Keeps torch's threads from spinning at barriers, unless the user has said how they wait.

    With more runnable threads than cores a spinning thread holds up the one that it waits for: two
    threads on two busy cores took 7 to 36 s for a clip that takes 2 s this way. OpenMP reads the
    variable once, when torch is imported.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class _Parser(argparse.ArgumentParser):
    """argparse's errors in the form of all others: one line that says what to do."""

    def error(self, message: str) -> NoReturn:
        found = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message)
        if found:
            message += _did_you_mean(found[1], re.findall(r"[\w.-]+", found[2]))
            if self.prog == "syncflow" and " " in found[1]:
                what = f"syncflow generate {found[1]!r}"
                message = f"{found[1]!r} is not a command; did you mean {what}?"
        raise ValueError(f"{message} (see {self.prog} --help)")

    def parse_known_args(  # type: ignore[override]  # no other kind of namespace is filled
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        # argparse leaves unknown options of a command to the parser of all commands, whose help
        # does not list those that exist.
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            known = [flag for flag in self._option_string_actions if flag.startswith("--")]
            hint = _did_you_mean(rest[0].partition("=")[0], known)
            self.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
        return found, rest


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _interrupted() -> int:
    terminal.answer_interrupt()
    print(terminal.INTERRUPTED, file=sys.stderr)
    return terminal.EXIT_INTERRUPTED


def _fail(message: str, code: int) -> int:
    print(f"syncflow: error: {message}", file=sys.stderr)
    return code


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.strerror}: '{error.filename}'"
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and not missing.startswith("syncflow"):
        text += "" if "pip install" in text else f": {extras.advice(missing)}"
    return text or type(error).__name__


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _parser() -> argparse.ArgumentParser:
    # On the sub-commands the flag is read from argv, so that it may stand on either side of them.
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser: argparse.ArgumentParser = _Parser(
        prog="syncflow",
        description="Generates video and audio together, in sync, from one sentence.",
        epilog='example: syncflow generate "a metal ball bounces twice on concrete" -o clip.mp4',
        parents=[common],
    )
    parser.add_argument("--version", action=_Version, help="print the version and stop")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")

    def add(
        within: argparse._SubParsersAction[argparse.ArgumentParser], name: str, command: ModuleType
    ) -> None:
        child = within.add_parser(
            name,
            help=command.SUMMARY,
            description=_sentence(command.SUMMARY),
            epilog=f"example: {command.EXAMPLE}",
            parents=[common],
        )
        child.set_defaults(handler=command.run)
        command.add_arguments(child)

    for name, command in _COMMANDS.items():
        add(commands, name, command)
    for name, (what, members) in _GROUPS.items():
        group = commands.add_parser(name, help=what, description=_sentence(what), parents=[common])
        members_of = group.add_subparsers(metavar="WHAT", required=True, dest=name)
        for member, command in members.items():
            add(members_of, member, command)
    return parser


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> None:
        from syncflow import __version__

        print(f"syncflow {__version__}")
        parser.exit()
