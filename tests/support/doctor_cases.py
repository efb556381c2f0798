"""A machine on which all is well, and for each check what makes it speak and what comes near and does not."""

from __future__ import annotations

from typing import Any

from taoprofiles.doctor.docker import DockerFacts, EngineProbe, GpuFacts
from taoprofiles.doctor.doctor import ClusterState, Machine, OwnState
from taoprofiles.launcher.probes import FileSystem, Home, Launcher, Launchers, Login

SOCKET = "unix:///var/run/docker.sock"
OTHER = "unix:///run/user/1000/docker.sock"
UID = 1000
VERSION = "1.2.3"

PACKAGES = {
    "nvidia-tao": "6.26.3", "docker": "4.3.1", "requests": "2.31.0", "urllib3": "1.26.20", "tabulate": "0.9.0",
    "six": "1.17.0",
}  # fmt: skip
TAO = Launcher(
    "/home/ana/venv/bin/tao", "/home/ana/venv/bin/python", (3, 11, 7), "/home/ana/venv", "nvidia-tao", "6.26.3",
    packages=PACKAGES,
)  # fmt: skip
ENGINE = EngineProbe(SOCKET, "AAAA", "27.1.1", "Ubuntu 24.04", "/var/lib/docker")
NOBODY = EngineProbe(SOCKET, trouble="absent", problem="there is no engine")
SOUND = Machine(
    VERSION,
    Launchers((TAO,)),
    DockerFacts(
        "/usr/bin/docker", "", "default", ENGINE, ENGINE, ENGINE, "docker", has_daemon=True,
        installer="apt-get install -y",
    ),
    GpuFacts("/usr/bin/nvidia-smi", ("NVIDIA A100",), "550.54", "", "/usr/bin/nvidia-container-runtime-hook"),
    Login("/home/ana/.docker/config.json", registries=("nvcr.io",), owner=UID),
    Home(
        "/home/ana", UID, {}, "/home/ana/.tao_mounts.json", True,
        file_systems=(
            FileSystem("home", "/home/ana", "ext4", 100 << 30, 900 << 30),
            FileSystem("state", "/home/ana/.local/state/taoprofiles", "ext4", 100 << 30, 900 << 30),
            FileSystem("images", "/var/lib/docker", "ext4", 100 << 30, 900 << 30),
        ),
    ),
    OwnState(
        "/home/ana/.local/state/taoprofiles", "/home/ana/.tao_mounts.json", "kitti", "active", 0o600, 3,
        unit="same", service="active (running)", guard=VERSION, guard_pid=7,
    ),
)  # fmt: skip


def changed(machine: Any, **changes: Any) -> Any:
    """Change fields, named by their path with ``__`` for the dot; a number names an element."""
    for path, value in changes.items():
        machine = _changed(machine, path.split("__"), value)
    return machine


def _changed(record: Any, names: list[str], value: Any) -> Any:
    name, *rest = names
    if name.isdigit():
        inner = _changed(record[int(name)], rest, value) if rest else value
        return (*record[: int(name)], inner, *record[int(name) + 1 :])
    return record._replace(**{name: _changed(getattr(record, name), rest, value) if rest else value})


def tao(**changes: Any) -> dict[str, Any]:
    return {"launchers__on_path": (changed(TAO, **changes),)}


def beside(release: tuple[int, ...] = (3, 11, 7), distutils: bool = True, **packages: str) -> dict[str, Any]:
    return tao(packages={**PACKAGES, **packages}, release=release, has_distutils=distutils)


def engines(**changes: Any) -> dict[str, Any]:
    """The one engine of all three clients changed."""
    return {
        f"docker__{client}__{name}": value
        for client in ("first", "second", "command")
        for name, value in changes.items()
    }


def variables(**values: str) -> dict[str, Any]:
    return {"home__variables": values}


