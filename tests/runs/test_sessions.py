"""The Python API in programs of their own: a profile for as long as the program, or what it started, lives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taoprofiles.errors import TaoprofError
from taoprofiles.runs.session import Session
from taoprofiles.storage.paths import Context
from tests.support.engine import until
from tests.support.home import write_program
from tests.support.sandbox import FakeEngine, Sandbox, kill, mounts_of, rendered

CONVERSATION = """
import json, os, sys, subprocess, threading
import taoprofiles
from taoprofiles.errors import TaoprofError
for line in sys.stdin:
    try:
        answer = eval(compile(json.loads(line), "<line>", "eval"))
        print(json.dumps(answer, default=repr), flush=True)
    except TaoprofError as error:
        print(json.dumps({"error": error.code, "message": error.message}), flush=True)
"""


class Program:
    """A Python program that evaluates what it is told, and says what that gives."""

    def __init__(self, sandbox: Sandbox, **environ: str) -> None:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = sandbox.start(sys.executable, "-c", CONVERSATION, environ=environ, **pipes)
        self.pid = self.process.pid

    def tell(self, expression: str) -> Any:
        self.send(expression)
        return self.receive()

    def send(self, expression: str) -> None:
        self.process.stdin.write(json.dumps(expression) + "\n")
        self.process.stdin.flush()

    def receive(self) -> Any:
        return json.loads(self.process.stdout.readline())

    def do(self, *lines: str) -> None:
        """Execute statements in the program."""
        text = "\n".join(lines)
        self.tell(f"exec({text!r}, globals())")

    def environ(self) -> dict[str, str]:
        return self.tell("dict(os.environ)")

    def end(self) -> None:
        if self.process.poll() is None and self.process.stdin and not self.process.stdin.closed:
            self.process.stdin.close()
            assert self.process.wait(20) == 0


def mapping_of(sandbox: Sandbox, name: str) -> dict[str, Any]:
    return json.loads(rendered(sandbox, name))


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with Sandbox(tmp_path) as sandbox:
        for name in ("a", "b"):
            folder = sandbox.root / name
            folder.mkdir()
            sandbox.profile(
                name,
                f'layout = "custom"\n[variables]\nSPECS_DIR = "/specs/{name}"\n'
                f'[[mounts]]\nsource = "{folder}"\ndestination = "/workspace"\n',
            )
        sandbox.run("use", "a", check=True)
        yield sandbox


@pytest.fixture
def program(sandbox: Sandbox) -> Iterator[Program]:
    program = Program(sandbox)
    yield program
    program.end()


def holders(sandbox: Sandbox) -> list[tuple[str, str, int]]:
    return [(hold["kind"], hold["profile"], hold["pid"]) for hold in sandbox.json("status")["data"]["holds"]]


def test_use_gives_the_process_a_profile_until_it_ends(sandbox: Sandbox) -> None:
    program = Program(sandbox, SPECS_DIR="before")
    before = program.environ()
    assert program.tell("taoprofiles.use('b').name") == "b"
    there = program.environ()
    assert (there["SPECS_DIR"], there["TAOPROF_PROFILE"]) == ("/specs/b", "b")
    assert Path(there["LAUNCHER_MOUNTS"]).stat().st_mode & 0o777 == 0o600
    assert json.loads(Path(there["LAUNCHER_MOUNTS"]).read_bytes())["Mounts"] == mapping_of(sandbox, "b")["Mounts"]
    assert holders(sandbox) == [("notebook", "b", program.pid)]
    assert sandbox.run("current").stdout == "a\n", "the mapping file is nobody's business here"
    assert program.tell("taoprofiles.use('a').variables") == {"SPECS_DIR": "/specs/a"}
    assert holders(sandbox) == [("notebook", "a", program.pid)]
    assert program.tell("[one.release() for one in taoprofiles.runs.session._sessions]") == [None]
    assert program.environ() == before
    assert holders(sandbox) == []
    program.tell("taoprofiles.use('b').name")
    program.end()
    assert holders(sandbox) == []
    assert list(sandbox.records.iterdir()) == []


def test_what_the_program_started_keeps_the_hold_when_it_is_killed(sandbox: Sandbox, program: Program) -> None:
    """A training in the background reads the mounts file when its image has been pulled, maybe much later."""
    program.tell("taoprofiles.use('b').name")
    file = Path(program.environ()["LAUNCHER_MOUNTS"])
    child = program.tell("subprocess.Popen(['sleep', '60'], start_new_session=True).pid")
    kill(program.pid)
    program.process.wait(20)
    assert [holder[:2] for holder in holders(sandbox)] == [("notebook", "b")]
    assert file.exists()
    os.kill(child, signal.SIGKILL)
    until(lambda: holders(sandbox) == [], "the hold ends with the child")
    assert not file.exists()


def test_stop_says_that_an_unreachable_engine_keeps_the_hold(sandbox: Sandbox) -> None:
    program = Program(sandbox, DOCKER_HOST="tcp://127.0.0.1:1")
    program.tell("taoprofiles.use('b').name")
    (hold,) = sandbox.holds()
    assert "shut its kernel down" in sandbox.run("stop", hold["id"]).stderr
    program.end()
    assert "its process has ended, and the engine cannot be queried" in sandbox.run("stop", hold["id"]).stderr


def test_a_fork_that_ends_leaves_the_session_to_its_parent(sandbox: Sandbox, program: Program) -> None:
    program.tell("taoprofiles.use('b').name")
    ended = "(lambda pid: os.waitpid(pid, 0)[1] if pid else sys.exit(0))(os.fork())"
    assert program.tell(ended) == 0
    assert holders(sandbox) == [("notebook", "b", program.pid)]
    assert Path(program.environ()["LAUNCHER_MOUNTS"]).exists()


def test_a_fork_that_uses_another_profile_leaves_its_parent_alone(sandbox: Sandbox, program: Program) -> None:
    """The mapping file is its parent's, and so is the hold, although nothing that the parent started is at work."""
    program.tell("taoprofiles.use('a', shared=True).name")
    program.do(
        "pid = os.fork()",
        "if pid == 0:",
        "    try:",
        "        taoprofiles.use('b', shared=True)",
        "    except taoprofiles.HeldError:",
        "        os._exit(taoprofiles.use('b').name != 'b')",
        "    os._exit(9)",
    )
    assert program.tell("os.waitpid(pid, 0)[1]") == 0
    assert holders(sandbox) == [("notebook", "a", program.pid)]
    assert sandbox.mapping() == mapping_of(sandbox, "a")


