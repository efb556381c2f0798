"""``taoprof doctor`` in homes where something is wrong: it names it, changes nothing, and tells no secret."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from taoprofiles.doctor import docker, doctor
from taoprofiles.launcher import probes
from taoprofiles.storage.paths import Context
from tests.support.commands import call, do_as_them
from tests.support.home import Home, find_command, require

SECRET = "s3cr3t-of-ana"


@pytest.fixture
def used(home: Home) -> Home:
    """A home with two profiles, one of them in force; no launcher and no docker on PATH."""
    home.profile("a")
    home.profile("b")
    home.run("use", "a", check=True)
    programs = home.root / "bin"
    programs.mkdir()
    for name in ("sh", "sleep", "systemctl"):
        if shutil.which(name):
            (programs / name).symlink_to(shutil.which(name) or "")
    home.environ["PATH"] = str(programs)
    return home


def findings(home: Home, **environ: str) -> dict[str, dict]:
    done = call(home, "doctor", "--json", environ=environ)
    assert done.err == ""
    data = done.envelope["data"]
    assert done.status == (3 if data["counts"]["error"] else 0)
    return {finding["id"]: finding for finding in data["findings"]}


def program(home: Home, name: str, text: str, interpreter: str = "/bin/sh") -> None:
    path = home.root / "bin" / name
    path.write_text(f"#!{interpreter}\n{text}\n")
    path.chmod(0o755)


def test_nothing_is_changed(used: Home) -> None:
    (used.state / "guard").mkdir(exist_ok=True)
    (used.state / "guard/seal.json").write_text("{}")
    before = used.tree()
    by_id = findings(used)
    assert used.tree() == before
    assert by_id["seal-left-over"]["hint"] == "taoprofd --unseal"
    assert {"tao-missing", "login-missing"} <= by_id.keys()


def test_without_the_launcher_nothing_needs_it_if_each_profile_has_an_image(home: Home) -> None:
    home.environ["PATH"] = "/usr/bin:/bin"
    home.profile("a", 'schema = 1\nlayout = "custom"\nimage = "nvcr.io/nvidia/tao/tao-toolkit:7.1.0-pyt"\n')
    assert {findings(home)[id]["severity"] for id in ("tao-missing", "login-missing")} == {"info"}
    home.profile("b")
    assert {findings(home)[id]["severity"] for id in ("tao-missing", "login-missing")} == {"error"}


def test_a_home_that_nothing_was_ever_done_in(home: Home) -> None:
    done = home.run("doctor")
    assert done.returncode == 3
    assert "state-" not in done.stdout
    assert not home.state.exists()


def test_no_home_at_all(used: Home) -> None:
    by_id = findings(used, HOME="rel/ative")
    assert by_id["home-not-absolute"]["where"] == "HOME"
    assert findings(used, TAOPROF_HOME="rel/ative")["home-not-absolute"]["where"] == "TAOPROF_HOME"


def test_secrets_are_masked(used: Home) -> None:
    text = f'layout = "custom"\n[variables]\nKEY = "{SECRET}-1"\nWANDB_API_KEY = "{SECRET}"\n'
    used.profile("a", f"{text}[[mounts]]\n")
    used.profile("b", text)
    used.run("use", "b", check=True)
    (used.root / ".docker").mkdir()
    (used.root / ".docker/config.json").write_text(json.dumps({"auths": {"x": {"auth": SECRET}}, SECRET: 1}))
    environ = {"KEY": f"{SECRET}-2", "NGC_API_KEY": SECRET, "CLEARML_API_SECRET_KEY": SECRET}
    environ["DOCKER_HOST"] = f"tcp://ana:{SECRET}@127.0.0.1:1"
    assert "tcp://ana:***@" in str(findings(used, **environ))
    result = call(used, "check", "--json", environ=environ).envelope["data"]["findings"]
    assert "variables.KEY" in [finding["where"] for finding in result if finding["id"] == "variables-differ"]
    for words in (["doctor"], ["doctor", "--json"], ["check"], ["check", "--json"]):
        done = call(used, *words, environ=environ)
        assert SECRET not in done.out + done.err


def test_damaged_records_are_named(used: Home) -> None:
    used.profile("broken", "layout = 7")
    (used.state / "holds").mkdir(exist_ok=True)
    (used.state / "holds/aaaaa.json").write_bytes(b"\0")
    by_id = findings(used)
    assert by_id["profile-unreadable"]["where"] == "profile 'broken'"
    assert "layout" in by_id["profile-unreadable"]["what"]
    assert by_id["hold-damaged"]["where"].endswith("holds/aaaaa.json")
    subprocess.run(["sh", "-c", by_id["hold-damaged"]["hint"]], check=True)
    assert "hold-damaged" not in findings(used)


def test_what_cannot_be_read_is_named(used: Home) -> None:
    with (used.state / "history.jsonl").open("ab") as journal:
        journal.write(b'{"v": 99}\n')
    assert "newer" in findings(used)["state-unreadable"]["what"]
    (used.state / "history.jsonl").unlink()
    used.mapping_file.unlink()
    used.mapping_file.mkdir()
    assert "is a folder" in findings(used)["state-unreadable"]["what"]


def test_a_read_only_mapping_file(used: Home) -> None:
    used.mapping_file.chmod(0o444)
    finding = findings(used)["mapping-read-only"]
    subprocess.run(["sh", "-c", finding["hint"]], check=True)
    assert "mapping-read-only" not in findings(used)


def test_a_guard_of_another_version(used: Home) -> None:
    from taoprofiles.switching.guard_files import GuardFiles

    guards = GuardFiles(used.context)
    fd = guards.acquire()
    try:
        guards.publish(
            {"version": "0.0.1", "pid": 7, "line": "", "is_sealed": False, "holds": [], "problem": "no room"}
        )
        by_id = findings(used)
    finally:
        os.close(fd)
    assert by_id["guard-outdated"]["hint"].startswith("kill 7 ")
    assert by_id["guard-troubled"]["what"] == "no room"
    assert "seal-left-over" not in by_id


def test_an_engine_and_programs_that_hang(used: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((docker, "TIMEOUT"), (docker, "GPU_TIMEOUT"), (probes, "_TIMEOUT")):
        monkeypatch.setattr(module, name, 0.5)
    for name in ("docker", "nvidia-smi", "pyenv"):
        program(used, name, "sleep 300 & wait")
    program(used, "python3", "sleep 300 & wait")
    program(used, "tao", "", f"{used.root}/bin/python3")
    with socket.socket(socket.AF_UNIX) as server:
        path = f"{used.root}/s" if len(str(used.root)) < 100 else f"{tempfile.mkdtemp()}/s"
        server.bind(path)
        server.listen(100)
        began = time.monotonic()
        by_id = findings(used, DOCKER_HOST=f"unix://{path}")
        assert time.monotonic() - began < 100, "each program sleeps 300 s"
    assert {"docker-down", "tao-broken-python"} <= by_id.keys()


def test_a_docker_command_and_a_driver_that_do_not_work(used: Home) -> None:
    program(used, "docker", 'case "$1" in context) echo "lab ssh://lab";; *) echo "cannot connect" >&2; exit 1;; esac')
    program(used, "nvidia-smi", 'echo "NVIDIA-SMI has failed because it could not communicate with the driver"; exit 9')
    facts = call(used, "doctor", "--json").envelope["data"]["facts"]
    command = facts["docker"]["command"]
    assert facts["docker"]["context"] == "lab"
    assert (command["address"], command["problem"]) == ("ssh://lab", "cannot connect")
    assert facts["gpus"]["problem"].startswith("NVIDIA-SMI has failed")
    assert facts["gpus"]["gpus"] == []


@pytest.mark.parametrize("name", ["history.jsonl", "runs.jsonl", "holds/bbbbb.json", "guard/seal.json", "lock"])
def test_anything_in_the_place_of_a_file_of_ours_is_answered(used: Home, name: str) -> None:
    path = used.state / name
    path.parent.mkdir(exist_ok=True)
    contents = (b"", b"\0\xff", b"[]\n", b'{"v": 1}\n', b'{"v": 99}\n', b"{" * 10_000)
    for make in (Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path), *contents):
        path.unlink(missing_ok=True)
        path.write_bytes(make) if isinstance(make, bytes) else make(path)
        assert doctor.probe_state(used.context).folder == str(used.state)
        path.rmdir() if make is Path.mkdir else path.unlink()


def test_what_belongs_to_another_user() -> None:
    """Looked at by a process of another user, in a home that is root's."""
    require(os.geteuid() == 0, "becoming another user needs root")
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        home.profile("a")
        home.run("use", "a", check=True)
        for path in (Path(folder), home.profiles.parents[1], home.state.parents[1], home.state.parent):
            path.chmod(0o755)

        def do() -> int:
            machine = doctor.probe_machine(Context({"HOME": folder, "PATH": ""}))
            print(json.dumps([finding.as_dict() for finding in doctor.evaluate(machine, {})]))
            return 0

        result = json.loads(do_as_them(home, do).out)
    mine = {finding["where"]: finding for finding in result if finding["id"] == "state-not-mine"}
    assert {f"{folder}/.tao_mounts.json", f"{folder}/.config/taoprofiles"} <= mine.keys()
    assert all(finding["hint"].startswith('sudo chown -R "$(id -u):$(id -g)" ') for finding in mine.values())
    assert "state-unreadable" in {finding["id"] for finding in result}


