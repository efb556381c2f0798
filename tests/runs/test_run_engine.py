"""Runs on a real engine with the unmodified launcher: who holds, who may go on beside whom, and how a task ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.runs.test_progress import NOW, epoch_line
from tests.support.engine import (
    SOCKET,
    BackgroundRun,
    TrainingHome,
    bind_mounts,
    host_mounts,
    local_mounts,
    two_projects,
    until,
)
from tests.support.guard_process import GuardProcess
from tests.support.sandbox import gone, kill
from tests.support.servers import WebReceiver

pytestmark = pytest.mark.engine


@pytest.fixture
def home(training_home: TrainingHome) -> TrainingHome:
    """A home with two projects, of which detectnet_v2 is active."""
    two_projects(training_home)
    return training_home


def train(profile: str, seconds: int, status: int = 0, *options: str) -> list[str]:
    return [profile, *options, "--", "tao", "model", profile, "train", str(seconds), str(status)]


def test_runs_in_parallel_beside_a_plain_launcher(home: TrainingHome) -> None:
    """Each has its own mounts, run tag and GPUs, and stopping one ends nothing else."""
    kitti, city = home.root / "tao/kitti", home.root / "tao/city"
    shared = home.mapping_file.read_bytes(), home.mapping_file.stat().st_ino, home.mapping_file.stat().st_mtime_ns
    wanted = {"detectnet_v2": local_mounts(kitti), "segformer": host_mounts(city)}
    plain = home.launch("detectnet_v2", "train", "60", "0")
    options = {"detectnet_v2": ("--gpus", "0,1"), "segformer": ()}
    runs = [BackgroundRun(home, *train(name, 60, 0, *options[name], "--force")) for name in (*wanted, "segformer")]
    try:
        records = [run.bound() for run in runs]
        assert len({record["container"] for record in records} | {plain.training().container}) == 4
        for record in records:
            container = home.engine.inspect(record["container"])
            assert bind_mounts(container) == wanted[record["profile"]]
            assert f"TAOPROF_RUN={record['id']}" in container["Config"]["Env"]
            assert ("CUDA_VISIBLE_DEVICES=0,1" in container["Config"]["Env"]) == (record["profile"] == "detectnet_v2")
            assert record["differences"] == []
        now = home.mapping_file.read_bytes(), home.mapping_file.stat().st_ino, home.mapping_file.stat().st_mtime_ns
        assert now == shared
        done = home.run("run", *train("segformer", 1, 0, "--gpus", "1,", "--force"))
        assert (done.returncode, records[0]["id"] in done.stderr) == (5, True)
        home.run("stop", records[0]["id"], check=True)
        home.run("stop", f"p{plain.process.pid}", check=True)
        assert runs[0].process.wait(30) != 0, "a training that was stopped did not succeed"
        plain.wait()
        home.engine.docker("kill", records[1]["container"])
        assert runs[1].process.wait(60) == 137, runs[1].log_text()
        (left,) = home.holds()
        assert (left["id"], runs[2].process.poll()) == (records[2]["id"], None)
        home.run("stop", left["id"], check=True)
        assert runs[2].process.wait(30) != 0
        assert home.holds() == []
        assert not list((home.state / "holds").glob("*.mounts.json"))
    finally:
        for run in runs:
            run.__exit__()


def test_arguments_reach_the_task_unchanged(home: TrainingHome) -> None:
    """The launcher pastes them into a shell of the host, which would split, expand and run what is in them."""
    words = ["a b", "it's", "$HOME", "$SPECS_DIR/x", "${results_dir}", "*", "a;b", "(c)", "#d", '"q"', "", "\\", "`id`"]
    shown = ["bash", "-c", 'printf "<%s>" "$@"', "x", *words]
    with BackgroundRun(home, "segformer", "--", "tao", "model", "segformer", "run", *shown) as run:
        assert run.process.wait(60) == 0, run.log_text()
    put_in = {"$SPECS_DIR/x": "/specs/x", "$HOME": str(home.root)}
    arrived = "".join(f"<{put_in.get(word, word)}>" for word in words)
    assert arrived in run.log_text()


@contextmanager
def slow_engine(home: TrainingHome) -> Iterator[tuple[dict[str, str], threading.Event, threading.Event]]:
    """An engine that answers nobody until it is let go, as it seems to a launcher during a long pull."""
    path = home.root / "slow.sock"
    connected, go, over = threading.Event(), threading.Event(), threading.Event()

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await source.read(1 << 16):
                target.write(chunk)
                await target.drain()
            target.write_eof()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        while not go.is_set():
            await asyncio.sleep(0.1)
        engine_reader, engine_writer = await asyncio.open_unix_connection(SOCKET)
        await asyncio.gather(pump(reader, engine_writer), pump(engine_reader, writer))
        engine_writer.close()
        writer.close()

    async def listen() -> None:
        server = await asyncio.start_unix_server(serve, path)
        while server.is_serving() and not over.is_set():
            await asyncio.sleep(0.1)

    thread = threading.Thread(target=asyncio.run, args=(listen(),))
    thread.start()
    try:
        until(path.exists, "it listens")
        yield {"DOCKER_HOST": f"unix://{path}"}, connected, go
    finally:
        over.set()
        thread.join()


def refused(home: TrainingHome) -> dict[str, Any]:
    """Try to switch, be refused, and give the one who holds."""
    before = home.mapping_file.read_bytes()
    done = home.run("use", "segformer", "--json")
    assert done.returncode == 5, (done.stdout, done.stderr)
    (holder,) = json.loads(done.stdout)["error"]["holders"]
    assert home.mapping_file.read_bytes() == before
    return holder


def test_a_plain_training_is_held_from_its_start_to_the_end_of_its_container(home: TrainingHome) -> None:
    with slow_engine(home) as (environ, connected, go):
        launch = home.launch("detectnet_v2", "train", "60", environ=environ)
        pid = launch.process.pid
        until(lambda: (home_sees := home.holds()) and home_sees[0]["pid"] == pid, "the launcher is seen")
        assert refused(home)["phase"] == "pending"
        assert connected.wait(30)
        holder = refused(home)
        assert (holder["pid"], holder["phase"], holder["container"]) == (pid, "pending", None)
        text = home.run("use", "segformer").stderr
        assert f"pid {pid}" in text
        assert "taoprof run segformer -- COMMAND" in text
        assert "taoprof use segformer --wait" in text
        go.set()
        container = launch.training().container
        holder = refused(home)
        assert (holder["pid"], holder["phase"], holder["container"]) == (pid, "bound", container)
        assert home.run("use", "detectnet_v2").returncode == 0, "the same mapping is no conflict"

        waiting = subprocess.Popen([home.taoprof, "use", "segformer", "--wait"], env=home.environ, stderr=-1, text=True)
        assert f"pid {pid}" in waiting.stderr.readline()
        launch.process.kill()
        launch.process.wait(30)
        holder = refused(home)
        assert (holder["container"], holder["phase"]) == (container, "bound"), "it trains on without its launcher"
        assert waiting.poll() is None
        home.engine.docker("kill", container)
        waiting.communicate(timeout=30)
        assert waiting.returncode == 0
        assert home.run("current").stdout == "segformer\n"
        assert home.holds() == []


def test_the_exit_status_is_the_tasks(home: TrainingHome) -> None:
    """Nobody has a terminal here, and the profile does not say so."""
    home.profile("detectnet_v2", (home.profiles / "detectnet_v2.toml").read_text().replace("tty = false", ""))
    script = 'taoprof run detectnet_v2 -- tao model detectnet_v2 train 0 3 && echo "next came"'
    path = f"{Path(home.taoprof).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], env={**home.environ, "PATH": path}, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, "next came" in done.stdout) == (3, False), done.stderr
    with BackgroundRun(home, *train("detectnet_v2", 0)) as run:
        assert run.process.wait(60) == 0, run.log_text()
    good, failed = home.json("history", str(home.root / "tao/kitti"))["data"]["runs"]
    assert (good["status"], failed["status"], good["image"]) == (0, 3, home.engine.images["detectnet_v2"])
    # By the mapping file a container is the run's if its client is: it must last until that was looked at.
    with BackgroundRun(home, *train("detectnet_v2", 2, 3, "--shared")) as run:
        assert run.process.wait(60) == 3, run.log_text()
    # A script has its own standard input; docker exec fails in it, and the launcher reports success.
    with BackgroundRun(home, "detectnet_v2", "--", "sh", "-c", "tao model detectnet_v2 train 0; true") as run:
        assert run.process.wait(60) == 1, run.log_text()
    assert "not a TTY" in run.log_text()
    assert "script -qec 'COMMAND' /dev/null" in run.log_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_training_and_is_reported(home: TrainingHome, number: signal.Signals) -> None:
    """SIGINT as a terminal sends it, to the whole group; SIGTERM to ``taoprof run`` alone."""
    with BackgroundRun(home, *train("detectnet_v2", 60)) as run:
        container = run.bound()["container"]
        if number == signal.SIGINT:
            os.killpg(run.process.pid, number)
        else:
            run.process.send_signal(number)
        status = run.process.wait(60)
        assert status != 0, run.log_text()
        if home.engine.exists(container):  # the launcher died of SIGTERM and left it behind, so the hold stays
            home.run("stop", run.record["id"], check=True)
        until(lambda: not home.engine.exists(container), "the container is gone")
        until(lambda: home.holds() == [], "nothing is held")


@pytest.mark.parametrize("how", ["isolated", "shared"])
def test_everything_but_the_container_is_killed(home: TrainingHome, how: str) -> None:
    """The hold lives as long as the container, whoever dies; results folder and mounts file stay its own."""
    city = home.root / "tao/city"
    with BackgroundRun(home, *train("segformer", 60, 0, *(["--shared"] if how == "shared" else []))) as run:
        record = run.bound()
        assert bind_mounts(home.engine.inspect(record["container"])) == host_mounts(city)
        assert home.run("current").stdout == ("segformer\n" if how == "shared" else "detectnet_v2\n")
        os.killpg(run.process.pid, signal.SIGKILL)
        run.process.wait(30)
        (hold,) = home.holds()
        assert (hold["id"], hold["container"]) == (record["id"], record["container"])
        assert home.run("run", *train("segformer", 1)).returncode == 5, "it still writes the results folder"
        assert home.run("use", "detectnet_v2").returncode == (5 if how == "shared" else 0)
        assert len(list((home.state / "holds").glob("*.mounts.json"))) == (how == "isolated")
        if how == "shared":
            home.engine.remove(record["container"])
        else:
            home.run("stop", record["id"], check=True)
            until(lambda: not home.engine.exists(record["container"]), "the engine has removed the container")
        until(lambda: home.holds() == [], "nothing is held")
        home.run("use", "detectnet_v2", check=True)
        assert list((home.state / "holds").iterdir()) == []
    (over,) = home.json("history")["data"]["runs"]
    assert (over["status"], over["ended"] is None) == (137, False)


def test_a_mount_that_the_launcher_moves_is_reported_at_once(home: TrainingHome, tmp_path: Path) -> None:
    """The command itself deletes its mounts file, which ``run`` cannot foresee."""
    script = "unset LAUNCHER_MOUNTS; rm -f ~/.tao_mounts.json; tao model detectnet_v2 train 1"
    home.mapping_file.write_text(json.dumps({"Mounts": [], "DockerOptions": {"tty": False}}))
    with BackgroundRun(home, "segformer", "--", "sh", "-c", script.replace("rm -f ~/.tao_mounts.json; ", "")) as run:
        assert run.process.wait(60) == 0, run.log_text()
    assert "none of the profile's folders is mounted: the launcher read another mounts file" in run.log_text()


CELLS = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("%load_ext taoprofiles\\n%taoprof use detectnet_v2")
for status in (3, 0):
    print(status, shell.run_cell(f"!tao model detectnet_v2 train 0 {status}").success)
"""


