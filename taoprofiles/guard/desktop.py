"""Notices on the desktop, by the service that most desktops have on the session's bus."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SHOWN = -1
"""Milliseconds that a notice stays: as long as the desktop likes."""


def notice(title: str, text: str, environ: Mapping[str, str]) -> subprocess.Popen[bytes] | None:
    """Show a notice, and give the process that does so; it is not waited for. None where there is no session's bus.

    The call is ``Notify`` of org.freedesktop.Notifications (Desktop Notifications Specification 1.2), made by systemd's
    busctl. Where no such service is on the bus, the call fails and nothing is shown.
    """
    bus = environ.get("DBUS_SESSION_BUS_ADDRESS") or os.path.join(environ.get("XDG_RUNTIME_DIR", "/nowhere"), "bus")
    if bus.startswith("/") and not os.path.exists(bus):
        return None
    service = ["org.freedesktop.Notifications", "/org/freedesktop/Notifications", "org.freedesktop.Notifications"]
    text = text.replace("&", "&amp;").replace("<", "&lt;")  # the body may have markup
    arguments = ["susssasa{sv}i", "taoprofiles", "0", "", title, text, "0", "0", "--", str(SHOWN)]
    try:
        return subprocess.Popen(  # noqa: S603
            ["busctl", "--user", "--timeout=5", "call", *service, "Notify", *arguments],  # noqa: S607
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return None
