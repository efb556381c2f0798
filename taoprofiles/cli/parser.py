"""The verbs, and the way from a command line to one of them. Only the verb that is asked for is loaded."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from taoprofiles.cli import output
from taoprofiles.cli.result import Result
from taoprofiles.errors import TaoprofError, UsageError
from taoprofiles.storage import locks
from taoprofiles.storage.paths import Context
from taoprofiles.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any, NoReturn

GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "switch": {
        "use": ("switch", "switch ~/.tao_mounts.json to a profile"),
        "undo": ("switch", "put back what the last change replaced"),
        "history": ("switch", "list every mapping and profile change"),
    },
    "train": {
        "run": ("run", "run a command with a profile, beside all others"),
        "shell": ("run", "open a shell with a profile, beside all others"),
        "holds": ("run", "list what is alive and needs a mapping"),
        "hold": ("run", "hold the mapping file by hand"),
        "release": ("run", "let go of a hold"),
        "stop": ("run", "stop one run"),
        "why": ("run", "tell which run wrote a folder"),
        "render": ("render", "write a profile for docker run, compose, Kubernetes or Slurm"),
    },
    "guard": {
        "service": ("service", "have the mapping file guarded: a service of your systemd"),
        "daemon": ("service", "guard the mapping file, in the foreground"),
    },
    "look": {
        "list": ("show", "list the profiles"),
        "current": ("status", "name the active profile"),
        "status": ("status", "tell what the mapping file holds, and why"),
        "show": ("show", "show all that a profile comes to"),
        "check": ("check", "tell what the launcher will do, and what is wrong with that"),
        "diff": ("show", "compare a profile with the file, or two profiles"),
        "path": ("path", "translate a path from this host to the container, or back"),
        "paths": ("show", "tell where everything is kept"),
        "doctor": ("doctor", "tell what is wrong on this machine, and the command that mends it"),
    },
    "make": {
        "new": ("make", "make a profile for a project folder"),
        "save": ("make", "make a profile of the mapping file as it is"),
        "import": ("import_", "make a profile of a notebook, a script, a mounts file or an export"),
        "export": ("make", "write a profile out, without its secrets"),
        "edit": ("make", "edit a profile in $EDITOR"),
        "set": ("make", "set keys and variables of a profile"),
        "copy": ("make", "copy a profile"),
        "rename": ("make", "give a profile another name"),
        "remove": ("make", "take a profile away (the history keeps it)"),
    },
    "shell": {
        "env": ("integrate", "print a profile's variables for a shell, a program or a notebook"),
        "completion": ("integrate", "print the completion script of a shell"),
        "schema": ("integrate", "print the JSON Schema of a profile file"),
    },
}
"""By group: the verb, the module in ``commands/`` that has it, and what it does."""

TAKES_COMMAND = {
    "run": "taoprof run NAME [option …] -- COMMAND …",
    "check": "taoprof check [NAME] [option …] [-- COMMAND …]",
    "render": "taoprof render NAME --to TARGET [option …] [-- COMMAND …]",
}
"""Verbs behind whose ``--`` stands a command that is none of ours to read, and their usage."""

READ_BY_PROGRAMS = ("current", "path", "env", "export", "render", "completion", "schema", "daemon")
"""Verbs whose answers go into a prompt, a shell or a file, and whose messages may never be seen."""

VERBS = {verb: place for group in GROUPS.values() for verb, place in group.items()}

STATUSES = """\
exit status: 0 done or nothing to do · 1 failed · 2 usage · 3 invalid profile or state · 4 no such profile or entry ·
5 held · 6 differs (diff, status --check) · 7 busy · 8 another guard is at work · 128+n signal n"""


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, width=100)  # asking for the terminal's width loads shutil: 3 ms at every start


class Parser(argparse.ArgumentParser):
    """argparse, with its complaints raised as ours."""

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        # argparse takes a second -- away from the argument that it was given as, and leaves that one without a value.
        if action.nargs is None and arg_strings == ["--"]:
            self.error("'--' can be no argument")
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of printing and exiting."""
        raise UsageError(message, hint=f"'{self.prog} --help' explains it")


