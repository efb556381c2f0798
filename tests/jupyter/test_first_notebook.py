"""docs/tutorial/first-notebook.md, done as it says: its own cells, its own notebooks, a real JupyterLab and trainings.

Two notebooks with different profiles train at the same time, each its own project: one in its profile's kernel, the
other with %taoprof use.

With ``TAOPROF_SCREENSHOTS=docs/images`` it takes the page's pictures.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.support.engine import TrainingHome, bind_mounts, host_mounts, until
from tests.support.jupyterlab import KERNEL, ROOT, Browser, JupyterLabServer, Notebook

pytestmark = [pytest.mark.jupyter, pytest.mark.engine]

PAGE = ROOT / "docs/tutorial/first-notebook.md"
_, SECOND, _ = re.findall(r"^```python\n(.*?)\n```$", PAGE.read_text(), re.M | re.S)
PATHS, MOUNTS, STATUS = 1, 3, 1
"""The cells that set paths and write the mounts file, in the first notebook; and the status, in the second."""

STEADY = """([root, held]) => {
    const walker = document.createTreeWalker(document.querySelector('#main'), NodeFilter.SHOW_TEXT);
    for (let node; (node = walker.nextNode()); ) {
        let text = node.data.replaceAll(root, '/home/ana');
        held.forEach((id, at) => { text = text.replaceAll(id, ['7k2mq', '3xd9h'][at]); });
        if (text !== node.data) node.data = text;
    }
}"""
"""Makes what the page shows the same on every machine, as tests/project/test_docs.py does for commands."""


def place(home: TrainingHome, path: str, train: str, *new: str) -> Path:
    """Copy an example into the home, with new cells before all others, and a training that the test's image does."""
    notebook = home.root / path
    (notebook.parent / "specs").mkdir(parents=True)
    content = json.loads((ROOT / "docs/examples" / notebook.name).read_text())
    content["metadata"]["kernelspec"]["name"] = KERNEL
    content["cells"][-1]["source"] = train
    added = [{**content["cells"][-1], "id": f"new-{number}", "source": source} for number, source in enumerate(new)]
    content["cells"] = added + content["cells"]
    notebook.write_text(json.dumps(content))
    return notebook


def imported(home: TrainingHome, notebook: Path, project: Path, *options: str) -> None:
    assignment = f"LOCAL_PROJECT_DIR=~/{project.relative_to(home.root)}"
    home.run("import", notebook.name, "--set", assignment, *options, cwd=notebook.parent, check=True)


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    return Path(os.environ.get("TAOPROF_SCREENSHOTS") or tmp_path)


@pytest.mark.timeout(300)
def test_the_tutorial(training_home: TrainingHome, screenshots: Path) -> None:
    home = training_home
    kitti, city = home.root / "tao/kitti", home.root / "tao/city"
    train = "!tao model {} train 90 0 ${}/unpruned"
    trains = train.format("detectnet_v2", "USER_EXPERIMENT_DIR")
    detectnet = place(home, "tao/kitti/detectnet_v2/detectnet_v2.ipynb", trains)
    segformer = place(
        home, "tao/city/segformer.ipynb", train.format("segformer", "RESULTS_DIR"), SECOND, "%taoprof status"
    )
    (kitti / "data").mkdir()
    imported(home, detectnet, kitti, "--kernel", "--in-place")
    imported(home, segformer, city)
    with JupyterLabServer(home) as lab, Browser(lab) as browser:
        browser.page.evaluate("() => jupyterapp.commands.execute('application:toggle-left-area')")
        first = browser.open(str(detectnet.relative_to(home.root)))
        second = browser.open(str(segformer.relative_to(home.root)))
        last = len(first) - 1
        first.run(PATHS)
        first.until_shown(PATHS, "has its previous values again: LOCAL_PROJECT_DIR")
        first.idle()
        picture(browser, first, screenshots, "overridden", PATHS)
        first.run(MOUNTS)
        first.until_shown(MOUNTS, "'tao' in this notebook does not read it")
        first.idle()

        first.run(last)
        first.until_shown(last, ": training as")
        second.run(0)
        second.until_shown(0, "this notebook now uses profile 'segformer'")
        second.idle()
        picture(browser, second, screenshots, "use", 0)
        second.run(STATUS)
        second.until_shown(STATUS, "detectnet_v2 train 90")
        second.idle()
        picture(browser, second, screenshots, "status", STATUS)
        second.run(len(second) - 1)
        second.until_shown(len(second) - 1, ": training as")

        containers = [home.engine.inspect(container) for container in home.engine.containers_of(home.root)]
        assert [container["State"]["Running"] for container in containers] == [True, True]
        held = {hold["profile"]: hold["pid"] for hold in home.holds() if hold["kind"] == "notebook"}
        assert held.keys() == {"detectnet_v2", "segformer"}
        assert len(set(held.values())) == 2, "each kernel has its own"
        local = {
            kitti: "/workspace/tao-experiments",
            detectnet.parent / "specs": "/workspace/tao-experiments/detectnet_v2/specs",
        }
        host = {**host_mounts(city), home.root / ".cache": "/root/.cache"}
        assert all(bind_mounts(about) in (local, host) for about in containers)
        for results in (kitti / "detectnet_v2/unpruned", city / "segformer/results/unpruned"):
            until((results / "trained-by").exists, f"results are in {results}")
            (results / "enough").touch()
        for notebook in (first, second):
            notebook.idle()
            assert "done with 0" in notebook.text(len(notebook) - 1), notebook.summary()
        until(lambda: not home.engine.containers_of(home.root), "the containers are gone")
        assert browser.errors == []


def picture(browser: Browser, notebook: Notebook, folder: Path, name: str, cell: int) -> None:
    """Take one cell in both themes, with the names that the documentation has for a home and for holds."""
    held = [hold["id"] for hold in browser.lab.home.holds()]
    for theme in ("light", "dark"):
        browser.theme(theme)
        browser.page.evaluate(STEADY, [str(browser.lab.home.root), held])  # each time: a panel has drawn itself again
        image = notebook.screenshot(folder / f"{name}-{theme}.png", cell=cell)
        assert image.stat().st_size < 120_000, f"{image} is too large for a page"
