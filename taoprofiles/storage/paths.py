"""The paths of a user's files, from HOME, the XDG variables and TAOPROF_HOME, which nothing else reads."""

from __future__ import annotations

import os

from taoprofiles.errors import InvalidStateError

MAPPING_FILE = ".tao_mounts.json"
"""The launcher's name for it: ``DOCKER_MOUNT_FILE`` in nvidia_tao_cli's docker_handler.py."""


class Context:
    """A user's home, environment, user and group ids, and the paths that follow from them.

    ``environ`` is what ``${env:NAME}`` refers to. ``TAOPROF_HOME`` replaces the home everywhere, the mapping file
    included; the XDG variables are then ignored.

    Raises InvalidStateError if there is no home or it is not an absolute path.
    """

    def __init__(self, environ: dict[str, str] | None = None) -> None:
        self.environ = dict(os.environ if environ is None else environ)
        self.uid = os.getuid()
        moved = self.environ.get("TAOPROF_HOME")
        self.home = os.path.normpath(moved) if moved else _home(self.environ)
        if not os.path.isabs(self.home):
            which = "TAOPROF_HOME" if moved else "HOME"
            raise InvalidStateError(
                f"{which} is '{moved or self.home}', which is not an absolute path",
                hint=f"set {which} to an absolute path, such as {which}=/home/NAME",
            )
        xdg = {} if moved else self.environ
        self.mapping_file = os.path.join(self.home, MAPPING_FILE)
        self.config = os.path.join(_xdg(xdg, "XDG_CONFIG_HOME", self.home, ".config"), "taoprofiles")
        self.profiles = os.path.join(self.config, "profiles")
        self.state = os.path.join(_xdg(xdg, "XDG_STATE_HOME", self.home, ".local/state"), "taoprofiles")
        self.lock = os.path.join(self.state, "lock")
        self.history = os.path.join(self.state, "history.jsonl")
        self.objects = os.path.join(self.state, "objects")
        self.rejected = os.path.join(self.state, "rejected")
        self.kernels = os.path.join(self.state, "kernels.json")
        self.holds = os.path.join(self.state, "holds")
        self.queue = os.path.join(self.state, "queue")
        self.runs = os.path.join(self.state, "runs.jsonl")
        self.notifications = os.path.join(self.state, "notifications")
        self.logs = os.path.join(self.state, "logs")
        self.cache = os.path.join(self.state, "cache")
        self.index = os.path.join(self.cache, "index.json")
        self.current_cache = os.path.join(self.cache, "prompt")
        self.guard = os.path.join(self.state, "guard")
        self.seal = os.path.join(self.guard, "seal.json")
        self.pending_messages = os.path.join(self.guard, "messages")

    @property
    def gid(self) -> int:
        """The user's primary group. The group of this process may be another one, as after 'newgrp docker'."""
        account = find_account(self.uid)
        return account[1] if account else os.getgid()

    @property
    def groups(self) -> list[int]:
        """The user's further groups, without the primary one."""
        return sorted({os.getgid(), *os.getgroups()} - {self.gid})

    @property
    def folder(self) -> str:
        """The current folder. Raises InvalidStateError if it has been removed."""
        try:
            return os.getcwd()
        except OSError:
            raise InvalidStateError("the current folder has been removed", hint="cd to another one") from None

    def profile_file(self, name: str) -> str:
        """Return the path of a profile's file; the name has been checked."""
        return os.path.join(self.profiles, name + ".toml")

    @property
    def user(self) -> str:
        """The user's name in records. A container, or a job of a service, may have no variable with it."""
        name = self.environ.get("USER") or self.environ.get("LOGNAME")
        if name:  # without the password database, which may be on a slow server
            return name
        account = find_account(self.uid)
        return account[0] if account else f"uid {self.uid}"

    def expand_user(self, path: str) -> str:
        """Return ``path`` with a leading ``~`` or ``~user`` expanded."""
        return expand_user(path, self.home)

    def absolute(self, path: str) -> str:
        """Return the path that a launcher started here would use for ``path``."""
        path = self.expand_user(path)
        return path if os.path.isabs(path) else os.path.join(self.folder, path)

    def short(self, path: str) -> str:
        """Return ``path`` with ``~`` for the home, for messages."""
        return "~" + path[len(self.home) :] if self.home != "/" and is_inside(path, self.home) else path


def find_account(uid: int) -> tuple[str, int, str] | None:
    """Return a user's name, primary group and home, None for a user id that no account has."""
    import pwd  # not for the prompt

    try:
        account = pwd.getpwuid(uid)
    except (KeyError, OverflowError):  # a container started with --user
        return None
    return account.pw_name, account.pw_gid, account.pw_dir


def to_bytes(text: str) -> bytes:
    """Return a word or value for another program: in UTF-8 in any locale, or the bytes that Python was given."""
    return text.encode("utf-8", "surrogateescape")


def expand_user(path: str, home: str) -> str:
    """Return what ``os.path.expanduser`` does for a user with this ``home``; ``~bob`` is bob's home, if he exists."""
    name, slash, rest = path.partition("/")
    if name != "~":
        return path if "\0" in name else os.path.expanduser(path)  # which raises ValueError: nobody has such a name
    return home.rstrip("/") + slash + rest or "/"


def is_inside(path: str, folder: str) -> bool:
    """Check whether ``path`` is ``folder`` or lies in it. Both are absolute and normalised; nothing is resolved."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _home(environ: dict[str, str]) -> str:
    home = environ.get("HOME")
    if home is not None:
        return home.rstrip("/") or ("/" if home else home)
    account = find_account(os.getuid())  # what os.path.expanduser does for the launcher when HOME is not set
    if account is None:
        raise InvalidStateError(
            f"there is no home folder: HOME is not set and user id {os.getuid()} is not in the password database",
            hint="set HOME to an absolute path, such as HOME=/home/NAME",
        )
    return account[2]


def _xdg(environ: dict[str, str], name: str, home: str, default: str) -> str:
    # The XDG base directory specification: a relative path is invalid and must be ignored.
    value = environ.get(name, "")
    return value if os.path.isabs(value) else os.path.join(home, default)
