"""A real Docker engine with images that play TAO's, and the unmodified launcher started in a scratch home.

The engine is the machine's own if one answers, else a private one without a network, ended with the session. The
images hold busybox, bash and one script per task, under the tags that the launcher's own config.json gives.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.support.home import Home, find_command, require, write_program

SOCKET = "/var/run/docker.sock"
"""Not ours to choose: the launcher's second client is bound to it (DEFAULT_DOCKER_PATH in docker_handler.py)."""

TASKS = ("detectnet_v2", "segformer")
LABEL = "taoprofiles.stand-in"
APPLETS = "cat echo env grep hostname id kill ls mkdir rm sh sleep sort test touch true".split()

TRAINING = """\
#!/bin/sh
# Plays a task: NAME train SECONDS [STATUS [RESULTS]] tells what it sees, takes its time, and exits with STATUS. In the
# folder RESULTS it leaves its container's name, and there a file "enough" ends it before its time.
echo "${0##*/} $1: training as $(id -u):$(id -g)"
if [ "$2" = -e ]; then
    # As a person starts it: NAME train -e SPEC -r RESULTS [MORE]. What fails, fails in Python's words.
    echo "HOME=$HOME CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES given=$6"
    fails() { echo "$1"; exit 1; }
    none="FileNotFoundError: [Errno 2] No such file or directory:"
    denied="PermissionError: [Errno 13] Permission denied:"
    mkdir -p "${HOME%/}/.config" || fails "$denied '${HOME%/}/.config'"
    [ -r "$3" ] || fails "$none '$3'"
    while read -r key value; do
        echo "spec $key $value"
        [ "$key" != data: ] || [ -e "$value" ] || fails "$none '$value'"
    done <"$3"
    mkdir -p "$5" && hostname >"$5/status.json" || fails "$denied '$5/status.json'"
    echo "${0##*/} $1: done with 0"
    exit 0
fi
env | sort
cat /proc/mounts
if [ -n "$4" ]; then
    mkdir -p "$4" && hostname >"$4/trained-by"
    left=$2
    while [ "$left" -gt 0 ] && ! [ -e "$4/enough" ]; do sleep 1; left=$((left - 1)); done
else
    sleep "${2:-1}"
fi
echo "${0##*/} $1: done with ${3:-0}"
exit "${3:-0}"
"""

RUNTIME = """\
#!/bin/sh
# runc for a root that may not raise limits (no CAP_SYS_RESOURCE): the engine is asked for "memlock": -1 and tells of it
# in docker inspect as ever, but what it hands on to runc asks for no limits.
for word; do
    case $before in
        --bundle) sed -i 's/"rlimits":\\[[^]]*\\]/"rlimits":[]/' "$word/config.json" ;;
        --process) sed -i 's/"rlimits":\\[[^]]*\\]/"rlimits":[]/' "$word" ;;
    esac
    before=$word
done
exec {runc} "$@"
"""

CHANGES = (
    # It keeps running, as the launcher's docker exec needs, and obeys TERM at once, so that a stop takes no 10 s.
    """CMD ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 5 & wait $!; done"]""",
    "ENV PATH=/usr/local/bin:/bin",
)

T = TypeVar("T")


def until(get: Callable[[], T], what: str, *, seconds: float = 30, details: Callable[[], str] = str) -> T:
    """Return the first true result of ``get``; at the deadline fail with ``what`` and what ``details`` returns."""
    end = time.monotonic() + seconds
    pause = 0.005
    while not (answer := get()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}\n{details()}"
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    return answer


class LoggedProcess:
    """A program in a session of its own, so that Ctrl-C is only for pytest, with its output in a file."""

    def __init__(
        self, log: Path, words: Sequence[str | Path], environ: dict[str, str], cwd: Path | None = None
    ) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                words,
                env=environ,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def tail(self) -> str:
        return "\n".join(self.log_text().splitlines()[-15:])

    def until_logged(self, text: str, *, seconds: float = 30) -> None:
        """Wait until it has said that; fail at once if it ends without."""

        def has_said() -> bool:
            has_ended = self.process.poll() is not None
            log = self.log_text()
            assert text in log or not has_ended, log
            return text in log

        until(has_said, f"it says '{text}'", seconds=seconds, details=self.log_text)

    def end(self, seconds: float = 30) -> None:
        """End it by SIGTERM, or kill its process group after ``seconds``."""
        self.process.terminate()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def new_log(folder: Path, name: str) -> Path:
    """Return the path of a log that does not exist yet."""
    return folder / f"{name}-{len(list(folder.glob(f'{name}-*.log')))}.log"


