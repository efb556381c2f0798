"""What is read is what happens, or unknown: never something else, whatever a condition turns out to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from taoprofiles.importer import build
from taoprofiles.importer.state import Unknown
from tests.importer.evaluator_cases import ALIASES, CELLS, CONTROL, LATER, VALUES
from tests.importer.notebook_execution import Execution, execute
from tests.importer.notebooks import read, write
from tests.support.home import ALL
from tests.support.notebooks import notebook

START = "import json, os, time\nfrom pathlib import Path\nYES, NO = time.time() > 0, time.time() < 0\n"
CASES = {
    f"{code}; {expression}": [f"{code}\nos.environ['R'] = {expression}"]
    for code, expression in CONTROL + LATER + VALUES + ALIASES
}
CASES |= {"; ".join(cells): cells for cells in CELLS}
if not ALL:  # each one is run in a kernel of its own
    CASES = dict(list(CASES.items())[::4])


@pytest.fixture(scope="module")
def executions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Execution]:
    return execute(tmp_path_factory.mktemp("doubtful"), {name: [START, *cells] for name, cells in CASES.items()})


def differs(evaluated: Any, real: Any) -> bool:
    """Check whether something known is not what it really is."""
    if isinstance(evaluated, Unknown):
        return False
    if isinstance(evaluated, dict) and isinstance(real, dict):
        return evaluated.keys() != real.keys() or any(differs(evaluated[key], real[key]) for key in evaluated)
    if isinstance(evaluated, list) and isinstance(real, list):
        return len(evaluated) != len(real) or any(map(differs, evaluated, real))
    return bool(evaluated != real)


@pytest.mark.parametrize("name", CASES)
def test_static_evaluation_equals_execution_or_is_unknown(executions: dict[str, Execution], name: str) -> None:
    home, folder, cells, real = executions[name]
    result = read(home, notebook(cells), folder=folder)
    left_out = {variable for variable, _ in result.left_out} | {"HOME"}
    known = {variable: value for variable, value in result.variables.items() if variable not in left_out}
    assert {variable: real.environ.get(variable) for variable in known} == known
    notes = " ".join(result.notes)
    if "may set variables" not in notes and "name is not known" not in notes:
        assert real.environ.keys() - left_out == known.keys()
    if "under a condition" not in notes:
        assert not differs(result.mapping, real.mapping)


@pytest.mark.parametrize(
    "cells",
    [
        ["os.environ['A'] = '1'\nif NO:\n    raise SystemExit\nos.environ['B'] = '2'"],
        ["os.environ['A'] = '1'\nimport a_library_that_is_there\nos.environ['B'] = '2'"],
        ["os.environ['A'] = '1'\ntime.sleep(0)\nassert YES\nos.environ['B'] = '2'"],
    ],
)
def test_what_is_unknown_is_taken_not_to_fail_the_cell(tmp_path: Path, cells: list[str]) -> None:
    assert read(tmp_path, notebook([START, *cells])).variables == {"A": "1", "B": "2"}


@pytest.mark.parametrize(
    "write_again",
    [
        "(Path.home() / 'x').with_name('.tao_mounts.json').write_text('{}')",
        "os.remove(os.path.expanduser('~/.tao_mounts.json'))",
    ],
)
def test_a_mounts_file_that_is_changed_in_another_way_is_unknown(tmp_path: Path, write_again: str) -> None:
    first = "m = {'Mounts': []}\n" + write("m")
    assert isinstance(read(tmp_path, notebook([START, first, write_again])).mapping, Unknown)


@pytest.mark.parametrize("spoilt", ["open(p, 'w').close()", "json.dump({'a': os}, open(p, 'w'))"])
def test_an_empty_mounts_file_is_not_imported(tmp_path: Path, spoilt: str) -> None:
    first = "m = {'Mounts': []}\np = os.path.expanduser('~/.tao_mounts.json')\n" + write("m")
    assert read(tmp_path, notebook([START, first])).mapping == {"Mounts": []}
    assert read(tmp_path, notebook([START, first, spoilt])).mapping is None


@pytest.mark.parametrize(
    "expression",
    [
        "os.path.dirname(os.environ['A'])",
        "str(Path(os.environ['B']).parent.parent)",
        "os.path.abspath(os.environ['A'] + '/..')",
        "os.environ['B'].lower()",
        "os.environ['B'].replace('FIXME', 'x')",
        "os.environ['B'].split('/')[1]",
    ],
)
def test_a_part_of_a_placeholder_is_unknown(tmp_path: Path, expression: str) -> None:
    cell = f"os.environ['A'] = 'FIXME'\nos.environ['B'] = os.environ['A'] + '/b'\nos.environ['C'] = {expression}"
    assert "C" not in read(tmp_path, notebook([START, cell])).variables
    assert "C" in read(tmp_path, notebook([START, cell]), A="/mine").variables


def test_a_value_made_of_a_path_refers_to_its_variable(tmp_path: Path) -> None:
    cell = (
        "os.environ['A'] = '/a/b'\np = Path(os.environ['A'])\nm = {'Mounts': [\n"
        "    {'source': str(p / 'x'), 'destination': '/x'},\n"
        "    {'source': '%s/y' % p, 'destination': '/y'},\n"
        "    {'source': 'ROOT/z'.replace('ROOT', f'{p}'), 'destination': '/z'},\n"
        "    {'source': os.path.expandvars('${A}/v'), 'destination': '/v'},\n"
        "    {'source': os.fspath(Path.home() / 'h'), 'destination': '/h'},\n"
        "]}\n(Path.home() / '.tao_mounts.json').write_text(json.dumps(m))"
    )
    result = read(tmp_path, notebook([START, cell]))
    profile, _ = build.build(result, name="net", where="file")
    sources = [mount.source for mount in profile.mounts or []]
    assert sources == ["${A}/x", "${A}/y", "${A}/z", "${A}/v", "~/h"]
