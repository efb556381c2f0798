"""What each word of ``%taoprof`` answers, for IPython to show."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from taoprofiles.errors import TaoprofError, UsageError
from taoprofiles.holds import manage
from taoprofiles.holds.hold import format_age
from taoprofiles.jupyter.display import Answer
from taoprofiles.masking import MASK, is_secret
from taoprofiles.mounts import mapping
from taoprofiles.profiles.store import Store
from taoprofiles.profiles.summary import places, portrait
from taoprofiles.storage import files
from taoprofiles.storage.files import MAPPING_LIMIT
from taoprofiles.switching import status as situation

if TYPE_CHECKING:
    from typing import Any

    from taoprofiles.runs.session import Session
    from taoprofiles.storage.paths import Context


def used(context: Context, session: Session) -> Answer:
    """Tell what ``use`` did."""
    file = "the shared mounts file, held" if session.shared else "a mounts file of its own"
    answer = Answer(f"profile '{session.name}' is in use here: its variables, and {file} (hold {session.hold.id})")
    for note in session.notes:
        answer.line(note)
    try:
        seen = _portrait(context, session.name)
    except TaoprofError as error:  # it was removed or broken in this moment, and is in use all the same
        return answer.line(f"warning: {error.message}")
    return _mounts(context, seen, _places(context, seen, answer))


def status(context: Context, session: Session | None) -> Answer:
    """Tell what this notebook has, what the shared file holds, and who holds what."""
    if session is None:
        answer = Answer("this notebook has no profile: '%taoprof use NAME' gives it one")
    else:
        file = "the shared one" if session.shared else context.short(session.mounts_file)
        answer = Answer(f"profile '{session.name}' is in use here (hold {session.hold.id}); mounts file: {file}")
        try:
            _mounts(context, _portrait(context, session.name), answer)
        except TaoprofError as error:
            answer.line(f"warning: {error.message}")
    found = situation.look(context)
    shared = f"profile '{found.name}'" if found.name else "no profile's mapping" if found.content else "nothing"
    answer.line(f"the shared file {context.short(context.mapping_file)} holds {shared} ({found.state})")
    stock = manage.active_holds(context)
    rows = [
        (
            hold.id,
            hold.profile or "-",
            hold.kind,
            format_age(time.time() - hold.since),
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
    again = _again(mine)
    changed = mine.overridden().items()
    faults = [f"{key} is {_shown(mine, key, value)}, not the profile's" for key, value in changed]
    faults += [f"'{source}' is not there" for source in _sources(mine) if not os.path.exists(source)]
    try:
        if Store(context).renderer(mine.name).mapping() != mine.mapping:
            faults.append(f"the profile was changed since: {again} takes it anew")
    except TaoprofError as error:
        faults.append(f"{error.message}{''.join(f'; {one}' for one in error.problems)}; what it was is in use here")
    faults += _of_the_file(mine, again)
    hold = manage.active_holds(context).find(mine.hold.id)
    if hold is None:
        faults.append(f"the hold {mine.hold.id} is gone: {again} takes one anew")
    elif hold.released:
        faults.append(f"the hold {mine.hold.id} was let go of by 'taoprof release': {again} takes one anew")
    answer = Answer(f"profile '{mine.name}': " + (f"{len(faults)} to look at" if faults else "all as it should be"))
    for fault in faults:
        answer.line(fault)
    return answer


def overridden(context: Context, session: Session, fresh: dict[str, str | None], answer: Answer) -> None:
    """Tell which of the profile's variables a cell has set to something else."""
    answer.line(
        f"taoprof: this cell set variables otherwise than profile '{session.name}', which this notebook has; "
        f"{_again(session)} sets them back"
    )
    rows = [
        (key, _shown(session, key, value), _shown(session, key, session.given[key])) for key, value in fresh.items()
    ]
    answer.table("", ("variable", "now", "profile"), rows)


def foreign(context: Context, session: Session, lines: list[str]) -> Answer:
    """Tell that the shared mapping file was written, and what that means for this notebook."""
    file = context.short(context.mapping_file)
    if session.shared:
        answer = Answer(
            f"taoprof: {file} was written while this cell ran, and is not profile '{session.name}' any more, which "
            f"this notebook uses it for: {_again(session)} puts it back"
        )
    else:
        answer = Answer(
            f"taoprof: {file} was written while this cell ran; 'tao' in this notebook does not read it: its mapping is "
            f"that of profile '{session.name}'"
        )
    return answer.table("", (f"what differs: - '{session.name}', + {file}",), [(line,) for line in lines])


def removed(context: Context, session: Session) -> Answer:
    """Tell that the shared mapping file, which this notebook uses, is not there any more."""
    return Answer(
        f"taoprof: {context.short(context.mapping_file)} was removed while this cell ran, and 'tao' would start "
        f"without any mounts: {_again(session)} makes it anew"
    )


def _again(session: Session) -> str:
    return f"'%taoprof use {session.name}{' --shared' if session.shared else ''}'"


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


def _sources(session: Session) -> list[str]:
    return [mount["source"] for mount in session.mapping["Mounts"]]


def _of_the_file(session: Session, again: str) -> list[str]:
    """Tell what is wrong with the mounts file that this notebook's launches read."""
    path = session.mounts_file
    try:
        content = files.read(path, MAPPING_LIMIT)
    except TaoprofError as error:
        return [f"{error.message}: {again} makes it anew"]
    if content is None:
        return [f"the mounts file '{path}' is gone: {again} makes it anew"]
    if not mapping.same(content, mapping.to_bytes(session.wanted)):
        return [f"the mounts file '{path}' holds another mapping: {again} puts it back"]
    return []


def _shown(session: Session, name: str, value: str | None) -> str:
    if value is None:
        return "not set"
    return MASK if is_secret(name) or name in session.secrets[0] else f"'{value}'"