def answers(path: str = SOCKET) -> bool:
    """Check whether a daemon answers on the socket."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(path)
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b" 200 " in connection.recv(100)
    except OSError:
        return False


class Daemon(LoggedProcess):
    """A dockerd of our own: no network, everything in one folder, and the launcher's wish for GPUs granted."""

    def __init__(self, path: str = SOCKET, *, has_hook: bool = True) -> None:
        self._socket = path
        dockerd, runc = find_command("dockerd"), find_command("runc")
        self.folder = Path(tempfile.mkdtemp(prefix="taoprofiles-engine-"))  # short: sockets' paths have 107 bytes
        programs = self.folder / "bin"
        programs.mkdir()
        path_variable = f"{programs}:{os.environ['PATH']}"
        if has_hook:
            write_program(programs / "nvidia-container-runtime-hook", "exit 0")
        else:  # nor may it find a hook that is installed on this machine
            path_variable = str(programs)
            for name in ("containerd", "containerd-shim-runc-v2", "runc", "docker-init", "docker-proxy", "iptables"):
                if shutil.which(name):
                    (programs / name).symlink_to(str(shutil.which(name)))
        runtime = []
        if not _may_raise_limits():
            write_program(programs / "runc-without-limits", RUNTIME.format(runc=runc))
            runtime = [f"--add-runtime=limitless={programs}/runc-without-limits", "--default-runtime=limitless"]
        self._containerd = self.folder / "exec/containerd/containerd.pid"
        words = [dockerd, "--bridge=none", "--iptables=false", f"--host=unix://{path}", f"--pidfile={self.folder}/pid"]
        words += [f"--data-root={self.folder}/data", f"--exec-root={self.folder}/exec", *runtime]
        super().__init__(self.folder / "log", words, {"PATH": path_variable, "HOME": str(self.folder)})

    def started(self) -> bool:
        """Wait until it answers, or has given up."""
        until(
            lambda: self.process.poll() is not None or answers(self._socket),
            "dockerd answers",
            seconds=60,
            details=self.tail,
        )
        return self.process.poll() is None

    def end(self, seconds: float = 30) -> None:
        containerd = int(self._containerd.read_text()) if self._containerd.exists() else None
        super().end(seconds)
        if containerd is not None and str(self.folder) in _arguments(containerd):
            os.kill(containerd, signal.SIGTERM)
            until(lambda: not _arguments(containerd), "containerd ends")
        if not answers(self._socket):
            Path(self._socket).unlink(missing_ok=True)
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for place in reversed(mounted):
            if place.startswith(f"{self.folder}/"):
                subprocess.run(["umount", "--lazy", place], check=False)
        shutil.rmtree(self.folder)


class Engine:
    """The engine as the tests ask it: by the docker command, whatever the person's own docker context is."""

    def __init__(self, folder: Path) -> None:
        self._docker = find_command("docker")
        self._environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "DOCKER_HOST": f"unix://{SOCKET}"}
        self.images = {task: _image(task) for task in TASKS}
        self._tags: list[str] = []

    def docker(self, *arguments: str, check: bool = True, content: bytes | None = None) -> str:
        done = self._run(*arguments, content=content)
        assert not check or done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout.decode()

    def _run(self, *arguments: str, content: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [self._docker, *arguments], env=self._environ, input=content, capture_output=True, timeout=60
        )

    def make_images(self) -> None:
        """Make the images that are not there yet; never take the tag from one that is not ours."""
        content = _image_content()
        changes = [f"--change={change}" for change in CHANGES]
        digest = hashlib.sha256(content + str(changes).encode()).hexdigest()
        changes.append(f"--change=LABEL {LABEL}={digest}")
        for tag in sorted(set(self.images.values())):
            there = self.docker("image", "inspect", "--format={{json .Config.Labels}}", tag, check=False).strip()
            labels = (json.loads(there) or {}) if there else None
            require(labels is None or LABEL in labels, f"the engine has a real '{tag}', which is not to be replaced")
            if labels is None or labels[LABEL] != digest:
                self.docker("import", *changes, "-", tag, content=content)
                self._tags.append(tag)

    def remove_images(self) -> None:
        for tag in self._tags:
            self.docker("image", "rm", tag, check=False)

    def refusal(self) -> str:
        """Why it does not start a container such as the launcher's, with GPUs and NVIDIA's limits; "" if it does."""
        arguments = ("--rm", "--gpus=all", "--ulimit=memlock=-1", "--network=none", self.images[TASKS[0]], "true")
        return self._run("run", *arguments).stderr.decode()

    def inspect(self, container: str) -> dict[str, Any]:
        return json.loads(self.docker("inspect", "--type=container", container))[0]

    def exists(self, container: str) -> bool:
        return container in self.docker("ps", "--all", "--quiet", "--no-trunc").split()

    def containers_of(self, folder: Path) -> list[str]:
        """Every container, running or not, that has something of ``folder`` mounted, or the labels of a home there."""
        ids = self.docker("ps", "--all", "--quiet", "--no-trunc").split()
        inspected = self.docker("inspect", "--type=container", *ids, check=False) if ids else "[]"
        below = f"{folder.resolve()}/"
        return [
            container["Id"]
            for container in json.loads(inspected or "[]")
            if any(mount.get("Source", "").startswith(below) for mount in container["Mounts"])
            or (container["Config"]["Labels"] or {}).get("taoprofiles.state", "").startswith(below)
        ]

    def remove(self, container: str) -> None:
        """Kill a container, and wait until it has gone with all its mounts."""
        self.docker("rm", "--force", container, check=False)
        until(lambda: not self.exists(container), f"container {container} is gone")


