"""The guard as a service of the user's systemd: installed, upgraded, started, stopped and taken away."""

from __future__ import annotations

import functools
import os
import pwd
import sys
from typing import TYPE_CHECKING, Any

from taoprofiles.errors import NotFoundError, TaoprofError
from taoprofiles.guard import guard
from taoprofiles.guard.status import Guards
from taoprofiles.storage import atomic, best_effort, files
from taoprofiles.system import processes
from taoprofiles.system.systemd import PATIENCE, Manager, assigned, quoted
from taoprofiles.version import VERSION

if TYPE_CHECKING:
    from taoprofiles.storage.paths import Context

UNIT = "taoprofd.service"

CARRIED = (
    *("TAOPROF_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"),
    *("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"),
)
"""Variables of the shell that say where things are; the user manager may not have them, so the unit does."""

STEADY = 5
"""Seconds between two tries under a systemd that cannot make them ever rarer."""

_NEWER = {"RestartSteps=": 254, "RestartMaxDelaySec=": 254}
"""Keys that an older systemd would complain about at each start, and since which version they are known."""


class Service:
    """The service of one user. Every method raises NoManagerError where the user has no systemd, TaoprofError."""

    def __init__(self, context: Context, patience: float = PATIENCE) -> None:
        self._context = context
        self._manager = Manager(context.environ, patience)

    @functools.cached_property
    def _folder(self) -> str:
        return self._manager.folder()

    @property
    def path(self) -> str:
        """Where the unit is: where the manager looks for it, whatever the shell's HOME and XDG_CONFIG_HOME are."""
        return os.path.join(self._folder, UNIT)

    def install(self) -> list[str]:
        """Write the unit, and have it started now and at each login; say what was done, nothing where all was so."""
        self._must_not_be_masked(self._state())
        wanted = self.unit().encode()
        there = files.read(self.path, 1 << 20)
        done = []
        if there != wanted:
            files.make_folder(self._folder)
            atomic.replace(self.path, wanted)
            done.append(f"{'written' if there is None else 'upgraded'}: {self._context.short(self.path)}")
            self._manager.tell("daemon-reload")
        state = self._state()
        if state["UnitFileState"] != "enabled":
            self._manager.tell("enable", UNIT)
            done.append("enabled: it starts with each login")
        running = guard.status(self._context) or {}
        if state["ActiveState"] != "active":
            self._manager.tell("restart", UNIT)
            done.append("started")
        elif there != wanted or running.get("version") != VERSION:
            self._manager.tell("restart", UNIT)
            done.append("started anew")
        return done

    def uninstall(self) -> list[str]:
        """Stop the service and take all of it away; say what was done."""
        state = self._state()
        self._must_not_be_masked(state)
        link = os.path.join(self._folder, "default.target.wants", UNIT)
        if state["ActiveState"] == "inactive" and not os.path.lexists(self.path) and not os.path.lexists(link):
            return []
        if state["ActiveState"] != "inactive":
            self._manager.tell("stop", UNIT)
        best_effort.unlink_quietly(link)  # systemctl disable does not, where the unit was removed by hand
        best_effort.unlink_quietly(self.path)
        self._manager.tell("daemon-reload")
        try:
            self._manager.tell("reset-failed", UNIT)
        except TaoprofError:
            pass  # it had not failed
        for folder in (os.path.join(self._folder, "default.target.wants"), self._folder, os.path.dirname(self._folder)):
            best_effort.rmdir_quietly(folder)
        context = self._context
        for folder in (context.holds, context.profiles, context.config):  # which it has made to watch them
            best_effort.rmdir_quietly(folder)
        guard.unseal(self._context)
        Guards(self._context, processes.place()).forget()
        return [f"stopped and taken away: {self._context.short(self.path)}"]

    def start(self) -> None:
        """Start it. Raises NotFoundError where it is not installed."""
        self._must_be_there()
        self._manager.tell("start", UNIT)

    def stop(self) -> None:
        """Stop it, until the next login or ``start``. Raises NotFoundError where it is not installed."""
        self._must_be_there()
        self._manager.tell("stop", UNIT)

    def status(self) -> dict[str, Any]:
        """Tell how it is: installed, enabled, state ("active", "failed", …), pid, restarts, text, version."""
        state = self._state()
        known = guard.status(self._context)
        return {
            "installed": state["LoadState"] == "loaded",
            "enabled": state["UnitFileState"] == "enabled",
            "state": f"{state['ActiveState']} ({state['SubState']})",
            "pid": int(state["MainPID"] or 0) or None,
            "restarts": int(state["NRestarts"] or 0),
            "text": state["StatusText"],
            "unit": state["FragmentPath"] or None,
            "lingers": self.lingers(),
            "guard": known and {key: known.get(key) for key in ("pid", "version", "line", "problem")},
        }

    def logs(self, lines: int) -> list[str]:
        """Give the last lines of its journal."""
        return self._manager.journal(UNIT, lines)

    def lingers(self) -> bool:
        """Whether the user manager goes on when the user has logged out (loginctl(1), enable-linger)."""
        try:
            return os.path.exists(os.path.join("/var/lib/systemd/linger", pwd.getpwuid(self._context.uid).pw_name))
        except KeyError:
            return False

    def unit(self) -> str:
        """Give the text of the unit for this installation and this systemd."""
        with open(os.path.join(os.path.dirname(os.path.dirname(__file__)), UNIT), encoding="utf-8") as file:
            text = file.read()
        # -P: what lies in the home must not take the place of a module. The interpreter's own path, and not that of the
        # taoprofd beside it, is there in every kind of environment: pip, pipx, uv, venv, conda.
        words = [sys.executable, "-P", "-m", "taoprofiles", "daemon"]
        if set(sys.executable) & set("$'\"\\"):  # systemd starts no program with such a name, and a shell does
            words = ["/bin/sh", "-c", 'exec "$0" "$@"', *words]
        command = " ".join(quoted(word) for word in words)
        environ = self._context.environ
        carried = {name: environ[name] for name in CARRIED if environ.get(name)}
        if environ.get("HOME") and environ["HOME"] != pwd.getpwuid(self._context.uid).pw_dir:
            carried["HOME"] = environ["HOME"]
        lines = [assigned(name, value) for name, value in carried.items()]
        version = self._manager.version()
        older = tuple(key for key, since in _NEWER.items() if version < since)
        text = text.replace("@TAOPROFD@", command).replace("@ENVIRONMENT@\n", "".join(f"{line}\n" for line in lines))
        if older:
            text = text.replace("RestartSec=1\n", f"RestartSec={STEADY}\n")
        return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(older))

    def _state(self) -> dict[str, str]:
        names = ("LoadState", "ActiveState", "SubState", "UnitFileState", "MainPID", "NRestarts", "StatusText")
        return self._manager.properties(UNIT, *names, "FragmentPath")

    def _must_not_be_masked(self, state: dict[str, str]) -> None:
        if state["LoadState"] == "masked":
            raise TaoprofError("the service is masked", hint=f"'systemctl --user unmask {UNIT}', then once more")

    def _must_be_there(self) -> None:
        if self._state()["LoadState"] != "loaded":
            raise NotFoundError("the service is not installed", hint="'taoprof service install'")
