"""import: create profiles from a notebook, a Python script, a folder of them, a mounts file or a profile."""

from __future__ import annotations

import codecs
import os
import re
import sys
import tomllib
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from taoprofiles.cli.arguments import again, split_setting
from taoprofiles.cli.output import Result, after_change, missing_folders, print_stderr, profile_lines, table
from taoprofiles.cli.prompts import ask_value, can_ask, confirm
from taoprofiles.errors import InvalidProfileError, InvalidStateError, TaoprofError, UsageError, reason_of
from taoprofiles.export.plan import OF_PROGRAMS
from taoprofiles.importer import build
from taoprofiles.importer.ipython import NOTEBOOK_LIMIT
from taoprofiles.importer.state import doubt, is_placeholder
from taoprofiles.masking import printable
from taoprofiles.profiles import convert, kernels, manage
from taoprofiles.profiles.model import OWNER_KEYS, Profile, template, to_toml
from taoprofiles.profiles.rendering import NOT_WRITTEN, Renderer
from taoprofiles.profiles.store import Store, check_name, plain_name
from taoprofiles.storage import files

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from taoprofiles.importer.build import ImportResult, Question
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
_FILES_LIMIT = 2000


def import_command(context: Context, args: argparse.Namespace) -> Result:
    if not args.kernel:
        if args.in_place:
            raise UsageError("--in-place is about the kernel: add --kernel")
        return _import(context, args)
    if args.file is not None and os.path.isdir(context.expand_user(args.file)):
        raise UsageError("--kernel is for one file", hint="for a profile that exists: taoprof kernel install NAME")
    if args.in_place and not (args.file or "").endswith(".ipynb"):
        raise UsageError("--in-place is for notebooks (.ipynb)")
    if args.file not in (None, "-") and not files.exists(context.expand_user(args.file)):
        raise _no_file(context, args.file)
    python = kernels.find_python(context, None)  # before anything is asked
    result = _import(context, args)
    name = result.data["name"]
    if name is None:
        return result
    with after_change(f"profile '{name}' was created", again=_next_step(args, name)):
        kernel = kernels.install(context, name, python, kernels.user_folder(context))
    title, backup, messages = kernels.display_name(name), None, list(result.messages)
    lines = [f"kernel '{title}' installed in {context.short(kernel['path'])}"]
    choose = f"choose the kernel '{title}' in the notebook"
    if args.in_place:
        with after_change(f"profile '{name}' and its kernel were created", again=choose):
            backup = kernels.set_in_notebook(context, context.absolute(args.file), name)
        lines.append(f"'{args.file}' uses it" + (f" (before: {context.short(backup)})" if backup else ""))
    else:
        messages.append(f"to use it, {choose}")
    data = {**result.data, "kernel": kernel, "backup": backup}
    return result._replace(data=data, lines=[*result.lines[:1], *lines, *result.lines[1:]], messages=messages)


def _next_step(args: argparse.Namespace, name: str) -> str:
    """Return what to do after an error that follows the change: 'import' would refuse the name now."""
    return f"run 'taoprof {'kernel install' if args.kernel else 'show'} {name}'"


def _import(context: Context, args: argparse.Namespace) -> Result:
    user_values = dict(map(_setting, args.user_values))
    if args.file is not None and os.path.isdir(context.expand_user(args.file)):
        return _import_folder(context, args, user_values)
    where = context.short(context.mapping_file) if args.file is None else args.file
    content = b"" if args.file is None else _content(context, args.file)
    name = check_name(_stem(args) if args.name is None else args.name)
    if build.find_kind(where, content):
        return _import_code(context, args, name, content, user_values)
    if user_values:
        raise UsageError(
            "--set is for notebooks and Python scripts", hint="to change a profile: taoprof set NAME KEY=VALUE"
        )
    if args.file is None:
        messages = manage.save(context, name, replace=args.force)
    else:
        messages = _import_document(context, args, name, content)
        where = f"'{where}'"
    with after_change(f"profile '{name}' was created", again=_next_step(args, name)):
        messages += _still_needed(context, name)
    data = {"name": name, "path": Store(context).path(name)}
    return Result(data, [f"{where} imported as profile '{name}'"], messages=messages)


