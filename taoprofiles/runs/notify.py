"""The targets of a run's notification, which are checked when it starts, the desktop as one, and a profile's hooks."""

from __future__ import annotations

import html
import importlib.util
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from taoprofiles.errors import UsageError
from taoprofiles.holds.hold import Hold
from taoprofiles.masking import mask_target, mask_text
from taoprofiles.system.commands import exit_on_signals, run_bounded

if TYPE_CHECKING:
    from taoprofiles.profiles.rendering import Renderer


DESKTOP_TIMEOUT = 10.0
"""Seconds that the desktop gets to accept a notification."""

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


DESKTOP, NONE = "desktop", "none"

HOOK_TIMEOUT = 300.0
"""Seconds after which a hook is killed, with what it has started."""

SEND_TIMEOUT = 30.0
"""Seconds that all targets of a notification have together."""

TIME_LIMIT = SEND_TIMEOUT + HOOK_TIMEOUT + 30
"""Seconds after which the process that does all this is ended, wherever it hangs."""

_HOOK_SHELL = """\
exec 3<&0 </dev/null
{ read -r _ || kill -KILL 0; } <&3 3<&- >/dev/null 2>&1 &
exec 3<&- /bin/sh -c "$1"
"""
"""Runs a hook, and kills its process group if the socket that is the standard input is closed before a line has come:
then the process that waits for the hook was killed, and nobody else would end a hook that hangs."""

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


def get_outcome(run: Hold) -> str:
    """Return how a run has ended, in one word."""
    return "unknown" if run.status is None else "failed" if run.status else "succeeded"


def run_hook(key: str, command: str, run: Hold, environ: Mapping[str, str]) -> str:
    """Run a hook for at most HOOK_TIMEOUT seconds; return what went wrong, "" if nothing did.

    ``key`` is "on_start" or "on_end". The variables that describe the run are in docs/reference/files.md.
    """
    facts = {
        "TAOPROF_RUN_ID": run.id,
        "TAOPROF_NAME": run.profile or "",
        "TAOPROF_RESULTS": ":".join(run.results),
    }
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
