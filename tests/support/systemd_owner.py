"""The person whose home is guarded by a real service: her commands, her unit as systemd sees it, and her journal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.support.engine import until
from tests.support.guard_process import is_sealed
from tests.support.systemd_machine import UID, Machine

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
        for made in (path, *missing):
            os.chown(made, UID, UID)
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
        made = self.json("hold", "--reason", reason)
        assert made["ok"], made
        self.until_sealed()
        return made["data"]["id"]

    def replaces(self, text: str = '{"Mounts": []}') -> None:
        """Write as a careful program does: rename over the file, whatever its mode."""
        script = 'printf %s "$1" >~/fresh && mv -f ~/fresh ~/.tao_mounts.json'
        self.machine.user("sh", "-c", script, "sh", text)

    def starts(self, *words: str) -> Running:
        running = Running(self, words, len(self._started))
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

    def tree(self) -> dict[str, tuple[int, bytes | str | None]]:
        """Everything in the home: mode, and content or target."""
        found: dict[str, tuple[int, bytes | str | None]] = {}
        for path in sorted(self.home.rglob("*")):
            content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
            found[str(path.relative_to(self.home))] = (path.lstat().st_mode, content)
        return found

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


class Running:
    """A command of hers in the background, with what it says."""

    def __init__(self, owner: Owner, words: tuple[str, ...], number: int) -> None:
        self._log = owner.machine.folder / f"running-{number}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                owner.machine.command(*words), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def until_logged(self, text: str) -> None:
        def has_said() -> bool:
            assert self.process.poll() is None or text in self.output, self.output
            return text in self.output

        until(has_said, f"it says '{text}'", details=lambda: self.output)
