"""The judges of a machine, by the table of ``machines``: pure, so each takes microseconds."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.doctor import doctor
from taoprofiles.doctor.doctor import Machine
from taoprofiles.rules.finding import Finding
from taoprofiles.rules.start import LOGIN
from tests.support.doctor_cases import (
    CASES,
    CONFLICTS,
    OTHER,
    SECOND,
    SOUND,
    TAO,
    beside,
    changed,
    engines,
    tao,
    variables,
)


def findings_by_id(machine: Machine) -> dict[str, Finding]:
    return {finding.id: finding for finding in doctor.evaluate(machine, machine.home.variables)}


def test_each_has_a_case_and_a_section_of_its_name_in_the_reference() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/checks.md").read_text()
    sections = page.partition("## The machine")[2].partition("\n## ")[0]
    assert CASES.keys() - {"slow-file-system"} == set(re.findall(r"^### (.*)$", sections, re.M))
    assert [id for id in CASES if f"\n### {id}\n" not in page] == []
    links = re.findall(r"\(#([a-z0-9-]+)\)", sections.partition("### tao-missing")[0])
    assert sorted(links) == sorted(CASES)


def test_a_sound_machine_has_no_findings() -> None:
    assert list(findings_by_id(SOUND)) == []


@pytest.mark.parametrize("id", CASES)
def test_each_rule_has_a_positive_and_a_negative_case(id: str) -> None:
    finding = findings_by_id(changed(SOUND, **CASES[id][0]))[id]
    assert finding.where and finding.hint
    assert finding.why or id == "launcher-import"
    assert not re.search(r"[!]|please", " ".join([finding.what, finding.why, finding.hint]), re.I)
    if id != "tao-several":
        done = subprocess.run(["bash", "-n"], input=finding.hint, text=True, capture_output=True)
        assert (done.returncode, done.stderr) == (0, ""), finding.hint
    assert id not in findings_by_id(changed(SOUND, **CASES[id][1]))


@pytest.mark.parametrize("package", CONFLICTS)
def test_packages_that_do_not_fit(package: str) -> None:
    does_not_fit, fits = CONFLICTS[package]
    result = findings_by_id(changed(SOUND, **does_not_fit))["launcher-import"]
    assert package in result.what and result.why and result.hint
    assert "launcher-import" not in findings_by_id(changed(SOUND, **fits))


def test_one_command_fixes_all_conflicts() -> None:
    rotten = beside((3, 12, 1), False, requests="2.32.4", urllib3="2.5.0", tabulate="0.8.7", six="1.15.0")
    result = [finding for finding in findings_by_id(changed(SOUND, **rotten)).values() if finding.severity == "error"]
    assert [finding.id for finding in result] == ["launcher-import"]
    assert all(name in result[0].what for name in ("tabulate", "six", "distutils", "requests"))
    assert {finding.hint for finding in result} == {
        "/home/ana/venv/bin/python -m pip install 'tabulate>=0.9' 'six>=1.16' setuptools 'requests<2.32' 'urllib3<2'"
    }


def test_gpus_of_an_engine_elsewhere_are_not_looked_for_here() -> None:
    remote = engines(address="ssh://lab")
    machine = changed(SOUND, docker__host="ssh://lab", gpus__gpus=(), gpus__hook="", **remote)
    assert not findings_by_id(machine).keys() & {"gpu-driver", "gpu-runtime"}


@pytest.mark.parametrize("path", ["", "mounts.json", "/x.json ", "\t/x.json", "$HOME/x.json", "/data/${USER}.json"])
def test_paths_of_launcher_mounts_that_tao_does_not_find(path: str) -> None:
    assert "lm-bad-path" in findings_by_id(changed(SOUND, **variables(LAUNCHER_MOUNTS=path)))


@pytest.mark.parametrize(("version", "skipped"), [("4.0.1", False), ("0.1.21", False), ("5.0.0", True), ("", True)])
def test_override_registry_skips_the_login_from_5_on(version: str, skipped: bool) -> None:
    machine = changed(SOUND, **tao(version=version), **variables(OVERRIDE_REGISTRY=""), login__registries=())
    assert ("login-missing" in findings_by_id(machine)) is not skipped


@pytest.mark.parametrize(("owner", "hint"), [(0, "sudo chown -R "), (1001, "ls -l")])
def test_only_what_sudo_left_to_root_is_made_the_users_own(owner: int, hint: str) -> None:
    """HOME may be another user's, after su or with sudo -E: nothing of theirs is changed."""
    machine = changed(
        SOUND, login__state="unreadable", login__problem="permission denied", login__owner=owner,
        state__foreign=(("/home/ana/.config/taoprofiles", owner),),
    )  # fmt: skip
    assert findings_by_id(machine)["docker-config-broken"].hint.startswith(hint)
    assert findings_by_id(machine)["state-not-mine"].hint.startswith(hint)


