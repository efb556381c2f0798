"""The files of kernels: whose they are, how they follow their profiles, and that no kill or failure loses one."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import filelock  # noqa: F401 - loaded before the forks
import pytest

from taoprofiles.cli import main
from tests.support import injection
from tests.support.commands import as_them, call, give
from tests.support.home import Home, require
from tests.support.injection import STEP

OWNER = 12345


@pytest.fixture
def home(home: Home) -> Home:
    """A home with the profile alpha, and its kernel."""
    home.profile("alpha")
    install(home, "alpha")
    return home


def install(home: Home, name: str, *options: str) -> dict[str, Any]:
    done = home.run("kernel", "install", name, "--python", sys.executable, *options, "--json", check=True)
    return json.loads(done.stdout)["data"]["kernels"][0]


def folder(home: Home, name: str = "") -> Path:
    return home.root / ".local/share/jupyter/kernels" / name


def listed(home: Home) -> list[tuple[str, str, str]]:
    kernels = home.json("kernel", "list")["data"]["kernels"]
    return [(kernel["profile"], kernel["kernel"], kernel["problem"]) for kernel in kernels]


def read_spec(home: Home, name: str) -> dict[str, Any]:
    return json.loads((folder(home, name) / "kernel.json").read_bytes())


def copy_kernel(home: Home, name: str) -> dict[str, Any]:
    """Copy alpha's kernel as a person does, for other options of 'run'; return its kernelspec."""
    shutil.copytree(folder(home, "taoprof-alpha"), folder(home, name))
    spec = read_spec(home, name)
    spec |= {"argv": [*spec["argv"][:2], "--gpus", "0", *spec["argv"][2:]], "display_name": "mine", "env": {"A": "1"}}
    (folder(home, name) / "kernel.json").write_text(json.dumps(spec))
    return spec


def test_an_option_whose_value_is_the_name_stays_at_a_rename(home: Home) -> None:
    home.profile("0")
    install(home, "0")
    spec = read_spec(home, "taoprof-0")
    spec["argv"][2:2] = ["--gpus", "0"]
    (folder(home, "taoprof-0") / "kernel.json").write_text(json.dumps(spec))
    home.run("rename", "0", "zero", check=True)
    argv = read_spec(home, "taoprof-zero")["argv"]
    assert argv[1 : argv.index("--")] == ["run", "--gpus", "0", "zero"]


def test_what_root_writes_in_a_users_home_is_the_users(home: Home) -> None:
    """Root with the user's HOME, as with 'sudo -E': the user can list, rename and remove it afterwards."""
    require(os.geteuid() == 0, "only root may act with another user's home")
    for path in [home.root, *home.root.rglob("*")]:
        os.chown(path, OWNER, OWNER)
    home.profile("beta")
    os.chown(home.profiles / "beta.toml", OWNER, OWNER)
    install(home, "beta")
    home.run("rename", "alpha", "gamma", check=True)
    home.run("remove", "beta", check=True)
    home.run("undo", check=True)
    assert {name for _, name, _ in listed(home)} == {"taoprof-beta", "taoprof-gamma"}
    for path in [*home.root.joinpath(".local").rglob("*")]:
        assert (path.stat().st_uid, path.stat().st_gid) == (OWNER, OWNER), path


def test_a_kernel_that_cannot_be_read_does_not_hide_the_others(theirs: Home) -> None:
    """Of another user, in a shared folder of Jupyter's, it is not mentioned; one's own is."""
    require(os.geteuid() == 0, "only root may become somebody else")
    shared = theirs.root.parent / "share/jupyter"
    foreign = shared / "kernels/taoprof-foreign"
    foreign.mkdir(parents=True)
    (foreign / "kernel.json").write_text("{}")
    foreign.chmod(0o700)
    theirs.environ["JUPYTER_PATH"] = str(shared)
    install(theirs, "a")
    own = folder(theirs, "taoprof-own")
    shutil.copytree(folder(theirs, "taoprof-a"), own)
    give(theirs)
    own.chmod(0)
    done = as_them(theirs, "kernel", "list")
    assert (done.status, done.out.count("taoprof-"), str(foreign) in done.err) == (0, 1, False)
    assert f"taoprof: warning: a kernel was left out: cannot read '{own}/kernel.json': permission denied" in done.err
    done = as_them(theirs, "rename", "a", "b")
    assert (done.status, "kernel 'TAO: a' is now 'TAO: b'" in done.err) == (0, True)
    assert f"warning: the kernel in '{own}' may still have profile 'a': cannot read '{own}" in done.err
    done = as_them(theirs, "kernel", "remove", "c")
    assert (done.status, "cannot read" in done.err) == (1, True), "it may be that profile's"
    done = as_them(theirs, "uninstall", "--yes")
    assert (done.status, f"a kernel was not removed: cannot read '{own}" in done.err) == (1, True)
    assert not folder(theirs, "taoprof-b").exists()


