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

from taoprofiles.launcher.host import Host
from taoprofiles.launcher.prediction import Prediction, Refusal
from taoprofiles.launcher.simulation import predict
from tests.support.launcher_cases import Case, cases, make_tree, singles
from tests.support.launchers import Launcher, Launchers

pytestmark = pytest.mark.launchers

ASKED = os.environ.get("TAOPROF_ORACLE_CASES")
CASES = int(ASKED or 200)


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
    """Return, for each launcher, the prediction and what really happened."""
    case.lay_out(root)
    environ, cwd = case.environ_in(root), str(root / "cwd")
    asked = []
    for launcher in launchers:
        arguments = case.arguments(launcher.version, root)
        launcher.ask(environ, cwd, arguments)
        asked.append((launcher, predict(launcher.version, Host(environ, cwd, launcher.config), arguments)))
    return [(launcher, prediction, launcher.answer()) for launcher, prediction in asked]


def happened(answer: dict[str, Any]) -> dict[str, Any]:
    """Say what a launcher did in the terms of ``predicted``."""
    read = [path for path in answer["opened"] if not path.endswith("/config.json")]
    kind, message = answer["raised"] or ("SystemExit" if answer["status"] else None, None)
    return {
        "refused": kind,
        "message": message,
        "status": answer["status"],
        "created": json.dumps(answer["created"], sort_keys=True),
        "shell": answer["shell"] or "",
        "read": read[-1] if read else None,
    }


def predicted(prediction: Prediction) -> dict[str, Any]:
    refusal = prediction.refusal
    body = prediction.call.body if prediction.call and not refusal else None
    return {
        "refused": refusal and refusal.kind,
        "message": refusal.message if refusal and refusal.kind != "SystemExit" else None,
        "status": refusal.status if refusal else 0,
        "created": json.dumps(json.loads(json.dumps(body)), sort_keys=True),
        "shell": "" if refusal else prediction.shell,
        "read": None if refusal and _ends_before_the_file(refusal) else prediction.source_file,
    }


def _ends_before_the_file(refusal: Refusal) -> bool:
    section = refusal.location.section
    return section in ("environ", "command", "config", "login") or refusal.message.startswith("Missing mount")


def compare(launchers: list[Launcher], root: Path, case: Case) -> None:
    for launcher, prediction, answer in ask(launchers, root, case):
        assert predicted(prediction) == happened(answer), (launcher.version, case)


@pytest.mark.timeout(300)
def test_one_odd_thing_at_a_time(launchers: list[Launcher], root: Path) -> None:
    for case in singles():
        compare(launchers, root, case)


@pytest.mark.timeout(100 + CASES)
def test_any_number_of_odd_things_at_once(launchers: list[Launcher], root: Path) -> None:
    @settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        derandomize=ASKED is None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases())
    def each(case: Case) -> None:
        compare(launchers, root, case)
        compared.append(1)

    compared: list[int] = []
    each()
    assert len(compared) >= CASES
