"""Hostile input and hostile surroundings: one clear error, the right status, and nothing is changed."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from taoprofiles.profiles.rendering import SIZE_LIMIT
from tests.support.commands import UNKNOWN, CommandResult, as_them, call, can_be_shown, give, one_clear_error
from tests.support.home import Home, require

EVIL = "\x1b[31mEVIL\x1b]0;title\x07\x9b2J\u202eliars\u2028\x7f\x08\r\n\x00"
"""Colours, a window title, a cleared screen, text that runs backwards, new lines: nothing a terminal may be given."""

EVIL_ARGUMENT = EVIL.replace("\0", "")
"""What a command line, a file name or the environment can carry of it."""


def unchanged(home: Home, words: list[str], status: int, **options: object) -> CommandResult:
    """Run a command that must fail in this process and change nothing."""
    before = home.tree()
    done = call(home, *words, **options)  # type: ignore[arg-type]
    one_clear_error(done, status)
    assert home.tree() == before
    return done


def clean(answer: CommandResult | subprocess.CompletedProcess[str]) -> None:
    """Check that a terminal would only print what it is given."""
    if isinstance(answer, subprocess.CompletedProcess):
        answer = CommandResult(answer.returncode, answer.stdout, answer.stderr)
    assert "Traceback" not in answer.err, answer.err
    for stream in (answer.out, answer.err):
        bad = [line for line in stream.split("\n") if not can_be_shown(line)]
        assert bad == []


# Names

BAD_NAMES = [
    *"../x ../../../../etc/passwd a/b /etc/passwd . .. .a ä \u0430 \uff11 \udcff _a a\\b a:b * ~".split(" "),
    *("", " ", " a ", "a\n", EVIL_ARGUMENT, "a" * 65, "a" * (128 << 10)),
]
BY_NAME = (
    "use {}; use {} --create --mkdir; show {}; show {} --toml; diff {}; diff a {}; env {}; edit {}; new {}; "
    "new {} --from a; new c --from={}; import --name {}; import mounts.json --name {}; set {} A=1; rename {} c; "
    "rename b {}; remove {} --force"
).split("; ")
"""Command lines with a name in them."""


def with_name(line: str, name: str) -> list[str]:
    return [word.format(name) for word in line.split()]


@pytest.fixture
def filled(home: Home) -> Home:
    """A home with a (active) and b, and something to import."""
    home.profile("a")
    home.profile("b")
    (home.root / "mounts.json").write_text('{"Mounts": []}')
    (home.root / "a").mkdir()
    (home.root / "a/b.toml").write_text("")
    home.environ["EDITOR"] = "true"
    assert call(home, "use", "a").status == 0
    return home


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: repr(name)[:12])
def test_invalid_profile_name(filled: Home, name: str) -> None:
    before, wrong = filled.tree(), []
    for line in BY_NAME:
        done = call(filled, *with_name(line, name))
        try:
            one_clear_error(done, 2)
        except AssertionError as error:
            wrong.append((line, str(error)[:300]))
        assert filled.tree() == before, line
    assert wrong == []


NO_NAMES = [
    *(f"{verb} {end}" for verb in ("use", "show", "new", "remove") for end in ("-x", "--x", "-1", "-- -x", "-- --x")),
    *("new -x --from a", "rename a --", "rename -- a --", "remove --", "new -- --"),
    *("show -", "env -", "new c --from=-", "new -", "remove -"),  # only 'use' knows it
]
LONG = "x" * (128 << 10)
"""As long as Linux lets an argument be."""
BAD_TEXTS = {"the longest": LONG, "what drives a terminal": EVIL_ARGUMENT}
ARGUMENTS = {
    2: "{}; --{}; use --{}; use a {}; use a --{}; use a --wait {}; env a --format {}; init {}; set a {}; set a {}=1",
    4: "undo {}",
    3: "set a docker.{}=1; set a variables.{}=1; new n --network {}; import {}.json",
}
"""Command lines, by exit status."""


@pytest.mark.parametrize(
    ("words", "status"),
    [
        *((line.split(), 2) for line in NO_NAMES),
        *(
            (with_name(line, text), status)
            for text in BAD_TEXTS.values()
            for status, lines in ARGUMENTS.items()
            for line in lines.split("; ")
        ),
        (["undo", "9" * 5000], 4),
        (["set", "a", f"A={LONG}"], 3),
        (["set", "a", "docker.ulimits.stack=" + "9" * 5000], 3),
        (["set", "a", "--unset", LONG.upper()], 2),
        *((["new", "n", f"--{option}", LONG], 3) for option in ("description", "project-dir")),
        *(
            (["new", "n", f"--{option}", "\udcff"], 2)
            for option in ("description", "project-dir", "notebook-dir", "network")
        ),
        *((["set", "a", f"{key}=\udcff"], 2) for key in ("NUM_GPUS", "description")),
        (["set", "a", "variables.\udcff=1"], 2),
        (["import", "\udcff.json"], 3),
    ],
    ids=lambda value: ascii(" ".join(word[:20] for word in value)) if isinstance(value, list) else str(value),
)
def test_invalid_argument(filled: Home, words: list[str], status: int) -> None:
    unchanged(filled, words, status)


# Texts: what a profile, a mounts file or the environment says never reaches the terminal raw


def quoted(text: str) -> str:
    return json.dumps(text)  # a TOML basic string takes these escapes, as long as all is in the first plane


EVIL_PROFILE = f"""\
layout = "local"
description = {quoted(EVIL)}
project_dir = {quoted("/" + EVIL_ARGUMENT)}
[variables]
A = {quoted(EVIL_ARGUMENT)}
[container.env]
B = {quoted(EVIL_ARGUMENT)}
[docker]
user = {quoted(EVIL_ARGUMENT)}
network = {quoted(EVIL)}
[docker.ulimits]
{quoted(EVIL)} = 1
"""

LOOKING = (
    "list; show evil; show evil --reveal; use evil; use evil --dry-run --mkdir; status; status --reveal; diff evil; "
    "diff evil a --reveal; diff a evil; history; current; status --paths; new evil; new a --from evil; "
    "env evil --format bash; env evil --format fish"
).split("; ")


@pytest.mark.parametrize("line", LOOKING)
def test_profile_full_of_escapes(filled: Home, line: str) -> None:
    filled.profile("evil", EVIL_PROFILE)
    clean(call(filled, *line.split()))


def test_profile_full_of_escapes_in_use(filled: Home) -> None:
    sources = [filled.root / "1\x1b[31m\u202e\n", filled.root / "2"]
    text = 'layout = "custom"\n[container.env]\nA = "\\u001b[2J"\n' + "".join(
        f"[[mounts]]\nsource = {quoted(str(source))}\ndestination = {quoted(f'/{number}' + EVIL_ARGUMENT)}\n"
        for number, source in enumerate(sources)
    ).replace(":", "").replace("$", "")
    filled.profile("evil", text)
    for line in ("use evil --mkdir", "status", "use a", "diff evil --reveal", "use -", "list"):
        done = call(filled, *line.split())
        clean(done)
        assert done.status in (0, 6), done
    assert filled.mapping()["Mounts"][0]["source"] == str(sources[0])
    filled.profile("evil", text.replace("2J", "3J"))
    done = call(filled, "status")
    clean(done)
    assert "\\x1b[3J" in done.out


@pytest.mark.parametrize(
    "text",
    [
        f"layout = {quoted(EVIL)}",
        f'layout = "custom"\n{quoted(EVIL)} = 1',
        f'layout = "custom"\n[variables]\n{quoted(EVIL)} = "1"',
        f'layout = "custom"\n[variables]\nA = {quoted("${" + EVIL + "}")}',
        f'layout = "custom"\n[docker]\n{quoted(EVIL)} = 1',
        f'layout = "custom"\n[docker.ulimits]\n{quoted(EVIL)} = "1"',
        f'layout = "custom"\n[[mounts]]\nsource = {quoted(EVIL_ARGUMENT)}\ndestination = {quoted(EVIL_ARGUMENT)}',
        f'layout = "custom"\n[{quoted(EVIL)}.{quoted(EVIL)}]\n[{quoted(EVIL)}.{quoted(EVIL)}]',
        "layout = \x1b[31m",
        "\x1b[31m = 1",
        'layout = "custom"\nnetwork = "\x1b[31m"',
    ],
)
def test_broken_profile_full_of_escapes(filled: Home, text: str) -> None:
    filled.profile("evil", text)
    for words in (["use", "evil"], ["show", "evil"]):
        unchanged(filled, words, 3)
    clean(call(filled, "list"))


MOUNTS = {
    "everywhere": {
        "Mounts": [{"source": "/" + EVIL, "destination": EVIL, EVIL: EVIL}, EVIL, {EVIL: EVIL}],
        "Envs": [{"variable": EVIL, "value": EVIL}, EVIL],
        "DockerOptions": {EVIL: EVIL, "user": EVIL, "ulimits": {EVIL: EVIL}},
        EVIL: EVIL,
    },
    "well formed": {
        "Mounts": [{"source": "/" + EVIL, "destination": "/" + EVIL}, {"source": EVIL, "destination": EVIL}],
        "Envs": [{"variable": EVIL, "value": EVIL}, {"variable": "A" + EVIL, "value": "\ud800"}],
        "DockerOptions": {"user": EVIL, "shm_size": EVIL},
    },
    "name of a variable": {"Mounts": [], "Envs": [{"variable": EVIL, "value": "1"}]},
    "secret": {"Mounts": [], "Envs": [{"variable": EVIL + "KEY", "value": "1"}]},
    "surrogates": {"Mounts": [{"source": "/\ud800", "destination": "/\ud800"}], "\ud800": 1},
}


@pytest.mark.parametrize("mounts", MOUNTS)
def test_mounts_file_full_of_escapes(filled: Home, mounts: str) -> None:
    filled.mapping_file.write_text(json.dumps(MOUNTS[mounts]))
    filled.mapping_file.chmod(0o644)
    shutil.copy(filled.mapping_file, filled.root / "evil.json")
    for line in ("status", "status --reveal", "diff a", "diff a --reveal", "current", "list"):
        done = call(filled, *line.split())
        clean(done)
        assert done.status in (0, 6), done
    for line in ("import --name n", "import evil.json"):
        unchanged(filled, line.split(), 3)
    for line in ("use a --dry-run --reveal", "use a", "undo", "status"):
        done = call(filled, *line.split())
        clean(done)
        assert done.status == 0 or "dry-run" not in line


def test_profile_file_with_an_invalid_name(filled: Home) -> None:
    """Anybody may put a file there; it is no profile and is not spoken of."""
    for name in ("\x1b[31m", "a b", ".hidden", "-x", "a\n", "é"):
        (filled.profiles / f"{name}.toml").write_text('layout = "custom"\nmounts = []\n')
    done = call(filled, "list", "--json")
    assert [profile["name"] for profile in done.envelope["data"]["profiles"]] == ["a", "b"]
    clean(call(filled, "list"))


@pytest.mark.parametrize(
    "environ",
    [
        {"USER": EVIL_ARGUMENT},
        {"LAUNCHER_MOUNTS": EVIL_ARGUMENT},
        {"EDITOR": EVIL_ARGUMENT, "VISUAL": EVIL_ARGUMENT},
        {"EDITOR": "'"},
        {"EDITOR": "\udcff"},
        {"TAOPROF_HOME": EVIL_ARGUMENT},
        {"HOME": EVIL_ARGUMENT},
        {"XDG_CONFIG_HOME": "/" + EVIL_ARGUMENT, "XDG_STATE_HOME": "/proc/" + EVIL_ARGUMENT},
        {"XDG_CONFIG_HOME": "\udcff"},
        {"NO_SUCH": EVIL_ARGUMENT},
    ],
    ids=lambda environ: " ".join(environ),
)
def test_environment_full_of_escapes(filled: Home, environ: dict[str, str]) -> None:
    for line in ("use b", "use a", "history", "status", "edit a", "list", "status --paths", "new n"):
        clean(call(filled, *line.split(), environ=environ))


# Profiles that are no files, or are bombs


def content(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


ROOM = SIZE_LIMIT - 200

THINGS: dict[str, Callable[[Path], None]] = {
    "folder": Path.mkdir,
    "FIFO": os.mkfifo,
    "17 MB": lambda path: path.touch() or os.truncate(path, 17 << 20),
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "symlink loop": lambda path: path.symlink_to(path.name),
    "empty": content(b"\n"),
    "not UTF-8": content(b'layout = "custom"\ndescription = "\xff"\n'),
    "UTF-16": content('layout = "custom"\n'.encode("utf-16")),
    "zeros": content(b"\0" * 1000),
    "binary": content(bytes(range(256))),
    "nested lists": content(b"a = " + b"[" * ROOM),
    "100k keys": content(b"".join(b"k%d=1\n" % n for n in range(100_000))),
    "huge hex": content(b'layout="custom"\ndocker.ulimits.stack = 0x' + b"f" * (ROOM - 50)),
}


@pytest.mark.parametrize("thing", THINGS)
def test_invalid_profile(filled: Home, thing: str) -> None:
    other = filled.root.parent / "y.toml"
    for path in (filled.profiles / "x.toml", other):
        THINGS[thing](path)
    before, started = filled.tree(), time.process_time()
    for line in ("use x", "show x", "env x", "set x A=1", "new c --from x", "rename x c", f"import {other}"):
        one_clear_error(call(filled, *line.split()), 3)
    done = call(filled, "list")
    clean(done)
    (row,) = [line for line in done.out.splitlines() if " x " in line]
    assert (done.status, row[0], "not valid" in row, len(row) < 1000) == (0, "!", True, True)
    assert filled.tree() == before
    assert time.process_time() - started < 10


NO_MOUNTS = {
    "nothing": b"",
    "open": b"{",
    "deep": b'{"Mounts": ' + b"[" * 100_000,
    "number": b'{"Mounts": 1}',
    "numbers": b'{"Mounts": [1]}',
    "not UTF-8": b"\xff",
    "not UTF-8 inside": b'{"Mounts": [], "\xff": 1}',
    "huge int": b'{"Mounts": [], "DockerOptions": {"ulimits": {"stack": ' + b"9" * 5000 + b"}}}",
    "null": b'{"Mounts": [], "DockerOptions": {"tty": null}}',
    "nulls": b'{"Mounts": null, "Envs": null, "DockerOptions": null}',
    "half a character": b'{"Mounts": [], "Envs": [{"variable": "A", "value": "\\ud800"}]}',
    "infinite": b'{"Mounts": [], "DockerOptions": {"shm_size": Infinity}}',
}


@pytest.mark.parametrize("data", NO_MOUNTS.values(), ids=NO_MOUNTS)
def test_import_invalid_stdin(filled: Home, data: bytes) -> None:
    status = 2 if data in (b"", b"\xff") else 3  # no text at all is no kind of file that can be imported
    unchanged(filled, ["import", "-", "--name", "x"], status, stdin=data)


# The folder of the profiles


@pytest.mark.parametrize("line", ["use a", "list", "show a", "new n", "remove a", "import --name n"])
@pytest.mark.parametrize("make", [content(b"keep me"), THINGS["symlink loop"], os.mkfifo], ids=["file", "loop", "FIFO"])
def test_invalid_profiles_folder(home: Home, make: Callable[[Path], None], line: str) -> None:
    home.profiles.parent.mkdir(parents=True)
    make(home.profiles)
    home.mapping_file.write_text('{"Mounts": []}')
    done = unchanged(home, line.split(), 3)
    assert "profiles" in done.err


@pytest.mark.parametrize("place", [".config", ".config/taoprofiles", ".local", ".local/state"])
def test_file_where_a_folder_of_ours_belongs(home: Home, place: str) -> None:
    path = home.root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("keep me")
    unchanged(home, ["new", "n"], 3)


# Homes. Another user is needed: root may do everything.


def test_somebody_else_can_use_it(theirs: Home) -> None:
    """So that the refusals below mean something."""
    done = as_them(theirs, "use", "a")
    assert done.status == 0, done
    assert theirs.mapping_file.stat().st_uid == theirs.root.stat().st_uid


@pytest.mark.parametrize(
    ("line", "status"),
    [
        *((line, 1) for line in ("use a", "new n", "remove a")),
        *((line, 0) for line in ("list", "status", "use a --dry-run")),
    ],
)
def test_read_only_home(theirs: Home, line: str, status: int) -> None:
    """It can be looked at."""
    for path in [theirs.root, *theirs.root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = theirs.tree()
    done = as_them(theirs, *line.split())
    assert (theirs.tree(), done.status) == (before, status), done
    if status:
        one_clear_error(done, 1)
        assert "permission denied" in done.err and str(theirs.root) in done.err


def test_home_that_is_read_only_in_part(theirs: Home) -> None:
    """The state can be written, the home's own folder cannot: the history tells of no switch that did not happen."""
    assert as_them(theirs, "list").status == 0
    (theirs.root / ".local").mkdir(exist_ok=True)
    give(theirs)
    theirs.root.chmod(0o555)
    one_clear_error(as_them(theirs, "use", "a"), 1)
    assert not theirs.mapping_file.exists()
    assert json.loads(as_them(theirs, "history", "--json").out)["data"]["entries"] == []


