"""What may stand at ``~/.tao_mounts.json``: links of every kind, other modes and owners, things that are no file."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from taoprofiles.cli import main
from taoprofiles.storage import atomic
from tests.support.guard_process import FOREIGN
from tests.support.home import Home, forked, require


@pytest.fixture
def home(home: Home) -> Home:
    home.profile("a")
    home.profile("b")
    return home


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def refused(home: Home, *words: str, status: int) -> str:
    """Run a command that must refuse with one line and change nothing; return the line."""
    before = home.tree()
    done = home.run(*words)
    assert done.returncode == status, (done.stdout, done.stderr)
    first, *rest = done.stderr.splitlines()
    assert first.startswith("taoprof: error: ")
    assert all(line.startswith("hint: ") for line in rest) and len(rest) <= 1
    after = home.tree()
    new_paths = [name for name in after if name not in before]
    assert all(name in (".local", ".local/state", ".local/state/taoprofiles") for name in new_paths), new_paths
    assert {name: after[name] for name in before} == before
    return first


# Links


@pytest.mark.parametrize("kind", ["relative", "absolute", "chain"])
@pytest.mark.parametrize("exists", [True, False])
def test_link_stays_and_its_target_is_replaced(home: Home, tmp_path: Path, kind: str, exists: bool) -> None:
    target = home.root / "dotfiles/mounts.json"
    target.parent.mkdir()
    if exists:
        target.write_bytes(FOREIGN)
    links = {home.mapping_file: "dotfiles/mounts.json" if kind == "relative" else str(target)}
    if kind == "chain":
        links = {home.mapping_file: "one", home.root / "one": str(tmp_path / "two"), tmp_path / "two": str(target)}
    for link, to in links.items():
        link.symlink_to(to)
    home.run("use", "a", check=True)
    home.run("use", "b", check=True)
    assert {link: os.readlink(link) for link in links} == links
    assert not target.is_symlink()
    assert json.loads(target.read_bytes())["Mounts"][0]["source"] == str(home.root / "projects/b")
    assert home.run("current").stdout == "b\n"
    assert [path.name for path in target.parent.iterdir()] == ["mounts.json"]
    if not exists:
        assert mode(target) == 0o600
    home.run("undo", "2" if exists else "1", check=True)  # the first use; 1 is the foreign file that it found
    assert os.path.lexists(home.mapping_file)
    assert (target.read_bytes() if target.exists() else None) == (FOREIGN if exists else None)


def test_a_link_that_becomes_a_file_while_it_is_followed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no longer a link when its target is read, as in a storm of programs that replace it."""
    home.mapping_file.symlink_to("mounts.json")
    readlink, is_replaced = os.readlink, False

    def replaced(path: str) -> str:
        nonlocal is_replaced
        if path == str(home.mapping_file) and not is_replaced:
            is_replaced = True
            home.mapping_file.unlink()
            home.mapping_file.write_bytes(FOREIGN)
        return readlink(path)

    monkeypatch.setattr(os, "readlink", replaced)
    done = home.run("status")
    assert (done.returncode, done.stderr) == (0, "") and home.mapping_file.read_bytes() == FOREIGN


def test_link_into_a_folder_that_is_not_there(home: Home) -> None:
    home.mapping_file.symlink_to("gone/mounts.json")
    done = home.run("use", "a")
    assert done.returncode == 1
    assert done.stderr.startswith("taoprof: error: cannot write ") and "no such file or directory" in done.stderr
    hint = f"mkdir -p {home.root}/gone; to remove the link: rm {home.mapping_file}"
    for words in (["use", "a"], ["status"], ["current"]):
        assert hint in "".join(home.run(*words).stdout + home.run(*words).stderr), words
    assert os.readlink(home.mapping_file) == "gone/mounts.json"
    assert home.json("history")["data"]["entries"] == []


# Modes and owners


@pytest.mark.parametrize("bits", [0o640, 0o664, 0o444])
def test_mode_is_kept(home: Home, bits: int) -> None:
    home.mapping_file.write_bytes(FOREIGN)
    home.mapping_file.chmod(bits)
    home.run("use", "a", check=True)
    assert mode(home.mapping_file) == bits
    home.run("undo", check=True)
    assert (mode(home.mapping_file), home.mapping_file.read_bytes()) == (bits, FOREIGN)


def test_owner_and_group_are_kept(home: Home) -> None:
    require(os.geteuid() == 0, "only root may give a file to somebody else")
    home.mapping_file.write_bytes(FOREIGN)
    os.chown(home.mapping_file, 12345, 23456)
    home.mapping_file.chmod(0o640)
    home.run("use", "a", check=True)
    status = home.mapping_file.stat()
    assert (status.st_uid, status.st_gid, mode(home.mapping_file)) == (12345, 23456, 0o640)


