"""The commands: parses a command line, runs its command, and prints the result or the error.

Only the module of the command that is run is loaded.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from taoprofiles import current_cache
from taoprofiles.cli import output
from taoprofiles.cli.arguments import EXAMPLES, FIRST_STEPS, add_arguments, example_lines
from taoprofiles.cli.output import Result
from taoprofiles.errors import TaoprofError, UntrustedError, UsageError
from taoprofiles.storage.paths import Context

GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "switch between projects": {
        "use": ("switch", "switch ~/.tao_mounts.json to a profile"),
        "undo": ("switch", "restore what the last change replaced"),
        "history": ("switch", "list mapping changes, profile changes and runs"),
    },
    "train, several projects at a time": {
        "run": ("runs", "run a command with a profile's own mapping"),
        "shell": ("runs", "open a shell with a profile's own mapping"),
        "logs": ("runs", "show what a run has printed"),
        "wait": ("runs", "wait for runs, and exit with their status"),
        "stop": ("runs", "stop a training, a shell, or what a notebook started"),
        "hold": ("runs", "prevent switches of the mapping file until you release it"),
        "release": ("runs", "release a hold"),
    },
    "inspect and check": {
        "list": ("show", "list the profiles"),
        "current": ("show", "print the name of the active profile"),
        "status": ("show", "show the mapping file, the guard, holds and runs"),
        "show": ("show", "show a profile with every variable and mount resolved"),
        "check": ("check", "find mistakes in a profile, a mounts file or a command"),
        "diff": ("show", "compare a profile with the mapping file or another profile"),
        "path": ("show", "translate a path between this host and the container"),
        "doctor": ("check", "diagnose this machine and suggest fixes"),
    },
    "create and change profiles": {
        "new": ("profiles", "create a profile for a project folder"),
        "import": ("import_", "create a profile from a notebook, a script or a mounts file"),
        "edit": ("profiles", "edit a profile in $EDITOR"),
        "set": ("profiles", "set keys and variables of a profile"),
        "rename": ("profiles", "rename a profile"),
        "remove": ("profiles", "delete a profile ('taoprof undo' restores it)"),
        "trust": ("profiles", "show and trust the .taoprof.toml of a project"),
    },
    "use profiles in other programs": {
        "env": ("show", "print the variables of a profile for a shell or a program"),
        "kernel": ("integration", "install a Jupyter kernel that uses a profile"),
        "render": ("show", "write a profile for docker run, Compose, Kubernetes, Slurm or EDF"),
        "schema": ("show", "print the JSON Schema of a profile file"),
        "skill": ("integration", "install the skill for coding agents"),
    },
    "set up this machine": {
        "init": ("show", "print the code that adds completion and a prompt to your shell"),
        "service": ("integration", "manage the background service that protects the mapping file"),
        "uninstall": ("integration", "remove what taoprof has installed, and the profiles if you agree"),
    },
}
"""By what people want, in the order of the help: each command, its module in ``commands/``, and its summary."""

COMMANDS = {command: entry for group in GROUPS.values() for command, entry in group.items()}

TAKES_COMMAND = {
    "run": "taoprof run NAME [option …] -- COMMAND …",
    "check": "taoprof check [NAME] [option …] [-- COMMAND …]",
    "render": "taoprof render NAME --to TARGET [option …] [-- COMMAND …]",
}
"""Commands that take a command line of another program after ``--``, and their usage."""

IN_PROJECT = {
    "use": False, "show": False, "check": False, "run": True, "shell": True, "env": True, "render": True,
    "kernel": False,
}  # fmt: skip
"""Commands for which the profile of the current folder's project is the default, and whether they need a profile."""

ALIASES = {
    "ls": "list", "profiles": "list", "rm": "remove", "delete": "remove", "del": "remove", "mv": "rename",
    "cat": "show", "view": "show", "cp": "new NEW --from", "copy": "new NEW --from", "switch": "use", "activate": "use",
    "ps": "status", "top": "status", "holds": "status", "kill": "stop", "cancel": "stop", "unlock": "release",
    "lock": "hold", "config": "set", "create": "new", "save": "import --name", "export": "show --toml",
    "exec": "run", "start": "run", "submit": "run", "log": "logs", "tail": "logs -f", "attach": "logs -f",
    "add": "new", "info": "show", "restore": "undo", "revert": "undo",
    "why": "history PATH", "completion": "init", "version": "--version", "-V": "--version", "-v": "--version",
}  # fmt: skip
"""Words of other tools, and of earlier versions, with the command that does it here."""

