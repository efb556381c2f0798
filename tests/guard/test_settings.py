"""The settings file: every key with a default, every fault said as a profile's is."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.errors import InvalidStateError
from taoprofiles.guard.settings import Settings, parse

PAGE = Path(__file__).parents[2] / "docs/reference/settings.md"


@given(st.booleans(), st.integers(0, 100_000), st.booleans())
def test_what_is_written_is_read(seal: bool, restores: int, notices: bool) -> None:
    settings = Settings(seal=seal, restores=restores, notices=notices)
    assert parse(tomli_w.dumps(settings.model_dump()).encode(), "x") == settings


@given(st.dictionaries(st.sampled_from([*Settings.model_fields, "seel", ""]), st.none() | st.text() | st.integers()))
def test_any_table_is_settings_or_one_clear_error(table: dict) -> None:
    text = tomli_w.dumps({key: value for key, value in table.items() if value is not None}).encode()
    try:
        assert isinstance(parse(text, "x"), Settings)
    except InvalidStateError as error:
        assert error.problems and error.hint
        assert all(problem.split(":")[0].strip('"') in table for problem in error.problems)


@given(st.binary(max_size=200))
def test_any_bytes_are_settings_or_one_clear_error(content: bytes) -> None:
    try:
        parse(content, "x")
    except InvalidStateError as error:
        assert error.problems


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("seel = true", "seel: unknown key; did you mean 'seal'?"),
        ("nothing = 1", "nothing: unknown key; known are seal, restores, notices"),
        ('seal = "yes"', "seal: must be true or false, without quotes"),
        ("restores = -1", "restores: must be at least 0"),
        ("restores = 1.5", "restores: must be a whole number, without quotes"),
    ],
)
def test_a_fault_says_what_where_and_why(text: str, told: str) -> None:
    with pytest.raises(InvalidStateError) as caught:
        parse(text.encode(), "x")
    assert caught.value.problems == [told]


def test_the_reference_has_every_key_with_its_default() -> None:
    page = PAGE.read_text()
    for name, field in Settings.model_fields.items():
        default = str(field.default).lower()
        assert f"| `{name}` | `{default}` |" in page
        assert f"{name} = {default}\n" in page
