"""Runs an installed launcher's own ``main()``, case by case: ``python launcher_runner.py MODULE [engine]``.

Started with the Python of the launcher's environment, and so without this package. A case is a line of JSON on stdin,
the answer one on stdout. The launcher and its Docker SDK are as pip installed them; what is put in their way is the
SDK's transport (``APIClient._get`` and ``_post``) and ``subprocess.check_call``. With ``engine`` there is a real one:
the container is made there, but neither started nor stopped. When the launcher's modules are imported, they read
the environment, and look for the mounts file: they are imported anew if one of these differs from the case before.
"""

import importlib
import json
import logging
import os
import subprocess
import sys
import warnings

warnings.simplefilter("ignore")

import docker  # noqa: E402

ID = "c" * 64
IMAGE = "sha256:" + "1" * 64


class _Any(list):
    """The tags of the one image there is."""

    def __contains__(self, tag):
        return True


class _Answer:
    status_code = 200

    def __init__(self, content):
        self.content = content

    def json(self):
        return self.content

    def raise_for_status(self):
        pass


class Engine:
    """Listens, and remembers what the launcher asked for since the last case."""

    def __init__(self):
        self.post_for_real = self.at_import = None
        self.listening = False
        self.forget()

    def forget(self):
        self.created = self.container = self.shell = None
        self.opened = []

    def get(self, url):
        path = url.partition("?")[0]
        if path.endswith("/version"):
            return _Answer({"ApiVersion": "1.41"})
        if path.endswith("/images/json"):
            return _Answer([{"Id": IMAGE}])
        if "/images/" in path:
            return _Answer({"Id": IMAGE, "RepoTags": _Any(["all"])})
        if path.endswith("/containers/json"):
            return _Answer([])
        assert path.endswith(f"/containers/{ID}/json"), path
        return _Answer({"Id": ID})

    def post(self, client, url, data=None, **options):
        if "/containers/create" not in url:
            assert url.endswith(("/start", "/stop")), url
            return _Answer({"Id": self.container})
        self.created = json.loads(data)
        answer = self.post_for_real(client, url, data=data, **options) if self.post_for_real else _Answer({"Id": ID})
        self.container = answer.json().get("Id")
        return answer

    def check_call(self, command, shell=False, **options):
        os.fsencode(command)
        if "\0" in command:
            raise ValueError("embedded null byte")
        self.shell = command
        return 0

    def note_open(self, event, arguments):
        if self.listening and event == "open" and isinstance(arguments[0], str):
            self.opened.append(arguments[0])


def run(engine, module, case):
    engine.forget()
    os.environ.clear()
    os.environ.update(case["environ"])
    os.chdir(case["cwd"])
    at_import = case["environ"], os.path.exists(os.path.expanduser("~/.tao_mounts.json"))
    if engine.at_import != at_import:
        for name in [name for name in sys.modules if name.partition(".")[0] == module.partition(".")[0]]:
            del sys.modules[name]
        engine.at_import = at_import
    raised, status = None, 0
    engine.listening = True
    try:
        importlib.import_module(module).main(list(case["arguments"]))
    except SystemExit as error:
        status = error.code or 0
    except Exception as error:
        message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        raised, status = [type(error).__name__, message], 1
    finally:
        engine.listening = False
    ours = [path for path in engine.opened if not path.startswith((sys.prefix, sys.base_prefix, "/dev/"))]
    return {
        "created": engine.created,
        "container": engine.container,
        "shell": engine.shell and engine.shell.replace(engine.container or ID, "CONTAINER"),
        "raised": raised,
        "status": status,
        "opened": ours,
    }


def main(module, real=None):
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    sys.stdout = sys.stderr = open(os.devnull, "w", errors="replace")  # noqa: SIM115
    logging.disable(logging.CRITICAL)
    engine = Engine()
    if real:
        engine.post_for_real = docker.APIClient._post
    else:
        docker.APIClient._get = lambda client, url, **options: engine.get(url)
    docker.APIClient._post = lambda client, url, **options: engine.post(client, url, **options)
    subprocess.check_call = engine.check_call
    sys.addaudithook(engine.note_open)
    for line in sys.stdin:
        answers.write(json.dumps(run(engine, module, json.loads(line))) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
