"""The IPython extension: ``%load_ext taoprofiles`` provides ``%taoprof``. Nothing here is imported without it."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
import threading
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError as MagicError
from IPython.display import display as show

from taoprofiles.cli import dispatch
from taoprofiles.cli.output import change_lines, error_lines
from taoprofiles.errors import InvalidStateError, TaoprofError, UsageError
from taoprofiles.holds.hold import HeldError
from taoprofiles.jupyter import display
from taoprofiles.jupyter.display import COMMANDS, OPTIONS, Output, as_cell
from taoprofiles.launcher.argv import PROGRAMS, commands_of_script, parse_launcher_argv, simple_commands, unwrapped
from taoprofiles.mounts import mapping
from taoprofiles.profiles.store import Store
from taoprofiles.runs import kernel_program
from taoprofiles.runs import session as sessions
from taoprofiles.storage import files
from taoprofiles.storage.paths import Context
from taoprofiles.switching import status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taoprofiles.jupyter.panel import Panel
    from taoprofiles.runs.kernel_program import ProfileKernel
    from taoprofiles.runs.session import Session


ATTRIBUTE = "_taoprofiles"
"""The attribute of the shell that has the loaded extension."""


class TaskFailedError(Exception):
    """A container that a cell started has failed or was stopped."""


SCRIPT_MAGICS = ("bash", "script", "sh")
"""The cell magics whose cell is a shell script."""


class Extension:
    """The state of the extension in one kernel."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        # A cell may set HOME for a container; the profiles must stay where they are.
        self._home = Context().home
        self._file: object = None
        self._overridden: dict[str, str | None] = {}
        self._containers: set[str] = set()
        self._has_launched = False  # the last !command of the cell is a launcher
        self._shown_panel: Panel | None = None
        self._running_cells = 0  # one may run another
        self._change = threading.Lock()  # of a button of the panel, which has a thread of its own: no cell starts then

    def load(self) -> None:
        """Register the magic and the functions that run before and after each cell."""
        self._shell.register_magic_function(self.taoprof, magic_name="taoprof")
        self._shell.events.register("pre_run_cell", self._before_cell)
        self._shell.events.register("post_run_cell", self._after_cell)
        self._shell.set_hook("complete_command", self._complete, str_key="%taoprof")
        self._shell.var_expand, self._shell.run_cell_magic = self._var_expand, self._run_cell_magic
        sys.addaudithook(self._audit)
        kernel = self._kernel
        if kernel is not None and sessions.current() is None:
            try:
                sessions.adopt(kernel, os.environ)
            except TaoprofError as error:  # its hold is gone, or the profile was renamed before the first cell
                text = f"warning: this kernel was started with profile '{kernel.profile}', but {error.message}"
                show(Output(f"{text}. Restart the kernel, or choose another one"))  # type: ignore[no-untyped-call]

    def unload(self) -> None:
        """Unregister everything and release the profile."""
        self._shell.events.unregister("pre_run_cell", self._before_cell)
        self._shell.events.unregister("post_run_cell", self._after_cell)
        self._shell.magics_manager.magics["line"].pop("taoprof", None)
        del self._shell.var_expand, self._shell.run_cell_magic
        session = sessions.current()
        if session is not None:
            session.release()

    def taoprof(self, line: str) -> object:
        """Run a line of ``%taoprof``. Replaced below by the usage, which ``%taoprof?`` shows."""
        try:
            return self.run(shlex.split(line)) if line.strip() else self._panel()
        except ValueError as error:  # a quote that is not closed
            raise MagicError(f"taoprof: {error}") from None
        except TaoprofError as error:  # IPython shows a MagicError without a traceback, and the cell fails
            raise MagicError("taoprof: " + as_cell("\n".join(error_lines(error)))) from None

    def _panel(self) -> object:
        """Show the panel, or return the same as text and HTML where the widgets for it are not installed.

        Programs that run notebooks, such as papermill, take no input. They store the state of widgets, and a page that
        is made of that would show the widget alone, which needs a kernel.
        """
        kernel = getattr(self._shell, "kernel", None)
        if getattr(kernel, "_allow_stdin", False) and importlib.util.find_spec("anywidget"):
            from taoprofiles.jupyter.panel import Panel

            self._shown_panel = Panel(self)
            self._shown_panel.show()
            return None
        session = sessions.current()
        name = session.name if session is not None else status.get_status(self.context).name
        return display.panel_output(self.context, session, name or "")

    def run_between_cells(self, words: list[str]) -> Output:
        """Run a command for the panel. Raises UsageError while a cell runs, which needs the variables that it has."""
        with self._change:
            if self._running_cells:
                raise UsageError(
                    "this notebook is running a cell, which needs the profile that it was started with",
                    hint="interrupt the cell, or wait until it ends",
                )
            return self.run(words)

    def run(self, words: list[str]) -> Output:
        """Run a command of ``%taoprof``. Raises TaoprofError."""
        command = words[0]
        if command not in COMMANDS:
            message = f"unknown subcommand '{command}'"
            is_command = command in dispatch.COMMANDS
            elsewhere = f"Try '!taoprof {shlex.join(words)}', or one of" if is_command else "Use one of"
            raise UsageError(
                f"{message}. {elsewhere}",
                problems=_usage_lines(),
                hint="all other commands: !taoprof COMMAND (see '!taoprof --help')",
            )
        session = sessions.current()
        if command == "use":
            return self._use(words[1:])
        if command in ("status", "list"):
            _parse(command, words[1:])
            output = display.status_output if command == "status" else display.list_output
            return output(self.context, session)
        if command == "show":
            name = _parse(command, words[1:], "[NAME]").name or _needed(session).name
            return display.show_output(self.context, name)
        if command == "check":
            return self._check(words[1:], session)
        _parse(command, words[1:])
        session = _needed(session)
        if command == "env":
            return display.env_output(session)
        session.release()
        return Output(f"profile '{session.name}' released")

    def _use(self, words: list[str]) -> Output:
        args = _parse("use", words, "NAME", *OPTIONS)
        session = sessions.begin(
            args.name, os.environ, home=self._home, shared=args.shared, mkdir=args.mkdir, check=not args.force
        )
        self._file = self._signature()
        return display.use_output(self.context, session)

    def _check(self, words: list[str], session: Session | None) -> Output:
        """Run ``taoprof check``, by default for the profile of this notebook."""
        options = words[: words.index("--")] if "--" in words else words
        if all(word.startswith("-") for word in options):
            words = [_needed(session).name, *words]
        return Output(*dispatch.parse("check", words)(self.context).lines)

    def _complete(self, _: object, event: Any) -> list[str]:
        """Return the words that Tab offers after ``%taoprof``."""
        before = event.text_until_cursor.rpartition(" ")[0].split()
        if len(before) < 2:
            return list(COMMANDS)
        names = Store(self.context).names() if before[1] in ("use", "show", "check") and len(before) == 2 else []
        return [*names, *(OPTIONS if before[1] == "use" else ())]

    @property
    def _kernel(self) -> ProfileKernel | None:
        """The profile that the kernel was started with, if it is in use: what cells change is reported there."""
        kernel: ProfileKernel | None = getattr(self._shell, kernel_program.ATTRIBUTE, None)
        return kernel if kernel is not None and kernel.is_active else None

    @property
    def context(self) -> Context:
        """The paths and the environment that the profiles refer to: that of the kernel without its present profile."""
        session = sessions.current()
        return Context({**(session.original_environ() if session is not None else os.environ), "HOME": self._home})

    # The commands that cells start

    def _var_expand(self, text: str, depth: int = 0, *args: Any, **options: Any) -> str:
        """Expand Python variables as IPython does, which it does with every ``!command`` just before its start."""
        expanded: str = type(self._shell).var_expand(self._shell, text, depth + 1, *args, **options)
        self._has_launched = self._require_free_results(_launcher_commands(expanded))
        if self._has_launched:
            self._shell.user_ns.pop("_exit_code", None)  # IPython sets it when the command has ended
        return expanded

    def _run_cell_magic(self, name: str, line: str, cell: str) -> Any:
        if name in SCRIPT_MAGICS:
            self._require_free_results(_launcher_commands(cell))
        return type(self._shell).run_cell_magic(self._shell, name, line, cell)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Look at each program that Python code starts (PEP 578): an exception here prevents the start.

        An audit hook cannot be removed.
        """
        if event not in ("subprocess.Popen", "os.system") or getattr(self._shell, ATTRIBUTE, None) is not self:
            return
        words = [
            os.fsdecode(word) for word in (arguments[1] if event == "subprocess.Popen" else ["sh", "-c", *arguments])
        ]
        self._require_free_results(simple_commands(words))

    def _require_free_results(self, commands: Iterable[list[str]]) -> bool:
        """Refuse a training that would write to the results folder of another one; the cell fails.

        Return whether one of the commands starts a container by the launcher, in a notebook with a profile.
        """
        session = sessions.current()
        if session is None:
            return False
        launches = [launch for words in commands if (launch := parse_launcher_argv(unwrapped(words))) is not None]
        try:
            for launch in launches:
                session.require_free_results(launch.words)
        except HeldError as error:
            error.hint += f", or allow it with '%taoprof use {session.name} --force'"
            raise MagicError("taoprof: " + as_cell("\n".join(error_lines(error)))) from None
        except TaoprofError as error:  # what cannot be looked at prevents no training
            show(Output(f"warning: {error.message}"))  # type: ignore[no-untyped-call]
        return bool(launches)

    # What cells do to the mapping file and the variables

    def _signature(self) -> object:
        try:
            stat_result = os.stat(self.context.mapping_file)
        except (OSError, TaoprofError):
            return None
        return stat_result.st_ino, stat_result.st_size, stat_result.st_mtime_ns

    def _before_cell(self, _: object = None) -> None:
        with self._change:
            self._running_cells += 1
        self._file = self._signature()
        session = sessions.current()
        self._overridden = session.overridden() if session is not None else {}
        self._containers = session.containers() if session is not None else set()
        self._has_launched = False

    def _after_cell(self, result: Any = None) -> None:
        self._running_cells = max(0, self._running_cells - 1)  # the cell that loaded the extension was not counted
        if self._shown_panel is not None:
            self._shown_panel.update_saved()
        self._explain_seal(getattr(result, "error_in_exec", None))
        session = sessions.current()
        if session is None:
            return
        if self._kernel is None:
            self._report_changes(session)
        self._report_tasks(session, result)
        session.forget_unstarted()

    def _report_changes(self, session: Session) -> None:
        """Report the variables and the mapping file that a cell has changed."""
        try:
            output = self._check_mapping_file(session)
            overridden = {
                name: value for name, value in session.overridden().items() if self._overridden.get(name, "") != value
            }
            if overridden:
                output = output or Output()
                display.overridden_output(session, overridden, output)
        except TaoprofError as error:
            output = Output(f"warning: {error.message}")
        if output is not None:
            show(output)  # type: ignore[no-untyped-call]

    def _explain_seal(self, error: BaseException | None) -> None:
        """Show why the cell could not write the mapping file, if that was its error and the guard the reason."""
        context = self.context
        if not isinstance(error, PermissionError) or not os.path.lexists(context.seal):
            return
        if files.real_path(str(error.filename)) == files.real_path(context.mapping_file):
            show(display.sealed_output(context))  # type: ignore[no-untyped-call]

    def _report_tasks(self, session: Session, result: Any) -> None:
        """Report the containers that have ended. The cell fails if it started one that failed: "Run All" stops."""
        ended = session.take_ended()
        failed = [line for id, succeeded, line in ended if not succeeded and id not in self._containers]
        status = self._shell.user_ns.get("_exit_code", 0) if self._has_launched else 0
        if status and not failed:
            failed = [f"the launcher ended with exit status {status}"]
        lines = session.take_messages() + [line for id, _, line in ended if id in self._containers]
        if lines:
            show(Output(*lines))  # type: ignore[no-untyped-call]
        if failed and result is not None and result.success:
            result.error_in_exec = TaskFailedError("; ".join(failed))
            # As IPython shows an error, in one line, without a traceback of its own functions.
            self._shell._showtraceback(TaskFailedError, result.error_in_exec, [f"task failed: {result.error_in_exec}"])

    def _check_mapping_file(self, session: Session) -> Output | None:
        """Return a message if the mapping file was written while the cell ran, and not with this notebook's mapping."""
        before, self._file = self._file, self._signature()
        if self._file == before:
            return None
        if self._file is None:
            return display.overwritten_output(self.context, session, None) if session.shared else None
        content = files.read_mapping_file(self.context)
        if content is None or mapping.same(content, mapping.to_bytes(session.rendered)):
            return None
        try:
            written = mapping.parse(content, self.context.mapping_file)
        except InvalidStateError as error:
            return display.overwritten_output(self.context, session, [error.message])
        # The file may now belong to a profile with secrets of its own, whatever their names are.
        other_secrets = Store(self.context).secret_env(written, status.get_status(self.context).name)
        changes = mapping.changes(written, session.rendered, secrets={*session.secrets[1], *other_secrets})
        return display.overwritten_output(self.context, session, change_lines(changes, reveal=False))


