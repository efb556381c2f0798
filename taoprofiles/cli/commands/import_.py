"""import: create profiles from a notebook, a Python script, a folder of them, a mounts file or a profile."""

from __future__ import annotations

import os
import re
import shlex
import stat
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from taoprofiles.cli.output import Result, note, profile_lines, table
from taoprofiles.cli.prompts import ask_value, can_ask, confirm
from taoprofiles.errors import InvalidProfileError, InvalidStateError, TaoprofError, UsageError
from taoprofiles.importer import build
from taoprofiles.importer.cells import NOTEBOOK_LIMIT
from taoprofiles.masking import printable
from taoprofiles.mounts import mapping
from taoprofiles.profiles import convert, manage
from taoprofiles.profiles.model import parse, template, to_toml
from taoprofiles.profiles.rendering import Renderer
from taoprofiles.profiles.store import Store, check_name
from taoprofiles.storage import files

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from taoprofiles.importer.result import ImportResult, Question
    from taoprofiles.storage.paths import Context

INCOMPLETE = 3
"""The exit status if some notebooks of a folder were not imported."""
MEANINGS = {
    "LOCAL_PROJECT_DIR": "the project folder on this machine",
    "HOST_DATA_DIR": "the data folder on this machine",
    "HOST_SPECS_DIR": "the folder of the spec files on this machine",
    "HOST_RESULTS_DIR": "the results folder on this machine",
    "KEY": "the encryption key of your models; nvidia_tlt is the key of NVIDIA's public models",
}
"""What the variables mean that TAO's notebooks leave to the user."""
_SHELL_SCRIPTS = (".sh", ".bash", ".zsh")
_CODE = (".ipynb", ".py")
_FILES_LIMIT = 2000
_NO_SET = "--set is for notebooks and Python scripts"


def import_command(context: Context, args: argparse.Namespace) -> Result:
    given = dict(map(_setting, args.given))
    if args.file is None:
        return _mapping_file(context, args)
    if os.path.isdir(context.expand_user(args.file)):
        return _folder(context, args, given)
    content, where = _read(context, args.file)
    if args.file.endswith(_SHELL_SCRIPTS) or re.search(rb"sh\b", _shebang(content)):
        hint = "run it once, then: taoprof import --name NAME"
        raise UsageError(f"'{where}' is a shell script, and shell scripts are not imported", hint=hint)
    if args.file.endswith(_CODE) or build.is_notebook(content) or b"python" in _shebang(content):
        return _code(context, args, content, where, given)
    if given:
        raise UsageError(_NO_SET, hint="to change a profile: taoprof set NAME KEY=VALUE")
    return _document(context, args, content, where)


def _mapping_file(context: Context, args: argparse.Namespace) -> Result:
    """Import the mapping file as it is now."""
    if args.given:
        raise UsageError(_NO_SET, hint="to change a profile: taoprof set NAME KEY=VALUE")
    if args.name is None:
        raise UsageError("no name given for the new profile", hint="taoprof import --name NAME")
    content = manage.save(context, args.name, replace=args.force)
    where = context.short(context.mapping_file)
    return _imported(context, args.name, where, messages=convert.ignored_keys(content))


def _document(context: Context, args: argparse.Namespace, content: bytes, where: str) -> Result:
    """Import a mounts file or a profile."""
    name = check_name(_stem(args.file) if args.name is None else args.name)
    messages: list[str] = []
    if content.lstrip()[:1] in (b"{", b"["):
        parsed = mapping.parse(content, where)
        text = to_toml(convert.from_mapping(context, parsed, name=name, where=where)).encode()
        messages = convert.ignored_keys(parsed)
    else:
        try:
            parse(content, name=name, path=where)
        except InvalidProfileError as error:
            error.hint = "nothing was changed; correct the file and import it again"
            raise
        text = content
    manage.write(context, "import", name, text, replace=args.force)
    return _imported(context, name, f"'{where}'", messages=messages)


def _imported(context: Context, name: str, where: str, *, messages: list[str]) -> Result:
    data = {"name": name, "path": Store(context).path(name)}
    return Result(data, [f"{where} imported as profile '{name}'"], messages=messages)


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"'{text}' is not NAME=VALUE", hint="such as --set LOCAL_PROJECT_DIR=~/tao/kitti")
    return name, value


def _shebang(content: bytes) -> bytes:
    return content.split(b"\n", 1)[0] if content.startswith(b"#!") else b""


# One notebook or script


