"""Runs one command: parses its arguments, calls it, and prints its result or its error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from taoprofiles.cli import output, parser
from taoprofiles.cli.output import Result
from taoprofiles.errors import TaoprofError
from taoprofiles.storage.paths import Context

_SIGINT = 2  # importing signal would take 3 ms
READ_BY_PROGRAMS = ("current", "path", "env", "render", "init", "schema")
"""Commands whose output goes into a prompt, a shell or a file: the guard's messages would never be seen there."""


def run_command(argv: list[str]) -> int:
    """Run one command line, without the program's name, and return its exit status."""
    if "_ARGCOMPLETE" in os.environ:
        parser.complete()
    as_json = "--json" in argv[: argv.index("--")] if "--" in argv else "--json" in argv
    leading = [word for word in argv[:1] if word == "--json"]
    command, *words = argv[len(leading) :] or [""]
    if command == "help" and words:
        command, words = words[0], ["--help"]
    try:
        if command == "--version":
            return output.emit(command, _version(), as_json=as_json)
        if command in ("-h", "--help", "help"):
            output.print_help(parser.help_text())
            return 0
        if command:
            function = parser.parse(command, [*leading, *words])
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
    from taoprofiles.version import VERSION, find_commit

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
    from taoprofiles.guard import status

    try:
        status.unseal(context)
    except TaoprofError:
        pass  # the command itself will report what is wrong, or succeed without
