"""``run --on kubernetes``: the real kubectl, and a small API server that checks objects by Kubernetes' own schemas."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taoprofiles.holds.records import HoldRecords
from taoprofiles.runs import jobs, lookup
from tests.support.commands import call, one_clear_error
from tests.support.engine import until
from tests.support.home import Home, require, write_program
from tests.support.kubernetes import UNPACKED, ApiServer

IMAGE = "nvcr.io/nvidia/tao/tao-toolkit:7.1.0-pyt"
PROFILE = """layout = "custom"
[variables]
KEY = "the_key"
[[mounts]]
source = "/nowhere/data"
destination = "/data"
[[mounts]]
source = "/nowhere/results"
destination = "/results"
[container.env]
API_KEY = "${KEY} of the container"
[docker]
user = "1000:1000"
shm_size = "16G"
[kubernetes.claims]
"/data" = "tao-data"
"""


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiServer]:
    with ApiServer(tmp_path) as server:
        yield server


@pytest.fixture
def home(home: Home, api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Home:
    kubectl = UNPACKED if UNPACKED.exists() else shutil.which("kubectl")
    require(kubectl, "kubectl is not installed")
    home.environ |= {"KUBECONFIG": str(api.kubeconfig), "PATH": f"{Path(str(kubectl)).parent}:{home.environ['PATH']}"}
    home.profile("visual_changenet", PROFILE)
    monkeypatch.setattr(lookup, "CLUSTER_INTERVALS", (0.1, 0.1))
    monkeypatch.setattr(jobs, "RECONNECT", 0.1)
    return home


def submit(home: Home, *words: str) -> dict[str, Any]:
    done = call(
        home, "run", "visual_changenet", "--on", "kubernetes", "--image", IMAGE, "--gpus", "4", "--json", "--", *words
    )
    assert done.status == 0, done.out
    return done.envelope["data"]


def test_a_job_is_submitted_with_its_secrets_and_its_claims(home: Home, api: ApiServer) -> None:
    run = submit(home, "visual_changenet", "train", "-k", "$KEY")
    name = f"taoprof-visual-changenet-{run['id']}"
    assert (run["cluster"], run["job"], run["image"]) == ("kubernetes", name, IMAGE)
    (job,) = api.of_kind("jobs")
    (secret,) = api.of_kind("secrets")
    assert job["metadata"]["namespace"] == "vision", "the context's namespace"
    pod = job["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": "nvcr-io"}]
    assert pod["volumes"][0] == {"name": "claim-0", "persistentVolumeClaim": {"claimName": "tao-data"}}
    assert pod["volumes"][1]["hostPath"] == {"path": "/nowhere/results", "type": "Directory"}
    (container,) = pod["containers"]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 4}}
    assert container["args"] == ["visual_changenet", "train", "-k", "$(KEY)"]
    assert "the_key" not in json.dumps(job)
    assert secret["stringData"] == {"API_KEY": "the_key of the container", "KEY": "the_key"}
    assert secret["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"], "it is deleted with the job"
    records = [path.read_bytes() for path in home.state.rglob("*.json*")]
    assert not any(b"the_key" in content for content in records)


def test_a_job_is_followed_to_its_end(home: Home, api: ApiServer) -> None:
    records = home.root / ".tao/jobs"
    records.mkdir(parents=True)
    run = submit(home, "visual_changenet", "train")

    def state() -> tuple[str, str]:
        (shown,) = home.json("status")["data"]["runs"]
        return shown["phase"], shown["state"]

    assert state() == ("pending", "Pending")
    api.set_pod(run["job"], "Pending", waiting="ImagePullBackOff")
    assert state() == ("pending", "Pending (ImagePullBackOff)")
    nothing = call(home, "logs", run["id"])
    assert (nothing.status, nothing.out) == (0, "")
    assert f"run {run['id']} has printed nothing yet: Pending (ImagePullBackOff)" in nothing.err
    followed = subprocess.Popen(
        [home.taoprof, "logs", "-f", run["id"]], env=home.environ, cwd=home.root, stdout=subprocess.PIPE, text=True
    )
    try:
        api.set_pod(run["job"], "Running")
        api.print(run["job"], "epoch 1, the_key\n")
        assert followed.stdout.readline() == "epoch 1, ***\n"
        assert state() == ("bound", "Running")
        streams = "GET /api/v1/namespaces/vision/pods/" + run["job"] + "-x/log"
        before = api.requests.count(streams)
        api.break_streams()
        until(lambda: api.requests.count(streams) > before, "the log is read again after its connection was closed")
        api.print(run["job"], "epoch 2\n")
        assert followed.stdout.readline() == "epoch 2\n", "nothing twice"
        api.print(run["job"], "the end")
        api.set_pod(run["job"], "Failed", exit_code=4)
        assert followed.communicate(timeout=60)[0] == "the end"
    finally:
        followed.kill()
        followed.wait()
    waited = call(home, "wait", run["id"])
    assert (waited.status, waited.out) == (4, f"{run['id']}: exit status 4 (Failed)\n")
    (ended,) = HoldRecords(home.context).ended_runs()
    assert (ended.cluster, ended.namespace, ended.status) == ("kubernetes", "arn:lab/1/vision", 4)
    record = json.loads((records / f"visual_changenet-train-{run['id']}.json").read_bytes())
    assert [(item["state"], item["message"]) for item in record["transitions"]] == [
        ("PENDING", "record opened before launch"),
        ("PENDING", "Pending"),
        ("PENDING", "Pending (ImagePullBackOff)"),
        ("RUNNING", "Running"),
        ("ERROR", "exit status 4"),
    ], "the skill bank's record"
    api.delete("vision", run["job"])
    assert call(home, "logs", run["id"]).out == "epoch 1, ***\nepoch 2\nthe end", "kept when the job is deleted"


@pytest.mark.parametrize("ends", [True, False])
def test_a_log_that_cannot_be_read_at_the_end_is_read_later(home: Home, api: ApiServer, ends: bool) -> None:
    run = submit(home, "visual_changenet", "train")
    if ends:
        api.print(run["job"], "the_key, the end\n")
        api.set_pod(run["job"], "Succeeded", exit_code=0)
    api.refuse, api.refused_kind = (503, "the server is currently unable to handle the request"), "/log"
    if not ends:
        api.delete("vision", run["job"])
    assert call(home, "wait", run["id"]).status == (0 if ends else 1)
    one_clear_error(call(home, "logs", run["id"]), 10)
    api.refuse = None
    for _ in range(2):
        shown = call(home, "logs", run["id"])
        assert (shown.status, shown.out) == ((0, "***, the end\n") if ends else (10, ""))
        api.delete("vision", run["job"])  # it is kept


def test_a_job_is_cancelled(home: Home, api: ApiServer) -> None:
    run = submit(home, "visual_changenet", "train", "-k", "$KEY")
    api.set_pod(run["job"], "Running")
    api.print(run["job"], "epoch 1\n")
    home.environ["KUBECONFIG"] = other_context(api)
    stopped = call(home, "stop", "-")
    assert (stopped.status, stopped.out) == (0, f"run {run['id']}: kubernetes job {run['job']} cancelled\n"), (
        stopped.err
    )
    assert api.objects == {}, "the job, its pod and its Secret"
    assert home.holds() == []
    waited = call(home, "wait", run["id"])
    assert (waited.status, waited.out) == (143, f"{run['id']}: exit status 143 (Deleted)\n")
    assert call(home, "logs", run["id"]).out == "epoch 1\n"


def other_context(api: ApiServer) -> str:
    """Return a kubeconfig with another current context, as after 'kubectl config use-context'."""
    config = json.loads(api.kubeconfig.read_text())
    config["contexts"].append({"name": "other", "context": {"cluster": "nowhere", "user": "ana"}})
    path = api.kubeconfig.with_name("other")
    path.write_text(json.dumps({**config, "current-context": "other"}))
    return str(path)


@pytest.mark.parametrize("kind", ["jobs", "secrets"])
def test_what_kubernetes_refuses_leaves_nothing(home: Home, api: ApiServer, kind: str) -> None:
    api.refuse, api.refused_kind = (403, f'{kind} is forbidden: User "ana" cannot create it'), f"/{kind}"
    words = ("--on", "kubernetes", "--image", IMAGE, "--", "visual_changenet", "train", "-k", "$KEY")
    done = call(home, "run", "visual_changenet", *words)
    assert done.status == 10
    assert 'is forbidden: User "ana" cannot create it' in done.err
    assert api.objects == {}
    assert home.holds() == []


def test_a_job_whose_pod_does_not_exist_yet_is_pending(home: Home, api: ApiServer) -> None:
    run = submit(home, "visual_changenet", "train")
    pods = {key: api.objects.pop(key) for key in list(api.objects) if key[0] == "pods"}
    assert [(hold["phase"], hold["state"]) for hold in home.holds()] == [("pending", "Pending")]
    done = call(home, "wait", run["id"], "--timeout", "1s")
    assert done.status == 124, done
    api.objects |= pods
    api.set_pod(run["job"], "Succeeded", exit_code=0)
    assert call(home, "wait", run["id"]).status == 0


def test_a_job_that_others_delete_ends_with_an_unknown_status(home: Home, api: ApiServer) -> None:
    run = submit(home, "visual_changenet", "train")
    api.delete("vision", run["job"])
    waited = call(home, "wait", run["id"])
    assert (waited.status, waited.out) == (1, f"{run['id']}: exit status unknown (unknown to the cluster)\n")


def test_without_a_cluster_or_kubectl(home: Home, tmp_path: Path) -> None:
    words = ("run", "visual_changenet", "--on", "kubernetes", "--image", IMAGE, "--", "true")
    (tmp_path / "empty").write_text("{}")
    done = call(home, *words, environ={"KUBECONFIG": str(tmp_path / "empty")})
    assert (done.status, "kubectl has no cluster to submit to" in done.err) == (10, True)
    done = call(home, *words, environ={"PATH": "/nowhere"})
    assert done.status == 10
    assert "'kubectl', the cluster's own command, failed: it cannot be started" in done.err
    assert home.holds() == []


OTHER_FORMS = ["nothing of JSON", "{}", "[]", '{"metadata": {"name": {}, "uid": 3}, "items": [5]}', "[" * 100_000]


@pytest.mark.parametrize("answer", OTHER_FORMS, ids=range(len(OTHER_FORMS)))
def test_an_answer_of_another_form_may_be_of_a_job_that_was_submitted(home: Home, tmp_path: Path, answer: str) -> None:
    context = '{"contexts": [{"name": "c", "context": {}}]}'
    (tmp_path / "answer").write_text(answer)
    script = f"case $* in *config*) echo '{context}' ;; *) /bin/cat '{tmp_path}/answer' ;; esac"
    kubectl = write_program(tmp_path / "bin/kubectl", script)
    home.environ["PATH"] = str(kubectl.parent)
    words = ["run", "visual_changenet", "--on", "kubernetes", "--image", IMAGE, "--force", "--", "true"]
    done = call(home, *words)
    assert (done.status, "the answer of 'kubectl' cannot be read" in done.err) == (10, True), done
    done = call(home, "status")
    assert (done.status, "the answer of 'kubectl' cannot be read" in done.err) == (0, True), done
    write_program(kubectl, script.replace("{}", "null"))
    assert "kubectl has no cluster to submit to" in call(home, *words).err
