"""run, shell, hold, release, stop."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from taoprofiles.cli.arguments import add_mkdir, add_profile, add_wait, parse_duration
from taoprofiles.cli.output import Declined, Result, say
from taoprofiles.errors import UsageError
from taoprofiles.holds import manage
from taoprofiles.holds.hold import format_age

if TYPE_CHECKING:
    import argparse

    from taoprofiles.holds.hold import Hold
    from taoprofiles.runs.run import Run
    from taoprofiles.storage.paths import Context

STDERR = 2


def run_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    add_mkdir(parser)
    parser.add_argument(
        "--gpus",
        metavar="WHICH",
        help="which GPUs: 'all', a count (2 = any two free ones), indices (0,1; a single index needs a comma: 1,), "
        "or 'none' (only with --image)",
    )
    parser.add_argument("--image", help="run this image with 'docker run', without the launcher")
    parser.add_argument(
        "--shared", action="store_true", help="switch the shared mapping file and hold it during the run"
    )
    add_wait(parser)
    parser.add_argument(
        "--force",
        action="store_true",
        help="start although 'taoprof check' reports errors or another run is writing to the same results folder",
    )


def run_command(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.holds.waiting import wait_until_free
    from taoprofiles.runs import resources
    from taoprofiles.runs import run as runs

    if not args.command:
        raise UsageError("no command to run", hint=f"taoprof run {args.name} -- tao model …")
    options = runs.RunOptions(
        mkdir=args.mkdir,
        check=not args.force,
        allow_overlap=args.force,
        shared=args.shared,
        gpus=args.gpus,
        image=args.image,
        terminal=sys.stdin.isatty() and sys.stdout.isatty() and not args.json,
    )
    if args.gpus is not None:
        resources.parse_gpus(args.gpus)

    def attempt() -> Run:
        return runs.prepare(context, args.name, args.command, options=options)

    run = attempt() if args.wait is None else wait_until_free(context, "run", attempt, seconds=args.wait, say=say)
    status = _execute(run, args.command, as_json=args.json)
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


def _execute(run: Run, command: list[str], *, as_json: bool) -> int:
    """Start a prepared run, wait for its end and return its exit status."""
    # With --json only the envelope goes to stdout, so the command's output goes to stderr.
    return run.finish(run.start(command, say=say, stdout=STDERR if as_json else None))


def shell_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    add_mkdir(parser)
    parser.add_argument("--force", action="store_true", help="start although 'taoprof check' reports errors")


def shell_command(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.runs import run as runs

    inside = context.environ.get(runs.PROFILE_VARIABLE)
    if inside:
        raise UsageError(f"this shell already has profile '{inside}'", hint="'exit' leaves it")
    shell = context.environ.get("SHELL") or "/bin/sh"
    options = runs.RunOptions(mkdir=args.mkdir, check=not args.force)
    run = runs.prepare(context, args.name, [shell], kind="shell", options=options)
    command = runs.shell_command(context, run, shell, args.name)
    if not args.json:
        say(f"shell with profile '{args.name}' (hold {run.hold.id}); 'exit' leaves it")
    status = _execute(run, command, as_json=args.json)
    return Result({"id": run.hold.id, "name": args.name, "status": status}, status=status)


def stop_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="id of the run, as 'taoprof status' shows it")


def stop_command(context: Context, args: argparse.Namespace) -> Result:
    from taoprofiles.runs import log

    hold = log.stop(context, args.id)
    action = f"container {hold.container[:6]} stopped" if hold.container else "its processes were asked to end"
    return Result({"id": hold.id, "container": hold.container}, [f"{hold.kind} {hold.id}: {action}"])


def hold_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser, optional=True, help="the active profile; default: whatever the mapping file contains")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="shown to others who want to switch")
    end = parser.add_mutually_exclusive_group()
    end.add_argument("--for", dest="seconds", type=parse_duration, metavar="TIME", help="how long: 90, 30m, 8h, 2d")
    end.add_argument("--pid", type=int, metavar="PID", help="as long as this process lives")


def hold_command(context: Context, args: argparse.Namespace) -> Result:
    hold = manage.hold(context, args.name, reason=args.reason, seconds=args.seconds, pid=args.pid)
    if args.seconds is not None:
        end = f"for {format_age(args.seconds)}"
    else:
        end = f"while process {hold.pid} lives" if hold.pid else f"until 'taoprof release {hold.id}'"
    target = f"'{hold.profile}'" if hold.profile else "the mapping file"
    return Result(hold.as_dict(), [f"{target} held {end} (hold {hold.id})"])


def release_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="id of the hold, as 'taoprof status' shows it")
    parser.add_argument("--yes", action="store_true", help="answer the question with yes")


def release_command(context: Context, args: argparse.Namespace) -> Result:
    hold = manage.active_holds(context).find(args.id)
    if hold is not None:
        confirm_release(hold, yes=args.yes)
    hold = manage.release(context, args.id)
    running = "" if hold.kind == "manual" else "; its work is still running, without protection"
    return Result({"id": args.id, "kind": hold.kind}, [f"hold {args.id} released{running}"])


def confirm_release(hold: Hold, *, yes: bool) -> None:
    """Ask whether to release a hold whose work is still running.

    Raises Declined for a no, UsageError without a terminal.
    """
    from taoprofiles.cli import prompts

    if yes or hold.kind == "manual":
        return
    work = {"shell": "shell", "notebook": "notebook"}.get(hold.kind, "training")
    text = f"{work} {hold.id} is still running: {hold.line()}"
    if not prompts.can_ask():
        raise UsageError(text, hint="--yes releases its hold anyway")
    say(text)
    if not prompts.confirm("Release its hold anyway?"):
        raise Declined("not released")
