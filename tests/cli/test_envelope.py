"""``--json``: one envelope of one form on every command, whether it succeeds or fails."""

from __future__ import annotations

import json

import pytest

from taoprofiles.cli import output
from taoprofiles.cli.dispatch import COMMANDS
from taoprofiles.holds.hold import FIELDS
from taoprofiles.profiles.model import OWNER_KEYS
from tests.support.cases import ANSWERS, CASES, prepare, with_ids
from tests.support.commands import call
from tests.support.home import Home, write_program

ERROR = {"code", "message", "problems", "hint", "status"}
CODES = {
    1: {"failed"},
    2: {"usage"},
    3: {"invalid-profile", "invalid-state"},
    4: {"not-found"},
    7: {"busy"},
    9: {"untrusted"},
}
PROFILE = {
    *("name", "active", "valid", "description", "layout", "project_dir", "extends", "project_file", "path"),
    *("last_used", "problem"),
}
DATA = {
    "use": {"name", "previous", "changed", "dry_run", "changes", "made_folders", "kept"},
    "undo": {"id", "target", "profile", "name"},
    "history": {"entries", "runs", "path"},
    "run": {"id", "name", "status", "container", "image", "gpus", "differences"},
    "logs": {"id", "name", "lines"},
    "wait": {"runs"},
    "shell": {"id", "name", "status"},
    "hold": set(FIELDS),
    "release": {"id", "kind"},
    "stop": {"id", "container"},
    "render": {"name", "target", "image", "text", "secrets", "warnings"},
    "service": {"action", "done", "service", "log"},
    "list": {"state", "profiles"},
    "current": {"name", "state"},
    "status": {
        *("name", "state", "own", "last", "problem", "mapping_file", "since", "by", "entry", "resembles", "changes"),
        *("holds", "runs", "queue", "others", "gpus", "unseen", "guard"),
    },
    "show": {
        *("name", "path", "description", "extends", "layout", "project_dir", "variables", "mounts", "env", "docker"),
        *("gpus", "images", "origins", "project", "slurm", "kubernetes", *OWNER_KEYS),
    },
    "check": {
        *("name", "path", "launcher", "reads", "refusal", "container", "lost_in_ci", "findings", "counts", "fixed"),
    },
    "diff": {"a", "b", "same", "changes"},
    "path": {"path", "meant", "answer", "also", "otherwise"},
    "doctor": {"findings", "counts", "facts"},
    "new": {"name", "layout", "why", "path", "missing"},
    "import": {"name", "path"},
    "edit": {"name", "changed", "path"},
    "set": {"name", "keys"},
    "rename": {"name", "path"},
    "remove": {"name"},
    "trust": {"projects"},
    "env": {"name", "variables", "hidden"},
    "init": {"shell", "script"},
    "schema": {"schema"},
    "kernel": {"action", "kernels"},
    "skill": {"action", "name", "paths"},
    "uninstall": {"removed", "program", "dry_run"},
}
"""What docs/reference/output.md says ``data`` holds. Keys may be added; then they are added here."""


def test_every_command_has_a_case_here() -> None:
    assert CASES.keys() == COMMANDS.keys() == DATA.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_success(home: Home, command: str) -> None:
    prepare(home)
    with with_ids(home, CASES[command][0]) as words:
        # Behind the -- of run stands the command's own.
        first = "--" in words or len(command) % 2
        done = call(home, *(["--json", command, *words] if first else [command, *words, "--json"]))
    assert (done.status, done.err) == (ANSWERS.get(command, 0), ""), done
    envelope = done.envelope
    assert list(envelope) == ["schema", "ok", "command", "data", "messages", "error"]
    assert envelope["schema"] == 1
    assert (envelope["ok"], envelope["command"], envelope["error"]) == (True, command, None)
    assert set(envelope["data"]) == DATA[command]
    assert all(isinstance(message, str) for message in envelope["messages"])


@pytest.mark.parametrize("command", COMMANDS)
def test_failure(home: Home, command: str) -> None:
    prepare(home)
    _, words, status = CASES[command]
    before = home.tree()
    done = call(home, command, *words, "--json")
    assert (done.status, done.err) == (status, "")
    envelope = done.envelope
    assert list(envelope) == ["schema", "ok", "command", "data", "messages", "error"]
    assert (envelope["schema"], envelope["ok"], envelope["command"]) == (1, False, command)
    assert envelope["data"] is None
    error = envelope["error"]
    assert set(error) == ERROR
    assert error["status"] == status
    assert error["code"] in CODES[status]
    assert error["message"]
    assert "\n" not in error["message"]
    assert home.tree() == before
    text = call(home, command, *words)
    assert (text.status, text.out) == (status, ""), "as text, nothing of an error is on stdout"
    assert error["message"] in text.err


