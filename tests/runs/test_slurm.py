"""``run --on slurm`` on a real Slurm of one node, and with clients that are missing, hang or refuse."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from taoprofiles.errors import TaoprofError
from taoprofiles.holds.hold import Hold
from taoprofiles.holds.records import HoldRecords
from taoprofiles.runs import jobs, lookup
from taoprofiles.system import clusters
from taoprofiles.system.clusters import SlurmClient
from tests.support.commands import call
from tests.support.engine import until
from tests.support.home import Home, write_program
from tests.support.slurm import Cluster

IMAGE = "/images/tao.sqsh"
RUN = ("run", "dino_p", "--on", "slurm", "--image", IMAGE, "--", "true")
PROFILE = """layout = "custom"
[variables]
KEY = "the_key"
[[mounts]]
source = "{folder}"
destination = "/results"
[container.env]
API_KEY = "${{KEY}} of the container"
"""


def profile(home: Home, text: str = "") -> None:
    folder = home.root / "results"
    folder.mkdir(exist_ok=True)
    home.profile("dino_p", PROFILE.format(folder=folder) + text)


@pytest.fixture
def cluster_home(home: Home, slurm: Cluster) -> Home:
    profile(home)
    home.environ |= slurm.environ
    return home


def submit(home: Home, *words: str, options: tuple[str, ...] = ()) -> dict:
    done = home.run("run", "dino_p", "--on", "slurm", "--image", IMAGE, "--json", *options, "--", *words)
    assert done.returncode == 0, done.stdout
    return json.loads(done.stdout)["data"]


def slurm_says(home: Home, *command: str) -> str:
    return subprocess.run(command, env=home.environ, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.slurm
def test_a_job_is_submitted_followed_and_ends_with_its_tasks_status(home: Home, cluster_home: Home) -> None:
    script = 'echo "$1 $API_KEY $SLURM_GPUS_ON_NODE $SLURM_JOB_NAME"; echo epoch 1; exit 3'
    run = submit(home, "sh", "-c", script, "x", "-k$KEY", options=("--gpus", "2"))
    followed = home.run("logs", "-f", run["id"])
    assert followed.returncode == 0
    lines = followed.stdout.splitlines()
    assert f"pyxis: --container-image={IMAGE}" in lines
    assert f"pyxis: --container-mounts={home.root}/results:/results" in lines
    assert "pyxis: --container-env=API_KEY,KEY" in lines
    assert f"-k*** *** 2 taoprof-dino-p-{run['id']}" in lines, "secrets reach the task, not the screen"
    assert "epoch 1" in lines
    waited = home.run("wait", run["id"])
    assert (waited.returncode, waited.stdout) == (3, f"{run['id']}: exit status 3 (FAILED)\n")
    (ended,) = HoldRecords(home.context).ended_runs()
    assert (ended.cluster, ended.job, ended.status, ended.image) == ("slurm", run["job"], 3, IMAGE)
    assert home.holds() == []
    # Neither Slurm's copy of the script nor any file of ours has a secret.
    assert "the_key" not in slurm_says(home, "scontrol", "write", "batch_script", run["job"], "-")
    files = [path for path in home.state.rglob("*") if path.is_file() and path.suffix in (".json", ".jsonl")]
    assert all(b"the_key" not in path.read_bytes() for path in files)


@pytest.mark.slurm
def test_a_job_waits_for_gpus_and_is_cancelled(home: Home, cluster_home: Home) -> None:
    first = submit(home, "sleep", "300", options=("--gpus", "2"))
    second = submit(home, "sleep", "300", options=("--gpus", "1"))

    def states() -> dict[str, str]:
        return {run["id"]: run["state"] for run in home.json("status")["data"]["runs"]}

    until(lambda: states() == {first["id"]: "RUNNING", second["id"]: "PENDING (Resources)"}, "one runs, one waits")
    rows = home.run("status").stdout
    assert f"slurm {second['job']}" in rows
    stopped = home.run("stop", "-")
    assert stopped.stdout == f"run {second['id']}: slurm job {second['job']} cancelled\n", stopped.stderr
    assert home.run("stop", "-").stdout.startswith(f"run {first['id']}: "), "the newest that is still running"
    waited = home.run("wait", first["id"], second["id"])
    assert waited.returncode == 143
    assert waited.stdout == "".join(f"{run['id']}: exit status 143 (CANCELLED)\n" for run in (first, second))
    assert "PENDING" not in slurm_says(home, "squeue", "--noheader", "--format=%T")


@pytest.mark.slurm
def test_what_slurm_refuses_leaves_nothing(home: Home, cluster_home: Home) -> None:
    profile(home, '[slurm]\npartition = "nosuch"\n')
    done = home.run(*RUN)
    assert done.returncode == 10
    assert "Invalid partition name specified" in done.stderr
    assert home.holds() == []
    assert list((home.state / "logs").iterdir()) == []


@pytest.mark.slurm
def test_a_job_whose_submission_was_killed_is_found_by_its_name(home: Home, cluster_home: Home, tmp_path: Path) -> None:
    real = home.environ["PATH"]
    program(tmp_path, "sbatch", f'PATH={real} sbatch "$@" >"{tmp_path}/job"; kill -9 $PPID')
    home.environ["PATH"] = f"{tmp_path / 'bin'}:{real}"
    command = [home.taoprof, "run", "dino_p", "--on", "slurm", "--image", IMAGE, "--", "sleep", "300"]
    done = subprocess.run(command, env=home.environ, cwd=home.root, capture_output=True, timeout=60)
    assert done.returncode == -9
    home.environ["PATH"] = real
    (run,) = home.holds()
    assert run["job"] == (tmp_path / "job").read_text().strip()
    assert home.run("stop", "-").returncode == 0
    assert home.run("wait", run["id"]).returncode == 143


@pytest.mark.slurm
def test_two_jobs_do_not_write_one_results_folder(home: Home, cluster_home: Home) -> None:
    words = ("sh", "-c", 'sleep "$1"', "x")
    first = submit(home, *words, "300", "-r", "/results/a")
    refused = home.run(*RUN, "-r", "/results/a")
    assert refused.returncode == 5
    assert f"slurm job {first['job']}" in refused.stderr
    slurm_says(home, "scancel", first["job"])  # not by us: the next run sees it
    until(lambda: slurm_says(home, "squeue", "--noheader") == "", "the job has ended, not only begun to")
    second = submit(home, *words, "0", "-r", "/results/a")
    assert home.run("wait", second["id"]).returncode == 0


# Clients that do not work as they should


def program(folder: Path, name: str, text: str) -> None:
    write_program(folder / "bin" / name, text)


@pytest.fixture
def fake_home(home: Home, tmp_path: Path) -> Home:
    """A home whose sbatch submits the job 5, and whose squeue, sacct and scontrol know none."""
    profile(home)
    home.environ["PATH"] = str(tmp_path / "bin")
    for name in ("squeue", "sacct", "scontrol", "scancel"):
        program(tmp_path, name, "exit 0")
    program(tmp_path, "sbatch", "echo 5")
    return home


def test_without_sbatch_nothing_is_left(fake_home: Home, tmp_path: Path) -> None:
    (tmp_path / "bin/sbatch").unlink()
    done = call(fake_home, *RUN)
    assert done.status == 10
    assert "'sbatch', the cluster's own command, failed: it cannot be started" in done.err
    assert fake_home.holds() == []


@pytest.mark.parametrize(
    "sbatch", ["sleep 60", "echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1", "kill -9 $$"]
)
def test_a_submission_that_may_have_happened_is_looked_for(
    home: Home, fake_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sbatch: str
) -> None:
    monkeypatch.setattr("taoprofiles.system.clusters.SUBMIT_TIMEOUT", 0.5)
    program(tmp_path, "sbatch", f"PATH={os.environ['PATH']}\n{sbatch}")
    done = call(home, *RUN)
    assert done.status == 10
    assert "it is not known whether the job was submitted" in done.err
    (run,) = home.holds()
    assert (run["cluster"], run["job"], run["phase"]) == ("slurm", None, "pending")
    program(tmp_path, "squeue", f"echo 'taoprof-dino-p-{run['id']}|77|RUNNING|n1|None'")
    (run,) = home.holds()
    assert (run["job"], run["phase"], run["state"]) == ("77", "bound", "RUNNING")


@pytest.mark.parametrize("answer", ["", "maintenance tonight"])
def test_a_submission_without_an_id_is_looked_for(fake_home: Home, tmp_path: Path, answer: str) -> None:
    program(tmp_path, "sbatch", f"echo '{answer}'")
    done = call(fake_home, *RUN)
    assert (done.status, "submitted: slurm job, whose id is not known yet" in done.err) == (0, True)
    assert fake_home.holds()[0]["job"] is None


def test_a_job_whose_id_cannot_be_recorded_is_not_lost(
    fake_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "sbatch", "echo 78")
    with monkeypatch.context() as patch:
        write = HoldRecords.write

        def full_disk(records: HoldRecords, hold: Hold) -> None:
            if hold.job is not None:
                raise TaoprofError("no space left on device")
            write(records, hold)

        patch.setattr(HoldRecords, "write", full_disk)
        done = call(fake_home, *RUN)
    assert done.status == 0
    assert "the id of the job, 78, could not be recorded: no space left on device" in done.err
    program(tmp_path, "squeue", f"echo 'taoprof-dino-p-{done.out.strip()}|78|RUNNING|n1|None'")
    (run,) = fake_home.holds()
    assert (run["job"], run["phase"]) == ("78", "bound")


def test_a_job_that_never_appears_ends_with_an_unknown_status(
    fake_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "sbatch", "echo 'sbatch: error: timed out' >&2; exit 1")
    call(fake_home, *RUN)
    (run,) = fake_home.holds()
    monkeypatch.setattr(jobs, "SUBMIT_GRACE", 0)
    monkeypatch.setattr(jobs, "MISSING_GRACE", 0)
    # Its process, this one, is still alive: as long as it is, the job may be submitted.
    assert len(fake_home.holds()) == 1
    monkeypatch.setattr("taoprofiles.system.processes.alive", lambda pid, start: False)
    done = call(fake_home, "wait", run["id"])
    assert (done.status, done.out) == (1, f"{run['id']}: exit status unknown (unknown to the cluster)\n")


def test_a_job_that_slurm_does_not_list_is_not_over_at_once(
    home: Home, fake_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new one, and a running one while a controller takes over; without accounting, sacct knows neither."""
    monkeypatch.setattr(lookup, "CLUSTER_INTERVALS", (0.0, 0.0))
    assert call(home, *RUN).status == 0
    (run,) = home.holds()
    assert (run["job"], run["phase"], run["until"] >= run["since"] + jobs.SUBMIT_GRACE) == ("5", "pending", True)
    assert call(home, "wait", run["id"], "--timeout", "1s").status == 124
    monkeypatch.setattr(jobs, "SUBMIT_GRACE", 0)
    listed = f"echo 'taoprof-dino-p-{run['id']}|5|RUNNING|n1|None'"
    for answer, is_listed in ((listed, True), ("exit 0", False), (listed, True), ("exit 0", False)):
        program(tmp_path, "squeue", answer)
        (run,) = home.holds()
        assert (run["state"], run["until"] is None) == ("RUNNING", is_listed)
    assert call(home, "stop", run["id"]).status == 0
    record = HoldRecords(home.context).get(run["id"])
    record.until = record.since  # the minute is over
    HoldRecords(home.context).write(record)
    done = call(home, "wait", run["id"])
    assert (done.status, done.out) == (1, f"{run['id']}: exit status unknown (unknown to the cluster)\n")


