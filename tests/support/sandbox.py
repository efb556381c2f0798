"""Those who play in the tests of runs and holds: a launcher, whoever starts it, and an engine; none needs Docker."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taoprofiles.holds import manage
from taoprofiles.holds.hold import HeldError
from taoprofiles.mounts import mapping
from taoprofiles.switching import switch
from taoprofiles.system import processes
from tests.support.commands import Terminal
from tests.support.engine import until
from tests.support.home import Home, write_program

TAO = """\
#!{python}
# Plays the launcher: like the real one it reads its mounts file some time after its start, and starts a client that
# works on without it. It waits at its two gates, named pipes, each until a byte comes.
import os, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
place = os.environ["FAKE_TAO"]
go, end = (os.open(f"{{place}}.{{gate}}", os.O_RDWR) for gate in ("go", "end"))

def tell(what, text):
    with open(f"{{place}}.new", "w") as file:
        file.write(text)
    os.replace(f"{{place}}.new", f"{{place}}.{{what}}")

tell("started", str(os.getpid()))
os.read(go, 1)
try:
    with open(os.environ.get("LAUNCHER_MOUNTS", os.path.expanduser("~/.tao_mounts.json"))) as file:
        found = file.read()
except FileNotFoundError:
    found = ""
if os.environ.get("FAKE_CLIENT"):
    # As with the launcher's docker exec, the descriptors beyond the three are closed in it.
    client = subprocess.Popen(["sleep", "1000"])
    tell("client", str(client.pid))
