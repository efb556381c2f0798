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

from taoprofiles.launcher.behaviour import Host, Location, behaviour_of, runs_in_ci
from taoprofiles.launcher.simulation import Content, Prediction, Refusal, get_volumes, predict
from tests.support.launcher_cases import Case, cases, make_tree, singles
from tests.support.launchers import Launcher, start_launchers

pytestmark = pytest.mark.launchers

ASKED = os.environ.get("TAOPROF_ORACLE_CASES")
CASES = int(ASKED or 200)


@pytest.fixture(scope="module")
def launchers() -> Iterator[list[Launcher]]:
    with start_launchers() as launchers:
        yield launchers


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("oracle").resolve()
    make_tree(root)
    return root


def happened(answer: dict[str, Any]) -> dict[str, Any]:
    """Return what a launcher did in the terms of ``predicted``."""
    read = [path for path in answer["opened"] if not path.endswith("/config.json")]
    kind, message = answer["raised"] or ("SystemExit" if answer["status"] else None, None)
    return {
        "refused": kind,
        "message": message,
        "status": answer["status"],
        "created": json.dumps(answer["created"], sort_keys=True),
        "read": read[-1] if read else None,
    }


def predicted(prediction: Prediction, refusal: Refusal | None, body: dict[str, Any] | None) -> dict[str, Any]:
    is_exit = refusal is not None and refusal.kind == "SystemExit"
    return {
        "refused": refusal and refusal.kind,
        "message": None if is_exit else refusal and refusal.message,
        "status": 2 if is_exit else int(refusal is not None),
        "created": json.dumps(json.loads(json.dumps(body)), sort_keys=True),
        "read": None if refusal and _ends_before_the_file(refusal) else prediction.source_file,
    }


def _ends_before_the_file(refusal: Refusal) -> bool:
    return refusal.location.section in ("environ", "command", "config", "login") or _lacks_volume(refusal)


def _lacks_volume(refusal: Refusal) -> bool:
    return refusal.message.startswith("Missing mount")


def in_ci(prediction: Prediction, content: Content) -> tuple[Refusal | None, str]:
    """Return the refusal, or else the command up to the task's words, of a start with CI_PROJECT_DIR.

    As ``run_container_on_ci`` in docker_handler.py: what is predicted of the options and ``--volume`` does not count.
    """
    for refusal in prediction.refusals:
        if refusal.location.section not in ("DockerOptions", "--volume") or _lacks_volume(refusal):
            return refusal, ""
    options, here = content.options, Location("DockerOptions")
    if not isinstance(options, dict):
        return Refusal("AttributeError", f"'{type(options).__name__}' object has no attribute 'get'", here), ""
    words = ["docker run", "-it" if options.get("tty", True) else "-i", "--rm", "--gpus all"]
    words.append(" ".join(f"-v {source}:{path}:rw" for source, path in get_volumes(content.mounts).items()))
    words.append(" ".join(f"-e {entry['variable']}={entry['value']}" for _, entry in content.variables))
    for key, value in options.items():
        words += ["--privileged"] if key == "privileged" and value else []
        words += [f"--shm-size {value}"] if key == "shm_size" else []
    shell = " ".join([*words, prediction.call.image if prediction.call else "", ""])
    try:
        os.fsencode(shell)
        if "\0" in shell:
            raise ValueError("embedded null byte")
    except ValueError as error:
        return Refusal(type(error).__name__, str(error), here), ""
    return None, shell


def compare(launchers: list[Launcher], root: Path, case: Case) -> None:
    case.lay_out(root)
    environ, cwd = case.environ_in(root), str(root / "cwd")
    for launcher in launchers:
        launcher.ask(environ, cwd, case.arguments(launcher.version, root))
    for launcher in launchers:
        arguments = case.arguments(launcher.version, root)
        prediction = predict(launcher.version, Host(environ, cwd, launcher.config), arguments)
        refusal = next(iter(prediction.refusals), None)
        body, shell = prediction.call.body if prediction.call and not refusal else None, ""
        if prediction.content is not None and runs_in_ci(environ, behaviour_of(launcher.version)):
            body, (refusal, shell) = None, in_ci(prediction, prediction.content)
        answer = launcher.answer()
        assert predicted(prediction, refusal, body) == happened(answer), (launcher.version, case)
        assert (answer["shell"] or "").startswith(shell), (launcher.version, case)


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
