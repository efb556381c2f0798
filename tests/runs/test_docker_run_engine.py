"""Without the launcher, on a real engine: ``run --image``, and what ``render`` writes for docker run and compose."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.errors import CannotRenderError
from taoprofiles.export.export import export, plan_target
from taoprofiles.export.plan import Plan
from taoprofiles.profiles.model import Profile, to_toml
from taoprofiles.profiles.store import Store
from taoprofiles.storage.paths import Context
from tests.support.commands import Terminal
from tests.support.engine import (
    BackgroundRun,
    TrainingHome,
    bind_mounts,
    host_mounts,
    local_mounts,
    two_projects,
    until,
)
from tests.support.generated_profiles import AROUND, moderate, usable_profiles
from tests.support.home import find_command

pytestmark = pytest.mark.engine


@pytest.fixture
def home(training_home: TrainingHome) -> TrainingHome:
    """A home with two projects, of which detectnet_v2 is active."""
    two_projects(training_home)
    return training_home


def train(home: TrainingHome, profile: str, seconds: int, status: int = 0, *options: str) -> list[str]:
    image = home.engine.images[profile]
    return [profile, "--image", image, *options, "--", profile, "train", str(seconds), str(status)]


def test_the_exit_status_is_the_containers(home: TrainingHome) -> None:
    for status in (3, 0):
        with BackgroundRun(home, *train(home, "detectnet_v2", 0, status)) as run:
            assert run.process.wait(60) == status, run.log_text()
        assert f"done with {status}" in run.log_text()
    record, _ = home.json("history")["data"]["runs"]
    recorded = record["status"], record["image"], record["differences"], record["command"][:2]
    assert recorded == (0, home.engine.images["detectnet_v2"], [], ["detectnet_v2", "train"])
    assert home.json("history", str(home.root / "tao/kitti"))["data"]["runs"][0]["id"] == record["id"]
    assert not home.engine.exists(record["container"]), "--rm"
    done = home.run("run", "detectnet_v2", "--image", "localhost:1/no/such:image", "--", "detectnet_v2", "train")
    assert (done.returncode, "localhost:1/no/such:image" in done.stderr) == (125, True)
    assert "the engine did not start the container" in done.stderr
    assert home.holds() == []


def test_two_runs_in_parallel_have_their_own_mounts_and_block_nothing(home: TrainingHome) -> None:
    kitti, city = home.root / "tao/kitti", home.root / "tao/city"
    wanted = {"detectnet_v2": local_mounts(kitti), "segformer": host_mounts(city)}
    home.run("set", "segformer", "WANDB_KEY=a token of mine", "container.env.API_TOKEN=${WANDB_KEY}", check=True)
    with (
        BackgroundRun(home, *train(home, "detectnet_v2", 60)) as detectnet_run,
        BackgroundRun(home, *train(home, "segformer", 60, 0, "--gpus", "1,")) as segformer_run,
    ):
        for run in (detectnet_run, segformer_run):
            record = run.bound()
            container = home.engine.inspect(record["container"])
            assert bind_mounts(container) == wanted[record["profile"]]
            assert container["Name"] == f"/taoprof-{record['profile']}-{record['id']}"
            assert container["Config"]["Labels"]["taoprofiles.run"] == record["id"]
            assert f"TAOPROF_RUN={record['id']}" in container["Config"]["Env"]
            assert (container["HostConfig"]["ShmSize"], container["HostConfig"]["AutoRemove"]) == (16 << 30, True)
            assert (record["shared"], record["differences"]) == (False, [])
        assert "API_TOKEN=a token of mine" in container["Config"]["Env"]
        shown = Path(f"/proc/{_client(segformer_run)}/cmdline").read_bytes()
        assert b"API_TOKEN" in shown
        assert b"a token of mine" not in shown
        (device,) = container["HostConfig"]["DeviceRequests"]
        assert device["DeviceIDs"] == ["1"]
        assert home.run("use", "segformer").returncode == 0
        again = home.run("run", *train(home, "detectnet_v2", 1))
        assert (again.returncode, "another training is writing to" in again.stderr) == (5, True)
        again = home.run("run", *train(home, "segformer", 1, 0, "--gpus", "0,1", "--force"))
        assert (again.returncode, "the GPUs that it requests are in use" in again.stderr) == (5, True)
        detectnet_run.process.terminate()  # forwarded to the task
        assert detectnet_run.process.wait(30) == 143, detectnet_run.log_text()
        home.run("stop", segformer_run.record["id"], check=True)
        assert segformer_run.process.wait(30) == 143, segformer_run.log_text()
    assert home.holds() == []


def _client(run: BackgroundRun) -> int:
    """Return the pid of the docker command below a ``taoprof run``, whose log another child copies."""
    children = Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children").read_text().split()
    (client,) = [pid for pid in map(int, children) if Path(f"/proc/{pid}/comm").read_text() == "docker\n"]
    return client


def test_a_terminal_is_the_containers_too_unless_it_is_another_jobs(home: TrainingHome) -> None:
    home.run("set", "detectnet_v2", "docker.tty=true", check=True)
    words = train(home, "detectnet_v2", 60)
    with Terminal([home.taoprof, "run", *words], environ=home.environ, cwd=home.root) as terminal:
        terminal.wait_for("training as", timeout=60)
        (record,) = until(lambda: [item for item in home.holds() if item["phase"] == "bound"], "the hold is bound")
        assert home.engine.inspect(record["container"])["Config"]["Tty"] is True
        terminal.send("\x03")
        status, _ = terminal.finish()
    assert status == -signal.SIGINT, "as a shell would want to know of it"
    assert home.holds() == []
    words = shlex.join([home.taoprof, "run", *train(home, "detectnet_v2", 0, 3)])
    script = f"set -m; {words} & wait $!; echo status=$?"  # job control: a process group of its own, not the terminal's
    with Terminal(["bash", "-c", script], environ=home.environ, cwd=home.root) as terminal:
        terminal.wait_for("status=3", timeout=60)
        terminal.finish()


def test_a_broken_pipe_does_not_end_the_hold(home: TrainingHome) -> None:
    """``… | head -1``: the docker command dies of the broken pipe before the engine reports the container."""
    image = home.engine.images["segformer"]
    task = "while echo y; do :; done"
    script = shlex.join([home.taoprof, "run", "segformer", "--image", image, "--", "sh", "-c", task]) + " | head -1"
    done = subprocess.run(["bash", "-c", script], env=home.environ, capture_output=True, text=True, timeout=60)
    (hold,) = home.holds()
    assert (hold["phase"], f"container {hold['container'][:6]} is still running" in done.stderr) == ("bound", True), (
        done.stderr
    )
    home.run("stop", hold["id"], check=True)
    until(lambda: home.holds() == [], "nothing is held")


@pytest.mark.parametrize("with_mounts", [True, False], ids=["mounts", "no-mounts"])
def test_the_hold_ends_with_the_container_whatever_is_killed(home: TrainingHome, with_mounts: bool) -> None:
    if not with_mounts:
        home.profile("detectnet_v2", 'layout = "custom"\n')
    with BackgroundRun(home, *train(home, "detectnet_v2", 60)) as run:
        record = run.bound()
        os.killpg(run.process.pid, signal.SIGKILL)  # taoprof and the docker command
        run.process.wait(30)
        (left,) = home.holds()
        assert (left["id"], left["phase"], left["container"]) == (record["id"], "bound", record["container"])
        if with_mounts:
            refused = home.run("run", *train(home, "detectnet_v2", 1))
            assert (refused.returncode, record["id"] in refused.stderr) == (5, True)
        home.run("stop", record["id"], check=True)
        until(lambda: home.holds() == [], "nothing is held")


def test_image_gpus_and_read_only_mounts_of_the_profile(home: TrainingHome) -> None:
    """A command other than 'tao' is started in the profile's image; what the task may not write to it cannot."""
    image = home.engine.images["detectnet_v2"]
    path = home.profiles / "detectnet_v2.toml"
    folder = home.root / "data"
    folder.mkdir()
    mount = f'[[mounts]]\nsource = "{folder}"\ndestination = "/data"\nread_only = true\n'
    path.write_text(f'image = "localhost:1/no:1"\ngpus = "1,"\nimages.sh = "{image}"\n' + path.read_text() + mount)
    done = home.run("run", "detectnet_v2", "--json", "--", "sh", "-c", "touch /data/x")
    assert (done.returncode, "Read-only file system" in done.stderr) == (1, True), done.stderr
    assert json.loads(done.stdout)["data"]["gpus"] == ["1"]
    assert list(folder.iterdir()) == []
    assert "localhost:1/no:1" in home.run("run", "detectnet_v2", "--", "other").stderr
    here = home.run("run", "detectnet_v2", "--image", "none", "--", "sh", "-c", f"touch {folder}/x", check=True)
    assert "the container can write to /data" in here.stderr
    assert [file.name for file in folder.iterdir()] == ["x"]