def test_two_kernels_of_one_profile_are_two_after_a_renaming(home: Home) -> None:
    spec = copy_kernel(home, "taoprof-alpha-gpu0")
    (folder(home, "taoprof-alpha") / "kernel.js").write_text("mine")
    home.run("rename", "alpha", "beta", check=True)
    assert listed(home) == [("beta", "taoprof-alpha-gpu0", ""), ("beta", "taoprof-beta", "")]
    spec["argv"][4] = spec["metadata"]["taoprof"]["profile"] = "beta"
    assert read_spec(home, "taoprof-alpha-gpu0") == spec
    assert (folder(home, "taoprof-beta") / "kernel.js").read_text() == "mine"
    home.run("undo", check=True)
    assert listed(home) == [("alpha", "taoprof-alpha", ""), ("alpha", "taoprof-alpha-gpu0", "")]
    assert list(home.state.glob("kernels.json")) == []


def test_the_kernel_of_the_active_profile_follows_it_too(home: Home) -> None:
    """The history has its renaming as a change of the mapping as well."""
    home.run("use", "alpha", check=True)
    assert "kernel 'TAO: alpha' is now 'TAO: Beta'" in home.run("rename", "alpha", "Beta", check=True).stderr
    assert listed(home) == [("Beta", "taoprof-.42eta", "")]
    assert "kernel 'TAO: Beta' is now 'TAO: alpha'" in home.run("undo", check=True).stderr
    assert listed(home) == [("alpha", "taoprof-alpha", "")]
    assert read_spec(home, "taoprof-alpha")["argv"][2] == "alpha"
    (home.profiles / "alpha.toml").unlink()
    assert listed(home) == [("alpha", "taoprof-alpha", "no such profile")]
    home.run("kernel", "remove", "alpha", check=True)
    assert home.run("kernel", "remove", "alpha").returncode == 4


def test_uninstall_removes_all_kernels_of_a_profile(home: Home) -> None:
    copy_kernel(home, "taoprof-alpha-gpu0")
    assert home.run("uninstall", "--yes", check=True).stdout.count("TAO: alpha") == 2
    assert list(folder(home).iterdir()) == []


def test_a_kernel_whose_new_name_is_taken_keeps_its_folder(home: Home) -> None:
    spec = copy_kernel(home, "taoprof-beta")
    home.run("rename", "alpha", "beta", check=True)
    assert listed(home) == [("beta", "taoprof-alpha", ""), ("beta", "taoprof-beta", "")]
    assert read_spec(home, "taoprof-beta")["env"] == spec["env"]


def test_undo_of_a_removal_restores_the_kernels_too(home: Home) -> None:
    spec = copy_kernel(home, "taoprof-alpha-gpu0")
    assert "kernel 'TAO: alpha' removed" in home.run("remove", "alpha", check=True).stderr
    assert listed(home) == []
    done = home.run("undo", check=True)
    assert "kernel 'TAO: alpha' restored in ~/.local/share/jupyter/kernels/taoprof-alpha" in done.stderr
    assert [name for _, name, _ in listed(home)] == ["taoprof-alpha", "taoprof-alpha-gpu0"]
    assert read_spec(home, "taoprof-alpha-gpu0") == spec
    home.run("undo", check=True)
    assert listed(home) == [], "undo of the undo removes them"
    home.profile("alpha")
    home.run("set", "alpha", "description=x", check=True)
    home.run("undo", check=True)
    assert listed(home) == [], "nor does a new profile of that name get them"
    home.run("remove", "alpha", check=True)
    home.run("undo", check=True)
    assert listed(home) == []


def test_a_purge_forgets_removed_kernels(home: Home) -> None:
    home.run("remove", "alpha", check=True)
    assert (home.state / "kernels.json").stat().st_mode & 0o777 == 0o600
    home.run("history", "--purge", "--yes", check=True)
    assert not (home.state / "kernels.json").exists()


@pytest.mark.parametrize("content", ["", "{", '{"pending": 1}', '{"pending": [1], "removed": {"alpha": [[1, 2]]}}'])
def test_a_damaged_record_is_no_record(home: Home, content: str) -> None:
    (home.state / "kernels.json").write_text(content)
    assert listed(home) == [("alpha", "taoprof-alpha", "")]
    home.run("rename", "alpha", "beta", check=True)
    assert listed(home) == [("beta", "taoprof-beta", "")]


def test_a_kernel_that_could_not_be_updated_is_updated_later(home: Home) -> None:
    other = folder(home, "taoprof-beta")
    other.mkdir()
    (other / "kernel.json").write_text("{}")
    done = home.run("rename", "alpha", "beta", check=True)
    assert "still has profile 'alpha'" in done.stderr
    assert listed(home) == [("alpha", "taoprof-alpha", "no such profile")]
    other.rename(folder(home, "other"))
    assert "kernel 'TAO: alpha' is now 'TAO: beta'" in home.run("kernel", "list", check=True).stderr
    assert listed(home) == [("beta", "taoprof-beta", "")]


