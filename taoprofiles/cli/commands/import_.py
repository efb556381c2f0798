"""import: a mounts file, an exported profile, a notebook, a script, or a folder of notebooks, made into profiles."""

from __future__ import annotations

import os
import re
import shlex
import stat
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from taoprofiles.cli.arguments import add_path
from taoprofiles.cli.formatting import profile_lines
from taoprofiles.cli.output import Result, note, table
from taoprofiles.errors import InvalidProfileError, InvalidStateError, TaoprofError, UsageError
from taoprofiles.importer import build
from taoprofiles.importer.cells import NOTEBOOK_LIMIT
from taoprofiles.masking import printable
from taoprofiles.mounts import mapping
from taoprofiles.profiles import convert, manage
from taoprofiles.profiles.model import parse, template, to_toml
from taoprofiles.profiles.rendering import RenderContext, Renderer
from taoprofiles.profiles.store import Store, check_name
from taoprofiles.profiles.summary import portrait
from taoprofiles.storage import files

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from taoprofiles.importer.result import Found, Question
    from taoprofiles.profiles.model import Profile
    from taoprofiles.storage.paths import Context

LEFT = 3
"""The exit status where some of a folder's notebooks could not become profiles."""

_SCRIPTS = (".sh", ".bash", ".zsh")
_FILES_LIMIT = 2000

MEANINGS = {
    "LOCAL_PROJECT_DIR": "the project's folder on this machine, which all else is in",
    "HOST_DATA_DIR": "the folder of the data on this machine",
    "HOST_SPECS_DIR": "the folder of the spec files on this machine",
    "HOST_RESULTS_DIR": "the folder for results on this machine",
    "KEY": "the key of your models; nvidia_tlt is that of NVIDIA's public ones",
}
"""What TAO's notebooks mean by the variables that they leave to people."""


def import_arguments(parser: argparse.ArgumentParser) -> None:
    add_path(
        parser,
        "file",
        metavar="FILE",
        nargs="?",
        help="a notebook, a shell script, a folder of them, a mounts file or a profile; '-' is stdin; "
        "default: the mapping file",
    )
    parser.add_argument("--name", metavar="NAME", help="the profile to make (default: the file's name)")
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        dest="given",
        help="what a notebook's variable is for you, such as LOCAL_PROJECT_DIR=~/tao/kitti",
    )
    parser.add_argument("--force", action="store_true", help="replace the profile of that name; the history keeps it")


def import_command(context: Context, args: argparse.Namespace) -> Result:
    given = dict(map(_setting, args.given))
    if args.file is None:
        return _mapping_file(context, args)
    if os.path.isdir(os.path.expanduser(args.file)):
        return _folder(context, args, given)
    content, where = _given(args.file)
    if _is_code(args.file, content):
        return _code(context, args, content, where, given)
    if given:
        raise UsageError("--set is for notebooks and scripts", hint="'taoprof set NAME KEY=VALUE' changes a profile")
    name = check_name(_stem(args.file) if args.name is None else args.name)
    messages: list[str] = []
    if content.lstrip()[:1] in (b"{", b"["):
        found = mapping.parse(content, where)
        text = to_toml(convert.from_mapping(context, found, name=name, where=where)).encode()
        messages = convert.ignored(found)
    else:
        try:
            parse(content, name=name, path=where)
        except InvalidProfileError as error:
            error.hint = "nothing was changed; correct the file and import it again"
            raise
        text = content
    manage.write(context, "import", name, text, replace=args.force)
    return Result(
        {"name": name, "path": Store(context).path(name)},
        [f"'{where}' imported as profile '{name}'"],
        messages=messages,
    )


def _mapping_file(context: Context, args: argparse.Namespace) -> Result:
    """Import the mapping file as it is now."""
    if args.given:
        raise UsageError("--set is for notebooks and scripts", hint="'taoprof set NAME KEY=VALUE' changes a profile")
    if args.name is None:
        raise UsageError("no name given for the new profile", hint="taoprof import --name NAME")
    content = manage.save(context, args.name, replace=args.force)
    return Result(
        {"name": args.name, "path": Store(context).path(args.name)},
        [f"{context.short(context.mapping_file)} imported as profile '{args.name}'"],
        messages=convert.ignored(content),
    )


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"'{text}' sets nothing", hint="such as --set LOCAL_PROJECT_DIR=~/tao/kitti")
    return name, value


def _is_code(path: str, content: bytes) -> bool:
    if path.endswith((".ipynb", *_SCRIPTS)) or build.is_notebook(content):
        return True
    return content.startswith(b"#!") and b"sh" in content.split(b"\n", 1)[0]


# One notebook or script


