"""``python -m taoprofiles.runs.sender ID FD``: send the notification of a run that has ended, and run its ``on_end``.

A process of its own, started by the process that records the end: the run's own, the guard, or another command. None of
them has to wait for it. It has the lock on the notification's file, and notes there what is done, so that another
sender can continue if it is killed. A target is noted after its message was sent, so a sender that is killed in between
causes a second message. The hook is noted before it runs, so it runs at most once.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, NamedTuple

from taoprofiles.errors import TaoprofError
from taoprofiles.holds.hold import Hold, format_age
from taoprofiles.holds.records import HoldRecords, Notification, Notifications
from taoprofiles.masking import MASK, MIN_SECRET_LENGTH, mask_target, mask_text, printable
from taoprofiles.runs.notify import (
    DESKTOP,
    SEND_TIMEOUT,
    TIME_LIMIT,
    get_outcome,
    new_apprise,
    notify_desktop,
    run_hook,
)
from taoprofiles.runs.progress import read_last
from taoprofiles.storage.files import add_message
from taoprofiles.storage.locks import Lock
from taoprofiles.storage.paths import Context
from taoprofiles.system.systemd import SCOPE_TIMEOUT, Manager

ATTEMPTS = 3
"""Senders that may be killed before nothing more is sent."""

_METRICS = 6


class Message(NamedTuple):
    """What is sent; ``kind`` is one of Apprise's types."""

    title: str
    body: str
    kind: str


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
    try:
        if target == DESKTOP:
            return notify_desktop(context.environ, message.title, message.body)
        return _send_by_apprise(target, message)
    except Exception as error:  # noqa: BLE001 - of a plugin: the run and the other targets must not suffer
        return _without_secrets(f"{type(error).__name__}: {error}", target)


def _send_by_apprise(target: str, message: Message) -> str:
    import apprise

    client, warnings = new_apprise(), []

    def keep(entry: Any, _: object) -> None:
        warnings.append(" ".join(entry.message.split())[:200])

    if not client.add(target):
        return "not a URL that Apprise understands"
    done = client.notify(
        title=message.title,
        body=message.body,
        notify_type=apprise.NotifyType(message.kind),
        body_format=apprise.NotifyFormat.TEXT,
        log_callback=keep,
        log_level=logging.WARNING,
    )
    return "" if done else _without_secrets("; ".join(warnings[:3]) or "the service refused it", target)


def _without_secrets(text: str, target: str) -> str:
    """Return a text with every part of the target's URL masked."""
    from urllib.parse import unquote

    parts = {part for form in (target, unquote(target)) for part in re.split(r"[/:@?&=,#]+", form)[1:]}
    for part in sorted((part for part in parts if len(part) >= MIN_SECRET_LENGTH), key=len, reverse=True):
        text = text.replace(part, MASK)
    return mask_text(text)


def compose(context: Context, run: Hold) -> Message:
    """Return the message about a run that has ended."""
    outcome = get_outcome(run)
    text = {"succeeded": "finished", "failed": f"failed (exit status {run.status})"}.get(
        outcome, "ended, exit status unknown"
    )
    lines = [f"run {run.id} {text} after {format_age((run.ended or run.since) - run.since, exact=True)}"]
    progress = read_last(run, HoldRecords(context).all({}))
    if progress is not None:
        epochs = f"epoch {progress.epoch}" if progress.epoch is not None else ""
        epochs += f"/{progress.epochs}" if epochs and progress.epochs is not None else ""
        metrics = [f"{metric.name} {metric.values[-1]:.4g}" for metric in progress.metrics[-_METRICS:]]
        lines += [", ".join(filter(None, [epochs, *metrics]))] if epochs or metrics else []
        lines += [progress.message] if progress.message else []
    lines += [f"results: {run.host}:{folder}" for folder in run.results]
    if not run.results:
        lines.append(f"on {run.host}")
    kind = {"succeeded": "success", "failed": "failure"}.get(outcome, "warning")
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