def _launcher_commands(script: str) -> Iterable[list[str]]:
    """Return the words of a script's commands, () if it has no launcher's name anywhere: a long one takes time."""
    return commands_of_script(script) if any(program in script for program in PROGRAMS) else ()


def _usage_lines() -> list[str]:
    return [f"%taoprof {f'{name} {arguments}':<13} {summary}" for name, (arguments, summary) in COMMANDS.items()]


Extension.taoprof.__doc__ = "\n".join(
    ["Usage: %taoprof COMMAND", "", *_usage_lines(), "", "Example: %taoprof use detectnet_v2", "",
     "Options of 'use': --mkdir creates missing folders, --shared switches ~/.tao_mounts.json instead, --force ignores",
     "what 'check' reports. '!taoprof' has all other commands."]
)  # fmt: skip


def _parse(command: str, words: list[str], *names: str) -> Any:
    """Parse the words after a command: NAME, an optional [NAME] and options without a value."""
    arguments = dispatch.Parser(prog=f"%taoprof {command}", add_help=False, allow_abbrev=False)
    for name in names:
        if name.startswith("--"):
            arguments.add_argument(name, action="store_true")
        else:
            arguments.add_argument("name", metavar="NAME", nargs="?" if name.startswith("[") else None)
    try:
        return arguments.parse_args(words)
    except UsageError as error:
        error.hint = arguments.format_usage().strip()
        raise


def _needed(session: Session | None) -> Session:
    if session is None:
        raise UsageError("this notebook has no profile", hint="%taoprof use NAME; '%taoprof list' shows all profiles")
    return session


def load(shell: Any) -> None:
    """Load the extension into an IPython shell. Loading it again changes nothing."""
    if getattr(shell, ATTRIBUTE, None) is None:
        extension = Extension(shell)
        setattr(shell, ATTRIBUTE, extension)
        extension.load()


def unload(shell: Any) -> None:
    """Unload the extension; the profile of the notebook is released."""
    extension = getattr(shell, ATTRIBUTE, None)
    if extension is not None:
        extension.unload()
        setattr(shell, ATTRIBUTE, None)