SECOND = TAO._replace(path="/usr/local/bin/tao", prefix="/usr", version="5.5.1")

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tao-missing": ({"launchers__on_path": ()}, {"launchers__elsewhere": ("/home/ana/.local/bin/tao",)}),
    "tao-not-launcher": (
        tao(trouble="other-program", problem="it is not a Python script"),
        {"launchers__on_path": (TAO, SECOND._replace(trouble="other-program"))},
    ),
    "tao-broken-python": (tao(trouble="no-interpreter", problem="its Python cannot be started"), tao(previous="6.0.0")),
    "tao-several": (
        {"launchers__on_path": (TAO, SECOND)},
        {"launchers__on_path": (TAO, TAO._replace(path="/shims/tao"))},
    ),
    "launcher-import": (tao(imports="ModuleNotFoundError: No module named 'docker'"), tao(pip="uv")),
    "docker-missing": (
        {"docker__cli": "", "docker__has_daemon": False, "docker__first": NOBODY, "docker__second": NOBODY},
        {"docker__cli": "", "docker__has_daemon": False},
    ),
    "docker-cli-missing": ({"docker__cli": ""}, {"docker__has_daemon": False}),
    "docker-down": (
        {"docker__first": NOBODY, "docker__second": NOBODY, "docker__command": NOBODY},
        {"docker__command": NOBODY},
    ),
    "docker-denied": (engines(trouble="denied", problem="permission denied"), {"docker__group": "root"}),
    "daemon-mismatch": (
        {"docker__command__id": "BBBB"},
        {"docker__command": EngineProbe("", trouble="odd", problem="?")},
    ),
    "docker-host-set": ({"docker__host": OTHER, "docker__first__address": OTHER}, {"docker__host": SOCKET}),
    "engine-outside": ({"docker__in_container": True, "docker__has_root": False}, {"docker__in_container": True}),
    "docker-rootless": (engines(is_rootless=True), engines(system="Rootless Linux")),
    "docker-desktop": (engines(system="Docker Desktop"), engines(system="Docker Desktop for nobody")),
    "snap-docker": ({"docker__is_snap": True}, {"docker__cli": "/opt/snap/docker"}),
    "gpu-driver": (
        {"gpus__gpus": (), "gpus__problem": "couldn't communicate"},
        {"gpus__tool": "/usr/lib/wsl/lib/nvidia-smi"},
    ),
    "gpu-runtime": (
        {"gpus__hook": ""},
        {"gpus__hook": "", "gpus__cdi": "/usr/bin/nvidia-cdi-hook", **engines(version="29.0.1")},
    ),
    "cluster-client-missing": (
        {"clusters": (ClusterState("slurm", "", ("dino",), ("sbatch", "squeue")),)},
        {"clusters": (ClusterState("kubernetes", "", (), ("kubectl",)),)},
    ),
    "cluster-unreachable": (
        {"clusters": (ClusterState("kubernetes", "my lab/vision", ("dino",), (), "connection refused"),)},
        {"clusters": (ClusterState("kubernetes", "a/b", (), (), "refused"), ClusterState("slurm", "", ("dino",)))},
    ),
    "disk-images": ({"home__file_systems__2__free": 39 << 30}, {"home__file_systems__2__free": 40 << 30}),
    "login-missing": (
        {"login__registries": (), "login__state": "absent"},
        {"login__registries": (), "login__state": "absent", **variables(OVERRIDE_REGISTRY="local")},
    ),
    "docker-config-broken": (
        {"login__state": "broken", "login__problem": "line 1", "login__registries": ()},
        {"login__elsewhere": "/etc/docker-of-ana/config.json"},
    ),
    "login-helper-missing": (
        {"login__missing_helpers": ("docker-credential-desktop",)},
        {"login__missing_helpers": ()},
    ),
    "home-not-absolute": ({"home__path": "ana"}, {"home__path": "/"}),
    "home-under-sudo": (
        {"home__uid": 0, "home__path": "/root", "home__sudo_home": "/home/ana", **variables(SUDO_USER="ana")},
        {"home__uid": 0, "home__path": "/root", "home__sudo_home": "/root", **variables(SUDO_USER="root")},
    ),
    "lm-bad-path": (
        {"home__mounts_state": "a file that is not there", **variables(LAUNCHER_MOUNTS="/x.json")},
        variables(LAUNCHER_MOUNTS="/x.json"),
    ),
    "file-near-miss-name": (
        {"home__similar_files": ("/home/ana/tao_mounts.json",), "home__has_mapping": False},
        {"home__similar_files": ("/home/ana/.tlt_mounts.json",), "home__has_mapping": False, **tao(version="4.0.1")},
    ),
    "ci-project-dir-set": (
        variables(CI_PROJECT_DIR="/builds"),
        {**variables(CI_PROJECT_DIR="/builds"), **tao(version="4.0.1")},
    ),
    "tao-docker-disabled": (variables(TAO_DOCKER_DISABLE="1"), variables(TAO_DOCKER_DISABLE="0")),
    "slow-file-system": (
        {"home__system": "wsl", "home__file_systems__0__kind": "9p"},
        {"home__file_systems__0__kind": "9p"},
    ),
    "state-not-mine": ({"state__foreign": (("/home/ana/.config/taoprofiles", 0),)}, {"state__known": 0}),
    "state-unreadable": ({"state__unreadable": (("/home/ana/x", "it is a folder"),)}, {"state__mapping_state": "none"}),
    "state-full": ({"home__file_systems__1__free": 1 << 20}, {"home__file_systems__1__free": 16 << 20}),
    "profile-unreadable": ({"state__profiles": (("a", "layout: unknown"),)}, {"state__mapping_state": "drifted"}),
    "hold-damaged": ({"state__holds": (("/home/ana/holds/x.json", "it is damaged"),)}, {"state__holds": ()}),
    "seal-left-over": ({"state__is_sealed_by_nobody": True, "state__guard": ""}, {"state__mapping_mode": 0o400}),
    "mapping-read-only": ({"state__mapping_mode": 0o444, "state__guard": ""}, {"state__mapping_mode": 0o444}),
    "guard-inactive": (
        {"state__service": "failed (failed)", "state__guard": ""},
        {"state__unit": "", "state__service": "", "state__guard": ""},
    ),
    "guard-outdated": ({"state__guard": "0.0.1"}, {"state__guard": ""}),
    "guard-troubled": ({"state__guard_problem": "no watches are left"}, {"state__guard_problem": ""}),
}
"""By id: changes to SOUND with which it speaks, and changes that come near, with which it does not."""

CONFLICTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "distutils": (beside((3, 12, 1), False), beside((3, 12, 1), True, setuptools="80.9.0")),
    "requests": (beside(requests="2.32.0"), beside(requests="2.32.0", docker="7.1.0")),
    "urllib3": (beside(urllib3="2.0.1"), beside(urllib3="2.0.1", docker="6.1.0")),
    "tabulate": (beside((3, 10, 0), tabulate="0.8.7"), beside((3, 9, 18), tabulate="0.8.7")),
    "six": (beside((3, 12, 0), six="1.15.0"), beside((3, 11, 9), six="1.15.0")),
}
"""Packages that do not fit the launcher or its Python, and such that nearly do not."""