def run(argv: list[str]) -> int:
    """Run one command line and return its exit status."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete
        from argcomplete.completers import SuppressCompleter

        argcomplete.autocomplete(_whole_parser(), always_complete_options=False, default_completer=SuppressCompleter())
    as_json = "--json" in argv[: argv.index("--")] if "--" in argv else "--json" in argv
    leading = [word for word in argv[:1] if word == "--json"]
    verb, rest = (argv[len(leading)] if len(argv) > len(leading) else ""), argv[len(leading) + 1 :]
    try:
        if verb in ("", "-h", "--help", "help"):
            return _help(rest, asked=verb != "")
        if verb == "--version":
            return output.emit(verb, Result({"version": VERSION}, [f"taoprof {VERSION}"]), as_json=as_json)
        if verb not in VERBS:
            raise _unknown(verb)
        about = _sentence(VERBS[verb][1])
        usage = TAKES_COMMAND.get(verb)
        parser = Parser(
            prog=f"taoprof {verb}", usage=usage, description=about, formatter_class=_formatter, allow_abbrev=False
        )
        _add_arguments(parser, verb)
        command: list[str] = []
        if verb in TAKES_COMMAND and "--" in rest:
            cut = rest.index("--")
            rest, command = rest[:cut], rest[cut + 1 :]
        # So that options may stand between the settings, as in 'set NAME --unset A B=1'.
        parse = parser.parse_intermixed_args if verb == "set" else parser.parse_args
        args = parse([*leading, *rest])
        args.command = command
        context = Context() if verb != "doctor" else _any_context()
        if verb not in ("daemon", "doctor"):  # a guard does so by itself, and tells of it; a doctor only looks
            _mend(context)
        result = _function(verb)(context, args)
        result.messages += _untold(context, verb)
        return output.emit(verb, result, as_json=as_json)
    except TaoprofError as error:
        return output.emit_error(verb, error, as_json=as_json)


def _any_context() -> Context:
    """Give the context, or where HOME is none that can be used one for the user's own home: what is wrong is told."""
    try:
        return Context()
    except TaoprofError:
        names = ("HOME", "TAOPROF_HOME")
        usual = Context({name: value for name, value in os.environ.items() if name not in names})
        usual.environ.update({name: os.environ[name] for name in names if name in os.environ})
        return usual


def _mend(context: Context) -> None:
    """Take off the seal of a guard that was killed, whatever the command is."""
    try:
        if locks.is_orphaned(context.seal, context.guard):
            from taoprofiles.guard import guard

            guard.unseal(context)
    except TaoprofError:
        pass  # the command itself will say what is wrong, or succeed without


def _untold(context: Context, verb: str) -> list[str]:
    """Give what a guard has to tell, once; not to those whose messages nobody reads."""
    if verb in READ_BY_PROGRAMS or not os.path.lexists(context.untold):
        return []
    from taoprofiles.guard.messages import PendingMessages

    return [f"the guard, {line}" for line in PendingMessages(context).take()]


def _add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    getattr(_module(verb), f"{verb}_arguments", lambda _: None)(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON envelope")


def _module(verb: str) -> ModuleType:
    from importlib import import_module

    return import_module(f"taoprofiles.cli.commands.{VERBS[verb][0]}")


def _function(verb: str) -> Callable[[Context, argparse.Namespace], Result]:
    function: Callable[[Context, argparse.Namespace], Result] = getattr(_module(verb), f"{verb}_verb")
    return function


def _whole_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="taoprof")
    parsers = parser.add_subparsers()
    for verb, (_, summary) in VERBS.items():
        _add_arguments(parsers.add_parser(verb, help=summary), verb)
    return parser


def _help(words: list[str], *, asked: bool) -> int:
    if words and words[0] in VERBS:
        return run([words[0], "--help"])
    lines = ["taoprof: named mount profiles for the NVIDIA TAO launcher", "", "usage: taoprof VERB …"]
    for group in GROUPS.values():
        lines += [""] + [f"  {verb:<11} {summary}" for verb, (_, summary) in group.items()]
    lines += ["", "'taoprof VERB --help' explains one; --json on any of them prints an envelope for programs.", ""]
    lines += STATUSES.split("\n")
    if not asked:
        raise UsageError("no verb given", hint="'taoprof --help' lists them; 'taoprof list' shows your profiles")
    return output.emit("help", Result({}, lines), as_json=False)


def _unknown(verb: str) -> UsageError:
    import difflib

    close = difflib.get_close_matches(verb, VERBS, n=1)
    hint = f"did you mean 'taoprof {close[0]}'?" if close else "'taoprof --help' lists the verbs"
    return UsageError(f"there is no verb '{verb[:70]}'", hint=hint)


def _sentence(summary: str) -> str:
    return summary[:1].upper() + summary[1:] + "."