def test_file_of_another_user_is_refused_to_all_but_root(home: Home) -> None:
    require(os.geteuid() == 0, "only root may become somebody else")
    home.mapping_file.write_bytes(FOREIGN)
    for path in [home.root, *home.root.rglob("*")]:
        if path != home.mapping_file:
            os.chown(path, 12345, 12345)
    home.mapping_file.chmod(0o644)
    # An ordinary user who may read everything, since the Python that runs this may be one that only root can see.
    reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--bounding-set=-all,+dac_read_search"]
    done = subprocess.run(
        ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", *reading, home.taoprof, "use", "a"],
        env=home.environ,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    assert "belongs to user id 0" in done.stderr and "chown" in done.stderr
    assert home.mapping_file.read_bytes() == FOREIGN and home.mapping_file.stat().st_uid == 0
    assert [path.name for path in home.root.iterdir() if "taoprof-" in path.name] == []


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o277])
def test_all_that_is_new_is_private(home: Home, umask: int) -> None:
    require(not umask & 0o200 or os.geteuid() == 0, "only root can use the folders that such a umask makes")
    project = home.root / "tao"
    project.mkdir()

    def new_and_use() -> int:
        os.umask(umask)
        return main.run(["new", "c"]) or main.run(["use", "c", "--mkdir"])

    assert forked(new_and_use, home.environ, project).returncode == 0
    ours = [home.mapping_file, home.profiles / "c.toml", *home.state.rglob("*")]
    for path in ours:
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path
    assert mode(home.state) == 0o700
    assert len([path for path in ours if path.is_file()]) >= 6


# Things that are no mapping file


def full_folder(path: Path) -> None:
    path.mkdir()
    (path / "file").write_text("keep me")


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path has at most 107 bytes
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


NO_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder": (full_folder, ".tao_mounts.json"),
    "FIFO": (os.mkfifo, ".tao_mounts.json"),
    "socket": (bound_socket, ".tao_mounts.json"),
    "device": (lambda path: path.symlink_to("/dev/zero"), ".tao_mounts.json"),
    "17 MB": (lambda path: path.touch() or os.truncate(path, 17 << 20), "17825792 bytes"),
    "circle": (lambda path: path.symlink_to(path.name), "too many levels of symbolic links"),
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_no_file(home: Home, kind: str) -> None:
    make, text = NO_FILES[kind]
    make(home.mapping_file)
    for line in ("use a", "current", "status", "list", "import --name x"):
        assert text in refused(home, *line.split(), status=3)


@pytest.mark.parametrize(
    "text",
    [b"{", b"", b"\xff\xfe{}", b"[1]", b"[" * 100_000, b'{"a": NaN', b"\0" * 100, b'"\xed\xa0\x80"'],
    ids=["open", "empty", "not UTF-8", "a list", "deep", "cut off", "zeros", "half a surrogate"],
)
def test_no_mapping(home: Home, text: bytes) -> None:
    """What is no mounts file cannot become a profile; a switch replaces it and keeps it to the byte."""
    home.mapping_file.write_bytes(text)
    refused(home, "import", "--name", "x", status=3)
    answer = home.json("current")
    assert answer["data"] == {"name": None, "state": "unmanaged"}
    for verb in ("status", "list", "history"):
        home.run(verb, check=True)
    home.run("use", "a", check=True)
    assert home.run("current").stdout == "a\n"
    home.run("undo", check=True)
    assert home.mapping_file.read_bytes() == text


# What does not need a switch


def test_use_of_the_active_mapping_does_the_rest_of_what_was_asked(home: Home) -> None:
    (home.profiles / "same.toml").write_bytes((home.profiles / "a.toml").read_bytes())
    home.run("use", "a", check=True)
    (home.root / "projects/a").rmdir()
    done = home.run("use", "a", "--mkdir", check=True)
    assert done.stdout == "'a' is already active; ~/.tao_mounts.json is unchanged\n"
    assert (home.root / "projects/a").is_dir()
    hold = home.json("hold", "--reason", "x")["data"]["id"]
    for name in ("a", "same"):
        done = home.run("use", name, "--release", hold, "--yes", check=True)
        assert f"hold {hold} stays, because the mapping is the same. To release it: taoprof release " in done.stderr
        assert [record["id"] for record in home.holds()] == [hold]


@pytest.mark.parametrize("words", [("use", "b"), ("undo",)])
@pytest.mark.parametrize("change", ["removed", "a symlink"])
def test_it_changes_while_it_is_replaced(
    home: Home, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], change: str
) -> None:
    home.run("use", "a", check=True)
    real, other = atomic._stat, home.root / "other.json"
    done: list[str] = []

    def changed_around(target: str, **options: bool) -> os.stat_result | None:
        status = real(target, **options)
        if target == home.context.mapping_file and not done:
            done.append(target)
            if change == "removed":
                home.mapping_file.unlink()
            else:
                home.mapping_file.rename(other)
                home.mapping_file.symlink_to("other.json")
                status = real(target, **options)
        return status

    monkeypatch.setattr(atomic, "_stat", changed_around)
    result = home.run(*words)
    assert (result.returncode, "error" in result.stderr) == (0, False), result.stderr
    assert home.mapping_file.exists() == (words == ("use", "b"))
    assert home.mapping_file.is_symlink() == (change == "a symlink")


def test_another_program_creates_it_while_it_is_replaced(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    real = atomic._stat

    def created_after(target: str, **options: bool) -> os.stat_result | None:
        stat_result = real(target, **options)
        if stat_result is None and target == home.context.mapping_file:
            home.mapping_file.write_bytes(FOREIGN)
        return stat_result

    monkeypatch.setattr(atomic, "_stat", created_after)
    assert home.run("use", "a", check=True).stderr.endswith(
        "it was saved in the history. To restore it: taoprof undo 3\n"
    )
    monkeypatch.undo()
    assert home.json("current")["data"] == {"name": "a", "state": "active"}
    home.run("undo", "3", check=True)
    assert home.mapping_file.read_bytes() == FOREIGN
