"""Probes of the container engine, as the launcher's three clients reach it, and of the NVIDIA driver and runtime."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import socket
import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from taoprofiles.masking import mask_text
from taoprofiles.storage import files
from taoprofiles.system import processes
from taoprofiles.system.commands import run_bounded
from taoprofiles.system.engine import ABSENT, DEFAULT, INVALID, REFUSED, TIMED_OUT, Engine, EngineError, find_endpoint
from taoprofiles.system.gpus import TIMEOUT as GPU_TIMEOUT
from taoprofiles.system.gpus import query_gpus


class EngineProbe(NamedTuple):
    """The answer of the engine at ``address``, or ``trouble`` (kind of the EngineError) and ``problem``, its text."""

    address: str
    id: str = ""
    product: str = "Docker"
    version: str = ""
    system: str = ""
    root: str = ""
    is_rootless: bool = False
    trouble: str = ""
    problem: str = ""

    def is_same(self, other: EngineProbe) -> bool:
        """Check whether it is the same engine. With Docker 20.10 all engines of a machine have one id (key.json).

        Podman has another id in each answer.
        """
        is_podman = "Podman" in (self.product, other.product)
        return self.root == other.root and (self.version == other.version if is_podman else self.id == other.id)


class DockerFacts(NamedTuple):
    """The engine as each of the launcher's three clients reaches it, and the ``docker`` command.

    - ``cli``: path of the command, "" without one
    - ``host``: DOCKER_HOST
    - ``context``: the current context of the command
    - ``first``: the engine of docker.from_env(): DOCKER_HOST, or the socket
    - ``second``: the engine at the socket
    - ``command``: the engine of the command, which follows DOCKER_HOST, DOCKER_CONTEXT or the current context
    - ``in_force``: that engine as taoprof reaches it; ``is_remote``: it is on another machine
    - ``group``: group of the socket; ``in_group``: the user database has this user in it, but the session does not
    - ``has_daemon``: dockerd is installed; ``has_podman``: so is podman; ``has_systemd``: systemd starts it
    - ``installer``: the command that installs packages here, without sudo; "" for an unknown distribution
    - ``in_container``: this process runs in a container; ``has_root``: the engine's data folder is on this machine
    """

    cli: str
    host: str
    context: str
    first: EngineProbe
    second: EngineProbe
    command: EngineProbe
    group: str = ""
    in_group: bool = False
    has_daemon: bool = False
    has_podman: bool = False
    has_systemd: bool = True
    is_snap: bool = False
    installer: str = ""
    has_ubuntu_drivers: bool = False
    in_container: bool = False
    has_root: bool = True
    in_force: EngineProbe | None = None
    is_remote: bool = False


class Gpus(NamedTuple):
    """The NVIDIA driver and runtime.

    - ``tool``: path of nvidia-smi; ``gpus``: names of the GPUs; ``problem``: its error message
    - ``hook``: path of nvidia-container-runtime-hook, which dockerd looks for at its start
    - ``cdi``: path of nvidia-cdi-hook, which a newer dockerd accepts as well
    - ``is_late``: the hook was installed after the running dockerd had started
    """

    tool: str = ""
    gpus: tuple[str, ...] = ()
    driver: str = ""
    problem: str = ""
    hook: str = ""
    cdi: str = ""
    is_late: bool = False


TIMEOUT = 4.0
"""Seconds for an engine or the docker command; a healthy one answers in a tenth of a second."""

_SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH of a service (systemd.exec(5)), and so of a dockerd that systemd has started."""

_INSTALLERS = ("apt-get install -y", "dnf install -y", "zypper install -y", "pacman -S --needed")


def probe_docker(environ: Mapping[str, str]) -> DockerFacts:
    """Ask the engines and the command, in parallel."""
    host = environ.get("DOCKER_HOST", "")
    cli = shutil.which("docker", path=environ.get("PATH", "")) or ""
    with ThreadPoolExecutor(5) as pool:
        context = pool.submit(_context, cli, environ)
        command = pool.submit(_by_command, cli, environ)
        second = pool.submit(_ask, environ, DEFAULT)
        first = pool.submit(_ask, environ, host) if host not in ("", DEFAULT) else second
        endpoint = find_endpoint(environ)
        is_launchers = endpoint.address == (host or DEFAULT)
        in_force = first if is_launchers else pool.submit(_ask, environ, endpoint.address)
    group, in_group = _group(DEFAULT.removeprefix("unix://"))
    daemon = shutil.which("dockerd", path=f"{environ.get('PATH', '')}:{_SYSTEM}:/snap/bin")
    name, address = context.result()
    real = os.path.realpath(cli) if cli else ""
    is_snap = real.startswith("/snap/") or real == "/usr/bin/snap" or first.result().root.startswith("/var/snap/")
    return DockerFacts(
        cli=cli,
        host=mask_text(host),
        context=name,
        first=first.result(),
        second=second.result(),
        command=command.result()._replace(address=address),
        group=group,
        in_group=in_group,
        has_daemon=daemon is not None,
        has_podman=shutil.which("podman", path=environ.get("PATH", "")) is not None,
        has_systemd=os.path.isdir("/run/systemd/system"),  # sd_booted(3)
        is_snap=is_snap,
        installer=next((words for words in _INSTALLERS if shutil.which(words.split()[0], path=_SYSTEM)), ""),
        has_ubuntu_drivers=shutil.which("ubuntu-drivers", path=_SYSTEM) is not None,
        in_container=os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"),
        has_root=os.path.isdir(first.result().root),
        in_force=in_force.result(),
        is_remote=endpoint.is_remote,
    )


