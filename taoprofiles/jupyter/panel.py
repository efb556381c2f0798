"""The panel that ``%taoprof`` shows: a widget with the path map, the profiles, what is running, and buttons.

The front end asks for the state while the panel is visible, so a closed panel costs nothing. Its messages come on a
thread of their own (a subshell of ipykernel 7) where the front end has that, otherwise between two cells. The other
files of the widget are ``panel.js`` and ``panel.css``.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets
from IPython.display import display as display_output
from IPython.display import update_display

from taoprofiles.check.path_map import get_path_map, to_svg
from taoprofiles.cli import dispatch
from taoprofiles.cli.output import error_lines, format_time
from taoprofiles.cli.status import guard_text
from taoprofiles.errors import TaoprofError
from taoprofiles.holds.hold import format_age
from taoprofiles.jupyter import display
from taoprofiles.jupyter.display import as_cell
from taoprofiles.masking import printable
from taoprofiles.profiles.store import Store
from taoprofiles.runs import session as sessions
from taoprofiles.switching import preflight

if TYPE_CHECKING:
    from taoprofiles.jupyter.extension import Extension
    from taoprofiles.runs.session import Session

SHOWN_CHANGES = 5
VISIBLE_SECONDS = 10.0
"""Seconds since its last question for which a panel counts as visible; it asks every 2 s."""

OWN_COMMANDS = {"use": ["use", "--", "{}"], "make": ["use", "--mkdir", "--", "{}"], "leave": ["release"]}
COMMANDS = {
    "stop": ["stop", "--yes", "--", "{}"],
    "release": ["release", "--yes", "--", "{}"],
    "undo": ["undo", "--", "{}"],
    "restore": ["undo"],
}
"""The commands of the buttons, by the action that a message names: of ``%taoprof``, and of ``taoprof``.