@pytest.mark.parametrize(("mode", "line"), [(0o000, "use a"), (0o000, "list"), (0o000, "new n"), (0o400, "use a")])
def test_profiles_folder_that_cannot_be_read(theirs: Home, mode: int, line: str) -> None:
    theirs.profiles.chmod(mode)
    done = as_them(theirs, *line.split())
    one_clear_error(done, 1)
    assert "permission denied" in done.err
    assert not theirs.mapping_file.exists()
    assert theirs.profiles.stat().st_mode & 0o777 == mode


def test_profile_that_cannot_be_read(theirs: Home) -> None:
    theirs.profile("b")
    give(theirs)
    (theirs.profiles / "b.toml").chmod(0)
    for words in (("use", "b"), ("show", "b")):
        one_clear_error(as_them(theirs, *words), 1)
    done = as_them(theirs, "list")
    assert done.status == 0, "one that cannot be read does not hide the others"
    assert [line.split()[:2] for line in done.out.splitlines()[1:]][1] == ["!", "b"]
    assert as_them(theirs, "use", "a").status == 0
    (theirs.profiles / "a.toml").chmod(0)
    done = as_them(theirs, "list")
    assert (done.status, done.out.count("not valid")) == (0, 2), "nor does the active one"
    assert as_them(theirs, "current").out == "a\n"
    (theirs.profiles / "b.toml").chmod(0o600)
    assert as_them(theirs, "list").out.count("not valid") == 1


