"""check --fix: a mounts file of no profile, and the active profile, are mended and stay what they were otherwise."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.commands import Terminal, call
from tests.support.generated_profiles import moderate
from tests.support.home import Home
from tests.support.profile_cases import CASES

NAMED = [{"variable": "HOME", "value": "/tmp"}, {"variable": "USER", "value": "tao"}]
"""What any user id but 0 and 1000 needs in NVIDIA's images."""

COMMANDS = ("taoprof", "tao", "mkdir", "chmod", "mv", "sudo", "unset", "export", "${EDITOR:-vi}")
ME = f"{os.getuid()}:{os.getgid()}"


def broken(home: Home, **options: object) -> bytes:
    """A mounts file as a notebook leaves it, with a variable that was not set and NVIDIA's "UID:GID"."""
    (home.root / "data").mkdir(exist_ok=True)
    content = {
        "Mounts": [{"source": str(home.root / "data"), "destination": "/data", "comment": "mine"}],
        "Envs": [{"variable": "CUDA_VISIBLE_DEVICES", "value": None}, *NAMED],
        "DockerOptions": {"user": "UID:GID", "shm_size": "16GiB", **options},
    }
    home.mapping_file.write_text(json.dumps(content))
    return home.mapping_file.read_bytes()


def test_fix_changes_only_the_faulty_entry_and_undo_reverts_it(home: Home) -> None:
    before = broken(home, network="host")
    done = home.json("check", "--fix", "--yes")
    assert done["data"]["fixed"]
    assert home.mapping() == {
        "Mounts": [{"source": str(home.root / "data"), "destination": "/data", "comment": "mine"}],
        "Envs": NAMED,
        "DockerOptions": {"user": ME, "shm_size": "16G", "network": "host"},
    }
    home.run("undo", check=True)
    assert home.mapping_file.read_bytes() == before


def test_fix_keeps_duplicate_keys(home: Home) -> None:
    """Which of the two is meant is for a person to choose: a rewrite would keep the last one only."""
    first = f'[{{"source": "{home.root}", "destination": "/data"}}]'
    before = f'{{"Mounts": {first}, "Mounts": [], "DockerOptions": {{"user": "UID:GID"}}}}'
    home.mapping_file.write_text(before)
    result = home.json("check", "--fix", "--yes")
    assert result["data"]["fixed"] == []
    assert home.mapping_file.read_text() == before
    assert all("check --fix" not in finding["hint"] for finding in result["data"]["findings"])


def test_fixes_are_repeated_until_none_is_left(home: Home) -> None:
    home.mapping_file.write_text('{"Mounts": [], "DockerOptions": {"user": "4242:4242"}}')
    home.run("check", "--fix", "--yes")
    result = home.json("check")["data"]["findings"]
    assert [finding["id"] for finding in result] == []


def test_one_question_is_enough(home: Home) -> None:
    """A folder in which a new folder is needed is part of the same fix, and 'undo' reverts all settings."""
    text = 'schema = 1\nlayout = "custom"\n[docker]\nuser = "UID:GID"\n'
    for name, source in {"/data": "new", "/data/specs": "specs"}.items():
        text += f'[[mounts]]\nsource = "{home.root}/{source}"\ndestination = "{name}"\n'
    home.profile("a", text)
    with Terminal([home.taoprof, "check", "a", "--fix"], environ=home.environ, cwd=home.root) as terminal:
        terminal.wait_for("Apply these fixes? [y/N]")
        terminal.send("y\n")
        _, output = terminal.finish()
    assert b"Apply these fixes?" not in output
    assert (home.root / "new/specs").is_dir()
    assert home.json("check", "a")["data"]["counts"]["error"] == 0
    home.run("undo", check=True)
    assert (home.profiles / "a.toml").read_text() == text


def test_not_while_somebody_needs_it(home: Home) -> None:
    before = broken(home)
    home.run("hold", "--reason", "a test", check=True)
    assert home.run("check", "--fix", "--yes").returncode == 5
    assert home.mapping_file.read_bytes() == before


def test_a_file_that_another_variable_names_is_only_opened(home: Home) -> None:
    content = broken(home)
    other = home.root / "my mounts.json"
    other.write_bytes(content)
    data = home.json("check", "--fix", "--yes", environ={"LAUNCHER_MOUNTS": str(other)})["data"]
    assert (data["fixed"], other.read_bytes()) == ([], content)
    (hint,) = (finding["hint"] for finding in data["findings"] if finding["id"] == "user-literal")
    assert hint.endswith(f": ${{EDITOR:-vi}} +1 '{other}'")


def test_fixed_active_profile_is_applied(home: Home) -> None:
    home.profile("p", 'layout = "custom"\n[docker]\nuser = "auto"\n[container.env]\nHOME = "/tmp"\nUSER = "tao"\n')
    home.run("use", "p", check=True)
    done = home.json("check", "--fix", "--yes")["data"]
    assert done["fixed"] == ["taoprof set p docker.shm_size=16G", "taoprof use p"]
    assert home.mapping()["DockerOptions"]["shm_size"] == "16G"
    assert (done["name"], done["findings"]) == ("p", [])


def test_fixed_active_profile_that_is_held_is_not_applied(home: Home) -> None:
    home.profile("p", 'layout = "custom"\nmounts = []\n')
    call(home, "use", "p")
    before = home.mapping_file.read_bytes()
    call(home, "hold", "--reason", "a test")
    done = call(home, "check", "--fix", "--yes")
    assert done.status == 5
    assert "profile 'p' was changed, but is not active yet" in done.err
    assert home.mapping_file.read_bytes() == before
    assert 'shm_size = "16G"' in (home.profiles / "p.toml").read_text()


