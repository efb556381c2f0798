"""What differs between two mappings, and what of it may be shown."""

from __future__ import annotations

import copy
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.errors import InvalidStateError
from taoprofiles.launcher.behaviour import behaviour_or_newest
from taoprofiles.mounts import mapping
from taoprofiles.profiles.model import Docker, Profile, template
from taoprofiles.profiles.rendering import Renderer
from tests.support.generated_profiles import fixed_context, moderate, names, value_text

SECRET = "S3CR3T"
MOUNT = {"source": "/a", "destination": "/b"}


@st.composite
def rendered(draw: st.DrawFn) -> dict[str, Any]:
    """A mapping as profiles render them; few names, so that two of them often share some."""
    places = st.sampled_from(["/a", "/b", "/c"])
    pairs = zip(*(draw(st.lists(places, unique=True, max_size=3)) for _ in range(2)), strict=False)
    options = {
        "shm_size": st.sampled_from(["1G", "2G", 1]),
        "ulimits": st.dictionaries(st.sampled_from(["stack", "memlock"]), st.integers(-1, 1)),
        "tty": st.booleans(),
    }
    data = {
        "layout": "custom",
        "mounts": [{"source": source, "destination": destination} for source, destination in pairs],
        "container": {"env": draw(st.dictionaries(st.sampled_from("ABC"), st.sampled_from(["1", "2", ""])))},
        "docker": draw(st.fixed_dictionaries({}, optional=options)),
    }
    profile_template = template(Profile.model_validate(data), name="a")
    return Renderer(profile_template, fixed_context({}), name="a", path="").mapping()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "1", "true", "null", "[]"]) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)


@st.composite
def foreign(draw: st.DrawFn) -> dict[str, Any]:
    """A mounts file as anybody may have written it: well formed in the main, but not everywhere."""
    mount = st.fixed_dictionaries(
        {"source": st.sampled_from(["/a", "/b"]), "destination": st.sampled_from(["/a", "/b"])}
    )
    env = st.fixed_dictionaries({"variable": st.sampled_from("AB"), "value": st.sampled_from(["1", 1, "2", True])})
    sections = {
        "Mounts": st.lists(mount | json_values, max_size=2) | json_values,
        "Envs": st.lists(env | json_values, max_size=2) | json_values,
        "DockerOptions": st.dictionaries(st.sampled_from(["tty", "user"]), json_values, max_size=2) | json_values,
        "Other": json_values,
    }
    return draw(st.fixed_dictionaries({}, optional=sections))


