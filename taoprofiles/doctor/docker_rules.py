"""Rules about the container engine: the launcher must reach one engine, which starts containers with GPUs.

It reaches the engine in three ways: docker.from_env() starts the container (DOCKER_HOST, or the socket), a second
client always uses the socket and looks for the image, and the ``docker`` command runs the task in the container
(DOCKER_HOST, DOCKER_CONTEXT, or the current context). nvidia-tao 6.26.3, docker_handler.py lines 100, 101 and 358.
"""

from __future__ import annotations

import re
import shlex

from taoprofiles.doctor.docker_probe import DockerFacts, EngineProbe, Gpus
from taoprofiles.launcher.home_probe import FileSystem
from taoprofiles.rules.finding import Finding, error, warning
from taoprofiles.system.engine import ABSENT, DEFAULT, DENIED, INVALID, REFUSED, TIMED_OUT

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


def check_docker(docker: DockerFacts, gpus: Gpus, images: FileSystem | None) -> list[Finding]:
    """Check the engine, the command and the GPUs; ``images`` is the file system of the engine's images, if known."""
    findings = _presence(docker) or _mismatch(docker) + _kind(docker)
    engine = docker.first
    if not engine.trouble and engine.address.startswith("unix://") and engine.system != "Docker Desktop":
        findings += _gpus(docker, gpus)
    if images is not None and images.size and images.free < ROOM:
        what = f"{images.free / 1e9:.0f} GB are free for the engine's images"
        why = "NVIDIA recommends 100 GB: a TAO image takes tens of GB, and a pull that does not fit fails"
        findings.append(warning("disk-images", images.path, what, why, "docker system df && docker image prune"))
    return findings


def _presence(docker: DockerFacts) -> list[Finding]:
    first, second = docker.first, docker.second
    if not docker.cli and not docker.has_daemon and first.trouble in (ABSENT, REFUSED):
        if docker.has_podman:
            what = "no engine is running: Podman is installed, and its socket is not used"
            hint = "systemctl --user enable --now podman.socket && "
            hint += "export DOCKER_HOST=unix://$XDG_RUNTIME_DIR/podman/podman.sock"
            return [error("docker-down", first.address, what, "tao and taoprof use an engine by its socket", hint)]
        why = "tao runs everything in containers"
        hint = _install(docker, "docker", apt="docker.io")
        hint += " && sudo usermod -aG docker $USER && newgrp docker" if docker.installer else ""
        return [error("docker-missing", "PATH", "Docker is not installed", why, hint)]
    findings = []
    if not docker.cli:
        why = "tao runs the task in the container with 'docker exec'"
        hint = f"{_install(docker, 'docker-ce-cli')} || {_install(docker, 'docker-cli')}" if docker.installer else ""
        hint = hint or _install(docker, "docker-cli")
        findings.append(error("docker-cli-missing", "PATH", "the 'docker' command is not installed", why, hint))
    if first.trouble:
        findings.append(_unreachable(docker, first, second))
    elif second.trouble and second.address != first.address:
        findings.append(_unreachable(docker, second, first))
    return findings


def _unreachable(docker: DockerFacts, engine: EngineProbe, other: EngineProbe) -> Finding:
    if engine.trouble == DENIED:
        return _denied(docker, engine)
    why = "tao connects to it, and fails with 'Error while fetching server API version'"
    if engine.trouble not in (ABSENT, REFUSED):
        hint = _service(docker, "restart")
        if engine.address != DEFAULT:
            hint = (
                f"docker --host {shlex.quote(engine.address)} version" if docker.second.trouble else "unset DOCKER_HOST"
            )
        why = (
            f"{'every tao and docker command waits for it' if engine.trouble == TIMED_OUT else why}; {ENDS_CONTAINERS}"
        )
        return error("docker-down", engine.address, f"the engine does not respond: {engine.problem}", why, hint)
    start = _service(docker, "start")
    hint = start if docker.has_daemon else _install(docker, "docker", apt="docker.io")
    if docker.host and engine is docker.first and engine.address != DEFAULT:
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
    what = "no engine is running" + (f": {engine.problem}" if engine.trouble == REFUSED else "")
    return error("docker-down", engine.address, what, why, hint)


def _denied(docker: DockerFacts, engine: EngineProbe) -> Finding:
    what = "permission denied: this user may not use the engine"
    if docker.in_group:
        why = f"the user was added to the group '{docker.group}' after this session began"
        return error("docker-denied", engine.address, what, why, f"newgrp {shlex.quote(docker.group)}")
    group = shlex.quote(docker.group) if docker.group not in ("", "root") else "docker"
    why = f"only root and the group '{group}' may use the socket; members of the group can do everything that root can"
    return error("docker-denied", engine.address, what, why, f"sudo usermod -aG {group} $USER && newgrp {group}")


