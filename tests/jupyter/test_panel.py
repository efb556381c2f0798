"""The panel of ``%taoprof`` as a kernel gives it: its messages, and what a saved notebook has of it."""

from __future__ import annotations

import json
import re
import time
from base64 import b64decode
from html import unescape
from typing import Any

import pytest

from tests.support.commands import drawing_texts
from tests.support.home import Home
from tests.support.kernels import Kernel, load, load_and_use

pytestmark = pytest.mark.jupyter

HOSTILE = "<img src=x onerror=alert(1)>\u202e\x1b[31m"


@pytest.fixture
def home(home: Home) -> Home:
    home.profile("alpha")
    home.profile("beta")
    home.profile("folder", f'layout = "custom"\n[[mounts]]\nsource = "{home.root}/new"\ndestination = "/d"\n')
    return home


class PanelClient:
    """The panel's front end: sends what its buttons send, on a subshell of its own, and reads the answers."""

    def __init__(self, kernel: Kernel) -> None:
        self._client = kernel._client
        client = self._client
        request = client.session.msg("create_subshell_request", {})
        client.control_channel.send(request)
        self._subshell = client.get_control_msg(timeout=30)["content"]["subshell_id"]
        self.bundle = kernel.run("%taoprof").bundles[-1]
        self._comm = self.bundle["application/vnd.jupyter.widget-view+json"]["model_id"]
        self._number = 0
        self.state: dict[str, Any] = {}

    def ask(self, action: str, argument: str = "") -> dict[str, Any]:
        """Send a message, and return the answer to it."""
        self._number += 1
        content = {"number": self._number, "action": action, "argument": argument}
        message = self._client.session.msg(
            "comm_msg", {"comm_id": self._comm, "data": {"method": "custom", "content": content}}
        )
        message["header"]["subshell_id"] = self._subshell
        self._client.shell_channel.send(message)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            received = self._client.get_iopub_msg(timeout=30)
            data = received["content"].get("data", {})
            if received["msg_type"] == "comm_msg" and received["content"]["comm_id"] == self._comm:
                self.state = data.get("state", {}).get("state", self.state)
                if data.get("content", {}).get("number") == self._number:
                    return data["content"]
        raise AssertionError("no answer")


def test_it_answers_while_a_cell_runs(home: Home) -> None:
    """On a subshell, from the first message on; what would change the running cell's profile is refused."""
    with Kernel(home) as kernel:
        load_and_use(kernel)
        panel = PanelClient(kernel)
        cell = kernel.start("import os, time\nwhile not os.path.exists('enough'): time.sleep(0.05)")
        assert panel.ask("refresh")["is_refused"] is False
        held = home.json("hold", "--reason", HOSTILE)["error"]
        assert held is not None, "there is no mapping file yet"
        home.run("use", "beta", check=True)
        home.run("hold", "--reason", HOSTILE, check=True)
        panel.ask("refresh")
        assert [hold["reason"] for hold in panel.state["status"]["holds"] if hold["kind"] == "manual"] == [HOSTILE]
        assert panel.state["notebook"]["profile"] == "alpha"
        for action in ("use", "leave"):
            answer = panel.ask(action, "beta")
            assert answer["is_refused"]
            assert "running a cell" in answer["lines"][0]
        (home.root / "enough").touch()
        cell.finish()
        saved = [bundle["text/plain"] for bundle in cell.bundles]
        assert any(HOSTILE[:20] in text for text in saved), "the saved notebook has the last state"
        assert not panel.ask("use", "beta")["is_refused"]
        assert panel.state["notebook"]["profile"] == "beta"
        assert [hold["profile"] for hold in home.holds() if hold["kind"] == "notebook"] == ["beta"]


def test_its_buttons_are_the_commands(home: Home) -> None:
    with Kernel(home) as kernel:
        load(kernel)
        panel = PanelClient(kernel)
        assert panel.ask("use", "nosuch")["lines"][0] == "there is no profile 'nosuch'"
        for action in ("use", "make", "stop", "release", "undo"):
            answer = panel.ask(action, "--help")
            assert answer["is_refused"]
            assert "'--help'" in answer["lines"][0], "an argument is no option: SystemExit would end the panel's thread"
        panel.ask("select", "folder")
        assert "1 folder does not exist" in panel.state["problems"][0], "before it is used"
        answer = panel.ask("use", "folder")
        assert answer["is_refused"]
        assert any("%taoprof use folder --mkdir" in line for line in answer["lines"])
        assert not panel.ask("make", "folder")["is_refused"]
        assert (home.root / "new").is_dir()
        assert "released" in panel.ask("leave")["lines"][0]
        assert home.holds() == []

        home.mapping_file.mkdir()
        panel.ask("refresh")
        assert panel.state["file"] == "~/.tao_mounts.json cannot be read"
        assert "is a folder" in panel.state["status"]["error"][0]
        home.mapping_file.rmdir()
        home.run("use", "alpha", check=True)
        home.mapping_file.write_text('{"Mounts": []}')
        panel.ask("refresh")
        (change,) = panel.state["changes"]
        assert not panel.ask(change["action"], change["argument"])["is_refused"]
        assert home.run("current").stdout == "alpha\n"
        hold_id = home.json("hold", "--reason", "why")["data"]["id"]
        assert "hold" in panel.ask("release", hold_id)["lines"][0]
        assert home.holds() == []
        assert panel.ask("stop", hold_id)["is_refused"]
        assert not panel.ask("no such action")["is_refused"], "a newer page's message does nothing"


def test_a_saved_notebook_has_the_state_as_text_and_drawing(home: Home) -> None:
    home.profile(
        "hostile", f"layout = 'custom'\n[[mounts]]\nsource = {json.dumps('/' + HOSTILE)}\ndestination = '/d'\n"
    )
    with Kernel(home) as kernel:
        load_and_use(kernel)
        bundle = PanelClient(kernel).bundle
        assert_readable(bundle, "alpha")
        widget = kernel.run("%taoprof show hostile").bundles[-1]
        assert "<img src=x" not in widget["text/html"]
        kernel.run("import sys; sys.modules['anywidget'] = None")
        without = kernel.run("%taoprof").bundles[-1]
        assert without.keys() == {"text/plain", "text/html"}
        assert_readable(without, "alpha")


def assert_readable(bundle: dict[str, Any], profile: str) -> None:
    assert f"uses profile '{profile}'" in bundle["text/plain"]
    assert "/workspace/tao-experiments" in bundle["text/plain"]
    assert f"uses profile '{profile}'" in unescape(bundle["text/html"])
    (image,) = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", bundle["text/html"])
    assert f"profile '{profile}'" in drawing_texts(b64decode(image).decode())
