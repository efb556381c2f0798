"""Notifications at the end of a run, and a profile's hooks: ``python -m taoprofiles.runs.notify ID FD`` sends and runs.

This sender is a process of its own, started by the process that records the end: the run's own, the guard, or another
command. None of them has to wait for it. It has the lock on the notification's file, and notes there what is done, so
that another sender can continue if it is killed. A target is noted after its message was sent, so a sender that is
killed in between causes a second message. The hook is noted before it runs, so it runs at most once.
"""

from __future__ import annotations

import html
import importlib.util
import logging
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.errors import TaoprofError, UsageError
from taoprofiles.holds.hold import Hold, format_age
from taoprofiles.holds.records import HoldRecords, Notification, Notifications
from taoprofiles.masking import MASK, MIN_SECRET_LENGTH, mask_target, mask_text, printable
from taoprofiles.runs.progress import read_last
from taoprofiles.storage.files import add_message
from taoprofiles.storage.locks import Lock
from taoprofiles.storage.paths import Context
from taoprofiles.system.commands import exit_on_signals, run_bounded
from taoprofiles.system.systemd import SCOPE_TIMEOUT, Manager

if TYPE_CHECKING:
    from taoprofiles.profiles.rendering import Renderer


DESKTOP, NONE = "desktop", "none"
"""The targets that are no URLs: the user's desktop, and nobody."""

DESKTOP_TIMEOUT = 10.0
"""Seconds that the desktop gets to accept a notification."""

HOOK_TIMEOUT = 300.0
"""Seconds after which a hook is killed, with what it has started."""

SEND_TIMEOUT = 30.0
"""Seconds that all targets of a notification have together."""

TIME_LIMIT = SEND_TIMEOUT + HOOK_TIMEOUT + 30
"""Seconds after which the process that does all this is ended, wherever it hangs."""

ATTEMPTS = 3
"""Senders that may be killed before nothing more is sent."""


class Message(NamedTuple):
    """What is sent; ``kind`` is one of Apprise's types."""

    title: str
    body: str
    kind: str


# The desktop


_BUS_NAME = "org.freedesktop.Notifications"
_NO_SERVER = ("ServiceUnknown", "was not provided by any", "not activatable", "Could not activate remote peer")
"""Parts of the errors that mean that no notification server is on the bus: the D-Bus error name, and the texts of
dbus-daemon, dbus-broker and sd-bus."""


def session_bus(environ: Mapping[str, str]) -> str:
    """Return the address of the user's session bus, "" if there is none.

    It is the one of systemd's user manager where the environment names none, as in an ssh session or after su.
    """
    if environ.get("DBUS_SESSION_BUS_ADDRESS"):
        return environ["DBUS_SESSION_BUS_ADDRESS"]
    path = os.path.join(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}", "bus")
    return f"unix:path={path}" if os.path.exists(path) else ""


def notify_desktop(environ: Mapping[str, str], title: str, body: str) -> str:
    """Show a notification; return why that failed, "" if it did not or there is no desktop session to show it in."""
    address = session_bus(environ)
    if not address:
        return ""
    environ = {**environ, "DBUS_SESSION_BUS_ADDRESS": address}
    body = html.escape(body, quote=False)  # it may have markup
    if shutil.which("busctl", path=environ.get("PATH")):
        call = (_BUS_NAME, f"/{_BUS_NAME.replace('.', '/')}", _BUS_NAME, "Notify", "susssasa{sv}i")
        words = ["busctl", "--user", "--", "call", *call, "taoprofiles", "0", "", title, body, "0", "0", "-1"]
    elif shutil.which("notify-send", path=environ.get("PATH")):
        words = ["notify-send", "--app-name=taoprofiles", "--", title, body.replace("\\", "\\\\")]
    else:
        return "neither busctl nor notify-send is installed"
    done = run_bounded(words, environ, DESKTOP_TIMEOUT)
    if done.status == 0 or any(text in done.err for text in _NO_SERVER):
        return ""
    return done.problem or (done.err.strip().splitlines() or [f"exit status {done.status}"])[-1]


# The targets of a run


_MISSING = "the extra 'notify' of taoprofiles is not installed"
_INSTALL = "pip install 'taoprofiles[notify]'; with pipx: pipx inject taoprofiles apprise"


