"""What each word of ``%taoprof`` answers, for IPython to show."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from taoprofiles.errors import UsageError
from taoprofiles.faces.notebook.rendering import Answer
from taoprofiles.operations import holding, situation
from taoprofiles.operations.portrait import places, portrait
from taoprofiles.state.store import Store
from taoprofiles.values.hold import age
from taoprofiles.values.secret import MASK, is_secret

if TYPE_CHECKING:
    from typing import Any

    from taoprofiles.operations.sessions import Session
    from taoprofiles.state.paths import Context


def used(context: Context, session: Session) -> Answer:
    """Tell what ``use`` did."""
    file = "the shared mounts file, held" if session.shared else "a mounts file of its own"
    answer = Answer(f"profile '{session.name}' is in use here: its variables, and {file} (hold {session.hold.id})")
    for note in session.notes:
        answer.line(note)
    seen = _portrait(context, session.name)
    return _mounts(context, seen, _places(context, seen, answer))


def status(context: Context, session: Session | None) -> Answer:
    """Tell what this notebook has, what the shared file holds, and who holds what."""
    if session is None:
        answer = Answer("this notebook has no profile: '%taoprof use NAME' gives it one")
    else:
        file = "the shared one" if session.shared else context.short(session.mounts_file)
        answer = Answer(f"profile '{session.name}' is in use here (hold {session.hold.id}); mounts file: {file}")
        _mounts(context, _portrait(context, session.name), answer)
    found = situation.look(context)
    shared = f"profile '{found.name}'" if found.name else "no profile's mapping" if found.content else "nothing"
    answer.line(f"the shared file {context.short(context.mapping_file)} holds {shared} ({found.state})")
    stock = holding.holds(context)
    rows = [
        (
            hold.id,
            hold.profile or "-",
            hold.kind,
            age(time.time() - hold.since),
            str(hold.pid or "-"),
            hold.container[:6] if hold.container else "-",
            "shared" if hold.shared else "own",
            "this notebook" if session is not None and hold.id == session.hold.id else hold.title(),
        )
        for hold in stock.holds
    ]
    answer.table("holds", ("hold", "profile", "kind", "age", "pid", "container", "file", "what"), rows)
    for text in stock.unseen:
        answer.line(f"warning: {text}")
    return answer


def listed(context: Context, session: Session | None) -> Answer:
    """List the profiles."""
    summaries = Store(context).summaries()
    if not summaries:
        return Answer("there is no profile yet; '!taoprof new NAME' or '!taoprof import NOTEBOOK.ipynb' makes one")
    mine, active = session.name if session else None, situation.look(context).name
    rows = [
        (
            summary.name,
            " and ".join(
                text
                for text, true in (("here", summary.name == mine), ("in the shared file", summary.name == active))
                if true
            ),
            summary.layout or "-",
            context.short(summary.project_dir or "-"),
            f"not valid: {summary.problem}" if summary.problem else summary.description,
        )
        for summary in summaries
    ]
    return Answer().table("", ("profile", "in use", "layout", "project", "description"), rows)


def variables(context: Context, session: Session | None) -> Answer:
    """Show every variable with its two sides."""
    return _places(context, _portrait(context, _needed(session).name), Answer(f"profile '{_needed(session).name}'"))


def check(context: Context, session: Session | None) -> Answer:
    """Tell what is not as the profile has it: variables, folders, the mounts file, the profile itself."""
    mine = _needed(session)
    seen = _portrait(context, mine.name)
    faults = [f"{key} is {_shown(key, value)}, not the profile's" for key, value in mine.overridden().items()]
    faults += [f"'{mount['source']}' is not there" for mount in seen["mounts"] if not mount["exists"]]
    if Store(context).renderer(mine.name).mapping() != mine.mapping:
        faults.append(f"the profile was changed since: '%taoprof use {mine.name}' takes it anew")
    if not os.path.exists(mine.mounts_file):
        faults.append(f"the mounts file '{mine.mounts_file}' is gone: '%taoprof use {mine.name}' makes it anew")
    if holding.holds(context).find(mine.hold.id) is None:
        faults.append(f"the hold {mine.hold.id} is gone: '%taoprof use {mine.name}' takes one anew")
    answer = Answer(f"profile '{mine.name}': " + (f"{len(faults)} to look at" if faults else "all as it should be"))
    for fault in faults:
        answer.line(fault)
    return answer


def overridden(context: Context, session: Session, fresh: dict[str, str | None], answer: Answer) -> None:
    """Tell which of the profile's variables a cell has set to something else."""
    answer.line(
        f"taoprof: this cell set variables otherwise than profile '{session.name}', which this notebook has; "
        f"'%taoprof use {session.name}' sets them back"
    )
    profile = {**session.variables, "LAUNCHER_MOUNTS": session.mounts_file}
    rows = [(key, _shown(key, value), _shown(key, profile.get(key))) for key, value in fresh.items()]
    answer.table("", ("variable", "now", "profile"), rows)


def foreign(context: Context, session: Session, lines: list[str]) -> Answer:
    """Tell that the shared mapping file was written, and what that means for this notebook."""
    file = context.short(context.mapping_file)
    if session.shared:
        answer = Answer(
            f"taoprof: {file} was written while this cell ran, and is not profile '{session.name}' any more, which "
            f"this notebook uses it for: '%taoprof use {session.name} --shared' puts it back"
        )
    else:
        answer = Answer(
            f"taoprof: {file} was written while this cell ran; 'tao' in this notebook does not read it: its mapping is "
            f"that of profile '{session.name}'"
        )
    return answer.table("", (f"what differs: - '{session.name}', + {file}",), [(line,) for line in lines])


def _needed(session: Session | None) -> Session:
    if session is None:
        raise UsageError("this notebook has no profile", hint="'%taoprof use NAME'; '%taoprof list' lists them")
    return session


def _portrait(context: Context, name: str) -> dict[str, Any]:
    store = Store(context)
    return portrait(context, store.template(name), store.renderer(name))


def _places(context: Context, seen: dict[str, Any], answer: Answer) -> Answer:
    """Show the paths with both of their sides, and which of the two a variable names; then the other variables."""
    paths, others = [], []
    for one in places(seen):
        if one["outside"]:
            names = "outside" if one["value"] == one["outside"] else "inside"
            there = "yes" if one["exists"] else "no"
            paths.append((one["name"], names, context.short(one["outside"]), one["inside"], there))
        else:
            others.append((one["name"], context.short(one["value"])))
    answer.table("paths", ("variable", "names", "outside", "inside", "exists"), paths)
    return answer.table("other variables", ("variable", "value"), others)


def _mounts(context: Context, seen: dict[str, Any], answer: Answer) -> Answer:
    rows = [(context.short(m["source"]), m["destination"], "yes" if m["exists"] else "no") for m in seen["mounts"]]
    return answer.table("mounts", ("outside", "inside", "exists"), rows)


def _shown(name: str, value: str | None) -> str:
    if value is None:
        return "not set"
    return MASK if is_secret(name) else f"'{value}'"
