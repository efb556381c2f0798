"""The container engine, as the launcher's three clients reach it, and the NVIDIA driver: probes, then their rules."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shlex
import shutil
import socket
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from taoprofiles.launcher.probes import FileSystem
from taoprofiles.masking import mask_text
from taoprofiles.rules.finding import Finding, error, warning
from taoprofiles.storage import files
from taoprofiles.system import engine as engines
from taoprofiles.system import processes
from taoprofiles.system.commands import run_bounded
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
    """The engine as each of the launcher's three clients reaches it, and the ``docker`` command."""

    cli: str  # path of the command, "" without one
    host: str  # DOCKER_HOST
    context: str  # the current context of the command
    first: EngineProbe  # the engine of docker.from_env(): DOCKER_HOST, or the socket
    second: EngineProbe  # the engine at the socket
    command: EngineProbe  # that of the command, which follows DOCKER_HOST, DOCKER_CONTEXT or the current context
    group: str = ""  # group of the socket
    in_group: bool = False  # the user database has this user in the group, but the session does not
    has_daemon: bool = False  # dockerd is installed
    has_podman: bool = False
    has_systemd: bool = True  # it starts dockerd
    is_snap: bool = False
    installer: str = ""  # the command that installs packages here, without sudo; "" for an unknown distribution
    has_ubuntu_drivers: bool = False
    in_container: bool = False  # this process runs in a container
    has_root: bool = True  # the engine's data folder is on this machine
    in_force: EngineProbe | None = None  # the engine of the command as taoprof reaches it
    is_remote: bool = False  # that is on another machine


class GpuFacts(NamedTuple):
    """The NVIDIA driver and runtime."""

    tool: str = ""  # path of nvidia-smi
    gpus: tuple[str, ...] = ()  # names of the GPUs
    driver: str = ""
    problem: str = ""  # the error message of nvidia-smi
    hook: str = ""  # path of nvidia-container-runtime-hook, which dockerd looks for at its start
    cdi: str = ""  # path of nvidia-cdi-hook, which a newer dockerd accepts as well
    is_late: bool = False  # the hook was installed after the running dockerd had started


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
        second = pool.submit(_ask, environ, engines.DEFAULT)
        first = pool.submit(_ask, environ, host) if host not in ("", engines.DEFAULT) else second
        endpoint = engines.find_endpoint(environ)
        is_launchers = endpoint.address == (host or engines.DEFAULT)
        in_force = first if is_launchers else pool.submit(_ask, environ, endpoint.address)
    group, in_group = _group(engines.DEFAULT.removeprefix("unix://"))
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


def probe_gpus(environ: Mapping[str, str]) -> GpuFacts:
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
    daemon = _find_daemon(environ.get("DOCKER_HOST") or engines.DEFAULT)
    path = processes.environment(daemon).get("PATH") or wide  # it can be read by root
    hook = shutil.which("nvidia-container-runtime-hook", path=path) or ""
    cdi = shutil.which("nvidia-cdi-hook", path=path) or ""
    return GpuFacts(tool, names, driver, problem, hook, cdi, _is_newer(hook, daemon))


def _ask(environ: Mapping[str, str], address: str) -> EngineProbe:
    shown = mask_text(address)  # it may contain a password
    try:
        info = engines.Engine(environ, TIMEOUT, address=address).info()
    except engines.EngineError as error:
        return EngineProbe(shown, trouble=error.kind, problem=mask_text(str(error)))
    except (OSError, ValueError) as error:  # missing certificates, an invalid address
        return EngineProbe(shown, trouble=engines.INVALID, problem=mask_text(str(error))[:200])
    if not info["id"]:
        return EngineProbe(shown, trouble=engines.INVALID, problem="it does not report its id")
    return EngineProbe(shown, **info)


def _context(cli: str, environ: Mapping[str, str]) -> tuple[str, str]:
    if not cli:
        return "", ""
    words = [cli, "context", "inspect", "--format", "{{.Name}} {{.Endpoints.docker.Host}}"]
    name, _, address = run_bounded(words, environ, TIMEOUT).out.strip().partition(" ")
    return name[:200], mask_text(address[:500])