def test_threads_that_begin_at_once_leave_one_session(sandbox: Sandbox, program: Program) -> None:
    begin = "[threading.Thread(target=taoprofiles.use, args=('ab'[one % 2],)) for one in range(6)]"
    program.tell(f"(lambda all: [one.start() for one in all] + [one.join() for one in all])({begin})")
    there = program.environ()
    assert holders(sandbox) == [("notebook", there["TAOPROF_PROFILE"], program.pid)]
    program.tell("[one.release() for one in taoprofiles.runs.session._sessions]")
    assert holders(sandbox) == []


def test_an_interrupt_while_the_end_is_recorded_leaves_no_hold(sandbox: Sandbox, program: Program) -> None:
    """Somebody else has the lock, or the engine is slow to answer, and a person loses patience."""
    program.tell("taoprofiles.use('a').name")
    program.do("def interrupted(*_):", "    raise KeyboardInterrupt")
    program.tell("setattr(taoprofiles.runs.session.Session, 'record_end', interrupted)")
    program.do("try:", "    taoprofiles.use('b')", "except KeyboardInterrupt:", "    pass")
    assert holders(sandbox) == [("notebook", "b", program.pid)]
    assert program.environ()["TAOPROF_PROFILE"] == "b"


def test_a_shared_use_whose_hold_cannot_be_written_changes_nothing(sandbox: Sandbox, program: Program) -> None:
    """Such as on a full disk: the file must not have been switched for nobody."""
    program.do("def full(*_, **__):", "    raise taoprofiles.TaoprofError('no space left on device')")
    program.tell(
        "__import__('taoprofiles.holds.records') and setattr(taoprofiles.holds.records.HoldRecords, 'create', full)"
    )
    before = program.environ()
    assert program.tell("taoprofiles.use('b', shared=True)")["message"] == "no space left on device"
    assert program.environ() == before
    assert sandbox.mapping() == mapping_of(sandbox, "a")


