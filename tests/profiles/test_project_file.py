"""``.taoprof.toml`` is data from a stranger: nothing of it counts before 'taoprof trust', and it may do little then."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support import commands
from tests.support.home import Home
from tests.support.injection import fail_calls

UNTRUSTED = 9
HEAD = 'layout = "custom"\n'
MOUNT = '[[mounts]]\nsource = "{}"\ndestination = "/data"\n'
GOOD = """\
layout = "local"
project_dir = "."
[variables]
LOCAL_DATA_DIR = "data"
NUM_GPUS = "2"
"""


@pytest.fixture
def project(home: Home) -> Path:
    """The folder of a project, with a repository."""
    folder = home.root / "kitti"
    (folder / ".git").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "specs").mkdir()
    return folder


def call(home: Home, *words: str, **options: Any) -> commands.CommandResult:
    """Run a command, in the project's folder by default."""
    options.setdefault("cwd", home.root / "kitti")
    return commands.call(home, *words, **options)


def put(folder: Path, text: str = GOOD) -> Path:
    path = folder / ".taoprof.toml"
    path.write_text(text)
    return path


def trusted(home: Home, folder: Path, text: str = GOOD) -> Path:
    """Write the project file of a folder and trust it; return its path."""
    path = put(folder, text)
    done = call(home, "trust", "--yes")
    assert done.status == 0, done
    return path


def files_of(home: Home) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in home.root.rglob("*") if path.is_file()}


SOURCES = (
    *("~", "~/.ssh", "/etc", "/var/run/docker.sock", "..", "data/../../other", "~root", "link", "link/below"),
    *("${env:HOME}/.aws", "../kitti-other", "data:/x", "/proc/self/root", "//etc"),
)
VARIABLES = {  # each acts on a program of the user
    "PATH": "./bin",
    "LD_PRELOAD": "./evil.so",
    "BASH_ENV": "./evil.sh",
    "PYTHONPATH": ".",
    "GIT_DIR": ".",
    "DOCKER_HOST": "tcp://evil:2375",
    "LAUNCHER_MOUNTS": "./mounts.json",
    "TAOPROF_HOME": ".",
}
TOP = (
    *("extends = 'secret'", "on_start = 'touch /tmp/evil'", "notify = ['https://evil']", "on_end.command = 'touch x'"),
    *("On_Start = 'touch x'", "'\u043en_start' = 'touch x'", "include = '../x.toml'", "image = 'x --volume /:/h'"),
    "gpus = 'all --privileged'",
)
"""Keys; one has a letter that looks alike."""

TRICKS = {
    **{f"mount of {source}": HEAD + MOUNT.format(source) for source in SOURCES},
    **{f"variable {name}": f'{GOOD}{name} = "{value}"\n' for name, value in VARIABLES.items()},
    **{line: f"{line}\n{GOOD}" for line in TOP},
    "mount by a variable": HEAD + '[variables]\nLOCAL_X = "~/.ssh"\n' + MOUNT.format("${LOCAL_X}"),
    "mount by two variables": HEAD + '[variables]\nLOCAL_X = "."\n' + MOUNT.format("${LOCAL_X}/.."),
    "project folder elsewhere": 'layout = "local"\nproject_dir = "~"\n',
    "notebook folder elsewhere": 'layout = "local"\nproject_dir = "."\nnotebook_dir = "/etc"\n',
    "layout's data elsewhere": 'layout = "host"\nproject_dir = "."\n[variables]\nHOST_DATA_DIR = "/etc"\n',
    "secret in a variable": GOOD + 'LOCAL_X = "${env:NGC_API_KEY}"\n',
    "secret in the container": GOOD + '[container.env]\nX = "${env:GITHUB_TOKEN}"\n',
    "hidden library in docker's environment": GOOD
    + 'LOCAL_TOKEN = "./evil.so"\n[container.env]\nLD_PRELOAD = "${LOCAL_TOKEN}"\n',
    "hidden value": GOOD + '[container.env]\nX_KEY = "x"\n',
    "secret as the user": GOOD + '[docker]\nuser = "${env:SSH_PASSWORD}"\n',
    "all rights": GOOD + "[docker]\nprivileged = true\n",
    "a forged trust": GOOD + '[project]\nfile = "/x"\nsha256 = "' + "0" * 64 + '"\nfolders = ["/"]\n',
    "hook under an escaped key": GOOD.replace("[var", '"on\\u005fstart" = "touch x"\n[var'),
    "job options": GOOD + '[slurm]\noptions = ["--wrap=evil"]\n',
    "a name within a name": GOOD + 'LOCAL_X = "NGC_API_KEY"\n[container.env]\nX = "${env:${LOCAL_X}}"\n',
    "doubling values": GOOD
    + 'LOCAL_A0 = "xxxxxxxx"\n'
    + "".join(f'LOCAL_A{n + 1} = "${{LOCAL_A{n}}}${{LOCAL_A{n}}}"\n' for n in range(60)),
    "tilde by a variable": HEAD + '[variables]\nLOCAL_X = "~"\n' + MOUNT.format("${LOCAL_X}"),
    "no TOML": "[[[",
    "too large": "#" * 70_000,
    "dots": "a" + ".a" * 5000 + " = 1\n",
}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_hostile_file_is_refused_and_changes_nothing(home: Home, project: Path, trick: str) -> None:
    (project / "link").symlink_to(home.root)
    home.profile("secret")
    environ = {**home.environ, "NGC_API_KEY": "nvapi-1", "GITHUB_TOKEN": "x", "SSH_PASSWORD": "x"}
    put(project, TRICKS[trick])
    call(home, "list")  # it writes its cache
    before = files_of(home)
    for words in (["use"], ["run", "--", "true"], ["env"], ["shell"], ["render", "--to", "docker"]):
        done = call(home, *words, environ=environ)
        assert done.status == UNTRUSTED, (words, done)
        assert "taoprof trust" in done.err
    done = call(home, "trust", "--yes", environ=environ)
    assert done.status in (2, 3), done
    assert "nvapi-1" not in done.out + done.err
    assert files_of(home) == before


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "dangling link"])
def test_what_is_no_file_is_not_read(home: Home, project: Path, kind: str) -> None:
    path = project / ".taoprof.toml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "nowhere")
    assert call(home, "use").status == UNTRUSTED
    assert call(home, "trust", "--yes").status in (1, 3, 4)
    assert call(home, "list").status == 0