def choose_targets(
    renderer: Renderer, requested: Sequence[str] | None, environ: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Return the targets of a run's notification, and warnings: ``requested``, or if that is None, the profile's.

    Raises UsageError for a requested target that cannot be used; those of the profile are left out with a warning.
    """
    targets, problems = renderer.targets(requested)
    if requested is not None and NONE in targets and len(targets) > 1:
        raise UsageError("--notify none cannot be combined with another --notify")
    if targets == [NONE]:
        return [], problems
    checked = {target: _find_problem(target) for target in targets}
    known = [target for target, problem in checked.items() if not problem]
    problems += [f"{mask_target(target)}: {problem}" for target, problem in checked.items() if problem]
    if requested is not None and problems:
        hint = _INSTALL if _MISSING in problems[0] else "'desktop', or a URL of Apprise such as mailto://… or ntfy://…"
        raise UsageError(f"--notify {problems[0]}", hint=hint)
    warnings = [f"no notification is sent to {problem}" for problem in problems]
    if any(_MISSING in problem for problem in problems):
        warnings[-1] += f" ({_INSTALL})"
    if requested is not None and DESKTOP in known and not session_bus(environ):
        warnings.append("there is no desktop session here now; a notification is shown if there is one at the end")
    return known, warnings


def _find_problem(target: str) -> str:
    """Return why a target cannot be used, "" if it can."""
    if target == DESKTOP:
        return ""
    if "://" not in target:
        return "neither 'desktop' nor a URL"
    if importlib.util.find_spec("apprise") is None:
        return _MISSING
    return "" if new_apprise().add(target) else "not a URL that Apprise understands"


def new_apprise() -> Any:
    """Return an Apprise object: it writes no files, and logs nothing by itself."""
    import logging

    import apprise

    logging.getLogger("apprise").propagate = False
    logging.getLogger("apprise").addHandler(logging.NullHandler())
    asset = apprise.AppriseAsset(app_id="taoprofiles", app_desc="taoprofiles", storage_mode="memory", async_mode=False)
    return apprise.Apprise(asset=asset)


# Hooks


_HOOK_SHELL = """\
exec 3<&0 </dev/null
{ read -r _ || kill -KILL 0; } <&3 3<&- >/dev/null 2>&1 &
exec 3<&- /bin/sh -c "$1"
"""
"""Runs a hook, and kills its process group if the socket that is the standard input is closed before a line has come:
then the process that waits for the hook was killed, and nobody else would end a hook that hangs."""


def get_outcome(run: Hold) -> str:
    """Return how a run has ended, in one word."""
    return "unknown" if run.status is None else "failed" if run.status else "succeeded"


def run_hook(key: str, command: str, run: Hold, environ: Mapping[str, str]) -> str:
    """Run a hook for at most HOOK_TIMEOUT seconds; return what went wrong, "" if nothing did.

    ``key`` is "on_start" or "on_end". The variables that describe the run are in docs/reference/files.md.
    """
    facts = {"TAOPROF_RUN_ID": run.id, "TAOPROF_NAME": run.profile or "", "TAOPROF_RESULTS": ":".join(run.results)}
    if run.ended is not None:
        facts["TAOPROF_OUTCOME"] = get_outcome(run)
        facts["TAOPROF_STATUS"] = "" if run.status is None else str(run.status)
        facts["TAOPROF_DURATION"] = str(max(0, round(run.ended - run.since)))
    ours, theirs = socket.socketpair()
    with ours, theirs, exit_on_signals():  # a hook of a session of its own would outlive this process
        words = ["/bin/sh", "-c", _HOOK_SHELL, "/bin/sh", command]
        done = run_bounded(words, {**environ, **facts}, HOOK_TIMEOUT, stdin=theirs.fileno())
        ours.send(b"\n")
    if not done.problem and done.status == 0:
        return ""
    last = (done.err.strip().splitlines() or [""])[-1][:200]
    return f"{key}: {done.problem or f'exit status {done.status}'}" + (f" ({mask_text(last)})" if last else "")


# The sender


_MAX_METRICS = 6
"""How many metrics a message has, the last ones that the task has reported."""


def main(argv: Sequence[str] | None = None) -> int:
    """Send one notification; the arguments are the run's id, the descriptor with the lock, and ``--attended``."""
    run_id, fd, *flags = sys.argv[1:] if argv is None else argv
    signal.alarm(int(TIME_LIMIT))
    context = Context()
    notification = Notifications(context).read(run_id, int(fd))
    if notification is None:
        return 0
    is_attended = "--attended" in flags
    if not is_attended:
        with suppress(TaoprofError):  # or systemd would end it with the guard, in whose unit it was started
            description = f"taoprof: the end of run {run_id}"
            Manager(context.environ, SCOPE_TIMEOUT).enter_scope(f"taoprof-end-{run_id}.scope", description)
    ended = HoldRecords(context).ended_runs(run_id)
    run = notification.run or next((run for run in ended if run.id == run_id), None)
    problems = ["it has no record of its end"] if run is None else _deliver(context, notification, run)
    if problems:
        _report(context, [f"warning: run {run_id}: {problem}" for problem in problems], attended=is_attended)
    Notifications(context).delete(run_id)
    return 0


def _deliver(context: Context, notification: Notification, run: Hold) -> list[str]:
    """Send to the targets that are left and run the hook, unless an earlier sender did; return what went wrong."""
    if notification.notes.count("attempt") >= ATTEMPTS:
        return [f"its notification was given up: {ATTEMPTS} processes that sent it were killed"]
    Notifications(context).note(run.id, "attempt")
    done = {int(text.split()[1]) for text in notification.notes if text.startswith(("sent ", "failed "))}
    left = {number: target for number, target in enumerate(notification.targets) if number not in done}
    problems = _send_all(context, run, left) if left else []
    if notification.on_end and "on_end" not in notification.notes:
        Notifications(context).note(run.id, "on_end")
        with suppress(OSError):  # it was deleted
            os.chdir(run.folder)
        problem = run_hook("on_end", notification.on_end, run, context.environ)
        problems += [problem] if problem else []
    return problems


def _send_all(context: Context, run: Hold, targets: dict[int, str]) -> list[str]:
    """Send to all targets at the same time; return what went wrong."""
    message = compose(context, run)

    def send(number: int) -> str:
        problem = _send(context, targets[number], message)
        Notifications(context).note(run.id, f"failed {number}" if problem else f"sent {number}")
        return problem

    pool = ThreadPoolExecutor(len(targets))  # without "with", which would wait for a target that hangs
    sendings = {pool.submit(send, number): target for number, target in targets.items()}
    wait(sendings, SEND_TIMEOUT)
    problems = [
        (target, sending.result() if sending.done() else f"not sent within {SEND_TIMEOUT:g} s")
        for sending, target in sendings.items()
    ]
    return [f"the notification by {mask_target(target)} failed: {problem}" for target, problem in problems if problem]


def _send(context: Context, target: str, message: Message) -> str:
    """Send to one target; return what went wrong, without any part of the target that may be secret."""
    warnings: list[str] = []
    try:
        if target == DESKTOP:
            return notify_desktop(context.environ, message.title, message.body)
        import apprise

        client = new_apprise()
        if not client.add(target):
            return "not a URL that Apprise understands"
        done = client.notify(
            title=message.title,
            body=message.body,
            notify_type=apprise.NotifyType(message.kind),
            body_format=apprise.NotifyFormat.TEXT,
            log_callback=lambda entry, _: warnings.append(" ".join(entry.message.split())[:200]),
            log_level=logging.WARNING,
        )
        return "" if done else _without_secrets("; ".join(warnings[:3]) or "the service refused it", target)
    except Exception as error:  # noqa: BLE001 - of a plugin: the run and the other targets must not suffer
        return _without_secrets(f"{type(error).__name__}: {error}", target)


def _without_secrets(text: str, target: str) -> str:
    """Return a text with every part of the target's URL masked."""
    from urllib.parse import unquote

    parts = {part for form in (target, unquote(target)) for part in re.split(r"[/:@?&=,#]+", form)[1:]}
    for part in sorted((part for part in parts if len(part) >= MIN_SECRET_LENGTH), key=len, reverse=True):
        text = text.replace(part, MASK)
    return mask_text(text)


def compose(context: Context, run: Hold) -> Message:
    """Return the message about a run that has ended."""
    text, kind = {
        "succeeded": ("finished", "success"),
        "failed": (f"failed (exit status {run.status})", "failure"),
        "unknown": ("ended, exit status unknown", "warning"),
    }[get_outcome(run)]
    lines = [f"run {run.id} {text} after {format_age((run.ended or run.since) - run.since, exact=True)}"]
    progress = read_last(run, HoldRecords(context).all({}))
    if progress is not None:
        epochs = f"epoch {progress.epoch}" if progress.epoch is not None else ""
        epochs += f"/{progress.epochs}" if epochs and progress.epochs is not None else ""
        metrics = [f"{metric.name} {metric.values[-1]:.4g}" for metric in progress.metrics[-_MAX_METRICS:]]
        lines += [", ".join(filter(None, [epochs, *metrics]))] if epochs or metrics else []
        lines += [progress.message] if progress.message else []
    lines += [f"results: {run.host}:{folder}" for folder in run.results] or [f"on {run.host}"]
    return Message(f"{run.profile or run.id} {text}", "\n".join(map(printable, lines)), kind)


def _report(context: Context, lines: list[str], *, attended: bool) -> None:
    """Show what went wrong: now, or with the user's next command."""
    if not attended:
        with suppress(TaoprofError), Lock(context.lock):
            for line in lines:
                add_message(context, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}")
            return
    with suppress(OSError, AttributeError):
        for line in lines:
            sys.stderr.write(f"taoprof: {printable(line)}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    status = 1
    try:
        status = main()
    finally:
        os._exit(status)  # a thread may hang in a target
