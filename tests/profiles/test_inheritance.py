"""``extends``: what a profile has of another one, and what happens to it when that one changes."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import jsonschema
import pytest

from taoprofiles.errors import TaoprofError
from taoprofiles.profiles.model import json_schema
from taoprofiles.profiles.store import Store, base_name
from taoprofiles.storage import files
from tests.support.commands import call
from tests.support.home import Home

BASE = """\
layout = "host"
project_dir = "~/tao/kitti"
description = "for all"
image = "registry/pyt:1"
gpus = "0,1"
[images]
"dino gen_trt_engine" = "registry/deploy:1"
[variables]
KEY = "shared"
OTHER = "${KEY} and more"
[container.env]
A = "1"
B = "${HOST_DATA_DIR}"
[docker]
user = "auto"
[docker.ulimits]
memlock = -1
"""
OWN = """\
extends = "base"
gpus = 1
[images]
dino = "registry/own:1"
[variables]
HOST_DATA_DIR = "~/mine"
KEY = "mine"
[container.env]
A = "2"
[docker]
shm_size = "8G"
[docker.ulimits]
stack = 1
"""


@pytest.fixture
def family(home: Home) -> Home:
    home.profile("base", BASE)
    home.profile("own", OWN)
    return home


def shown(home: Home, name: str = "own") -> dict[str, Any]:
    return home.json("show", name)["data"]


def listed(home: Home) -> dict[str, Any]:
    return {profile["name"]: profile for profile in home.json("list")["data"]["profiles"]}


def test_tables_are_merged_and_the_rest_is_replaced(family: Home) -> None:
    data = shown(family)
    assert (data["extends"], data["layout"], data["description"], data["gpus"]) == ("base", "host", "", "1")
    images = {"": "registry/pyt:1", "dino gen_trt_engine": "registry/deploy:1", "dino": "registry/own:1"}
    assert data["images"] == images
    variables = data["variables"]
    assert (variables["KEY"], variables["OTHER"]) == ("***", "***"), "secrets stay hidden"
    assert family.json("show", "own", "--reveal")["data"]["variables"]["OTHER"] == "mine and more"
    assert variables["HOST_RESULTS_DIR"] == f"{family.root}/tao/kitti/base/results", "the network is inherited too"
    assert data["env"] == {"A": "2", "B": f"{family.root}/mine"}
    ids = f"{family.context.uid}:{family.context.gid}"
    assert data["docker"] == {"user": ids, "shm_size": "8G", "ulimits": {"memlock": -1, "stack": 1}}
    family.profile("own", OWN + '[[mounts]]\nsource = "${HOST_DATA_DIR}"\ndestination = "/data"\nread_only = true\n')
    (mount,) = shown(family)["mounts"]
    assert mount == {"source": f"{family.root}/mine", "destination": "/data", "read_only": True, "exists": False}


def test_show_names_the_origin_of_each_value(family: Home) -> None:
    origins = shown(family)["origins"]
    assert (origins["layout"], origins["gpus"], origins["image"]) == ("base", "own", "base")
    assert (origins["variables.KEY"], origins["variables.OTHER"]) == ("own", "base")
    assert (origins["variables.DATA_DIR"], origins["mounts"]) == (None, None)
    assert (origins["docker.shm_size"], origins["docker.user"]) == ("own", "base")
    lines = call(family, "show", "own").out.splitlines()
    assert "extends: 'base'" in lines
    assert any("DATA_DIR" in line and line.endswith("from the layout") for line in lines)
    assert any("OTHER" in line and line.endswith("from 'base'") for line in lines)
    assert any("HOST_DATA_DIR" in line and line.endswith("~/mine") for line in lines)
    assert "from" not in call(family, "show", "base").out, "where all is its own, nothing is said"


def test_toml_to_share_needs_no_other_profile(family: Home) -> None:
    text = call(family, "show", "own", "--toml", "--reveal").out
    family.profile("copy", text)
    first, second = family.json("show", "own", "--reveal")["data"], family.json("show", "copy", "--reveal")["data"]
    for key in ("variables", "mounts", "env", "docker", "images", "gpus"):
        assert first[key] == second[key]
    assert second["extends"] is None


@pytest.mark.parametrize(
    ("base", "own", "problem"),
    [
        (None, OWN, "extends: there is no profile 'base'"),
        (BASE, 'extends = "own"\n', "extends: a profile cannot extend itself"),
        ('extends = "x"\n', OWN, "extends: 'base' extends another profile itself; only one level is possible"),
        ("layout = 3", OWN, "extends: 'base' is not valid: layout: must be"),
        ("{", OWN, "extends: 'base' is not valid: "),
        (BASE, 'extends = ""\n', "extends: write it as"),
        (BASE, 'extends = "../x"\n', "extends: write it as"),
        (BASE, "extends = 1\n", "extends: write it as"),
        (BASE, '"extends" = "base"\n', "extends: write it as"),
        (BASE, 'layout = "custom"\ndescription = """\nextends = "base"\n"""\n', "extends: write it as"),
        (BASE, 'extends = "base"\n[variables]\nHOST_DATA_DIR = "${NO}"\n', "variables.HOST_DATA_DIR: there is no"),
    ],
)
def test_what_is_refused(home: Home, base: str | None, own: str, problem: str) -> None:
    if base is not None:
        home.profile("base", base)
    home.profile("own", own)
    error = home.json("show", "own")["error"]
    assert error["code"] == "invalid-profile"
    assert any(line.startswith(problem) for line in error["problems"]), error
    assert listed(home)["own"]["problem"].startswith(problem)


def test_no_table_or_text_is_taken_for_the_key() -> None:
    assert base_name(b'# a\n\n  extends = "a-b"  # c\n') == "a-b"
    assert base_name(b"layout = 'host'\nextends = 'a'\n[x]\n") == "a"
    assert base_name(b'[variables]\nextends = "a"\n') is None
    assert base_name(b"\n" * (1 << 16) + b"[extends]") is None, "in linear time"


def test_the_schema_asks_for_a_layout_only_where_none_is_inherited() -> None:
    schema = jsonschema.Draft202012Validator(json_schema())
    assert schema.is_valid(tomllib.loads(OWN))
    assert schema.is_valid({"layout": "custom"})
    assert not schema.is_valid(tomllib.loads(OWN.replace('extends = "base"', "")))
    assert not schema.is_valid({"layout": "host"}), "the folder is missing"
    assert not schema.is_valid({"layout": "host", "project_dir": "/p", "gpus": "one"})


def test_list_notices_every_change_of_the_base(family: Home) -> None:
    """Its index is written by the first of these; file times have steps, so each write changes the size."""
    assert (listed(family)["own"]["valid"], listed(family)["own"]["extends"]) == (True, "base")
    path = family.profiles / "base.toml"
    path.write_text("layout = 3 # long enough")
    assert not listed(family)["own"]["valid"]
    path.unlink()
    assert listed(family)["own"]["problem"] == "extends: there is no profile 'base'"
    path.write_text(BASE.replace("kitti", "another"))
    assert listed(family)["own"]["project_dir"] == f"{family.root}/tao/another"


def test_use_notices_a_change_of_the_base(family: Home) -> None:
    family.run("use", "own", "--mkdir", "--force", check=True)
    for value in ("3", "4"):
        path = family.profiles / "base.toml"
        path.write_text(path.read_text() + "# \n")
        done = family.run("set", "base", f"container.env.C={value}", check=True)
        assert "To apply it: taoprof use own" in done.stderr
        assert family.run("current", "--short").stdout == "own~\n"
        family.run("use", "own", check=True)
        assert {"variable": "C", "value": value} in family.mapping()["Envs"]
        assert family.run("current", "--short").stdout == "own\n"


def test_rename_of_the_base_and_back(family: Home) -> None:
    family.run("use", "own", "--mkdir", check=True)
    before = shown(family)
    (family.profiles / "broken.toml").write_text('extends = "base"\nlayout = 3\n')
    family.run("rename", "base", "general", check=True)
    assert (family.profiles / "own.toml").read_text() == OWN.replace("base", "general")
    assert (family.profiles / "broken.toml").read_text() == 'extends = "general"\nlayout = 3\n'
    after = shown(family)
    assert {**after, "extends": "base", "origins": None} == {**before, "origins": None}
    assert family.run("current", "--short").stdout == "own\n", "its mapping is the same"
    family.run("undo", check=True)
    assert (family.profiles / "own.toml").read_text() == OWN
    assert shown(family) == before


@pytest.mark.parametrize("is_killed", [False, True])
@pytest.mark.parametrize("at", range(4))
def test_a_rename_that_fails_midway_leaves_no_broken_profile(
    family: Home, monkeypatch: pytest.MonkeyPatch, at: int, is_killed: bool
) -> None:
    """Killed: nothing that comes after the failure is done either, such as putting things back."""
    family.profile("own2", 'extends = "base"\n')
    family.run("rename", "base", "base2", check=True)  # which gives it its network
    family.run("rename", "base2", "base", check=True)
    before = {path.name: path.read_text() for path in family.profiles.iterdir()}
    calls = []

    def fail_at(really: Any, *args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == at + 2 or (is_killed and len(calls) > at + 2):
            raise TaoprofError("no space left on device")
        return really(*args, **options)

    for owner, name in ((Store, "write"), (files, "rename"), (files, "remove")):
        really = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, do=really, **options: fail_at(do, *args, **options))
    assert call(family, "rename", "base", "general").status != 0
    monkeypatch.undo()
    after = {path.name: path.read_text() for path in family.profiles.iterdir()}
    assert is_killed or after == before
    assert all(profile["valid"] for profile in listed(family).values())
    assert before["base.toml"] in after.values()


def test_the_base_is_not_removed(family: Home) -> None:
    error = family.json("remove", "base")["error"]
    assert (error["code"], "'own'" in error["message"]) == ("usage", True)
    assert (family.profiles / "base.toml").exists()
    family.run("remove", "base", "--force", check=True)
    assert not listed(family)["own"]["valid"]
    family.run("undo", check=True)
    assert listed(family)["own"]["valid"]


def test_undo_does_not_remove_the_base(home: Home) -> None:
    home.run("new", "base", "--layout", "custom", check=True)
    home.profile("own", 'extends = "base"\n')
    assert "'own' extends it" in home.run("undo").stderr
    assert (home.profiles / "base.toml").exists()


@pytest.mark.parametrize("setting", ["--unset=variables.KEY", "extends=other"])
def test_a_change_that_would_break_another_profile_is_refused(family: Home, setting: str) -> None:
    family.profile("own", 'extends = "base"\n[variables]\nX = "${KEY}"\n')
    family.profile("other", 'layout = "custom"\n')
    family.run("set", "base", "variables.OTHER=x", check=True)
    text = (family.profiles / "base.toml").read_text()
    error = family.json("set", "base", setting)["error"]
    assert "'own', which extends it, would not be valid" in error["message"]
    assert error["problems"]
    assert (family.profiles / "base.toml").read_text() == text


def test_extends_is_set_and_unset(family: Home) -> None:
    family.run("new", "third", "--layout", "host", check=True)
    family.run("set", "third", "extends=base", check=True)
    assert shown(family, "third")["images"][""] == "registry/pyt:1"
    assert (family.profiles / "third.toml").read_text().startswith("schema = 1\n")
    family.run("set", "third", "--unset", "extends", check=True)
    assert shown(family, "third")["images"] == {}
    family.run("new", "copy", "--from", "own", check=True)
    assert shown(family, "copy")["variables"] == shown(family)["variables"]


def test_an_imported_profile_extends_one_of_this_machine(family: Home) -> None:
    file = family.root / "shared.toml"
    file.write_text('extends = "base"\n')
    family.run("import", str(file), check=True)
    assert shown(family, "shared")["extends"] == "base"
    file.write_text('extends = "no"\n')
    assert "there is no profile 'no'" in family.run("import", str(file), "--name", "b").stderr


def test_a_mapping_has_nothing_of_read_only_and_says_so(family: Home) -> None:
    family.profile("own", 'extends = "base"\n[[mounts]]\nsource = "~"\ndestination = "/data"\nread_only = true\n')
    done = family.run("use", "own", "--force", check=True)
    assert "warning: the container can write to /data: the launcher has no read-only mounts" in done.stderr
    assert "a plain tao ignores gpus and image" in done.stderr
    assert [set(mount) for mount in family.mapping()["Mounts"]] == [{"source", "destination"}]
    findings = json.loads(family.run("check", "own", "--launcher", "6.26.3", "--json").stdout)["data"]["findings"]
    assert [f["where"] for f in findings if f["id"] == "key-ignored"] == ["mounts[0].read_only"]
    assert "the container can write to /data" in family.run("run", "own", "--image", "none", "--", "true").stderr
