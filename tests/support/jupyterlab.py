"""A real JupyterLab server for a scratch home, and its page in a real Chromium without a window.

JupyterLab is in an environment of its own (``.jupyterlab``, see ``.ci/run``): its server asks for a websocket-client
of which the launcher pins an older one. Its kernels are this environment's, with the launcher and taoprofiles, as a
person's registered kernel would be. The browser is driven by the page's own commands and read from what it shows.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.engine import LoggedProcess, new_log, until
from tests.support.home import Home, require
from tests.support.notebooks import notebook

ROOT = Path(__file__).parents[2]
KERNEL = "tao"

QUIET = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "notebook-extension/tracker": {"windowingMode": "none"},  # else the outputs out of sight are not in the page
}
"""What a person would set in the settings editor: no popups, and every output there to be read."""

OPTIONS = (
    "--no-browser",
    "--allow-root",
    "--ServerApp.ip=127.0.0.1",
    "--ServerApp.port=0",
    "--LabApp.expose_app_in_browser=True",  # the page's commands, for Browser
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.news_url=",
    "--LabApp.extension_manager=readonly",  # the other one asks the package index
    "--LanguageServerManager.autodetect=False",
)


class JupyterLabServer(LoggedProcess):
    """``with JupyterLabServer(home) as lab: …`` has JupyterLab serve the home, from its first answer on."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.token = secrets.token_hex(16)
        self.url = ""
        self.environ = {**home.environ, "PATH": kernel_path(), "JUPYTER_TOKEN": self.token}
        share_kernel(home)
        for name, settings in QUIET.items():
            path = home.root / f".jupyter/lab/user-settings/@jupyterlab/{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(settings))
        words = [jupyter_lab(), *OPTIONS, f"--ServerApp.root_dir={home.root}"]
        super().__init__(new_log(home.root.parent, "lab"), words, self.environ, home.root)

    def __enter__(self) -> JupyterLabServer:
        try:
            self.url = until(self._address, "JupyterLab says where it is", seconds=60, details=self.tail)
            until(self._answers, "JupyterLab answers", details=self.tail)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()  # it shuts its kernels down first

    def _address(self) -> str | None:
        assert self.process.poll() is None, self.tail()
        try:
            info = self.home.root / f".local/share/jupyter/runtime/jpserver-{self.process.pid}.json"
            return str(json.loads(info.read_text())["url"])
        except (OSError, ValueError):  # not there yet, or half written
            return None

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.tail()
        try:
            request = urllib.request.Request(f"{self.url}api/status", headers={"Authorization": f"token {self.token}"})
            with urllib.request.urlopen(request, timeout=10) as answer:
                return "started" in json.loads(answer.read())
        except (OSError, ValueError):
            return False


def jupyter_lab() -> str:
    """Find the program: in the environment that CI makes for it, or where a person has it."""
    own = ROOT / ".jupyterlab/bin/jupyter-lab"
    path = str(own) if own.exists() else shutil.which("jupyter-lab")
    require(path, f"JupyterLab is neither in {own.parents[1].name} nor on PATH")
    assert path is not None
    return path


def kernel_path() -> str:
    """Return the PATH of a kernel in an activated environment: ``!tao`` and ``!taoprof`` are this environment's."""
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def share_kernel(home: Home) -> None:
    """Register this environment's kernel for the home's owner, as ``ipykernel install --user`` would."""
    spec = home.root / f".local/share/jupyter/kernels/{KERNEL}/kernel.json"
    spec.parent.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "TAO", "language": "python"}))


def write_notebook(path: Path, *cells: str, kernel: str = KERNEL) -> Path:
    """Write a notebook of code cells that wants a kernel, without one the registered one."""
    spec = {"name": kernel, "display_name": "TAO", "language": "python"}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(notebook(list(cells), kernelspec=spec))
    return path


FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # whatever a page asks for: nothing outside is reached
)
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}

SETTLED = "() => !document.getElementById('jupyterlab-splash')"
"""Whether the splash screen, which also comes with each change of theme, is gone."""

STARTED = "() => window.jupyterapp ? jupyterapp.restored.then(() => true) : false"
"""Whether the page's program is there, with its widgets where they were."""

PANEL = "const panel = [...jupyterapp.shell.widgets('main')].find(one => one.context?.path === path);"

OPEN = f"""async path => {{
    await jupyterapp.commands.execute('docmanager:open', {{path}});
    {PANEL}
    await panel.context.ready;
    await panel.sessionContext.ready;
    await panel.revealed;
}}"""

STATE = f"""path => {{
    {PANEL}
    return {{
        kernel: panel?.sessionContext.session?.kernel?.status ?? 'none',
        pending: (window.taoprofRuns ??= {{}})[path] ?? 0,
        cells: panel?.content.widgets.length ?? 0,
    }};
}}"""