def test_a_thousand_problems_do_not_fill_the_screen(filled: Home) -> None:
    filled.profile("x", 'layout = "custom"\n[variables]\n' + "".join(f"A{n} = {n}\n" for n in range(1000)))
    lines = unchanged(filled, ["use", "x"], 3).err.splitlines()
    assert len(lines) == 23
    assert lines[-2] == "  … and 980 more"
    assert len(call(filled, "use", "x", "--json").envelope["error"]["problems"]) == 100
    (line, *_) = call(filled, "a" * 300 + "b" * 300 + "z").err.splitlines()
    assert len(line) < 600


VERBS = [("use", "a"), ("list",), ("status", "--paths"), ("new", "n")]


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_no_home_at_all(theirs: Home, words: tuple[str, ...]) -> None:
    require(os.geteuid() == 0, "only root may become somebody whom nobody knows")
    environ = {key: value for key, value in theirs.environ.items() if key != "HOME"}
    before = theirs.tree()
    done = as_them(theirs, *words, environ=environ)
    one_clear_error(done, 3)
    assert theirs.tree() == before
    assert "HOME is not set" in done.err
    assert str(UNKNOWN) in done.err


def test_home_of_the_password_database(home: Home) -> None:
    """As the launcher does it. ``status --paths`` only names them."""
    environ = {key: value for key, value in home.environ.items() if key != "HOME"}
    done = subprocess.run(
        [home.taoprof, "status", "--paths", "--json"], env=environ, capture_output=True, timeout=60, cwd=home.root
    )
    try:
        mapping_file = str(Path(pwd.getpwuid(os.getuid()).pw_dir) / ".tao_mounts.json")
    except KeyError:
        require(False, "this user is not in the password database")
        raise
    assert json.loads(done.stdout)["data"]["paths"]["mapping_file"] == mapping_file