def _by_command(cli: str, environ: Mapping[str, str]) -> EngineProbe:
    if not cli:
        return EngineProbe("", trouble=engines.ABSENT, problem="the docker command is not installed")
    result = run_bounded([cli, "info", "--format", "{{.ID}}|{{.ServerVersion}}|{{.DockerRootDir}}"], environ, TIMEOUT)
    # Some plugins and wrappers print lines before it.
    name, version, root = [*(result.out.strip().splitlines() or [""])[-1].split("|", 2), "", ""][:3]
    if result.problem:
        return EngineProbe("", trouble=engines.TIMED_OUT, problem=result.problem)
    if name and version:
        return EngineProbe("", id=name[:200], version=version[:100], root=root[:1000])
    lines = (result.err.strip().splitlines() or [f"exit status {result.status}"])[0][:300]
    # Podman's replacement of the command knows no such field: it may be the same engine, but cannot be compared.
    return EngineProbe("", trouble=engines.INVALID if "evaluate field" in lines else engines.REFUSED, problem=lines)


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


ROOM = 40 << 30
"""Bytes. Below this the next image may not fit; NVIDIA asks for 100 GB (TAO quick start, "100 GB of SSD space")."""

_DEFAULT_CONTEXT = "unset DOCKER_CONTEXT; docker context use default"
ENDS_CONTAINERS = "restarting the engine stops its containers"


def _install(docker: DockerFacts, package: str, *, apt: str = "", page: str = "docs.docker.com/engine/install") -> str:
    """Return the command that installs a package here; ``apt`` is its name in Debian and Ubuntu, if it is another."""
    if not docker.installer:
        return f"see https://{page}"
    return f"sudo {docker.installer} {(docker.installer.startswith('apt') and apt) or package}"


def _service(docker: DockerFacts, action: str) -> str:
    if not docker.has_systemd:
        return f"sudo service docker {action}"
    return f"sudo systemctl {'enable --now' if action == 'start' else action} docker"


def check_docker(docker: DockerFacts, gpus: GpuFacts, images: FileSystem | None) -> list[Finding]:
    """Check the engine, the command and the GPUs; ``images`` is the file system of the engine's images, if known."""
    findings = [*_presence(docker)] or [*_mismatch(docker), *_kind(docker)]
    engine = docker.first
    if not engine.trouble and engine.address.startswith("unix://") and engine.system != "Docker Desktop":
        findings += _gpus(docker, gpus)
    if images is not None and images.size and images.free < ROOM:
        what = f"{images.free / 1e9:.0f} GB are free for the engine's images"
        why = "NVIDIA recommends 100 GB: a TAO image takes tens of GB, and a pull that does not fit fails"
        findings.append(warning("disk-images", images.path, what, why, "docker system df && docker image prune"))
    return findings


def _presence(docker: DockerFacts) -> Iterator[Finding]:
    first, second = docker.first, docker.second
    if not docker.cli and not docker.has_daemon and first.trouble in (engines.ABSENT, engines.REFUSED):
        if docker.has_podman:
            what = "no engine is running: Podman is installed, and its socket is not used"
            hint = "systemctl --user enable --now podman.socket && "
            hint += "export DOCKER_HOST=unix://$XDG_RUNTIME_DIR/podman/podman.sock"
            yield error("docker-down", first.address, what, "tao and taoprof use an engine by its socket", hint)
            return
        why = "tao runs everything in containers"
        hint = _install(docker, "docker", apt="docker.io")
        hint += " && sudo usermod -aG docker $USER && newgrp docker" if docker.installer else ""
        yield error("docker-missing", "PATH", "Docker is not installed", why, hint)
        return
    if not docker.cli:
        why = "tao runs the task in the container with 'docker exec'"
        hint = _install(docker, "docker-cli")
        hint = f"{_install(docker, 'docker-ce-cli')} || {hint}" if docker.installer else hint
        yield error("docker-cli-missing", "PATH", "the 'docker' command is not installed", why, hint)
    if first.trouble:
        yield _unreachable(docker, first, second)
    elif second.trouble and second.address != first.address:
        yield _unreachable(docker, second, first)