def differ(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Check whether they are not the same, after checking that the digests say so too."""
    first, second = mapping.to_bytes(a), mapping.to_bytes(b)
    same = mapping.same(first, second)
    assert (mapping.digest(first) == mapping.digest(second)) == same
    return not same


@moderate(50)
@given(rendered(), rendered())
def test_no_changes_where_two_renderings_are_equal_and_only_there(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert mapping.changes(a, a) == mapping.changes(b, copy.deepcopy(b)) == []
    assert bool(mapping.changes(a, b)) == bool(mapping.changes(b, a))
    by_place = [{"Mounts": sorted(map(json.dumps, m["Mounts"])), "Envs": sorted(map(json.dumps, m.get("Envs", []))),
                 "DockerOptions": m.get("DockerOptions")} for m in (a, b)]  # fmt: skip
    if by_place[0] != by_place[1]:
        assert mapping.changes(a, b)
    else:
        assert not mapping.changes(a, b)


@moderate(100)
@given(foreign(), foreign())
def test_changes_of_any_file_are_told_where_it_counts_as_another(a: dict[str, Any], b: dict[str, Any]) -> None:
    """``diff`` says "the same" just where ``status`` says "active"."""
    assert bool(mapping.changes(a, b)) == differ(a, b)
    assert mapping.difference_counter(a)(b) == len(mapping.changes(b, a))


@pytest.mark.parametrize(
    ("a", "b", "is_same"),
    [
        ({"Mounts": [], "Envs": []}, {"Mounts": []}, True),
        ({"Mounts": [], "DockerOptions": {}}, {"Mounts": []}, True),
        ({"Mounts": []}, {}, False),
        ({"Envs": [{"variable": "A", "value": 1}]}, {"Envs": [{"variable": "A", "value": "1"}]}, False),
        ({"DockerOptions": {"tty": "true"}}, {"DockerOptions": {"tty": True}}, False),
        ({"Mounts": [""]}, {"Mounts": [None]}, False),
        ({"Other": 1}, {"Other": 1.0}, False),
        ({"Other": 1}, {"Other": True}, False),
        (
            {"Mounts": [{"source": "/a", "destination": "/b"}] * 2},
            {"Mounts": [{"source": "/a", "destination": "/b"}]},
            False,
        ),
    ],
)
def test_pairs_that_look_alike(a: dict[str, Any], b: dict[str, Any], is_same: bool) -> None:
    assert differ(a, b) == bool(mapping.changes(a, b)) == bool(mapping.changes(b, a)) == (not is_same)


@moderate(50)
@given(foreign(), st.data())
def test_what_the_launcher_treats_alike_is_the_same(a: dict[str, Any], data: st.DataObject) -> None:
    """The order of mounts and variables, and whether there is an empty section or none."""
    b = dict(data.draw(st.permutations(list(a.items()))))
    for section, key in (("Mounts", "destination"), ("Envs", "variable")):
        items = b.get(section)
        if isinstance(items, list) and items:
            places = [json.dumps(item[key]) if isinstance(item, dict) and key in item else None for item in items]
            if len(set(places)) == len(places):  # of two with one name the last one counts
                b[section] = data.draw(st.permutations(items))
    for section, empty in (("Envs", []), ("DockerOptions", {})):
        if b.get(section, empty) == empty:
            b.pop(section, None)
            b |= data.draw(st.sampled_from([{}, {section: empty}]))
    assert not differ(a, b)
    assert mapping.changes(a, b) == []


@moderate(40)
@given(st.binary(max_size=6) | st.sampled_from([b"{}", b"[]", b" {}"]), st.sampled_from([b"{}", b"{", b""]))
def test_any_bytes_are_the_same_where_their_digests_are(a: bytes, b: bytes) -> None:
    assert mapping.same(a, b) == (mapping.digest(a) == mapping.digest(b))


def test_a_type_that_alone_differs_can_be_seen() -> None:
    (change,) = mapping.changes(*({"Envs": [{"variable": "A", "value": value}]} for value in (1, "1")))
    assert change.lines(reveal=False) == ["- env A = 1", '+ env A = "1"']


def test_options_of_the_launcher_are_those_of_the_form() -> None:
    assert set(Docker.model_fields) == set(behaviour_or_newest("").options)


def test_each_change_is_told_by_what_the_container_sees() -> None:
    a = {
        "Mounts": [{"source": "/s", "destination": "/d"}, {"source": "/old", "destination": "/x"}],
        "Envs": [{"variable": "A", "value": "1"}, {"variable": "B", "value": "2"}],
        "DockerOptions": {"tty": True, "user": "1:1"},
    }
    b = {
        "Mounts": [{"source": "/new", "destination": "/x"}, {"source": "/s", "destination": "/d"}],
        "Envs": [{"variable": "B", "value": "3"}, {"variable": "C", "value": "4"}],
        "DockerOptions": {"user": "1:1", "ulimits": {"stack": 1}},
    }
    changes = [(change.what, change.key, change.a, change.b) for change in mapping.changes(a, b)]
    assert changes == [
        ("mount", "/x", "/old", "/new"),
        ("env", "A", "1", None),
        ("env", "B", "2", "3"),
        ("docker", "tty", "true", None),
        ("env", "C", None, "4"),
        ("docker", "ulimits", None, '{"stack": 1}'),
    ]
    lines = [line for change in mapping.changes(a, b) for line in change.lines(reveal=False)]
    assert lines[:3] == ["- mount /old on /x", "+ mount /new on /x", "- env A = 1"]


@pytest.mark.parametrize(
    "section",
    [
        {"Envs": [{"variable": "NGC_KEY", "value": SECRET}]},
        {"Envs": [{"variable": "ngc_api_key", "value": SECRET}, {"variable": "ngc_api_key", "value": SECRET}]},
        {"Envs": {"NGC_KEY": SECRET}},
        {"Envs": [{"NGC_KEY": SECRET}]},
        {"Envs": [f"NGC_KEY={SECRET}"]},
        {"Envs": f"NGC_KEY={SECRET}"},
        {"envs": [{"variable": "NGC_KEY", "value": SECRET}]},
        {"DockerOptions": {"NGC_KEY": SECRET}},
        {"DockerOptions": {"environment": {"NGC_KEY": SECRET}}},
        {"DockerOptions": {"environment": [f"NGC_KEY={SECRET}"]}},
        {"DockerOptions": [SECRET]},
        {"Mounts": [{"source": "/a", "key": SECRET}]},
        {"Mounts": [SECRET]},
        {"Other": SECRET},
    ],
    ids=json.dumps,
)
def test_secrets_are_masked_wherever_they_stand(section: dict[str, Any]) -> None:
    for changes in (mapping.changes({}, section), mapping.changes(section, {}), mapping.changes(section, {"Envs": []})):
        assert changes
        for change in changes:
            assert SECRET not in json.dumps(change.as_dict(reveal=False))
            assert SECRET not in "".join(change.lines(reveal=False))
    assert SECRET in json.dumps([change.as_dict(reveal=True) for change in mapping.changes({}, section)])


@moderate(50)
@given(names, value_text, value_text)
def test_values_are_masked_by_name(name: str, a: str, b: str) -> None:
    a, b = f"<{a}>", f"<{b}!"
    first, second = ({"Envs": [{"variable": f"{name}_KEY", "value": value}]} for value in (a, b))
    (change,) = mapping.changes(first, second)
    assert change.as_dict(reveal=False) == {"what": "env", "key": f"{name}_KEY", "a": "***", "b": "***"}
    assert change.as_dict(reveal=True)["a"] == a
    assert mapping.secrets(first) == [f"{name}_KEY"]


# Bytes


@moderate(50)
@given(st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_bytes_and_back(data: dict[str, Any]) -> None:
    content = mapping.to_bytes(data)
    assert content.isascii()
    assert mapping.parse(content, "") == data
    assert mapping.same(content, json.dumps(data, ensure_ascii=False).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"null",
        b'"x"',
        b"\xff",
        b"[" * 200_000,
        b"{}{}",
        b"\0",
        b'{"a":' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_mounts_file(content: bytes) -> None:
    with pytest.raises(InvalidStateError) as caught:
        mapping.parse(content, "FILE")
    assert "'FILE'" in caught.value.message
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    "items", [[[]], [{"destination": "/d", "source": "/s"}], [{"destination": "/d", "source": 1}, []]], ids=json.dumps
)
def test_very_many_items_of_one_name(items: list[Any]) -> None:
    """Time and memory grow with the file and not with its square: a megabyte of '[]' took 22 GB."""
    tracemalloc.start()
    try:
        content = mapping.to_bytes({"Mounts": items * (8000 // len(items))})
        assert mapping.changes(mapping.parse(content, ""), {"Mounts": []})
        assert mapping.digest(content)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_same() -> None:
    assert mapping.same(None, None)
    assert not mapping.same(None, b"{}")
    assert not mapping.same(b"{}", None)
    assert mapping.same(b'{"a": 1, "b": 2}', b'{"b":2,\n"a":1}')


def test_a_source_in_the_home_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ana")
    short, long = ({"Mounts": [{"source": source, "destination": "/d"}]} for source in ("~/x", "/home/ana/x"))
    assert mapping.changes(short, long) == []
    assert mapping.difference_counter(short)(long) == 0
    assert mapping.digest(mapping.to_bytes(short)) != mapping.digest(mapping.to_bytes(long)), (
        "as earlier versions stored it"
    )
    (change,) = mapping.changes(short, {"Mounts": [{"source": "~/y", "destination": "/d"}]})
    assert (change.a, change.b) == ("/home/ana/x", "/home/ana/y")