def test_a_link_does_not_move_the_project_to_where_it_leads(home: Home, project: Path) -> None:
    (home.root / "x.toml").write_text('layout = "custom"\n' + MOUNT.format("."))
    (project / ".taoprof.toml").symlink_to("../x.toml")
    done = call(home, "trust", "--yes", "--json")
    assert done.status == 0, done
    assert home.json("show", "kitti")["data"]["mounts"][0]["source"] == str(project), "not the folder above"
    (home.root / "x.toml").write_text('layout = "custom"\n' + MOUNT.format("data"))
    assert call(home, "use").status == UNTRUSTED, "what is behind the link has changed"
    assert call(home, "trust", "--revoke", str(project)).status == 0


def test_trusted_it_is_the_profile_of_its_folder(home: Home, project: Path) -> None:
    put(project, GOOD + 'LOCAL_X = "${env:LANG}/x"\n')
    (project / "below").mkdir()
    done = call(home, "trust", "--yes", cwd=project / "below")
    assert done.status == 0, done
    assert "LOCAL_DATA_DIR" in done.err, "what it sets is shown"
    assert "taken from your environment: LANG" in done.err
    note = "checked with this project's profile 'kitti', which is not active"
    assert note in call(home, "check").err
    assert call(home, "use").out == "switched to 'kitti'\n"
    assert note not in call(home, "check").err
    assert json.loads(home.mapping_file.read_text())["Mounts"][0]["source"] == str(project)
    assert home.json("show", "kitti")["data"]["variables"]["LOCAL_DATA_DIR"] == str(project / "data")
    assert call(home, "env").out.count(f"export LOCAL_PROJECT_DIR='{project}'\n") == 1
    assert "local, project" in call(home, "list").out
    assert call(home, "trust", "--list").out.splitlines()[1].split() == ["kitti", "~/kitti/.taoprof.toml"]
    assert "sha256" not in call(home, "show", "kitti", "--toml").out
    assert call(home, "use", cwd=home.root).status == 2, "it counts in its folder only"