class Launch(LoggedProcess):
    """One ``tao model TASK …``: its process, what it says, and its container once there is one."""

    def __init__(self, home: TrainingHome, task: str, arguments: tuple[str, ...], environ: dict[str, str]) -> None:
        self.engine = home.engine
        self._container: str | None = None
        words = [home.tao, "model", task, *arguments]
        super().__init__(new_log(home.root, "launch"), words, {**home.environ, **environ}, home.root)

    @property
    def container(self) -> str:
        """The container's id; waits until it exists."""
        return until(self._look, "the launcher has a container", details=self.log_text)

    def _look(self) -> str | None:
        if self._container is None:
            ended = self.process.poll() is not None
            self._container = _container_of(self.process.pid)
            assert self._container or not ended, f"tao ended with {self.process.returncode}:\n{self.log_text()}"
        return self._container

    def training(self) -> Launch:
        """Wait until the task runs in the container."""
        assert self.container
        self.until_logged(": training as")
        return self

    def inspect(self) -> dict[str, Any]:
        return self.engine.inspect(self.container)

    def sees(self, path: str) -> str:
        """Read a file inside the container."""
        return self.engine.docker("exec", self.container, "cat", path)

    def wait(self, seconds: float = 30) -> int:
        """Wait until the launcher ends by itself, and give its exit status."""
        return self.process.wait(seconds)

    def end(self, seconds: float = 10) -> None:
        """End the container and the launcher, in whatever state they are."""
        if self._container is None:
            self._container = _container_of(self.process.pid)
        if self._container is None and self.process.poll() is None:
            self.process.kill()  # it may yet start one: TrainingHome.end looks for it
        elif self._container is not None:
            self.engine.remove(self._container)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class TrainingHome(Home):
    """A scratch home whose owner is logged in to NVIDIA's registry, as the launcher demands, and trains."""

    def __init__(self, root: Path, engine: Engine) -> None:
        super().__init__(root)
        self.engine = engine
        self.environ.pop("DOCKER_HOST")
        self.tao = find_command("tao")
        self.launches: list[Launch] = []
        login = root / ".docker/config.json"
        login.parent.mkdir()
        login.write_text('{"auths": {"nvcr.io": {}}}')

    def launch(self, task: str, *arguments: str, environ: dict[str, str] | None = None) -> Launch:
        """Start ``tao model TASK …`` and return at once. The mapping in force needs ``"tty": false``."""
        launch = Launch(self, task, arguments, environ or {})
        self.launches.append(launch)
        return launch

    def train(self, task: str, seconds: int = 60, status: int = 0, **environ: str) -> Launch:
        """Start a training and wait until its task runs."""
        return self.launch(task, "train", str(seconds), str(status), environ=environ).training()

    def end(self) -> None:
        for launch in self.launches:
            launch.end()
        for container in self.engine.containers_of(self.root):
            self.engine.remove(container)


def _image(task: str) -> str:
    """Return the image that the installed launcher runs a model task in."""
    package = importlib.util.find_spec("nvidia_tao_cli")  # found, not imported: it is the subject, and loads docker
    require(package, "nvidia-tao is not installed")
    assert package is not None and package.submodule_search_locations is not None
    config = json.loads((Path(package.submodule_search_locations[0]) / "config/config.json").read_text())
    for name, tags in config["task_group"]["model"]["dockers"].items():
        for tag, about in tags.items():
            if task in about["tasks"]:
                return f"{about['docker_registry']}/{name}:{tag}"
    raise AssertionError(f"the launcher has no task '{task}'")


