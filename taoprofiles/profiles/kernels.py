"""Jupyter kernels that run in a profile: kernelspecs, written without jupyter_client."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.errors import InvalidStateError, NotFoundError, TaoprofError, UsageError
from taoprofiles.profiles.store import Store, is_name
from taoprofiles.storage import atomic, files
from taoprofiles.storage.locks import Lock
from taoprofiles.system.commands import run_bounded

if TYPE_CHECKING:
    from taoprofiles.storage.paths import Context

LOGOS = ("logo-svg.svg", "logo-32x32.png", "logo-64x64.png")
"""Jupyter's names of a kernel's logos; the files are in ``profiles/logos``."""

_SPEC, _PREFIX = "kernel.json", "taoprof-"
_LIMIT = 1 << 20
_NOTEBOOK_LIMIT = 64 << 20
_SECONDS = 20.0
_RECORD_LIMIT = 16 << 20
_KEPT_REMOVALS = 20
"""Removed profiles whose kernels 'undo' can restore."""

_Kernels = list[tuple[str, dict[str, Any]]]
"""Paths of kernels, and their kernelspecs."""


class _Change(NamedTuple):
    """A profile that is renamed from ``was`` to ``now``, removed (``now`` is None) or restored (``was`` is None)."""

    was: str | None
    now: str | None
    kernels: _Kernels


def user_folder(context: Context) -> str:
    """Return Jupyter's folder of the user's kernels."""
    environ = context.environ
    share = environ.get("XDG_DATA_HOME") or os.path.join(context.home, ".local/share")
    return os.path.join(context.absolute(environ.get("JUPYTER_DATA_DIR") or os.path.join(share, "jupyter")), "kernels")


def prefix_folder(context: Context, prefix: str) -> str:
    """Return the folder of the kernels of an environment, such as /usr/local."""
    return os.path.join(context.absolute(prefix), "share/jupyter/kernels")


def known_folders(context: Context) -> list[str]:
    """Return the folders in which a user's kernels are looked for: the user's, and those of the environments in use."""
    data = context.environ.get("JUPYTER_PATH", "").split(os.pathsep)
    prefixes = [sys.prefix, *(context.environ.get(name, "") for name in ("VIRTUAL_ENV", "CONDA_PREFIX"))]
    folders = [user_folder(context), *(os.path.join(context.absolute(folder), "kernels") for folder in data if folder)]
    folders += [prefix_folder(context, prefix) for prefix in prefixes if prefix]
    return list({os.path.realpath(folder): folder for folder in reversed(folders)}.values())[::-1]


def kernel_name(profile: str) -> str:
    """Return the kernel's name: Jupyter ignores case, so capitals (and the '.' that marks them) become '.' and hex."""
    return _PREFIX + "".join(f".{ord(c):x}" if c == "." or c.isupper() else c for c in profile)


def display_name(profile: str) -> str:
    """Return the name that a launcher shows."""
    return f"TAO: {profile}"


def taoprof() -> str:
    """Return the path of the command ``taoprof``."""
    return os.path.join(sysconfig.get_path("scripts"), "taoprof")


