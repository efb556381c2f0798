"""The mission: notebooks with different profiles, in one JupyterLab, train at the same time, each its own project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import notebook_cells
from tests.support.browser import Browser, Notebook
from tests.support.engine import TrainingHome, until
from tests.support.lab import Lab
from tests.support.training import bind_mounts, local_mounts

pytestmark = [pytest.mark.jupyter, pytest.mark.engine]

PROJECTS = {"alpha": "kitti", "beta": "city"}
RESULTS = "experiment_dir_unpruned"
TRAIN = f"!tao model detectnet_v2 train 90 0 $USER_EXPERIMENT_DIR/{RESULTS}"
"""As NVIDIA's notebooks call it: the folder is the one inside the container, by the profile's variable."""


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """Where the pictures go: the folder in TAOPROF_SCREENSHOTS, for the documentation."""
    folder = Path(os.environ.get("TAOPROF_SCREENSHOTS") or tmp_path / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def make_profile(home: TrainingHome, name: str, folder: str) -> Path:
    """Make a profile as a person would. It asks for a terminal, which a cell's ``!`` has."""
    project = home.root / folder
    project.mkdir()
    home.run("new", name, "--network", "detectnet_v2", cwd=project, check=True)
    home.run("use", name, "--mkdir", check=True)
    return project


def results(project: Path) -> Path:
    return project / "detectnet_v2" / RESULTS


@pytest.mark.timeout(300)
def test_two_notebooks_train_side_by_side(training_home: TrainingHome, screenshots: Path) -> None:
    home = training_home
    projects = {name: make_profile(home, name, folder) for name, folder in PROJECTS.items()}
    sources = {name: [*notebook_cells.use(home, name), TRAIN] for name in PROJECTS}
    with Lab(home) as lab:
        for name, project in projects.items():
            lab.notebook(f"{project.name}/{name}.ipynb", *sources[name])
        with Browser(lab) as browser:
            notebooks = {name: browser.open(f"{project.name}/{name}.ipynb") for name, project in projects.items()}
            for notebook in notebooks.values():
                notebook.run_all()
            for name, notebook in notebooks.items():
                notebook.until_shown(len(sources[name]) - 1, ": training as")
            containers = home.engine.containers_of(home.root)
            seen = {one: home.engine.inspect(one) for one in containers}
            assert [one["State"]["Running"] for one in seen.values()] == [True, True]
            for project in projects.values():
                (mine,) = (one for one, about in seen.items() if bind_mounts(about) == local_mounts(project))
                trained_by = results(project) / "trained-by"
                until(trained_by.exists, f"results are in {project}")
                assert mine.startswith(trained_by.read_text().strip())

            if notebook_cells.THERE:
                kernels = {name: lab.kernel_pids(notebook.path) for name, notebook in notebooks.items()}
                held = [hold for hold in home.holds() if hold["kind"] == "notebook"]
                assert {hold["profile"]: [hold["pid"]] for hold in held} == kernels

            take_pictures(browser, notebooks, screenshots)

            for project in projects.values():
                (results(project) / "enough").touch()
            for name, notebook in notebooks.items():
                notebook.idle()
                assert "done with 0" in notebook.text(len(sources[name]) - 1), notebook.told()
            until(lambda: not home.engine.containers_of(home.root), "the containers are gone")
            assert browser.errors == []


def take_pictures(browser: Browser, notebooks: dict[str, Notebook], folder: Path) -> None:
    """Take the whole page, and every table by itself, in both themes."""
    for theme in ("light", "dark"):
        browser.theme(theme)
        for name, notebook in notebooks.items():
            pictures = [notebook.screenshot(folder / f"{name}-{theme}.png")]
            for cell in range(len(notebook)):
                if any("text/html" in output.data for output in notebook.outputs(cell)):
                    picture = folder / f"{name}-{theme}-cell-{cell}.png"
                    pictures.append(notebook.screenshot(picture, cell=cell, selector=".jp-OutputArea"))
            assert len(pictures) > 1, f"{name} shows no table"
        browser.screenshot(folder / f"page-{theme}.png")
