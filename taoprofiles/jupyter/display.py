"""What ``%taoprof`` shows in a notebook: HTML if the front end can show it, otherwise the same as text.

The HTML sets no colours, so that it is readable in light and dark themes, and has no ``<style>``, which JupyterLab
removes from notebooks that are not trusted yet. A drawing is an image with a background of its own.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from html import escape
from typing import TYPE_CHECKING

from taoprofiles.check.path_map import MISSING, SILENT, get_path_map, to_svg
from taoprofiles.cli.output import table
from taoprofiles.cli.status import hold_rows
from taoprofiles.errors import TaoprofError
from taoprofiles.holds import manage
from taoprofiles.holds.hold import shared_holds
from taoprofiles.masking import MASK, is_secret, printable, shorten
from taoprofiles.mounts import mapping
from taoprofiles.profiles.store import Store
from taoprofiles.storage import files
from taoprofiles.switching import status as switching_status
from taoprofiles.system.filesystem import answers, no_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taoprofiles.check.path_map import PathMap
    from taoprofiles.runs.session import Session
    from taoprofiles.storage.paths import Context

COMMANDS = {
    "use": ("NAME", "use a profile in this notebook: its variables, and its own mounts file"),
    "status": ("", "show the profile of this notebook, the shared mapping file, holds and runs"),
    "env": ("", "show the profile's variables in this notebook, and which of them a cell has changed"),
    "list": ("", "list the profiles"),
    "show": ("[NAME]", "show the variables of a profile on the host and in the container, and its mounts"),
    "check": ("[NAME]", "find mistakes in a profile; add '-- COMMAND …' to check a command too"),
    "release": ("", "stop using the profile in this notebook"),
}
"""The commands of ``%taoprof``: their arguments and summaries. ``!taoprof`` has all others."""

OPTIONS = ("--mkdir", "--shared", "--force")
"""The options of ``%taoprof use``."""

ALT_LIMIT = 2000
"""Characters of the text that stands for a drawing."""

_MISSING = "no (missing)"
_CHANGED = "(changed by a cell)"
_MARKED = (_MISSING, SILENT, _CHANGED)
"""The ends of what is shown in bold."""

_CELL = "text-align:left;padding:2px 12px 2px 0;vertical-align:top"
_FIRST = f"{_CELL};font-family:monospace;white-space:nowrap"
_CODE = f"{_CELL};font-family:monospace;white-space:nowrap;overflow:hidden;text-overflow:ellipsis;max-width:40em"


def _cell(text: str, column: int) -> str:
    shown = escape(printable(text))
    marked = f"<b>{shown}</b>" if text.endswith(_MARKED) else shown
    return f'<td style="{_CODE if column else _FIRST}" title="{shown}">{marked}</td>'


def as_cell(text: str) -> str:
    """Return a text whose ``taoprof …`` commands are written as a cell runs them: ``%taoprof …`` or ``!taoprof …``."""

    def replaced(match: re.Match[str]) -> str:
        options = re.findall(r" (-[-\w]+)", match[2])
        own = match[1] in COMMANDS and all(option in OPTIONS for option in options)
        return f"{'%' if own else '!'}{match[0]}"

    return re.sub(r"(?<![\w%!/.-])taoprof ([a-z]+)([^';:\n]*)", replaced, text)


class Output:
    """Lines and tables in order. IPython asks for them as HTML or as text."""

    def __init__(self, *lines: str) -> None:
        self._text: list[str] = []
        self._html: list[str] = []
        for line in lines:
            self.line(line)

    def line(self, text: str) -> Output:
        """Add a line."""
        text = as_cell(text)
        self._text.append(printable(text))
        self._html.append(f'<div style="white-space:pre-wrap">{escape(printable(text))}</div>')
        return self

    def drawing(self, path_map: PathMap) -> Output:
        """Add the drawing of a path map. As text there is none: the caller adds tables for that."""
        image = b64encode(to_svg(path_map).encode()).decode()
        # An image, since JupyterLab removes <svg> from notebooks that are not trusted yet.
        about = escape(shorten(f"Path map of profile '{path_map.name}': {'; '.join(path_map.lines())}", ALT_LIMIT))
        style = "max-width:100%;margin-top:8px"
        self._html.append(f'<img style="{style}" alt="{about}" src="data:image/svg+xml;base64,{image}">')
        return self

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, is_text: bool = False) -> Output:
        """Add a table, unless it would be empty; with ``is_text`` to the text alone, since a drawing shows the same."""
        if rows:
            self._text += ["", *([f"{title}:"] if title else []), *table([head, *rows], indent="  " if title else "")]
        if rows and not is_text:
            header = "".join(f'<th style="{_CELL}">{escape(cell)}</th>' for cell in head)
            body = "".join(f"<tr>{''.join(map(_cell, row, range(len(row))))}</tr>" for row in rows)
            caption = f'<div style="margin-top:8px"><b>{escape(title)}</b></div>' if title else ""
            self._html.append(f"{caption}<table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>")
        return self

    def __repr__(self) -> str:
        """Return the text."""
        return "\n".join(self._text).strip("\n")

    def _repr_html_(self) -> str:
        return f'<div class="taoprof">{"".join(self._html)}</div>'


def use_output(context: Context, session: Session) -> Output:
    """Return what ``%taoprof use`` shows."""
    file = "the mapping file" if session.shared else "its own mounts file"
    output = Output(f"this notebook now uses profile '{session.name}' ({file}; hold {session.hold.id})")
    for note in session.notes:
        output.line(note)
    try:
        return _add_summary(context, session.name, output)
    except TaoprofError as error:  # the profile was removed or damaged a moment ago, but its values are in use
        return output.line(f"warning: {error.message}")


def show_output(context: Context, name: str) -> Output:
    """Return what ``%taoprof show`` shows. Raises NotFoundError, InvalidProfileError."""
    Store(context).text(name)  # raises for a missing profile, without the hint to create it
    return _add_summary(context, name, Output(f"profile '{name}'"))


def panel_output(context: Context, session: Session | None, name: str) -> Output:
    """Return what ``%taoprof`` shows where there is no panel: the status, and the path map of the profile ``name``."""
    output = status_output(context, session)
    try:
        return output if not name else _add_summary(context, name, output)
    except TaoprofError as error:
        return output.line(f"warning: {error.message}")


def status_output(context: Context, session: Session | None) -> Output:
    """Return what ``%taoprof status`` shows: this notebook, the shared mapping file, holds and runs."""
    if session is None:
        output = Output("this notebook has no profile. To use one: %taoprof use NAME")
    else:
        own = f"its own mounts file {context.short(session.mounts_file)}"
        file = "the mapping file" if session.shared else own
        output = Output(f"this notebook uses profile '{session.name}' ({file}; hold {session.hold.id})")
        for problem in session_problems(context, session):
            output.line(f"warning: {problem}")
    now = switching_status.get_status(context)
    output.line(mapping_file_line(context, now.state, now.name))
    active = manage.active_holds(context)
    head, *rows = hold_rows(active.holds, own=session.hold.id if session else "")
    output.table("holds and runs", [cell.lower() for cell in head], rows)
    for text in active.unchecked:
        output.line(f"warning: {text}")
    return output


def mapping_file_line(context: Context, state: str, name: str | None) -> str:
    """Return what the shared mapping file is, by its state ("" after an error) and its profile (see ``Status``)."""
    path = context.short(context.mapping_file)
    shared = {
        "active": f"{path} has the mapping of profile '{name}'",
        "drifted": f"{path} has an older mapping of profile '{name}'",
        "unmanaged": f"{path} was not written by taoprof",
        "none": f"{path} does not exist",
    }
    return shared.get(state, f"{path} cannot be read")


def list_output(context: Context, session: Session | None) -> Output:
    """Return what ``%taoprof list`` shows."""
    summaries = Store(context).summaries()
    if not summaries:
        return Output("there are no profiles yet. To create one: taoprof new NAME, or taoprof import NOTEBOOK.ipynb")
    own, active = session.name if session else None, switching_status.get_status(context).name
    rows = []
    for summary in summaries:
        uses = ["this notebook"] if summary.name == own else []
        uses += ["mapping file"] if summary.name == active else []
        project = context.short(summary.project_dir or "-")
        description = f"not valid: {summary.problem}" if summary.problem else summary.description
        rows.append((summary.name, " and ".join(uses), summary.layout or "-", project, description))
    return Output().table("", ("profile", "used by", "layout", "project", "description"), rows)


def env_output(session: Session) -> Output:
    """Return what ``%taoprof env`` shows: each variable as this notebook has it, and how that differs."""
    overridden = session.overridden()
    rows = []
    for name, value in session.assigned.items():
        profile = f"{_shown(session, name, value)} {_CHANGED}" if name in overridden else ""
        rows.append((name, _shown(session, name, overridden.get(name, value)), profile))
    output = Output(f"variables of profile '{session.name}' in this notebook")
    if overridden:
        output.line(f"to restore what cells have changed: {_use_again(session)}")
    return output.table("", ("variable", "now", "profile"), rows)


def sealed_output(context: Context) -> Output:
    """Return why a cell could not write the mapping file."""
    path = context.short(context.mapping_file)
    try:
        blocked = shared_holds(manage.active_holds(context).holds)
    except TaoprofError:  # whose work it is cannot be read now
        blocked = []
    output = Output(
        f"{path} is read-only: the guard protects it while a training needs it. To use another project in this "
        "notebook without touching the mapping file: %taoprof use NAME"
    )
    for hold in blocked:
        output.line(f"it is needed by {hold.line()}")
    return output


def overridden_output(session: Session, overridden: dict[str, str | None], output: Output) -> None:
    """Add to ``output`` the variables of the profile that a cell has changed, with their values."""
    number = f"{len(overridden)} variable{'s' if len(overridden) > 1 else ''}"
    output.line(f"warning: this cell overwrote {number} of profile '{session.name}'. To restore: {_use_again(session)}")
    rows = [
        (name, _shown(session, name, value), _shown(session, name, session.assigned[name]))
        for name, value in overridden.items()
    ]
    output.table("", ("variable", "now", "profile"), rows)


def overwritten_output(context: Context, session: Session, differences: list[str] | None) -> Output:
    """Return the warning that the shared mapping file was overwritten, or removed if ``differences`` is None."""
    path = context.short(context.mapping_file)
    if differences is None:
        text = f"warning: {path} was removed while this cell ran: 'tao' would start without any mounts. To restore it: "
        return Output(text + _use_again(session))
    text = f"{path} was overwritten while this cell ran"
    if session.shared:
        text = f"warning: {text}, and no longer has the mapping of profile '{session.name}', which this notebook uses. "
        text += f"To restore it: {_use_again(session)}"
    else:
        text = f"note: {text}. 'tao' in this notebook does not read it: it uses the mapping of profile '{session.name}'"
    head = (f"differences from {path} (-) to '{session.name}' (+)",)
    return Output(text).table("", head, [(line,) for line in differences])


def _use_again(session: Session) -> str:
    return f"%taoprof use {session.name}{' --shared' if session.shared else ''}"


def session_problems(context: Context, session: Session) -> list[str]:
    """Return what differs between this notebook and its profile, and what is missing."""
    again = _use_again(session)
    problems = [
        f"{name} is {_shown(session, name, value)}, not the value of the profile. To restore it: {again}"
        for name, value in session.overridden().items()
    ]
    sources = [mount["source"] for mount in session.rendered["Mounts"]]
    exists = answers(os.path.exists, sources)
    problems += [f"folder '{source}' does not exist" for source in sources if exists.get(source) is False]
    problems += [no_answer(source) for source in sources if source not in exists]
    try:
        if Store(context).renderer(session.name).mapping() != session.rendered:
            problems.append(f"the profile has changed since. To apply it: {again}")
    except TaoprofError as error:
        details = "; ".join([error.message, *error.problems])
        problems.append(f"{details}. This notebook keeps the values that it has")
    if problem := _mounts_file_problem(session):
        problems.append(f"{problem}. To restore it: {again}")
    hold = manage.active_holds(context).find(session.hold.id)
    if hold is None:
        problems.append(f"hold {session.hold.id} is gone. To hold again: {again}")
    elif hold.released:
        problems.append(f"hold {session.hold.id} was released by its id. To hold again: {again}")
    return problems


def _mounts_file_problem(session: Session) -> str:
    path = session.mounts_file
    try:
        content = files.read(path, files.MAPPING_LIMIT)
    except TaoprofError as error:
        return error.message
    if content is None:
        return f"the mounts file '{path}' does not exist"
    is_same = mapping.same(content, mapping.to_bytes(session.wanted))
    return "" if is_same else f"the mounts file '{path}' has another mapping"


def _add_summary(context: Context, name: str, output: Output) -> Output:
    """Add a profile's paths with both of their sides, its mounts, and the other variables."""
    summary = Store(context).renderer(name).summary()
    path_map = get_path_map(context, name, summary)
    path_rows, mount_rows = [], []
    for mount in path_map.mounts:
        for place in mount.places:
            host, container = (os.path.normpath(os.path.join(folder, place.path)) for folder in mount[:2])
            labels = {label.text for label in (*place.labels, *mount.places[0].labels)}
            exists = _MISSING if MISSING in labels else SILENT if SILENT in labels else "yes"
            path_rows += [(variable, "host", host, container, exists) for variable in place.host]
            path_rows += [(variable, "container", host, container, exists) for variable in place.container]
            if not place.path:
                mount_rows.append((mount.source, mount.destination, exists))
    drawn = {row[0] for row in path_rows}
    other_rows = [(key, context.short(value)) for key, value in summary["variables"].items() if key not in drawn]
    output.drawing(path_map)
    output.table("paths", ("variable", "value is on", "host", "container", "exists on host"), path_rows, is_text=True)
    output.table("other variables", ("variable", "value"), other_rows)
    return output.table("mounts", ("host", "container", "exists on host"), mount_rows, is_text=True)


def _shown(session: Session, name: str, value: str | None) -> str:
    if value is None:
        return "not set"
    return MASK if is_secret(name, value) or name in session.secrets[0] else f"'{value}'"
