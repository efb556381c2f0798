"""Whatever a mounts file holds: what does not reach Docker as it is written is a finding."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.check.report import check
from taoprofiles.errors import TaoprofError
from taoprofiles.rules.finding import ERROR, counts
from taoprofiles.storage.paths import Context
from tests.support.generated_profiles import moderate
from tests.support.launcher_cases import Case, cases, make_tree


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("oracle").resolve()
    make_tree(root)
    return root


@moderate(300)
@given(case=cases(), version=st.sampled_from(["0.1.21", "4.0.1", "5.5.1", "6.26.3"]))
def test_nothing_is_lost_without_a_finding(root: Path, case: Case, version: str) -> None:
    case = case._replace(environ={**case.environ, "HOME": "{root}/home"})
    case.lay_out(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root / "cwd")
        patch.setenv("HOME", f"{root}/home")
        try:
            report = check(Context(case.environ_in(root)), None, [], launcher=version)
        except TaoprofError as error:
            assert error.message
            return
        ids = {finding.id for finding in report.findings}
        assert all(finding.lines() for finding in report.findings)
        prediction = report.prediction
        assert prediction is not None
        if prediction.refusals:
            assert counts(report.findings)[ERROR], prediction.refusals
            return
        if prediction.source_file is None or prediction.call is None:
            assert ids & {"no-mapping-file", "lm-bad-path", "json-parse", "tao-docker-disabled"}
            return
        pairs: list[list[tuple[str, object]]] = []
        data = json.loads(
            Path(prediction.source_file).read_bytes(), object_pairs_hook=lambda p: pairs.append(p) or dict(p)
        )
        assert all(len(dict(object)) == len(object) for object in pairs) or "json-dup-key" in ids
        entries = [*data["Mounts"], *data.get("Envs", [])]
        used = ("source", "destination", "variable", "value")
        ignored = [key for entry in entries for key in entry if key not in used and entry[key] not in ("rw", False)]
        assert ignored == [] or "key-ignored" in ids
        for mount in data["Mounts"]:
            source = os.path.realpath(os.path.expanduser(mount["source"]))
            destination = os.path.normpath("/" + mount["destination"].lstrip("/"))  # normpath alone keeps '//data'
            reached = prediction.call.volumes.get(source) == destination
            assert reached or ids & {"src-duplicate", "dst-symlinked-on-host", "dst-relative"}, mount
        for entry in data.get("Envs", []):
            assert f"{entry['variable']}={entry['value']}" in prediction.call.environment
            is_text = isinstance(entry["variable"], str) and isinstance(entry["value"], str)
            assert is_text or ids & {"env-null", "env-not-text"}, entry
        names = [str(entry["variable"]) for entry in data.get("Envs", [])]
        assert len(names) == len(set(names)) or "env-twice" in ids
