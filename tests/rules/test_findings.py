"""Every check finds what it is for, and is silent where there is nothing to find."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from tests.support.commands import call
from tests.support.home import Home
from tests.support.profile_cases import CASES, SetUp

ROOT = Path(__file__).parents[2]
SECTIONS = dict(re.split(r"\n+", part, maxsplit=1) for part in
                re.split(r"^### ", (ROOT / "docs/reference/checks.md").read_text(), flags=re.M)[1:])  # fmt: skip
"""The text of the documentation by the id of the check."""


def find_ids(home: Home, prepare: SetUp) -> dict[str, str]:
    """Return what is found in a set-up: the severity by id."""
    prepared = prepare(home)
    if isinstance(prepared, tuple):
        return {finding.id: finding.severity for finding in prepared}
    words = prepared if "--" in prepared else [*prepared, "--json"]
    done = call(home, "--json", "check", *words) if "--" in prepared else call(home, "check", *words)
    assert done.out, done
    data = done.envelope["data"]
    assert done.status == (3 if data["counts"]["error"] else 0)
    for finding in data["findings"]:
        assert all(isinstance(finding[key], str) for key in ("id", "severity", "where", "what", "why", "hint"))
        assert finding["where"]
        assert finding["what"]
    return {finding["id"]: finding["severity"] for finding in data["findings"]}


@pytest.mark.parametrize("name", CASES)
def test_found(home: Home, name: str) -> None:
    id = name.partition(":")[0]
    severity = find_ids(home, CASES[name][0])[id]
    assert f"**{severity}" in SECTIONS[id].lower()


@pytest.mark.parametrize("name", CASES)
def test_not_found_where_it_is_sound(home: Home, name: str) -> None:
    assert name.partition(":")[0] not in find_ids(home, CASES[name][1])


def test_a_command_to_paste_is_quoted(home: Home) -> None:
    folder = f"{home.root}/a b;touch x"
    written = {"Mounts": [{"source": folder, "destination": "/data"}]}
    home.mapping_file.write_text(json.dumps(written))
    findings = call(home, "check", "--json").envelope["data"]["findings"]
    assert [finding["hint"] for finding in findings if finding["id"] == "src-missing"] == [f"mkdir -p '{folder}'"]


def test_every_check_has_its_section() -> None:
    constants: set[str] = set()
    ids: set[str] = set()
    for package in ("rules", "check", "doctor"):
        for path in (ROOT / "taoprofiles" / package).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    constants.add(node.value)
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("error", "warning", "info", "Finding"):
                    id = node.args[0]
                    ids |= {id.value} if isinstance(id, ast.Constant) else set()
    assert ids <= SECTIONS.keys()
    assert SECTIONS.keys() <= constants
