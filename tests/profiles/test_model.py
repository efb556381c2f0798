"""The form of a profile: what is read and written, what is refused and how, and what it is rendered to."""

from __future__ import annotations

import json
import time
import tomllib
import tracemalloc
from typing import Any

import jsonschema
import pytest
import tomli_w
from hypothesis import given

from taoprofiles.errors import InvalidProfileError
from taoprofiles.mounts import mapping
from taoprofiles.profiles.model import DOTS_LIMIT, Profile, json_schema, parse, template, to_toml
from taoprofiles.profiles.rendering import SIZE_LIMIT, Renderer
from taoprofiles.storage.paths import Context
from tests.support.generated_profiles import AROUND, fixed_context, moderate, valid_profiles

SCHEMA = jsonschema.Draft202012Validator(json_schema())

EXAMPLE = """\
schema = 1
description = "KITTI, DetectNet_v2 with ResNet-18"
layout = "local"                     # local | host | custom
project_dir = "~/tao/kitti"
notebook_dir = "~/tao/kitti/detectnet_v2"   # where the notebook and its specs/ are; default: project_dir
network = "detectnet_v2"             # default: the profile's name

[variables]                          # override or add to what the layout derives
KEY = "${env:NGC_KEY}"
NUM_GPUS = "1"

[[mounts]]                           # given here they replace the layout's
source = "${LOCAL_PROJECT_DIR}"
destination = "/workspace/tao-experiments"

[container.env]                      # the mapping's Envs
WANDB_API_KEY = "${env:WANDB_API_KEY}"

[docker]                             # the mapping's DockerOptions
user = "auto"                        # the caller's uid:gid at each use
shm_size = "16G"
[docker.ulimits]
memlock = -1
stack = 67108864
"""


def read(text: str | bytes) -> Profile:
    return parse(text if isinstance(text, bytes) else text.encode(), name="a", path="a.toml")


def problems(text: str | bytes) -> list[str]:
    """Return what is wrong with a profile, after checking that it is one error of the right form."""
    with pytest.raises(InvalidProfileError) as caught:
        read(text)
    error = caught.value
    assert (error.status, error.code) == (3, "invalid-profile")
    assert "'a'" in error.message
    assert "a.toml" in error.message
    assert "\n" not in error.message
    assert error.problems
    assert error.hint
    return error.problems


def render(profile: Profile, context: Context = AROUND) -> dict[str, Any]:
    return Renderer(template(profile, name="a"), context, name="a", path="a.toml").mapping()


# Reading and writing


def test_example_of_the_documentation() -> None:
    context = fixed_context({"NGC_KEY": "k", "WANDB_API_KEY": "w"})
    assert (
        mapping.to_bytes(render(read(EXAMPLE), context)).decode()
        == """\
{
    "Mounts": [
        {
            "source": "/home/ana/tao/kitti",
            "destination": "/workspace/tao-experiments"
        }
    ],
    "Envs": [
        {
            "variable": "WANDB_API_KEY",
            "value": "w"
        }
    ],
    "DockerOptions": {
        "user": "1000:1001",
        "shm_size": "16G",
        "ulimits": {
            "memlock": -1,
            "stack": 67108864
        }
    }
}
"""
    )


