"""run, shell, holds, hold, release, stop, why."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from taoprofiles.cli.arguments import add_no_check, add_path, add_profile, add_timeout, add_wait, seconds
from taoprofiles.cli.formatting import exit_status, hold_table, when
from taoprofiles.cli.output import note, table
from taoprofiles.cli.result import Result
from taoprofiles.errors import UsageError
from taoprofiles.holds import manage
from taoprofiles.holds.hold import format_age
from taoprofiles.holds.waiting import wait_until_free
from taoprofiles.launcher.argv import parse_launcher_argv
from taoprofiles.runs import log, resources, stop
from taoprofiles.runs import run as runs
from taoprofiles.runs import shell as shells

if TYPE_CHECKING:
    import argparse

    from taoprofiles.holds.hold import Hold
    from taoprofiles.runs.run import Run, RunOptions
    from taoprofiles.storage.paths import Context

STDERR = 2


def run_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    parser.add_argument("--mkdir", action="store_true", help="make the source folders that are missing")
    parser.add_argument(
        "--gpus",
        metavar="WHICH",
        help="all, a number of free ones, a list: 0,1 (one alone: 1,), or none (with --image)",
    )
    parser.add_argument("--image", help="without the launcher: docker run with this image")
    parser.add_argument("--shared", action="store_true", help="switch the shared mapping file and hold it meanwhile")
    parser.add_argument("--allow-overlap", action="store_true", help="although another run writes the same results")
    add_no_check(parser)
    add_wait(parser)
    add_timeout(parser)


def run_verb(context: Context, args: argparse.Namespace) -> Result:
    if not args.command:
        raise UsageError("nothing to run", hint=f"'taoprof run {args.name} -- tao model …'")
    wish = runs.RunOptions(
        mkdir=args.mkdir,
        check=args.check,
        allow_overlap=args.allow_overlap,
        shared=args.shared,
        gpus=args.gpus,
        image=args.image,
        terminal=sys.stdin.isatty() and sys.stdout.isatty() and not args.json,
    )
    if args.gpus is not None:
        resources.parse_gpus(args.gpus)
    run = _prepared(context, args, wish)
    status = _carried_out(run, args.command, as_json=args.json)
    hold = run.hold
    data = {
        "id": hold.id,
        "name": args.name,
        "status": status,
        "container": hold.container,
        "image": hold.image,
        "gpus": hold.gpus,
        "differences": hold.differences,
    }
    return Result(data, status=status)


def _prepared(context: Context, args: argparse.Namespace, wish: RunOptions) -> Run:
    def attempt() -> Run:
        return runs.prepare(context, args.name, args.command, wish=wish, timeout=args.timeout)

    if args.wait is None:
        return attempt()
    return wait_until_free(context, "run", attempt, seconds=args.wait, say=_say)


def _carried_out(run: Run, command: list[str], *, as_json: bool) -> int:
    try:
        # The answer for programs is ours alone: what the command prints then goes beside it.
        status = run.start(command, say=_say, stdout=STDERR if as_json else None)
    except runs.CommandError:
        run.give_up()
        raise
    return run.finish(status, is_launcher=parse_launcher_argv(command) is not None)


def shell_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    parser.add_argument("--mkdir", action="store_true", help="make the source folders that are missing")
    add_no_check(parser)
    add_timeout(parser)


def shell_verb(context: Context, args: argparse.Namespace) -> Result:
    inside = context.environ.get(runs.PROFILE_VARIABLE)
    if inside:
        raise UsageError(f"this shell is one of profile '{inside}' already", hint="'exit' leaves it")
    shell = context.environ.get("SHELL") or "/bin/sh"
    run = runs.prepare(
        context,
        args.name,
        [shell],
        kind="shell",
        wish=runs.RunOptions(mkdir=args.mkdir, check=args.check),
        timeout=args.timeout,
    )
    command = shells.shell_command(context, run, shell, args.name)
    if not args.json:
        note(f"taoprof: a shell with profile '{args.name}' (hold {run.hold.id}); 'exit' leaves it")
    status = _carried_out(run, command, as_json=args.json)
    return Result({"id": run.hold.id, "name": args.name, "status": status}, status=status)


def holds_verb(context: Context, args: argparse.Namespace) -> Result:
    stock = manage.active_holds(context)
    return Result(
        {"holds": [hold.as_dict() for hold in stock.holds], "unseen": stock.unseen},
        hold_table(stock.holds) or ["nothing is held"],
        messages=[f"warning: {text}" for text in stock.unseen],
    )


def hold_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser, optional=True, help="the active profile; default: whatever the mapping file holds")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="what others are told")
    end = parser.add_mutually_exclusive_group()
    end.add_argument("--for", dest="seconds", type=seconds, metavar="TIME", help="how long: 90, 30m, 8h, 2d")
    end.add_argument("--pid", type=int, metavar="PID", help="as long as that process lives")
    add_timeout(parser)


def hold_verb(context: Context, args: argparse.Namespace) -> Result:
    made = manage.hold(context, args.name, reason=args.reason, seconds=args.seconds, pid=args.pid, timeout=args.timeout)
    end = f"for {format_age(args.seconds)}" if args.seconds is not None else f"while process {made.pid} lives"
    until = end if args.seconds is not None or made.pid else f"until 'taoprof release {made.id}'"
    what = f"'{made.profile}'" if made.profile else "the mapping file"
    return Result(made.as_dict(), [f"{what} held {until} (hold {made.id})"])


def release_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the hold, as holds shows it")
    parser.add_argument("--yes", action="store_true", help="do not ask, although its work goes on")
    add_timeout(parser)


def release_verb(context: Context, args: argparse.Namespace) -> Result:
    found = manage.active_holds(context).find(args.id)
    if found is not None:
        confirm_release(found, yes=args.yes)
    hold = manage.release(context, args.id, timeout=args.timeout)
    goes_on = "" if hold.kind == "manual" else "; its work goes on, without anyone minding it"
    return Result({"id": args.id, "kind": hold.kind}, [f"hold {args.id} released{goes_on}"])


def confirm_release(hold: Hold, *, yes: bool) -> None:
    """Ask whether to let go of a hold whose work goes on. Raises UsageError for a no, or without a terminal."""
    if yes or hold.kind == "manual":
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"the work of hold {hold.id} goes on: {hold.line()}", hint="--yes lets go of it all the same")
    note(f"taoprof: the work of hold {hold.id} goes on: {hold.line()}")
    note("let go of it (y/N)? ", end="")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError(f"hold {hold.id} stays")


def stop_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the run, as status and holds show it")


def stop_verb(context: Context, args: argparse.Namespace) -> Result:
    hold = stop.stop(context, args.id)
    what = f"container {hold.container[:6]} stopped" if hold.container else "its processes were told to end"
    return Result({"id": hold.id, "container": hold.container}, [f"{hold.kind} {hold.id}: {what}"])


def why_arguments(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "path", metavar="PATH", help="a folder or file of the host")


def why_verb(context: Context, args: argparse.Namespace) -> Result:
    found = log.runs_writing(context, args.path)
    lines = []
    for hold in found[:5]:
        ended = "still runs" if hold.ended is None else f"exit status {exit_status(hold)}"
        lines.append(f"run {hold.id}, profile '{hold.profile}', {when(hold.since)}, {hold.user}@{hold.host}, {ended}")
        lines.append(f"  {' '.join(hold.command)}")
        lines += ["  " + line for line in table([(source, "→", place) for source, place in hold.mounts])]
    if not found:
        lines = [f"no run that taoprof knows of had '{os.path.realpath(args.path)}'"]
    return Result({"path": os.path.realpath(args.path), "runs": [hold.as_dict() for hold in found]}, lines)


def _say(text: str) -> None:
    note(f"taoprof: {text}")