_UNITS = frozenset("s m h d sec secs min mins hr hrs second seconds minute minutes hour hours day days".split())
_OWN_WORDS = 20
"""Of more words, no more are taken for arguments of taoprof's own when a hint is looked for."""

EXIT_STATUS_HELP = """\
exit status: 0 done or nothing to do · 1 failed · 2 usage ·
3 invalid profile or state · 4 no such profile or entry · 5 held ·
6 differs (diff, status --check) · 7 busy · 8 another guard is running ·
9 a project file is not trusted · 10 a cluster failed ·
124 wait: still running · 128+n signal n ·
run, shell, wait: the command's own status (125 to 127: it was not started)"""


_WHERE_LISTED = {
    "NAME": "'taoprof list' shows the profiles; ",
    "ID": "'taoprof status' shows the ids; ",
    "RUN": "'taoprof history' shows the runs; ",
}
"""Where to look for the value of an argument that was left out."""

_SIGINT = 2  # importing signal would take 3 ms
READ_BY_PROGRAMS = ("current", "path", "env", "render", "init", "schema")
"""Commands whose output goes into a prompt, a shell or a file: the guard's messages would never be seen there."""


def run_command(argv: list[str]) -> int:
    """Run one command line, without the program's name, and return its exit status."""
    if "_ARGCOMPLETE" in os.environ:
        complete()
    as_json = "--json" in argv[: argv.index("--") if "--" in argv else None]
    leading = [word for word in argv[:1] if word == "--json"]
    command, *words = argv[len(leading) :] or [""]
    if command == "help" and words:
        command, words = words[0], ["--help"]
    try:
        if command == "--version":
            return output.emit(command, _version(), as_json=as_json)
        if command in ("-h", "--help", "help"):
            output.print_help(help_text())
            return 0
        if command:
            function = parse(command, [*leading, *words])
        else:
            from taoprofiles.cli.status import overview as function
        result = _execute(command, function)
    except output.Declined as answer:
        output.print_progress(str(answer))
        return 128 + _SIGINT
    except output.OutputError:
        raise  # the caller reports it, and discards the rest
    except Exception as error:  # noqa: BLE001 - a fault of this program is raised again
        return output.emit_error(command, _to_taoprof_error(command, error), as_json=as_json)
    return output.emit(command, result, as_json=as_json)


def _version() -> Result:
    from taoprofiles import VERSION, find_commit

    commit = find_commit()
    line = f"taoprof {VERSION}" + (f" (development build, commit {commit})" if commit else "")
    return Result({"version": VERSION, "commit": commit}, [line])


def _to_taoprof_error(command: str, error: Exception) -> TaoprofError:
    """Return an error for what the system refuses, such as a thread, memory or a descriptor."""
    if isinstance(error, TaoprofError):
        return error
    if isinstance(error, UnicodeEncodeError) and sys.getfilesystemencoding() != "utf-8":
        text = f"the encoding of this locale, {error.encoding}, does not have all characters of '{error.object}'"
        return TaoprofError(f"{command} failed: {text}", hint="export PYTHONUTF8=1 LC_ALL=C.UTF-8")
    is_refusal = isinstance(error, (OSError, MemoryError)) or "start new thread" in str(error)
    if isinstance(error, BrokenPipeError) or not is_refusal:
        raise error  # a fault of this program keeps its traceback
    reason = getattr(error, "strerror", None) or str(error) or "out of memory"
    path = getattr(error, "filename", None)
    return TaoprofError(f"{command} failed: {reason}" + (f" ('{path}')" if path else ""))


def _execute(command: str, function: Callable[[Context], Result]) -> Result:
    if command == "doctor":  # it only looks, and reports a HOME that cannot be used
        return function(_any_context())
    context = Context()
    _unseal(context)
    result = function(context)
    if command not in READ_BY_PROGRAMS and os.path.lexists(context.pending_messages):
        from taoprofiles.storage.files import take_messages

        result = result._replace(messages=[*result.messages, *take_messages(context)])
    return result


