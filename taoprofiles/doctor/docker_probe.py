"""The engine as the launcher's three clients find it, the ``docker`` command, and NVIDIA's parts."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from taoprofiles.masking import within
from taoprofiles.storage import files
from taoprofiles.system import processes
from taoprofiles.system.commands import run_bounded
from taoprofiles.system.engine import DEFAULT, Engine, EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping

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


PATIENCE = 4.0
"""Seconds for an engine or the docker command; one at work answers in a tenth of one."""

DRIVER_PATIENCE = 10.0
"""Seconds for nvidia-smi, which wakes up every GPU where no persistence daemon keeps them awake."""

_SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What a service has for its PATH (systemd.exec(5)), and so a dockerd that systemd has started."""


def survey(environ: Mapping[str, str]) -> Docker:
    """Ask the engines and the command, side by side."""
    host = environ.get("DOCKER_HOST", "")
    cli = shutil.which("docker", path=environ.get("PATH", "")) or ""
    with ThreadPoolExecutor(4) as pool:
        context = pool.submit(_context, cli, environ)
        command = pool.submit(_by_command, cli, environ)
        second = pool.submit(_ask, environ, DEFAULT)
        first = pool.submit(_ask, environ, host) if host not in ("", DEFAULT) else second
    group, in_group = _group(DEFAULT.removeprefix("unix://"))
    daemon = shutil.which("dockerd", path=f"{environ.get('PATH', '')}:{_SYSTEM}:/snap/bin")
    name, address = context.result()
    told = command.result()
    real = os.path.realpath(cli) if cli else ""
    is_snap = real.startswith("/snap/") or real == "/usr/bin/snap" or first.result().root.startswith("/var/snap/")
    return Docker(
        cli,
        within(host),
        name,
        first.result(),
        second.result(),
        told._replace(address=address or told.address),
        group,
        in_group,
        daemon is not None,
        os.path.isdir("/run/systemd/system"),  # sd_booted(3)
        is_snap,
    )


def gpus(environ: Mapping[str, str]) -> Gpus:
    """Ask the driver, and look for what dockerd needs to hand GPUs to a container."""
    wide = f"{environ.get('PATH', '')}:{_SYSTEM}:/usr/lib/wsl/lib"
    tool = shutil.which("nvidia-smi", path=wide) or ""
    names: tuple[str, ...] = ()
    problem = driver = ""
    if tool:
        told = run_bounded([tool, "--query-gpu=name,driver_version", "--format=csv,noheader"], environ, DRIVER_PATIENCE)
        rows = [line.rpartition(",") for line in told.out.splitlines()[:100] if "," in line]
        if told.status == 0 and rows:
            names = tuple(name.strip()[:100] for name, _, _ in rows)
            driver = rows[0][2].strip()[:50]
        else:
            said = (told.out + told.err).strip().splitlines() or [f"exit status {told.status}"]
            problem = told.problem or said[0][:200]
    daemon, path = _daemon(environ.get("DOCKER_HOST") or DEFAULT)
    hook = shutil.which("nvidia-container-runtime-hook", path=path or wide) or ""
    cdi = shutil.which("nvidia-cdi-hook", path=path or wide) or ""
    return Gpus(tool, names, driver, problem, hook, cdi, _is_newer(hook, daemon))


def _ask(environ: Mapping[str, str], address: str) -> Answer:
    shown = within(address)  # it may hold a password
    try:
        found = Engine(environ, PATIENCE, address=address).info()
    except EngineError as error:
        return Answer(shown, trouble=error.kind, problem=within(str(error)))
    except (OSError, ValueError) as error:  # certificates that are not there, an address that no socket takes
        return Answer(shown, trouble=ODD, problem=within(str(error))[:200])
    if not found["id"]:
        return Answer(shown, trouble=ODD, problem="it does not say who it is")
    return Answer(shown, **found)


def _context(cli: str, environ: Mapping[str, str]) -> tuple[str, str]:
    if not cli:
        return "", ""
    words = [cli, "context", "inspect", "--format", "{{.Name}} {{.Endpoints.docker.Host}}"]
    name, _, address = run_bounded(words, environ, PATIENCE).out.strip().partition(" ")
    return name[:200], within(address[:500])


def _by_command(cli: str, environ: Mapping[str, str]) -> Answer:
    if not cli:
        return Answer("", trouble=ABSENT, problem="there is no docker command")
    told = run_bounded([cli, "info", "--format", "{{.ID}}|{{.ServerVersion}}|{{.DockerRootDir}}"], environ, PATIENCE)
    # Some plugins and wrappers say something of their own before it.
    name, version, root = [*(told.out.strip().splitlines() or [""])[-1].split("|", 2), "", ""][:3]
    if told.problem:
        return Answer("", trouble=SILENT, problem=told.problem)
    if name and version:
        return Answer("", id=name[:200], version=version[:100], root=root[:1000])
    said = (told.err.strip().splitlines() or [f"exit status {told.status}"])[0][:300]
    # Podman's stand-in for the command knows no such field: it may be the right engine, and cannot be compared.
    return Answer("", trouble=ODD if "evaluate field" in said else REFUSED, problem=said)


def _group(path: str) -> tuple[str, bool]:
    try:
        group = grp.getgrgid(os.stat(path).st_gid)
        me = pwd.getpwuid(os.getuid()).pw_name
    except (OSError, KeyError):
        return "", False
    return group.gr_name, me in group.gr_mem and group.gr_gid not in os.getgroups()


def _daemon(address: str) -> tuple[int, str]:
    """Give the process of the dockerd at work there, 0 for none, and its PATH, "" where it may not be read."""
    for pid in (_listener(address), *map(int, filter(str.isdigit, os.listdir("/proc")))):
        if files.try_read(f"/proc/{pid}/comm", 100)[0] == b"dockerd\n":
            return pid, processes.environment(pid).get("PATH", "")
    return 0, ""


def _listener(address: str) -> int:
    """Give the process that listens on a socket; it is systemd itself where that has made it."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(address.removeprefix("unix://"))
            pid: int = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
            return pid
    except (OSError, ValueError):
        return 0


def _is_newer(path: str, pid: int) -> bool:
    began = processes.epoch(processes.start_time(pid)) if pid and path else None
    try:
        return began is not None and os.stat(path).st_ctime > began + 1
    except OSError:
        return False
