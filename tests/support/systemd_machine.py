"""A real systemd with a real user manager, for an ordinary user who exists nowhere else.

systemd is booted as process 1 of namespaces of its own, over private layers of /etc and /var, with devices and control
groups of its own, so that nothing of it is left on the machine, nor touches a systemd that the machine may have. Its
/tmp is private too: at boot systemd empties it. The user's home is in a folder that has the same name outside.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.engine import until
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


class Machine:
    """A booted systemd. ``user`` runs commands in it as the ordinary user, ``root`` as root."""

    def __init__(self) -> None:
        find_command("unshare"), find_command("nsenter"), find_command("systemctl"), find_command("dbus-daemon")
        self.folder = Path(tempfile.mkdtemp(prefix="taoprofiles-systemd-", dir="/srv"))
        self.folder.chmod(0o755)
        self.home = self.folder / "home"
        groups = " ".join(map(str, _control_groups(self.folder.name)))
        script = BOOT.format(uid=UID, home=self.home, user=USER, target=TARGET, groups=groups)
        self._log = (self.folder / "log").open("wb")
        self._process = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--mount", "--mount-proc", "--kill-child", "bash", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            env={"PATH": os.environ["PATH"]},
        )
        self.init = 0

    def boot(self) -> Machine:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        self.init = int(until(lambda: children.read_text().split(), "systemd is started", details=self.tail)[0])
        states = ("running", "degraded")
        until(
            lambda: self.root("systemctl", "is-system-running").stdout.strip() in states, "it is up", details=self.tail
        )
        self.root("loginctl", "enable-linger", USER)
        until(lambda: self.root("test", "-S", f"/run/user/{UID}/bus").returncode == 0, "the user manager is up")
        return self

    def tail(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2000:]

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
        given = {
            "HOME": str(self.home),
            "USER": USER,
            "LANG": "C.UTF-8",
            "PATH": f"{self.folder}/venv/bin:/usr/local/bin:/usr/bin:/bin",
            "XDG_RUNTIME_DIR": f"/run/user/{UID}",
            **environ,
        }
        pairs = [f"{name}={value}" for name, value in given.items()]
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

    def end(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)  # --kill-child takes process 1 with it, and that all others
        self._process.wait()
        self._log.close()
        shutil.rmtree(self.folder)
        until(lambda: _without_control_groups(self.folder.name), "its control groups are gone")


def _control_groups(name: str) -> list[Path]:
    """Make groups for process 1 below our own ones; systemd makes those of the controllers itself where it wants."""
    made = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, what, path = line.split(":", 2)
        if number == "0" or what == "name=systemd":
            mounted = [GROUPS / "unified", GROUPS] if number == "0" else [GROUPS / "systemd"]
            root = next((place for place in mounted if (place / "cgroup.procs").exists()), None)
            if root is not None:
                made.append(root / path.strip("/") / name)
                made[-1].mkdir()
    return made


def _without_control_groups(name: str) -> bool:
    """Remove the groups of that name everywhere; false where a process has not gone yet."""
    for top in {found.resolve() for pattern in (name, f"*/{name}", f"**/{name}") for found in GROUPS.glob(pattern)}:
        for folder, _, _ in os.walk(top, topdown=False):
            try:
                Path(folder).rmdir()
            except OSError:
                return False
    return True