@pytest.mark.slow  # six starts of the launcher; test_rules.py has the same findings
def test_the_real_launcher_says_what_the_doctor_says(home: Home) -> None:
    """The login as the launcher tests it: its own last line, beside what is found in the same home."""
    require(sys.version_info < (3, 12), "the launcher needs Python 3.11")
    tao = find_command("tao")
    home.environ["PATH"] = f"{Path(tao).parent}:{home.environ['PATH']}"
    file = home.root / ".docker/config.json"
    file.parent.mkdir()
    for content, id, line in (
        (None, "login-missing", "Did you run docker login?"),
        ("{}", "login-missing", "Docker CLI hasn't been logged in to a registry."),
        ('{"auths": {}}', "login-missing", "Docker not logged in to nvcr.io. Please run docker login nvcr.io"),
        ('{"auths": []}', "docker-config-broken", "AttributeError: 'list' object has no attribute 'keys'"),
        ('{"auths"', "docker-config-broken", "json.decoder.JSONDecodeError: Expecting ':' delimiter"),
        ('{"auths": {"nvcr.io": {}}}', "docker-down", "while fetching server API version: ('Connection aborted.'"),
    ):
        if content is not None:
            file.write_text(content)
        task = [tao, "model", "detectnet_v2", "train"]
        done = subprocess.run(task, env=home.environ, capture_output=True, text=True, timeout=60)
        assert line in done.stderr, content
        ids = {finding["id"] for finding in home.json("doctor")["data"]["findings"]}
        assert ids & {"login-missing", "docker-config-broken"} == ({id} - {"docker-down"})
        assert id in ids


