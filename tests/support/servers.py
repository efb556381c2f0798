"""Servers of the tests: one that shows a folder, and those that get notifications, by web, by mail or on a desktop."""

from __future__ import annotations

import ctypes
import email
import email.policy
import functools
import http.server
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller

from tests.support.engine import until
from tests.support.home import write_program


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Do not log."""


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Yield the address, without a slash at the end, under which the folder is served."""
    handler = functools.partial(_QuietHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class WebReceiver:
    """A web server on this machine that keeps what is posted to it; ``url`` is for Apprise.

    It answers with ``status``, and not before ``may_answer`` is set.
    """

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.status = 200
        self.may_answer = threading.Event()
        self.may_answer.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if receiver.status == 200:
                    receiver.messages.append(json.loads(body))
                receiver.may_answer.wait(60)
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Write no log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"json://127.0.0.1:{self._server.server_port}/hooks/abcdefgh"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> WebReceiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def about(self, run: str) -> list[dict[str, Any]]:
        """Return the messages about a run."""
        return [message for message in self.messages if message["message"].startswith(f"run {run} ")]


class MailReceiver:
    """A mail server on this machine that keeps what it is sent; ``url`` is for Apprise."""

    def __init__(self) -> None:
        self.mails: list[email.message.EmailMessage] = []
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._controller = Controller(self, hostname="127.0.0.1", port=port)
        self._controller.start()
        self.url = f"mailto://127.0.0.1:{port}?from=tao@example.org&to=ana@example.org&mode=insecure"

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:
        self.mails.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        return "250 OK"

    def __enter__(self) -> MailReceiver:
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()


BUSCTL = """\
#!/bin/sh
case "$*" in *Notify*) ;; *) echo "Failed to connect to bus" >&2; exit 1 ;; esac
[ -e "{place}.fails" ] && {{ cat "{place}.fails" >&2; exit 1; }}
for word; do printf '%s\\0' "$word"; done >>"{place}"
printf '\\n' >>"{place}"
"""


class Desktop:
    """A desktop session, played by a ``busctl`` that keeps the calls."""

    def __init__(self, programs: Path) -> None:
        self.place = programs.parent / "desktop"
        write_program(programs / "busctl", BUSCTL.format(place=self.place))
        self.environ = {"DBUS_SESSION_BUS_ADDRESS": f"unix:path={self.place}"}

    @property
    def shown(self) -> list[tuple[str, str]]:
        """The titles and bodies."""
        calls = self.place.read_text().split("\0\n")[:-1] if self.place.exists() else []
        return [tuple(call.split("\0")[-5:-3]) for call in calls]  # type: ignore[misc]


BUS = """\
<busconfig><type>session</type><listen>{address}</listen>
<policy context="default"><allow send_destination="*"/><allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>
"""
"""As a session's, without the services that this machine may have, such as one that shows notifications."""


class SessionBus:
    """A session bus of dbus-daemon in a folder."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix:path={folder}/bus"
        (folder / "bus.conf").write_text(BUS.format(address=self.address))
        words = ["dbus-daemon", f"--config-file={folder}/bus.conf", "--nofork"]
        self._daemon = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        until((folder / "bus").exists, "the bus is there")

    def __enter__(self) -> SessionBus:
        return self

    def __exit__(self, *_: object) -> None:
        self._daemon.kill()
        self._daemon.wait()


class NotificationServer:
    """A desktop's notification server on a session bus (by sd-bus), which keeps what it is to show.

    With ``error``, it answers with a D-Bus error of that name.
    """

    NAME = "org.freedesktop.Notifications"

    def __init__(self, address: str) -> None:
        self.shown: list[tuple[str, ...]] = []
        """The application, the icon, the title and the body of each."""
        self.error = ""
        self._sd = ctypes.CDLL("libsystemd.so.0")
        self._bus = ctypes.c_void_p()
        self._call("new", ctypes.byref(self._bus))
        self._call("set_address", self._bus, address.encode())
        self._call("set_bus_client", self._bus, 1)
        self._call("start", self._bus)
        self._call("request_name", self._bus, self.NAME.encode(), ctypes.c_uint64(0))
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def __enter__(self) -> NotificationServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._sd.sd_bus_flush_close_unref(self._bus)

    def _call(self, name: str, *arguments: Any) -> int:
        result = int(getattr(self._sd, f"sd_bus_{name}")(*arguments))
        if result < 0:
            raise OSError(-result, f"sd_bus_{name}: {os.strerror(-result)}")
        return result

    def _serve(self) -> None:
        while not self._is_over.is_set():
            message = ctypes.c_void_p()
            if not self._call("process", self._bus, ctypes.byref(message)):
                self._call("wait", self._bus, ctypes.c_uint64(20_000))
            elif self._is_call(message, b"Notify"):
                self._show(message)
            elif self._is_call(message, b"GetServerInformation"):  # notify-send asks for the version of the interface
                self._call("reply_method_return", message, b"ssss", b"of the tests", b"", b"", b"1.2")

    def _is_call(self, message: ctypes.c_void_p, member: bytes) -> bool:
        return bool(message and self._call("message_is_method_call", message, self.NAME.encode(), member))

    def _show(self, message: ctypes.c_void_p) -> None:
        texts, number = [ctypes.c_char_p() for _ in range(4)], ctypes.c_uint32()
        pointers = list(map(ctypes.byref, texts))
        self._call("message_read", message, b"susss", pointers[0], ctypes.byref(number), *pointers[1:])
        if self.error:
            self._call("reply_method_errorf", message, self.error.encode(), b"it is broken")
            return
        self.shown.append(tuple((text.value or b"").decode() for text in texts))
        self._call("reply_method_return", message, b"u", ctypes.c_uint32(len(self.shown)))
