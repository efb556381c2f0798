"""``status --watch``: a screen that follows what happens, on a terminal of any size, and what it leaves behind."""

from __future__ import annotations

import fcntl
import io
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from unittest import mock

import pytest
from rich.console import Console

from taoprofiles.cli import watch
from taoprofiles.cli.status import get_report
from taoprofiles.system import processes
from tests.support import watch_screenshot
from tests.support.commands import Terminal
from tests.support.engine import until
from tests.support.home import require
from tests.support.sandbox import Sandbox, Tao
from tests.support.stand_ins import NOW, driver, epoch_line, gpus

TRAIN = ("tao", "model", "unet", "train", "results_dir=/workspace/tao-experiments/x")
ALTERNATE, NORMAL = "\x1b[?1049h", "\x1b[?1049l"


def report_epoch(sandbox: Sandbox, epoch: int) -> None:
    """Write what a task writes at the end of an epoch."""
    path = sandbox.root / "projects/a/x/train/status.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(epoch_line(int(time.time()) + 1 - NOW, epoch, eta="3:35:20"))


def training(sandbox: Sandbox) -> Tao:
    tao, _ = sandbox.in_run("a", "--gpus", "1,", command=TRAIN)
    report_epoch(sandbox, 3)
    return tao


def watching(sandbox: Sandbox) -> Terminal:
    return Terminal([sandbox.taoprof, "status", "--watch"], environ=sandbox.environ, cwd=sandbox.root)


def test_the_screen_follows_what_happens(sandbox: Sandbox) -> None:
    driver(sandbox, gpus(2, "GPU-0a0b, 77"))
    tao = training(sandbox)
    with watching(sandbox) as terminal:
        shown = terminal.wait_for("3 h 35 min")
        assert ALTERNATE in shown
        assert "3/50" in shown
        terminal.wait_for("train_loss 0.75")
        terminal.wait_for("process 77")
        terminal.wait_for("5 %")
        report_epoch(sandbox, 4)
        terminal.wait_for("4/50")
        terminal.wait_for("train_loss 1 ▁█")
        queued = sandbox.start(
            *(sandbox.taoprof, "run", "b", "--gpus", "1,", "--wait", "--", "true"), stdout=-3, stderr=-3
        )
        terminal.wait_for("WAITING, IN THIS ORDER")
        terminal.wait_for("GPU 1")
        tao.end()
        assert queued.wait(20) == 0
        terminal.wait_for("state")
        terminal.send("q")
        status, rest = terminal.finish()
    assert status == 0
    assert NORMAL.encode() in rest
    assert b"Traceback" not in rest


@pytest.mark.parametrize(("key", "status"), [("\x03", 0), ("q", 0), ("", -signal.SIGTERM)])
def test_the_terminal_is_as_it_was(sandbox: Sandbox, key: str, status: int) -> None:
    with watching(sandbox) as terminal:
        before = termios.tcgetattr(terminal._fd)
        terminal.wait_for("q or Ctrl-C")
        assert not termios.tcgetattr(terminal._fd)[3] & termios.ECHO, "keys are not shown"
        if key:
            terminal.send(key)
        else:
            terminal.process.terminate()
        ended, rest = terminal.finish()
        assert (ended, NORMAL.encode() in rest) == (status if status >= 0 else 128 - status, True)
        assert termios.tcgetattr(terminal._fd) == before


def test_it_stops_and_goes_on_as_a_job(sandbox: Sandbox) -> None:
    with watching(sandbox) as terminal:
        terminal.wait_for("q or Ctrl-C")
        terminal.send("\x1a")
        terminal.wait_for(NORMAL)
        until(lambda: processes.is_stopped(terminal.process.pid), "it is stopped")
        assert termios.tcgetattr(terminal._fd)[3] & termios.ECHO
        terminal.process.send_signal(signal.SIGCONT)
        terminal.wait_for(ALTERNATE)
        terminal.wait_for("q or Ctrl-C")
        terminal.send("q")
        assert terminal.finish()[0] == 0