def test_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert json.loads(json.dumps(json_schema()))["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@moderate(60)
@given(valid_profiles())
def test_any_profile_is_written_read_and_rendered(profile: Profile) -> None:
    text = to_toml(profile)
    assert (read(text), to_toml(read(text))) == (profile, text)
    assert [error.message for error in SCHEMA.iter_errors(tomllib.loads(text))] == []
    try:
        rendered = render(profile)
    except InvalidProfileError:
        # Such as a path that is not absolute here, or a folder that is mounted twice: not every profile can be used.
        profile = profile.model_copy(update={"mounts": []})
        rendered = render(profile)
    content = mapping.to_bytes(rendered)
    assert set(rendered) <= {"Mounts", "Envs", "DockerOptions"}
    assert next(iter(rendered)) == "Mounts"
    assert rendered.get("Envs") != []
    assert rendered.get("DockerOptions") != {}
    assert all(set(mount) == {"source", "destination"} for mount in rendered["Mounts"])
    assert all(set(env) == {"variable", "value"} for env in rendered.get("Envs", []))
    assert rendered.get("DockerOptions", {}).get("user", "1000:1001") != "auto"
    assert content.isascii()
    assert content.endswith(b"}\n")
    assert mapping.parse(content, "") == rendered
    # ``use`` renders from the cache, so the first and every later use must give the same bytes.
    kept = json.loads(json.dumps(template(profile, name="a")))
    assert mapping.to_bytes(Renderer(kept, AROUND, name="a", path="").mapping()) == content
    assert mapping.to_bytes(render(read(to_toml(profile)))) == content


def test_user() -> None:
    def user(value: str) -> str:
        return render(read(f'layout = "custom"\n[docker]\nuser = "{value}"\n'))["DockerOptions"]["user"]

    assert user("auto") == "1000:1001"
    assert user("0:0") == "0:0"
    assert user("$$auto") == "$auto"
    assert user("${env:NGC_KEY}") == "from the environment"


def test_all_that_is_wrong_with_a_rendering_at_once() -> None:
    profile = read(
        'layout = "custom"\n[[mounts]]\nsource = "a"\ndestination = "b"\n'
        '[[mounts]]\nsource = "${env:NO1}"\ndestination = "/d"\n'
        '[[mounts]]\nsource = "/s"\ndestination = "/d/"\n'
        '[[mounts]]\nsource = "/s/../s"\ndestination = "/e"\n'
        '[container.env]\nX = "${env:NO2}"\n[docker]\nuser = "${env:NO3}"\n'
    )
    with pytest.raises(InvalidProfileError) as caught:
        render(profile)
    messages = caught.value.problems
    assert [problem.partition(":")[0] for problem in messages] == [
        "mounts[1].source",
        "mounts[0].source",
        "mounts[0].destination",
        "mounts[2].destination",
        "mounts[3].source",
        "container.env.X",
        "docker.user",
    ]


# Refusing


@pytest.mark.parametrize(
    ("text", "key", "meant"),
    [
        ("proyect_dir = '/p'", "proyect_dir", "project_dir"),
        ("Layout = 'local'", "Layout", "layout"),
        ("[variable]\nA = '1'", "variable", "variables"),
        ("[docker]\nshmsize = '1G'", "docker.shmsize", "shm_size"),
        ("[docker]\nulimit = {}", "docker.ulimit", "ulimits"),
        ("[[mounts]]\nsource = '/s'\ndestination = '/d'\nsorce = '/s'", "mounts[0].sorce", "source"),
        ("[container.envs]\nA = '1'", "container.envs", "env"),
        ("[containers.env]\nA = '1'", "containers", "container"),
        ("[[mount]]\nsource = '/s'", "mount", "mounts"),
    ],
)
def test_unknown_key(text: str, key: str, meant: str) -> None:
    first = "" if text.startswith("Layout") else "layout = 'custom'\n"
    assert f"{key}: unknown key; did you mean '{meant}'?" in problems(first + text)


def test_an_unknown_key_unlike_any_other_lists_the_valid_keys() -> None:
    (messages,) = problems("layout = 'custom'\nzzz = 1")
    assert messages.startswith("zzz: unknown key; known are ")
    assert all(key in messages for key in ("schema", "layout", "mounts", "docker"))
    assert "schema_" not in messages, "by the name in the file"


WRONG: dict[str, list[str]] = {
    "schema": ["schema = 2", "schema = '1'", "schema = true"],
    "description": ["description = 1", "description = ['a']"],
    "layout": ["layout = 'remote'", "layout = 1", "layout = ['local']"],
    "project_dir": ["project_dir = 1", "project_dir = {}", "project_dir = 2026-01-01"],
    "notebook_dir": ["notebook_dir = true"],
    "network": ["network = 1", "network = '../x'", "network = ''", "network = 'a b'", "network = '-x'",
                f"network = '{'a' * 65}'", 'network = "a\\n"'],
    "variables": ["variables = 1", "variables = ['A']"],
    "variables.A": ["variables.A = 1", "variables.A = true", "variables.A = 1.5", "variables.A = ['a']",
                    "variables.A.B = '1'", "variables.A = 2026-01-01T00:00:00Z", "variables.A = nan"],
    "variables.1A": ["variables.1A = 'x'"],
    "variables.A-B": ["variables.A-B = 'x'"],
    "mounts": ["mounts = 1", "mounts = '/s:/d'", "mounts = {source = '/s', destination = '/d'}"],
    "mounts[0]": ["mounts = [1]", "mounts = ['/s:/d']", "mounts = [[]]"],
    "mounts[0].source": ["mounts = [{destination = '/d'}]", "mounts = [{source = 1, destination = '/d'}]"],
    "mounts[1].destination": ["mounts = [{source = '/a', destination = '/b'}, {source = '/s'}]"],
    "container": ["container = 1"],
    "container.env": ["container.env = 1", "container.env = ['A=1']"],
    "container.env.A": ["container.env.A = 1", "container.env.A = {}"],
    "docker": ["docker = 1", "docker = []"],
    "docker.user": ["docker.user = 1000", "docker.user = []"],
    "docker.shm_size": ["docker.shm_size = 1.5", "docker.shm_size = 'much'", "docker.shm_size = true",
                        "docker.shm_size = -1", "docker.shm_size = 2026-01-01"],
    "docker.ulimits": ["docker.ulimits = 1", "docker.ulimits = ['memlock=-1']"],
    "docker.ulimits.memlock": ["docker.ulimits.memlock = '-1'", "docker.ulimits.memlock = 1.0",
                               "docker.ulimits.memlock = true", "docker.ulimits.memlock = {soft = 1, hard = 2}",
                               "docker.ulimits.memlock = inf"],
    "docker.ports": ["docker.ports = 8888", "docker.ports = ['8888:8888']"],
    "docker.ports.8888": ["docker.ports.8888 = '8888'", "docker.ports.8888 = 65536", "docker.ports.8888 = -1",
                          "docker.ports.8888 = true"],
    "docker.network": ["docker.network = 1"],
    "docker.privileged": ["docker.privileged = 'yes'", "docker.privileged = 1"],
    "docker.tty": ["docker.tty = 'true'", "docker.tty = 0"],
}  # fmt: skip


BEYOND_SCHEMA = {"docker.ulimits.memlock = 1.0", 'network = "a\\n"'}
"""JSON does not tell 1.0 from 1, and in Python's patterns ``$`` comes before a last line feed too."""


@pytest.mark.parametrize(("key", "text"), [(key, text) for key, texts in WRONG.items() for text in texts])
def test_wrong_type(key: str, text: str) -> None:
    whole = text if key == "layout" else f"layout = 'custom'\n{text}"
    assert text in BEYOND_SCHEMA or list(SCHEMA.iter_errors(tomllib.loads(whole))), "an editor shows it too"
    messages = problems(whole)
    assert any(problem.startswith(f"{key}:") for problem in messages), messages
    assert len(messages) == 1, "one fault, one line"
    assert "pydantic" not in str(messages).lower()
    assert "Value error" not in str(messages)


def test_a_text_in_the_place_of_a_table_is_no_wrong_image() -> None:
    assert problems("layout = 'custom'\nimages = 'x:1'") == ["images: must be a table"]
    assert problems("layout = 'custom'\nimages.dino = 'a b'") == [
        "images.dino: must be the name of an image, by the first words of a command"
    ]


@pytest.mark.parametrize("text", ["", "schema = 1", "[docker]\nuser = 'auto'"])
def test_layout_is_asked_for(text: str) -> None:
    assert problems(text) == ["layout: missing"]


@pytest.mark.parametrize("layout", ["local", "host"])
def test_project_dir_is_asked_for(layout: str) -> None:
    (messages,) = problems(f"layout = '{layout}'")
    assert messages.startswith("project_dir: missing")
    assert layout in messages
    assert list(SCHEMA.iter_errors({"layout": layout})), "an editor shows it too"
    assert not list(SCHEMA.iter_errors({"layout": layout, "project_dir": "/p"}))


def test_every_problem_at_once() -> None:
    messages = problems(
        "layout = 'locl'\nnosuch = 1\nnetwork = 3\n[variables]\nA = 1\nB = 2\n"
        "[[mounts]]\nsource = 1\n[docker]\ntty = 'x'\nulimits = 3\n"
    )
    keys = {problem.partition(":")[0] for problem in messages}
    assert keys == {
        *("layout", "nosuch", "network", "variables.A", "variables.B", "mounts[0].source", "mounts[0].destination"),
        *("docker.tty", "docker.ulimits"),
    }
    assert len(messages) == len(keys)


def test_every_unresolvable_expression_at_once() -> None:
    messages = problems(
        "layout = 'custom'\n[variables]\nA = '${B}'\nB = '${A}'\nC = '${NOSUCH}'\nD = 'a$'\nE = 'fine'\n"
        "[[mounts]]\nsource = '${X}'\ndestination = '${}'\n[container.env]\nF = '${Y}'\n[docker]\nuser = '${Z}'\n"
    )
    keys = [problem.partition(":")[0] for problem in messages]
    assert keys == [
        *("variables.A", "variables.B", "variables.C", "variables.D"),
        *("mounts[0].source", "mounts[0].destination", "container.env.F", "docker.user"),
    ]


@pytest.mark.parametrize("layout", ["local", "host"])
def test_folder_that_cannot_be_resolved(layout: str) -> None:
    for folders in ("project_dir = '${NOSUCH}/x'", "project_dir = '/p'\nnotebook_dir = '${NOSUCH}/x'"):
        messages = problems(f"layout = '{layout}'\n{folders}\n")
        assert all("there is no variable 'NOSUCH'" in problem for problem in messages)


def test_an_error_of_the_environment_is_not_an_error_of_the_profile() -> None:
    profile = read(
        "layout = 'custom'\n[variables]\nA = '${env:NOT_SET_HERE}'\n[[mounts]]\nsource='${A}'\ndestination='/d'\n"
    )
    assert profile.variables == {"A": "${env:NOT_SET_HERE}"}


# Bombs


def test_file_that_is_too_long() -> None:
    (messages,) = problems(b"#" * (SIZE_LIMIT + 1))
    assert str(SIZE_LIMIT) in messages
    read("layout = 'custom'\n" + "#" * (SIZE_LIMIT - 100))


def _repeated(unit: str, *, before: str = "", after: str = "") -> bytes:
    room = SIZE_LIMIT - len(before) - len(after) - 100
    return (before + unit * (room // len(unit)) + after).encode()


BOMBS: dict[str, bytes] = {
    "nested lists": _repeated("[", before="a = "),
    "nested closed lists": b"a = " + b"[" * 30_000 + b"]" * 30_000,
    "nested tables": _repeated("{a=", before="a = "),
    "dotted key": b"a." * 4000 + b"a = 1",
    "dotted table": b"[" + b"a." * 4000 + b"a]",
    "dotted key of quoted parts": _repeated("\"a\" . 'a' . ", after="a = 1"),
    "dotted table of quoted parts": _repeated("'a'.", before="[", after="a]"),
    "dotted keys": b"\n".join(b".".join([b"a"] * 31) + b".b%d = 1" % n for n in range(900)),
    "dotted tables": b"\n".join(b"[" + b".".join([b"a"] * 31) + b".b%d]" % n for n in range(900)),
    "many tables": b"".join(b"[a.b%d.c.d]\n" % n for n in range(4000)),
    "many list items": _repeated("[[mounts]]\n"),
    "many unknown keys": b"".join(b"k%d=1\n" % n for n in range(7000)),
    "many near keys": b"".join(b"layout%d=1\n" % n for n in range(4500)),
    "huge int": _repeated("1", before="schema = "),
    "huge hex": _repeated("f", before="schema = 0x"),
    "huge float": _repeated("1", before="schema = ", after=".5e9"),
    "long text": _repeated("x", before="description = '", after="'"),
    "long key": _repeated("x", after=" = 1"),
    "long wrong variable": _repeated("x-", before="[variables]\n", after=" = '1'"),
    "escapes": _repeated("\\u0041", before='description = "', after='"'),
    "quotes": _repeated("'", before="description = "),
    "backslashes": _repeated("\\", before='description = "'),
    "blank": _repeated(" ", before="layout ="),
    "zeros": b"\0" * SIZE_LIMIT,
    "not UTF-8": b"\xff\xfe" + "layout = 'custom'".encode("utf-16-le"),
    "BOM": b"\xef\xbb\xbf[",
    "many references": _repeated("${A}", before="layout='custom'\nvariables.A='", after="'"),
    "many dollars": _repeated("$", before="layout='custom'\nvariables.A='", after="'"),
    "open references": _repeated("${", before="layout='custom'\nvariables.A='", after="'"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bomb(bomb: str) -> None:
    started = time.process_time()
    messages = problems(BOMBS[bomb])
    assert time.process_time() - started < 5
    assert all(len(problem) < 600 for problem in messages), "no line that fills the screen"


DOTTED_KEY = b"a." * (DOTS_LIMIT - 4)


@pytest.mark.parametrize(
    "content",
    [
        b"a." * 8000 + b"a = 1",
        b"[" + b"a." * 8000 + b"a]",
        b"x = 1 # '\n" + b"a." * 8000 + b"a = 1",
        b"".join(DOTTED_KEY + b"b%d = 1\n" % number for number in range(160)),
        b"".join(b"[" + DOTTED_KEY + b"b%d]\n" % number for number in range(160)),
    ],
    ids=["key", "table", "second line", "many keys", "many tables"],
)
def test_long_dotted_key_takes_no_more_memory_than_it_is_worth(content: bytes) -> None:
    """The parser keeps each beginning of it: at the limit of a file that would be 60 GB."""
    assert memory_of(content) < 64 << 20


def test_many_values_of_the_greatest_length_are_refused() -> None:
    """Each within its limit, all of them together a gigabyte."""
    variables = {"A": "x" * 4000, "B": "${A}" * 16} | {f"C{n}": "x${B}" for n in range(2500)}
    content = tomli_w.dumps({"layout": "custom", "variables": variables}).encode()
    assert len(content) < SIZE_LIMIT
    assert memory_of(content) < 64 << 20


def memory_of(content: bytes) -> int:
    """Return the memory in bytes that a profile which is refused takes at most."""
    tracemalloc.start()
    try:
        problems(content)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
