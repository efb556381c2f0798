"""The guard as a systemd user service: install, upgrade, start, stop and remove it."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import deque
from contextlib import suppress
from typing import Any

from taoprofiles import VERSION, find_commit
from taoprofiles.errors import NotFoundError, TaoprofError
from taoprofiles.storage import atomic, files
from taoprofiles.storage.paths import Context, find_account
from taoprofiles.switching import guard_files
from taoprofiles.system import systemd
from taoprofiles.system.systemd import LOG_FILE, TIMEOUT, Manager, NoManagerError, environment_line, quote_exec_word

UNIT = "taoprofd.service"

FORWARDED_VARIABLES = (
    *("TAOPROF_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"),
    *("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_TLS", "DOCKER_CERT_PATH"),
)
"""Variables that locate files and the engine. The unit sets them, since the user manager may have other values."""

_UNIT_LIMIT = 1 << 20


def add_options(parser: argparse._ActionsContainer) -> None:
    """Add the options of the guard, None if they are not given."""
    help_text = "make the mapping file read-only while it is in use (default: yes)"
    parser.add_argument("--seal", action=argparse.BooleanOptionalAction, help=help_text)
    help_text = "revert at most N overwrites a minute while the file is in use (0: only report; default: 5)"
    parser.add_argument("--restores", type=_restores, metavar="N", help=help_text)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of ``taoprofd``."""
    parser = argparse.ArgumentParser("taoprofd", description="Run the guard of ~/.tao_mounts.json in the foreground.")
    add_options(parser)
    help_text = "make the file writable again after a guard was killed, then exit"
    parser.add_argument("--unseal", action="store_true", help=help_text)
    parser.add_argument("--version", action="version", version=VERSION, help="print the version and exit")
    return parser


