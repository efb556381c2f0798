"""A real systemd with a real user manager, for an ordinary user who exists nowhere else.

systemd is booted as process 1 of namespaces of its own, over private layers of /etc and /var, with devices and control
groups of its own, so that nothing of it is left on the machine, nor touches a systemd that the machine may have. Its
/tmp is private too: at boot systemd empties it. The user's home is in a folder that has the same name outside.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support.engine import LoggedProcess, until
from tests.support.guard_process import is_sealed
from tests.support.home import find_command

ROOT = Path(__file__).parents[2]
USER = "ana"
UID = 12345
TARGET = "taoprofiles.target"
GROUPS = Path("/sys/fs/cgroup")

BOOT = """\
set -e
mount --make-rprivate /
for group in {groups}; do echo 0 >$group/cgroup.procs; done
mount -t tmpfs tmpfs /mnt
for place in etc var; do
    mkdir -p /mnt/upper/$place /mnt/work/$place
    mount -t overlay overlay -o lowerdir=/$place,upperdir=/mnt/upper/$place,workdir=/mnt/work/$place /$place
done
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /var/tmp
mount -t tmpfs tmpfs /var/log
mkdir /var/log/journal
mkdir /mnt/dev
mount -t tmpfs tmpfs /mnt/dev
mkdir /mnt/dev/shm /mnt/dev/pts
for name in null zero full random urandom tty; do touch /mnt/dev/$name; mount --bind /dev/$name /mnt/dev/$name; done
mount -t tmpfs tmpfs /mnt/dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts /mnt/dev/pts
for name in fd:/proc/self/fd stdin:/proc/self/fd/0 stdout:/proc/self/fd/1 stderr:/proc/self/fd/2 ptmx:pts/ptmx; do
    ln -s ${{name#*:}} /mnt/dev/${{name%%:*}}
done
mount --rbind /mnt/dev /dev
# Nothing of this kernel is changed: no settings, no devices, no modules.
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -o remount,bind,ro /sys
useradd --uid {uid} --home-dir {home} --create-home --shell /bin/bash {user}
# No more than a login needs: whatever else this machine starts at boot (cron, a database, getty) stays where it is.
printf '[Unit]\nRequires=basic.target\nWants=dbus.service systemd-logind.service systemd-user-sessions.service\n' \
    >/etc/systemd/system/{target}
# There is no Docker: with the socket of an installed one, the user would have an engine that nobody lets them use.
ln -s /dev/null /etc/systemd/system/docker.socket
# A user manager without lingering ends with the last login, not 10 s later.
mkdir -p /etc/systemd/logind.conf.d
printf '[Login]\nUserStopDelaySec=0\n' >/etc/systemd/logind.conf.d/delay.conf
export container=private
exec setpriv --bounding-set=-sys_module,-sys_time \
    /lib/systemd/systemd --system --unit={target} --log-target=null
"""


class Machine(LoggedProcess):
    """A booted systemd. ``user`` runs commands in it as the ordinary user, ``root`` as root."""

    def __init__(self) -> None:
        find_command("unshare"), find_command("nsenter"), find_command("systemctl"), find_command("dbus-daemon")
        self.folder = Path(tempfile.mkdtemp(prefix="taoprofiles-systemd-", dir="/srv"))
        self.folder.chmod(0o755)
        self.home = self.folder / "home"
        groups = " ".join(map(str, _control_groups(self.folder.name)))
        script = BOOT.format(uid=UID, home=self.home, user=USER, target=TARGET, groups=groups)
        words = ["unshare", "--pid", "--fork", "--mount", "--mount-proc", "--kill-child", "bash", "-c", script]
        super().__init__(self.folder / "log", words, {"PATH": os.environ["PATH"]})
        self.init = 0

    def boot(self) -> Machine:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        self.init = int(until(lambda: children.read_text().split(), "systemd is started", details=self.tail)[0])
        states = ("running", "degraded")
        until(
            lambda: self.root("systemctl", "is-system-running").stdout.strip() in states, "it is up", details=self.tail
        )
        self.root("loginctl", "enable-linger", USER)
        until(lambda: self.root("test", "-S", f"/run/user/{UID}/bus").returncode == 0, "the user manager is up")
        return self

    def install(self) -> None:
        """Install the package as a wheel, in an environment of the system's own Python, which the user can read."""
        venv = self.folder / "venv"
        subprocess.run(["/usr/bin/python3", "-m", "venv", venv], check=True)
        pip = [venv / "bin/pip", "install", "-q", "--disable-pip-version-check"]
        wheels = self.folder / "wheels"
        subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", wheels, ROOT], check=True)
        subprocess.run([*pip, *wheels.glob("*.whl")], check=True)

    def root(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self._inside(*words), capture_output=True, text=True, timeout=110)

    def command(self, *words: str, **environ: str) -> list[str]:
        """The command line that runs ``words`` as the user, inside."""
        variables = {
            "HOME": str(self.home),
            "USER": USER,
            "LANG": "C.UTF-8",
            "PATH": f"{self.folder}/venv/bin:/usr/local/bin:/usr/bin:/bin",
            "XDG_RUNTIME_DIR": f"/run/user/{UID}",
            **environ,
        }
        pairs = [f"{name}={value}" for name, value in variables.items()]
        as_user = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--init-groups", "env", "-i", *pairs]
        return self._inside(*as_user, "env", f"--chdir={self.home}", *words)

    def user(self, *words: str, check: bool = True, **environ: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*words, **environ), capture_output=True, text=True, timeout=110, stdin=subprocess.DEVNULL
        )
        assert not check or done.returncode == 0, (words, done.stdout, done.stderr)
        return done

    def _inside(self, *words: str) -> list[str]:
        return ["nsenter", f"--target={self.init}", "--mount", "--pid", "--", *words]

    def end(self, seconds: float = 0) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)  # --kill-child takes process 1 with it, and that all others
        self.process.wait()
        shutil.rmtree(self.folder)
        until(lambda: _without_control_groups(self.folder.name), "its control groups are gone")