def _import_document(context: Context, args: argparse.Namespace, name: str, content: bytes) -> list[str]:
    """Import a mounts file or a profile, and return messages about it."""
    messages, is_profile = list[str](), _is_profile(content)
    if content.removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"{", b"[") and not is_profile:
        profile, messages = convert.from_mounts_file(context, content, name=name, where=args.file)
        content = to_toml(profile).encode()
    elif not args.file.endswith(".toml") and not is_profile:
        hint = f"run what writes ~/.tao_mounts.json once, then: {_import_of_mapping(args)}"
        raise UsageError(f"'{args.file}' is not a notebook, a Python script, a mounts file or a profile", hint=hint)
    try:
        store = Store(context)
        profile = store.profile(name, store.source(name, content)._replace(path=args.file))
    except InvalidProfileError as error:
        error.hint = "nothing was changed; correct the file and import it again"
        raise
    if profile.project is not None and profile.extends is None:  # it was trusted by somebody else, for other folders
        content = manage.without_keys(content, ["project"])
    own = tomllib.loads(content.decode())
    actions = {key: own[key] for key in OWNER_KEYS if own.get(key)}
    variables = own.get("variables", {})  # some would act on the programs of a run, as LD_PRELOAD does
    actions |= {f"variables.{key}": value for key, value in variables.items() if OF_PROGRAMS.fullmatch(key)}
    if actions and not args.yes and not _agrees(args, actions):
        content = manage.without_keys(content, list(actions))
        messages.append(f"left out: {', '.join(actions)}; to keep them after you have read the file: --yes")
    manage.write(context, "import", name, content, replace=args.force)
    return messages


def _agrees(args: argparse.Namespace, actions: dict[str, str | list[str]]) -> bool:
    """Ask whether to keep what would run programs or send messages. Without a terminal the answer is no."""
    if not _may_ask(args):
        return False
    print_stderr(f"'{args.file}' does this with each run:")
    for key, value in actions.items():
        for text in [value] if isinstance(value, str) else value:
            print_stderr(*(f"  {key}: {line}" for line in text.splitlines()))
    return confirm("Keep it?")


def _still_needed(context: Context, name: str) -> list[str]:
    """Return messages that name the environment variables and folders that a profile needs and that are not there."""
    renderer = Store(context).renderer(name)
    needed: dict[str, None] = {}
    for render in (renderer.variables, renderer.mapping):
        try:
            render()
        except InvalidProfileError as error:  # such as an environment variable that is not set here
            needed |= dict.fromkeys(error.problems)
    if needed:
        return [f"still needed for profile '{name}': {problem}" for problem in needed]
    return [*_missing(context, name, renderer.summary()), *_problems(context, name)]


def _problems(context: Context, *names: str) -> list[str]:
    """Return the message about what ``check`` would find in new profiles besides folders that do not exist."""
    from taoprofiles.check.report import check_settings

    try:
        counts = {name: sum(finding.id != "src-missing" for finding in check_settings(context, name)) for name in names}
    except TaoprofError as error:  # a file server that does not answer
        return [f"not checked: {error}"]
    faulty = [name for name, count in counts.items() if count]
    if not faulty:
        return []
    what = f"{counts[faulty[0]]} problem{'s' if counts[faulty[0]] > 1 else ''}"
    if len(faulty) > 1:
        what = f"{len(faulty)} profiles have problems ({', '.join(faulty[:5])}{', …' if len(faulty) > 5 else ''})"
    return [f"{what}: taoprof check {faulty[0]}"]


def _missing(context: Context, name: str, summary: dict[str, Any], *, switch: bool = True) -> list[str]:
    missing = [mount["source"] for mount in summary["mounts"] if mount["exists"] is False]
    messages = [f"'{path}' is not a folder's path: {doubt(path)}" for path in missing if doubt(path)]
    folders = [path for path in missing if not doubt(path)]
    return [*messages, *missing_folders(context, name, folders, switch=switch)]


def _is_profile(content: bytes) -> bool:
    """Check whether the content is TOML with a key of a profile: 'A=1' in another file is TOML too."""
    try:
        return not {"schema", *Profile.model_fields}.isdisjoint(tomllib.loads(content.decode()))
    except (ValueError, RecursionError):  # UnicodeDecodeError and TOMLDecodeError are ValueErrors
        return False


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = split_setting(text)
    if not equals or not name:
        raise UsageError(f"'{text}' is not NAME=VALUE", hint="such as --set LOCAL_PROJECT_DIR=~/tao/kitti")
    return name, value