def probe_gpus(environ: Mapping[str, str]) -> Gpus:
    """Ask the driver, and look for the hooks that dockerd needs to give GPUs to a container."""
    wide = f"{environ.get('PATH', '')}:{_SYSTEM}:/usr/lib/wsl/lib"
    tool = shutil.which("nvidia-smi", path=wide) or ""
    names: tuple[str, ...] = ()
    problem = driver = ""
    if tool:
        lines, problem = query_gpus("name,driver_version", environ, GPU_TIMEOUT, tool)
        rows = [line.rpartition(",") for line in lines]
        names = tuple(name.strip()[:100] for name, _, _ in rows)
        driver = rows[0][2].strip()[:50] if rows else ""
    daemon = _find_daemon(environ.get("DOCKER_HOST") or DEFAULT)
    path = processes.environment(daemon).get("PATH") or wide  # it can be read by root
    hook = shutil.which("nvidia-container-runtime-hook", path=path) or ""
    cdi = shutil.which("nvidia-cdi-hook", path=path) or ""
    return Gpus(tool, names, driver, problem, hook, cdi, _is_newer(hook, daemon))


def _ask(environ: Mapping[str, str], address: str) -> EngineProbe:
    shown = mask_text(address)  # it may contain a password
    try:
        info = Engine(environ, TIMEOUT, address=address).info()
    except EngineError as error:
        return EngineProbe(shown, trouble=error.kind, problem=mask_text(str(error)))
    except (OSError, ValueError) as error:  # missing certificates, an invalid address
        return EngineProbe(shown, trouble=INVALID, problem=mask_text(str(error))[:200])
    if not info["id"]:
        return EngineProbe(shown, trouble=INVALID, problem="it does not report its id")
    return EngineProbe(shown, **info)


def _context(cli: str, environ: Mapping[str, str]) -> tuple[str, str]:
    if not cli:
        return "", ""
    words = [cli, "context", "inspect", "--format", "{{.Name}} {{.Endpoints.docker.Host}}"]
    name, _, address = run_bounded(words, environ, TIMEOUT).out.strip().partition(" ")
    return name[:200], mask_text(address[:500])


def _by_command(cli: str, environ: Mapping[str, str]) -> EngineProbe:
    if not cli:
        return EngineProbe("", trouble=ABSENT, problem="the docker command is not installed")
    result = run_bounded([cli, "info", "--format", "{{.ID}}|{{.ServerVersion}}|{{.DockerRootDir}}"], environ, TIMEOUT)
    # Some plugins and wrappers print lines before it.
    name, version, root = [*(result.out.strip().splitlines() or [""])[-1].split("|", 2), "", ""][:3]
    if result.problem:
        return EngineProbe("", trouble=TIMED_OUT, problem=result.problem)
    if name and version:
        return EngineProbe("", id=name[:200], version=version[:100], root=root[:1000])
    lines = (result.err.strip().splitlines() or [f"exit status {result.status}"])[0][:300]
    # Podman's replacement of the command knows no such field: it may be the same engine, but cannot be compared.
    return EngineProbe("", trouble=INVALID if "evaluate field" in lines else REFUSED, problem=lines)


def _group(path: str) -> tuple[str, bool]:
    try:
        group = grp.getgrgid(os.stat(path).st_gid)
        me = pwd.getpwuid(os.getuid()).pw_name
    except (OSError, KeyError):
        return "", False
    return group.gr_name, me in group.gr_mem and group.gr_gid not in os.getgroups()


def _find_daemon(address: str) -> int:
    """Return the pid of the dockerd that listens at an address, or of any dockerd, 0 for none.

    The listener of a socket that systemd has created is systemd itself.
    """
    listener = 0
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT)
            connection.connect(address.removeprefix("unix://"))
            listener = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    except (OSError, ValueError):
        pass
    for pid in (listener, *processes.pids()):
        if files.try_read(f"/proc/{pid}/comm", 100)[0] == b"dockerd\n":
            return pid
    return 0


def _is_newer(path: str, pid: int) -> bool:
    started = processes.epoch(processes.start_time(pid))
    try:
        return started is not None and os.stat(path).st_ctime > started + 1
    except OSError:
        return False
