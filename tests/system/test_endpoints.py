"""The engine that taoprofiles asks is the one that the docker command would use."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from taoprofiles.system import processes
from taoprofiles.system.docker_run import parse
from taoprofiles.system.engine import DEFAULT, Endpoint, Engine, EngineError, find_endpoint
from tests.support.commands import call
from tests.support.engine import until
from tests.support.home import Home, find_command, write_program
from tests.support.sandbox import FakeEngine


def docker(folder: Path, *words: str, **environ: str) -> str:
    done = subprocess.run(
        [find_command("docker"), *words],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **environ},
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("environ", "current"),
    [
        ({}, ""), ({}, "lab"), ({}, "default"), ({"DOCKER_CONTEXT": "rootless"}, "lab"),
        ({"DOCKER_CONTEXT": "default"}, "lab"), ({"DOCKER_HOST": "unix:///x.sock"}, "lab"),
        ({"DOCKER_HOST": "unix:///x.sock", "DOCKER_CONTEXT": "rootless"}, "lab"),
        ({"DOCKER_CONFIG": "elsewhere"}, "lab"),
    ],
)  # fmt: skip
def test_it_is_that_of_the_docker_command(tmp_path: Path, environ: dict[str, str], current: str) -> None:
    docker(tmp_path, "context", "create", "lab", "--docker", "host=ssh://ana@lab:2222")
    docker(tmp_path, "context", "create", "rootless", "--docker", "host=unix:///run/user/1000/docker.sock")
    if current:
        docker(tmp_path, "context", "use", current)
    environ = {name: str(tmp_path / value) if value == "elsewhere" else value for name, value in environ.items()}
    shown = docker(tmp_path, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}", **environ)
    endpoint = find_endpoint({"HOME": str(tmp_path), **environ})
    assert endpoint.address == (shown or DEFAULT)


def test_an_empty_docker_host_is_none(tmp_path: Path) -> None:
    """As in Docker 23 and later; before that, it stood for the default socket, whatever the context was."""
    docker(tmp_path, "context", "create", "lab", "--docker", "host=ssh://ana@lab:2222")
    environ = {"HOME": str(tmp_path), "DOCKER_HOST": "", "DOCKER_CONTEXT": "lab"}
    assert find_endpoint(environ).address == "ssh://ana@lab:2222"


def test_a_context_that_does_not_exist_and_files_that_are_broken(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    for content in ("{", "[]", '{"currentContext": 1}', "", '{"currentContext": "default"}'):
        (tmp_path / ".docker/config.json").write_text(content)
        assert find_endpoint({"HOME": str(tmp_path)}).address == DEFAULT
    engine = Engine({"HOME": str(tmp_path), "DOCKER_CONTEXT": "gone"})
    with pytest.raises(EngineError, match="the Docker context 'gone' does not exist"):
        engine.containers()


@pytest.mark.parametrize(
    ("address", "is_remote"),
    [
        ("unix:///x", False), ("ssh://ana@lab", True), ("tcp://10.0.0.2:2376", True), ("tcp://lab:2376", True),
        ("tcp://127.0.0.1:2375", False), ("tcp://localhost:2375", False), ("tcp://[::1]:2375", False),
    ],
)  # fmt: skip
def test_which_engines_are_on_another_machine(address: str, is_remote: bool) -> None:
    assert Endpoint(address).is_remote is is_remote


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder with a CA, and certificates of a server on 127.0.0.1 and of a client."""
    folder = tmp_path / "pki"
    folder.mkdir()

    def openssl(*words: str) -> None:
        subprocess.run([find_command("openssl"), *words], cwd=folder, check=True, capture_output=True)

    openssl(*"req -x509 -newkey rsa:2048 -nodes -keyout ca-key.pem -out ca.pem -days 2 -subj /CN=ca".split())
    for name, more in (("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")):
        (folder / "more").write_text(more)
        openssl(*f"req -newkey rsa:2048 -nodes -keyout {name}-key.pem -out {name}.csr -subj /CN={name}".split())
        sign = f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile more"
        openssl(*sign.split(), "-out", f"{name}.pem")
    shutil.copy(folder / "client.pem", folder / "cert.pem")
    shutil.copy(folder / "client-key.pem", folder / "key.pem")
    return folder


