"""How a machine's facts are gathered: whatever bytes stand in what is read, there is an answer and no traceback."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.doctor import docker
from taoprofiles.launcher import probes
from taoprofiles.launcher.probes import NO_ANSWER, NO_INTERPRETER, NO_LAUNCHER, OTHER_PROGRAM
from taoprofiles.rules.start import check_home, check_login
from taoprofiles.storage import files
from taoprofiles.storage.paths import Context
from taoprofiles.system.commands import run_bounded
from tests.support.generated_profiles import moderate
from tests.support.home import require

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("auths", "credsStore", "credHelpers", "nvcr.io")
CONFIG = st.dictionaries(st.sampled_from(KEYS), JSON | st.dictionaries(st.sampled_from(KEYS), JSON))
LAUNCHER = importlib.util.find_spec("nvidia_tao_cli")
PATH = {"PATH": os.environ["PATH"]}


def logged_in(content: bytes, **environ: str) -> probes.Login:
    with tempfile.TemporaryDirectory() as home:
        Path(home, ".docker").mkdir()
        Path(home, ".docker/config.json").write_bytes(content)
        return probes.probe_login({**PATH, "HOME": home, **environ})


@given(st.binary(max_size=200) | JSON.map(lambda result: json.dumps(result).encode()))
def test_any_bytes_in_dockers_file_are_judged(content: bytes) -> None:
    result = logged_in(content)
    assert list(check_login(result, "6.26.3", {}, 1000))


@given(st.binary(max_size=60) | (CONFIG | JSON).map(lambda result: json.dumps(result).encode()))
def test_logged_in_is_what_the_launcher_itself_takes_for_it(content: bytes) -> None:
    utils = pytest.importorskip("nvidia_tao_cli.components.instance_handler.utils") if LAUNCHER else None
    require(utils, "the launcher is not installed: it needs Python 3.11")
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            utils.docker_logged_in(docker_config=file.name)
            passes = True
        except Exception:  # an assertion, a ValueError, an AttributeError: each is a traceback for the person
            passes = False
    ids = {finding.id for finding in check_login(logged_in(content), "6.26.3", {}, 1000)}
    assert bool(ids & {"login-missing", "docker-config-broken"}) is not passes


def test_nothing_secret_is_kept_of_dockers_file() -> None:
    secret = "c2VjcmV0OnNlY3JldA=="
    config = {
        "auths": {"nvcr.io": {"auth": secret}, f"{secret}.example": {}},
        "credHelpers": {"example.com": secret},
        "HttpHeaders": {"X": secret},
    }
    assert secret not in repr(logged_in(json.dumps(config).encode()))
    broken = json.dumps(config)[:-1].encode()
    result = logged_in(broken)
    assert result.state == "broken"
    assert secret not in repr([result, *check_login(result, "", {}, 1000)])


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbf{}", b"[" * 100_000, b"1" * 10_000, b'{"auths": {"nvcr.io": ', b"\xff\xfe{\0}\0", b'{"auths": []}'],
)
def test_what_json_stumbles_over_is_a_finding(content: bytes) -> None:
    assert [finding.id for finding in check_login(logged_in(content), "", {}, 1000)] == ["docker-config-broken"]


def test_a_pipe_in_the_place_of_a_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    os.mkfifo(tmp_path / ".docker/config.json")
    assert probes.probe_login({**PATH, "HOME": str(tmp_path)}).state == "unreadable"


def test_a_helper_that_is_not_there(tmp_path: Path) -> None:
    program(tmp_path / "docker-credential-here", "#!/bin/sh\n")
    config = {"credsStore": "gone", "credHelpers": {"nvcr.io": "here", "example.com": "elsewhere"}}
    result = logged_in(json.dumps(config).encode(), PATH=str(tmp_path))
    assert result.missing_helpers == ("docker-credential-gone",)


@pytest.mark.parametrize(
    ("head", "python"),
    [
        *((head, "/opt/venv/bin/python") for head in ("#! /opt/venv/bin/python \n", "#!/opt/venv/bin/python -sP\n")),
        ("#!/opt/venv/bin/python3.11\n", "/opt/venv/bin/python3.11"),
        ('#!/bin/sh\n\'\'\'exec\' "/opt/my venv/bin/python3" "$0" "$@"\n', "/opt/my venv/bin/python3"),
        ("#!/bin/sh\n'''exec' /opt/venv/bin/python3 \"$0\" \"$@\"\n", "/opt/venv/bin/python3"),
        ("#!/usr/bin/env python3.99\n", "python3.99"),
        *((head, "") for head in ("#!/bin/sh\necho python\n", "#!/usr/bin/perl\n", "\x7fELF")),
    ],
)
def test_the_python_of_a_script(tmp_path: Path, head: str, python: str) -> None:
    (tmp_path / "tao").write_text(head)
    assert probes.interpreter(str(tmp_path / "tao"), {"PATH": str(tmp_path)}) == python


def program(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_programs_that_are_no_launcher(tmp_path: Path) -> None:
    silent = program(tmp_path / "python3", "#!/bin/sh\necho '{\"python\": 3}'; echo '[[[' ; echo broken >&2; exit 1\n")
    cases = {
        "#!/bin/sh\n": OTHER_PROGRAM,
        "#!/nowhere/bin/python3\n": NO_INTERPRETER,
        f"#!{sys.executable}\n": NO_LAUNCHER if sys.version_info >= (3, 12) else "",
        f"#!{silent}\n": NO_ANSWER,
    }
    for head, trouble in cases.items():
        result = probes.inspect_launcher(program(tmp_path / "tao", head), PATH)
        assert result.trouble == trouble, (head, result)
        assert bool(result.problem) is bool(trouble)


def test_what_lies_in_the_current_folder_takes_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('mine')")
    (tmp_path / "docker.py").write_text("raise SystemExit('mine')")
    monkeypatch.chdir(tmp_path)
    result = probes.inspect_launcher(program(tmp_path / "tao", f"#!{sys.executable}\n"), PATH)
    assert (result.trouble in ("", NO_LAUNCHER), result.imports) == (True, ""), result


def test_the_launcher_whose_python_is_gone_is_known_by_what_it_left(tmp_path: Path) -> None:
    (tmp_path / "lib/python3.8/site-packages/nvidia_tao-5.5.1.dist-info").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    tao = program(tmp_path / "bin/tao", f"#!{tmp_path}/bin/python3.8\n")
    assert probes.inspect_launcher(tao, PATH).previous == "nvidia-tao==5.5.1"


def test_what_a_launcher_imports_is_tried(tmp_path: Path) -> None:
    (tmp_path / "tabulate.py").write_text("raise ImportError('rotten')")
    environ = {**PATH, "PYTHONPATH": str(tmp_path)}
    result = probes.inspect_launcher(program(tmp_path / "tao", f"#!{sys.executable}\n"), environ)
    assert "rotten" in result.imports or "docker" in result.imports


@given(st.binary(max_size=300))
@moderate(30)
def test_any_bytes_of_an_engine_are_an_answer(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/s")
        server.listen()

        def serve() -> None:
            with server.accept()[0] as connection:
                connection.recv(1000)
                connection.sendall(content)

        thread = threading.Thread(target=serve)
        thread.start()
        assert docker._ask({}, f"unix://{folder}/s").trouble
        thread.join()


@pytest.mark.parametrize(
    "address", ["tcp://", "tcp://x", "ssh://", "nonsense", "unix://", "tcp://[:::1", "fd://", "\0"]
)
def test_any_docker_host_is_an_answer(address: str) -> None:
    assert docker._ask({"PATH": ""}, address).trouble


def test_an_engine_that_hangs_is_waited_for_no_longer_than_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker, "TIMEOUT", 0.2)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        began = time.monotonic()
        result = docker._ask({}, f"unix://{tmp_path}/s")
    assert result.trouble == "silent"
    assert time.monotonic() - began < 30


def test_a_program_that_leaves_a_child_behind_keeps_nobody_waiting() -> None:
    began = time.monotonic()
    result = run_bounded(["sh", "-c", "sleep 60 & echo said"], os.environ, 30)
    assert (result.status, result.out, result.problem) == (0, "said\n", "")
    assert time.monotonic() - began < 50, "the child sleeps a minute"


def test_a_program_that_hangs_is_ended_with_all_that_it_started() -> None:
    began = time.monotonic()
    result = run_bounded(["sh", "-c", "sleep 61 & echo $!; wait"], os.environ, 0.3)
    assert result.problem == "it did not finish within 0.3 s"
    assert time.monotonic() - began < 50, "the child sleeps a minute"
    child = Path(f"/proc/{result.out.strip()}/cmdline")
    end = time.monotonic() + 30
    while child.exists() and child.read_bytes():
        assert time.monotonic() < end, "the child lives on"
        time.sleep(0.01)


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_a_program_gets_its_input_whether_it_reads_it_or_not(size: int) -> None:
    data = b"x" * size
    assert run_bounded(["wc", "-c"], os.environ, 30, stdin=data).out.strip() == str(size)
    assert run_bounded(["sh", "-c", "exec 0<&-; echo done"], os.environ, 30, stdin=data).out == "done\n"
    assert run_bounded(["/nowhere/x"], os.environ, 1, stdin=data).is_missing


def test_a_program_that_says_too_much_or_cannot_be_started() -> None:
    assert run_bounded(["yes"], os.environ, 30).problem == "its output exceeds 4 MB"
    assert run_bounded(["/nowhere/x"], os.environ, 1).problem == "it cannot be started: no such file or directory"
    assert run_bounded(["a\0b"], os.environ, 1).problem


def test_names_that_come_near(tmp_path: Path) -> None:
    near = {"tao_mounts.json", ".tao_mount.json", ".tlt_mounts.json", "TAO_mounts.json", ".tao_mounts"}
    others = {".tao_mounts.json.bak", "tao_mounts.json~", "mounts.json", "my_tao_mounts.json", ".tao", "tao_mountsets"}
    for name in near | others:
        (tmp_path / name).touch()
    result = probes.probe_home(Context({"HOME": str(tmp_path)}), [])
    assert {os.path.basename(path) for path in result.similar_files} == near
    assert not result.has_mapping


def test_a_mounts_file_beside_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, notebooks = tmp_path / "home", tmp_path / "notebooks"
    for folder in (home, notebooks):
        folder.mkdir()
        (folder / "train.json").touch()
    (notebooks / ".tao_mounts.json").touch()
    mapping_file = str(home / ".tao_mounts.json")
    assert probes.find_similar_files(mapping_file, str(notebooks)) == [str(notebooks / ".tao_mounts.json")]
    assert probes.find_similar_files(mapping_file, str(home)) == []
    monkeypatch.chdir(notebooks)
    (finding,) = check_home(probes.probe_home(Context({"HOME": str(home)}), []), "")
    assert (finding.id, finding.hint) == ("file-near-miss-name", f"mv {notebooks}/.tao_mounts.json {mapping_file}")
    assert finding.what == f"tao does not read it, but '{mapping_file}'"


def test_an_older_file_with_a_near_name_is_no_news_beside_the_right_one(tmp_path: Path) -> None:
    right, near = tmp_path / ".tao_mounts.json", tmp_path / "tao_mounts.json"
    right.touch()
    near.touch()
    os.utime(near, (1, 1))
    for changed, expected in ((2, ()), (0, (str(near),))):
        os.utime(right, (changed, changed))
        assert probes.probe_home(Context({"HOME": str(tmp_path)}), []).similar_files == expected


def test_the_environment_is_kept_by_names_that_are_known() -> None:
    environ = {"WANDB_API_KEY": "s3cret", "KEY": "s3cret", "HOME": "/", "LAUNCHER_MOUNTS": "/x"}
    result = probes.probe_home(Context(environ), [("home", "/nowhere/at/all")])
    assert "s3cret" not in repr(result)
    assert result.variables == {"LAUNCHER_MOUNTS": "/x"}
    assert result.mounts_state == "a file that is not there"
    assert result.file_systems[0].size > 0


@given(st.binary(max_size=100))
def test_any_bytes_are_parsed_or_have_a_problem(content: bytes) -> None:
    result, problem = files.parse_json(content)
    assert problem == "" or result is None
