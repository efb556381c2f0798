"""How ``%env`` and its relatives may be spelt, and what each spelling sets: as read, and as IPython does it.

In ``env_vectors.json``: a first cell, a second one, the value of the variable K after them (null: not set), and what
the second one raises.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.importer.notebook_execution import Execution, execute
from tests.importer.notebooks import read
from tests.support.notebooks import notebook

Vector: TypeAlias = tuple[str, str, str | None, str | None]
VECTORS: list[Vector] = [
    tuple(vector) for vector in json.loads(Path(__file__).with_name("env_vectors.json").read_text())
]
NAMES = [f"{setup}; {cell}".removeprefix("; ") for setup, cell, _, _ in VECTORS]


@pytest.fixture(scope="module")
def executions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Execution]:
    cells = {name: [setup, cell] for name, (setup, cell, _, _) in zip(NAMES, VECTORS, strict=True)}
    return execute(tmp_path_factory.mktemp("vectors"), cells)


@pytest.mark.parametrize(("name", "vector"), list(zip(NAMES, VECTORS, strict=True)), ids=NAMES)
def test_ipython_does_what_the_vector_says(executions: dict[str, Execution], name: str, vector: Vector) -> None:
    _, _, value, error = vector
    real = executions[name].outcome
    assert real.environ.get("K") == value
    assert real.errors == ([] if error is None else [error])


@pytest.mark.parametrize(("setup", "cell", "value", "error"), VECTORS, ids=NAMES)
def test_reading_finds_the_same(tmp_path: Path, setup: str, cell: str, value: str | None, error: str | None) -> None:
    result = read(tmp_path, notebook([setup, cell]))
    assert result.variables.get("K") == value or (result.left_out and value == "FIXME")
    doubts = ("nothing expands", "keeps the comment", "the quotes are")
    notes = [note for note in result.notes if not any(doubt in note for doubt in doubts)]
    assert (notes == []) == (error is None), result.notes
