"""The wheel and the sdist: the same bytes each time, complete, and installable by pip, pipx and uv."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from taoprofiles import VERSION
from taoprofiles.cli import arguments, dispatch
from tests.support.home import find_command, require
from tests.support.servers import serve

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FOLDERS = ("taoprofiles", "service", "tests", "docs")
COMPLETIONS = {
    "bash": "share/bash-completion/completions/taoprof",
    "zsh": "share/zsh/site-functions/_taoprof",
    "fish": "share/fish/vendor_completions.d/taoprof.fish",
}
DATA = f"taoprofiles-{VERSION}.data/data/"


def run(*words: str | Path, cwd: Path, umask: int = 0o022, **environ: str) -> str:
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, env={**os.environ, **environ}, umask=umask,
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Packages(NamedTuple):
    wheel: Path
    sdist: Path

    def digests(self) -> list[str]:
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in self]


def build(source: Path, out: Path, **options: object) -> Packages:
    run(sys.executable, "-m", "hatchling", "build", "-d", out, cwd=source, **options)  # type: ignore[arg-type]
    return Packages(next(out.glob("*.whl")), next(out.glob("*.tar.gz")))


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=ana", "-c", "user.email=ana@lab1.example", "-c", "core.hooksPath=")
    return run("git", *who, *words, cwd=folder, GIT_CONFIG_GLOBAL="/dev/null").strip()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git checkout of one commit with what this tree has now."""
    folder = tmp_path_factory.mktemp("checkout") / "taoprofiles"
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    for path in (*ROOT.glob("*.md"), ROOT / "hatch_build.py", ROOT / "pyproject.toml", ROOT / "LICENSE"):
        shutil.copy(path, folder)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "all")
    return folder


