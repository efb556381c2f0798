"""A real IPython kernel without a browser, as a notebook server would start it: for all that is about its life."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import signal
import time
from collections.abc import Callable
from html import unescape
from pathlib import Path
from queue import Empty
from typing import Any

from tests.support.engine import until
from tests.support.home import Home, require
from tests.support.jupyterlab import kernel_path

LOAD = "%load_ext taoprofiles"
NUMBERS = itertools.count()
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
ENVIRON = "import json, os; print(json.dumps(dict(os.environ)))"


class Execution:
    """One cell that was given to a kernel, and what has come of it so far."""

    def __init__(self, client: Any, code: str) -> None:
        self._client = client
        self._id = client.execute(code, allow_stdin=True)  # as a front end does, where a person may answer
        self.text = ""
        """Streams and plain texts, one after the other."""
        self.html: list[str] = []
        self.bundles: list[dict[str, Any]] = []
        """What it has displayed, by MIME type."""
        self.traceback = ""
        self.done = False
        self.failed = False
        """Whether "Run All" stops here: IPython prints some errors (UsageError) as text, and fails all the same."""

    @property
    def output(self) -> str:
        """All that a person reads: the texts, and those in the HTML."""
        return "\n".join([self.text, self.traceback, *(unescape(re.sub(r"<[^>]+>", " ", html)) for html in self.html)])

    def until(self, text: str, *, seconds: float = 30) -> Execution:
        """Wait until it has printed a text."""
        return self._follow(lambda: text in self.output, f"it says '{text}'", seconds)

    def finish(self, *, seconds: float = 30) -> Execution:
        """Wait until it is done, with all of its output there."""
        self._follow(lambda: self.done, "the cell is done", seconds)
        reply = self._client.get_shell_msg(timeout=seconds)
        while reply["parent_header"].get("msg_id") != self._id:
            reply = self._client.get_shell_msg(timeout=seconds)
        self.failed = reply["content"]["status"] != "ok"
        return self

    def _follow(self, is_over: Callable[[], bool], what: str, seconds: float) -> Execution:
        end = time.monotonic() + seconds
        while not is_over():
            assert time.monotonic() < end, f"not within {seconds} s: {what}\n{self.output}"
            assert not self.done, f"done without: {what}\n{self.output}"
            try:
                message = self._client.get_iopub_msg(timeout=0.2)
            except Empty:
                assert self._client.is_alive(), f"the kernel died before: {what}\n{self.output}"
                continue
            if message["parent_header"].get("msg_id") == self._id:
                self._take(message["msg_type"], message["content"])
        return self

    def _take(self, kind: str, content: dict[str, Any]) -> None:
        if kind == "stream":
            self.text += COLOURS.sub("", content["text"])
        elif kind in ("display_data", "execute_result", "update_display_data"):
            self.bundles.append(content["data"])
            if "text/html" in content["data"]:
                self.html.append(content["data"]["text/html"])
            if "text/plain" in content["data"]:
                self.text += COLOURS.sub("", content["data"]["text/plain"]) + "\n"
        elif kind == "error":
            self.traceback = COLOURS.sub("", "\n".join(content["traceback"]))
        elif kind == "status":
            self.done = content["execution_state"] == "idle"


class Kernel:
    """``with Kernel(home) as kernel: …`` has a kernel at work in the home; it is shut down, or killed, at the end.

    ``notebook`` is what a server tells its kernel to be the notebook's path, ``name`` the kernel: this Python's own, or
    one that is installed for the home's owner.
    """

    def __init__(
        self, home: Home, *, notebook: str = "", environ: dict[str, str] | None = None, name: str = "python3"
    ) -> None:
        for package in ("ipykernel", "jupyter_client"):
            require(importlib.util.find_spec(package), f"{package} is not installed")
        from jupyter_client.kernelspec import KernelSpecManager
        from jupyter_client.manager import KernelManager

        self.home = home
        session = {"JPY_SESSION_NAME": str(home.root / notebook)} if notebook else {}
        self.environ = {**home.environ, "PATH": kernel_path(), **session, **(environ or {})}
        runtime = home.root / ".local/share/jupyter/runtime"
        runtime.mkdir(parents=True, exist_ok=True)
        self._manager = KernelManager(
            connection_file=str(runtime / f"kernel-{next(NUMBERS)}.json"),
            kernel_name=name,
            # Whatever other kernels the person who runs the tests has registered.
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(home.root / ".local/share/jupyter/kernels")]),
        )
        # Open for all its life: a restart uses it once more.
        self._log = (home.root.parent / f"{Path(self._manager.connection_file).stem}.log").open("ab")
        self._client: Any = None

    def __enter__(self) -> Kernel:
        try:
            self._manager.start_kernel(env=self.environ, cwd=str(self.home.root), stdout=self._log, stderr=self._log)
            self._client = self._manager.client()
            self._client.start_channels()
            self._client.wait_for_ready(timeout=60)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.stop_channels()
        if self._manager.has_kernel:
            self._manager.shutdown_kernel(now=not self._manager.is_alive())
        self._manager.cleanup_resources()
        self._log.close()

    def ask(self, kind: str, content: dict[str, Any]) -> dict[str, Any]:
        """Send a request on the control channel and return the content of its answer."""
        message = self._client.session.msg(kind, content)
        self._client.control_channel.send(message)
        while True:
            answer = self._client.get_control_msg(timeout=30)
            if answer["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                return dict(answer["content"])

    @property
    def pid(self) -> int:
        return int(self._manager.provisioner.pid)

    def start(self, code: str) -> Execution:
        """Send it a cell and return at once."""
        return Execution(self._client, code)

    def execute(self, code: str, *, seconds: float = 30) -> Execution:
        """Run a cell to its end, however it ends."""
        return self.start(code).finish(seconds=seconds)

    def run(self, code: str, *, seconds: float = 30) -> Execution:
        """Run a cell that is to succeed."""
        done = self.execute(code, seconds=seconds)
        assert not done.failed, done.output
        return done

    def interrupt(self) -> None:
        self._manager.interrupt_kernel()

    def restart(self) -> None:
        """Restart it as the Restart button does, and wait until it answers again."""
        self._manager.restart_kernel()
        self._client.wait_for_ready(timeout=60)

    def kill(self) -> None:
        """``kill -9``, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        until(lambda: not self._manager.is_alive(), "the kernel is gone")

    def shutdown(self) -> None:
        """Shut it down as the Shut Down button does."""
        self._manager.shutdown_kernel()


def read_environ(kernel: Kernel) -> dict[str, str]:
    return json.loads(kernel.run(ENVIRON).text)


def load(kernel: Kernel) -> None:
    assert kernel.run(LOAD).output.strip() == "", "IPython only says so where a module is no extension"


def load_and_use(kernel: Kernel, words: str = "alpha") -> dict[str, str]:
    """Load the extension, use a profile, and give the kernel's environment after that."""
    load(kernel)
    kernel.run(f"%taoprof use {words}")
    return read_environ(kernel)