def install(context: Context, profile: str, python: str, folder: str) -> dict[str, Any]:
    """Write the kernel of a profile, replacing an earlier one; return it as ``installed`` does.

    Other users may read it, unless ``folder`` is the user's own. Raises InvalidStateError if another program's kernel
    has the same name.
    """
    argv = [taoprof(), "run", profile, "--", python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    metadata = {"taoprof": {"profile": profile}, "debugger": True}
    spec = {"argv": argv, "display_name": display_name(profile), "language": "python", "metadata": metadata}
    path = os.path.join(folder, kernel_name(profile))
    with Lock(context.lock):
        Store(context).template(profile, may_write=True)  # so that the kernel's start need not validate it
        _write(context, path, spec)
    return _describe(context, path, profile, spec)


def installed(
    context: Context, folders: list[str], profile: str | None = None, *, unreadable: dict[str, str]
) -> list[dict[str, Any]]:
    """Return the kernels of profiles, or of one, by their metadata; other kernels are left out.

    ``unreadable`` gets each path of a kernel of this user that cannot be read, and why.
    """
    return [_describe(context, *kernel) for kernel in _find(folders, profile, unreadable)]


def remove(
    context: Context, profile: str | None, folders: list[str], *, unreadable: dict[str, str]
) -> list[dict[str, Any]]:
    """Remove the kernels of a profile, of all with None; ``unreadable`` as for ``installed``.

    Raises NotFoundError if ``profile`` has none, TaoprofError if one cannot be read that may be its own.
    """
    kernels = installed(context, folders, profile, unreadable=unreadable)
    if profile is not None and not kernels:
        if unreadable:
            raise TaoprofError(unreadable.popitem()[1])
        raise NotFoundError(f"profile '{profile}' has no kernel", hint="to see all: taoprof kernel list")
    for kernel in kernels:
        delete(context, kernel["path"])
    return kernels


def delete(context: Context, path: str) -> None:
    """Delete a kernel. Raises TaoprofError."""
    with Lock(context.lock):
        _remove(path)


@contextmanager
def follow(context: Context, was: str | None, now: str | None) -> Iterator[list[str]]:
    """Update the kernels of profile ``was`` after the block, which renames it to ``now``, or with None removes it.

    If both are the same, nothing is done. If ``was`` is None the block restores the removed profile ``now``, and its
    kernels are restored. What is to be done is recorded before the block, so that ``finish`` completes it after a
    kill. The list gets messages. Raises TaoprofError as ``_find`` does, before the block.
    """
    messages, unreadable = finish(context), dict[str, str]()
    if was is not None and Store(context).text_or_none(was) is None:
        now = was  # the block refuses: a kernel of a missing profile is not the other profile's, and stays
    own = [] if was in (None, now) else _find(known_folders(context), was, unreadable)
    kernels = [*((path, spec) for path, _, spec in own), *((path, {}) for path in unreadable)]
    if kernels or files.exists(context.kernels):
        with Lock(context.lock):
            pending, removed = _read_record(context)
            if was is not None and was != now:
                removed.pop(was, None)  # those of an earlier profile of that name
            elif was is None and now is not None:
                kernels = removed.get(now, [])
            _write_record(context, [*pending, *([_Change(was, now, kernels)] if kernels else [])], removed)
    yield messages
    messages += finish(context, is_new=True)


def finish(context: Context, *, is_new: bool = False) -> list[str]:
    """Complete what killed commands have begun with kernels; return messages.

    A kernel that cannot be updated is tried again each time, but reported only while the change ``is_new``.
    """
    messages: list[str] = []
    leftovers = [path for folder in known_folders(context) for path in _find_leftovers(folder)]
    try:
        if not leftovers and not _read_record(context)[0]:
            return []
        with Lock(context.lock):
            for path in leftovers:
                _delete_folder(path)
            pending, removed = _read_record(context)
            failed = [_apply(context, change, removed, messages) for change in pending if _took_effect(context, change)]
            _write_record(context, [change for change in failed if change.kernels], removed)
    except TaoprofError as error:
        messages.append(f"warning: the kernels of profiles were not updated: {error.message}")
    return [line for line in messages if is_new or not line.startswith("warning: ")]


def forget_removed(context: Context) -> None:
    """Forget the kernels of removed profiles. Needs the lock."""
    _write_record(context, _read_record(context)[0], {})


def _read_record(context: Context) -> tuple[list[_Change], dict[str, _Kernels]]:
    """Return the changes that kernels have to follow, and the kernels that were removed with their profiles.

    Raises TaoprofError if they cannot be read.
    """

    def parse(kernels: list[Any]) -> _Kernels:
        return [(str(path), dict(spec)) for path, spec in kernels]

    content = files.read(context.kernels, _RECORD_LIMIT) or b"{}"
    try:
        record = json.loads(content)
        pending = [_Change(was, now, parse(kernels)) for was, now, kernels in record.get("pending", [])]
        return pending, {name: parse(kernels) for name, kernels in record.get("removed", {}).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):  # damaged
        return [], {}


def _write_record(context: Context, pending: list[_Change], removed: dict[str, _Kernels]) -> None:
    if pending or removed:
        kept = dict(list(removed.items())[-_KEPT_REMOVALS:])
        atomic.replace(context.kernels, json.dumps({"pending": pending, "removed": kept}).encode())
    elif files.exists(context.kernels):
        files.remove(context.kernels)


def _took_effect(context: Context, change: _Change) -> bool:
    """Check whether the profile was changed: the command may have failed, or been killed before.

    Raises TaoprofError.
    """
    store = Store(context)
    was, now = (name is not None and store.text_or_none(name) is not None for name in change[:2])
    return not was and now == (change.now is not None)


def _apply(context: Context, change: _Change, removed: dict[str, _Kernels], messages: list[str]) -> _Change:
    """Update the kernels of a changed profile; return the change with those that failed, for the next try."""
    was, now, kernels = change
    failed: _Kernels = []
    for path, spec in kernels:
        try:
            effect = _update(context, change, path, spec)
        except TaoprofError as error:
            failed.append((path, spec))
            what = f"{'still has' if spec else 'may still have'} profile '{was}'" if was else "was not restored"
            messages.append(f"warning: the kernel in '{path}' {what}: {error.message}")
        else:
            if effect:
                messages.append(f"kernel '{display_name(was or now or '')}' {effect}")
    if was is None:
        removed.pop(now or "", None)
    elif now is None:
        removed.setdefault(was, [(path, spec) for path, spec in kernels if spec])
    with suppress(TaoprofError):  # so that the kernel's start need not validate the profile
        if now is not None:
            Store(context).template(now, may_write=True)
    return change._replace(kernels=failed)


def set_in_notebook(context: Context, path: str, profile: str) -> str | None:
    """Make the kernel of a profile the notebook's; return the path of the copy of the file as it was.

    None if the notebook has that kernel already. Raises InvalidStateError for a file that is no notebook.
    """
    wanted = {"display_name": display_name(profile), "language": "python", "name": kernel_name(profile)}
    with Lock(context.lock):
        content, status = files.read(path, _NOTEBOOK_LIMIT) or b"", files.stat_or_none(path)
        try:
            notebook = json.loads(content)
            metadata = notebook.setdefault("metadata", {})
            before, metadata["kernelspec"] = metadata.get("kernelspec"), wanted
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise InvalidStateError(f"'{path}' is not a notebook: it has no metadata, or is not valid JSON") from None
        if before == wanted:
            return None
        indent = re.match(rb"\s*\{\r?\n([ \t]+)", content)
        text = json.dumps(notebook, indent=indent[1].decode() if indent else 1, ensure_ascii=content.isascii()) + "\n"
        backups = (f"{path}.bak{number}" for number in itertools.chain([""], itertools.count(2)))
        backup = next(name for name in backups if not files.exists(name))
        attributes = status and atomic.FileAttributes(status.st_mode, status.st_uid, status.st_gid)
        atomic.replace(backup, content, attributes=attributes)
        atomic.replace(path, text.encode("utf-8", "backslashreplace"))
    return backup


_PROBE = """\
from importlib.util import find_spec
if find_spec("ipykernel"):
    print("ipykernel")
else:
    import os, sys, sysconfig
    marker = os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
    is_system = sys.prefix == sys.base_prefix and os.path.exists(marker)
    print("none", "system" if is_system else "pip" if find_spec("pip") else "uv")
"""


def find_python(context: Context, python: str | None) -> str:
    """Return the absolute path of an interpreter that has ipykernel: ``python``, or the one that is in use here.

    Raises UsageError.
    """
    venv = context.environ.get("VIRTUAL_ENV")
    own = sys.executable if find_spec("ipykernel") is not None else "python3"
    wanted = python or (os.path.join(venv, "bin/python") if venv else own)
    path = shutil.which(context.expand_user(wanted), path=context.environ.get("PATH"))
    if path is None:
        raise UsageError(f"there is no Python '{wanted}'", hint="name one with --python PATH")
    path = os.path.abspath(path)  # a link is kept: it is how a virtual environment is recognised
    problem, hint = python_problem(path, context.environ)
    if problem:
        raise UsageError(f"'{path}' cannot run a kernel: {problem}", hint=hint)
    return path


def python_problem(python: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return why an interpreter cannot run a kernel, "" if it can, and what to do about it."""
    done = run_bounded([python, "-c", _PROBE], environ, _SECONDS)
    answer = done.out.strip().rpartition("\n")[2]
    commands = {  # pip refuses to install beside the system's own Python (PEP 668); the environments of uv have no pip
        "none system": "python3 -m venv ~/tao-env && . ~/tao-env/bin/activate && pip install ipykernel",
        "none pip": shlex.join([python, "-m", "pip", "install", "ipykernel"]),
        "none uv": shlex.join(["uv", "pip", "install", "--python", python, "ipykernel"]),
    }
    if not done.problem and answer in commands:
        return "it has no ipykernel", f"to install it: {commands[answer]}"
    problem = "" if answer == "ipykernel" else "it is no working Python 3 interpreter"
    return done.problem or problem, "name another one with --python PATH"


def _find(folders: list[str], profile: str | None, unreadable: dict[str, str]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return the path, profile and kernelspec of each profile's kernel, or of those of one profile.

    A kernel of this user that cannot be read is left out and added to ``unreadable``, another user's is left out.
    Raises TaoprofError if one of the user's folders cannot be read: it would count as empty.
    """
    paths = []
    for folder in folders:
        try:
            paths += [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            status = files.stat_or_none(folder)
            if status is None or status.st_uid == os.geteuid():
                raise files.to_taoprof_error(folder, "list", error) from error
    kernels = []
    for path in paths:
        try:
            name, spec = _read(path)
        except TaoprofError as error:
            if _is_own(path):
                unreadable[path] = error.message
            continue
        if name is not None and profile in (None, name):
            kernels.append((path, name, spec))
    return kernels


def _is_own(path: str) -> bool:
    """Check whether a kernel is this user's; to root each one is."""
    try:
        return os.geteuid() in (0, os.lstat(path).st_uid)
    except OSError:
        return False


def _find_leftovers(folder: str) -> list[str]:
    """Return this user's kernels that were not completely written or removed: they have no kernelspec."""
    try:
        paths = [os.path.join(folder, name) for name in os.listdir(folder) if name.startswith(_PREFIX)]
        paths = [path for path in paths if _is_own(path) and not os.path.islink(path)]
        return [path for path in paths if set(os.listdir(path)) <= {*_written_files(path)} - {_SPEC}]
    except OSError:
        return []


def _written_files(path: str) -> list[str]:
    """Return the names of the files in the folder of a kernel that taoprof wrote, also if it was killed then."""
    return [name for name in os.listdir(path) if name in (_SPEC, *LOGOS) or name.startswith(atomic.TEMPORARY)]


def _read(path: str) -> tuple[str | None, dict[str, Any]]:
    """Return the profile of the kernel in a folder and its kernelspec; no profile if the kernel is not a profile's.

    Raises TaoprofError for a kernel with a name of ours that cannot be read.
    """
    spec: Any = None
    try:
        spec = json.loads(files.read(os.path.join(path, _SPEC), _LIMIT) or b"null")
    except (InvalidStateError, ValueError, RecursionError):
        pass
    except TaoprofError:
        if os.path.basename(path).startswith(_PREFIX):
            raise
    spec = spec if isinstance(spec, dict) else {}
    metadata = spec.get("metadata")
    ours = metadata.get("taoprof") if isinstance(metadata, dict) else None
    name = ours.get("profile") if isinstance(ours, dict) else None
    return (name if isinstance(name, str) else None), spec


def _words(spec: dict[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """Return the words of a kernelspec's command: up to taoprof, from 'run' to '--', and after that.

    A person may have put another program before it, and added options.
    """
    argv = spec.get("argv")
    words = [str(word) for word in argv] if isinstance(argv, list) else []
    pairs = enumerate(itertools.pairwise(words), 1)
    start = next((at for at, (word, after) in pairs if os.path.basename(word) == "taoprof" and after == "run"), 1)
    end = words.index("--", start) if "--" in words[start:] else len(words)
    return words[:start], words[start:end], words[end + 1 :]


def _renamed(spec: dict[str, Any], profile: str, renamed: str) -> dict[str, Any]:
    """Return the kernelspec of a renamed profile: what a person has changed in it stays."""
    before, options, command = _words(spec)
    name = max((at for at, word in enumerate(options) if word == profile), default=0)  # options are before it
    options = [renamed if 0 < at == name else word for at, word in enumerate(options)][1:]
    shown = spec.get("display_name")
    return {
        **spec,
        "argv": [*before[:-1], taoprof(), "run", *options, "--", *command],
        "display_name": display_name(renamed) if shown == display_name(profile) else shown,
        "metadata": {**spec["metadata"], "taoprof": {"profile": renamed}},
    }


def _update(context: Context, change: _Change, path: str, spec: dict[str, Any]) -> str:
    """Update a kernel after a change of its profile; return what was done, "" if nothing.

    A kernel that is another profile's by now stays; so does all that a person has added to one. The folder gets the
    new name too, unless a person has chosen another one or the new name is taken.
    """
    was, now, _ = change
    if was is None:
        if files.exists(os.path.join(path, _SPEC)):
            return ""
        _write(context, path, spec)
        return f"restored in {context.short(path)}"
    name, current = _read(path)
    if now is None:
        if name != was:
            return ""
        _remove(path)
        return "removed"
    to = path
    if os.path.basename(path) == kernel_name(was):
        to = os.path.join(os.path.dirname(path), kernel_name(now))
        _require_no_foreign(to)
    if name not in (was, now):
        return ""
    if name == was:
        _write_file(context, path, _SPEC, _to_bytes(_renamed(current, was, now)))
    if not files.exists(to):
        files.rename(path, to)
    return f"is now '{display_name(now)}'"


def _to_bytes(spec: dict[str, Any]) -> bytes:
    return json.dumps(spec, indent=1).encode() + b"\n"


def _require_no_foreign(path: str) -> None:
    """Raise InvalidStateError if another program has a kernel in a folder."""
    if files.exists(os.path.join(path, _SPEC)) and _read(path)[0] is None:
        other = os.path.join(os.path.dirname(path), "NAME")
        hint = f"to keep it under another name: mv {shlex.quote(path)} {shlex.quote(other)}"
        raise InvalidStateError(f"'{path}' has a kernel that was not installed by taoprof", hint=hint)


def _write(context: Context, path: str, spec: dict[str, Any]) -> None:
    """Write a kernel into its folder. Needs the lock."""
    _require_no_foreign(path)
    is_new = not files.exists(path)
    try:
        files.make_folder(path, 0o700 if _is_in_home(context, path) else 0o755)
        for name in LOGOS:
            logo = os.path.join(os.path.dirname(__file__), "logos", name)
            _write_file(context, path, name, files.read(logo, _LIMIT) or b"")
        _write_file(context, path, _SPEC, _to_bytes(spec))  # last: without it the folder is no kernel
    except BaseException:
        if is_new:
            _delete_folder(path)
        raise


def _write_file(context: Context, path: str, name: str, data: bytes) -> None:
    """Write a file of a kernel. Root's belongs to the owner of the folder, who could not replace it otherwise."""
    mode, owner = 0o600 if _is_in_home(context, path) else 0o644, (os.geteuid(), os.getegid())
    if os.geteuid() == 0 and (status := files.stat_or_none(path)):
        owner = (status.st_uid, status.st_gid)
    atomic.replace(os.path.join(path, name), data, attributes=atomic.FileAttributes(mode, *owner), link=None)


def _is_in_home(context: Context, path: str) -> bool:
    """Check whether a kernel is in the user's own folder, which other users need not read."""
    return os.path.dirname(path) == user_folder(context)


def _describe(context: Context, path: str, profile: str, spec: dict[str, Any]) -> dict[str, Any]:
    before, _, command = _words(spec)
    python = next(iter(command), "")
    problem = "" if shutil.which(python) else "no such Python"
    if before and not shutil.which(before[-1]):
        problem = "no such taoprof"
    if not (is_name(profile) and os.path.lexists(Store(context).path(profile))):
        problem = "no such profile"
    return {
        "profile": profile, "kernel": os.path.basename(path), "path": path, "python": python, "problem": problem
    }  # fmt: skip


def _remove(path: str) -> None:
    """Remove a kernel; of a symlink, only the symlink."""
    if os.path.islink(path):
        return files.remove(path)
    files.remove(os.path.join(path, _SPEC))
    return _delete_folder(path)


def _delete_folder(path: str) -> None:
    with suppress(OSError):
        for name in _written_files(path):
            files.unlink_quietly(os.path.join(path, name))
    files.rmdir_quietly(path)