def _any_context() -> Context:
    """Return the context, or that of the user's own home if HOME cannot be used."""
    try:
        return Context()
    except TaoprofError:
        names = ("HOME", "TAOPROF_HOME")
        context = Context({name: value for name, value in os.environ.items() if name not in names})
        context.environ.update({name: os.environ[name] for name in names if name in os.environ})
        return context


def _unseal(context: Context) -> None:
    """Make the mapping file writable again if a guard was killed that had sealed it."""
    if not os.path.lexists(context.seal):
        return
    from taoprofiles.switching import guard_files

    with suppress(TaoprofError):  # the command itself will report what is wrong, or succeed without
        guard_files.unseal(context)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UsageError instead of printing a message and exiting."""

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        # argparse drops a '--' that is given as the value of an argument, and leaves the argument without a value.
        if action.nargs is None and arg_strings == ["--"]:
            self.error("'--' cannot be an argument")
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        command = self.prog.rpartition(" ")[2]
        missing = message.partition("the following arguments are required: ")[2].split(", ")[0]
        hint = _WHERE_LISTED.get(missing, "") if command != "new" else ""
        if missing and not hint:
            hint = f"such as: {EXAMPLES[command][0][0]}; "
        raise UsageError(message, hint=f"{hint}see '{self.prog} --help'")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = list(map(str, action.choices))
            close = _close_match(str(value), choices)
            hint = f"did you mean '{close}'?" if close else f"see '{self.prog} --help'"
            name = action.metavar or "/".join(action.option_strings) or action.dest
            raise UsageError(f"{name}: '{value}' is not one of {', '.join(choices)}", hint=hint)

    def print_help(self, file: Any = None) -> None:
        """Print the help to stdout, in colour on a terminal."""
        output.print_help(self.format_help())


def parse(command: str, words: list[str]) -> Callable[[Context], Result]:
    """Parse the arguments of a command; return its function, to be called with the context.

    Raises UsageError, and SystemExit after ``--help`` has been printed.
    """
    if command not in COMMANDS:
        raise _unknown_command(command)
    summary = COMMANDS[command][1]
    parser = Parser(
        prog=f"taoprof {command}",
        usage=TAKES_COMMAND.get(command),
        description=f"{summary[:1].upper()}{summary[1:]}.",
        epilog=_examples(command) if "--help" in words or "-h" in words else None,
        # Asking for the terminal's width would load shutil: 3 ms at every start.
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=80),
        allow_abbrev=False,
    )
    add_arguments(parser, command)
    program: list[str] = []
    if command in TAKES_COMMAND and "--" in words:
        at = words.index("--")
        words, program = words[:at], words[at + 1 :]
    # Options may stand between the arguments, as in 'set NAME --unset A B=1' and 'kernel install --python P NAME'.
    is_mixed = command in ("set", "kernel", "path", "diff")
    parse_words = parser.parse_intermixed_args if is_mixed else parser.parse_args
    _check_durations(words)
    try:
        args = parse_words(words)
    except UsageError as error:
        error.hint = _usage_hint(parser, parse_words, words, has_command=bool(program)) or error.hint
        raise
    args.command, args.words = program, [command, *words]
    module = import_module(f"taoprofiles.cli.commands.{COMMANDS[command][0]}")
    run: Callable[[Context, argparse.Namespace], Result] = getattr(module, f"{command}_command")

    def call(context: Context) -> Result:
        messages: list[str] = []
        if getattr(args, "name", "") is None and command in IN_PROJECT:
            try:
                args.name = _project_profile(context, command, args)
                messages = _note_inactive(context, args.name) if command == "check" else []
            except UntrustedError as error:
                if command not in ("show", "check"):  # which have something else to show
                    raise
                messages = [f"note: {error.message}; {error.hint}"]
        result = run(context, args)
        return result._replace(messages=[*result.messages, *messages])

    return call


def _project_profile(context: Context, command: str, args: argparse.Namespace) -> str | None:
    """Return the profile of the current folder's project, for a command without a name. Raises UsageError without."""
    if command == "kernel" and args.action != "install":
        return None
    from taoprofiles.profiles.store import default_profile

    name = default_profile(context)
    if name is None and IN_PROJECT[command]:
        raise UsageError("no profile given", hint=f"'taoprof list' shows the profiles; see 'taoprof {command} --help'")
    return name


