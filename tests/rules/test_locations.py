"""Lines of a mounts file: each value is found on the line that it stands on, whatever the text looks like."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.launcher.behaviour import Host, Location, ResolvedMount
from taoprofiles.rules import container
from taoprofiles.rules.finding import find_lines, in_file
from tests.support.generated_profiles import any_text, moderate

leaves = st.just("LEAF")
shapes = st.recursive(
    leaves, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(any_text, inner, max_size=4))
)


def marked(shape: Any, path: tuple[str | int, ...], numbers: Any, markers: dict[tuple[str | int, ...], int]) -> Any:
    """Return the shape with a number of its own in each leaf, and note which."""
    if isinstance(shape, list):
        return [marked(part, (*path, i), numbers, markers) for i, part in enumerate(shape)]
    if isinstance(shape, dict):
        return {key: marked(part, (*path, key), numbers, markers) for key, part in shape.items()}
    markers[path] = next(numbers)
    return markers[path]


@moderate(200)
@given(shapes, st.sampled_from([None, 0, 1, "\t"]), st.booleans(), st.sampled_from(["", "\n\n", " \r\n"]))
def test_every_leaf_is_found_on_its_line(shape: Any, indent: Any, ascii_only: bool, before: str) -> None:
    markers: dict[tuple[str | int, ...], int] = {}
    value = marked(shape, (), itertools.count(700_000_001), markers)
    text = before + json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    numbers = find_lines(text)
    for path, marker in markers.items():
        assert str(marker) in text.split("\n")[numbers.find(path).line - 1]


@moderate(200)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers()), max_size=6))
def test_of_a_repeated_key_the_last_line_counts(pairs: list[tuple[str, int]]) -> None:
    numbers = find_lines("{\n" + ",\n".join(f'"{key}": {value}' for key, value in pairs) + "\n}")
    for key in {key for key, _ in pairs}:
        last = max(i for i, (name, _) in enumerate(pairs) if name == key)
        assert numbers.parts[key].line == last + 2


def test_a_repeated_list_has_the_lines_of_the_last() -> None:
    text = '{"Mounts": [\n{},\n{}\n],\n"Mounts": [\n{"source": "/a"}]}'
    locate = in_file("f", find_lines(text))
    assert locate(Location("Mounts", 0, "source")) == "f:6 (Mounts[0].source)"
    assert locate(Location("Mounts", 1)) == "f:5 (Mounts[1])", "not the line of the first"


@pytest.mark.parametrize("source", ["/nowhere", "/"])
def test_thousands_of_mounts_take_no_time(source: str) -> None:
    """Those whose source exists are also compared with each other."""
    written = {"source": "/x", "destination": "/y"}
    entries = [ResolvedMount(Location("Mounts", number), source, f"/data/{number}", written) for number in range(8000)]
    began = time.process_time()
    assert len(list(container.check_mounts(entries, str, Host({}, "/")))) >= 7999
    assert time.process_time() - began < 10  # it took 17 s and 50 s


def test_thousands_of_repeated_keys_take_no_time() -> None:
    once = ",".join(f'"k{number}": [1]' for number in range(20_000))
    began = time.process_time()
    numbers = find_lines(f"{{{once},\n{once}}}")
    assert time.process_time() - began < 10  # it took minutes
    assert numbers.parts["k1"].parts[0].line == 2