def got(home: TrainingHome, container: str) -> dict[str, Any]:
    inspected = home.engine.inspect(container)
    config, host = inspected["Config"], inspected["HostConfig"]
    devices = host["DeviceRequests"] or []
    return {
        "image": config["Image"],
        "command": config["Cmd"] or [],
        "mounts": sorted(
            (item["Source"], item["Target"], item.get("ReadOnly", False)) for item in host.get("Mounts") or []
        ),
        "env": sorted(word for word in config["Env"] if word != "PATH=/usr/local/bin:/bin"),
        "user": config["User"],
        "shm": host["ShmSize"],
        "ulimits": {item["Name"]: (item["Soft"], item["Hard"]) for item in host["Ulimits"] or []},
        "ports": sorted(f"{b['HostPort']}:{port}" for port, at in (host["PortBindings"] or {}).items() for b in at),
        "network": host["NetworkMode"],
        "privileged": host["Privileged"],
        "gpus": [(item["Count"], item["DeviceIDs"] or [], item["Capabilities"]) for item in devices],
        "labels": {key: value for key, value in (config["Labels"] or {}).items() if key.startswith("taoprofiles.p")},
        "tty": config["Tty"],
        "rm": host["AutoRemove"],
    }


def planned(plan: Plan, command: list[str]) -> dict[str, Any]:
    request = (-1, []) if plan.gpus == "all" else (0, plan.gpus) if isinstance(plan.gpus, list) else (plan.gpus, [])
    return {
        "image": plan.image,
        "command": command,
        "mounts": sorted((item.source, item.destination, item.read_only) for item in plan.mounts),
        "env": sorted(f"{name}={SECRET if value is None else value}" for name, value in plan.env.items()),
        "user": plan.user or "",
        "shm": plan.shm_size or 64 << 20,
        "ulimits": {name: (limit, limit) for name, limit in plan.ulimits.items()},
        "ports": sorted(
            f"{port.host}:{port.container}/{port.protocol}" for port in plan.ports if port.host is not None
        ),
        "network": plan.network or "default",
        "privileged": plan.privileged,
        "gpus": [] if plan.gpus == [] else [(*request, [["gpu"]])],
        "labels": {"taoprofiles.profile": plan.name},
        "tty": plan.tty is not False,
        "rm": True,
    }