def test_shared_is_refused_by_holds_of_others_not_by_the_own(sandbox: Sandbox) -> None:
    first, second = Program(sandbox), Program(sandbox)
    assert first.tell("taoprofiles.use('b', shared=True).shared") is True
    assert sandbox.mapping() == mapping_of(sandbox, "b")
    before = second.environ()
    assert second.tell("taoprofiles.use('a', shared=True)")["error"] == "held"
    assert second.environ() == before
    assert first.tell("taoprofiles.use('a', shared=True).name") == "a", "our own hold is in nobody's way"
    assert sandbox.mapping() == mapping_of(sandbox, "a")
    assert holders(sandbox) == [("notebook", "a", first.pid)]
    child = first.tell("subprocess.Popen(['sleep', '60']).pid")
    assert first.tell("taoprofiles.use('b', shared=True)")["error"] == "held", "but what we started needs it"
    os.kill(child, signal.SIGKILL)
    for program in (first, second):
        program.end()
    assert holders(sandbox) == []


REFUSED = {
    "not-found": ("use('nosuch')",),
    "invalid-profile": ("use('gone')",),
    "no-command": ("run('a', ['/nosuch'])", "run('a', ['true', 'a\\0b'])", "run('a', ['true', '\\ud800'])"),
    "usage": (
        *("use(None)", "use(b'a')", "use(['a'])", "use('a', shared='yes')", "use('a', timeout=None)"),
        *("use('a', timeout=float('nan'))", "switch(3)", "run('a', [])", "run('a', None)", "run('a', [1])"),
        *("run('a', b'true')", "run('a', ['true'], gpus=1)", "run('a', ['true'], wait='1')"),
        *("run('a', ['true'], say=1)", "hold(reason=None).__enter__()", "hold(b'a', reason='x').__enter__()"),
    ),
}


def test_a_refusal_is_an_exception_and_changes_nothing(sandbox: Sandbox, program: Program) -> None:
    sandbox.profile("gone", 'layout = "custom"\n[[mounts]]\nsource = "/nowhere/at/all"\ndestination = "/d"\n')
    program.tell("taoprofiles.use('b').name")
    before = program.environ()
    for code, calls in REFUSED.items():
        for call in calls:
            assert program.tell(f"taoprofiles.{call}")["error"] == code, call
    assert program.environ() == before
    assert holders(sandbox) == [("notebook", "b", program.pid)]


def test_run_gives_the_status_of_the_command(sandbox: Sandbox, program: Program) -> None:
    """Also from a thread, which may not have signal handlers."""
    command = "taoprofiles.run('b', ['sh', '-c', 'test \"$SPECS_DIR\" = /specs/b && exit 7'])"
    program.do("results = []", f"thread = threading.Thread(target=lambda: results.append({command}))", "thread.start()")
    assert program.tell("thread.join() or results[0].status") == 7
    assert program.tell(f"{command}.status") == 7
    assert "SPECS_DIR" not in program.environ()
    assert holders(sandbox) == []


def test_hold_lasts_for_the_block(sandbox: Sandbox, program: Program) -> None:
    program.tell("globals().update(held=taoprofiles.hold('a', reason='copying'))")
    assert program.tell("held.__enter__().reason") == "copying"
    assert holders(sandbox) == [("manual", "a", program.pid)]
    assert sandbox.refused("b")[0]["reason"] == "copying"
    program.tell("held.__exit__(None, None, None)")
    assert holders(sandbox) == []
    assert program.tell("taoprofiles.hold('b', reason='x').__enter__()")["error"] == "usage"


def test_stop_leaves_the_kernel_alone(sandbox: Sandbox, program: Program) -> None:
    program.tell("taoprofiles.use('b').name")
    (hold,) = sandbox.json("status")["data"]["holds"]
    assert sandbox.run("stop", hold["id"]).returncode == 2
    child = program.tell("globals().update(child=subprocess.Popen(['sleep', '60'])) or child.pid")
    assert sandbox.run("stop", hold["id"]).returncode == 0
    assert program.tell("child.wait()") == -signal.SIGTERM, child
    assert holders(sandbox) == [("notebook", "b", program.pid)]


# Tasks of a notebook


