"""The IPython extension: ``%load_ext taoprofiles``, then ``%taoprof use NAME`` and a few more words.

IPython calls ``load``; nothing here is imported without it.
"""

from __future__ import annotations

import argparse
import os
import shlex
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError as MagicError
from IPython.display import display

from taoprofiles.cli.output import error_lines
from taoprofiles.cli.parser import Parser
from taoprofiles.errors import InvalidStateError, TaoprofError, UsageError
from taoprofiles.jupyter import answers
from taoprofiles.jupyter.display import Answer
from taoprofiles.mounts import mapping
from taoprofiles.profiles.store import Store
from taoprofiles.runs import session as sessions
from taoprofiles.storage import files
from taoprofiles.storage.paths import Context
from taoprofiles.switching import status

if TYPE_CHECKING:
    from collections.abc import Callable

    from taoprofiles.runs.session import Session

WORDS = {
    "use": "give this notebook a profile: its variables, and a mounts file of its own",
    "status": "tell what this notebook has, and who holds what",
    "list": "list the profiles",
    "check": "tell what is not as the profile has it",
    "env": "show the variables, outside and inside of the container",
    "release": "take the profile away from this notebook",
}
"""What ``%taoprof`` knows; ``!taoprof`` knows all the rest."""


class Extension:
    """What one kernel has of taoprofiles."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        # A cell may set HOME for the sake of a container; that must not move the profiles.
        self._home = Context().home
        self._file: object = None
        self._overridden: dict[str, str | None] = {}

    def load(self) -> None:
        """Register the magic, and the looks before and after each cell."""
        self._shell.register_magic_function(self.taoprof, magic_name="taoprof")
        self._shell.events.register("pre_run_cell", self._before_cell)
        self._shell.events.register("post_run_cell", self._after_cell)

    def unload(self) -> None:
        """Take all of it back."""
        self._shell.events.unregister("pre_run_cell", self._before_cell)
        self._shell.events.unregister("post_run_cell", self._after_cell)
        self._shell.magics_manager.magics["line"].pop("taoprof", None)
        session = sessions.current()
        if session is not None:
            session.release()

    def taoprof(self, line: str) -> Answer | None:
        """Do what ``%taoprof`` says. IPython shows a MagicError without a traceback, and the cell counts as failed."""
        try:
            args = self._arguments(shlex.split(line))
            return self._do(args)
        except ValueError as error:  # a quote that does not end
            raise MagicError(f"taoprof: {error}") from None
        except TaoprofError as error:
            raise MagicError("taoprof: " + "\n".join(error_lines(error))) from None

    def _arguments(self, words: list[str]) -> argparse.Namespace:
        if not words or words[0] not in WORDS:
            told = f"'{words[0]}' is nothing that %taoprof does" if words else "%taoprof needs a word"
            known = [f"%taoprof {word:<8} {what}" for word, what in WORDS.items()]
            raise UsageError(f"{told}; it knows", problems=known, hint="all else: '!taoprof --help'")
        parser = Parser(prog=f"%taoprof {words[0]}", add_help=False, allow_abbrev=False)
        if words[0] == "use":
            parser.add_argument("name", metavar="NAME")
            parser.add_argument("--shared", action="store_true")
            parser.add_argument("--mkdir", action="store_true")
            parser.add_argument("--no-check", dest="check", action="store_false")
        try:
            args = parser.parse_args(words[1:])
        except UsageError as error:
            error.hint = parser.format_usage().strip()
            raise
        args.word = words[0]
        return args

    def _do(self, args: argparse.Namespace) -> Answer | None:
        if args.word == "use":
            made = sessions.begin(
                args.name, os.environ, home=self._home, shared=args.shared, mkdir=args.mkdir, check=args.check
            )
            self._file = self._signature()
            return answers.used(self._context, made)
        session = sessions.current()
        if args.word == "release":
            if session is None:
                raise UsageError("this notebook has no profile")
            session.release()
            return Answer(f"profile '{session.name}' released")
        show: dict[str, Callable[[Context, Session | None], Answer]] = {
            "status": answers.status,
            "list": answers.listed,
            "check": answers.check,
            "env": answers.variables,
        }
        return show[args.word](self._context, session)

    @property
    def _context(self) -> Context:
        session = sessions.current()
        return Context({**(session.surroundings() if session is not None else os.environ), "HOME": self._home})

    # What cells do to the mapping file and the variables

    def _signature(self) -> object:
        try:
            seen = os.stat(self._context.mapping_file)
        except (OSError, TaoprofError):
            return None
        return seen.st_ino, seen.st_size, seen.st_mtime_ns

    def _before_cell(self, _: object = None) -> None:
        self._file = self._signature()
        session = sessions.current()
        self._overridden = session.overridden() if session is not None else {}

    def _after_cell(self, _: object = None) -> None:
        session = sessions.current()
        if session is None:
            return
        try:
            told = self._written(session)
            fresh = {
                key: value for key, value in session.overridden().items() if self._overridden.get(key, "") != value
            }
            if told is None and fresh:
                told = Answer()
            if told is not None and fresh:
                answers.overridden(self._context, session, fresh, told)
        except TaoprofError as error:
            told = Answer(f"taoprof: {error.message}")
        if told is not None:
            display(told)  # type: ignore[no-untyped-call]

    def _written(self, session: Session) -> Answer | None:
        """Tell of a mapping file that was written while the cell ran, if it is not this notebook's mapping."""
        before, self._file = self._file, self._signature()
        if self._file == before:
            return None
        if self._file is None:
            return answers.removed(self._context, session) if session.shared else None
        content = files.read_mapping_file(self._context)
        wanted = mapping.to_bytes(session.mapping)
        if content is None or mapping.same(content, wanted):
            return None
        try:
            written = mapping.parse(content, self._context.mapping_file)
        except InvalidStateError as error:
            return answers.foreign(self._context, session, [error.message])
        # The other program may be a switch to a profile that has secrets of its own, whatever they are called.
        theirs = Store(self._context).secret_env(status.look(self._context).name)
        changes = mapping.changes(session.mapping, written, secrets={*session.secrets[1], *theirs})
        return answers.foreign(self._context, session, [line for one in changes for line in one.lines(reveal=False)])


def load(shell: Any) -> None:
    """Load the extension into an IPython shell; once more changes nothing."""
    if getattr(shell, "_taoprofiles", None) is None:
        shell._taoprofiles = Extension(shell)
        shell._taoprofiles.load()


def unload(shell: Any) -> None:
    """Unload it; the profile that the notebook has is released."""
    extension = getattr(shell, "_taoprofiles", None)
    if extension is not None:
        extension.unload()
        shell._taoprofiles = None
