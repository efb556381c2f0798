"""The paths in a spec file, and what they mean inside the container."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from taoprofiles.masking import is_secret
from taoprofiles.mounts.resolver import is_for_path, may_be_path, role
from taoprofiles.rules.finding import Finding
from taoprofiles.rules.spec_values import scan

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from taoprofiles.mounts.resolver import Places, Verdict
    from taoprofiles.rules.spec_values import Written

FORMS = {
    "yaml": "yaml", "yml": "yaml", "json": "json", "toml": "toml",
    "txt": "prototxt", "prototxt": "prototxt", "pbtxt": "prototxt", "cfg": "prototxt", "config": "prototxt",
}  # fmt: skip
"""By the end of a file's name: how it is read."""

ACTIONS = frozenset(
    "train evaluate inference export gen_trt_engine prune quantize retrain distill dataset_convert calibration "
    "visualize auto_label".split()
)
"""The parts of a TAO spec that only the action of their name reads."""

SHOWN = 20
"""Findings of one kind in one file; more are counted."""

LOOKED_AT = 2000
"""Paths of one file that are looked for on this host."""

_PATH = re.compile(r"(?:file://)?(/[^/\s].*)\Z")
_PLACEHOLDER = re.compile(r"^\?\?\?\Z|FIXME|/path/to(?:/|\Z)|(?:^|/)YOUR_|<[A-Za-z_ -]+>")
_UNSET = ("???", "FIXME")
_PATH_MAX = 4096


def paths(text: str, form: str) -> Iterator[tuple[Written, str]]:
    """Give each absolute path of a spec file, and the place where it is written; ``file://`` is taken off."""
    for one in scan(text, form):
        path = _path(one.value)
        if path and may_be_path(one.key) and not is_secret(one.key):
            yield one, path


def judge(
    name: str, text: str, form: str, *, places: Places, action: str = "", given: Collection[str] = ()
) -> list[Finding]:
    """Judge a spec file's text; ``name`` is how it is told where, ``form`` one of the values of FORMS.

    ``action`` is the command's (``train``): what only another action reads is left alone, and so is what the command
    itself sets, the keys ``given`` as in ``train.resume=…``.
    """
    ends = {(key.partition(".")[0], key.rpartition(".")[2]) for key in given}
    found: list[tuple[Finding, Verdict | None]] = []
    looked_at = 0
    for one in scan(text, form):
        if action and one.section in ACTIONS and one.section != action:
            continue
        if len(one.value) > _PATH_MAX or (one.section, one.key) in ends:
            continue
        if is_secret(one.key) and one.value not in _UNSET:  # a key may begin with '/', and is not to be told
            continue
        where, path = f"{name}:{one.line}", _path(one.value) if may_be_path(one.key) else ""
        if _PLACEHOLDER.search(one.value):
            what = f"'{one.value}' stands for a value that was never filled in"
            found.append((Finding("spec-placeholder", where, what, "", _set(one.key)), None))
        elif path and looked_at == LOOKED_AT:
            what = f"it has more than {LOOKED_AT} paths, and the rest was not looked at"
            found.append((Finding("spec-unreadable", where, what), None))
            break
        elif path:
            looked_at += 1
            verdict = places.about(path)
            if verdict.kind == "unmapped" and not is_for_path(one.key, path):
                continue  # a name of a layer, or of anything else that begins with '/'
            about = _about(where, path, verdict, places, is_written=role(one.key) == "write")
            found += [(about, verdict)] if about else []
    return _counted(name, found, places)


def _about(where: str, path: str, verdict: Verdict, places: Places, *, is_written: bool) -> Finding | None:
    if verdict.kind in ("host", "hidden"):
        what = f"'{path}' is a path of this host, and the task looks inside the container"
        if verdict.place:
            return Finding("spec-host-path", where, what, f"there it is '{verdict.place}'", f"write '{verdict.place}'")
        why = "another mount lies over its place there"
        return Finding("spec-host-path", where, what, why, "mount that folder on a place of its own")
    if verdict.kind in ("here", "unmapped"):
        here = "is there on this host, but " if verdict.kind == "here" else ""
        why = "what a task writes there is gone with the container" if is_written else "the task will not find it"
        return Finding("spec-unmapped-path", where, f"'{path}' {here}is in no mount", why, places.mounted())
    if verdict.kind == "leads-out" and not is_written:
        what = f"'{path}' is a link to '{verdict.place}', which no mount has"
        why = "a link is followed inside the container, where only mounted folders are"
        return Finding("spec-missing-file", where, what, why, f"mount '{verdict.place}' on '{verdict.place}'")
    if verdict.kind == "missing" and not is_written:
        what = f"'{path}' is not there: it would be '{verdict.host}' on this host"
        return Finding("spec-missing-file", where, what)
    return None


def _path(value: str) -> str:
    """Give the absolute path that a value is; "" for any other, and for what no file can be called."""
    found = _PATH.match(value) if len(value) <= _PATH_MAX and "\0" not in value else None
    try:
        return os.fsdecode(os.fsencode(found[1])) if found else ""
    except UnicodeEncodeError:
        return ""


def _set(key: str) -> str:
    return f"give '{key}' a value there, or on the command line" if key else "give it a value"


def _counted(name: str, found: list[tuple[Finding, Verdict | None]], places: Places) -> list[Finding]:
    """Leave out all but the first of each kind, in the order of the file; only for those is looked what is near."""
    counts: dict[str, int] = {}
    kept: list[Finding] = []
    for finding, verdict in found:
        counts[finding.id] = counts.get(finding.id, 0) + 1
        if counts[finding.id] <= SHOWN:
            if verdict is not None and verdict.kind == "missing":
                finding.hint = places.beside(verdict)
            kept.append(finding)
    left_out = ((id, count - SHOWN) for id, count in counts.items() if count > SHOWN)
    return kept + [Finding(id, name, f"{count} more of the same kind in this file") for id, count in left_out]