RUN = f"""([path, command, cell]) => {{
    {PANEL}
    if (cell !== null) {{
        panel.content.activeCellIndex = cell;
        panel.content.deselectAll();
    }}
    const runs = window.taoprofRuns ??= {{}};
    runs[path] = (runs[path] ?? 0) + 1;
    jupyterapp.commands.execute(command, {{semanticWidget: panel.id}}).finally(() => runs[path]--);
}}"""
"""Starts a command for this very notebook, and counts it until it is done; the answer does not wait for that."""

OUTPUTS = f"""([path, cell]) => {{
    {PANEL}
    const node = panel.content.widgets[cell].outputArea?.node;
    return [...node?.querySelectorAll('.jp-OutputArea-output') ?? []].map(shown => shown.innerText).join('\\n');
}}"""

FIND = f"""([path, cell]) => {{
    {PANEL}
    jupyterapp.shell.activateById(panel.id);
    return panel.content.widgets[cell].node;
}}"""


class Browser:
    """``with Browser(lab) as browser: …`` has JupyterLab's page open in it."""

    def __init__(self, lab: JupyterLabServer) -> None:
        require(importlib.util.find_spec("playwright"), "playwright is not installed")
        chromium = shutil.which("chromium")
        require(chromium, "the command 'chromium' is not installed")
        from playwright.sync_api import sync_playwright

        self.lab = lab
        self.errors: list[str] = []
        """What went wrong in the page's own programs."""
        folder = lab.home.root.parent / "chromium"
        folder.mkdir(exist_ok=True)
        self._driver = sync_playwright().start()
        try:
            self._context = self._driver.chromium.launch_persistent_context(
                folder / "data",
                executable_path=chromium,
                args=FLAGS,
                env={"HOME": str(folder), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
                viewport={"width": 1280, "height": 900},
            )
        except BaseException:
            self._driver.stop()
            raise
        self.page = self._context.pages[0]
        self.page.set_default_timeout(30_000)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def __enter__(self) -> Browser:
        try:
            self.reload()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()
        self._driver.stop()

    def reload(self) -> None:
        """Load the page, as at first or anew."""
        self.page.goto(f"{self.lab.url}lab?reset&token={self.lab.token}")
        self.page.wait_for_function(STARTED)
        self.page.wait_for_function(SETTLED)

    def open(self, path: str) -> Notebook:
        """Open a notebook, by its path in the home, in a tab of its own, and wait for its kernel."""
        notebook = Notebook(self, path)
        self.page.evaluate(OPEN, path)
        notebook.idle()
        return notebook

    def theme(self, name: str) -> None:
        """Switch to the "light" or the "dark" theme, and wait until it is there."""
        self.page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", THEMES[name])
        self.page.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=THEMES[name])
        self.page.wait_for_function(SETTLED)

    def summary(self) -> str:
        """What stands in the way, for a message."""
        dialogs = self.page.locator(".jp-Dialog-content").all_inner_texts()
        return "\n".join([*dialogs, *self.errors])


class Notebook:
    """A notebook in a tab of JupyterLab. Cells are counted from 0."""

    def __init__(self, browser: Browser, path: str) -> None:
        self.browser = browser
        self.path = path
        self._evaluate: Callable[..., Any] = browser.page.evaluate

    def __len__(self) -> int:
        """How many cells it has."""
        return int(self._evaluate(STATE, self.path)["cells"])

    def run(self, cell: int) -> None:
        """Start one cell and return at once."""
        self._evaluate(RUN, [self.path, "notebook:run-cell", cell])

    @property
    def kernel(self) -> str:
        """The kernel's status, as the page has it: idle, busy, restarting, dead …"""
        return str(self._evaluate(STATE, self.path)["kernel"])

    def idle(self, *, seconds: float = 60) -> None:
        """Wait until all that was started is done."""

        def is_idle() -> bool:
            state = self._evaluate(STATE, self.path)
            return state["kernel"] == "idle" and state["pending"] == 0

        until(is_idle, f"{self.path} is idle", seconds=seconds, details=self.summary)

    def text(self, cell: int) -> str:
        """Return what the page shows below a cell."""
        return str(self._evaluate(OUTPUTS, [self.path, cell]))

    def until_shown(self, cell: int, text: str, *, seconds: float = 60) -> None:
        """Wait until a cell's outputs have a text."""
        until(lambda: text in self.text(cell), f"{self.path} shows '{text}'", seconds=seconds, details=self.summary)

    def screenshot(self, path: Path, *, cell: int) -> Path:
        """Take a picture of one cell."""
        element = self.browser.page.evaluate_handle(FIND, [self.path, cell]).as_element()
        element.scroll_into_view_if_needed()
        element.screenshot(path=path)
        return path

    def summary(self) -> str:
        """All that it shows, for a message."""
        cells = [f"[{cell}] {self.text(cell)}" for cell in range(len(self))]
        return "\n".join([f"kernel {self.kernel}", *cells, self.browser.summary()])