def test_a_notebooks_trainings_fail_their_cells_and_are_in_the_history(home: TrainingHome) -> None:
    path = f"{Path(home.tao).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", CELLS], env={**home.environ, "PATH": path}, capture_output=True, text=True, timeout=100
    )
    assert "3 False\n" in done.stdout, done.stdout + done.stderr
    assert "0 True\n" in done.stdout, done.stdout + done.stderr
    assert "task failed: 'detectnet_v2 train 0 3' ended with exit status 3 (container " in done.stdout
    good, failed = home.json("history", str(home.root / "tao/kitti"))["data"]["runs"]
    assert [(run["kind"], run["status"]) for run in (good, failed)] == [("notebook", 0), ("notebook", 3)]
    assert failed["command"] == ["detectnet_v2", "train", "0", "3"]
    assert home.holds() == []


def test_what_a_task_reports_in_its_container_is_shown_on_the_host(home: TrainingHome) -> None:
    """Whatever the time zone of the container is; beside it is what an earlier run has left."""
    lines = home.root / "tao/city/segformer/results/train/status.json"
    lines.parent.mkdir(parents=True)
    lines.write_bytes(epoch_line(int(time.time()) - 3600 - NOW, 49))
    with BackgroundRun(home, *train("segformer", 60)) as run:
        container = run.bound()["container"]
        assert home.json("status")["data"]["runs"][0]["progress"] is None
        east = 8 * 3600
        for epoch in (1, 2):
            line = epoch_line(int(time.time()) + east - NOW, epoch).decode().strip()
            home.engine.docker("exec", container, "sh", "-c", f"echo '{line}' >>/results/train/status.json")
        (shown,) = home.json("status")["data"]["runs"]
        assert (shown["progress"]["epoch"], shown["progress"]["epochs"]) == (2, 50)
        assert [metric["history"] for metric in shown["progress"]["metrics"]] == [[0.25, 0.5]]
        home.run("stop", shown["id"], check=True)


def test_the_guard_tells_the_end_of_a_container_whose_run_was_killed(home: TrainingHome) -> None:
    with WebReceiver() as web, GuardProcess(home) as guard:
        home.environ["PATH"] = f"{Path(home.tao).parent}:{os.environ['PATH']}"
        task = ("tao", "model", "segformer", "run", "sh", "-c", "until test -e /results/go; do sleep 0.2; done")
        words = ("run", "segformer", "--detach", "--notify", web.url, "--", *task)
        run = home.run(*words, stdin=subprocess.DEVNULL, check=True).stdout.strip()
        (hold,) = until(lambda: [hold for hold in home.holds() if hold["phase"] == "bound"], "it has a container")
        kill(hold["pid"])
        until(lambda: gone(hold["pid"]), "taoprof is gone")
        guard.wait_for_loops(1)
        assert web.messages == []
        (home.root / "tao/city/segformer/results/go").touch()
        (message,) = until(lambda: web.messages, "the guard tells it", details=guard.log_text)
        assert message["title"] == "segformer finished"
        assert message["message"].startswith(f"run {run} finished after ")
        until(lambda: not list((home.state / "notifications").iterdir()), "nothing is left to do")
    assert len(web.messages) == 1
    assert home.holds() == []
