"""run, shell, logs, wait, stop, hold, release."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from taoprofiles.cli import prompts
from taoprofiles.cli.output import STDERR, Declined, Result, exit_status, print_progress, print_raw
from taoprofiles.errors import UsageError
from taoprofiles.holds import manage
from taoprofiles.holds.hold import AGENT, QUEUED, format_age
from taoprofiles.holds.queue import leave_queue
from taoprofiles.storage.paths import Context

if TYPE_CHECKING:
    from taoprofiles.runs.run import Run
    from taoprofiles.runs.start import RunOptions

LONG_AGO = 3600
"""Seconds after which 'stop' asks."""


def run_command(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.runs import session
    from taoprofiles.runs.start import RunOptions, prepare_when_free
    from taoprofiles.system.gpus import parse_gpus

    if not args.command:
        raise UsageError("no command to run", hint=f"taoprof run {args.name} -- COMMAND")
    if args.gpus is not None:
        parse_gpus(args.gpus)
    options = RunOptions(
        mkdir=args.mkdir,
        check=not args.force,
        allow_overlap=args.force,
        shared=args.shared,
        gpus=args.gpus,
        notify=args.notify,
        image=args.image,
        on=args.on,
        detach=args.detach,
        terminal=sys.stdin.isatty() and sys.stdout.isatty() and not args.json and not args.detach,
    )

    if session.is_kernel_command(args.command, options) and not (args.json or args.detach):
        session.start_kernel(context, args.name, args.command, options)

    if args.detach and args.on is None:  # a job of a cluster goes on by itself
        return _detach(context, args, options)
    run = prepare_when_free(context, args.name, args.command, options, wait=args.wait, say=print_progress)
    if args.on is not None:
        return _submit(run)
    return _execute(run, args.command, as_json=args.json, fields=("container", "image", "gpus", "differences"))


def _execute(run: Run, command: list[str], *, as_json: bool, fields: tuple[str, ...] = ()) -> Result:
    """Start a prepared run and wait for its end; the result has ``fields`` of its hold."""
    # With --json only the envelope goes to stdout, so the command's output goes to stderr.
    status = run.finish(run.start(command, say=print_progress, stdout=STDERR if as_json else None))
    data = {"id": run.hold.id, "name": run.hold.profile, "status": status}
    return Result({**data, **{field: getattr(run.hold, field) for field in fields}}, status=status)


def _detach(context: Context, args: argparse.Namespace, options: RunOptions) -> Result:
    """Start a run in the background, or let it wait there; the result is its id."""
    from taoprofiles.runs.start import prepare, start_detached, start_queued
    from taoprofiles.system import systemd

    if args.wait is None:
        run = prepare(context, args.name, args.command, options=options)
        messages, run.notes = run.notes, []
        detached = start_detached(run, args.command, say=print_progress)
    else:
        detached = start_queued(context, args.name, args.command, options, seconds=args.wait, say=print_progress)
        messages = [detached.waiting] if detached.waiting else []
    if systemd.is_booted() and detached.unit is None and not systemd.lingers(context.uid):
        messages.append("systemd may end the run when you log out; to prevent that: loginctl enable-linger")
    data = {
        "id": detached.id,
        "name": args.name,
        "gpus": detached.gpus,
        "unit": detached.unit,
        "queued": bool(detached.waiting),
    }
    return Result(data, [detached.id], messages=messages)


def _submit(run: Run) -> Result:
    """Submit a prepared run to its cluster; the result is its id."""
    from taoprofiles.runs import jobs

    jobs.submit(run)
    hold = run.hold
    job = f"job {hold.job}" if hold.job else "job, whose id is not known yet"
    messages = [*run.notes, f"submitted: {hold.cluster} {job}. To follow it: taoprof logs -f {hold.id}"]
    data = {"id": hold.id, "name": hold.profile, "cluster": hold.cluster, "job": hold.job, "image": hold.image}
    return Result(data, [hold.id], messages=messages)


def logs_command(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.runs import lookup

    if args.follow and args.json:
        raise UsageError("-f cannot be combined with --json")
    run = lookup.find_run(context, args.run)
    reader = lookup.open_log(context, run)
    text = lookup.last_lines(reader, args.lines, to_end=not args.follow)
    if args.json:
        lines = text.decode("utf-8", "replace").splitlines()
        return Result({"id": run.id, "name": run.profile, "lines": lines})
    print_raw(text)
    if run.cluster is not None and not text and lookup.ended_run(context, run) is None:
        print_progress(f"run {run.id} has printed nothing yet: {run.state or run.phase}")
    if args.follow:
        for more in lookup.follow_log(context, run, reader):
            print_raw(more)
    return Result({})


def wait_command(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.runs import lookup

    end = time.monotonic() + args.timeout
    runs = [lookup.find_run(context, word) for word in args.run]
    ended = [lookup.wait_for_end(context, run, end=end) for run in runs]
    status = next((status for run in ended if (status := 1 if run.status is None else run.status)), 0)
    data = [{"id": run.id, "name": run.profile, "status": run.status} for run in ended]
    return Result({"runs": data}, [f"{run.id}: {exit_status(run)}" for run in ended], status=status)


def shell_command(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.runs.run import PROFILE_VARIABLE
    from taoprofiles.runs.start import RunOptions, prepare

    kernel = f"taoprof kernel install {args.name}"
    prompts.refuse_in_cell("a shell", f"'taoprof shell {args.name}' in a terminal; for the notebook: {kernel}")
    inside = context.environ.get(PROFILE_VARIABLE)
    if inside:
        raise UsageError(f"this shell already has profile '{inside}'", hint="'exit' leaves it")
    shell = context.environ.get("SHELL") or "/bin/sh"
    options = RunOptions(mkdir=args.mkdir, check=not args.force)
    run = prepare(context, args.name, [shell], doing="shell", options=options)
    command = run.shell_command(shell)
    if not args.json:
        print_progress(f"shell with profile '{args.name}' (hold {run.hold.id}); 'exit' leaves it")
    return _execute(run, command, as_json=args.json)


def stop_command(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.runs.lookup import find_run, find_stoppable, stop

    if leave_queue(context, args.id):
        return Result({"id": args.id, "container": None}, [f"{args.id}: left the queue"])
    active = manage.active_holds(context)
    hold = find_stoppable(context, active, args.id)
    if hold.phase == QUEUED and leave_queue(context, hold.id):  # of which only the beginning of its id was given
        return Result({"id": hold.id, "container": None}, [f"{hold.id}: left the queue"])
    own = [other.id for other in active.holds if other.user == context.user and other.kind not in ("manual", AGENT)]
    is_last = own[-1:] == [hold.id] and time.time() - hold.since < LONG_AGO
    is_last = is_last and (hold.kind != "run" or find_run(context, "-").id == hold.id)  # which may have ended
    if not is_last and not args.yes and prompts.can_ask():
        print_progress(f"{hold.line()}, profile '{hold.profile}'")
        what, age = "is not what you started last", time.time() - hold.since
        if age >= LONG_AGO:
            what = f"started {format_age(age)} ago"
        if not prompts.confirm(f"This {what}. Stop it?"):
            raise Declined("not stopped")
    hold, action = stop(context, hold.id)
    return Result({"id": hold.id, "container": hold.container}, [f"{hold.kind} {hold.id}: {action}"])


def hold_command(context: Context, args: argparse.Namespace) -> Result:
    if args.seconds is not None and args.pid is not None:
        raise UsageError("--for cannot be combined with --pid")
    hold = manage.hold(context, args.name, reason=args.reason, seconds=args.seconds, pid=args.pid)
    if args.seconds is not None:
        end = f"for {format_age(args.seconds)}"
    else:
        end = f"while process {hold.pid} lives" if hold.pid else f"until 'taoprof release {hold.id}'"
    target = f"'{hold.profile}'" if hold.profile else "the mapping file"
    return Result(hold.as_dict(), [f"{target} held {end} (hold {hold.id})"])


def release_command(context: Context, args: argparse.Namespace) -> Result:
    prompts.confirm_release(manage.mark_released(manage.active_holds(context), args.id), yes=args.yes)
    hold = manage.release(context, args.id)
    is_over = hold.kind == "manual" or (hold.ended is not None and hold.cluster is None)
    running = "" if is_over else "; its work is still running, without protection"
    return Result({"id": args.id, "kind": hold.kind}, [f"hold {args.id} released{running}"])
