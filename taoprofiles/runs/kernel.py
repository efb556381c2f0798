"""``taoprof run NAME -- PYTHON -m ipykernel_launcher …``: this process becomes a Jupyter kernel in the profile.

It is replaced, not the kernel's parent: pid, signals and the parent that the kernel watches are those of a plain
kernel. If the profile cannot be used, it becomes a kernel whose cells say why.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, NoReturn

from taoprofiles.errors import NotFoundError, TaoprofError, UsageError, reason_of
from taoprofiles.holds.hold import RUN_VARIABLE
from taoprofiles.profiles import kernels
from taoprofiles.runs import kernel_program
from taoprofiles.runs.run import PROFILE_VARIABLE, RunOptions, prepare
from taoprofiles.runs.session import NAME_VARIABLE
from taoprofiles.storage import files
from taoprofiles.storage.paths import to_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taoprofiles.runs.run import Run
    from taoprofiles.storage.paths import Context


def is_kernel(command: list[str], options: RunOptions) -> bool:
    """Check whether a run is a kernel with its own mounts file."""
    return command[1:3] == ["-m", "ipykernel_launcher"] and not options.shared and not (options.image or options.on)


def start(context: Context, name: str, command: list[str], options: RunOptions) -> NoReturn:
    """Become the kernel. Raises TaoprofError only if no Python with ipykernel is left that could show the reason."""
    python = command[0]
    try:
        problem = kernels.python_problem(python, context.environ)
        if problem:
            raise UsageError(
                f"'{python}' cannot run a kernel: {problem}",
                hint=f"to choose another Python: taoprof kernel install {name} --python PATH",
            )
        reason = os.path.basename(context.environ.get(NAME_VARIABLE, "")) or "kernel"
        run = prepare(context, name, [], kind="notebook", reason=reason, options=options)
        try:
            _become(python, command[3:], _environ(context, run, python), _settings(context, run))
        except BaseException:
            run.discard()
            raise
    except TaoprofError as error:
        _become_refusal(context, name, command, error)


def _settings(context: Context, run: Run) -> dict[str, object]:
    names = (*run.variables, PROFILE_VARIABLE, "LAUNCHER_MOUNTS")
    before = {name: context.environ.get(name) for name in names}
    os.set_inheritable(run.liveness_fd, True)
    return {"profile": run.hold.profile, "run": run.hold.id, "fd": run.liveness_fd, "before": before}


def _environ(context: Context, run: Run, python: str) -> dict[str, str]:
    """Return the environment of the kernel; the commands beside its Python and 'taoprof' are on PATH."""
    environ = {name: value for name, value in run.environ.items() if name != RUN_VARIABLE}
    folders = context.environ.get("PATH", os.defpath).split(os.pathsep)
    before = [folder for folder in (os.path.dirname(python),) if folder not in folders]
    after = [folder for folder in (os.path.dirname(kernels.taoprof()),) if folder not in [*before, *folders]]
    return {**environ, "PATH": os.pathsep.join([*before, *folders, *after])}


def _become(python: str, arguments: list[str], environ: Mapping[str, str], settings: dict[str, object]) -> NoReturn:
    environ = {**environ, kernel_program.SETTINGS: json.dumps(settings)}
    encoded = {to_bytes(name): to_bytes(value) for name, value in environ.items()}
    try:
        os.execve(python, [python, kernel_program.__file__, *arguments], encoded)  # noqa: S606
    except (OSError, ValueError) as error:
        raise TaoprofError(f"'{python}' cannot be started: {reason_of(error)}") from None


def _become_refusal(context: Context, name: str, command: list[str], error: TaoprofError) -> NoReturn:
    """Become a kernel whose cells fail with the error. The server's own Python has ipykernel if no other has it."""
    if isinstance(error, NotFoundError):
        error.hint = f"'taoprof list' shows all; to remove this kernel: taoprof kernel remove {name}"
    text = "; ".join([error.message, *error.problems]) + (f". hint: {error.hint}" if error.hint else "")
    settings: dict[str, object] = {"error": f"{text}. Then restart the kernel"}
    server = files.try_read(f"/proc/{os.getppid()}/cmdline", 1 << 20)[0].partition(b"\0")[0].decode(errors="replace")
    for candidate in (command[0], sys.executable, server, "python3"):
        python = shutil.which(candidate, path=context.environ.get("PATH"))
        if python is not None and not kernels.python_problem(python, context.environ):
            _become(python, command[3:], context.environ, settings)
    raise error