def test_a_run_goes_on_while_slurm_cannot_be_asked(
    home: Home, fake_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(home, *RUN).status == 0
    (record,) = HoldRecords(home.context).all()
    run = record.as_dict()
    down = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1"
    program(tmp_path, "squeue", down)
    done = call(home, "status")
    assert run["id"] in done.out
    assert "Unable to contact slurm controller" in done.err
    assert call(home, "wait", run["id"]).status == 10, "one that never answered"
    program(tmp_path, "squeue", "echo an answer of another version")
    done = call(home, "status")
    assert run["id"] in done.out
    assert "the answer of 'squeue' cannot be read" in done.err
    # It answers once, is silent twice, and then knows the end.
    monkeypatch.setattr(lookup, "CLUSTER_INTERVALS", (0.0, 0.0))
    name = f"taoprof-dino-p-{run['id']}"
    program(
        tmp_path, "squeue",
        f"echo >>'{tmp_path}/asked'; n=$(/usr/bin/wc -l <'{tmp_path}/asked')\n"
        f"case $n in 1) echo '{name}|5|RUNNING|n1|None' ;; 2|3) {down} ;; *) echo '{name}|5|COMPLETED|n1|None' ;; esac",
    )  # fmt: skip
    assert call(home, "wait", run["id"]).status == 0
    assert (tmp_path / "asked").read_text().count("\n") == 4


@pytest.mark.parametrize(("age", "seconds"), [(0, 1), (100, 5), (86400, 30)])
def test_a_cluster_is_queried_less_often_the_older_its_job_is(
    home: Home, monkeypatch: pytest.MonkeyPatch, age: int, seconds: int
) -> None:
    queried: list[int] = []
    clock = SimpleNamespace(now=0, monotonic=lambda: clock.now, time=lambda: age)
    monkeypatch.setattr(lookup, "time", clock)
    monkeypatch.setattr(lookup, "ended_run", lambda *_: queried.append(clock.now))
    ends = lookup.watch_end(home.context, Hold(cluster="slurm", since=0))
    for second in range(61):
        clock.now = second
        assert next(ends) is None
    assert queried == list(range(0, 61, seconds))


def test_a_run_of_a_cluster_that_is_gone_can_be_released(fake_home: Home, tmp_path: Path) -> None:
    assert call(fake_home, *RUN).status == 0
    (tmp_path / "bin/squeue").unlink()
    (run,) = fake_home.holds()
    assert call(fake_home, "release", run["id"], "--yes").status == 0
    assert fake_home.holds() == []


STATES = {
    "n|5|PENDING||Priority": ("pending", "PENDING (Priority)", None),
    "n|5|CONFIGURING|n1|None": ("pending", "CONFIGURING", None),
    "n|5|COMPLETING|n1|None": ("bound", "COMPLETING", None),
    "n|5|SUSPENDED|n1|None": ("bound", "SUSPENDED", None),
    "n|5|COMPLETED|n1|None": ("over", "COMPLETED", 0),
    "n|5|TIMEOUT|n1|TimeLimit": ("over", "TIMEOUT", 1),
    "n|5|NODE_FAIL|n1|NodeDown": ("over", "NODE_FAIL", 1),
    "n|5|CANCELLED||None": ("over", "CANCELLED", 143),
}


@pytest.mark.parametrize("line", STATES)
def test_states_of_squeue(fake_home: Home, tmp_path: Path, line: str) -> None:
    program(tmp_path, "squeue", f"echo '{line}'")
    job = SlurmClient(fake_home.environ).find({"n": 0.0})["n"]
    assert (job.phase, job.state, job.status) == STATES[line]


@pytest.mark.parametrize(
    ("sacct", "wanted"),
    [
        ("echo 'n|5|CANCELLED by 1000|0:15|n1'", ("over", "CANCELLED by 1000", 143)),
        ("echo 'n|5|OUT_OF_MEMORY|0:125|n1'", ("over", "OUT_OF_MEMORY", 253)),
        ("echo 'm|4|FAILED|1:0|n1'; echo 'n|5|FAILED|3:0|n1'", ("over", "FAILED", 3)),
        ("echo 'Slurm accounting storage is disabled' >&2; exit 1", None),
        ("exit 0", None),
    ],
)
def test_a_job_that_only_the_accounting_knows(
    fake_home: Home, tmp_path: Path, sacct: str, wanted: tuple[str, str, int] | None
) -> None:
    program(tmp_path, "sacct", sacct)
    job = SlurmClient(fake_home.environ).find({"n": 0.0}).get("n")
    assert (job and (job.phase, job.state, job.status)) == wanted


def test_many_ended_jobs_are_one_question(fake_home: Home, tmp_path: Path) -> None:
    program(
        tmp_path,
        "sacct",
        f"echo >>'{tmp_path}/asked'; for n in $(/usr/bin/seq 50); do echo \"n$n|$n|FAILED|2:0|\"; done",
    )
    jobs = SlurmClient(fake_home.environ).find({f"n{number}": 0.0 for number in range(1, 51)})
    assert {name: job.id for name, job in jobs.items()} == {f"n{number}": str(number) for number in range(1, 51)}
    assert (tmp_path / "asked").read_text() == "\n"


def test_status_asks_all_clusters_at_once_and_does_not_wait_for_one_that_hangs(fake_home: Home, tmp_path: Path) -> None:
    program(tmp_path, "squeue", f"echo 1 >'{tmp_path}/slurm'; /bin/sleep 60")
    program(tmp_path, "kubectl", f"while ! [ -e '{tmp_path}/slurm' ]; do /bin/sleep 0.01; done; exit 1")
    assert call(fake_home, *RUN).status == 0
    (run,) = HoldRecords(fake_home.context).all()
    other = Hold(**run.as_dict() | {"id": "abcde", "cluster": "kubernetes", "namespace": "lab/default"})
    HoldRecords(fake_home.context).write(other)
    done = call(fake_home, "status")
    assert (run.id in done.out, "abcde" in done.out) == (True, True)
    last_known = "the last known state of jobs is shown:"
    assert f"{last_known} kubernetes lab/default: 'kubectl' failed with exit status 1" in done.err
    assert f"{last_known} slurm: 'squeue', the cluster's own command, failed: it did not finish within 2 s" in done.err


def test_a_job_needs_neither_the_docker_engine_nor_its_folders(fake_home: Home) -> None:
    environ = {"DOCKER_HOST": "tcp://127.0.0.1:1"}
    assert "cannot query the container engine" in call(fake_home, "status", environ=environ).err
    done = call(fake_home, *RUN, environ=environ)
    assert (done.status, "engine" in done.err) == (0, False)
    (fake_home.root / "results").rmdir()
    done = call(fake_home, *RUN, environ={"DOCKER_HOST": "tcp://192.0.2.1:2376"})
    assert (done.status, "1 folder does not exist" in done.err) == (3, True)


@pytest.mark.parametrize(
    ("squeue", "scontrol", "sacct"),
    [
        ("echo 'n|5|FAILED|n1|None'", "exec /bin/sleep 60", "exit 0"),
        ("exit 0", "exit 0", "echo 'sacct: error: Connection refused' >&2; exit 1"),
    ],
)
def test_the_end_of_a_job_is_not_guessed(
    fake_home: Home, tmp_path: Path, squeue: str, scontrol: str, sacct: str
) -> None:
    """While Slurm hangs, or its accounting is down."""
    for name, text in (("squeue", squeue), ("scontrol", scontrol), ("sacct", sacct)):
        program(tmp_path, name, text)
    with pytest.raises(clusters.ClusterError):
        SlurmClient(fake_home.environ).find({"n": 0.0}, 0.1 if "sleep" in scontrol else 20)
