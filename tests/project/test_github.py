"""What GitHub reads: the workflow runs what a contributor runs, and forms ask for what an answer needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / ".github"


def read(path: Path) -> Any:
    # "on" is a boolean in YAML 1.1, and a key of a workflow.
    return yaml.load(path.read_text(), yaml.BaseLoader)


def test_the_workflow_runs_ci_and_builds_what_it_keeps() -> None:
    workflow = read(FOLDER / "workflows/ci.yml")
    jobs = workflow["jobs"]
    assert {"push", "pull_request"} <= workflow["on"].keys()
    assert ".ci/run" in [step.get("run") for step in jobs["tests"]["steps"]]
    (FOLDER.parent / ".ci/run").stat()
    built = "".join(step.get("run", "") for step in jobs["packages"]["steps"])
    for step in jobs["packages"]["steps"]:
        if "upload-artifact" in step.get("uses", ""):
            assert step["with"]["path"].rstrip("/") in built.split()
    assert workflow["permissions"] == {"contents": "read"}
    assert [name for name, job in jobs.items() if "permissions" in job] == ["release"]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("ISSUE_TEMPLATE/[!c]*.yml")), ids=lambda path: path.stem)
def test_form(path: Path) -> None:
    form = read(path)
    assert form["name"]
    assert form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)
    assert any(field.get("validations", {}).get("required") == "true" for field in fields)
