"""Notifications on the user's desktop: one call of the D-Bus interface org.freedesktop.Notifications."""

from __future__ import annotations

import html
import os
import shutil
from typing import TYPE_CHECKING

from taoprofiles.system.commands import run_bounded

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT = 10.0
"""Seconds that the desktop gets to accept a notification."""

_NAME = "org.freedesktop.Notifications"
_NO_SERVER = ("ServiceUnknown", "was not provided by any", "not activatable", "Could not activate remote peer")
"""Parts of the errors that mean that no notification server is on the bus: the D-Bus error name, and the texts of
dbus-daemon, dbus-broker and sd-bus."""


def session_bus(environ: Mapping[str, str]) -> str:
    """Return the address of the user's session bus, "" if there is none.

    It is the one of systemd's user manager where the environment names none, as in an ssh session or after su.
    """
    if environ.get("DBUS_SESSION_BUS_ADDRESS"):
        return environ["DBUS_SESSION_BUS_ADDRESS"]
    path = os.path.join(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}", "bus")
    return f"unix:path={path}" if os.path.exists(path) else ""


def notify(environ: Mapping[str, str], title: str, body: str) -> str:
    """Show a notification; return why that failed, "" if it did not or there is no desktop session to show it in."""
    address = session_bus(environ)
    if not address:
        return ""
    environ = {**environ, "DBUS_SESSION_BUS_ADDRESS": address}
    body = html.escape(body, quote=False)  # it may have markup
    if shutil.which("busctl", path=environ.get("PATH")):
        call = (_NAME, f"/{_NAME.replace('.', '/')}", _NAME, "Notify", "susssasa{sv}i")
        words = ["busctl", "--user", "--", "call", *call, "taoprofiles", "0", "", title, body, "0", "0", "-1"]
    elif shutil.which("notify-send", path=environ.get("PATH")):
        words = ["notify-send", "--app-name=taoprofiles", "--", title, body.replace("\\", "\\\\")]
    else:
        return "neither busctl nor notify-send is installed"
    done = run_bounded(words, environ, TIMEOUT)
    if done.status == 0 or any(text in done.err for text in _NO_SERVER):
        return ""
    return done.problem or (done.err.strip().splitlines() or [f"exit status {done.status}"])[-1]