BAD_HOMES = [
    *({"HOME": value} for value in ("", "relative", ".", "~")),
    *({"TAOPROF_HOME": value} for value in ("relative", "./x", "~/x")),
    *({"HOME": value} for value in ("{root}/mounts.json", "/" + "x" * 5000, "/x" * 5000)),
]


@pytest.mark.parametrize("environ", BAD_HOMES, ids=lambda environ: str(environ)[:40])
def test_home_that_is_no_folder_or_no_absolute_path(filled: Home, environ: dict[str, str]) -> None:
    (name, value), *_ = environ.items()
    variables = {name: value.format(root=filled.root)}
    for words in (["use", "a"], ["new", "n"]):
        done = unchanged(filled, words, 3, environ=variables)
        if not variables[name].startswith("/"):
            assert "absolute path" in done.err
            assert name in done.err
    clean(call(filled, "list", environ=variables))


def test_home_that_is_not_there(filled: Home) -> None:
    """Looking makes nothing; there is nothing to use."""
    gone = filled.root / "gone"
    for words, status in ((["list"], 0), (["current"], 0), (["use", "a"], 4), (["status"], 0)):
        assert call(filled, *words, environ={"HOME": str(gone)}).status == status
    assert [path for path in gone.rglob("*") if path.is_file() and path.name != "lock"] == []
