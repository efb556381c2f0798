"""A real systemd with a real user manager, for an ordinary user who exists nowhere else.

systemd is booted as process 1 of namespaces of its own, over private layers of /etc and /var/lib, so that nothing of
it is left on the machine. Its /tmp is private too: at boot systemd empties it. The user's home is in a folder that has
the same name outside, where the Docker engine finds the sources of mounts.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conftest import command
from tests.engine.engine import SOCKET, until

ROOT = Path(__file__).parents[2]
USER = "ana"
UID = 12345

BOOT = """\
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
if [ -S {socket} ]; then touch /mnt/docker.sock; mount --bind {socket} /mnt/docker.sock; fi
for place in etc var/lib; do
    mkdir -p /mnt/upper/$place /mnt/work/$place
    mount -t overlay overlay -o lowerdir=/$place,upperdir=/mnt/upper/$place,workdir=/mnt/work/$place /$place
done
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /var/tmp
if [ -e /mnt/docker.sock ]; then touch /run/docker.sock; mount --bind /mnt/docker.sock /run/docker.sock; fi
useradd --uid {uid} --home-dir {home} --create-home --shell /bin/bash {user}
# Slow on a machine without a network, and of no use here.
for unit in systemd-networkd-wait-online systemd-timesyncd apt-daily.timer docker.service docker.socket containerd; do
    systemctl mask --quiet $unit 2>/dev/null || true
done
export container=private
exec /lib/systemd/systemd --system --unit=multi-user.target --log-target=null
"""


class Machine:
    """A booted systemd. ``user`` runs commands in it as the ordinary user, ``root`` as root."""

    def __init__(self) -> None:
        command("unshare"), command("nsenter"), command("systemctl"), command("dbus-daemon")
        self.folder = Path(tempfile.mkdtemp(prefix="taoprofiles-systemd-", dir="/srv"))
        self.folder.chmod(0o755)
        self.home = self.folder / "home"
        script = BOOT.format(socket=SOCKET, uid=UID, home=self.home, user=USER)
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
        self.init = int(until(lambda: children.read_text().split(), "systemd is started", told=self.tail)[0])
        states = ("running", "degraded")
        until(lambda: self.root("systemctl", "is-system-running").stdout.strip() in states, "it is up", told=self.tail)
        self.root("loginctl", "enable-linger", USER)
        until(lambda: self.root("test", "-S", f"/run/user/{UID}/bus").returncode == 0, "the user manager is up")
        return self

    def tail(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2000:]

    def install(self, *more: str) -> None:
        """Install the package as a wheel, in an environment of the system's own Python, which the user can read."""
        venv = self.folder / "venv"
        subprocess.run(["/usr/bin/python3", "-m", "venv", venv], check=True)
        pip = [venv / "bin/pip", "install", "-q", "--disable-pip-version-check"]
        wheels = self.folder / "wheels"
        subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", wheels, ROOT], check=True)
        subprocess.run([*pip, *wheels.glob("*.whl"), *more], check=True)

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
        shutil.rmtree(self.folder, ignore_errors=True)