def _code(context: Context, args: argparse.Namespace, content: bytes, where: str, given: dict[str, str]) -> Result:
    name = check_name(_stem(args.file) if args.name is None else args.name)
    if not args.force and Store(context).text_or_none(name) is not None:
        raise manage.taken("import", name)  # before anything is asked
    path = None if args.file == "-" or args.file.startswith("/dev/fd/") else args.file
    found = build.read(context, content, where=where, path=path, given=given)
    asked = False
    while found.mapping is not None and found.questions and _may_ask(args):
        asked = True
        given |= _asked(found.questions, where)
        found = build.read(context, content, where=where, path=path, given=given)
    made, notes = build.build(context, found, name=name, where=where)
    seen = _portrait(context, made, name)
    lines = profile_lines(context, f"'{name}'", seen)
    if asked:
        for line in lines:
            note(line)
        note(f"save it as profile '{name}' (Y/n)? ", end="")
        if _line("nothing was saved").lower() not in ("", "y", "yes"):
            raise UsageError("nothing was saved")
        lines = []
    manage.write(context, "import", name, to_toml(made).encode(), replace=args.force)
    missing = [mount["source"] for mount in seen["mounts"] if not mount["exists"]]
    if missing:
        notes.append(
            f"not there yet: {', '.join(map(context.short, missing))}; 'taoprof use {name} --mkdir' makes them"
        )
    if build.is_notebook(content):
        notes.append(
            f"in the notebook, instead of the cells that set paths: %load_ext taoprofiles, then %taoprof use {name}"
        )
    data = {"name": name, "path": Store(context).path(name), **seen, "notes": notes, "missing": missing}
    return Result(data, [f"'{where}' imported as profile '{name}'", *lines], messages=notes)


def _may_ask(args: argparse.Namespace) -> bool:
    return not args.json and args.file != "-" and sys.stdin.isatty() and sys.stderr.isatty()


def _asked(questions: list[Question], where: str) -> dict[str, str]:
    """Ask for what only a person can know. Raises UsageError where there is no answer."""
    answers = {}
    note(f"taoprof: '{where}' leaves {'one value' if len(questions) == 1 else f'{len(questions)} values'} to you")
    for question in questions:
        stands = f" has '{printable(question.text[:60])}'" if question.text else f": {question.reason}"
        note(f"{question.place}{stands}")
        meaning = MEANINGS.get(question.name)
        if meaning:
            note(f"it is {meaning}")
        note(f"{printable(question.name)} = ", end="")
        missing = f"no value given for {question.name}"
        answers[question.name] = _line(missing)
        if not answers[question.name]:
            raise UsageError(missing, hint=build.needed([question.name]))
    return answers


def _line(otherwise: str) -> str:
    """Read what a person answers; Ctrl-D is none. Raises UsageError with the text that is given."""
    try:
        line = sys.stdin.readline()
    except UnicodeDecodeError:
        raise UsageError(f"{otherwise}: what was typed is not valid text") from None
    if not line:
        note("")
        raise UsageError(otherwise)
    return line.strip()


def _portrait(context: Context, made: Profile, name: str) -> dict[str, Any]:
    whole = template(made, name=name)
    renderer = Renderer(whole, RenderContext.of(context), name=name, path="not yet written")
    return portrait(context, whole, renderer)


# A folder of them


def _folder(context: Context, args: argparse.Namespace, given: dict[str, str]) -> Result:
    if args.name is not None:
        raise UsageError("--name is for one file; in a folder each profile is called as its file")
    paths, unread = _paths(args.file)
    found = {path: _look(context, path, given) for path in paths}
    unknown = [name for name in given if not any(isinstance(one, tuple) and name in one[1] for one in found.values())]
    if unknown:
        raise UsageError(f"no notebook in '{args.file}' has a variable '{unknown[0]}' to be set")
    mine = {path: one for path, one in found.items() if not (isinstance(one, tuple) and one[0].mapping is None)}
    if not mine:
        none = f"no notebook or script in '{args.file}' writes a mounts file (~/.tao_mounts.json)"
        raise InvalidStateError(none, problems=unread)
    questions = {
        question.name: question for one in mine.values() if isinstance(one, tuple) for question in one[0].questions
    }
    shared = [question for question in questions.values() if not question.name.startswith("/")]
    if shared and _may_ask(args):
        given |= _asked(shared, args.file)
        mine = {path: _look(context, path, given) for path in mine}
    names = _names(mine)
    rows, listed, notes = [], [], [f"not looked at: {text}" for text in unread]
    for path, one in mine.items():
        told = _import_one(context, args, path, names[path], one)
        listed.append(told)
        notes += [f"{told['file']}: {text}" for text in told["notes"]]
        rows.append((told["file"], told["name"] if told["saved"] else "-", told["layout"] or "-", told["state"]))
    saved = sum(told["saved"] for told in listed)
    lines = [*table([("FILE", "PROFILE", "LAYOUT", "STATE"), *rows]), f"{saved} of {len(listed)} imported"]
    others = len(found) - len(mine)
    if others:
        notes.append(f"{others} more {'file writes' if others == 1 else 'files write'} no mounts file")
    data = {"folder": args.file, "files": listed, "saved": saved}
    return Result(data, lines, messages=notes, status=0 if saved == len(listed) else LEFT)