@pytest.fixture(scope="module")
def packages(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Packages:
    return build(checkout, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def unpacked(packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    zipfile.ZipFile(packages.wheel).extractall(folder)
    return folder


def test_two_builds_are_the_same_bytes(checkout: Path, packages: Packages, tmp_path: Path) -> None:
    """In another folder, at another time, with another umask and time zone, and from the sdist."""
    run("git", "clone", "-q", checkout, tmp_path / "again", cwd=tmp_path, umask=0o077)
    again = build(tmp_path / "again", tmp_path / "out", umask=0o077, TZ="Asia/Shanghai", LC_ALL="C", PYTHONHASHSEED="7")
    assert again.digests() == packages.digests()
    (tmp_path / "sdist").mkdir()
    run("tar", "-xf", packages.sdist, "-C", tmp_path / "sdist", cwd=tmp_path)
    from_sdist = build(next((tmp_path / "sdist").iterdir()), tmp_path / "out2")
    assert from_sdist.digests() == packages.digests()


def test_the_wheel_has_what_it_needs_and_nothing_else(unpacked: Path) -> None:
    files = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    package = {name.partition("/")[2] for name in files if name.startswith("taoprofiles/")}
    wanted = {path.relative_to(ROOT / "taoprofiles").as_posix() for path in (ROOT / "taoprofiles").rglob("*")}
    tree = {name for name in wanted if "__pycache__" not in name and (ROOT / "taoprofiles" / name).is_file()}
    assert package == tree | {"commit"}
    assert {name.partition("/")[0] for name in files} == {
        "taoprofiles", f"taoprofiles-{VERSION}.dist-info", f"taoprofiles-{VERSION}.data",
    }  # fmt: skip
    pages = {f"taoprof-{command}" for command in dispatch.COMMANDS} | {"taoprof", "taoprofd"}
    shared = {f"share/man/man1/{page}.1" for page in pages} | set(COMPLETIONS.values())
    assert {name.removeprefix(DATA) for name in files if name.startswith(DATA)} == shared


def test_version_names_the_commit_of_a_development_build(checkout: Path, packages: Packages, tmp_path: Path) -> None:
    def version(wheel: Path | None = None) -> str:
        path = checkout
        if wheel:
            path = tmp_path / hashlib.sha256(wheel.read_bytes()).hexdigest()
            zipfile.ZipFile(wheel).extractall(path)
        return run(sys.executable, "-P", "-m", "taoprofiles", "--version", cwd=tmp_path, PYTHONPATH=str(path)).strip()

    commit = git(checkout, "rev-parse", "--short=12", "HEAD")
    development = f"taoprof {VERSION} (development build, commit {commit})"
    assert version(packages.wheel) == version() == development
    license_text = (checkout / "LICENSE").read_text()
    (checkout / "LICENSE").write_text("changed")
    try:
        assert version() == version(build(checkout, tmp_path / "changed").wheel) == f"{development[:-1]} with changes)"
    finally:
        (checkout / "LICENSE").write_text(license_text)
    git(checkout, "tag", f"v{VERSION}")
    try:
        assert version() == version(build(checkout, tmp_path / "release").wheel) == f"taoprof {VERSION}"
    finally:
        git(checkout, "tag", "-d", f"v{VERSION}")


def test_a_repository_around_the_package_is_not_asked(packages: Packages, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    zipfile.ZipFile(packages.wheel).extractall(tmp_path)
    (tmp_path / "taoprofiles/commit").unlink()
    (tmp_path / "inner").mkdir()
    (tmp_path / "taoprofiles").rename(tmp_path / "inner/taoprofiles")
    code = "from taoprofiles import find_commit; print(find_commit())"
    assert run(sys.executable, "-P", "-c", code, cwd=tmp_path, PYTHONPATH=str(tmp_path / "inner")) == "None\n"


# Man pages and completion


def page_text(path: Path) -> str:
    """Return a man page as a terminal shows it; groff must have nothing to complain about."""
    words = [find_command("groff"), "-man", "-ww", "-K", "utf8", "-Tutf8", "-P-cbou", "-rLL=1000n", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return re.sub(r"\s+", " ", done.stdout)


def test_man_pages_have_every_argument_and_its_help(unpacked: Path) -> None:
    pages = {path.stem: page_text(path) for path in (unpacked / DATA / "share/man/man1").iterdir()}
    for command, described in arguments.ARGUMENTS.items():
        page = pages[f"taoprof-{command}"]
        assert f"taoprof-{command} - {dispatch.COMMANDS[command][1]}" in page
        for name, settings, _ in described:
            assert (name if name.startswith("-") else settings.get("metavar", name)) in page
            assert settings["help"].replace("%%", "%").replace("…", "...") in page
    assert "--seal" in pages["taoprof-service"]
    assert "--unseal" in pages["taoprofd"]
    for command, (_, summary) in dispatch.COMMANDS.items():
        assert f"taoprof-{command}(1) {summary}" in pages["taoprof"]


@pytest.mark.shells
@pytest.mark.parametrize(("shell", "path"), COMPLETIONS.items())
def test_completion_files_are_valid(unpacked: Path, shell: str, path: str) -> None:
    file = unpacked / DATA / path
    run(find_command(shell), "-n", file, cwd=unpacked)
    assert "taoprof" in file.read_text()


# Installation


@pytest.fixture(scope="module")
def index(packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a package index (PEP 503) that has only taoprofiles; dependencies come from the usual one."""
    folder = tmp_path_factory.mktemp("index")
    (folder / "simple/taoprofiles").mkdir(parents=True)
    for path in packages:
        shutil.copy(path, folder / "simple/taoprofiles")
    with serve(folder) as address:
        yield f"{address}/simple"


def find_python(version: str) -> Path:
    """Return an interpreter of this version: on PATH, or pyenv's, whose command on PATH refuses versions not chosen."""
    code = "import sys; print(sys.executable)"
    candidates = [f"python{version}"]
    if root := os.environ.get("PYENV_ROOT"):
        candidates += map(str, Path(root).glob(f"versions/{version}.*/bin/python{version}"))
    for candidate in candidates:
        try:
            done = subprocess.run([candidate, "-c", code], capture_output=True, text=True, timeout=30)
        except OSError:
            continue
        if done.returncode == 0:
            return Path(done.stdout.strip())
    require(None, f"there is no Python {version}")
    raise AssertionError


def install(tool: str, python: Path, index: str, kind: str, home: Path) -> tuple[Path, Path]:
    """Install as a user does; return the folder of the commands and that of the man pages."""
    package, cache = f"taoprofiles=={VERSION}", home.parent / "cache"
    environ = {"HOME": str(home), "PIP_CACHE_DIR": str(cache / "pip"), "UV_CACHE_DIR": str(cache / "uv")}
    pip_options = ["--extra-index-url", index] + (["--no-binary", "taoprofiles"] if kind == "sdist" else [])
    if tool == "pip":
        run(find_command("uv"), "venv", "-q", "--seed", "--python", python, home / "venv", cwd=home, **environ)
        run(home / "venv/bin/pip", "install", "-q", *pip_options, package, cwd=home, **environ)
        return home / "venv/bin", home / "venv/share/man/man1"
    if tool == "pipx":
        pip_options.append("--no-cache-dir")  # else it would find the wheel that pip has built from the sdist
        words = [find_command("pipx"), "install", "--python", python, f"--pip-args={' '.join(pip_options)}", package]
        run(*words, cwd=home, **environ)
    else:
        package = package.replace("==", "[jupyter,notify]==")
        words = [find_command("uv"), "tool", "install", "--python", python, "--index", index, package]
        run(*words, *(["--no-binary-package", "taoprofiles"] if kind == "sdist" else []), cwd=home, **environ)
    man = "share/man/man1"
    return home / ".local/bin", home / (
        f".local/{man}" if tool == "pipx" else f".local/share/uv/tools/taoprofiles/{man}"
    )


@pytest.mark.index
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("tool", "version", "kind"),
    [
        ("pip", "3.11", "wheel"), ("uv", "3.11", "sdist"), ("pipx", "3.12", "wheel"), ("pip", "3.12", "sdist"),
        ("uv", "3.13", "wheel"), ("pipx", "3.13", "sdist"),
    ],
)  # fmt: skip
def test_smoke(index: str, tmp_path: Path, tool: str, version: str, kind: str) -> None:
    """Install, make a profile, use it, run a command with it, and remove everything by the command that is named."""
    commands, man = install(tool, find_python(version), index, kind, tmp_path)
    environ = {"HOME": str(tmp_path), "PATH": f"{commands}:{os.environ['PATH']}", "DOCKER_HOST": "unix:///nowhere"}

    def taoprof(*words: str) -> str:
        return run(commands / "taoprof", *words, cwd=tmp_path, **environ)

    assert f"taoprof {VERSION} (development build, commit " in taoprof("--version")
    pyvenv = (commands / "taoprof").resolve().parent.parent / "pyvenv.cfg"
    assert re.search(rf"^version(_info)? = {re.escape(version)}\.", pyvenv.read_text(), re.M)
    if tool == "uv":
        run(pyvenv.parent / "bin/python", "-c", "import anywidget, apprise", cwd=tmp_path)
    (tmp_path / "tao/specs").mkdir(parents=True)
    taoprof("new", "detectnet_v2", "--project-dir", "tao")
    taoprof("use", "detectnet_v2", "--mkdir")
    taoprof("set", "detectnet_v2", "NUM_GPUS=2", "description=two GPUs")
    assert "two GPUs" in taoprof("list")
    assert '"NUM_GPUS"' in taoprof("env", "detectnet_v2", "--format", "json")
    assert "detectnet_v2" in taoprof("show", "--toml")
    assert "services:" in taoprof("render", "detectnet_v2", "--to", "compose", "--image", "i")
    taoprof("run", "detectnet_v2", "--", "sh", "-c", 'test -n "$LAUNCHER_MOUNTS"')
    assert "'detectnet_v2' is active" in taoprof()
    assert "properties" in taoprof("schema")
    assert (man / "taoprof-use.1").exists()
    run(commands / "taoprofd", "--version", cwd=tmp_path, **environ)
    last = taoprof("uninstall", "--yes", "--state").splitlines()[-1]
    remove = shlex.split(last.removeprefix("to remove the program: "))
    if tool == "pip":
        remove.append("-y")
    run(*[find_command(remove[0]), *remove[1:]], cwd=tmp_path, **environ)
    assert not (commands / "taoprof").exists()
    assert not (man / "taoprof-use.1").exists()
