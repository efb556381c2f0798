"""The panel in a real JupyterLab: two notebooks on two profile kernels train, and each sees the other's run.

With ``TAOPROF_SCREENSHOTS=docs/images`` it takes the page's pictures.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.jupyter.test_first_notebook import picture, screenshots
from tests.support.engine import TrainingHome, two_projects, until
from tests.support.home import Home
from tests.support.jupyterlab import Browser, JupyterLabServer, Notebook, write_notebook

__all__ = ["screenshots"]  # a fixture

pytestmark = pytest.mark.jupyter

PANEL, TRAIN = 0, 1
HOSTILE = "\u202e\x1b<img src=x onerror=alert(1)><script>alert(1)</script>" + "x" * 10_000
PART = "name => document.querySelector(`.taoprof-panel .${name}`)?.innerText ?? ''"
TOO_WIDE = """() => [...document.querySelectorAll('.taoprof-panel, .taoprof-panel *')]
    .filter(node => node.scrollWidth > node.clientWidth + 1 && node.clientWidth > 0
        && !node.closest('.map') && getComputedStyle(node).display !== 'inline')
    .map(node => node.outerHTML.slice(0, 200))"""

RESTART = "() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()"
TEXT_HEIGHT = "() => document.querySelector('.taoprof-panel .map text').getBoundingClientRect().height"


class PanelPage:
    """The panel as the page shows it, and when it has asked the kernel."""

    def __init__(self, browser: Browser) -> None:
        self.page = browser.page
        self.asked: list[float] = []
        self.page.on("websocket", lambda socket: socket.on("framesent", self._sent))

    def _sent(self, frame: str | bytes) -> None:
        data = frame.encode() if isinstance(frame, str) else frame
        if b'"action":"refresh"' in data.replace(b" ", b""):
            self.asked.append(time.monotonic())

    def text(self, part: str) -> str:
        return str(self.page.evaluate(PART, part))

    def until(self, part: str, text: str, *, gone: bool = False) -> None:
        """Wait until a part shows a text, or shows it no more."""
        what = f"the panel's {part} shows {'no ' if gone else ''}'{text}'"
        until(lambda: (text in self.text(part)) is not gone, what, details=lambda: self.text(part))

    def press(self, name: str) -> None:
        """Press a button as the keyboard does."""
        button = self.page.locator(".taoprof-panel").get_by_role("button", name=name, exact=True).first
        button.focus()
        self.page.keyboard.press("Enter")


def in_kernel(home: TrainingHome, name: str, project: Path, *cells: str) -> str:
    """Install a profile's kernel and write a notebook for it; return the notebook's path."""
    kernel = home.json("kernel", "install", name)["data"]["kernels"][0]["kernel"]
    return str(write_notebook(project / f"{name}.ipynb", *cells, kernel=kernel).relative_to(home.root))


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_two_trainings(training_home: TrainingHome, screenshots: Path) -> None:
    home = training_home
    kitti, city = two_projects(home)
    results = [city / "segformer/results/run", kitti / "detectnet_v2/run"]
    segformer = in_kernel(home, "segformer", city, "%taoprof", "!tao model segformer train 200 0 $RESULTS_DIR/run")
    detectnet = in_kernel(home, "detectnet_v2", kitti, "!tao model detectnet_v2 train 200 0 $USER_EXPERIMENT_DIR/run")
    with JupyterLabServer(home) as lab, Browser(lab) as browser:
        browser.page.evaluate("() => jupyterapp.commands.execute('application:toggle-left-area')")
        panel = PanelPage(browser)
        first = browser.open(segformer)
        first.run(PANEL)
        first.run(TRAIN)
        first.until_shown(TRAIN, ": training as")
        panel.until("head", "live, ")
        panel.until("running", "segformer train 200")

        second = browser.open(detectnet)
        second.run(0)
        second.until_shown(0, ": training as")
        browser.page.evaluate("id => jupyterapp.shell.activateById(id)", first_panel(first))
        panel.until("running", "detectnet_v2 train 200")
        report_progress(kitti / "detectnet_v2/status.json")
        panel.until("running", "epoch 12/80")
        assert "done with" not in first.text(TRAIN), "its own cell runs"
        assert browser.page.evaluate("() => document.querySelector('.taoprof-panel .map svg title').textContent")
        picture(browser, first, screenshots, "panel", PANEL)
        check_refusal_and_questions(panel)
        check_hostile_text(home, panel)
        check_widths(browser)

        (results[1] / "enough").touch()
        panel.until("running", "detectnet_v2 train 200", gone=True)
        assert "done with" not in first.text(TRAIN), "its own cell runs still"
        pauses = [later - earlier for earlier, later in zip(panel.asked, panel.asked[1:], strict=False)]
        assert len(pauses) > 3
        assert min(pauses) > 1

        third = home.json("hold", "--reason", "the last state")["data"]["id"]
        panel.until("running", third)
        (results[0] / "enough").touch()
        first.until_shown(TRAIN, "done with 0")
        first.idle()
        until(lambda: browser.page.locator(".taoprof-panel").count() == 1, "there is one panel")
        home.run("release", third, "--yes", check=True)
        panel.until("running", third, gone=True)
        browser.page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
        browser.page.evaluate("() => jupyterapp.commands.execute('notebook:clear-cell-output')")
        until(lambda: not panel.text("head"), "the panel is closed")
        closed = time.monotonic()
        until(lambda: time.monotonic() > closed + 3, "it would have asked")
        assert [moment for moment in panel.asked if moment > closed] == []
        assert browser.errors == []
        check_static(browser, home.root / segformer)


def report_progress(file: Path) -> None:
    """Write what a TAO task reports of its progress."""
    now = time.gmtime()
    line = {
        "date": f"{now.tm_mon}/{now.tm_mday}/{now.tm_year}",
        "time": time.strftime("%H:%M:%S", now),
        "verbosity": "INFO",
    }
    report = {"epoch": 12, "max_epoch": 80, "time_per_epoch": "0:01:30", "eta": "1:42:00", "kpi": {"loss": 0.0312}}
    lines = [line | {"status": "STARTED"}, line | {"status": "RUNNING"} | report]
    file.write_text("".join(f"{json.dumps(entry)}\n" for entry in lines))


def test_it_says_when_it_is_not_live(home: Home) -> None:
    """In a front end without subshells, where each message waits for the cell's end, and after a restart."""
    settings = home.root / ".jupyter/lab/user-settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True)
    (settings / "kernels-settings.jupyterlab-settings").write_text('{"commsOverSubshells": "disabled"}')
    home.profile("a")
    home.run("use", "a", check=True)
    wait = "import os, time\nwhile not os.path.exists('enough'): time.sleep(0.05)"
    write_notebook(home.root / "n.ipynb", "%load_ext taoprofiles\n%taoprof", wait)
    with JupyterLabServer(home) as lab, Browser(lab) as browser:
        panel = PanelPage(browser)
        notebook = browser.open("n.ipynb")
        notebook.run(PANEL)
        panel.until("head", "live, ")
        notebook.run(1)
        panel.until("head", "it updates when the cell ends")
        home.run("hold", "--reason", "meanwhile", check=True)
        queries = len(panel.asked)
        (home.root / "enough").touch()
        notebook.idle()
        panel.until("running", "meanwhile")
        panel.until("head", "live, ")
        assert len(panel.asked) - queries < 5, "nothing has piled up"
        browser.page.evaluate(RESTART)
        panel.until("head", "restarted or has ended: run the cell again")
        panel.press("Use in this notebook")
        panel.until("head", "run the cell again")
        notebook.idle()
        notebook.run(PANEL)
        panel.until("head", "live, ")
        assert browser.errors == []