def _image_content() -> bytes:
    files = {f"bin/{name}": Path(find_command(name)).read_bytes() for name in ("busybox", "bash")}
    files |= libraries(find_command("bash")) | {f"usr/local/bin/{task}": TRAINING.encode() for task in TASKS}
    return image_archive(files, {f"bin/{applet}": "busybox" for applet in APPLETS})


def libraries(program: str | Path) -> dict[str, bytes]:
    """Return the libraries that a program needs, as ``image_archive`` takes them."""
    lines = subprocess.check_output(["ldd", program], text=True)
    return {path.lstrip("/"): Path(path).read_bytes() for path in re.findall(r"(/\S+) \(0x", lines)}


def image_archive(files: dict[str, bytes], links: dict[str, str]) -> bytes:
    """Return the file system of an image with these files and symlinks, and /tmp."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = 0o755, len(content)
            tar.addfile(entry, io.BytesIO(content))
        passing = tarfile.TarInfo("tmp")
        passing.type, passing.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(passing)
        for name, target in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return archive.getvalue()


def _may_raise_limits() -> bool:
    soft_and_hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft_and_hard[1] == resource.RLIM_INFINITY:
        return True
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft_and_hard[0], resource.RLIM_INFINITY))
    except (ValueError, PermissionError):
        return False
    resource.setrlimit(resource.RLIMIT_MEMLOCK, soft_and_hard)
    return True


def _arguments(process: int) -> str:
    """Return a process's command line; nothing for one that has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _container_of(session: int) -> str | None:
    """Find the container of a launcher by the ``docker exec -i CONTAINER …`` that it runs in its session."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and _session(int(entry)) == session:
            match = re.search(r"docker exec -it? ([0-9a-f]{64}) ", _arguments(int(entry)))
            if match:
                return match[1]
    return None


def _session(process: int) -> int | None:
    try:
        return os.getsid(process)
    except OSError:
        return None


# Projects, runs and mounts of the tests; what a container should have is written out from paths


def new_project(home: TrainingHome, network: str, folder: str) -> Path:
    """Make a profile for a project folder in the home, as a person would, fit for a launch without a terminal."""
    project = home.root / folder
    project.mkdir(parents=True)
    home.run("new", network, cwd=project, environ={"PATH": f"{Path(home.tao).parent}:{os.environ['PATH']}"}, check=True)
    home.run("set", network, "docker.tty=false", check=True)
    return project


def local_mounts(project: Path) -> dict[Path, str]:
    return {project: "/workspace/tao-experiments", project / "specs": "/workspace/tao-experiments/detectnet_v2/specs"}


def host_mounts(project: Path) -> dict[Path, str]:
    return {
        project: "/workspace/tao-experiments",
        project / "data": "/data",
        project / "specs": "/specs",
        project / "segformer/results": "/results",
    }


class BackgroundRun(LoggedProcess):
    """A ``taoprof run`` in the background."""

    def __init__(self, home: TrainingHome, *words: str, environ: dict[str, str] | None = None) -> None:
        self.home = home
        environ = {**home.environ, "PATH": f"{Path(home.tao).parent}:{os.environ['PATH']}", **(environ or {})}
        super().__init__(new_log(home.root, "run"), [home.taoprof, "run", *words], environ, home.root)

    @property
    def record(self) -> dict[str, Any] | None:
        """What ``holds`` says of it, by the pid of ``taoprof run``."""
        return next((hold for hold in self.home.holds() if hold["pid"] == self.process.pid), None)

    def bound(self) -> dict[str, Any]:
        """Wait until it has a container and the task runs in it, and give its record."""
        self.until_logged(": training as")
        return until(
            lambda: record if (record := self.record) and record["phase"] == "bound" else None,
            "the hold is bound",
            details=lambda: f"{self.record}\n{self.log_text()}",
        )

    def __enter__(self) -> BackgroundRun:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


def two_projects(home: TrainingHome) -> tuple[Path, Path]:
    kitti, city = new_project(home, "detectnet_v2", "tao/kitti"), new_project(home, "segformer", "tao/city")
    home.run("use", "segformer", "--mkdir", check=True)
    home.run("use", "detectnet_v2", "--mkdir", check=True)
    return kitti, city


def bind_mounts(container: dict[str, Any]) -> dict[Path, str]:
    return {Path(mount["Source"]): mount["Destination"] for mount in container["Mounts"]}