@pytest.mark.parametrize("words", [["nosuchcommand", "--json"], ["--json", "lst"]])
def test_an_unknown_command_is_an_envelope_too(home: Home, words: list[str]) -> None:
    done = call(home, *words)
    assert done.status == 2
    assert done.envelope["error"]["code"] == "usage"
    done = call(home, "show", "--", "--json")
    assert (done.status, done.out) == (2, ""), "an argument after two dashes is no option"


def test_list(home: Home) -> None:
    home.profile("ä-no-name")
    home.profile("broken", "layout = 3")
    prepare(home)
    data = home.json("list")["data"]
    assert data["state"] == "active"
    profiles = {profile["name"]: profile for profile in data["profiles"]}
    assert list(profiles) == ["a", "b", "broken"]
    assert all(set(profile) == PROFILE for profile in data["profiles"])
    assert [(p["active"], p["valid"]) for p in profiles.values()] == [(True, True), (False, True), (False, False)]
    assert profiles["a"]["path"] == str(home.profiles / "a.toml")
    assert profiles["a"]["last_used"] > 0
    assert profiles["b"]["last_used"] is None
    call(home, "run", "b", "--", "true")
    assert [profile["last_used"] is None for profile in home.json("list")["data"]["profiles"]] == [False, False, True]
    assert "layout" in profiles["broken"]["problem"]


def test_current_in_each_state(home: Home) -> None:
    def data() -> dict:
        return call(home, "current", "--json").envelope["data"]

    assert data() == {"name": None, "state": "none"}
    prepare(home)
    assert data() == {"name": "a", "state": "active"}
    home.profile("a", 'layout = "custom"\nmounts = []\n')
    assert data() == {"name": "a", "state": "drifted"}
    home.mapping_file.write_text('{"Mounts": []} ')
    assert data() == {"name": None, "state": "unmanaged"}


def test_current_in_a_run_is_the_runs_own_profile(home: Home) -> None:
    prepare(home)
    inside = "; ".join(f"{home.taoprof} {words}" for words in ("current --json", "status", "current --short", "show"))
    done = home.run("run", "b", "--", "sh", "-c", inside)
    data, shown = done.stdout.split("\n}\n", 1)
    assert json.loads(data + "}")["data"] == {"name": "b", "state": "active"}
    assert "'b', with a mounts file of its own" in shown
    assert "'a' is active" in shown
    assert "\nb\nprofile 'b'" in shown
    assert "LAUNCHER_MOUNTS" not in done.stderr


def test_use(home: Home) -> None:
    prepare(home)
    data = call(home, "use", "b", "--json").envelope["data"]
    assert (data["name"], data["previous"], data["changed"], data["kept"]) == ("b", "a", True, None)
    assert {change["what"] for change in data["changes"]} == {"mount"}
    data = call(home, "use", "b", "--json").envelope["data"]
    assert (data["name"], data["previous"], data["changed"]) == ("b", "b", False)


def test_differing_is_not_an_error(home: Home) -> None:
    prepare(home)
    done = call(home, "diff", "a", "b", "--json")
    assert done.status == 6
    assert done.envelope["ok"] is True
    assert [set(change) for change in done.envelope["data"]["changes"]] == [{"what", "key", "a", "b"}]


def test_what_an_editor_prints_is_not_mixed_into_the_envelope(home: Home) -> None:
    prepare(home)
    editor = write_program(home.root / "editor.sh", "echo drawing the screen")
    done = home.run("edit", "a", "--json", environ={"EDITOR": str(editor)})
    assert json.loads(done.stdout)["data"]["changed"] is False


def test_a_long_list_of_the_envelope_is_printed_item_by_item(capsys: pytest.CaptureFixture[str]) -> None:
    data = {"entries": [{"a": '\n    "runs": []'}, {"a": [1, 2]}], "runs": [], "path": None}
    iterators = {key: iter(value) if isinstance(value, list) else value for key, value in data.items()}
    output.emit("history", output.Result(iterators), as_json=True)
    assert json.loads(printed := capsys.readouterr().out)["data"] == data
    assert '\n      {"a": [1, 2]}\n    ],\n    "runs": [\n    ],\n    "path": null\n' in printed


def test_all_differences_have_one_direction(home: Home) -> None:
    """``-`` is what the mapping file has, ``+`` what the profile renders; the notebook's warning too."""
    prepare(home)
    home.mapping_file.write_text('{"Mounts": [{"source": "/mine", "destination": "/data"}]}')
    (first, second), answers = ("- mount /mine on /data", "+ mount "), {}
    for words in (["use", "a", "--dry-run"], ["diff", "a"], ["diff"], ["status"]):
        lines = [line.strip() for line in home.run(*words).stdout.splitlines()]
        assert first in lines, words
        assert any(line.startswith(second) for line in lines), words
        answers[" ".join(words)] = call(home, *words, "--json").envelope["data"]
    assert (answers["diff"]["a"], answers["diff"]["b"]) == (None, "a")
    changes = [answer["changes"] for answer in answers.values()]
    assert all(change == changes[0] for change in changes[1:])
    assert changes[0][0] == {"what": "mount", "key": "/data", "a": "/mine", "b": None}