def test_a_trusted_file_is_not_left_out_of_the_list(home: Home, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trusted(home, project, GOOD)
    fail_calls(monkeypatch, errno.EIO, lambda path, *_: path == str(home.profiles / "kitti.toml"), "open")
    done = call(home, "trust", "--list")
    assert done.status == 1 and "kitti.toml" in done.err, done


def test_the_switch_that_trust_names_creates_what_a_clone_does_not_have(home: Home, project: Path) -> None:
    folder = project / "results"
    assert not folder.exists()
    put(project, GOOD + '[[mounts]]\nsource = "results"\ndestination = "/results"\n')
    line = call(home, "trust", "--yes").out.strip()
    assert call(home, *line.rpartition("taoprof ")[2].split()).status == 0
    assert folder.is_dir()


def test_a_change_asks_again_and_says_what_has_changed(home: Home, project: Path) -> None:
    path = trusted(home, project)
    call(home, "use")
    path.write_text(GOOD + 'LOCAL_MORE = "more"\n')
    assert call(home, "use").status == UNTRUSTED
    assert "next:\n  taoprof trust" in call(home).out
    assert call(home, "show").status == 0, "it has something else to show"
    done = call(home, "trust")
    assert done.status == 2, "nobody can answer"
    assert '+LOCAL_MORE = "~/kitti/more"' in done.err
    assert call(home, "use", "kitti").status == 0, "what was trusted stays usable by its name"
    assert call(home, "trust", "--yes").status == 0
    assert call(home, "use").status == 0
    assert home.json("show", "kitti")["data"]["variables"]["LOCAL_MORE"] == str(project / "more")


def test_folders_outside_are_named_one_by_one(home: Home, project: Path) -> None:
    shared, other = home.root / "shared", home.root / "other"
    shared.mkdir()
    other.mkdir()
    path = put(project, HEAD + MOUNT.format("~/shared"))
    done = call(home, "trust", "--yes")
    assert done.status == 2
    assert "hint: if you want to mount them: taoprof trust --yes --allow '~/shared'\n" in done.err
    again = f"hint: if you trust this: taoprof trust --name q --allow {shared} --yes\n"
    assert again in call(home, "trust", "--name", "q", "--allow", str(shared)).err
    words = ["trust", "--allow", str(shared), "--", str(project)]
    assert call(home, *words).err.endswith(f"trust --allow {shared} --yes -- {project}\n")
    assert call(home, "trust", "--yes", "--allow", str(shared)).status == 0
    assert call(home, "use").status == 0
    path.write_text(HEAD + MOUNT.format("~/shared") + "# a comment\n")
    assert call(home, "trust", "--yes").status == 0, "what was allowed stays so"
    path.write_text(HEAD + MOUNT.format("~/other"))
    assert call(home, "trust", "--yes").status == 2


def test_a_link_that_is_put_there_later_is_refused_at_every_use(home: Home, project: Path) -> None:
    trusted(home, project)
    (project / "specs").rmdir()
    (project / "specs").symlink_to("/etc")
    for words in (["use"], ["run", "--", "true"], ["render", "--to", "docker", "--image", "x"]):
        done = call(home, *words)
        assert (done.status, "outside of the project" in done.err) == (3, True), done
        assert f"then: taoprof trust {project}/.taoprof.toml" in done.err, "the copy cannot be edited"


@pytest.mark.parametrize("name", ["part", "allowed"])
def test_a_trusted_folder_that_becomes_a_link_is_refused_at_every_use(home: Home, project: Path, name: str) -> None:
    (project / "part").mkdir()
    (home.root / "real").mkdir()
    (home.root / "allowed").symlink_to("real")
    put(project / "part", HEAD + MOUNT.format(".") + MOUNT.format("~/allowed").replace("/data", "/more"))
    assert call(home, "trust", "part", "--allow", "~/allowed", "--yes").status == 0
    assert call(home, "use", "part").status == 0
    path = {"part": project / "part", "allowed": home.root / "allowed"}[name]
    path.rename(home.root / "away")
    path.symlink_to("/etc")
    for words in (
        ["use", "part"],
        ["show", "part"],
        ["run", "part", "--", "true"],
        ["render", "part", "--to", "docker", "--image", "x"],
    ):
        done = call(home, *words, cwd=home.root)
        assert "outside of the project" in done.out + done.err, (words, done)


def test_what_is_no_file_any_more_is_a_change(home: Home, project: Path) -> None:
    path = trusted(home, project)
    path.unlink()
    os.mkfifo(path)
    assert call(home, "use").status == UNTRUSTED
    assert "next:\n  taoprof trust" in call(home).out
    assert call(home, "trust", "--yes").status == 3


def test_trust_records_what_it_showed(home: Home, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is replaced while the question is asked."""
    path = put(project)

    def confirm(question: str) -> bool:
        path.write_text(GOOD + '[container.env]\nEVIL = "1"\n')
        return True

    monkeypatch.setattr("taoprofiles.cli.prompts.can_ask", lambda: True)
    monkeypatch.setattr("taoprofiles.cli.prompts.confirm", confirm)
    assert call(home, "trust").status == 0
    assert "EVIL" not in (home.profiles / "kitti.toml").read_text()
    assert call(home, "use").status == UNTRUSTED


@pytest.mark.parametrize("target", ["docker", "slurm"])
def test_a_secret_of_ones_own_gives_the_project_no_variable_of_a_program(
    home: Home, project: Path, target: str
) -> None:
    trusted(
        home,
        project,
        HEAD + 'image = "x"\n[variables]\nLOCAL_X = "x"\n[container.env]\nLD_PRELOAD = "/e.so ${LOCAL_X}"\n',
    )
    call(home, "new", "mine", "--extends", "kitti")
    call(home, "set", "mine", "API_KEY=abcdefgh", "LOCAL_X=${API_KEY}")
    done = call(home, "render", "mine", "--to", target, "--", "true")
    assert "container.env.LD_PRELOAD: it is a secret" in done.err, done


def test_a_value_that_becomes_a_secret_after_trust_is_refused_at_every_use(home: Home, project: Path) -> None:
    put(project, GOOD + 'LOCAL_X = "${env:WORK}/x"\n')
    assert call(home, "trust", "--yes", environ={**home.environ, "WORK": "/w"}).status == 0
    call(home, "new", "mine", "--extends", "kitti")
    secret = {**home.environ, "WORK": "https://ana:s3cret-value@host"}
    for words in (["use", "kitti"], ["use", "mine"], ["env", "kitti"], ["run", "mine", "--", "true"]):
        done = call(home, *words, environ=secret)
        assert (done.status, "${env:WORK}: its value is a secret now" in done.err) == (3, True), (words, done)
        assert "s3cret" not in done.out + done.err
    assert call(home, "use", "mine", environ={**home.environ, "WORK": "/w"}).status == 0


def test_the_hint_names_the_whole_folder(home: Home, project: Path) -> None:
    put(project, HEAD + MOUNT.format(f"{home.root}'/x"))
    assert f"--allow '{home.root}'\"'\"'/x'" in call(home, "trust", "--yes").err.replace("~", str(home.root))


def test_own_values_are_in_a_profile_that_extends_it(home: Home, project: Path) -> None:
    data = home.root / "data"
    (home.root / "disk").mkdir()
    data.symlink_to("disk")  # as big data often is
    trusted(home, project, HEAD + '[variables]\nLOCAL_DATA_DIR = "data"\n' + MOUNT.format("${LOCAL_DATA_DIR}"))
    assert call(home, "set", "kitti", "KEY=own").status == 2
    assert call(home, "new", "mine", "--extends", "kitti").status == 0
    assert call(home, "set", "mine", "KEY=own", "LOCAL_DATA_DIR=~/data").status == 0
    assert call(home, "use").out == "switched to 'mine'\n"
    assert json.loads(home.mapping_file.read_text())["Mounts"][0]["source"] == str(data)
    trusted(home, project, HEAD + '[variables]\nLOCAL_DATA_DIR = "data/a"\n' + MOUNT.format("${LOCAL_DATA_DIR}/.."))
    done = call(home, "use", "mine")
    assert (done.status, "outside of the project" in done.err) == (3, True), "it would mount the home"


def test_revoked_it_is_untrusted_again(home: Home, project: Path) -> None:
    trusted(home, project)
    assert call(home, "new", "second", "--from", "kitti").status == 2, "it would stay trusted"
    assert call(home, "trust", "--revoke").status == 0
    assert call(home, "use").status == UNTRUSTED
    assert call(home, "show", "kitti").status == 4
    assert call(home, "undo").status == 0
    assert call(home, "use").status == 0


def test_new_writes_one_that_others_can_trust_and_leaves_out_secrets(home: Home, project: Path, tmp_path: Path) -> None:
    options = "[docker]\nprivileged = true\nnetwork = 'host'\n"
    home.profile("old", GOOD.replace('"."', f'"{project}"') + 'KEY = "tlt_encode"\nOTHER = "x"\n' + options)
    done = call(home, "new", "kitti", "--from", "old", "--project")
    assert done.status == 0, done
    assert "left out, not allowed in a project file: docker.privileged, KEY, OTHER" in done.err
    text = (project / ".taoprof.toml").read_text()
    assert 'project_dir = "."' in text
    assert "tlt_encode" not in text
    assert call(home, "use").out == "switched to 'kitti'\n", "its author trusts it"
    assert call(home, "show", "kitti", "--toml").out == text
    elsewhere = tmp_path / "clone"
    elsewhere.mkdir()
    (elsewhere / "specs").mkdir()
    put(elsewhere, text)
    assert call(home, "trust", "--yes", "--name", "second", cwd=elsewhere).status == 0
    assert call(home, "use", cwd=elsewhere).out == "switched from 'kitti' to 'second'\n"
    assert call(home, "new", "third", "--project", cwd=elsewhere).status == 2, "there is one already"


def test_a_file_of_another_user_does_not_get_in_the_way(home: Home, project: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root, to make a file of another user")
    os.chown(put(project), 12345, 12345)
    assert call(home, "use").status == 2, "as if it were not there: nobody can choose from a list"
    assert call(home, "trust", "--yes").status == 0
    assert call(home, "use").status == 0
