"""One command line of each command that succeeds and one that fails, in the home of ``prepare``."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.commands import call
from tests.support.home import Home, write_program

CASES: dict[str, tuple[list[str], list[str], int]] = {
    "use": (["b"], ["nosuch"], 4),
    "undo": ([], ["999"], 4),
    "history": (["--all"], ["a", "extra"], 2),
    "run": (["a", "--", "true"], ["a"], 2),
    "shell": (["a"], ["nosuch"], 4),
    "logs": (["DETACHED"], ["nosuch"], 4),
    "wait": (["DETACHED"], ["nosuch"], 4),
    "hold": (["--reason", "why"], ["b", "--reason", "why"], 2),
    "release": (["MANUAL"], ["nosuch"], 4),
    "stop": (["FOUND"], ["nosuch"], 4),
    "render": (["a", "--to", "docker", "--image", "i", "--gpus", "none"], ["a", "--to", "docker"], 2),
    "service": (["status"], ["nosuch"], 2),
    "list": ([], ["extra"], 2),
    "current": ([], ["extra"], 2),
    "status": ([], ["extra"], 2),
    "show": (["a"], ["nosuch"], 4),
    "check": (["a"], ["nosuch"], 4),
    "diff": (["a"], ["nosuch"], 4),
    "path": (["/workspace/tao-experiments/x"], ["/nowhere"], 4),
    "doctor": ([], ["extra"], 2),
    "new": (["n"], ["a"], 2),
    "import": (["mounts.json"], ["broken.toml"], 3),
    "edit": (["a"], ["nosuch"], 4),
    "set": (["a", "NUM_GPUS=2"], ["a"], 2),
    "rename": (["b", "d"], ["b", "a"], 2),
    "remove": (["b"], ["a"], 2),
    "trust": (["--list"], [], 4),
    "env": (["a"], ["nosuch"], 4),
    "init": (["bash"], ["tcsh"], 2),
    "schema": ([], ["extra"], 2),
    "kernel": (["list"], ["install", "nosuch"], 4),
    "skill": (["install", "skills"], ["install"], 2),
    "uninstall": (["--yes"], [], 2),
}
"""By command: arguments that work, arguments that do not, and the exit status of the latter."""

ANSWERS = {"doctor": 3}
"""By command: the exit status of arguments that work, where it is not 0. There is no engine in that home."""


def prepare(home: Home) -> None:
    """Create the profiles a (active) and b, a mounts file and a broken profile to import."""
    home.profile("a")
    home.profile("b")
    assert call(home, "use", "a").status == 0
    (home.root / "mounts.json").write_text('{"Mounts": []}')
    (home.root / "broken.toml").write_text("layout = ")
    # The answer of a systemd without our unit; tests marked systemd ask a real one.
    systemctl = write_program(home.root / "bin/systemctl", "echo LoadState=not-found\necho ActiveState=inactive")
    home.environ |= {"EDITOR": "true", "SHELL": "/bin/true", "PATH": f"{systemctl.parent}:{home.environ['PATH']}"}


@contextmanager
def with_ids(home: Home, words: list[str]) -> Iterator[list[str]]:
    """Yield the words with an id: of a manual hold for MANUAL, a running launcher for FOUND, a run for DETACHED."""
    if words == ["MANUAL"]:
        yield [call(home, "hold", "--reason", "a test", "--json").envelope["data"]["id"]]
    elif words == ["DETACHED"]:
        yield [home.run("run", "a", "--detach", "--", "true", stdin=subprocess.DEVNULL).stdout.strip()]
    elif words == ["FOUND"]:
        launcher = subprocess.Popen(["bash", "-c", "exec -a tao sleep 600"], env=home.environ)
        try:
            hold_id = f"p{launcher.pid}"
            end = time.monotonic() + 20
            while hold_id not in call(home, "status").out:
                assert time.monotonic() < end, "the launcher is not seen"
            yield [hold_id]
        finally:
            launcher.kill()
            launcher.wait()
    else:
        yield words