# One notebook or script


def _import_code(
    context: Context, args: argparse.Namespace, name: str, content: bytes, user_values: dict[str, str]
) -> Result:
    where = build.STDIN if args.file == "-" else args.file
    if not args.force and Store(context).text_or_none(name) is not None:
        raise manage.name_exists_error("import", name)  # before anything is asked
    source = build.SourceFile(context, content, where=where, path=None if args.file == "-" else args.file)
    result = source.evaluate(user_values)
    if not any(unused.startswith("/") for unused in result.unused):  # a mount may become known by an answer
        build.reject_unused_values(result, where)  # before anything is asked
    has_asked = False
    while result.mapping is not None and result.questions and _may_ask(args) and all(q.name for q in result.questions):
        has_asked = True
        questions = [(question, args.file) for question in result.questions]
        user_values |= _ask(context, args, questions, os.path.dirname(args.file))
        result = source.evaluate(user_values)
    build.reject_unused_values(result, where)
    run_once = f"run it once, then: {_import_of_mapping(args)}"
    profile, notes = build.build(result, name=name, where=where, command=again(args), run_once=run_once)
    complete = result.context_with_secrets()
    summary = Renderer(template(profile, name=name), complete, name=name, path=NOT_WRITTEN).summary()
    lines = profile_lines(context, f"'{name}'", summary)
    if has_asked:
        print_stderr(*lines)
        if not confirm(f"Save it as profile '{name}'?", default=True):
            return Result({"name": None}, ["not saved"])
        lines = []
    manage.write(context, "import", name, to_toml(profile).encode(), replace=args.force)
    missing = [mount["source"] for mount in summary["mounts"] if mount["exists"] is False]
    with after_change(f"profile '{name}' was created", again=_next_step(args, name)):
        notes += [*_missing(context, name, summary, switch=not args.kernel), *_problems(context, name)]
    if source.is_notebook and not args.kernel:
        kernel = kernels.display_name(name)  # %taoprof works only where the notebook's kernel can import it
        notes.append(f"to use it in the notebook: taoprof kernel install {name}, then choose the kernel '{kernel}'")
    data = {"name": name, "path": Store(context).path(name), **summary, "notes": notes, "missing": missing}
    return Result(data, [f"'{where}' imported as profile '{name}'", *lines], messages=notes)


def _may_ask(args: argparse.Namespace) -> bool:
    return not args.json and args.file != "-" and can_ask()


def _ask(
    context: Context, args: argparse.Namespace, questions: list[tuple[Question, str]], folder: str
) -> dict[str, str]:
    """Ask for the values that only the user knows, each with the file that needs it.

    Raises UsageError if there is no answer.
    """
    answers = {}
    for question, file in questions:
        text = f"'{printable(question.text[:60])}'" if question.text else ""
        reason = "" if is_placeholder(question.text) else question.reason
        details = ": ".join(filter(None, [text, reason]))
        print_stderr(f"{file} needs one value from you ({question.location}: {details})")
        notebook_folder = os.path.normpath(context.absolute(folder))  # where a notebook is, its project most often is
        is_project = question.name == "LOCAL_PROJECT_DIR" and notebook_folder != context.home
        default = question.suggestion or (notebook_folder if is_project else "")
        try:
            meaning = MEANINGS.get(question.name, "")
            answers[question.name] = ask_value(context, question.name, meaning=meaning, default=default)
        except UsageError as error:
            error.hint = again(args, build.set_options([question]))
            raise
    return answers


# A folder of them


@dataclass(slots=True)
class _File:
    """A file of a folder: its profile, or why there is none."""

    path: str
    relative: str
    source: build.SourceFile | None = None
    result: ImportResult | None = None
    name: str = ""
    profile: Profile | None = None
    needs: list[Question] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problem: str = ""


