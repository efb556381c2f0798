"""Questions on a terminal: confirmation, values, and the choice of a profile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from taoprofiles.cli.output import Declined, print_progress, print_stderr
from taoprofiles.errors import UsageError
from taoprofiles.masking import printable
from taoprofiles.profiles.rendering import find_placeholder, is_path_variable
from taoprofiles.storage.paths import Context

if TYPE_CHECKING:
    from taoprofiles.holds.hold import Hold


def can_ask() -> bool:
    """Check whether there is a terminal to ask on. A script with half a terminal must not wait for an answer.

    A cell's ``!`` has a terminal, but nobody can type on it.
    """
    return sys.stdin.isatty() and sys.stderr.isatty() and not _in_cell()


def _in_cell() -> bool:
    """Check whether a cell of a notebook has started this: ipykernel sets these variables, in VS Code as well."""
    return tuple(map(os.environ.get, ("TERM", "PAGER", "GIT_PAGER"))) == ("xterm-color", "cat", "cat")


def refuse_in_cell(program: str, hint: str) -> None:
    """Raise UsageError in a cell of a notebook, in which a program that needs a terminal would wait for ever."""
    if _in_cell() and sys.stdin.isatty():
        raise UsageError(f"{program} needs a terminal, and nobody can type into a cell of a notebook", hint=hint)


def confirm(question: str, *, default: bool = False) -> bool:
    """Ask a yes-or-no question on stderr, until the answer is one.

    ``default`` is the answer of an empty line; the end of input is no.
    """
    answers = {"y": True, "yes": True, "n": False, "no": False, "": default}
    while True:
        print_stderr(f"{question} [{'Y/n' if default else 'y/N'}] ", end="")
        line = sys.stdin.readline()
        if not line:
            print_stderr("")  # what follows is not part of the question
            return False
        answer = answers.get(line.strip().lower())
        if answer is not None:
            return answer
        print_stderr("answer y or n")


def confirm_home(context: Context) -> list[str]:
    """Ask whether the current folder is to be the project folder if that is the whole home; warn without a terminal."""
    if os.path.realpath(context.folder) != os.path.realpath(context.home):
        return []
    if not can_ask():
        return ["warning: the project folder is your home folder"]
    if not confirm("The current folder is your home folder. Use all of it as the project folder?"):
        raise Declined("not created")
    return []


def confirm_release(hold: Hold, *, yes: bool) -> None:
    """Ask whether to release a hold whose work is still running, as far as that is known.

    Raises Declined for a no, UsageError without a terminal.
    """
    if yes or hold.kind == "manual":
        return
    work = hold.kind if hold.kind in ("shell", "notebook") else "training"
    text = f"{work} {hold.id} is still running: {hold.line()}"
    if hold.ended is not None:
        text = f"the process of {work} {hold.id} has ended, but a container of it may still be running: {hold.line()}"
    if not can_ask():
        raise UsageError(text, hint="--yes releases its hold anyway")
    print_progress(text)
    if not confirm("Release its hold anyway?"):
        raise Declined("not released")


def ask_value(context: Context, name: str, *, meaning: str, default: str) -> str:
    """Ask for the value of a variable, up to three times; Tab completes paths. Raises UsageError without an answer.

    ``default`` is the answer of an empty line. Of a path, ``~``, variables and quotes are expanded, as a shell does.
    """
    is_path = name.startswith("/") or is_path_variable(name)
    label = printable(name) + (f", {meaning}" if meaning else "") + (f" [{context.short(default)}]" if default else "")
    for _ in range(3):
        line = _read_line(f"{label}: ")
        if line is None:
            break
        value, problem = _clean(context, line, is_path=is_path)
        value = value or default
        if value and not problem:
            if is_path and not os.path.isdir(value):
                print_stderr(f"{context.short(value)} does not exist yet")
            return value
        print_stderr(problem or "enter a value, or press Ctrl-C to cancel")
    raise UsageError(f"no value given for {name}")


def _clean(context: Context, line: str, *, is_path: bool) -> tuple[str, str]:
    """Return a typed value as it is meant, and why it cannot be used, "" if it can."""
    from taoprofiles.profiles.convert import existing_part, resolve_path, without_quotes
    from taoprofiles.system.filesystem import creation_problem

    text, problem = without_quotes(line.strip()), ""
    if not text.isprintable():
        return text, "the value contains unprintable characters"
    if is_path and text:
        text, problem = resolve_path(context, line.strip())
    elif placeholder := find_placeholder(text):
        problem = f"'{placeholder}' is a placeholder"
    if problem or not is_path or not text:
        return text, problem
    existing = existing_part(text)
    if not os.path.isdir(existing):
        problem = f"'{existing}' is not a folder"
    elif existing != text and (reason := creation_problem(text)):
        problem = f"'{text}' does not exist, and {reason}"
    return text, problem


def _read_line(prompt: str) -> str | None:
    """Read a line from the terminal, with completion of paths if the prompt can be on it; None at the end of input."""
    try:
        # Elsewhere readline would write the prompt into the answer, or scroll in one line.
        if sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
            return _read_with_completion(prompt)
        print_stderr(prompt, end="")
        return sys.stdin.readline() or None
    except EOFError:
        print_stderr("")
        return None
    except UnicodeDecodeError:
        return "\x00"  # which is refused


def _read_with_completion(prompt: str) -> str:
    import glob
    import readline

    def complete(text: str, number: int) -> str | None:
        quote = text[:1] if text[:1] in ("'", '"') else ""
        start = os.path.expandvars(os.path.expanduser(text.removeprefix(quote)))
        paths = sorted(glob.glob(f"{glob.escape(start)}*"))
        return f"{quote}{paths[number]}{'/' * os.path.isdir(paths[number])}" if number < len(paths) else None

    readline.set_completer(complete)
    readline.set_completer_delims("")
    for setting in ("tab: complete", "set enable-bracketed-paste off", "set enable-meta-key off"):
        readline.parse_and_bind(setting)
    sys.stderr.flush()
    return input(prompt)


def choose_profile(names: list[str]) -> str:
    """Ask which profile to use, with fzf if it is installed. Raises UsageError if none is chosen, or can be."""
    if not can_ask():
        raise UsageError("no profile given", hint="'taoprof list' shows all profiles")
    if not names:
        raise UsageError("there are no profiles yet", hint="taoprof new NAME")
    fzf = shutil.which("fzf")
    if fzf is None:
        return _choose_by_number(names)
    completed = subprocess.run(  # noqa: S603 - the user's own fzf, found on their PATH
        [fzf, "--prompt=profile> ", "--height=40%", "--reverse"],
        input="\n".join(names),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if completed.returncode == 130:
        raise KeyboardInterrupt
    if completed.returncode == 2:
        return _choose_by_number(names)  # fzf does not work here, and has printed why
    if completed.returncode != 0:
        raise UsageError("no profile chosen")
    return completed.stdout.strip()


def _choose_by_number(names: list[str]) -> str:
    print_stderr(*(f"{number:>4}  {name}" for number, name in enumerate(names, 1)))
    print_stderr("profile (number or name): ", end="")
    answer = sys.stdin.readline().strip()
    choices = {str(number): name for number, name in enumerate(names, 1)} | {name: name for name in names}
    if answer not in choices:
        raise UsageError(f"'{answer}' is not in the list" if answer else "no profile chosen")
    return choices[answer]
