"""A Slurm of one node with two GPUs by name, started by hand in one folder and ended by its processes' ids.

Debian's slurmctld, slurmd, srun and munged; no cgroups, no pyxis (Debian has none).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from tests.support.engine import LoggedProcess, until
from tests.support.home import find_command, write_program

CONFIG = """\
ClusterName=taoprofiles
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
ReturnToService=2
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 Gres=gpu:2 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=10 State=UP
"""


PYXIS = """#!/bin/bash
# In place of pyxis: says which of its options srun was given, and starts the task without a container.
kept=()
while [[ $1 == --* ]]; do
    case $1 in
        --container-* | --no-container-*) echo "pyxis: $1" ;;
        *) kept+=("$1") ;;
    esac
    shift
done
exec SRUN "${kept[@]}" "$@"
"""


class Cluster:
    """``folder`` has all of it; ``environ`` is what srun needs, with the stand-in for pyxis first on PATH."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="taoprofiles-slurm-"))  # short: a socket's path has 107 bytes
        self._processes: list[LoggedProcess] = []
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        config = self.folder / "slurm.conf"
        config.write_text(CONFIG.format(host=os.uname().nodename, folder=self.folder, ports=_free_ports(2)))
        for number in range(2):
            (self.folder / f"gpu{number}").touch()
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpu[0-1]\n")
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        srun = write_program(self.folder / "bin/srun", PYXIS.replace("SRUN", find_command("srun")))
        self.environ = {"PATH": f"{srun.parent}:{os.environ['PATH']}", "SLURM_CONF": str(config), "LANG": "C.UTF-8"}

    def start(self) -> None:
        """Start the three daemons, and wait until the node takes jobs."""
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        place = self.folder
        place.chmod(0o755)
        files = [f"--{name}-file={place}/munged.{name}" for name in ("pid", "log", "seed")]
        self._start("munged", "--foreground", "--force", f"--socket={place}/munge.socket", f"--key-file={key}", *files)
        until(lambda: (place / "munge.socket").exists(), "munged answers", details=self.tail)
        self._start("slurmctld", "-D")
        self._start("slurmd", "-D", "-N", os.uname().nodename)
        until(lambda: self._sinfo() == "idle", "the node is idle", seconds=60, details=self.tail)

    def end(self) -> None:
        for process in reversed(self._processes):
            process.end()
        shutil.rmtree(self.folder)

    def tail(self) -> str:
        logs = [f"{log.name}:\n" + log.read_text(errors="replace")[-1500:] for log in self.folder.glob("*.log")]
        return "\n".join(logs)

    def _start(self, name: str, *options: str) -> None:
        log = self.folder / f"{name}.out.log"
        self._processes.append(LoggedProcess(log, [find_command(name), *options], self.environ, self.folder))

    def _sinfo(self) -> str:
        done = subprocess.run(
            [find_command("sinfo"), "--noheader", "--format=%T"],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.stdout.strip()


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()
