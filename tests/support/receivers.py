"""Those who are told when a run ends: a web server and a mail server of the tests, and a desktop's side of the bus."""

from __future__ import annotations

import email
import email.policy
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller


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
        (programs / "busctl").write_text(BUSCTL.format(place=self.place))
        (programs / "busctl").chmod(0o755)
        self.environ = {"DBUS_SESSION_BUS_ADDRESS": f"unix:path={self.place}"}

    @property
    def shown(self) -> list[tuple[str, str]]:
        """The titles and bodies."""
        calls = self.place.read_text().split("\0\n")[:-1] if self.place.exists() else []
        return [tuple(call.split("\0")[-5:-3]) for call in calls]  # type: ignore[misc]