def _paths(folder: str) -> tuple[list[str], list[str]]:
    """List the notebooks and scripts of a folder, deep, and what cannot be looked at.

    Copies that Jupyter keeps are passed over, and so are links to folders.
    """
    found: list[str] = []
    unread: list[str] = []
    waiting = [os.path.expanduser(folder)]
    while waiting:  # not os.walk, which gives up where folders are a thousand deep
        here = waiting.pop()
        try:
            with os.scandir(here) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            unread.append(f"{here}: {(error.strerror or str(error)).lower()}")
            continue
        inner = [one.path for one in entries if one.is_dir(follow_symlinks=False) and not one.name.startswith(".")]
        waiting += reversed(inner)
        files_here = [one.path for one in entries if one.name.endswith((".ipynb", *_SCRIPTS))]
        found += [path for path in files_here if not os.path.isdir(path)]
        if len(found) > _FILES_LIMIT:
            raise UsageError(f"'{folder}' has more than {_FILES_LIMIT} notebooks", hint="import a folder inside of it")
    return found, unread


def _look(context: Context, path: str, given: dict[str, str]) -> tuple[Found, set[str]] | str:
    """Read one file with those of the given values that it has a use for; a text says why it cannot be read."""
    try:
        content = files.read(path, NOTEBOOK_LIMIT)
        if content is None:
            return "it is gone"
        first = build.read(context, content, where=path, path=path, given={})
        known = {question.name for question in first.questions} | set(first.names)
        useful = {name: value for name, value in given.items() if name in known}
        return build.read(context, content, where=path, path=path, given=useful), set(useful)
    except TaoprofError as error:
        return error.message


def _names(paths: Iterable[str]) -> dict[str, str]:
    """Name each profile as its file, where two are called alike with the folder's name before it; "" is no name."""
    stems = {path: _plain(os.path.basename(path).rpartition(".")[0]) for path in paths}
    alike = Counter(stems.values())
    names = {}
    for path, stem in stems.items():
        folder = os.path.basename(os.path.dirname(os.path.abspath(path)))
        names[path] = stem if not stem or alike[stem] == 1 else _plain(f"{folder}-{stem}")
    # With --force one would take the place of the other.
    alike = Counter(names.values())
    return {path: name if alike[name] == 1 else "" for path, name in names.items()}


def _import_one(context: Context, args: argparse.Namespace, path: str, name: str, one: Any) -> dict[str, Any]:
    told: dict[str, Any] = {
        "file": os.path.relpath(path, os.path.expanduser(args.file)),
        "name": name,
        "layout": None,
        "saved": False,
        "needs": [],
        "notes": [],
        "state": "",
    }
    try:
        if isinstance(one, str):
            raise InvalidStateError(one)
        if not name:
            raise UsageError("needs a name of its own: import it alone, with --name")
        told["needs"] = [question.name for question in one[0].questions]
        made, told["notes"] = build.build(context, one[0], name=check_name(name), where=path)
        told["layout"] = made.layout
        manage.write(context, "import", name, to_toml(made).encode(), replace=args.force)
        told["saved"], told["state"] = True, "imported"
    except TaoprofError as error:
        needs = build.needed(told["needs"])
        told["state"] = f"needs {needs}" if needs else error.problems[0] if error.problems else error.message
    return told


def _given(path: str) -> tuple[bytes, str]:
    """Read what is to be imported, also from a pipe such as <(command); give how to call it, too."""
    if path == "-":
        return sys.stdin.buffer.read(NOTEBOOK_LIMIT), build.STDIN
    real = os.path.expanduser(path)
    try:
        # Only what a shell makes for <(command): of a pipe that nobody writes to, reading would never end.
        if real.startswith("/dev/fd/") and stat.S_ISFIFO(os.stat(real).st_mode):
            with open(real, "rb") as pipe:
                return pipe.read(NOTEBOOK_LIMIT), path
    except OSError:
        pass  # what is wrong with it, the next one says
    content = files.read(real, NOTEBOOK_LIMIT)
    if content is None:
        raise InvalidStateError(f"there is no file '{path}'")
    return content, path


def _stem(path: str) -> str:
    """Make a profile's name of a file's."""
    base = os.path.basename(path).lstrip(".")
    stem = _plain(base.rpartition(".")[0] or base)
    if path == "-" or not stem:
        raise UsageError("which profile: no --name given", hint=f"'taoprof import {shlex.quote(path)} --name NAME'")
    return stem


def _plain(text: str) -> str:
    """Make a profile's name of a text: what no name may have becomes a '-'; "" where nothing is left."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("._-")[:64]