tell("read", found)
sys.exit(os.read(end, 1)[0])
"""


class Tao:
    """One launch of the fake launcher: what it is given in its environment, and what it tells."""

    def __init__(self, folder: Path, name: str, *, client: bool = False) -> None:
        self._place = folder / name
        self._gates: list[int] = []
        for gate in ("go", "end"):
            path = self._place.with_suffix(f".{gate}")
            os.mkfifo(path)
            self._gates.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))  # open to the end: no byte is lost
        self.environ = {"FAKE_TAO": str(self._place)} | ({"FAKE_CLIENT": "1"} if client else {})

    def pid(self) -> int:
        """Wait until it runs."""
        return int(self._read_reply("started"))

    def client(self) -> int:
        return int(self._read_reply("client"))

    def reads(self) -> str:
        """Make it read its mounts file, and return what it has read; "" where there was none."""
        if not self._path("read").exists():
            self.pid()
            os.write(self._gates[0], b"x")
        until(self._path("read").exists, "the launcher has read its mounts file")
        return self._path("read").read_text()

    def end(self, status: int = 0) -> None:
        """Make it exit with that status; it reads its mounts file before, if it has not."""
        for gate, byte in zip(self._gates, (b"x", bytes([status])), strict=True):
            os.write(gate, byte)

    def close(self) -> None:
        for gate in self._gates:
            os.close(gate)
        self._gates = []

    def _read_reply(self, what: str) -> str:
        until(self._path(what).exists, f"the launcher has written '{what}'")
        return self._path(what).read_text()

    def _path(self, what: str) -> Path:
        return self._place.with_suffix(f".{what}")


class Sandbox(Home):
    """A scratch home without an engine, a fake ``tao`` on its PATH, and everyone whom it started ended with it."""

    def __init__(self, folder: Path) -> None:
        root = folder / "home"
        root.mkdir()
        super().__init__(root)
        self.folder = folder
        programs = folder / "bin"
        self.tao = write_program(programs / "tao", TAO.format(python=sys.executable))
        self.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
        self.environ["DOCKER_HOST"] = f"unix://{folder}/no-engine"
        self.context = type(self.context)(self.environ)
        self._started: list[subprocess.Popen[Any]] = []
        self._taos: list[Tao] = []
        self.records = self.state / "holds"

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        """End everyone by the pid; whoever they started is known by the mark in its environment."""
        for process in self._started:
            process.kill()
            with process:  # which closes its pipes and waits for it
                pass
        mark = str(self.folder)
        for variable in ("FAKE_TAO", "HOME"):
            for pid, value in list(processes.with_variable(os.getuid(), variable)):
                if value.startswith(mark) and pid != os.getpid():
                    kill(pid)
        for tao in self._taos:
            tao.close()

    def new_tao(self, *, client: bool = False) -> Tao:
        tao = Tao(self.folder, f"tao-{len(self._taos)}", client=client)
        self._taos.append(tao)
        return tao

    def start(self, *argv: str | Path, environ: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        """Start a process in this home, in a session of its own."""
        wanted: dict[str, Any] = {"stdin": subprocess.DEVNULL, "cwd": self.root, "start_new_session": True, **options}
        process = subprocess.Popen(
            [str(word) for word in argv], env={**self.environ, **(environ or {})}, text=True, **wanted
        )
        self._started.append(process)
        return process

    def terminal(self, *argv: str | Path, **environ: str) -> Terminal:
        """Start a process in this home on a terminal."""
        return Terminal([str(word) for word in argv], environ={**self.environ, **environ}, cwd=self.root)

    def plain(
        self, environ: dict[str, str] | None = None, *, client: bool = False
    ) -> tuple[Tao, subprocess.Popen[str]]:
        """Start a plain ``tao``, and wait until it runs."""
        tao = self.new_tao(client=client)
        process = self.start(
            self.tao, "model", "unet", "train", environ={**tao.environ, **(environ or {})}, stdout=-3, stderr=-3
        )
        assert tao.pid() == process.pid
        return tao, process

    def in_run(
        self, *options: str, client: bool = False, environ: dict[str, str] | None = None, command: tuple[str, ...] = ()
    ) -> tuple[Tao, subprocess.Popen[str]]:
        """Start ``taoprof run OPTIONS -- tao …``, and wait until the launcher in it runs."""
        tao = self.new_tao(client=client)
        words = command or ("tao", "model", "unet", "evaluate")
        run = self.start(
            *(self.taoprof, "run", *options, "--", *words),
            environ={**tao.environ, **(environ or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        tao.pid()
        return tao, run

    def detach(
        self, *command: str, options: tuple[str, ...] = (), environ: dict[str, str] | None = None, printed: str = ""
    ) -> str:
        """Start a detached run of profile b and return its id; ``printed``: what is printed beside it."""
        words = ("run", "b", "--detach", *options, "--", *command)
        done = self.run(*words, environ=environ or {}, stdin=subprocess.DEVNULL)
        assert done.returncode == 0 and printed in done.stderr and bool(printed) == bool(done.stderr), (printed, done)
        assert re.fullmatch(r"[2-9a-z]{5}\n", done.stdout)
        return done.stdout.strip()

    def holds(self) -> list[dict[str, Any]]:
        """Return the active holds, as ``taoprof status`` does."""
        return [hold.as_dict() for hold in manage.active_holds(self.context).holds]

    def would_be_refused(self, name: str) -> bool:
        """Check whether a switch would be refused now."""
        try:
            switch.switch_profile(self.context, name, dry_run=True)
        except HeldError:
            return True
        return False

    def refused(self, name: str, *options: str, **more: object) -> list[dict[str, Any]]:
        """Try to switch, be refused, and give those who hold; the mapping file is as it was."""
        before = self.mapping_file.read_bytes()
        done = self.run("use", name, *options, "--json", **more)
        assert done.returncode == 5, (done.stdout, done.stderr)
        assert self.mapping_file.read_bytes() == before
        holders: list[dict[str, Any]] = json.loads(done.stdout)["error"]["holders"]
        return holders

    def refused_here(self, name: str) -> list[dict[str, Any]]:
        """Do what ``refused`` does, in this process."""
        before = self.mapping_file.read_bytes()
        with pytest.raises(HeldError) as caught:
            switch.switch_profile(self.context, name)
        assert self.mapping_file.read_bytes() == before
        holders: list[dict[str, Any]] = caught.value.more["holders"]
        return holders


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a process that may have ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def kill_run(tao: Tao, run: subprocess.Popen[str]) -> None:
    """Send SIGKILL to a run with its launcher, and wait until both have ended."""
    os.killpg(run.pid, signal.SIGKILL)
    run.wait(20)
    until(lambda: gone(tao.pid()), "the launcher is gone")


def gone(pid: int) -> bool:
    """Check whether a process has ended; a zombie has."""
    return processes.start_time(pid) is None


class FakeEngine:
    """An engine of threads in this process: containers and events as given, any answer replaced by another.

    ``rules`` maps the beginning of a path to what is done with the connection instead of an answer.
    """

    def __init__(self, folder: Path, *, tcp: bool = False) -> None:
        self.containers: dict[str, dict[str, Any]] = {}
        self.rules: dict[str, Callable[[socket.socket], None]] = {}
        self.asked: list[str] = []
        self.tear = 1 << 20  # bytes that are sent at a time
        self.over = threading.Event()
        self._events: list[bytes] = []
        self._cuts = 0
        self._changed = threading.Condition()
        if tcp:
            self._server = socket.create_server(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        else:
            self.path = folder / f"engine-{len(list(folder.glob('engine-*')))}"
            self._server = socket.socket(socket.AF_UNIX)
            self._server.bind(str(self.path))
            self._server.listen(128)
            self.address = f"unix://{self.path}"
        self._server.settimeout(0.1)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(5)
        self._server.close()

    @property
    def environ(self) -> dict[str, str]:
        return {"DOCKER_HOST": self.address}

    def container(self, number: int, mounts: dict[str, str], **about: Any) -> str:
        """Add a container such as the launcher's; ``env``, ``user``, ``labels``, ``count``: of its start."""
        container_id = f"{number:064x}"[::-1]
        binds = [{"Type": "bind", "Source": source, "Destination": place} for source, place in mounts.items()]
        gpus = [{"Driver": "", "Count": about.get("count", -1), "Capabilities": [["gpu"]]}]
        self.containers[container_id] = {
            "Id": container_id,
            "Image": about.get("image", "nvcr.io/nvidia/tao/tao-toolkit:6.26.3-pyt"),
            "Created": int(time.time()),
            "Mounts": binds,
            "Labels": about.get("labels"),
            "State": {"Running": True},
            "Config": {"Env": about.get("env", []), "User": about.get("user", ""), "Image": "tao-toolkit"},
            "HostConfig": {"DeviceRequests": gpus if about.get("count", -1) is not None else None},
        }
        return container_id

    def event(self, action: str, container_id: str, *, stamp: int | None = None, **attributes: str) -> None:
        """Send an event to all that listen, now and later."""
        event = {
            "Type": "container",
            "id": container_id,
            "Action": action,
            "timeNano": stamp or time.time_ns(),
            "Actor": {"ID": container_id, "Attributes": attributes},
        }
        self.raw_event(json.dumps(event).encode() + b"\n")

    def raw_event(self, line: bytes) -> None:
        with self._changed:
            self._events.append(line)
            self._changed.notify_all()

    def cut(self) -> None:
        """End every stream of events."""
        with self._changed:
            self._cuts += 1
            self._changed.notify_all()

    def listeners(self) -> int:
        return sum(path.startswith("/events") for path in self.asked)

    def _accept(self) -> None:
        while not self.over.is_set():
            try:
                connection, _ = self._server.accept()
            except TimeoutError:
                continue
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(10)
            try:
                request = b""
                while b"\r\n\r\n" not in request:
                    chunk = connection.recv(1 << 12)
                    if not chunk:
                        return
                    request += chunk
                path = request.split(b" ", 2)[1].decode()
                self.asked.append(path)
                rule = next((act for start, act in self.rules.items() if path.startswith(start)), None)
                if rule is not None:
                    rule(connection)
                else:
                    self._answer(connection, path)
            except OSError:
                pass  # whoever asked has gone

    def _answer(self, connection: socket.socket, path: str) -> None:
        part = path.partition("?")[0].split("/")
        if path.startswith("/events?") and "&until=" in path:
            answer(connection, b"".join(line for line in self._events if json.loads(line)["id"] in path))
        elif path.startswith("/events"):
            self._stream(connection, float(path.partition("since=")[2].partition("&")[0]))
        elif path.startswith("/containers/json"):
            answer(connection, list(self.containers.values()))
        elif part[1] == "containers" and part[2] in self.containers:
            answer(connection, self.containers[part[2]])
        else:
            answer(connection, {"message": "No such container"}, status="404 Not Found")

    def _stream(self, connection: socket.socket, since: float) -> None:
        with self._changed:
            sent, cuts, old = 0, self._cuts, len(self._events)
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n")
        while not self.over.is_set():
            with self._changed:
                self._changed.wait_for(
                    lambda at=sent: len(self._events) > at or self._cuts != cuts or self.over.is_set(), 1
                )
                fresh = list(enumerate(self._events[sent:], sent))
                sent = len(self._events)
                ended = self._cuts != cuts
            for number, line in fresh:
                try:
                    wanted = number >= old or json.loads(line)["timeNano"] / 1e9 >= since
                except (ValueError, TypeError, KeyError):
                    wanted = False  # it has no time, so it is not sent again
                if wanted:
                    for at in range(0, len(line), self.tear):
                        connection.sendall(line[at : at + self.tear])
            if ended:
                return


def answer(connection: socket.socket, body: object, *, status: str = "200 OK") -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.sendall(f"HTTP/1.0 {status}\r\nContent-Type: application/json\r\n\r\n".encode() + content)


def mounts_of(sandbox: Home, name: str) -> dict[str, str]:
    """Return a profile's mounts as an engine reports them: source to destination."""
    return mapping.mounted(rendered(sandbox, name))


def rendered(sandbox: Home, name: str) -> bytes:
    """Return what a profile's mapping file holds."""
    from taoprofiles.profiles.store import Store

    return mapping.to_bytes(Store(sandbox.context).renderer(name).mapping())
