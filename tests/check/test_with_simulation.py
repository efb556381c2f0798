"""Whatever a mounts file holds: what the launcher will refuse, drop or move is an error that the check names."""

from __future__ import annotations

import posixpath
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.check.check import Report, check
from taoprofiles.errors import TaoprofError
from taoprofiles.rules.finding import ERROR, counts
from taoprofiles.storage.paths import Context
from tests.support.generated_profiles import moderate
from tests.support.launcher_cases import cases
from tests.support.launcher_values import Case, make_tree

NAMES = {
    "dropped-same-source": {"src-duplicate", "dst-duplicate", "mount-shape"},
    "moved-destination": {"dst-symlinked-on-host", "dst-relative"},
    "env-none": {"env-null", "env-shape"},
    "env-stringified": {"env-not-text", "env-null", "env-shape"},
    "env-twice": {"env-twice", "env-shape"},
    "mode-ignored": {"key-ignored", "mount-shape"},
    "unknown-keys": {"key-ignored", "mount-shape", "env-shape"},
    "json-duplicate-key": {"json-dup-key"},
    "no-file": {"no-mapping-file", "lm-bad-path", "json-parse"},
    "ci-dropped": {"ci-project-dir-set"},
}
"""By what the launcher silently does: the checks of which one tells it."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("oracle").resolve()
    make_tree(root)
    return root


def shown_mounts(report: Report) -> set[str]:
    return set(report.prediction.call.volumes.values()) if report.prediction and report.prediction.call else set()


@moderate(300)
@given(case=cases(), version=st.sampled_from(["0.1.21", "4.0.1", "5.5.1", "6.26.3"]))
def test_nothing_silent_stays_so(root: Path, case: Case, version: str) -> None:
    case = case._replace(environ={**case.environ, "HOME": "{root}/home"})
    case.lay_out(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root / "cwd")
        try:
            report = check(Context(case.environ_in(root)), None, [], launcher=version)
        except TaoprofError as error:
            assert error.message
            return
    found = {finding.id for finding in report.findings}
    for finding in report.findings:
        assert finding.lines()
    prediction = report.prediction
    assert prediction is not None
    if prediction.refusal is not None:
        assert counts(report.findings)[ERROR], prediction.refusal
        return
    for change in prediction.changes:
        if change.kind == "dropped-same-source" and change.was in shown_mounts(report):
            continue  # twice the same, so nothing is lost
        if change.kind == "moved-destination" and posixpath.normpath(f"/{change.was.lstrip('/')}") == change.now:
            continue  # //data
        assert change.kind not in NAMES or found & NAMES[change.kind], change