VENV = "'/home/ana/my venv'"
NEW_VENV = (
    "python3 -m venv ~/tao-launcher && ~/tao-launcher/bin/pip install nvidia-tao==6.26.3 'requests<2.32' 'urllib3<2' "
    '&& export PATH="$HOME/tao-launcher/bin:$PATH"'
)
TOOLKIT = (
    "sudo dnf install -y nvidia-container-toolkit && sudo nvidia-ctk runtime configure --runtime=docker && "
    "sudo service docker restart"
)
DRIVERS = "see https://docs.nvidia.com/datacenter/tesla/driver-installation-guide"
COLIMA = "unix:///home/ana/.colima/docker.sock"
AT_OTHER = {"docker__host": OTHER, "docker__first__address": OTHER}
NO_ENGINE = {f"docker__{client}__trouble": "absent" for client in ("first", "second")}
ABSENT = {**engines(trouble="absent", id=""), "docker__has_daemon": False}
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch"
DEAD = tao(trouble="no-interpreter", python="/home/ana/my venv/bin/python3.8", previous="nvidia-tao==5.5.1")
BEHIND = (TAO._replace(path="/usr/bin/tao", trouble="other-program", problem="it is not a Python script"), SECOND)
UNFIT = beside(requests="2.32.0")
FIT = "install 'requests<2.32' 'urllib3<2'"
NO_GPU = {"gpus__gpus": ()}
DNF = {"docker__installer": "dnf install -y"}
HINTS: list[tuple[dict, str, str]] = [
    # what put the packages there changes them
    ({**UNFIT, "launchers__on_path__0__pip": "pip"}, "launcher-import", f"/home/ana/venv/bin/python -m pip {FIT}"),
    ({**UNFIT, "launchers__on_path__0__pip": "uv"}, "launcher-import",
     "uv pip install --python /home/ana/venv/bin/python 'requests<2.32' 'urllib3<2'"),
    ({**UNFIT, "launchers__on_path__0__pip": "pipx"}, "launcher-import", f"pipx runpip venv {FIT}"),
    ({**UNFIT, "launchers__on_path__0__pip": ""}, "launcher-import", NEW_VENV),
    # the launcher that is there
    ({"launchers__on_path": BEHIND}, "tao-not-launcher", 'export PATH=/usr/local/bin:"$PATH"'),
    ({"launchers__on_path": (), "launchers__elsewhere": ("/home/ana/.local/bin/tao",)}, "tao-missing",
     'export PATH=/home/ana/.local/bin:"$PATH"'),
    (DEAD, "tao-broken-python",
     f"python3 -m venv --clear {VENV} && {VENV}/bin/pip install nvidia-tao==5.5.1 setuptools"),
    (tao(trouble="no-interpreter", python="/usr/bin/python3.8", previous="nvidia-tao==5.5.1"), "tao-broken-python",
     f"{doctor.INSTALL_LAUNCHER} && {doctor.PUT_FIRST_ON_PATH}"),  # the system's own is never cleared
    ({"login__registries": (), "login__elsewhere": "/srv/docker/config.json"}, "login-missing",
     f"env -u DOCKER_CONFIG {LOGIN}"),
    # the engine
    (engines(trouble="silent", problem="no response within 4 s"), "docker-down", "sudo systemctl restart docker"),
    ({**AT_OTHER, "docker__second__trouble": "absent"}, "docker-down",
     "sudo ln -s /run/user/1000/docker.sock /var/run/docker.sock"),
    ({**CASES["docker-missing"][0], "docker__has_podman": True}, "docker-down",
     "systemctl --user enable --now podman.socket && export DOCKER_HOST=unix://$XDG_RUNTIME_DIR/podman/podman.sock"),
    ({**NO_ENGINE, "docker__context": "colima", "docker__command__address": COLIMA}, "docker-down",
     f"export DOCKER_HOST={COLIMA}"),
    ({**engines(trouble="denied"), "docker__in_group": True}, "docker-denied", "newgrp docker"),
    ({**engines(trouble="refused", id=""), "home__uid": 0}, "docker-down", "systemctl enable --now docker"),
    ({**ABSENT, "docker__installer": "pacman -S --needed"}, "docker-down", "sudo pacman -S --needed docker"),
    ({**ABSENT, "docker__installer": ""}, "docker-down", "see https://docs.docker.com/engine/install"),
    # GPUs
    ({"gpus__is_late": True}, "gpu-runtime", "sudo systemctl restart docker"),
    ({**NO_GPU, "gpus__hook": "", "docker__has_systemd": False, **DNF}, "gpu-runtime", TOOLKIT),
    ({**NO_GPU, "gpus__problem": MISMATCH}, "gpu-driver",
     "sudo rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia; nvidia-smi"),
    ({**NO_GPU, "gpus__problem": "couldn't communicate"}, "gpu-driver", "sudo modprobe nvidia; nvidia-smi"),
    ({**NO_GPU, "gpus__tool": "", "docker__has_ubuntu_drivers": True}, "gpu-driver", "sudo ubuntu-drivers install"),
    ({**NO_GPU, "gpus__tool": ""}, "gpu-driver", "sudo apt-get install -y nvidia-driver"),
    ({**NO_GPU, "gpus__tool": "", **DNF}, "gpu-driver", DRIVERS),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "id", "hint"), HINTS)