def _note_inactive(context: Context, name: str | None) -> list[str]:
    """Return the note about a check of the project's profile where a plain 'tao' would read another mapping."""
    from taoprofiles.switching.status import get_status

    if name is None or (current_cache.own_profile(context) or get_status(context).name) == name:
        return []
    return [f"note: checked with this project's profile '{name}', which is not active; a plain 'tao' reads another one"]


def help_text() -> str:
    """Return the help of ``taoprof``."""
    lines = ["taoprof: a mount profile for each NVIDIA TAO project", "", "usage: taoprof COMMAND …", ""]
    lines += ["first steps:", *example_lines(FIRST_STEPS), ""]
    for title, group in GROUPS.items():
        lines += [f"{title}:", *(f"  {command:<11} {summary}" for command, (_, summary) in group.items()), ""]
    lines += ["'taoprof COMMAND --help' has examples. Every command accepts --json.", "", EXIT_STATUS_HELP]
    return "\n".join(lines) + "\n"


def _examples(command: str) -> str:
    return "\n".join(["examples:", *example_lines(EXAMPLES[command])]).replace("%", "%%")


def complete() -> None:
    """Answer the shell's request to complete a line, and exit."""
    import argcomplete
    from argcomplete.completers import SuppressCompleter

    parser = Parser(prog="taoprof")
    parsers = parser.add_subparsers()
    for command, (_, summary) in COMMANDS.items():
        add_arguments(parsers.add_parser(command, help=summary), command)
    argcomplete.autocomplete(parser, always_complete_options=False, default_completer=SuppressCompleter())


def _unknown_command(command: str) -> UsageError:
    meant = ALIASES.get(command, "")
    if not meant:
        words = {word: word for word in (*COMMANDS, "--version", "--help")} | ALIASES
        # Of similar words, none that stops or deletes something is suggested.
        careful = [word for word, meant in words.items() if meant not in ("stop", "release", "remove", "undo")]
        close = _close_match(command, careful)
        meant = words.get(close, "")
    hint = f"did you mean 'taoprof {meant}'?" if meant else "see 'taoprof --help'"
    return UsageError(f"unknown command '{command[:70]}'", hint=hint)


def _usage_hint(parser: Parser, parse_words: Callable[[list[str]], Any], words: list[str], *, has_command: bool) -> str:
    """Return a hint for a mistake that is common, "" for any other. ``has_command``: a command follows after ``--``."""
    import shlex

    from taoprofiles.launcher.argv import launcher_words, unwrapped

    own = _own_words(parse_words, words)
    known = parser._option_string_actions
    unknown = [word.partition("=")[0] for word in words[own:] if word.startswith("-")]
    unknown = [word for word in unknown if word not in known]
    if unknown and (own == 0 or words[own].startswith("-")):
        close = _close_match(unknown[0], known)
        return f"did you mean {close}?" if close else ""
    command = parser.prog.rpartition(" ")[2]
    if command not in TAKES_COMMAND or has_command or own in (0, len(words)) or words[own].startswith("-"):
        return ""
    name = parse_words(words[:own]).name
    if name is not None and launcher_words(unwrapped(words[words.index(name) :])):  # the profile was forgotten
        own = words.index(name)
        name = None
    before = words[:own] + (["NAME"] if name is None else [])
    return f"put '--' before the command: {parser.prog} {shlex.join([*before, '--', *words[own:]])}"


def _own_words(parse_words: Callable[[list[str]], Any], words: list[str]) -> int:
    """Return how many words, from the first on, are arguments of taoprof's own; 0 if it cannot be told."""
    for number in range(min(len(words), _OWN_WORDS), 0, -1):
        with suppress(UsageError):
            parse_words(words[:number])
            return number
    return 0


def _close_match(word: str, words: Iterable[str]) -> str:
    import difflib

    return next(iter(difflib.get_close_matches(word, list(words), n=1)), "")


def _check_durations(words: list[str]) -> None:
    """Raise UsageError for a duration in two words, whose second would be taken for a name or for the command."""
    for option, number, unit in zip(words, words[1:], words[2:], strict=False):
        if option in ("--wait", "--for", "--timeout") and number.isdecimal() and unit in _UNITS:
            raise UsageError(f"{option}: '{number} {unit}' must be one word", hint=f"{option} {number}{unit[0]}")
