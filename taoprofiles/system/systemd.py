"""The user's systemd, through systemctl and journalctl, and notifications of a service to it (sd_notify)."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

from taoprofiles.errors import TaoprofError
from taoprofiles.storage.paths import find_account
from taoprofiles.system import processes
from taoprofiles.system.commands import run_bounded

if TYPE_CHECKING:
    from collections.abc import Mapping


LOG_FILE = "~/.taoprofd.log"
"""Where a guard that was started without systemd writes its log, if it was started as the documentation says."""

TIMEOUT = 100.0
"""Seconds that systemctl may take: it waits until a service is ready, and one that stops has 90 s for it."""

SCOPE_TIMEOUT = 5.0
"""Seconds that the user's systemd gets to create a scope (``Manager.enter_scope``)."""


class NoManagerError(TaoprofError):
    """There is no systemd user manager."""

    code = "no-user-manager"


class Manager:
    """The user's manager. Every method raises NoManagerError if there is none, TaoprofError."""

    def __init__(self, environ: Mapping[str, str], timeout: float) -> None:
        self._environ, self._timeout = dict(environ), timeout
        # su and sudo leave it out, and systemctl --user finds its manager by nothing else.
        usual = f"/run/user/{os.getuid()}"
        if not self._environ.get("XDG_RUNTIME_DIR") and os.path.isdir(usual):
            self._environ["XDG_RUNTIME_DIR"] = usual

    def properties(self, unit: str, *names: str) -> dict[str, str]:
        """Return properties of a unit; "" for a property that is not set."""
        output = self.run("show", *(f"--property={name}" for name in names), unit)
        values = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
        return {name: values.get(name, "") for name in names}

    def run(self, *words: str) -> str:
        """Run ``systemctl --user`` with these arguments and return its output."""
        return self._run("systemctl", "--user", *words)

    def journal(self, unit: str, lines: int) -> list[str]:
        """Return the last lines that a unit has logged."""
        output = self._run("journalctl", f"--user-unit={unit}", f"--lines={lines}", "--no-pager", "--quiet")
        return output.splitlines()

    def enter_scope(self, unit: str, description: str) -> None:
        """Put this process into a transient unit of its own; what it starts from then on is there too."""
        properties = ["PIDs", "au", "1", str(os.getpid()), "Description", "s", description]
        properties += ["CollectMode", "s", "inactive-or-failed"]
        name = "org.freedesktop.systemd1"
        words = (name, f"/{name.replace('.', '/')}", f"{name}.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))")
        self._run("busctl", "--user", "call", *words, unit, "fail", "3", *properties, "0")
        end = time.monotonic() + self._timeout
        while not processes.is_in_group(os.getpid(), unit):  # systemd moves it a moment later
            if time.monotonic() > end:
                raise TaoprofError(f"systemd did not move the process into {unit}")
            time.sleep(0.01)

    def _run(self, program: str, *words: str) -> str:
        done = run_bounded([program, *words], self._environ, self._timeout)
        if done.is_missing:
            raise _no_manager(f"there is no {program}")
        if done.status and ("to connect to" in done.err or "not been booted" in done.err):
            raise _no_manager(done.err.strip().splitlines()[0].rstrip("."))
        if done.problem or done.status:
            output = [done.problem] if done.problem else done.err.strip().splitlines() or [f"exit status {done.status}"]
            hint = "'taoprof service logs' may show the reason" if program == "systemctl" else ""
            raise TaoprofError(f"'{program} {' '.join(words)}': {output[0]}", problems=output[1:], hint=hint)
        return done.out


def _no_manager(reason: str) -> NoManagerError:
    return NoManagerError(
        f"there is no systemd user manager here ({reason})",
        hint="to start the guard without systemd, put this into ~/.profile or the container's start script: "
        f"(taoprofd 2>>{LOG_FILE} &)",
    )


def lingers(uid: int) -> bool:
    """Check whether the user's manager keeps running after logout (loginctl(1), enable-linger)."""
    account = find_account(uid)
    return account is not None and os.path.exists(os.path.join("/var/lib/systemd/linger", account[0]))


def is_booted() -> bool:
    """Check whether systemd manages this machine (sd_booted(3))."""
    return os.path.isdir("/run/systemd/system")


def quote_exec_word(word: str) -> str:
    """Return a word quoted for ExecStart= (systemd.service(5), "Command lines")."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if set(escaped) & set(" \t'\"\\;") else escaped


def environment_line(name: str, value: str) -> str:
    """Return the unit's line for an environment variable (systemd.exec(5), "Environment=")."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'Environment="{name}={escaped}"'


class Notifier:
    """Sends messages to the service manager that started this process (sd_notify(3)); without one it does nothing."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        for_us = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = environ.get("WATCHDOG_USEC", "")
        self.watchdog: float | None = int(usec) / 1e6 if for_us and usec.isdigit() and int(usec) else None
        """Seconds within which WATCHDOG=1 must be sent; None if the unit has no watchdog."""
        self.keeps_journal = "JOURNAL_STREAM" in environ
        """Check whether stderr goes to the journal, which reads ``<LEVEL>`` at the start of a line."""

    def notify(self, **variables: str) -> bool:
        """Send variables, for example READY="1"; return False if the manager did not receive them.

        Only READY waits for a manager that is busy, for a second.
        """
        if not self._address:
            return True
        # One line each: a value must not be able to set another variable.
        text = "\n".join(f"{name}={' '.join(value.splitlines())}" for name, value in variables.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
                connection.settimeout(1 if "READY" in variables else 0)
                connection.sendto(text.encode("utf-8", "backslashreplace"), self._address)
            return True
        except OSError:
            return False  # a manager that is busy or gone is no reason to stop the work
