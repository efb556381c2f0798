"""Runs an installed launcher's own ``main()``, case by case, with an engine that only listens: ``python runner.py MODULE``.

Started with the Python of the launcher's environment, and so without this package. A case is a line of JSON on stdin,
the answer one on stdout. The launcher and its Docker SDK are as pip installed them; what is put in their way is the SDK's
transport (``APIClient._get`` and ``_post``) and ``subprocess.check_call``. The launcher's modules read the environment when
they are imported, so each case imports them anew.
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
    """What the launcher asked for since the last case."""

    created = None
    shell = None
    opened = []
    listening = False

    @classmethod
    def get(cls, client, url, **options):
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

    @classmethod
    def post(cls, client, url, data=None, **options):
        if "/containers/create" in url:
            cls.created = json.loads(data)
        else:
            assert url.endswith(("/start", "/stop")), url
        return _Answer({"Id": ID})

    @classmethod
    def check_call(cls, command, shell=False, **options):
        os.fsencode(command)
        if "\0" in command:
            raise ValueError("embedded null byte")
        cls.shell = command
        return 0


def note_open(event, arguments):
    if Engine.listening and event == "open" and isinstance(arguments[0], str):
        Engine.opened.append(arguments[0])


def run(module, case):
    Engine.created = Engine.shell = None
    Engine.opened = []
    for name in [name for name in sys.modules if name.partition(".")[0] == module.partition(".")[0]]:
        del sys.modules[name]
    os.environ.clear()
    os.environ.update(case["environ"])
    os.chdir(case["cwd"])
    raised, status = None, 0
    Engine.listening = True
    try:
        importlib.import_module(module).main(list(case["arguments"]))
    except SystemExit as error:
        status = error.code or 0
    except Exception as error:
        message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        raised, status = [type(error).__name__, message], 1
    finally:
        Engine.listening = False
    ours = [path for path in Engine.opened if not path.startswith((sys.prefix, sys.base_prefix, "/dev/"))]
    return {
        "created": Engine.created,
        "shell": Engine.shell and Engine.shell.replace(ID, "CONTAINER"),
        "raised": raised,
        "status": status,
        "opened": ours,
    }


def main(module):
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    nothing = open(os.devnull, "w", errors="replace")
    sys.stdout = sys.stderr = nothing
    logging.disable(logging.CRITICAL)
    docker.APIClient._get, docker.APIClient._post = (
        lambda client, url, **options: Engine.get(client, url, **options),
        lambda client, url, **options: Engine.post(client, url, **options),
    )
    subprocess.check_call = Engine.check_call
    sys.addaudithook(note_open)
    for line in sys.stdin:
        answers.write(json.dumps(run(module, json.loads(line))) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