def test_the_clusters_of_profiles(used: Home) -> None:
    assert clusters(used) == {}
    used.profile("s", 'layout = "custom"\n[slurm]\npartition = "a100"\n')
    used.profile("k", 'layout = "custom"\n[kubernetes]\ncontext = "lab"\n')
    assert findings(used)["cluster-client-missing"]["what"] == "not installed here: sbatch, squeue, scancel"
    for name in ("sbatch", "scancel", "sacct"):
        program(used, name, "exit 0")
    program(used, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    known = """case $1 in config) echo '{"contexts": [{"name": "lab", "context": {}}]}' ;; *) %s ;; esac"""
    program(used, "kubectl", known % "exit 1")
    assert clusters(used) == {
        "slurm": "'squeue' failed with exit status 1; Unable to contact slurm controller",
        "kubernetes": "'kubectl' failed with exit status 1",
    }
    program(used, "squeue", "exit 0")
    program(used, "kubectl", known % """echo '{"items": []}'""")
    assert clusters(used) == {"slurm": "", "kubernetes": ""}
    assert "Kubernetes lab/default: answers" in call(used, "doctor").out


def clusters(home: Home) -> dict[str, str]:
    states = call(home, "doctor", "--json").envelope["data"]["facts"]["clusters"]
    return {state["kind"]: state["problem"] for state in states}
