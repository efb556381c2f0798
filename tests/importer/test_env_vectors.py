"""How ``%env`` and its relatives may be spelt, and what each spelling sets: as read, and as IPython does it.

In ``env_vectors.json``: a first cell, a second one, the value of the variable K after them (null: not set), and what
the second one raises.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.importer.notebook_execution import Job, Outcome, execute
from tests.importer.notebooks import read
from tests.support.home import require
from tests.support.notebooks import notebook

VECTORS: list[tuple[str, str, str | None, str | None]] = [
    tuple(one) for one in json.loads(Path(__file__).with_name("env_vectors.json").read_text())
]
NAMES = [f"{setup}; {cell}".removeprefix("; ") for setup, cell, _, _ in VECTORS]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    require(find_spec("IPython"), "IPython is not installed")
    root = tmp_path_factory.mktemp("vectors")
    homes = [root / str(number) for number in range(len(VECTORS))]
    return execute([Job(str(home), str(home), [v[0], v[1]]) for home, v in zip(homes, VECTORS, strict=True)])


@pytest.mark.parametrize("number", range(len(VECTORS)), ids=NAMES)
def test_ipython_does_what_the_vector_says(outcomes: list[Outcome], number: int) -> None:
    _, _, value, error = VECTORS[number]
    assert outcomes[number].environ.get("K") == value
    assert outcomes[number].errors == ([] if error is None else [error])


@pytest.mark.parametrize(("setup", "cell", "value", "error"), VECTORS, ids=NAMES)
def test_reading_finds_the_same(tmp_path: Path, setup: str, cell: str, value: str | None, error: str | None) -> None:
    found = read(tmp_path, notebook([setup, cell]))
    assert found.variables.get("K") == value or (found.left_out and value == "FIXME")
    doubts = ("nothing expands", "keeps the comment", "the quotes are")
    notes = [note for note in found.notes if not any(doubt in note for doubt in doubts)]
    assert (notes == []) == (error is None), found.notes
