"""The skill for coding agents, by the rules of NVIDIA's skill bank for platforms, and the job records of runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from taoprofiles.cli.commands.integration import SKILL
from taoprofiles.cli.dispatch import COMMANDS
from tests.support.commands import call
from tests.support.engine import until
from tests.support.home import Home, write_program


@pytest.fixture
def skill(home: Home) -> tuple[dict[str, Any], str]:
    """The front matter and the body of the installed skill."""
    done = call(home, "skill", "install", "skills")
    assert done.status == 0, done.err
    _, front, body = (home.root / "skills" / SKILL / "SKILL.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), body


def test_front_matter(skill: tuple[dict[str, Any], str]) -> None:
    front, _ = skill
    assert set(front) == {"name", "description", "license", "compatibility", "metadata", "allowed-tools", "tags"}
    assert front["name"] == SKILL
    assert re.fullmatch(r"tao-run-on-[a-z0-9]+(-[a-z0-9]+)*", SKILL)
    assert "\n" not in front["description"].strip()
    assert len(front["description"]) <= 1024
    assert "Triggers:" in front["description"]
    assert front["license"] == "Apache-2.0"
    assert len(front["compatibility"]) <= 500
    assert not re.search(r"claude|codex|cursor|copilot", front["compatibility"], re.I)
    assert re.fullmatch(r"\d+\.\d+\.\d+", front["metadata"]["version"])
    assert front["metadata"]["author"]
    assert {"Read", "Bash"} <= set(front["allowed-tools"].split())
    assert front["tags"]


def test_the_four_verbs_and_the_record(skill: tuple[dict[str, Any], str]) -> None:
    _, body = skill
    order = ["Dependencies", "Authentication", "Preflight", "Quick start", "Execution", "Notes", "Pitfalls"]
    assert re.findall(r"^## (.*)$", body, re.M) == order
    assert re.findall(r"^### (.*)$", body, re.M) == ["Submit", "Status", "Logs", "Cancel"]
    (opened,) = re.findall(r"tao_job_record\.py open [^`]*", body)
    options = ("--platform taoprofiles", "--image", "--network-arch", "--action", "--storage-tier", "--results-dir")
    assert [option for option in options if option not in opened] == []
    assert "tao_job_record.py mark" in body
    for state in ("PENDING", "RUNNING", "COMPLETE", "ERROR", "CANCELED", "UNKNOWN"):
        assert f"| {state}" in body
    assert "Multi-node is not supported" in body
    assert not re.search(r"(nvapi-|hf_|ghp_|AKIA)\w", body), "secrets are named only"


def test_its_commands_exist(home: Home, skill: tuple[dict[str, Any], str]) -> None:
    _, body = skill
    code = "\n".join(
        block or inline for block, inline in re.findall(r"```bash\n(.*?)```|`(taoprof [^`]*)`", body, re.S)
    )
    words = re.findall(r"taoprof ([a-z]+)([^\n#]*)", code)
    assert {command for command, _ in words} >= {"run", "status", "wait", "logs", "stop", "check"}
    for command, rest in words:
        assert command in COMMANDS
        usage = call(home, command, "--help").out
        options = re.findall(r"(?<=\s)--?[a-z]+", rest.partition(" -- ")[0])
        assert all(option in usage for option in options), (command, rest)


def test_it_is_installed_for_the_agents_of_the_user_and_uninstalled(home: Home) -> None:
    assert call(home, "skill", "install").status == 2
    for agent in (".claude", ".codex"):
        (home.root / agent).mkdir()
    paths = call(home, "skill", "install", "--json").envelope["data"]["paths"]
    assert paths == [str(home.root / agent / "skills" / SKILL / "SKILL.md") for agent in (".claude", ".codex")]
    before = Path(paths[0]).read_bytes()
    Path(paths[0]).write_text("of an older version")
    assert call(home, "skill", "install").status == 0
    assert Path(paths[0]).read_bytes() == before
    removed = call(home, "uninstall", "--yes", "--json").envelope["data"]["removed"]
    skills = [{"kind": "skill", "path": path, "what": "for coding agents"} for path in paths]
    assert [part for part in removed if part["kind"] == "skill"] == skills
    assert list((home.root / ".claude/skills").iterdir()) == []


# Job records

FIELDS = set(
    "schema_version id platform backend_ref image network_arch action results_dir storage_tier upload_excludes "
    "submitted_at transitions terminal_state terminal_write_by redacted".split()
)


@pytest.fixture
def folder(home: Home) -> Path:
    """The bank's folder of records, in a home with the profile a."""
    home.profile("a")
    folder = home.root / ".tao/jobs"
    folder.mkdir(parents=True)
    return folder


def records(folder: Path) -> list[dict[str, Any]]:
    """Return the records, and check them by the bank's schema, as far as one of ours can differ."""
    parsed = [json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))]
    for record in parsed:
        assert set(record) == FIELDS, "no other field is allowed"
        assert (record["schema_version"], record["redacted"], record["platform"]) == (1, True, "taoprofiles")
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", record["id"])
        assert (folder / f"{record['id']}.json").exists()
        assert all((record["image"], record["network_arch"], record["action"]))
        assert record["results_dir"].startswith("/")
        assert record["storage_tier"] in "ABC"
        first, last = record["transitions"][0], record["transitions"][-1]
        assert (first["state"], first["message"]) == ("PENDING", "record opened before launch")
        for transition in record["transitions"]:
            assert set(transition) == {"ts", "state", "message", "source"}
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", transition["ts"])
            assert transition["state"] in ("PENDING", "RUNNING", "COMPLETE", "ERROR", "CANCELED", "UNKNOWN")
            assert transition["source"] in ("agent", "poller", "backend-hook")
        terminal = record["terminal_state"]
        assert terminal in (None, "COMPLETE", "ERROR", "CANCELED")
        assert terminal is None or last["state"] == terminal
        assert (record["terminal_write_by"] is None) == (terminal is None)
    return parsed