def _control_groups(name: str) -> list[Path]:
    """Make groups for process 1 below our own ones; systemd makes those of the controllers itself where it wants."""
    folders = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, what, path = line.split(":", 2)
        if number == "0" or what == "name=systemd":
            mounted = [GROUPS / "unified", GROUPS] if number == "0" else [GROUPS / "systemd"]
            root = next((place for place in mounted if (place / "cgroup.procs").exists()), None)
            if root is not None:
                folders.append(root / path.strip("/") / name)
                folders[-1].mkdir()
    return folders


def _without_control_groups(name: str) -> bool:
    """Remove the groups of that name everywhere; false where a process has not gone yet."""
    for top in {folder.resolve() for pattern in (name, f"*/{name}", f"**/{name}") for folder in GROUPS.glob(pattern)}:
        for folder, _, _ in os.walk(top, topdown=False):
            try:
                Path(folder).rmdir()
            except OSError:
                return False
    return True


UNIT = "taoprofd.service"
PROFILE = 'schema = 1\nlayout = "custom"\n[[mounts]]\nsource = "{folder}"\ndestination = "/workspace/tao-experiments"\n'
CARELESS = "import sys; open(sys.argv[1], 'w')"
"""What a notebook's cell does."""


class Owner:
    """Starts with a home as ``useradd`` made it, and leaves it so."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.home = machine, machine.home
        self.mapping_file = self.home / ".tao_mounts.json"
        self.unit = self.home / ".config/systemd/user" / UNIT
        self.state = self.home / ".local/state/taoprofiles"
        self._before = set(self.home.iterdir())
        self._began = time.time()
        self._started: list[subprocess.Popen[bytes]] = []

    # What she does

    def taoprof(self, *words: str, check: bool = True, **environ: str) -> subprocess.CompletedProcess[str]:
        return self.machine.user("taoprof", *words, check=check, **environ)

    def json(self, *words: str, **environ: str) -> dict[str, Any]:
        return json.loads(self.taoprof(*words, "--json", check=False, **environ).stdout)

    def systemctl(self, *words: str, check: bool = True) -> str:
        return self.machine.user("systemctl", "--user", *words, check=check).stdout

    def write(self, path: Path, text: str) -> Path:
        """Write a file of hers, with the folders that it needs."""
        missing = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for created in (path, *missing):
            os.chown(created, UID, UID)
        return path

    def set(self, *lines: str) -> None:
        """Override settings of the unit."""
        self.write(self.unit.with_name(f"{UNIT}.d") / "test.conf", "\n".join(["[Service]", *lines, ""]))
        self.systemctl("daemon-reload")

    def profiles(self, *names: str) -> None:
        """Write profiles by hand, and activate the first."""
        for name in names:
            folder = self.home / "projects" / name
            self.write(folder / "README", name)
            self.write(self.home / f".config/taoprofiles/profiles/{name}.toml", PROFILE.format(folder=folder))
        self.taoprof("use", names[0])

    def guarded(self) -> Owner:
        self.profiles("a", "b")
        self.taoprof("service", "install")
        return self

    def hold(self, reason: str = "a test") -> str:
        """Hold the mapping file by hand until it is sealed; return the hold."""
        answer = self.json("hold", "--reason", reason)
        assert answer["ok"], answer
        self.until_sealed()
        return answer["data"]["id"]

    def replaces(self, text: str = '{"Mounts": []}') -> None:
        """Write as a careful program does: rename over the file, whatever its mode."""
        script = 'printf %s "$1" >~/fresh && mv -f ~/fresh ~/.tao_mounts.json'
        self.machine.user("sh", "-c", script, "sh", text)

    def starts(self, *words: str) -> LoggedProcess:
        """Start a command of hers in the background."""
        log = self.machine.folder / f"running-{len(self._started)}.log"
        running = LoggedProcess(log, self.machine.command(*words), dict(os.environ))
        self._started.append(running.process)
        return running

    # What is there

    def show(self, *names: str) -> dict[str, str]:
        """Properties of the unit."""
        properties = self.systemctl("show", UNIT, *(f"--property={name}" for name in names))
        return dict(line.split("=", 1) for line in properties.splitlines())

    @property
    def pid(self) -> int:
        return int(self.show("MainPID")["MainPID"])

    def holds(self) -> list[str]:
        return [hold["id"] for hold in self.json("status")["data"]["holds"]]

    def journal(self) -> str:
        """Everything of the unit since the test began."""
        words = (f"--user-unit={UNIT}", f"--since=@{self._began:.6f}", "--no-pager", "--quiet", "--output=cat")
        return self.machine.user("journalctl", *words, check=False).stdout

    # What is waited for

    def until_sealed(self, *, seconds: float = 10) -> None:
        until(lambda: is_sealed(self.mapping_file), "it is sealed", seconds=seconds, details=self.journal)

    def until_unsealed(self, *, seconds: float = 10) -> None:
        until(lambda: not is_sealed(self.mapping_file), "it is not sealed", seconds=seconds, details=self.journal)

    def until_logged(self, text: str) -> None:
        until(lambda: text in self.journal(), f"the journal has '{text}'", details=self.journal)

    def until_another(self, pid: int) -> None:
        """Wait until the service is active with another process than ``pid``."""

        def is_another() -> bool:
            properties = self.show("ActiveState", "MainPID")
            return properties["ActiveState"] == "active" and int(properties["MainPID"]) != pid

        until(is_another, "the service is active again", details=self.journal)

    def end(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()
        try:
            for hold in self.holds():
                self.taoprof("release", hold, "--yes", check=False)
        finally:
            self.systemctl("disable", "--now", UNIT, check=False)
            for path in set(self.home.iterdir()) - self._before:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            self.systemctl("daemon-reload")
            self.systemctl("reset-failed", check=False)
