"""Editing a profile in the person's own editor; a text that is not valid is kept aside, and the profile stays."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

from taoprofiles.cli.output import note
from taoprofiles.errors import InvalidProfileError, TaoprofError
from taoprofiles.profiles import manage
from taoprofiles.profiles.rendering import LIMIT
from taoprofiles.profiles.store import Store
from taoprofiles.storage import atomic, best_effort, files
from taoprofiles.storage.locks import Lock

if TYPE_CHECKING:
    from taoprofiles.storage.paths import Context

STDERR = 2


def edit(context: Context, name: str, *, timeout: float) -> bool:
    """Open the profile in $VISUAL or $EDITOR; True if it was changed.

    The editor gets a copy, whose name says which text it was made from. Where the copy does not become the profile,
    because it is not valid or the profile was changed in the meantime, it stays, and the next ``edit`` of that same
    text opens it again. Raises InvalidProfileError, TaoprofError.
    """
    store = Store(context)
    before = store.text(name)
    draft = os.path.join(context.rejected, f"{name}.{hashlib.sha256(before).hexdigest()[:12]}.toml")
    alone = Lock(f"{draft}.lock")
    if not alone.try_acquire():
        raise TaoprofError(f"profile '{name}' is being edited already, in another terminal")
    try:
        if os.path.exists(draft):
            note(f"taoprof: going on with the text that was kept; 'rm {draft}' starts afresh")
        else:
            with Lock(context.lock, timeout):
                atomic.replace(draft, before)
        return _edit_draft(context, name, before, draft, timeout=timeout)
    finally:
        best_effort.unlink_quietly(f"{draft}.lock")
        alone.release()


def _edit_draft(context: Context, name: str, before: bytes, draft: str, *, timeout: float) -> bool:
    try:
        _open_editor(context, draft)
        text = files.read(draft, LIMIT)
    except BaseException as error:
        if _is_as_before(draft, before):
            best_effort.unlink_quietly(draft)  # nothing was written, so there is nothing to go on with
        elif isinstance(error, TaoprofError):
            error.hint = f"the edited text is kept: '{draft}'; 'taoprof edit {name}' opens it again"
        raise
    finally:
        best_effort.make_private(draft)  # many an editor writes a new file, with the rights of the umask
    if text is None:
        raise TaoprofError(f"the editor removed '{draft}'; profile '{name}' is as it was")
    try:
        manage.write(context, "edit", name, text, replace=True, expected=before, timeout=timeout)
    except InvalidProfileError as error:
        raise InvalidProfileError(
            f"profile '{name}' is as it was: the edited text is not valid ({draft})",
            problems=error.problems,
            hint=f"'taoprof edit {name}' opens it again",
        ) from None
    except TaoprofError as error:
        error.hint = f"the edited text is kept: '{draft}'"
        raise
    best_effort.unlink_quietly(draft)
    return text != before


def _is_as_before(draft: str, before: bytes) -> bool:
    try:
        return files.read(draft, LIMIT) == before
    except TaoprofError:
        return False


def _open_editor(context: Context, path: str) -> None:
    command = context.environ.get("VISUAL") or context.environ.get("EDITOR") or "vi"
    try:
        answer = None if sys.stdout.isatty() else STDERR  # what it draws is no part of our answer
        done = subprocess.run([*shlex.split(command), path], stdout=answer, check=False)  # noqa: S603 - their own editor
    except (OSError, ValueError) as error:
        reason = (error.strerror or "").lower() if isinstance(error, OSError) else str(error)
        raise TaoprofError(
            f"cannot start the editor '{command}': {reason}", hint="EDITOR=nano taoprof edit …"
        ) from None
    if done.returncode != 0:
        raise TaoprofError(f"the editor '{command}' ended with status {done.returncode}; the profile is as it was")