def test_a_run_keeps_a_record_where_the_bank_has_a_folder(home: Home, folder: Path) -> None:
    os.removedirs(folder)
    assert call(home, "run", "a", "--", "true").status == 0
    assert not (home.root / ".tao").exists(), "nothing without a folder"
    folder.mkdir(parents=True)
    # The task sees its own record: it was written before the launch.
    done = home.run("run", "a", "--", "sh", "-c", f"cat {folder}/*.json; exit 3")
    assert done.returncode == 3
    before = json.loads(done.stdout)
    assert [item["state"] for item in before["transitions"]] == ["PENDING"]
    (record,) = records(folder)
    assert (record["id"], record["terminal_state"], record["backend_ref"]) == (before["id"], "ERROR", record["id"][-5:])
    assert (record["network_arch"], record["action"]) == ("sh", "run")
    (folder / f"{record['id']}.json").unlink()
    assert call(home, "run", "a", "--", "sh", "-c", "exit 3; cd /; dino train").status == 3
    (record,) = records(folder)
    assert (record["network_arch"], record["action"]) == ("dino", "train")


def test_states_of_records(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "state/jobs"
    folder.mkdir(parents=True)
    home.environ["TAO_STATE_DIR"] = str(folder.parent)
    home.profile("a")
    write_program(home.root / "dino", "[ $1 = train ] || exit 0\ntouch ready\nexec sleep 60")
    assert home.run("run", "a", "--", "./dino", "evaluate", "-e", "/specs/s.yaml", "-k", "secret_key").returncode == 0
    run = home.run("run", "a", "--detach", "--", "./dino", "train", stdin=subprocess.DEVNULL).stdout.strip()
    until(lambda: (home.root / "ready").exists(), "the task runs")
    assert home.run("stop", run).returncode == 0
    assert home.run("wait", run).returncode == 143
    assert home.run("run", "a", "--", "nosuchcommand").returncode == 127
    states = {record["id"].rpartition("-")[0]: record["terminal_state"] for record in records(folder)}
    assert states == {"dino-evaluate": "COMPLETE", "dino-train": "CANCELED", "nosuchcommand-run": "ERROR"}
    assert "secret_key" not in "".join(path.read_text() for path in folder.glob("*.json"))


@pytest.mark.parametrize(("wanted", "is_kept"), [("true", True), ("false", False)])
def test_the_profile_decides(home: Home, folder: Path, wanted: str, is_kept: bool) -> None:
    if is_kept:
        os.removedirs(folder)
    assert call(home, "set", "a", f"job_record={wanted}").status == 0
    assert call(home, "run", "a", "--", "true").status == 0
    assert len(records(folder)) == is_kept


def test_a_record_of_the_bank_is_left_alone(home: Home, folder: Path) -> None:
    (folder / "dino-train-abc123.json").write_text('{"id": "dino-train-abc123"}')
    (folder / "dino-train-damaged.json").write_text("{")
    assert call(home, "run", "a", "--", "true").status == 0
    assert (folder / "dino-train-abc123.json").read_text() == '{"id": "dino-train-abc123"}'
    assert (folder / "dino-train-damaged.json").read_text() == "{"


FOREIGN = [
    "[]", "null", "{}", '{"platform": "taoprofiles"}', '{"platform": "taoprofiles", "transitions": []}',
    '{"platform": "taoprofiles", "transitions": [1], "backend_ref": null}',
    '{"platform": "taoprofiles", "transitions": [{"state": 1}], "backend_ref": null}',
    '{"transitions": [{"state": "PENDING"}]}',
    '{"platform": "taoprofiles", "transitions": {"a": 1}}', "[" * 100000, "\0", '{"platform": "local-docker"}',
]  # fmt: skip


@pytest.mark.parametrize("content", FOREIGN)
def test_what_others_made_of_a_record_stays(home: Home, folder: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "content").write_text(content)
    script = f'for f in {folder}/*.json; do cat {tmp_path}/content >"$f"; done; exit 7'
    done = call(home, "run", "a", "--", "sh", "-c", script)
    assert (done.status, done.err) == (7, "")
    (path,) = folder.glob("*.json")
    assert path.read_text() == content


@pytest.mark.parametrize("command", ["tao list", "tao", "tao model", "tao info --verbose", "./ ..", "tao model dino"])
def test_a_command_without_a_task_has_a_record(home: Home, folder: Path, command: str) -> None:
    for name in ("tao", "x"):
        write_program(home.root / name, "exit 7")
    home.environ["PATH"] = f"{home.root}:{home.environ['PATH']}"
    done = call(home, "run", "a", "--", *command.replace("./", "./x").split())
    assert done.status == 7, done.err
    assert len(records(folder)) == 1


def test_an_agent_folder_that_cannot_be_read_is_not_missing(home: Home) -> None:
    (home.root / ".claude").symlink_to(".claude")
    done = call(home, "skill", "install")
    assert done.status == 3, done.err
    assert ".claude'" in done.err and "no coding agent" not in done.err
