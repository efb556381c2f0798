"""What was found on a machine, as plain data: gathered by ``world`` and ``operations``, judged by ``checks``.

Nothing here holds a secret: of files with credentials only names are kept, of the environment only what says where
things are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

OTHER_PROGRAM = "other-program"
NO_INTERPRETER = "no-interpreter"
NO_ANSWER = "no-answer"
NO_LAUNCHER = "no-launcher"


class Launcher(NamedTuple):
    """One ``tao`` of PATH. What could not be learnt is "" or empty, and ``problem`` says why.

    ``distribution`` and ``version`` are those of the installed package, ``python`` the interpreter's path, ``release``
    its version such as (3, 11, 7), ``packages`` the version by name of what decides whether it starts at all.
    ``trouble`` is "" or one of the words above; ``imports`` the exception, in one line, that comes of importing what
    the launcher imports; ``pip`` is "pip", "pipx" or "uv", with what packages are changed there, or "" where the
    system's package manager has forbidden it (PEP 668). ``left`` is the version whose files lie in a dead environment,
    ``folder`` where the launcher's own modules lie.
    """

    path: str
    python: str = ""
    release: tuple[int, ...] = ()
    prefix: str = ""
    distribution: str = ""
    version: str = ""
    has_distutils: bool = True
    packages: Mapping[str, str] = {}
    problem: str = ""
    trouble: str = ""
    imports: str = ""
    pip: str = "pip"
    left: str = ""
    folder: str = ""


class Launchers(NamedTuple):
    """Every ``tao`` of PATH, the one that a shell starts first; those of usual places that are not on PATH, and more.

    ``environment`` is the active environment's folder (VIRTUAL_ENV or CONDA_PREFIX), ``release`` that of the
    ``python3`` on PATH.
    """

    found: tuple[Launcher, ...] = ()
    elsewhere: tuple[str, ...] = ()
    environment: str = ""
    more: int = 0


ABSENT, REFUSED, DENIED, SILENT, ODD = "absent", "refused", "denied", "silent", "odd"


class Answer(NamedTuple):
    """What an engine said: at ``address``, or ``trouble`` (one of the words above) and ``problem``, in words."""

    address: str
    id: str = ""
    version: str = ""
    system: str = ""
    root: str = ""
    is_rootless: bool = False
    runtimes: tuple[str, ...] = ()
    trouble: str = ""
    problem: str = ""

    def is_same(self, other: Answer) -> bool:
        """Whether it is the same engine. Two of Docker 20.10 on one machine have one id, of /etc/docker/key.json."""
        return (self.id, self.root) == (other.id, other.root)


class Docker(NamedTuple):
    """The engine as each of the launcher's three clients finds it, and the ``docker`` command.

    ``first`` is docker.from_env()'s: DOCKER_HOST, or the socket. ``second`` is always the socket. ``command`` is the
    command's, which follows DOCKER_HOST, DOCKER_CONTEXT or the current ``context``. ``cli`` is its path, "" without
    one; ``host`` is DOCKER_HOST. ``in_group`` tells whether the user database has this user in the socket's group,
    ``group``; ``has_daemon`` whether a dockerd is installed, ``has_systemd`` whether
    systemd starts it.
    """

    cli: str
    host: str
    context: str
    first: Answer
    second: Answer
    command: Answer
    group: str = ""
    in_group: bool = False
    has_daemon: bool = False
    has_systemd: bool = True
    is_snap: bool = False


class Gpus(NamedTuple):
    """NVIDIA's parts. ``gpus`` are names, ``tool`` nvidia-smi's path, ``problem`` what it said instead.

    ``hook`` is the path of nvidia-container-runtime-hook, which dockerd looks for at its start; ``cdi`` that of
    nvidia-cdi-hook, which a newer one takes as well; ``is_late`` where the hook came after the dockerd at work began.
    """

    tool: str = ""
    gpus: tuple[str, ...] = ()
    driver: str = ""
    problem: str = ""
    hook: str = ""
    cdi: str = ""
    is_late: bool = False


class Login(NamedTuple):
    """The docker command's configuration, as the launcher reads it: ``~/.docker/config.json`` and no other.

    ``problem`` is why it cannot be read; ``kind`` is "" or "absent", "unreadable", "no-json", "no-object",
    "no-auths", "auths-odd". ``registries`` are those of ``auths`` that the launcher asks for, ``helpers`` the programs
    that keep credentials, ``lost`` those of them that are not on PATH. ``elsewhere`` is the file that
    DOCKER_CONFIG makes the docker command use instead, and ``there`` those of its registries.
    """

    path: str
    kind: str = ""
    problem: str = ""
    registries: tuple[str, ...] = ()
    helpers: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    elsewhere: str = ""
    there: tuple[str, ...] = ()
    owner: int = -1


class FileSystem(NamedTuple):
    """A file system: the ``path`` that was asked about, its kind, and free and whole size in bytes."""

    what: str
    path: str
    kind: str = ""
    free: int = 0
    size: int = 0


class Home(NamedTuple):
    """What HOME and the variables say. ``variables`` has only those that say where things are.

    ``near`` are files whose names come near to the mapping file's, ``system`` is "wsl" or "". ``mounts_meant`` is the
    file that LAUNCHER_MOUNTS was to name, where that can be told.
    """

    path: str
    uid: int
    variables: Mapping[str, str]
    mapping_file: str
    has_mapping: bool = False
    near: tuple[str, ...] = ()
    system: str = ""
    sudo_home: str = ""
    mounts_state: str = ""
    mounts_meant: str = ""
    places: tuple[FileSystem, ...] = ()


class State(NamedTuple):
    """What taoprofiles itself has on disk, and its guard.

    ``foreign`` are files and folders of ours that belong to another user (path, uid); ``unreadable`` those that cannot
    be read (path, why); ``profiles`` invalid ones (name, problem); ``misnamed`` files that are no profiles; ``torn``
    counts lines of the journals that say nothing (path, lines); ``holds`` damaged records (id, problem). ``lock`` names
    the holder of a lock that was held the whole time of the look. ``known`` counts the
    profiles. ``unit`` is "" (none), "same" or "other", ``guard``
    the version of a guard at work, ``service`` the service's state.
    """

    folder: str
    mapping_file: str
    profile: str = ""
    situation: str = ""
    mapping_mode: int | None = None
    known: int = 0
    foreign: tuple[tuple[str, int], ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    profiles: tuple[tuple[str, str], ...] = ()
    misnamed: tuple[str, ...] = ()
    torn: tuple[tuple[str, int], ...] = ()
    holds: tuple[tuple[str, str], ...] = ()
    lock: str = ""
    is_sealed_by_nobody: bool = False
    unit: str = ""
    service: str = ""
    guard: str = ""
    guard_pid: int = 0
    guard_problem: str = ""
    moved: str = ""
    other: str = ""


class Machine(NamedTuple):
    """All of it. ``version`` is taoprofiles' own."""

    version: str
    launchers: Launchers
    docker: Docker
    gpus: Gpus
    login: Login
    home: Home
    state: State