class Notebook:
    """IPython in a program, with a fake engine on which its containers are."""

    def __init__(self, sandbox: Sandbox, engine: FakeEngine) -> None:
        self.sandbox, self.engine = sandbox, engine
        sandbox.environ |= engine.environ
        sandbox.context = Context(sandbox.environ)
        self.program = Program(sandbox)
        self.program.do(
            "import io, contextlib",
            "from IPython.core.interactiveshell import InteractiveShell",
            "shell = InteractiveShell.instance()",
            "def cell(text):",
            "    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):",
            "        result = shell.run_cell(text)",
            "    return result.success, out.getvalue()",
        )
        assert self.run("%load_ext taoprofiles\n%taoprof use b")[0]
        (self.hold,) = sandbox.holds()

    def run(self, text: str) -> tuple[bool, str]:
        success, output = self.program.tell(f"cell({text!r})")
        return success, output

    def begin(self, text: str) -> None:
        self.program.send(f"cell({text!r})")
        until((self.sandbox.root / "begun").exists, "the cell has begun")

    def start_container(self, number: int, command: str | None) -> str:
        env = [f"TAOPROF_RUN={self.hold['id']}"]
        container = self.engine.container(number, mounts_of(self.sandbox, "b"), env=env)
        self.engine.event("start", container)
        if command is not None:
            self.engine.event(f"exec_start: {command}", container, execID="aa")
        field, value = ("command", [*command.split()[:-1], "***"]) if command else ("container", container)
        record = self.sandbox.records / f"{self.hold['id']}.json"
        until(lambda: json.loads(record.read_text())[field] == value, "it is recorded", details=record.read_text)
        return container

    def end_container(self, container: str, status: int | None) -> None:
        if status is not None:
            self.engine.event("exec_die", container, execID="aa", exitCode=str(status))
        self.engine.event("die", container, exitCode="137")
        del self.engine.containers[container]


@pytest.fixture
def notebook(sandbox: Sandbox) -> Iterator[Notebook]:
    with FakeEngine(sandbox.folder) as engine:
        notebook = Notebook(sandbox, engine)
        yield notebook
        notebook.program.end()


WAIT = "import os, time\nopen('begun', 'w').close()\nwhile not os.path.exists('go'): time.sleep(0.05)"
TRAIN = "unet train -e /workspace/s.txt -r /workspace/results -k tlt_encode"


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        (TRAIN, 0, ""),
        (TRAIN, 3, f"task failed: '{TRAIN.replace('tlt_encode', '***')}' ended with exit status 3"),
        (TRAIN, 137, "ended with exit status 137 (container 100000)"),
        (TRAIN, None, "ended with an unknown exit status"),
        (None, None, "task failed: container 100000 ended before a task had started in it"),
    ],
)
def test_a_cell_fails_with_its_container(
    notebook: Notebook, command: str | None, status: int | None, message: str
) -> None:
    """The launcher reports success, and so would the cell: "Run All" would go on."""
    notebook.begin(WAIT)
    notebook.end_container(notebook.start_container(1, command), status)
    (notebook.sandbox.root / "go").touch()
    success, output = notebook.program.receive()
    assert success == (status == 0)
    assert message in output
    assert len(output.splitlines()) == (0 if success else 1), output
    assert notebook.run("None") == (True, ""), "it is reported once"


def test_a_cell_fails_with_a_launcher_that_starts_no_container(notebook: Notebook) -> None:
    launcher = write_program(notebook.sandbox.root / "bin/tao", "[ $3 = train ]")
    assert notebook.run(f"!false\n!{launcher} model unet train")[0]
    success, output = notebook.run(f"!{launcher} model unet evaluate")
    assert (success, "task failed: the launcher ended with exit status 1\n" in output) == (False, True), output
    for cell in ("None", f"lines = !{launcher} model unet evaluate", "!false"):
        assert notebook.run(cell)[0], "IPython itself ignores the exit status of other commands"


def test_a_task_that_ends_during_a_later_cell_is_reported_there(notebook: Notebook) -> None:
    notebook.begin(WAIT)
    container = notebook.start_container(1, TRAIN)
    (notebook.sandbox.root / "go").touch()
    assert notebook.program.receive()[0] is True
    notebook.end_container(container, 3)
    success, output = notebook.run("None")
    assert (success, "ended with exit status 3 (container 100000)" in output) == (True, True), output


def test_a_notebooks_training_is_in_the_history_and_keeps_its_results_folder(notebook: Notebook) -> None:
    sandbox, results = notebook.sandbox, notebook.sandbox.root / "b/results"
    words = ("--", "true", "unet", "train", "-r", "/workspace/results")
    container = notebook.start_container(1, TRAIN)
    refused = sandbox.run("run", "b", *words)
    assert (refused.returncode, notebook.hold["id"] in refused.stderr) == (5, True)
    (running,) = sandbox.json("history", str(results))["data"]["runs"]
    assert (running["kind"], running["container"], running["ended"]) == ("notebook", container, None)
    notebook.end_container(container, 3)
    until(lambda: not any(hold["results"] for hold in sandbox.holds()), "its end is recorded")
    sandbox.run("run", "b", *words, check=True)
    run, task = sandbox.json("history", str(results))["data"]["runs"]
    assert (run["kind"], task["kind"], task["status"], task["container"]) == ("run", "notebook", 3, container)
    assert task["command"][:2] == ["unet", "train"]
    assert "tlt_encode" not in (sandbox.state / "runs.jsonl").read_text()
    notebook.program.end()
    assert len(sandbox.json("history", str(results))["data"]["runs"]) == 2