def _mismatch(docker: DockerFacts) -> list[Finding]:
    first, second, command = docker.first, docker.second, docker.command
    where = f"docker context '{docker.context}'" if docker.context else "docker"
    if not first.is_same(second):
        what = f"tao starts containers on '{first.address}' and looks for images on '{second.address}': "
        what += "these are different engines"
        why = "an image that one of them has is missing on the other"
        return [error("daemon-mismatch", "DOCKER_HOST", what, why, "unset DOCKER_HOST")]
    if command.trouble and command.trouble != INVALID:
        what = f"the docker command, which tao needs to run the task, reaches no engine: {command.problem}"
        why = f"it uses the context '{docker.context}', which tao ignores"
        return [error("daemon-mismatch", where, what, why, _DEFAULT_CONTEXT)]
    if command.id and not command.is_same(first):
        what = f"tao starts containers on '{first.address}', but the docker command uses another engine"
        why = "the task fails with 'No such container', and 'docker ps' does not show the container"
        return [error("daemon-mismatch", where, what, why, _DEFAULT_CONTEXT)]
    return []


def _kind(docker: DockerFacts) -> list[Finding]:
    findings = []
    engine = docker.first
    if docker.host and docker.host != DEFAULT:
        what = f"DOCKER_HOST is '{docker.host}'"
        why = "one of tao's two clients uses it, the other always /var/run/docker.sock"
        if not docker.host.startswith("unix://"):
            why = "tao looks for the source folders on this machine, but that engine mounts its own"
        findings.append(warning("docker-host-set", "DOCKER_HOST", what, why, "unset DOCKER_HOST"))
    is_local = engine.address.startswith("unix://") and not engine.trouble
    if docker.in_container and is_local and not docker.has_root:
        what = "this is a container, and the engine runs outside of it"
        why = "tao and taoprof look for the source folders here, but the engine mounts those of its own machine"
        hint = "docker inspect --format '{{json .Mounts}}' \"$(hostname)\""
        findings.append(warning("engine-outside", engine.address, what, why, hint))
    if engine.is_rootless:
        what = "the engine is rootless"
        why = "results of a profile with a 'user' belong to an id such as 100999; root in a container is this user. "
        why += "It cannot raise a limit above yours: error setting rlimit type 8"
        hint = "taoprof set NAME docker.user=0:0 docker.ulimits.memlock=65536"
        findings.append(warning("docker-rootless", engine.address, what, why, hint))
    if engine.system == "Docker Desktop":
        what = "the engine is Docker Desktop, in a virtual machine"
        why = "on Linux it has no GPUs, and only the folders that its settings share"
        hint = "docker context use default && sudo systemctl enable --now docker"
        findings.append(warning("docker-desktop", engine.address, what, why, hint))
    if docker.is_snap:
        what = "Docker is installed as a snap"
        why = "it sees only folders in /home whose names have no leading dot, and finds no NVIDIA runtime"
        hint = f"sudo snap disable docker && {_install(docker, 'docker', apt='docker.io')}"
        findings.append(warning("snap-docker", docker.cli or engine.root, what, why, hint))
    return findings


def _gpus(docker: DockerFacts, gpus: Gpus) -> list[Finding]:
    findings, engine = [], docker.first
    if not gpus.gpus:
        why = "tao requests all GPUs for each container, even for a task that needs none"
        if not gpus.tool:
            what = "no NVIDIA driver: nvidia-smi is not installed"
            page = "docs.nvidia.com/datacenter/tesla/driver-installation-guide"
            hint = (
                _install(docker, "nvidia-driver", page=page)
                if docker.installer.startswith("apt")
                else f"see https://{page}"
            )
            hint = "sudo ubuntu-drivers install" if docker.has_ubuntu_drivers else hint
            why += "; the driver is loaded at the next boot"
        else:
            what, hint = f"nvidia-smi fails: {gpus.problem}", "sudo modprobe nvidia; nvidia-smi"
            if "version mismatch" in gpus.problem.lower():
                why = "the driver was upgraded, and the module of the old one is still loaded: reboot, or unload it "
                why += "while no program uses a GPU or the screen"
                hint = "sudo rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia; nvidia-smi"
        findings.append(error("gpu-driver", gpus.tool or "nvidia-smi", what, why, hint))
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
        findings.append(error("gpu-runtime", engine.address, what, why, hint))
    elif gpus.is_late and not takes_cdi:
        what = f"'{gpus.hook}' was installed after the engine had started"
        why = "the engine looks for it only when it starts, so every container that tao starts fails: "
        why += f"could not select device driver; {ENDS_CONTAINERS}"
        findings.append(error("gpu-runtime", engine.address, what, why, _service(docker, "restart")))
    return findings