def test_a_hint_is_for_this_fault_and_this_machine(changes: dict, id: str, hint: str) -> None:
    finding = findings_by_id(changed(SOUND, **changes))[id]
    assert finding.hint == hint


@pytest.mark.parametrize(
    ("changes", "id", "words"),
    [
        (NO_GPU | {"gpus__problem": MISMATCH}, "gpu-driver", "reboot"),
        (engines(trouble="silent", problem="no response within 4 s"), "docker-down", "does not respond"),
        (AT_OTHER | {"docker__second__trouble": "absent"}, "docker-down", "unix:///var/run/docker.sock"),
        (AT_OTHER | {"docker__first__id": "BBBB"}, "daemon-mismatch", "these are different engines"),
        ({"login__registries": (), "login__elsewhere": "/srv/docker/config.json"}, "login-missing", "/srv/docker"),
        (variables(LAUNCHER_MODE_INTERNAL="1"), "login-missing", "stg.nvcr.io"),
    ],
)
def test_a_finding_names_what_is_wrong(changes: dict, id: str, words: str) -> None:
    finding = findings_by_id(changed(SOUND, **changes))[id]
    assert words in f"{finding.where}: {finding.what}; {finding.why}"


WORDS = st.text(max_size=30)


@given(st.dictionaries(st.sampled_from([*beside()["launchers__on_path"][0].packages]), WORDS), WORDS, WORDS)
def test_versions_of_any_form_are_judged(packages: dict[str, str], version: str, imports: str) -> None:
    machine = changed(SOUND, **tao(packages=packages, version=version, imports=imports))
    for finding in findings_by_id(machine).values():
        shlex.split(finding.hint) if finding.id != "tao-several" else None