def test_it_fits_any_size(sandbox: Sandbox) -> None:
    training(sandbox)
    with watching(sandbox) as terminal:
        terminal.wait_for(" results_dir")
        for rows, columns in ((24, 80), (5, 20), (1, 1), (50, 200)):
            fcntl.ioctl(terminal._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            terminal.process.send_signal(signal.SIGWINCH)
            assert "Traceback" not in terminal.wait_for("\x1b[H")
        terminal.wait_for(" results_dir")
        terminal.send("q")
        assert terminal.finish()[0] == 0


def test_tmux_shows_it(sandbox: Sandbox) -> None:
    require(shutil.which("tmux"), "tmux is not installed")
    training(sandbox)

    def tmux(*words: str) -> str:
        socket = ("-S", str(sandbox.folder / "tmux"), "-f", os.devnull)
        return subprocess.run(["tmux", *socket, *words], env=sandbox.environ, stdout=subprocess.PIPE, text=True).stdout

    try:
        tmux("new-session", "-d", "-x", "100", "-y", "30", sandbox.taoprof, "status", "--watch")
        lines = until(lambda: text.splitlines() if "3/50" in (text := tmux("capture-pane", "-p")) else None, "it shows")
        assert lines[0].split() == ["mapping", "file", "~/.tao_mounts.json"]
        assert lines[lines.index("RUNS") + 2].split()[1] == "a"
    finally:
        tmux("kill-server")


def test_without_a_terminal_each_change_is_printed_once(sandbox: Sandbox) -> None:
    training(sandbox)
    process = sandbox.start(sandbox.taoprof, "status", "--watch", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    lines: list[str] = []

    def wait_for(text: str) -> None:
        while text not in (lines[-1] if lines else ""):
            line = process.stdout.readline() if process.stdout else ""
            assert line, f"it ended before '{text}'"
            lines.append(line)

    wait_for("epoch 3/50")
    report_epoch(sandbox, 4)
    wait_for("epoch 4/50")
    sandbox.run("hold", "--reason", "why not", check=True)
    wait_for("why not")
    wait_for("epoch 4/50")
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    assert (process.wait(20), rest) == (0, "")
    assert "".join(lines).count("mapping file") == 3
    assert sandbox.json("status", "--watch")["error"]["status"] == 2


def test_looks_are_few(sandbox: Sandbox) -> None:
    """One each LOOK_INTERVAL and one for each change, whatever the screen does in between."""
    clock = 1000.0
    watcher = watch._Watcher(sandbox.context)
    with (
        mock.patch("taoprofiles.cli.watch.time.monotonic", lambda: clock),
        mock.patch("taoprofiles.cli.watch.get_report", wraps=get_report) as look,
    ):
        for _ in range(20):
            watcher.look()
            clock += watch.INTERVAL
        assert look.call_count == 20 * watch.INTERVAL / watch.LOOK_INTERVAL
        sandbox.run("use", "b", check=True)
        assert watcher.look().now.name == "b"
        assert look.call_count == 20 * watch.INTERVAL / watch.LOOK_INTERVAL + 1


def test_keys_and_signals_cause_no_looks(sandbox: Sandbox) -> None:
    events = iter([*[""] * 50, "q"])
    with (
        mock.patch("taoprofiles.cli.watch.time.monotonic", lambda: 1000.0),
        mock.patch("taoprofiles.cli.watch._wait", lambda *_: next(events)),
        mock.patch("taoprofiles.cli.watch._Watcher.look", return_value=get_report(sandbox.context)) as look,
    ):
        watch._Screen(sandbox.context, Console(file=io.StringIO())).run()
    assert look.call_count == 1


def test_status_loads_what_it_shows(sandbox: Sandbox) -> None:
    """Nothing for runs without a run, and the library of the screen only for the screen."""
    script = "import sys; from taoprofiles.cli import main; main.run(['status']); print(sorted(sys.modules))"

    def loaded() -> str:
        command = [sys.executable, "-c", script]
        return subprocess.run(command, env=sandbox.environ, stdout=subprocess.PIPE, text=True, timeout=60).stdout

    assert [name for name in ("'rich'", "'pydantic'", "runs.progress", "'datetime'") if name in loaded()] == []
    training(sandbox)
    assert "runs.progress" in (modules := loaded())
    assert "'rich'" not in modules


@pytest.mark.parametrize("name", watch_screenshot.THEMES)
def test_the_pictures_show_what_the_program_draws(name: str) -> None:
    picture = (watch_screenshot.FOLDER / f"watch-{name}.svg").read_text()
    assert texts(picture) == texts(watch_screenshot.draw(watch_screenshot.THEMES[name])), (
        "python -m tests.support.watch_screenshot draws them anew"
    )


def texts(picture: str) -> list[str]:
    return re.findall(r">([^<>\n]+)</text>", picture)