SECRET = "one value, 'for' all \"secrets\" $HOME"


def created(home: TrainingHome, text: str, environ: dict[str, str]) -> str:
    """Let a bash read the rendered command, with ``create`` in the place of ``run``; return the container's id."""
    script = f'docker() {{ shift; "$DOCKER" create "$@"; }}\n{text}'
    around = {**home.engine._environ, "DOCKER": home.engine._docker, "LANG": "C.UTF-8", **environ}
    done = subprocess.run(["bash", "-c", script], env=around, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (text, done.stderr)
    return done.stdout.strip()


def test_the_engine_reads_the_rendered_arguments_as_they_were_planned(training_home: TrainingHome) -> None:
    home = training_home
    image = home.engine.images["segformer"]
    context = Context({**home.environ, **AROUND.environ})
    gpus = st.sampled_from(["all", "2", "0,1", "3,", "none"])

    @given(
        usable_profiles(home.root),
        gpus,
        st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9), max_size=3),
    )
    @moderate(12)
    def check(profile: Profile, wish: Any, words: list[str]) -> None:
        if any(limit > 1 << 40 for limit in (profile.docker.ulimits or {}).values()):
            profile = profile.model_copy(update={"docker": profile.docker.model_copy(update={"ulimits": None})})
        home.profile("p", to_toml(profile))
        command = ["cat", *words]
        try:
            renderer = Store(context).renderer("p")
            plan = plan_target(renderer, "docker", command, image=image, gpus=wish)
            rendered, _ = export(renderer, "docker", plan)
        except CannotRenderError:
            return
        container = created(home, rendered.text, dict.fromkeys(plan.secrets, SECRET))
        try:
            assert got(home, container) == planned(
                plan, ["".join(str(piece) for piece in word) for word in plan.command]
            )
        finally:
            home.engine.remove(container)

    check()


