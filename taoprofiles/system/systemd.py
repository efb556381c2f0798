"""The user's own systemd: asked and told by systemctl and journalctl, as a person would."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

from taoprofiles.errors import TaoprofError

if TYPE_CHECKING:
    from collections.abc import Mapping


PATIENCE = 100.0
"""Seconds that systemctl may take: it waits until a service is ready, and one that stops has 90 s for it."""


class NoManagerError(TaoprofError):
    """There is no systemd manager of the user here."""

    code = "no-user-manager"


class Manager:
    """The user manager of this user. Every method raises NoManagerError where there is none, TaoprofError."""

    def __init__(self, environ: Mapping[str, str], patience: float = PATIENCE) -> None:
        self._environ, self._patience = dict(environ), patience
        # su and sudo leave it out, and systemctl --user finds its manager by nothing else.
        usual = f"/run/user/{os.getuid()}"
        if not self._environ.get("XDG_RUNTIME_DIR") and os.path.isdir(usual):
            self._environ["XDG_RUNTIME_DIR"] = usual

    def version(self) -> int:
        """Give the version, such as 252."""
        words = self.properties("", "Version")["Version"].split(".")
        digits = "".join(c for c in words[0] if c.isdigit())
        return int(digits) if digits else 0

    def properties(self, unit: str, *names: str) -> dict[str, str]:
        """Give properties of a unit, or with "" of the manager itself; "" for one that is not set."""
        asked = [f"--property={name}" for name in names]
        said = self.tell("show", *asked, *([unit] if unit else []))
        found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        return {name: found.get(name, "") for name in names}

    def folder(self) -> str:
        """Give the folder where it looks for units that the user has written."""
        manager = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
        said = self._run("busctl", "--user", "--json=short", "get-property", *manager, "UnitPath")
        folders: list[str] = json.loads(said)["data"]
        runtime = self._environ.get("XDG_RUNTIME_DIR", "/run")
        for folder in folders:
            if os.path.basename(folder) == "user" and os.path.commonpath((folder, runtime)) != runtime:
                return folder
        raise TaoprofError("the systemd user manager knows no folder for units of the user")

    def tell(self, *words: str) -> str:
        """Run ``systemctl --user`` with these words, and give what it answers."""
        return self._run("systemctl", "--user", *words)

    def journal(self, unit: str, lines: int) -> list[str]:
        """Give the last lines that a unit has written."""
        said = self._run("journalctl", f"--user-unit={unit}", f"--lines={lines}", "--no-pager", "--quiet")
        return said.splitlines()

    def _run(self, program: str, *words: str) -> str:
        try:
            done = subprocess.run(  # noqa: S603
                [program, *words],
                env=self._environ,
                capture_output=True,
                text=True,
                timeout=self._patience,
                check=False,
            )
        except FileNotFoundError:
            raise _no_manager(f"there is no {program}") from None
        except subprocess.TimeoutExpired:
            raise TaoprofError(
                f"'{program} {' '.join(words)}' has not come to an end in {self._patience:g} s"
            ) from None
        if done.returncode and ("to connect to" in done.stderr or "not been booted" in done.stderr):
            raise _no_manager(done.stderr.strip().splitlines()[0].rstrip("."))
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise TaoprofError(
                f"'{program} {' '.join(words)}': {said[0]}",
                problems=said[1:],
                hint=_HINTS[program],
            )
        return done.stdout


def _no_manager(reason: str) -> NoManagerError:
    return NoManagerError(
        f"there is no systemd user manager here ({reason})",
        hint="without one, '(taoprofd 2>>~/.taoprofd.log &)' starts the guard, from ~/.profile or a container's start: "
        "where one is at work already, a second ends at once",
    )


_HINTS = {
    "systemctl": "'taoprof service logs' may tell more",
    "journalctl": "'systemctl --user status taoprofd' has the last lines; journald's Storage=persistent keeps them",
    "busctl": "'systemctl --user status' tells how the user manager is",
}


def quoted(word: str) -> str:
    """Write a word of ExecStart= so that systemd takes it as it is (systemd.service(5), "Command lines")."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if set(escaped) & set(" \t'\"\\;") else escaped


def assigned(name: str, value: str) -> str:
    """Write a line that gives the service an environment variable (systemd.exec(5), "Environment=")."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'Environment="{name}={escaped}"'
