"""The values of a spec file: compared with the formats' own writers, and read from any text."""

from __future__ import annotations

import json
import re
import time

import pytest
import tomli_w
import yaml
from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.masking import is_secret
from taoprofiles.rules.specs import SpecValue, path_in, read_values
from tests.support.generated_profiles import moderate

NO_PATHS = re.compile("regex|pattern|layer|node|tensor")
"""In a key: its values may begin with "/", and are no paths."""

names = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True).filter(
    lambda name: not is_secret(name) and not NO_PATHS.search(name)
)
letters = st.characters(categories=["L", "N", "P", "S"], exclude_characters="/\u2028\u2029\x85")
parts = st.text(st.one_of(st.sampled_from("ab .-_#'\"\\:,{}[]é"), letters), min_size=1, max_size=8).filter(
    lambda part: part.strip() == part and part.strip(".") != ""
)
found_paths = st.lists(parts, min_size=1, max_size=4).map(lambda ones: "/" + "/".join(ones))
others = st.one_of(st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False), names)
values = st.one_of(found_paths, others, st.text(letters, max_size=6).map(lambda text: "x" + text))
tables = st.recursive(
    st.dictionaries(names, st.one_of(values, st.lists(values, max_size=4)), max_size=5),
    lambda inner: st.dictionaries(names, st.one_of(values, inner, st.lists(inner, max_size=3)), max_size=4),
    max_leaves=12,
)


def texts(data: object) -> list[str]:
    """Return the paths of a table in the order in which they are written."""
    if isinstance(data, dict):
        return [path for value in data.values() for path in texts(value)]
    if isinstance(data, list):
        return [path for value in data for path in texts(value)]
    return [data] if isinstance(data, str) and data.startswith("/") else []


def paths(text: str, form: str) -> list[tuple[SpecValue, str]]:
    return [(value, path) for value in read_values(text, form)[0] if (path := path_in(value))]


def spec_texts(text: str, form: str) -> list[str]:
    return [path for _, path in paths(text, form)]


@moderate(150)
@given(tables, st.sampled_from([None, True, False]), st.booleans(), st.sampled_from([20, 80, 1000]))
def test_yaml(data: dict, flow: bool | None, unicode: bool, width: int) -> None:
    text = yaml.safe_dump(data, default_flow_style=flow, allow_unicode=unicode, width=width, sort_keys=False)
    assert spec_texts(text, "yaml") == texts(data)