def test_a_container_from_rendered_arguments_is_listed_and_blocks_nothing(home: TrainingHome) -> None:
    kitti = home.root / "tao/kitti"
    image = home.engine.images["detectnet_v2"]
    words = ("render", "detectnet_v2", "--to", "docker", "--image", image, "--", "detectnet_v2", "train", "60")
    text = home.run(*words, check=True).stdout
    around = {**home.engine._environ, "PATH": os.environ["PATH"]}
    process = subprocess.Popen(["bash", "-c", text], env=around, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        assert b"training as" in process.stdout.readline()
        (hold,) = home.holds()
        fields = [hold[field] for field in ("kind", "profile", "shared", "phase")]
        assert fields == ["found", "detectnet_v2", False, "bound"]
        assert bind_mounts(home.engine.inspect(hold["container"])) == local_mounts(kitti)
        assert hold["id"] in home.run("status").stdout
        assert home.run("use", "segformer").returncode == 0, "its mounts are fixed: no file is needed any more"
        (home.root / "other").mkdir()
        other = TrainingHome(home.root / "other", home.engine)
        assert other.holds() == [], "somebody else's home does not count it"
        home.run("stop", hold["id"], check=True)
        assert process.wait(30) == 143
        assert home.holds() == []
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_compose_starts_the_same_container(home: TrainingHome) -> None:
    kitti = home.root / "tao/kitti"
    home.run("set", "detectnet_v2", "docker.network=none", "KEY=tlt_encode", "container.env.A_KEY=${KEY}", check=True)
    image = home.engine.images["detectnet_v2"]
    words = ("render", "detectnet_v2", "--to", "compose", "--image", image, "--", "detectnet_v2", "train", "60", "3")
    folder = home.root / "compose"
    folder.mkdir()
    (folder / "docker-compose.yml").write_text(home.run(*words, check=True).stdout)
    around = {**home.engine._environ, "COMPOSE_PROJECT_NAME": "taoprofiles-test"}
    compose = [find_command("docker-compose"), "up", "--no-color", "--exit-code-from", "detectnet_v2"]
    refused = subprocess.run(compose, cwd=folder, env=around, capture_output=True, text=True, timeout=60, check=False)
    assert (refused.returncode, "A_KEY" in refused.stderr) == (1, True), "no secret, no container"
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(compose, cwd=folder, env={**around, "A_KEY": SECRET}, **streams)
    try:
        (hold,) = until(lambda: home.holds(), "its container is known by its labels")
        container = home.engine.inspect(hold["container"])
        assert bind_mounts(container) == local_mounts(kitti)
        assert f"A_KEY={SECRET}" in container["Config"]["Env"]
        host = container["HostConfig"]
        assert (host["ShmSize"], host["NetworkMode"], host["Init"]) == (16 << 30, "none", True)
        limits = {item["Name"]: (item["Soft"], item["Hard"]) for item in host["Ulimits"]}
        assert limits == {"memlock": (-1, -1), "stack": (67108864, 67108864)}
        (device,) = host["DeviceRequests"]
        assert (device["Count"], device["Capabilities"]) == (-1, [["gpu"]])
        home.run("stop", hold["id"], check=True)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 143, output
    finally:
        process.kill()
        process.wait()