def _import_folder(context: Context, args: argparse.Namespace, user_values: dict[str, str]) -> Result:
    if args.name is not None:
        raise UsageError("--name is for one file; in a folder each profile is named after its file")
    candidates, notes = _candidates(context, args, user_values)
    questions = _shared_questions(context, args, candidates)
    has_asked = bool(questions) and _may_ask(args)
    if has_asked:
        user_values |= _ask(context, args, questions, args.file)
        for file in candidates:
            file.result = file.source.evaluate(user_values) if file.source is not None else None
    for file in candidates:
        with _problem_of(file):
            _build(context, args, file)
    count = sum(file.profile is not None for file in candidates)
    if has_asked and count:
        print_stderr(*_table(candidates, "new"))
        if not confirm(f"Save {count} profile{'s' if count > 1 else ''}?", default=True):
            return Result({"folder": args.file, "files": [], "saved": 0}, ["not saved"])
    for file in candidates:
        if file.profile is not None:
            with _problem_of(file):
                manage.write(context, "import", file.name, to_toml(file.profile).encode(), replace=args.force)
    notes += _problems(context, *(file.name for file in candidates if file.profile is not None))
    return _report(args.file, candidates, notes)


def _shared_questions(context: Context, args: argparse.Namespace, files: list[_File]) -> list[tuple[Question, str]]:
    """Return the questions of all files that can be saved, each with the first file."""
    questions: dict[str, tuple[Question, str]] = {}
    for file in files:
        for question in file.result.questions if file.result is not None and not _is_taken(context, args, file) else ():
            if question.name and not question.name.startswith("/"):
                questions.setdefault(question.name, (question, file.path))
    return [*questions.values()]


def _is_taken(context: Context, args: argparse.Namespace, file: _File) -> bool:
    return bool(file.name) and not args.force and Store(context).text_or_none(file.name) is not None


def _candidates(
    context: Context, args: argparse.Namespace, user_values: dict[str, str]
) -> tuple[list[_File], list[str]]:
    """Return the files that write a mounts file or cannot be read, and notes about the others.

    Raises InvalidStateError if there are none, and UsageError for a given name that no file has.
    """
    paths, unread = _paths(context.expand_user(args.file))
    read = []
    for path in paths:
        file = _File(path, os.path.relpath(path, context.expand_user(args.file)))
        read.append(file)
        with _problem_of(file):
            file.source = build.SourceFile(context, _content(context, path), where=path, path=path)
            file.result = file.source.evaluate(user_values)
    results = [file.result for file in read if file.result is not None]
    unused = [name for name in user_values if all(name in result.unused for result in results)]
    if unused:
        raise UsageError(f"no notebook in '{args.file}' has a variable '{unused[0]}'")
    candidates = [file for file in read if file.result is None or file.result.mapping is not None]
    if not candidates:
        message = f"no notebook or Python script in '{args.file}' writes a mounts file (~/.tao_mounts.json)"
        unfollowed = [f"{file.relative}: {line}" for file in read if file.result for line in file.result.may_write]
        if unfollowed:
            message += " in code that import can evaluate"
        raise InvalidStateError(message, problems=unread + unfollowed, hint=build.RUN_ONCE if unfollowed else "")
    for file, name in zip(candidates, _names(args.file, [file.relative for file in candidates]), strict=True):
        file.name = name if file.result is not None else ""
    notes = [f"cannot read {text}" for text in unread]
    others = len(read) - len(candidates)
    if others:
        few = "file skipped: it writes" if others == 1 else "files skipped: they write"
        notes.append(f"{others} other {few} no mounts file")
    return candidates, notes


@contextmanager
def _problem_of(file: _File) -> Iterator[None]:
    """Record an error as the problem of one file: the others are still imported."""
    try:
        yield
    except TaoprofError as error:
        needs = build.set_options(file.needs)
        file.problem = f"needs {needs}" if needs else error.problems[0] if error.problems else error.message
        file.profile = None


def _build(context: Context, args: argparse.Namespace, file: _File) -> None:
    if file.result is None:
        return
    if not file.name:
        raise UsageError("no profile name can be made of its path: import this file alone with --name")
    if _is_taken(context, args, file):
        raise manage.name_exists_error("import", file.name)
    file.needs = [question for question in file.result.questions if question.name]
    file.profile, file.notes = build.build(file.result, name=file.name, where=file.path)
    if file.name != plain_name(os.path.basename(file.path).rpartition(".")[0]):
        file.notes.append("its folder or ending is in the profile's name, since other files have the same name")


def _table(candidates: list[_File], state: str) -> list[str]:
    rows = [
        (file.relative, file.name, file.profile.layout, state) if file.profile else
        (file.relative, "-", "-", file.problem) for file in candidates
    ]  # fmt: skip
    return table([("FILE", "PROFILE", "LAYOUT", "STATE"), *rows])