@moderate(100)
@given(tables, st.sampled_from([None, 2]), st.booleans())
def test_json(data: dict, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(data, indent=indent, ensure_ascii=ascii_only)
    assert spec_texts(text, "json") == texts(data)
    if not ascii_only:  # YAML has no pairs of escapes for one character
        assert spec_texts(text, "yaml") == texts(data), "JSON is YAML, too"


@moderate(100)
@given(tables)
def test_toml(data: dict) -> None:
    text = tomli_w.dumps(data)
    # A table's own values are written before its tables.
    assert sorted(spec_texts(text, "toml")) == sorted(texts(data))


def prototxt(data: dict, indent: str = "") -> str:
    """Write a table as protobuf text, in the ways that NVIDIA's specs are written."""
    lines = []
    for number, (name, value) in enumerate(data.items()):
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                lines.append(f"{indent}{name} {{  # '/no/path' \"\n{prototxt(item, indent + '  ')}{indent}}}\n")
            elif isinstance(item, str):
                escaped = item.replace("\\", "\\\\").replace('"', '\\"').replace("'", "\\'")
                if number % 2:
                    escaped = "".join(c if c.isascii() else "".join(f"\\{b:03o}" for b in c.encode()) for c in escaped)
                lines.append(f'{indent}{name}: "{escaped}"\n' if number % 3 else f"{indent}{name}:'{escaped}'\n")
            else:
                lines.append(f"{indent}{name}: {item}\n")
    return "".join(lines)


@moderate(100)
@given(tables)
def test_protobuf_text(data: dict) -> None:
    text = "# a spec of '/nothing'\n" + prototxt(data)
    assert spec_texts(text, "prototxt") == texts(data)


@moderate(80)
@given(st.lists(st.tuples(st.sampled_from(["", "# /no/path", "a: 1", "b: 'x'"]), found_paths), max_size=6))
def test_lines(entries: list[tuple[str, str]]) -> None:
    wanted, written = [], {"yaml": "", "toml": "", "prototxt": "", "json": "{\n"}
    for number, (before, path) in enumerate(entries):
        quoted = json.dumps(path, ensure_ascii=False)
        comment = before if before.startswith("#") else ""
        written["yaml"] += f"{before}\nk{number}: {quoted} {comment}\n"
        written["toml"] += f"{comment}\nk{number} = {quoted} {comment}\n"
        written["prototxt"] += f"{comment}\nk{number}: {quoted} {comment}\n"
        written["json"] += f'\n"k{number}":\n{quoted},\n'
        wanted.append((2 * number + 2, f"k{number}", path))
    for form in ("yaml", "toml", "prototxt"):
        assert [(item.line, item.key, path) for item, path in paths(written[form], form)] == wanted
    as_json = [(item.line, item.key, path) for item, path in paths(written["json"], "json")]
    assert as_json == [(3 * number + 4, f"k{number}", path) for number, (_, path) in enumerate(entries)]


DINO = """\
# A spec of DINO.
dataset:
  train_data_sources:
    - image_dir: /data/raw-data/train2017/   # the images
      json_file: "/data/annotations/train.json"
  val_data_sources: [{image_dir: /data/val2017, json_file: '/data/val.json'}]
  num_classes: 91
train:
  num_gpus: 1
  pretrained_model_path: !!str /workspace/models/fan.pth
  resume_training_checkpoint_path:
    /results/a b.pth
results_dir: /results
wandb: {url: https://host/x, name: "https://host/y"}
notes: |
  /in/a/block
evaluate:
  checkpoint: ???
"""


def test_a_yaml_spec_as_people_write_it() -> None:
    spec_texts = [(item.line, item.keys[0], item.key, path) for item, path in paths(DINO, "yaml")]
    assert spec_texts == [
        (4, "dataset", "image_dir", "/data/raw-data/train2017/"),
        (5, "dataset", "json_file", "/data/annotations/train.json"),
        (6, "dataset", "image_dir", "/data/val2017"),
        (6, "dataset", "json_file", "/data/val.json"),
        (10, "train", "pretrained_model_path", "/workspace/models/fan.pth"),
        (12, "train", "resume_training_checkpoint_path", "/results/a b.pth"),
        (13, "results_dir", "results_dir", "/results"),
        (16, "notes", "notes", "/in/a/block"),
    ]
    assert (("evaluate", "checkpoint"), "???") in [item[1:] for item in read_values(DINO, "yaml")[0]]


URLS = 'a: "file:///a/b"\nb: "http://x/y"\n'


@pytest.mark.parametrize(
    ("form", "text"),
    [
        *(("yaml", URLS), ("prototxt", URLS), ("toml", URLS.replace(": ", " = "))),
        ("json", '{"a": "file:///a/b", "b": "http://x/y"}'),
    ],
)
def test_file_urls_are_paths_and_other_urls_are_not(form: str, text: str) -> None:
    assert spec_texts(text, form) == ["/a/b"]


@pytest.mark.parametrize("form", ["yaml", "prototxt", "json", "toml"])
@moderate(150)
@given(st.one_of(st.text(max_size=60), st.text(st.sampled_from(list("a/ \n\t'\"\\#:-[]{},|>&!=?$.")), max_size=60)))
def test_anything_can_be_read(form: str, text: str) -> None:
    values = read_values(text, form)[0]
    lines = len(re.findall("\r\n|[\n\r\x85\u2028\u2029]", text)) + 1  # as YAML counts them
    assert all(1 <= item.line <= lines for item in values)
    assert [item.line for item in values] == sorted(item.line for item in values)


HOSTILE = (
    *('"', "'", '\\"', '"""', '\\"""', "'''", '"\n', "'\n ", "[", "{", "]\n", "- ", ": ", "a: ", "#", "\\", "\n", " "),
    *("/a\n", "a: /b\n", "\n ", "&", "!", "|\n", '[\\"', "\t", "/a ", "/", "x: /\n  a\n", "'\"", '"a": "/b",', "<a"),
    *("=[", "[a]\n", "/a: ", "\\\n", '"\\', "-\n", "? ", "/a #"),
)


@pytest.mark.parametrize("form", ["yaml", "prototxt", "json", "toml"])
def test_time_grows_with_the_length_alone(form: str) -> None:
    def seconds(piece: str, size: int) -> float:
        text = (piece * (size // len(piece) + 1))[:size]
        began = time.process_time()
        for _ in paths(text, form):
            pass
        return time.process_time() - began

    slow = {piece: took for piece in HOSTILE if (took := seconds(piece, 40_000)) > 0.6}
    assert slow == {}