STARTS = {
    "shell escape": "!echo x; FOO=1 tao model {task} train \\\n -r $RESULTS_DIR -k key",
    "captured": "lines = !nohup tao model unet train -r $RESULTS_DIR > log",
    "bash cell": "%%bash\nset -e\ncd / && tao model unet train -r ${RESULTS_DIR}/deeper",
    "os.system": "if os.system('tao model unet train -r $RESULTS_DIR'): raise ValueError",
    "subprocess": "import subprocess as s\ns.check_call('tao model unet train -r /workspace/results'.split())",
    "subprocess with a shell": "print(os.popen('cd /; tao model unet train -r /workspace/results').read())",
    "spec file": "!tao model dino train -e /workspace/spec.yaml",
    "local variable": "def f():\n    folder = '/workspace/results'\n    !tao model unet train -r {folder}\nf()",
}


def test_a_notebooks_training_is_refused_like_a_run(notebook: Notebook) -> None:
    """Before its launcher starts: afterwards there is only its container to stop."""
    sandbox, results = notebook.sandbox, notebook.sandbox.root / "b/results"
    started = sandbox.root / "started"
    (sandbox.root / "b/spec.yaml").write_text("results_dir: /workspace/results/deeper\n")
    sandbox.tao.write_text(f"#!/bin/sh\ntouch {started}\n")
    notebook.run("import os\ntask = 'unet'\nos.environ['RESULTS_DIR'] = '/workspace/results'")
    words = ("train", "-r", "/workspace/results")
    run = sandbox.start(sandbox.taoprof, "run", "b", "--", "sh", "-c", "sleep 1000", *words)
    until(lambda: any(hold["results"] for hold in sandbox.holds()), "the run has begun")
    for start, cell in STARTS.items():
        success, output = notebook.run(cell)
        assert (success, started.exists()) == (False, False), (start, output)
        assert f"cannot start 'b': another training is writing to '{results}" in output
        assert "Traceback" not in output
    others = "!tao list; echo tao model unet train -r /workspace/results; tao model unet train -r /workspace/other"
    assert notebook.run(others)[0]
    assert started.exists()
    assert notebook.run("%taoprof use b --force")[0]
    for start, cell in STARTS.items():
        started.unlink()
        assert notebook.run(cell)[0], start
        assert started.exists(), start
    assert notebook.run("%unload_ext taoprofiles")[0]
    assert notebook.run("!true")[0]
    assert notebook.run(STARTS["os.system"])[0]
    kill(run.pid)


@pytest.mark.parametrize("start", ["shell escape", "subprocess"])
def test_a_training_that_has_no_container_yet_has_its_results_folder(notebook: Notebook, start: str) -> None:
    """Pulling the image takes minutes. Of two notebooks that start at once, one is refused."""
    sandbox = notebook.sandbox
    sandbox.tao.write_text("#!/bin/sh\ntouch begun\nwhile [ ! -e go ]; do sleep 0.05; done\n")
    notebook.run("import os\ntask = 'unet'\nos.environ['RESULTS_DIR'] = '/workspace/results'")
    notebook.begin(STARTS[start])
    words = ("run", "b", "--", "true", "unet", "train", "-r", "/workspace/results")
    refused = sandbox.run(*words)
    assert (refused.returncode, notebook.hold["id"] in refused.stderr) == (5, True)
    (sandbox.root / "go").touch()
    assert notebook.program.receive()[0]
    sandbox.run(*words, check=True)


def test_a_failed_look_at_the_processes_frees_no_results_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """While no more files can be opened, a training may be about to start its container; the cell does not fail."""
    session = Session.__new__(Session)
    session._starting = ["/results"]

    def fail() -> bool:
        raise TaoprofError("cannot list '/proc': too many open files")

    monkeypatch.setattr(session, "has_work", fail)
    session.forget_unstarted()
    assert session._starting == ["/results"]