def _report(folder: str, candidates: list[_File], notes: list[str]) -> Result:
    noted: dict[str, dict[str, str]] = {}
    for file in candidates:
        for text in file.notes:  # one line for all files of which the same is to say, wherever it stands in them
            noted.setdefault(re.sub(r"^cell \d+, line \d+: |: cell \d+, .*", "", text), {})[file.relative] = text
    for text, by_file in noted.items():
        first = next(iter(by_file))
        notes.append(
            f"{first}: {by_file[first]}" if len(by_file) == 1 else f"{len(by_file)} files ({first}, …): {text}"
        )
    listed = [
        {"file": file.relative, "name": file.name, "layout": file.profile.layout if file.profile else None,
         "saved": file.profile is not None, "needs": [question.name for question in file.needs], "notes": file.notes,
         "state": file.problem or "imported"}
        for file in candidates
    ]  # fmt: skip
    saved = sum(file.profile is not None for file in candidates)
    lines = [*_table(candidates, "imported"), f"{saved} of {len(candidates)} imported"]
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
            unread.append(f"{current}: {reason_of(error)}")
            continue
        folders = [entry for entry in entries if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")]
        waiting += [entry.path for entry in reversed(folders)]
        paths += [entry.path for entry in entries if build.find_kind(entry.name, b"") and not os.path.isdir(entry.path)]
        if len(paths) > _FILES_LIMIT:
            raise UsageError(
                f"'{folder}' has more than {_FILES_LIMIT} notebooks and scripts", hint="import a subfolder"
            )
    return paths, unread


def _names(folder: str, relative: list[str]) -> list[str]:
    """Return a profile name for each file of a folder.

    That is the file's own name; of several alike, with as many folders in front as tell them apart, or with the
    ending. "" if none of these does.
    """
    root = os.path.basename(os.path.abspath(folder))
    forms: list[list[str]] = []
    for path in relative:
        stem, _, ending = os.path.basename(path).rpartition(".")
        folders = [root, *filter(None, os.path.dirname(path).split("/"))]
        longer = ["-".join([*folders[start:], stem]) for start in reversed(range(len(folders)))]
        forms.append([plain_name(text) for text in (stem, *longer, f"{stem}-{ending}")])
    names = [form.pop(0) for form in forms]
    while shared := {name for name, count in Counter(names).items() if name and count > 1}:
        names = [
            (form.pop(0) if form else "") if name in shared else name for name, form in zip(names, forms, strict=True)
        ]
    return names


# Input


def _content(context: Context, path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read(NOTEBOOK_LIMIT)
    content = files.read(context.expand_user(path), NOTEBOOK_LIMIT)
    if content is None:
        raise _no_file(context, path)
    return content


def _no_file(context: Context, path: str) -> InvalidStateError:
    """Return the error for a path without a file; the hint names the most similar notebook of its folder."""
    folder, name = os.path.split(context.absolute(path))
    try:
        names = sorted(other for other in os.listdir(folder) if other.endswith(".ipynb"))
    except OSError:
        hint = f"the folder '{folder}' does not exist or cannot be read"
    else:
        hint = f"there is no notebook in '{folder}'. To create a profile without one: taoprof new NETWORK"
        if names:
            similar = max(names, key=lambda other: SequenceMatcher(None, name, other).ratio())
            hint = f"did you mean '{os.path.join(os.path.dirname(path), similar)}'?"
    return InvalidStateError(f"there is no file '{path}'", hint=hint)


def _import_of_mapping(args: argparse.Namespace) -> str:
    """Return the command that makes of the mapping file the profile that the command was to make of another file."""
    return f"taoprof import --name {args.name or 'NAME'}{' --kernel' if args.kernel else ''}"


def _stem(args: argparse.Namespace) -> str:
    """Return a profile name made of the file's name. Raises UsageError."""
    if args.file is None:
        hint = "taoprof import NOTEBOOK.ipynb; for the mapping file as it is: taoprof import --name NAME"
        raise UsageError("no file given", hint=hint)
    base = os.path.basename(args.file).lstrip(".")
    stem = plain_name(base.rpartition(".")[0] or base)
    if not stem:
        raise UsageError("no name given for the new profile", hint=again(args, "--name NAME"))
    return stem
