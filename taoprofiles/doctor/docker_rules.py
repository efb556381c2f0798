"""Whether the launcher finds one engine that does what it asks: containers, and GPUs in them.

It has three ways to the engine: docker.from_env() starts the container (DOCKER_HOST, or the socket), a second client is
bound to the socket and looks for the image, and the ``docker`` command runs the task in the container (DOCKER_HOST,
DOCKER_CONTEXT, or the current context). nvidia-tao 6.26.3, docker_handler.py lines 100, 101 and 358.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from taoprofiles.doctor.docker_probe import ABSENT, DENIED, ODD, REFUSED, SILENT
from taoprofiles.rules.finding import Finding, error, warning

if TYPE_CHECKING:
    from taoprofiles.doctor.docker_probe import Answer, Docker, Gpus
    from taoprofiles.launcher.environment import FileSystem

SOCKET = "unix:///var/run/docker.sock"
ROOM = 40 << 30
"""Bytes. Below this the next image may not fit; NVIDIA asks for 100 GB (TAO quick start, "100 GB of SSD space")."""

DEFAULT = "unset DOCKER_CONTEXT; docker context use default"

TOOLKIT = (
    "sudo apt-get install -y nvidia-container-toolkit && sudo nvidia-ctk runtime configure --runtime=docker && "
    "sudo systemctl restart docker"
)


def judge(docker: Docker, gpus: Gpus, image_place: FileSystem | None) -> list[Finding]:
    """Judge the engine, the command, and the GPUs; ``image_place`` is where the engine keeps its images, if known."""
    found = _presence(docker)
    if not found:
        found = _mismatch(docker) + _kind(docker)
    engine = docker.first
    if not engine.trouble and _is_local(docker) and engine.system != "Docker Desktop":
        found += _gpus(engine, gpus)
    if image_place is not None and image_place.size and image_place.free < ROOM:
        what = f"{image_place.free / 1e9:.0f} GB are free where the engine keeps its images"
        why = (
            "NVIDIA asks for 100 GB; an image of TAO has tens of them when unpacked, and a pull that does not fit fails"
        )
        found.append(warning("disk-images", image_place.path, what, why, "docker system df && docker image prune"))
    return found


def _is_local(docker: Docker) -> bool:
    return docker.first.address.startswith("unix://")


def _presence(docker: Docker) -> list[Finding]:
    first, second = docker.first, docker.second
    if not docker.cli and not docker.has_daemon and first.trouble in (ABSENT, REFUSED):
        why = "tao runs everything in containers"
        hint = "sudo apt-get install -y docker.io && sudo usermod -aG docker $USER && newgrp docker"
        return [error("docker-missing", "PATH", "there is no Docker: no command, no engine", why, hint)]
    found = []
    if not docker.cli:
        why = "tao starts the container without it, and then runs the task with 'docker exec'"
        hint = "sudo apt-get install -y docker-ce-cli || sudo apt-get install -y docker-cli"
        found.append(error("docker-cli-missing", "PATH", "there is no 'docker' command", why, hint))
    if first.trouble:
        found.append(_unreachable(docker, first, second))
    elif second.trouble and second.address != first.address:
        found.append(_unreachable(docker, second, first))
    return found


def _unreachable(docker: Docker, engine: Answer, other: Answer) -> Finding:
    if engine.trouble == DENIED:
        return _denied(docker, engine)
    if engine.trouble not in (ABSENT, REFUSED):
        return _silent(docker, engine)
    why = "tao asks there, and ends with 'Error while fetching server API version'"
    start = "sudo systemctl enable --now docker" if docker.has_systemd else "sudo service docker start"
    hint = start if docker.has_daemon else "sudo apt-get install -y docker.io"
    if docker.host and engine is docker.first and engine.address != SOCKET:
        why = "DOCKER_HOST names it, for tao and for the docker command"
        hint = "docker context ls" if docker.second.trouble else "unset DOCKER_HOST"
    elif not other.trouble and other.address != engine.address:
        why = f"tao looks for its images there, whatever DOCKER_HOST says: the one at '{other.address}' is not asked"
        hint = f"unset DOCKER_HOST && {start}"
        if other.address.startswith("unix://"):
            hint = f"sudo ln -s {shlex.quote(other.address.removeprefix('unix://'))} /var/run/docker.sock"
    elif docker.command.id:
        why = f"the docker command reaches another engine, by its context '{docker.context}'; tao knows no contexts"
        address = docker.command.address
        hint = f"export DOCKER_HOST={shlex.quote(address)}" if address else "docker context use default"
    return error("docker-down", engine.address, _nobody(engine), why, hint)


def _silent(docker: Docker, engine: Answer) -> Finding:
    why = "tao ends with 'Error while fetching server API version'"
    if engine.trouble == SILENT:
        why = "every tao command waits for it, and so does each docker command"
    hint = "sudo systemctl restart docker" if docker.has_systemd else "sudo service docker restart"
    if engine.address != SOCKET:
        beyond = shlex.quote(engine.address)
        hint = f"docker --host {beyond} version" if docker.second.trouble else "unset DOCKER_HOST"
    return error("docker-silent", engine.address, f"no engine answers: {engine.problem}", why, hint)


def _nobody(engine: Answer) -> str:
    return "no engine is there" + (f": {engine.problem}" if engine.trouble == REFUSED else "")


def _denied(docker: Docker, engine: Answer) -> Finding:
    what = "this user may not ask the engine: permission denied"
    if docker.in_group:
        why = f"the user is in the group '{docker.group}', but this session began before that"
        return error("docker-denied", engine.address, what, why, f"newgrp {shlex.quote(docker.group)}")
    group = shlex.quote(docker.group) if docker.group not in ("", "root") else "docker"
    why = f"the socket is for root and the group '{group}', whose members may do on this machine what root may"
    return error("docker-denied", engine.address, what, why, f"sudo usermod -aG {group} $USER && newgrp {group}")


def _mismatch(docker: Docker) -> list[Finding]:
    first, second, command = docker.first, docker.second, docker.command
    found = []
    if not first.is_same(second):
        what = f"tao starts containers on '{first.address}' and looks for images on '{second.address}': two engines"
        why = "an image that the one has is pulled, and still not there for the other"
        found.append(error("daemon-mismatch", "DOCKER_HOST", what, why, "unset DOCKER_HOST"))
    elif command.trouble and command.trouble != ODD:
        what = f"the docker command reaches no engine, and tao needs it to run the task: {command.problem}"
        why = f"its context is '{docker.context}', which tao does not know"
        found.append(error("daemon-mismatch", _context(docker), what, why, DEFAULT))
    elif command.id and not command.is_same(first):
        what = f"tao starts containers on '{first.address}', and the docker command asks another engine"
        why = "the task then ends with 'No such container', and nothing was trained; so does 'docker ps' not show it"
        found.append(error("daemon-mismatch", _context(docker), what, why, DEFAULT))
    return found


def _context(docker: Docker) -> str:
    return f"docker context '{docker.context}'" if docker.context else "docker"


def _kind(docker: Docker) -> list[Finding]:
    found = []
    engine = docker.first
    if docker.host and docker.host != SOCKET:
        what = f"DOCKER_HOST is '{docker.host}'"
        why = "of tao's two clients one asks there, and the other always /var/run/docker.sock"
        if not docker.host.startswith("unix://"):
            why = "tao looks for the source folders on this machine, and that engine mounts those of its own"
        found.append(warning("docker-host-set", "DOCKER_HOST", what, why, "unset DOCKER_HOST"))
    if engine.is_rootless:
        what = "the engine is a rootless one"
        why = (
            "root in its containers is this user, and 'user' of a profile becomes an id that owns nothing here: "
            "results then belong to a number such as 100999"
        )
        hint = "taoprof set NAME docker.user=0:0"
        found.append(warning("docker-rootless", engine.address, what, why, hint))
    if engine.system == "Docker Desktop":
        what = "the engine is Docker Desktop's, in a virtual machine"
        why = "on Linux it has no GPUs, and sees only the folders that its settings share"
        hint = "docker context use default && sudo systemctl enable --now docker"
        found.append(warning("docker-desktop", engine.address, what, why, hint))
    if docker.is_snap:
        what = "Docker is the snap's"
        why = (
            "it sees only folders in /home that have no dot in front, and finds no NVIDIA runtime; others appear empty"
        )
        hint = "sudo snap disable docker && sudo apt-get install -y docker.io"
        found.append(warning("snap-docker", docker.cli or engine.root, what, why, hint))
    return found


def _gpus(engine: Answer, gpus: Gpus) -> list[Finding]:
    found = []
    if not gpus.gpus:
        what = f"nvidia-smi says: {gpus.problem}" if gpus.tool else "there is no nvidia-smi, so no NVIDIA driver"
        why = "tao asks for all GPUs for each container, also for a task that needs none"
        hint = "sudo ubuntu-drivers install && sudo reboot" if not gpus.tool else "sudo modprobe nvidia; nvidia-smi"
        found.append(error("gpu-driver", gpus.tool or "nvidia-smi", what, why, hint))
    # moby pull request 50228, of 2025; whether an engine of that year has it is given the benefit of the doubt.
    takes_cdi = bool(gpus.cdi) and _major(engine.version) >= 28
    if not gpus.hook and not takes_cdi:
        what = "the engine finds no nvidia-container-runtime-hook"
        why = "it refuses what tao asks for: could not select device driver"
        found.append(error("gpu-runtime", engine.address, what, why, TOOLKIT))
    elif gpus.is_late and not takes_cdi:
        what = f"'{gpus.hook}' was installed after the engine was started"
        why = "it looks for it only then, and refuses what tao asks for: could not select device driver"
        found.append(error("gpu-runtime", engine.address, what, why, "sudo systemctl restart docker"))
    return found


def _major(version: str) -> int:
    found = re.match(r"[0-9]{1,6}", version)
    return int(found[0]) if found else 0
