"""The prediction equals what the launcher's own ``main()`` does, for six launchers and any mounts file.

``TAOPROF_ORACLE_CASES`` says how many cases, each for all six; without it a fixed share is run.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from taoprofiles.launcher import command_line, host, versions
from taoprofiles.launcher import simulation as predict_module
from taoprofiles.launcher.host import Host
from taoprofiles.launcher.prediction import Prediction, Refusal
from taoprofiles.launcher.simulation import predict
from tests.support.launcher_cases import cases
from tests.support.launcher_singles import singles
from tests.support.launcher_values import Case, make_tree
from tests.support.launchers import VERSIONS, Launcher, Launchers, own_config

pytestmark = pytest.mark.launchers

ASKED = os.environ.get("TAOPROF_ORACLE_CASES")
CASES = int(ASKED or 200)
KEEP = 1000
"""As many are kept for the test of the tests, at the end."""

Kept = list[tuple[Case, list[tuple[str, dict[str, Any]]]]]


@pytest.fixture(scope="module")
def launchers() -> Iterator[list[Launcher]]:
    with Launchers() as all_of_them:
        yield all_of_them


@pytest.fixture(scope="module")
def kept() -> Kept:
    return []


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


def compare(launchers: list[Launcher], root: Path, kept: Kept, case: Case) -> None:
    results = [
        (one.version, predicted(prediction), happened(answer)) for one, prediction, answer in ask(launchers, root, case)
    ]
    for version, expected, real in results:
        assert expected == real, (version, case)
    if len(kept) < KEEP:
        kept.append((case, [(version, real) for version, _, real in results]))


@pytest.mark.timeout(300)
def test_one_odd_thing_at_a_time(launchers: list[Launcher], root: Path, kept: Kept) -> None:
    for case in singles():
        compare(launchers, root, kept, case)


@pytest.mark.timeout(100 + CASES)
def test_any_number_of_odd_things_at_once(launchers: list[Launcher], root: Path, kept: Kept) -> None:
    @settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        derandomize=ASKED is None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases())
    def each(case: Case) -> None:
        compare(launchers, root, kept, case)
        compared.append(1)

    compared: list[int] = []
    each()
    assert len(compared) >= CASES


BREAKS = [
    (host, "if named is None:", "if not named:"),
    (predict_module, 'encoding="utf-8")', 'encoding="utf-8-sig")'),
    (predict_module, "text = io.TextIOWrapper(io.BytesIO(host.read(path)), encoding=\"utf-8\").read()",
     "text = host.read(path).decode()"),
    (predict_module, "host.realpath(host.expanduser(entry[key]))", "host.realpath(entry[key])"),
    (predict_module, "host.realpath(host.expanduser(entry[key]))", "host.expanduser(entry[key])"),
    (predict_module, "            if not host.exists(source):", "            if False:"),
    (predict_module, "for mount in mounts}", "for mount in reversed(list(mounts))}"),
    (predict_module, "host.realpath(parts[0]), host.realpath(parts[1])", "host.realpath(parts[0]), parts[1]"),
    (predict_module, "host.realpath(parts[0]), host", "parts[0], host"),
    (predict_module, "={entry['value']}\"", "={entry['value'] or ''}\""),
    (predict_module, 'raise RefusedError("KeyError"', 'RefusedError("KeyError"'),
    (predict_module, "1 << 10", "1000"),
    (predict_module, 'text[-1] in "bB"', 'text[-2:] in ("gb", "GB")'),
    (predict_module, "    if not text:\n        return 0\n", ""),
    (predict_module, "if limit and not isinstance", "if not isinstance"),
    (predict_module, '"" if host is None else str(host)', "str(host)"),
    (predict_module, 'key if "/" in key else f"{key}/tcp"', 'f"{key}/tcp"'),
    (predict_module, "None if user is None else str(user)", "user"),
    (predict_module, 'network or "default"', "network"),
    (predict_module, ":rw", ":ro"),
    (predict_module, 'if "ulimits" in options:', 'if options.get("ulimits"):'),
    (predict_module, '"Env": environment or None', '"Env": environment'),
    (host, '"CI_PROJECT_DIR" in environ', 'environ.get("CI_PROJECT_DIR")'),
    (predict_module, 'interactive = "-it" if tty else "-i"', 'interactive = "-it"'),
    (predict_module, 'environment.append("TAO_CLIENT_TYPE=launcher")', "pass"),
    (predict_module, 'words += [f"--shm-size {value}"] if key == "shm_size" else []', "pass"),
    (predict_module, 'key == "privileged" and value', 'key == "privileged"'),
    (predict_module, "        if self.behaviour.needs_options:", "        if content.options:"),
    (command_line, '"OVERRIDE_REGISTRY", about[', '"OVERRIDE_REGISTRY") or (about['),
    (command_line, 'while "--volume" in rest:', 'if "--volume" in rest:'),
    (command_line, "if volumes and not rest:", "if False:"),
    (command_line, 'if rest[0] == "run"', 'if rest[0] == "bash"'),
    (predict_module, 'not in ("0", "1")', 'not in ("", "0", "1")'),
    (host, '"OVERRIDE_REGISTRY" in environ', 'environ.get("OVERRIDE_REGISTRY")'),
    (host, " and behaviour.override_skips_login", ""),
    (versions, "volume_argument = _Since(6, 0, 0)", "volume_argument = _Since(5, 0, 0)"),
    (versions, "tty_option = _Since(5, 0, 0)", "tty_option = _Since(4, 0, 0)"),
    (versions, "sets_client_type = _Since(6, 25, 11)", "sets_client_type = _Since(6, 25, 12)"),
    (versions, "needs_options = _Since(5, 0, 0)", "needs_options = _Since(4, 0, 0)"),
    (versions, "ci = _Since(5, 0, 0)", "ci = _Since(4, 0, 0)"),
    (versions, 'else "~/.tlt_mounts.json"', 'else "~/.tao_mounts.json"'),
]  # fmt: skip


@pytest.mark.usefixtures("launchers")  # where they are missing, this is skipped with the tests above
def test_a_wrong_prediction_is_seen(kept: Kept, root: Path) -> None:
    """Break the model in one place: one of the cases above must differ."""
    assert kept, "the cases are those of the tests above, which have to run before"
    configs = {version: own_config(version) for version in VERSIONS}
    unseen = {(module.__name__, wrong): _broken(module, right, wrong) for module, right, wrong in BREAKS}
    for case, real in kept:
        case.lay_out(root)
        for name, broken in list(unseen.items()):
            if _differs(broken, case, real, configs, root):
                del unseen[name]
    assert list(unseen) == []


def _broken(module: ModuleType, right: str, wrong: str) -> Callable[..., Prediction]:
    """Return ``predict`` as it is with one mistake, in modules of its own."""
    source = inspect.getsource(module)
    assert right in source, right
    mistaken = _loaded(module, source.replace(right, wrong))
    if module is predict_module:
        return mistaken.predict
    whole = _loaded(predict_module, inspect.getsource(predict_module))
    setattr(whole, module.__name__.rpartition(".")[2], mistaken)
    if module is versions:
        whole.behaviour_of = mistaken.behaviour_of
    if module is host:
        whole.find_mounts_path, whole.runs_in_ci = mistaken.find_mounts_path, mistaken.runs_in_ci
        whole.command_line = _loaded(command_line, inspect.getsource(command_line))
        whole.command_line.skips_login = mistaken.skips_login
    return whole.predict


def _loaded(module: ModuleType, source: str) -> Any:
    made = ModuleType(module.__name__)
    exec(compile(source, str(module.__file__), "exec"), made.__dict__)
    return made


def _differs(
    predict: Callable[..., Prediction],
    case: Case,
    real: list[tuple[str, dict[str, Any]]],
    configs: dict[str, bytes],
    root: Path,
) -> bool:
    for version, truth in real:
        host = Host(case.environ_in(root), str(root / "cwd"), configs[version])
        try:
            prediction = predict(version, host, case.arguments(version, root))
        except Exception:
            return True
        if predicted(prediction) != truth:
            return True
    return False