def test_that_the_file_is_another_projects_comes_before_its_faults(home: Home) -> None:
    home.profile("p")
    home.run("use", "p", check=True)
    broken(home)
    first, second, *_ = home.json("check")["data"]["findings"]
    assert (first["id"], first["hint"]) == ("global-file-changed-by-other", "taoprof use p")
    assert second["severity"] == "error"


def test_a_refused_run_names_the_check_with_the_same_findings(home: Home) -> None:
    home.profile("p")
    spec = home.root / "projects/p/train.yaml"
    spec.touch()
    words = ("--", "tao", "model", "dino", "train", "-e", str(spec))
    refused = home.run("run", "p", *words)
    assert refused.returncode == 3
    assert f"for the details: taoprof check p {' '.join(words)}\n" in refused.stderr
    assert "host-path" in home.run("check", "p", *words).stdout
    secret = home.run("run", "p", *words, "-k", "s3cret").stderr
    assert "for the details: taoprof check p -- COMMAND" in secret
    assert "s3cret" not in secret


@pytest.mark.parametrize("name", CASES)
def test_what_is_to_be_pasted_is_a_command(home: Home, name: str) -> None:
    words = CASES[name][0](home)
    if isinstance(words, tuple):
        return  # a judge was asked itself
    data = call(home, "--json", "check", *words).envelope["data"]["findings"]
    for hint in {finding["hint"] for finding in data}:
        command = hint[:-1].rpartition(": '")[2] if ": '" in hint and hint.endswith("'") else hint
        if command.split(" ")[0] in COMMANDS:
            assert subprocess.run(["bash", "-n"], input=command, text=True, check=False).returncode == 0, hint
        assert "NAME" not in hint or words[:1] in ([], ["--"]), hint


@given(blanks=st.text(" \t\n", max_size=4), is_list=st.booleans(), above=st.integers(0, 5))
@moderate(60)
def test_a_comma_too_many_is_named_where_it_stands(home: Home, blanks: str, is_list: bool, above: int) -> None:
    end = '"Mounts": [{"source": "/a", "destination": "/b"}'
    text = "{" + "\n" * above + (f"{end},{blanks}]}}" if is_list else f"{end}],{blanks}}}")
    home.mapping_file.write_text(text)
    (result,) = call(home, "check", "--launcher", "6.26.3", "--json").envelope["data"]["findings"]
    assert (result["id"], result["where"]) == ("json-parse", f"~/.tao_mounts.json:{above + 1}")
    assert f"'{']' if is_list else '}'}'" in result["what"]


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ('{"Mounts": [\n{"source": /srv/data, "destination": "/data"}]}', 2, 'texts need double quotes: "/srv/data"'),
        ('{"Mounts": []}\n{"Mounts": []}', 2, "the mapping ends before this: keep one of the two, as one object { … }"),
        ("{'Mounts': []}", 1, 'JSON has only straight double quotes: "…"'),
        ('{"Mounts": [], "a": \u201cx\u201d}', 1, 'JSON has only straight double quotes: "…"'),
        ('drive_map = {\n"Mounts": []}', 1, "this is Python code: save it as a .py file and import that"),
        ("{Mounts: []}", 1, 'texts need double quotes: "Mounts"'),
        ('{"Mounts": [], // mine\n}', 1, "JSON has no comments: remove it"),
        ('{"Mounts": [],\n"a": None}', 2, "in JSON this is null, true or false"),
        ('{"Mounts": [{"source": "/a"\n"destination": "/b"}]}', 2, "is there a comma missing before this?"),
        ('{"Mounts": [{"source": "/a"}', 1, "the end is missing: close every { and ["),
        ("", 1, 'the smallest mapping is {"Mounts": []}'),
        (" \n", 1, 'the smallest mapping is {"Mounts": []}'),
    ],
)
def test_what_is_wrong_with_a_file_that_is_not_json(home: Home, text: str, line: int, hint: str) -> None:
    home.mapping_file.write_text(text)
    (result,) = call(home, "check", "--json").envelope["data"]["findings"]
    assert (result["id"], result["where"]) == ("json-parse", f"~/.tao_mounts.json:{line}")
    assert result["hint"].startswith(f"{hint}: ")
    refused = call(home, "import", "--name", "x")
    assert hint in refused.err, refused


@pytest.mark.parametrize("value", ["$HOME/x.json", "${HOME}/x.json", " HOMEDIR/x.json", "HOMEDIR/x.json ", "x.json"])
def test_the_file_that_launcher_mounts_was_to_name(home: Home, value: str) -> None:
    (home.root / "x.json").touch()
    environ = {"LAUNCHER_MOUNTS": value.replace("HOMEDIR", str(home.root))}
    verbs = ("doctor",) if value == "x.json" else ("check", "doctor")  # a relative one is read from here
    for verb in verbs:
        data = home.json(verb, environ=environ)["data"]["findings"]
        (hint,) = (finding["hint"] for finding in data if finding["id"] == "lm-bad-path")
        assert hint == f"export LAUNCHER_MOUNTS={home.root}/x.json"
    (home.root / "x.json").unlink()
    data = home.json("doctor", environ=environ)["data"]["findings"]
    assert [finding["hint"] for finding in data if finding["id"] == "lm-bad-path"] == ["unset LAUNCHER_MOUNTS"]