def _unreachable(docker: DockerFacts, engine: EngineProbe, other: EngineProbe) -> Finding:
    if engine.trouble == engines.DENIED:
        return _denied(docker, engine)
    why = "tao connects to it, and fails with 'Error while fetching server API version'"
    if engine.trouble not in (engines.ABSENT, engines.REFUSED):
        if engine.address == engines.DEFAULT:
            hint = _service(docker, "restart")
        elif docker.second.trouble:
            hint = f"docker --host {shlex.quote(engine.address)} version"
        else:
            hint = "unset DOCKER_HOST"
        why = "every tao and docker command waits for it" if engine.trouble == engines.TIMED_OUT else why
        what = f"the engine does not respond: {engine.problem}"
        return error("docker-down", engine.address, what, f"{why}; {ENDS_CONTAINERS}", hint)
    start = _service(docker, "start")
    hint = start if docker.has_daemon else _install(docker, "docker", apt="docker.io")
    if docker.host and engine is docker.first and engine.address != engines.DEFAULT:
        why = "DOCKER_HOST names it, for tao and the docker command"
        hint = "docker context ls" if docker.second.trouble else "unset DOCKER_HOST"
    elif not other.trouble and other.address != engine.address:
        why = f"tao looks for its images there, whatever DOCKER_HOST says, and not at '{other.address}'"
        hint = f"unset DOCKER_HOST && {start}"
        if other.address.startswith("unix://"):
            hint = f"sudo ln -s {shlex.quote(other.address.removeprefix('unix://'))} /var/run/docker.sock"
    elif docker.command.id:
        why = f"the docker command uses another engine, of its context '{docker.context}'; tao ignores contexts"
        address = docker.command.address
        hint = f"export DOCKER_HOST={shlex.quote(address)}" if address else "docker context use default"
    what = "no engine is running" + (f": {engine.problem}" if engine.trouble == engines.REFUSED else "")
    return error("docker-down", engine.address, what, why, hint)


def _denied(docker: DockerFacts, engine: EngineProbe) -> Finding:
    what = "permission denied: this user may not use the engine"
    if docker.in_group:
        why = f"the user was added to the group '{docker.group}' after this session began"
        return error("docker-denied", engine.address, what, why, f"newgrp {shlex.quote(docker.group)}")
    group = shlex.quote(docker.group) if docker.group not in ("", "root") else "docker"
    why = f"only root and the group '{group}' may use the socket; members of the group can do everything that root can"
    return error("docker-denied", engine.address, what, why, f"sudo usermod -aG {group} $USER && newgrp {group}")


def _mismatch(docker: DockerFacts) -> Iterator[Finding]:
    first, second, command = docker.first, docker.second, docker.command
    where = f"docker context '{docker.context}'" if docker.context else "docker"
    if not first.is_same(second):
        what = f"tao starts containers on '{first.address}' and looks for images on '{second.address}': "
        what += "these are different engines"
        why = "an image that one of them has is missing on the other"
        yield error("daemon-mismatch", "DOCKER_HOST", what, why, "unset DOCKER_HOST")
    elif command.trouble and command.trouble != engines.INVALID:
        what = f"the docker command, which tao needs to run the task, reaches no engine: {command.problem}"
        why = f"it uses the context '{docker.context}', which tao ignores"
        yield error("daemon-mismatch", where, what, why, _DEFAULT_CONTEXT)
    elif command.id and not command.is_same(first):
        what = f"tao starts containers on '{first.address}', but the docker command uses another engine"
        why = "the task fails with 'No such container', and 'docker ps' does not show the container"
        yield error("daemon-mismatch", where, what, why, _DEFAULT_CONTEXT)


