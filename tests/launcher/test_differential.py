"""The prediction equals what the launcher's own ``main()`` does, for six launchers and any mounts file.

``TAOPROF_ORACLE_CASES`` says how many cases, each for all six; without it a fixed share is run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from taoprofiles.launcher.predict import predict
from taoprofiles.launcher.prediction import Prediction
from taoprofiles.world.host import Host
from tests.launcher.generated import Case, cases, make_tree
from tests.launcher.installed import Launcher, Launchers

pytestmark = pytest.mark.launchers

ASKED = os.environ.get("TAOPROF_ORACLE_CASES")
CASES = int(ASKED or 400)


@pytest.fixture(scope="module")
def launchers() -> Iterator[list[Launcher]]:
    with Launchers() as all_of_them:
        yield all_of_them


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("oracle").resolve()
    make_tree(root)
    return root


def ask(launchers: list[Launcher], root: Path, case: Case) -> list[tuple[Launcher, Prediction, dict[str, Any]]]:
    """Give, for each launcher, the prediction and what really happened."""
    case.lay_out(root)
    environ = {name: value.replace("{root}", str(root)) for name, value in case.environ.items()}
    cwd = str(root / "cwd")
    asked = []
    for launcher in launchers:
        arguments = [word.replace("{root}", str(root)) for word in case.arguments(launcher.version)]
        launcher.ask(environ, cwd, arguments)
        told = predict(launcher.version, Host(environ, cwd, launcher.config), arguments)
        asked.append((launcher, told))
    return [(launcher, told, launcher.answer()) for launcher, told in asked]


def happened(answer: dict[str, Any], root: Path) -> dict[str, Any]:
    """Say what a launcher did in the terms of ``predicted``."""
    logins = {str(root / "docker/config.json"), ".docker/config.json", ".tao/config.json", ".tlt/config.json"}
    read = [path for path in answer["opened"] if not path.endswith(tuple(logins))]
    kind, message = answer["raised"] or ("SystemExit" if answer["status"] else None, None)
    return {
        "refused": kind,
        "message": message,
        "status": answer["status"],
        "created": json.dumps(answer["created"], sort_keys=True),
        "shell": answer["shell"] or "",
        "read": read[-1] if read else None,
    }


def predicted(told: Prediction) -> dict[str, Any]:
    refusal = told.refusal
    body = told.call.body if told.call else None
    return {
        "refused": refusal and refusal.kind,
        "message": refusal.message if refusal and refusal.kind != "SystemExit" else None,
        "status": refusal.status if refusal else 0,
        "created": json.dumps(json.loads(json.dumps(body)), sort_keys=True),
        "shell": told.shell,
        "read": told.source_file,
    }


@pytest.mark.timeout(100 + CASES)
def test_the_prediction_is_what_happens(launchers: list[Launcher], root: Path) -> None:
    @settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        derandomize=ASKED is None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases())
    def each(case: Case) -> None:
        for launcher, told, answer in ask(launchers, root, case):
            assert predicted(told) == happened(answer, root), (launcher.version, case)

    each()