@pytest.mark.parametrize("program", ["/bin/true", "/bin/ls", "/bin/echo", str(Path(sys.executable).with_name("pip"))])
def test_a_program_that_is_no_python_is_refused(home: Home, program: str) -> None:
    done = home.run("kernel", "install", "alpha", "--python", program)
    assert (done.returncode, done.stderr) == (
        2,
        f"taoprof: error: '{program}' cannot run a kernel: it is no working Python 3 interpreter\n"
        "hint: name another one with --python PATH\n",
    )


def test_list_tells_kernels_of_one_profile_apart_and_cuts_what_is_too_long(home: Home, tmp_path: Path) -> None:
    home.environ["VIRTUAL_ENV"] = str(tmp_path)
    install(home, "alpha", "--prefix", str(tmp_path))
    foreign = folder(home, "foreign")
    foreign.mkdir()
    name = "x" * 10_000
    foreign.joinpath("kernel.json").write_text(json.dumps({"metadata": {"taoprof": {"profile": name}}}))
    done = home.run("kernel", "list", check=True)
    kernels = [line.split()[:2] for line in done.stdout.splitlines()[1:]]
    assert kernels[1:] == [
        ["alpha", "~/.local/share/jupyter/kernels/taoprof-alpha"],
        ["alpha", f"{tmp_path}/share/jupyter/kernels/taoprof-alpha"],
    ]
    assert max(map(len, done.stdout.splitlines())) < 1000
    assert home.json("kernel", "list")["data"]["kernels"][0]["profile"] == name


@pytest.mark.strace
def test_a_full_disk_after_the_import_names_the_command_that_goes_on(home: Home, tmp_path: Path) -> None:
    home.environ["VIRTUAL_ENV"] = sys.prefix
    (home.root / "mounts.json").write_text('{"Mounts": [{"source": "/tmp", "destination": "/data"}]}')

    def do() -> int:
        return main.run(["import", "mounts.json", "--name", "d", "--kernel"])

    points = list(injection.points(injection.copied(home, tmp_path / "clean"), do))
    point = next(point for point in points if point.call == "mkdir" and "taoprof-d" in point.line)
    ended = injection.run(home, do, f"mkdir:error=ENOSPC:when={point.number}")
    assert ended.status == 1
    first, hint = ended.err.splitlines()[-2:]
    assert first.startswith("taoprof: error: profile 'd' was created, but cannot create the folder ")
    assert hint == "hint: free some space, then run 'taoprof kernel install d'; nothing else was changed"
    install(home, "d")


COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "rename": (["rename", "alpha", "beta"], []),
    "undo of a renaming": (["undo"], ["rename", "alpha", "beta"]),
    "remove": (["remove", "alpha"], []),
    "undo of a removal": (["undo"], ["remove", "alpha"]),
    "install": (["kernel", "install", "alpha", "--python", sys.executable], ["kernel", "remove", "alpha"]),
    "kernel remove": (["kernel", "remove", "alpha"], []),
}
"""By name: the command, and the one before it."""


@pytest.mark.strace
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", COMMANDS)
def test_after_a_kill_or_a_failure_the_next_command_puts_it_right(home: Home, tmp_path: Path, case: str) -> None:
    """A kill at each change, and some failures: each profile has its kernels, and no folder is left over."""
    words, before_it = COMMANDS[case]
    copy_kernel(home, "taoprof-alpha-gpu0")
    if before_it:
        home.run(*before_it, check=True)
    call(injection.copied(home, tmp_path / "warm"), *words)  # so that the forks have all that it loads

    def do() -> int:
        return main.run(words)

    before, states = state(home), []
    points = list(injection.points(clean := injection.copied(home, tmp_path / "clean"), do))
    after = state(clean)
    every = [(point, way) for point in points for way in point.injections]
    some = [pair for pair in every if pair[1] == "signal=SIGKILL"]
    some += [pair for pair in every if pair not in some][random.randrange(STEP) :: STEP]
    for number, (point, way) in enumerate(some):
        copy = injection.copied(home, tmp_path / f"copy-{number}")
        ended = injection.run(copy, do, f"{point.call}:{way}:when={point.number}")
        if injection.was_hit(ended, point, copy):
            assert "Traceback" not in ended.err, ended.err
            copy.run("kernel", "list", check=True)
            states.append(now := state(copy))
            partly = (
                [kernel for kernel in before[1] if kernel not in now[1]] if words[:2] == ["kernel", "remove"] else []
            )
            assert now in (before, after) or partly, f"{way} {point.line}: {now} {ended}"
            assert all((path / "kernel.json").exists() for path in folder(copy).iterdir()), (way, point.line)
        shutil.rmtree(copy.root)
    print(f"{case}: {len(some)} of {len(every)} injections tried, {len(states)} hit")
    assert before in states, "some are killed before"
    assert after in states, "and some after"


def state(home: Home) -> tuple[list[str], list[tuple[str, str, str]]]:
    return sorted(path.stem for path in home.profiles.glob("*.toml")), listed(home)