def _kind(docker: DockerFacts) -> Iterator[Finding]:
    engine = docker.first
    if docker.host and docker.host != engines.DEFAULT:
        what = f"DOCKER_HOST is '{docker.host}'"
        why = "one of tao's two clients uses it, the other always /var/run/docker.sock"
        if not docker.host.startswith("unix://"):
            why = "tao looks for the source folders on this machine, but that engine mounts its own"
        yield warning("docker-host-set", "DOCKER_HOST", what, why, "unset DOCKER_HOST")
    is_local = engine.address.startswith("unix://") and not engine.trouble
    if docker.in_container and is_local and not docker.has_root:
        what = "this is a container, and the engine runs outside of it"
        why = "tao and taoprof look for the source folders here, but the engine mounts those of its own machine"
        hint = "docker inspect --format '{{json .Mounts}}' \"$(hostname)\""
        yield warning("engine-outside", engine.address, what, why, hint)
    if engine.is_rootless:
        what = "the engine is rootless"
        why = "results of a profile with a 'user' belong to an id such as 100999; root in a container is this user. "
        why += "It cannot raise a limit above yours: error setting rlimit type 8"
        hint = "taoprof set NAME docker.user=0:0 docker.ulimits.memlock=65536"
        yield warning("docker-rootless", engine.address, what, why, hint)
    if engine.system == "Docker Desktop":
        what = "the engine is Docker Desktop, in a virtual machine"
        why = "on Linux it has no GPUs, and only the folders that its settings share"
        hint = "docker context use default && sudo systemctl enable --now docker"
        yield warning("docker-desktop", engine.address, what, why, hint)
    if docker.is_snap:
        what = "Docker is installed as a snap"
        why = "it sees only folders in /home whose names have no leading dot, and finds no NVIDIA runtime"
        hint = f"sudo snap disable docker && {_install(docker, 'docker', apt='docker.io')}"
        yield warning("snap-docker", docker.cli or engine.root, what, why, hint)


def _gpus(docker: DockerFacts, gpus: GpuFacts) -> Iterator[Finding]:
    engine = docker.first
    if not gpus.gpus:
        why = "tao requests all GPUs for each container, even for a task that needs none"
        if not gpus.tool:
            what = "no NVIDIA driver: nvidia-smi is not installed"
            hint = "see https://docs.nvidia.com/datacenter/tesla/driver-installation-guide"
            if docker.has_ubuntu_drivers:
                hint = "sudo ubuntu-drivers install"
            elif docker.installer.startswith("apt"):
                hint = _install(docker, "nvidia-driver")
            why += "; the driver is loaded at the next boot"
        else:
            what, hint = f"nvidia-smi fails: {gpus.problem}", "sudo modprobe nvidia; nvidia-smi"
            if "version mismatch" in gpus.problem.lower():
                why = "the driver was upgraded, and the module of the old one is still loaded: reboot, or unload it "
                why += "while no program uses a GPU or the screen"
                hint = "sudo rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia; nvidia-smi"
        yield error("gpu-driver", gpus.tool or "nvidia-smi", what, why, hint)
    # moby pull request 50228, of 2025; an engine of that year is assumed to have it.
    major = re.match(r"[0-9]{1,6}", engine.version)
    takes_cdi = bool(gpus.cdi) and major is not None and int(major[0]) >= 28
    if not gpus.hook and not takes_cdi:
        what = "the engine finds no nvidia-container-runtime-hook"
        why = f"every container that tao starts fails: could not select device driver; {ENDS_CONTAINERS}"
        page = "docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html"
        hint = _install(docker, "nvidia-container-toolkit", page=page)
        if docker.installer:
            hint += f" && sudo nvidia-ctk runtime configure --runtime=docker && {_service(docker, 'restart')}"
        yield error("gpu-runtime", engine.address, what, why, hint)
    elif gpus.is_late and not takes_cdi:
        what = f"'{gpus.hook}' was installed after the engine had started"
        why = "the engine looks for it only when it starts, so every container that tao starts fails: "
        why += f"could not select device driver; {ENDS_CONTAINERS}"
        yield error("gpu-runtime", engine.address, what, why, _service(docker, "restart"))