The front end has asked the user before what ``--yes`` answers. An argument is never an option, such as --help.
"""


class Panel(anywidget.AnyWidget):
    """The widget. ``state`` is all that it shows; the data of commands is as in their ``--json``."""

    _esm = Path(__file__).with_name("panel.js")
    _css = Path(__file__).with_name("panel.css")
    state = traitlets.Dict().tag(sync=True)

    def __init__(self, extension: Extension) -> None:
        self._extension = extension
        self._selected = ""
        self._last_message = 0.0
        self._saved: object = None
        self._display_id = secrets.token_hex(8)
        super().__init__(state=self._get_state())
        # ipykernel 7.4 takes each message of the front end to the thread in which the comm was last used. A cell made
        # this panel, so that is the main thread, which is busy during the next cell: the front end's choice is better.
        if hasattr(self.comm, "_reply_subshell_for"):
            self.comm._reply_subshell_for = lambda _, subshell_id: subshell_id
        self.on_msg(self._answer)

    def show(self) -> None:
        """Display the panel."""
        self._saved = self._facts()
        display_output(self, display_id=self._display_id)  # type: ignore[no-untyped-call]

    def update_saved(self) -> None:
        """Replace what the saved notebook has of the panel, if that differs and the panel is visible."""
        if time.monotonic() - self._last_message > VISIBLE_SECONDS:
            return
        self.state = self._get_state()
        if self._saved != self._facts():
            self._saved = self._facts()
            update_display(self, display_id=self._display_id)  # type: ignore[no-untyped-call]

    def _facts(self) -> object:
        """Return what is worth an update: not how long something has been running."""
        holds = [(hold["id"], hold["phase"], hold["released"]) for hold in self.state["status"].get("holds", ())]
        return holds, self.state["notebook"], self.state["file"], self.state["selected"], self.state["drawing"]

    def _repr_mimebundle_(self, **keywords: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the widget, and its state as text and HTML for those who read the saved notebook without it."""
        data, metadata = super()._repr_mimebundle_(**keywords) or ({}, {})
        output = display.panel_output(self._extension.context, sessions.current(), self.state["selected"])
        output.line(f"state of {format_time(time.time())}; to see the present one, run this cell")
        return {**data, "text/plain": repr(output), "text/html": output._repr_html_()}, metadata

    def _answer(self, _: object, content: dict[str, Any], buffers: object) -> None:
        """Do what a message of the front end asks for; send the state, if it has changed, and the answer."""
        start = self._last_message = time.monotonic()
        action, argument = str(content.get("action", "")), str(content.get("argument", ""))
        lines: Sequence[str] = []
        is_refused = False
        try:
            if action == "select":
                self._selected = argument
            elif action in OWN_COMMANDS:
                output = self._extension.run_between_cells([word.format(argument) for word in OWN_COMMANDS[action]])
                lines, self._selected = list(takewhile(bool, repr(output).splitlines())), ""
            elif action in COMMANDS:
                command, *words = (word.format(argument) for word in COMMANDS[action])
                result = dispatch.parse(command, words)(self._extension.context)
                lines = [*result.messages, *result.lines]
        except TaoprofError as error:
            lines, is_refused = error_lines(error), True
        self.state = self._get_state()
        answer = {"number": content.get("number"), "lines": _cell_lines(lines), "is_refused": is_refused}
        self.send({**answer, "seconds": time.monotonic() - start})

    def _get_state(self) -> dict[str, Any]:
        session = sessions.current()
        status, profiles = self._get("status"), self._get("list")
        names = [profile["name"] for profile in profiles.get("profiles", ())]
        selected = self._selected if self._selected in names else ""
        selected = selected or (session.name if session else "") or status.get("name") or next(iter(names), "")
        now = time.time()
        return {
            "notebook": self._describe(session),
            "status": status,
            "ages": {hold["id"]: format_age(now - hold["since"]) for hold in status.get("holds", ())},
            "file": display.mapping_file_line(self._extension.context, status.get("state", ""), status.get("name")),
            "guard": as_cell(guard_text(status.get("guard"))),
            "changes": _external_changes(status, self._get("history")),
            "profiles": profiles,
            "selected": selected,
            **self._describe_profile(selected, is_used=session is not None and session.name == selected),
        }

    def _get(self, command: str) -> dict[str, Any]:
        """Return the ``data`` of a command with ``--json``, or the lines of its error as ``error``."""
        return _try(lambda: dispatch.parse(command, ["--json"])(self._extension.context).data)

    def _describe(self, session: Session | None) -> dict[str, Any] | None:
        if session is None:
            return None
        context = self._extension.context
        warnings = _try(lambda: {"lines": display.session_problems(context, session)})
        return {
            "profile": session.name,
            "hold": session.hold.id,
            "shared": session.shared,
            "file": context.short(session.mounts_file),
            "warnings": _cell_lines(warnings.get("lines") or warnings.get("error", ())),
        }

    def _describe_profile(self, name: str, *, is_used: bool) -> dict[str, Any]:
        """Return the drawing of a profile, and the problems for which ``use`` would refuse it."""
        context = self._extension.context

        def draw() -> dict[str, Any]:
            renderer = Store(context).renderer(name)
            drawing = to_svg(get_path_map(context, name, renderer.summary()))
            return {"drawing": drawing, "mapping": renderer.mapping()}

        def check(mapping: dict[str, Any]) -> dict[str, Any]:
            preflight.require_answer(mapping)
            preflight.check_mapping(context, mapping, name=name, mkdir=False, check=True)
            return {}

        drawn = _try(draw) if name else {}
        checked = _try(lambda: check(drawn["mapping"])) if "mapping" in drawn and not is_used else drawn
        return {"drawing": drawn.get("drawing", ""), "problems": _cell_lines(checked.get("error", ()))}


def _try(get: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return get()
    except TaoprofError as error:
        return {"error": error_lines(error)}


def _cell_lines(lines: Sequence[str]) -> list[str]:
    return [printable(as_cell(line)) for line in lines]


def _external_changes(status: dict[str, Any], history: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the last changes of the mapping file by other programs, and the action that undoes the newest, if any."""
    entries = [entry for entry in history.get("entries", ()) if entry["target"] == "mapping"]
    changes = [
        {
            "time": format_time(entry["time"]),
            "what": "written by" if entry["after"] else "removed by",
            "by": printable(entry["writer"] or "another program"),
            "action": "undo" if entry is entries[0] and not entry["dropped"] else "",
            "argument": str(entry["id"]),
        }
        for entry in entries
        if entry["action"] == "found"
    ]
    is_recorded = bool(entries) and entries[0]["action"] == "found"
    if status.get("state") in ("unmanaged", "none") and status.get("last") and not is_recorded:
        what = "written by" if status["state"] == "unmanaged" else "removed by"
        change = {"time": "now", "what": what, "by": "another program", "action": "restore", "argument": ""}
        changes.insert(0, change)
    return changes[:SHOWN_CHANGES]
