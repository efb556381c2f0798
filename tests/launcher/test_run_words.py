"""No word of a run's command acts on this host: the words that 'run' gives to six launchers, in each of their modes.

The launchers' own ``main()`` makes the shell command; a shell runs it, with a ``docker`` and a task that only record.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taoprofiles.launcher.argv import VOLUME
from taoprofiles.launcher.behaviour import behaviour_of
from taoprofiles.launcher.quoting import quote_argv, taken_volumes
from tests.support.home import ALL
from tests.support.launchers import Launcher, start_launchers

pytestmark = pytest.mark.launchers

MODES = ({}, {"CI_PROJECT_DIR": "/builds"}, {"TAO_DOCKER_DISABLE": "1"})
HOSTILE = (
    "x$(touch PWNED)", "`touch PWNED`", ";touch PWNED;", "'; touch PWNED; '", "'\\''; touch PWNED #", "a\ntouch PWNED",
    '"; touch PWNED #', "&& touch PWNED", "| touch PWNED", "> PWNED", "it's", "a b", "\\", "\\'", "$HOME", "*", "{a,b}",
    "#", "", "~", "!!", VOLUME, "--volume=x$(touch PWNED)", "train", "-e", "run", "/specs/t.yaml",
)  # fmt: skip
WORDS = st.lists(st.sampled_from(HOSTILE) | st.text("'\"\\\\$`;&|<>(){}*~# \na", max_size=8), max_size=6)


@pytest.fixture(scope="module")
def launchers() -> Iterator[list[Launcher]]:
    with start_launchers() as launchers:
        yield launchers


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("words")
    (root / "home/.docker").mkdir(parents=True)
    (root / "home/.docker/config.json").write_text('{"auths": {"nvcr.io": {}}}')
    (root / "home/.tao_mounts.json").write_text('{"Mounts": []}')
    for program in ("docker", "unet"):
        path = root / "bin" / program
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\nprintf "%s\\0" {program} "$@" > "$RECORD"\n')
        path.chmod(0o755)
    return root


@settings(max_examples=100 if ALL else 25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(words=WORDS, mode=st.sampled_from(MODES))
def test_no_word_acts_on_the_host(
    launchers: list[Launcher], root: Path, words: list[str], mode: dict[str, str]
) -> None:
    cwd, record = root / "home", root / "record"
    environ = {"HOME": str(cwd), "PATH": f"{root}/bin:{os.environ['PATH']}", "RECORD": str(record), **mode}
    expected = [word.replace("$HOME", str(cwd)) for word in words]
    for launcher in launchers:
        group = ["model"] if behaviour_of(launcher.version).task_groups else []
        argv = quote_argv(["tao", *group, "unet", *words], environ, lambda version=launcher.version: version)
        launcher.ask(environ, str(cwd), argv[1:])
        shell = launcher.answer()["shell"]
        if shell is None:  # refused, such as --volume without a value
            continue
        record.write_bytes(b"")
        before = sorted(cwd.iterdir())
        subprocess.run(
            shell, shell=True, cwd=cwd, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=20
        )
        assert sorted(cwd.iterdir()) == before, (launcher.version, mode, shell)
        given_words = os.fsdecode(record.read_bytes()).split("\0")[:-1]
        taken = taken_volumes(expected, behaviour_of(launcher.version), mode)
        task_words = _without_volumes(expected, taken)
        if task_words[:1] != ["run"] and task_words:
            assert given_words[-len(task_words) - 1 :] == ["unet", *task_words], (launcher.version, mode, shell)


def _without_volumes(words: list[str], taken: set[int]) -> list[str]:
    """Return the words that are left: each value that is taken goes with the first --volume before it."""
    rest = list(words)
    for _ in taken:
        at = rest.index(VOLUME)
        del rest[at : at + 2]
    return rest
