"""Engines behind a real sshd on loopback, and Podman by its socket, each through everything that asks an engine."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from taoprofiles.system.engine import Engine
from tests.support.commands import call
from tests.support.engine import RUNTIME, BackgroundRun, LoggedProcess, TrainingHome, answers, two_projects, until
from tests.support.home import Home, find_command, require, write_program

pytestmark = pytest.mark.engine


class SshServer(LoggedProcess):
    """A sshd of our own on a free port, for this user and one key; ``ssh`` and ``environ`` lead to it."""

    def __init__(self, folder: Path) -> None:
        sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
        require(sshd, "openssh-server is not installed")
        require(os.getuid() == 0, "sshd needs its folder /run/sshd, which root makes")
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        keygen = find_command("ssh-keygen")
        for name in ("host", "key"):
            subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        (folder / "authorized").write_text((folder / "key.pub").read_text())
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        settings = {
            "Port": port, "ListenAddress": "127.0.0.1", "HostKey": folder / "host", "PidFile": folder / "pid",
            "AuthorizedKeysFile": folder / "authorized", "StrictModes": "no", "UsePAM": "no",
            "PermitRootLogin": "prohibit-password", "PasswordAuthentication": "no",
        }  # fmt: skip
        (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        config = f"IdentityFile {folder}/key\nStrictHostKeyChecking no\nUserKnownHostsFile {folder}/known\n"
        (folder / "ssh_config").write_text(config)
        write_program(folder / "bin/ssh", f'exec {shutil.which("ssh")} -F {folder}/ssh_config "$@"')
        self.address = f"ssh://root@127.0.0.1:{port}"
        self.environ = {"DOCKER_HOST": self.address, "PATH": f"{folder}/bin:{os.environ['PATH']}"}
        super().__init__(folder / "log", [str(sshd), "-D", "-e", "-f", folder / "sshd_config"], dict(os.environ))
        until(lambda: _listens(port), "sshd listens", details=self.log_text)


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        connection.settimeout(1)
        return connection.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[SshServer]:
    folder = tmp_path / "ssh"
    folder.mkdir()
    server = SshServer(folder)
    yield server
    server.end()


def test_a_run_through_ssh(training_home: TrainingHome, ssh: SshServer) -> None:
    """The whole of a run: its container is found, followed, counted and stopped by way of the sshd."""
    home = training_home
    two_projects(home)
    home.environ |= ssh.environ
    image = home.engine.images["detectnet_v2"]
    words = ["detectnet_v2", "--image", image, "--", "detectnet_v2", "train", "60"]
    with BackgroundRun(home, *words, environ=ssh.environ) as run:
        record = run.bound()
        assert (record["engine"], record["phase"], record["differences"]) == (ssh.address, "bound", [])
        assert home.engine.exists(record["container"])
        shown = home.json("status")["data"]
        assert [hold["container"] for hold in shown["holds"]] == [record["container"]]
        assert shown["unseen"] == []
        assert home.run("stop", record["id"], "--yes").returncode == 0
        assert run.process.wait(60) != 0
    assert home.json("status")["data"]["holds"] == []
    done = home.run("run", "detectnet_v2", "--image", image, "--", "detectnet_v2", "train", "0", "3")
    assert done.returncode == 3, done.stderr


def test_folders_are_looked_for_on_the_machine_of_the_engine(training_home: TrainingHome, ssh: SshServer) -> None:
    home = training_home
    (home.root / "here it is").mkdir()
    words = ["docker", "run", "--gpus", "all", "--shm-size", "1g", "-v", f"{home.root}/here it is:/data", "-v",
             f"{home.root}/it's gone:/gone", "nvcr.io/nvidia/tao/tao-toolkit:7.1.0-pyt", "dino", "train"]  # fmt: skip
    findings = call(home, "--json", "check", "--", *words, environ=ssh.environ).envelope["data"]["findings"]
    by_id = {finding["id"]: finding for finding in findings}
    assert by_id["src-missing"]["what"] == f"'{home.root}/it's gone' does not exist on the engine's machine"
    assert [f["id"] for f in findings].count("src-missing") == 1
    assert by_id["paths-unchecked"]["severity"] == "info"
    subprocess.run(["sh", "-c", by_id["src-missing"]["hint"]], env={**home.environ, **ssh.environ}, check=True)
    assert (home.root / "it's gone").is_dir()
    findings = call(home, "--json", "check", "--", *words, environ=ssh.environ).envelope["data"]["findings"]
    assert "src-missing" not in {finding["id"] for finding in findings}


def test_doctor_names_the_engine_behind_ssh(training_home: TrainingHome, ssh: SshServer) -> None:
    home = training_home
    done = call(home, "doctor", environ=ssh.environ)
    assert f"on another machine at {ssh.address}" in done.out
    find = {"PATH": ssh.environ["PATH"]}
    docker = find_command("docker")
    words = [docker, "context", "create", "lab", "--docker", f"host={ssh.address}"]
    subprocess.run(words, env={**home.environ, **find}, check=True, capture_output=True)
    done = call(home, "doctor", environ={**find, "DOCKER_CONTEXT": "lab"})
    assert f"at {ssh.address} (Docker context 'lab')" in done.out


def test_an_ssh_that_lets_nobody_in(home: Home, ssh: SshServer) -> None:
    environ = {**ssh.environ, "PATH": os.environ["PATH"]}  # without the key
    done = call(home, "status", environ=environ)
    assert done.status == 0
    assert f"cannot query the container engine at {ssh.address}" in done.err
    words = "docker run --gpus all -v /a:/b nvcr.io/nvidia/tao/tao-toolkit:7.1.0-pyt dino train".split()
    done = call(home, "--json", "check", "--", *words, environ=environ)
    (finding,) = [f for f in done.envelope["data"]["findings"] if f["id"] == "paths-unchecked"]
    assert finding["severity"] == "warning"
    assert finding["why"].startswith("ssh: ")


# Podman


SETTINGS = """
[containers]
netns = "host"
default_ulimits = []
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[engine.runtimes]
runc = ["{runc}"]
"""
"""For a machine without systemd, and a root that may not raise limits."""


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[str]:
    """The address of a Podman of our own, with a small image."""
    require(os.geteuid() == 0, "a Podman with these settings needs root")
    program = find_command("podman")
    require(shutil.which("catatonit", path=f"{os.environ['PATH']}:/usr/libexec/podman"), "catatonit is not installed")
    folder = Path(tempfile.mkdtemp(prefix="taoprofiles-podman-"))
    path = f"{folder}/s"
    options = [f"--root={folder}/root", f"--runroot={folder}/run", "--storage-driver=vfs"]
    write_program(folder / "runc", RUNTIME.format(runc=find_command("runc")))
    (folder / "containers.conf").write_text(SETTINGS.format(runc=folder / "runc"))
    environ = {**os.environ, "CONTAINERS_CONF": str(folder / "containers.conf")}
    words = [program, *options, "system", "service", "--time=0", f"unix://{path}"]
    service = LoggedProcess(folder / "log", words, environ)
    try:
        until(lambda: answers(path), "podman answers", details=service.log_text)
        yield f"unix://{path}"
    finally:
        service.end()
        subprocess.run([program, *options, "rm", "--all", "--force"], env=environ, check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def busybox() -> bytes:
    program, content = find_command("busybox"), io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.add(os.path.realpath(program), "bin/busybox")
        for name in ("sh", "sleep", "env", "touch", "id"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    return content.getvalue()


def test_podman_by_its_socket(home: Home, podman: str) -> None:
    home.environ["DOCKER_HOST"] = podman
    assert "Podman" in call(home, "doctor").out
    assert Engine(home.environ).containers() == []
    image = "nvcr.io/nvidia/tao/tao-toolkit:7.1.0-pyt"
    docker = [find_command("docker"), "import", "-", image]
    subprocess.run(docker, env=home.environ, input=busybox(), check=True, capture_output=True)
    (home.root / "out").mkdir()
    mounts = f'[[mounts]]\nsource = "{home.root}/out"\ndestination = "/results"\n'
    home.profile("p", f'layout = "custom"\n{mounts}')
    done = home.run("run", "p", "--image", image, "--gpus", "none", "--", "sh", "-c", "touch /results/done; exit 3")
    assert done.returncode == 3, done.stderr
    assert (home.root / "out/done").exists()
    words = [home.taoprof, "run", "p", "--image", image, "--gpus", "none", "--", "sleep", "60"]
    run = subprocess.Popen(words, env=home.environ, cwd=home.root, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        record = until(
            lambda: next((hold for hold in home.json("status")["data"]["holds"] if hold["container"]), None),
            "it is bound",
        )
        assert (record["engine"], record["phase"]) == (podman, "bound")
        assert home.run("stop", record["id"], "--yes").returncode == 0
        assert run.wait(60) != 0
    finally:
        run.kill()
    assert home.json("status")["data"]["holds"] == []
