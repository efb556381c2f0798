"""Editing a profile in the person's own editor; a text that is not valid is kept aside, and the profile stays."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

from taoprofiles.errors import InvalidProfileError, TaoprofError
from taoprofiles.faces.output import note
from taoprofiles.operations import profiles
from taoprofiles.state import files
from taoprofiles.state.locks import Lock
from taoprofiles.state.store import FILE_LIMIT, Store

STDERR = 2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from taoprofiles.state.paths import Context


def edit(context: Context, name: str, *, timeout: float) -> bool:
    """Open the profile in $VISUAL or $EDITOR; True if it was changed.

    The editor gets a copy. Where the copy does not become the profile, because it is not valid or the profile was
    changed in the meantime, it stays and the next ``edit`` opens it again. Raises InvalidProfileError, TaoprofError.
    """
    store = Store(context)
    before = store.text(name)
    draft = os.path.join(context.rejected, name + ".toml")
    if os.path.exists(draft):
        note(f"taoprof: going on with the text that was refused; 'rm {draft}' starts afresh")
    else:
        with Lock(context.lock, timeout):
            files.make_folder(context.rejected)
            files.replace(draft, before)
    try:
        _open_editor(context, draft)
    except BaseException:
        if files.read(draft, FILE_LIMIT) == before:
            files.forget_cache(draft)  # nothing was written, so there is nothing to go on with
        raise
    text = files.read(draft, FILE_LIMIT)
    if text is None:
        raise TaoprofError(f"the editor removed '{draft}'; profile '{name}' is as it was")
    try:
        profiles.write(context, "edit", name, text, replace=True, expected=before, timeout=timeout)
    except InvalidProfileError as error:
        raise InvalidProfileError(
            f"profile '{name}' is as it was: the edited text is not valid ({draft})",
            problems=error.problems,
            hint=f"'taoprof edit {name}' opens it again",
        ) from None
    except TaoprofError as error:
        error.hint = f"the edited text is kept: '{draft}'; 'taoprof edit {name}' opens it again"
        raise
    with Lock(context.lock, timeout):
        files.remove(draft)
    return text != before


def _open_editor(context: Context, path: str) -> None:
    command = context.environ.get("VISUAL") or context.environ.get("EDITOR") or "vi"
    try:
        answer = None if sys.stdout.isatty() else STDERR  # what it draws is no part of our answer
        done = subprocess.run([*shlex.split(command), path], stdout=answer, check=False)  # noqa: S603 - their own editor
    except (OSError, ValueError) as error:
        raise TaoprofError(f"cannot start the editor '{command}': {error}", hint="EDITOR=nano taoprof edit …") from None
    if done.returncode != 0:
        raise TaoprofError(f"the editor '{command}' ended with status {done.returncode}; nothing was changed")