def _code(context: Context, args: argparse.Namespace, content: bytes, where: str, given: dict[str, str]) -> Result:
    name = check_name(_stem(args.file) if args.name is None else args.name)
    if not args.force and Store(context).text_or_none(name) is not None:
        raise manage.name_exists("import", name)  # before anything is asked
    path = None if args.file == "-" or args.file.startswith("/dev/fd/") else args.file
    source = build.Source(context, content, where=where, path=path)
    result = source.evaluate(given)
    asked = False
    while result.mapping is not None and result.questions and _may_ask(args) and all(q.name for q in result.questions):
        asked = True
        given |= _ask(context, result.questions, where, os.path.dirname(args.file))
        result = source.evaluate(given)
    build.check_given(result, where)
    profile, notes = build.build(context, result, name=name, where=where)
    notes = [*result.notes, *build.not_followed(result), *notes]
    summary = Renderer(template(profile, name=name), context, name=name, path="not yet written").summary()
    lines = profile_lines(context, f"'{name}'", summary)
    if asked:
        for line in lines:
            note(line)
        if not confirm(f"Save it as profile '{name}'?", default=True):
            return Result({"name": None}, ["not saved"])
        lines = []
    manage.write(context, "import", name, to_toml(profile).encode(), replace=args.force)
    missing = [mount["source"] for mount in summary["mounts"] if not mount["exists"]]
    if missing:
        folders = ", ".join(map(context.short, missing))
        notes.append(f"these folders do not exist: {folders}. To create them: taoprof use {name} --mkdir")
    if source.is_notebook:
        notes.append(f"to replace the cells that set paths: %load_ext taoprofiles, then %taoprof use {name}")
    data = {"name": name, "path": Store(context).path(name), **summary, "notes": notes, "missing": missing}
    return Result(data, [f"'{where}' imported as profile '{name}'", *lines], messages=notes)


def _may_ask(args: argparse.Namespace) -> bool:
    return not args.json and args.file != "-" and can_ask()


def _ask(context: Context, questions: list[Question], where: str, folder: str) -> dict[str, str]:
    """Ask for the values that only the user knows. Raises UsageError if there is no answer."""
    answers = {}
    for question in questions:
        text = f"'{printable(question.text[:60])}'" if question.text else question.reason
        note(f"{where} needs one value from you ({question.location}: {text})")
        default = os.path.normpath(context.absolute(folder))  # where a notebook is, its project most often is
        default = "" if question.name != "LOCAL_PROJECT_DIR" or default == context.home else default
        try:
            meaning = MEANINGS.get(question.name, "")
            answers[question.name] = ask_value(context, question.name, meaning=meaning, default=default)
        except UsageError as error:
            error.hint = build.needed([question.name])
            raise
    return answers


# A folder of them


@dataclass(slots=True)
class _File:
    """A file of a folder: what was read in it, or why it could not be read."""

    path: str
    source: build.Source | None = None
    result: ImportResult | None = None
    name: str = ""
    problem: str = ""
    layout: str | None = None
    needs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    saved: bool = False


def _folder(context: Context, args: argparse.Namespace, given: dict[str, str]) -> Result:
    if args.name is not None:
        raise UsageError("--name is for one file; in a folder each profile is named after its file")
    paths, unread = _paths(context.expand_user(args.file))
    read = [_evaluated(context, path, given) for path in paths]
    results = [file.result for file in read if file.result is not None]
    unused = [name for name in given if all(name in result.unused for result in results)]
    if unused:
        raise UsageError(f"no notebook in '{args.file}' has a variable '{unused[0]}'")
    candidates = [file for file in read if file.result is None or file.result.mapping is not None]
    if not candidates:
        message = f"no notebook or Python script in '{args.file}' writes a mounts file (~/.tao_mounts.json)"
        raise InvalidStateError(message, problems=unread)
    questions = {question.name: question for file in candidates if file.result for question in file.result.questions}
    shared = [question for question in questions.values() if question.name and not question.name.startswith("/")]
    if shared and _may_ask(args):
        given |= _ask(context, shared, args.file, args.file)
        for file in candidates:
            file.result = file.source.evaluate(given) if file.source is not None else None
    names = _names([file.path for file in candidates])
    if shared and _may_ask(args):
        for file, name in zip(candidates, names, strict=True):
            note(f"  {os.path.relpath(file.path, context.expand_user(args.file))} → {name or '-'}")
        if not confirm(f"Save {len(names)} profile{'s' if len(names) > 1 else ''}?", default=True):
            return Result({"folder": args.file, "files": [], "saved": 0}, ["not saved"])
    for file, name in zip(candidates, names, strict=True):
        _import_one(context, args, file, name)
    return _report(args.file, candidates, unread, others=len(read) - len(candidates))