@pytest.fixture
def secure_engine(tmp_path: Path, certificates: Path) -> Iterator[str]:
    """The address of an engine that accepts only clients with a certificate of its CA."""
    with FakeEngine(tmp_path, tcp=True) as engine:
        engine.container(7, {"/a": "/b"})
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificates / "server.pem", certificates / "server-key.pem")
        tls.load_verify_locations(certificates / "ca.pem")
        tls.verify_mode = ssl.CERT_REQUIRED
        plain = engine._serve

        def serve(connection):  # type: ignore[no-untyped-def]
            try:
                plain(tls.wrap_socket(connection, server_side=True))
            except OSError:
                connection.close()

        engine._serve = serve  # type: ignore[method-assign]
        yield engine.address
        assert threading.active_count() < 100


def test_tls_by_variables_and_by_a_context(tmp_path: Path, certificates: Path, secure_engine: str) -> None:
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    by_variables = {
        **home, "DOCKER_HOST": secure_engine, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(certificates),
    }  # fmt: skip
    assert len(Engine(by_variables).containers()) == 1
    files = f"ca={certificates}/ca.pem,cert={certificates}/cert.pem,key={certificates}/key.pem"
    for name, more in (("lab", ""), ("careless", ",skip-tls-verify=true")):
        docker(tmp_path, "context", "create", name, "--docker", f"host={secure_engine},{files}{more}")
        by_context = Engine({**home, "DOCKER_CONTEXT": name})
        assert len(by_context.containers()) == 1
        # What a run gives to the docker command in place of the context means the same.
        assert len(Engine({**home, **by_context.endpoint.environ}).containers()) == 1
    with pytest.raises(EngineError):
        Engine({**home, "DOCKER_HOST": secure_engine}).containers()


# Engines on another machine


def test_folders_of_another_machine_are_not_looked_for_here(home: Home) -> None:
    words = (
        "docker run --gpus all --shm-size 1g -v /only/there:/data IMAGE dino train dataset.dir=/data/x -e /home/t.yaml"
    )
    words = words.replace("IMAGE", "nvcr.io/nvidia/tao/tao-toolkit:7.1.0-pyt")
    environ = {"DOCKER_HOST": "tcp://192.0.2.1:2376"}
    done = call(home, "--json", "check", "--", *words.split(), environ=environ)
    findings = {finding["id"]: finding for finding in done.envelope["data"]["findings"]}
    assert "src-missing" not in findings
    assert "missing-file" not in findings
    assert findings["paths-unchecked"]["severity"] == "warning"
    assert findings["paths-unchecked"]["what"].startswith("the engine is on another machine, tcp://192.0.2.1:2376")
    assert findings["spec-unchecked"]["what"] == "the spec file '/home/t.yaml' is not a file of this machine"
    assert "unmapped-path" in findings, "which needs no look at that machine"
    assert "paths-unchecked" not in call(home, "check", "--", *words.split()).out


def test_the_engine_of_the_line_itself_counts() -> None:
    lab = {"DOCKER_HOST": "ssh://lab"}
    for words, engine in {
        "docker -H ssh://lab run x": lab,
        "docker --host=ssh://lab run x": lab,
        "env DOCKER_HOST=ssh://lab docker run x": lab,
        "docker --context lab run x": {"DOCKER_HOST": "", "DOCKER_CONTEXT": "lab"},
        "taskset -c 0-3 docker run x": {},
        "sudo -H docker run x": {},
        "ionice -c 3 nice docker run x": {},
    }.items():
        run = parse(words.split())
        assert run is not None and run.engine == engine


def test_nothing_stays_of_an_ssh_that_hangs(tmp_path: Path) -> None:
    started = tmp_path / "started"
    write_program(tmp_path / "docker", f"sleep 1000 &\necho $$ $! > {started}.new\nmv {started}.new {started}\nwait")
    environ = {"DOCKER_HOST": "ssh://ana@lab", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with pytest.raises(EngineError, match="no response"):
        Engine(environ, 3.0).containers()
    for pid in map(int, started.read_text().split()):
        until(lambda pid=pid: processes.start_time(pid) is None, f"{pid} has ended")