def _restores(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 100_000:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 to 100000")
    return int(text)


class Service:
    """The service of one user. Every method raises NoManagerError if the user has no systemd, and TaoprofError."""

    def __init__(self, context: Context, timeout: float = TIMEOUT) -> None:
        self._context = context
        self._manager = Manager(context.environ, timeout)
        account = find_account(context.uid)
        self._home = account[2] if account else context.home
        # Where the user manager looks for units: it has neither the shell's HOME nor its XDG_CONFIG_HOME.
        self._folder = os.path.join(self._home, ".config/systemd/user")
        self.path = os.path.join(self._folder, UNIT)

    def install(self, *, seal: bool | None = None, restores: int | None = None) -> list[str]:
        """Write the unit, start it and enable it; return what was done, nothing if it was up to date.

        ``seal`` and ``restores`` are the options of ``taoprofd``; None keeps what the installed unit has.
        """
        self._check_not_masked(self._state())
        wanted = self.unit(seal=seal, restores=restores).encode()
        installed = files.read(self.path, _UNIT_LIMIT)
        done = []
        if installed != wanted:
            files.make_folder(self._folder)
            atomic.replace(self.path, wanted)
            done.append(f"{'written' if installed is None else 'updated'}: {self._context.short(self.path)}")
            self._manager.run("daemon-reload")
        state = self._state()
        if state["UnitFileState"] != "enabled":
            self._manager.run("enable", UNIT)
            done.append("enabled: it starts at each login")
        running = guard_files.read_status(self._context) or {}
        if state["ActiveState"] != "active":
            self._manager.run("restart", UNIT)
            done.append("started")
        elif installed != wanted or (running.get("version"), running.get("commit")) != (VERSION, find_commit()):
            self._manager.run("restart", UNIT)
            done.append("restarted")
        return done

    def uninstall(self) -> list[str]:
        """Stop the service and remove all its files; return what was done."""
        state = self._state()
        self._check_not_masked(state)
        link = os.path.join(self._folder, "default.target.wants", UNIT)
        if state["ActiveState"] == "inactive" and not files.exists(self.path) and not files.exists(link):
            return []
        if state["ActiveState"] != "inactive":
            self._manager.run("stop", UNIT)
        files.remove_all([link, self.path])  # 'systemctl disable' does not remove the link of a unit that is gone
        self._manager.run("daemon-reload")
        with suppress(TaoprofError):  # it had not failed
            self._manager.run("reset-failed", UNIT)
        for folder in (os.path.dirname(link), self._folder, os.path.dirname(self._folder)):
            files.rmdir_quietly(folder)
        context = self._context
        files.rmdir_quietly(context.holds)  # created by the guard to watch it
        guard_files.unseal(context)
        guard_files.GuardFiles(context).delete()
        return [f"service stopped and removed: {context.short(self.path)}"]

    def is_installed(self) -> bool:
        """Check whether there is a unit, and it is that of this HOME: the user has only one, in the real home."""
        text = (files.read(self.path, _UNIT_LIMIT) or b"").decode(errors="replace")
        homes = {environment_line(*item) for item in self._variables().items() if item[0] in ("HOME", "TAOPROF_HOME")}
        return bool(text) and set(re.findall(r'^Environment="(?:TAOPROF_)?HOME=.*', text, re.M)) == homes

    def control(self, verb: str) -> None:
        """Start or stop it; a stopped one starts at the next login. Raises NotFoundError if it is not installed."""
        if self._state()["LoadState"] != "loaded":
            raise NotFoundError("the service is not installed", hint="taoprof service install")
        self._manager.run(verb, UNIT)

    def status(self) -> dict[str, Any]:
        """Return its status: installed, enabled, state ("active", "failed", …), pid, restarts, text, version."""
        state = self._state()
        guard = guard_files.read_status(self._context)
        return {
            "installed": state["LoadState"] == "loaded",
            "enabled": state["UnitFileState"] == "enabled",
            "state": f"{state['ActiveState']} ({state['SubState']})",
            "pid": int(state["MainPID"] or 0) or None,
            "restarts": int(state["NRestarts"] or 0),
            "text": state["StatusText"] if state["ActiveState"] == "active" else "",  # systemd keeps the last one
            "unit": state["FragmentPath"] or None,
            "lingers": systemd.lingers(self._context.uid),
            "guard": guard and {key: guard.get(key) for key in ("pid", "version", "line", "problem")},
        }

    def logs(self, lines: int) -> list[str]:
        """Return the last lines of its journal; without any, those of the file for a guard without systemd."""
        try:
            journal = self._manager.journal(UNIT, lines)
        except NoManagerError:
            journal = []
        path = os.path.join(self._context.home, os.path.basename(LOG_FILE))
        if journal or not os.path.isfile(path):
            return journal
        with open(path, encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, lines)]

    def unit(self, *, seal: bool | None = None, restores: int | None = None) -> str:
        """Return the text of the unit for this installation and this systemd; see ``install`` for the options."""
        with open(os.path.join(os.path.dirname(os.path.dirname(__file__)), UNIT), encoding="utf-8") as file:
            text = file.read()
        # -P: files in the home must not replace modules. The interpreter's path, unlike the taoprofd script's, exists
        # in every kind of environment: pip, pipx, uv, venv, conda.
        command = " ".join(quote_exec_word(word) for word in (sys.executable, "-P", "-m", "taoprofiles.guard.daemon"))
        lines = "".join(f"{environment_line(name, value)}\n" for name, value in self._variables().items())
        text = text.replace("@TAOPROFD@", command).replace("@ENVIRONMENT@\n", lines)
        return text.replace("@OPTIONS@", self._options(seal, restores))

    def _variables(self) -> dict[str, str]:
        environ = self._context.environ
        variables = {name: environ[name] for name in FORWARDED_VARIABLES if environ.get(name)}
        if environ.get("HOME") and environ["HOME"] != self._home:
            variables["HOME"] = environ["HOME"]
        return variables

    def _options(self, seal: bool | None, restores: int | None) -> str:
        """Return the options for ExecStart=, each with a blank before it; None: as in the installed unit."""
        installed = (files.read(self.path, _UNIT_LIMIT) or b"").decode(errors="replace")
        words = (re.search(r"^ExecStart=.*?((?: --[\w=-]+)*)$", installed, re.M) or [""] * 2)[1].split()
        if seal is not None:
            words = [word for word in words if word != "--no-seal"] + ([] if seal else ["--no-seal"])
        if restores is not None:
            words = [word for word in words if not word.startswith("--restores=")] + [f"--restores={restores}"]
        return "".join(f" {word}" for word in sorted(words) if re.fullmatch(r"--no-seal|--restores=\d+", word))

    def _state(self) -> dict[str, str]:
        names = ("LoadState", "ActiveState", "SubState", "UnitFileState", "MainPID", "NRestarts", "StatusText")
        return self._manager.properties(UNIT, *names, "FragmentPath")

    def _check_not_masked(self, state: dict[str, str]) -> None:
        if state["LoadState"] == "masked":
            raise TaoprofError("the service is masked", hint=f"systemctl --user unmask {UNIT}")