def _report(folder: str, candidates: list[_File], unread: list[str], *, others: int) -> Result:
    rows, listed = [], []
    notes = [f"cannot read {text}" for text in unread]
    for file in candidates:
        relative = os.path.relpath(file.path, os.path.expanduser(folder))
        state = "imported" if file.saved else file.problem
        notes += [f"{relative}: {text}" for text in file.notes]
        rows.append((relative, file.name if file.saved else "-", file.layout or "-", state))
        listed.append(
            {"file": relative, "name": file.name, "layout": file.layout, "saved": file.saved, "needs": file.needs,
             "notes": file.notes, "state": state}
        )  # fmt: skip
    saved = sum(file.saved for file in candidates)
    if others:
        notes.append(f"{others} more {'file writes' if others == 1 else 'files write'} no mounts file")
    lines = [*table([("FILE", "PROFILE", "LAYOUT", "STATE"), *rows]), f"{saved} of {len(candidates)} imported"]
    status = 0 if saved == len(candidates) else INCOMPLETE
    return Result({"folder": folder, "files": listed, "saved": saved}, lines, messages=notes, status=status)


def _paths(folder: str) -> tuple[list[str], list[str]]:
    """Return the notebooks and scripts below a folder, and the folders that cannot be read.

    Links to folders and hidden folders, such as Jupyter's checkpoints, are skipped.
    """
    paths: list[str] = []
    unread: list[str] = []
    waiting = [folder]
    while waiting:  # not os.walk, which fails for folders that are nested a thousand deep
        current = waiting.pop()
        try:
            with os.scandir(current) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            unread.append(f"{current}: {(error.strerror or str(error)).lower()}")
            continue
        folders = [entry for entry in entries if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")]
        waiting += [entry.path for entry in reversed(folders)]
        paths += [entry.path for entry in entries if entry.name.endswith(_CODE) and not os.path.isdir(entry.path)]
        if len(paths) > _FILES_LIMIT:
            raise UsageError(f"'{folder}' has more than {_FILES_LIMIT} notebooks", hint="import a subfolder")
    return paths, unread


def _evaluated(context: Context, path: str, given: dict[str, str]) -> _File:
    file = _File(path)
    try:
        content = files.read(path, NOTEBOOK_LIMIT)
        if content is None:
            raise InvalidStateError("the file was removed")
        file.source = build.Source(context, content, where=path, path=path)
        file.result = file.source.evaluate(given)
    except TaoprofError as error:
        file.problem = error.message
    return file


def _names(paths: Iterable[str]) -> list[str]:
    """Return a profile name for each path, "" if two files would have the same name."""
    stems = {path: _plain(os.path.basename(path).rpartition(".")[0]) for path in paths}
    counts = Counter(stems.values())
    names = {}
    for path, stem in stems.items():
        folder = os.path.basename(os.path.dirname(os.path.abspath(path)))
        names[path] = stem if not stem or counts[stem] == 1 else _plain(f"{folder}-{stem}")
    counts = Counter(names.values())  # with --force, one would replace the other
    return [name if counts[name] == 1 else "" for name in names.values()]


def _import_one(context: Context, args: argparse.Namespace, file: _File, name: str) -> None:
    if file.result is None:
        return
    try:
        if not name:
            raise UsageError("needs a name of its own: import it alone, with --name")
        file.name = check_name(name)
        file.needs = [question.name for question in file.result.questions if question.name]
        profile, notes = build.build(context, file.result, name=name, where=file.path)
        file.notes = [*file.result.notes, *build.not_followed(file.result), *notes]
        file.layout = profile.layout
        manage.write(context, "import", name, to_toml(profile).encode(), replace=args.force)
        file.saved = True
    except TaoprofError as error:
        needs = build.needed(file.needs)
        file.problem = f"needs {needs}" if needs else error.problems[0] if error.problems else error.message


# Input


def _read(context: Context, path: str) -> tuple[bytes, str]:
    """Return the content of a file or pipe, and its name in messages."""
    if path == "-":
        return sys.stdin.buffer.read(NOTEBOOK_LIMIT), build.STDIN
    real = context.expand_user(path)
    try:
        # Only what a shell makes for <(command): reading a pipe that nobody writes to would never end.
        if real.startswith("/dev/fd/") and stat.S_ISFIFO(os.stat(real).st_mode):
            with open(real, "rb") as pipe:
                return pipe.read(NOTEBOOK_LIMIT), path
    except OSError:
        pass  # files.read reports it
    content = files.read(real, NOTEBOOK_LIMIT)
    if content is None:
        raise InvalidStateError(f"there is no file '{path}'")
    return content, path


def _stem(path: str) -> str:
    """Return a profile name made of a file's name."""
    base = os.path.basename(path).lstrip(".")
    stem = _plain(base.rpartition(".")[0] or base)
    if path == "-" or not stem:
        raise UsageError("no name given for the new profile", hint=f"taoprof import {shlex.quote(path)} --name NAME")
    return stem


def _plain(text: str) -> str:
    """Return a profile name made of a text, "" if nothing is left."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("._-")[:64]