def first_panel(notebook: Notebook) -> str:
    """Return the id of a notebook's tab, and make its first cell the active one."""
    find = "path => [...jupyterapp.shell.widgets('main')].find(one => one.context?.path === path)"
    script = f"path => {{ const tab = ({find})(path); tab.content.activeCellIndex = {PANEL}; return tab.id; }}"
    return str(notebook.browser.page.evaluate(script, notebook.path))


def check_refusal_and_questions(panel: PanelPage) -> None:
    panel.press("Use it again")
    panel.until("message", "this notebook is running a cell")
    panel.press("Close")
    panel.press("Stop…")
    panel.until("running", "Its training ends.")
    assert panel.page.evaluate("() => document.activeElement.textContent") == "No"
    panel.page.keyboard.press("Escape")
    panel.until("running", "Its training ends.", gone=True)
    assert panel.page.evaluate("() => document.activeElement.textContent") == "Stop…"


def check_hostile_text(home: TrainingHome, panel: PanelPage) -> None:
    hold_id = home.json("hold", "--reason", HOSTILE)["data"]["id"]
    panel.until("running", rf"\u202e\u001b{HOSTILE[2:50]}")
    assert panel.page.locator(".taoprof-panel :is(img, script)").count() == 0
    home.run("release", hold_id, "--yes", check=True)
    panel.until("running", hold_id, gone=True)


def check_widths(browser: Browser) -> None:
    """Nothing is cut off, and the drawing, which can be scrolled, does not become too small to read."""
    for width in (1600, 400):
        browser.page.set_viewport_size({"width": width, "height": 900})
        assert browser.page.evaluate(TEXT_HEIGHT) > 10
        until(lambda: browser.page.evaluate(TOO_WIDE) == [], f"it fits {width} px", details=lambda: str(
            browser.page.evaluate(TOO_WIDE)
        ))  # fmt: skip
    browser.page.set_viewport_size({"width": 1280, "height": 900})


def check_static(browser: Browser, notebook: Path) -> None:
    """What nbconvert makes of the saved notebook, which knows no widget, has the state as text and drawing."""
    from nbconvert import HTMLExporter

    html, _ = HTMLExporter(template_name="basic").from_filename(str(notebook))
    page = browser.page.context.new_page()
    page.set_content(html)
    text = page.inner_text("body")
    assert "this notebook uses profile 'segformer'" in text
    assert "the last state" in text
    assert page.evaluate("() => [...document.images].map(image => image.naturalWidth > 100)") == [True]
    page.close()
