"""Preflight checks: errors with which a run of a mapping would certainly fail, and missing folders."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from taoprofiles.errors import InvalidProfileError, TaoprofError
from taoprofiles.launcher.argv import container_words, parse_launcher_argv, unwrapped
from taoprofiles.launcher.behaviour import Host, Location, resolve_mounts, runs_in_ci
from taoprofiles.masking import mask_command
from taoprofiles.mounts.mapping import mounted, sources
from taoprofiles.profiles.rendering import Renderer
from taoprofiles.rules import container
from taoprofiles.rules.finding import ERROR, WARNING, Finding, in_profile
from taoprofiles.storage.files import errors_as
from taoprofiles.storage.paths import Context
from taoprofiles.system import filesystem

_ATTEMPTS = {
    "use": "switch to",
    "run": "start a run with",
    "shell": "open a shell with",
    "kernel": "start a kernel with",
}


class Attempt(NamedTuple):
    """What is to be done with a profile: the taoprof command, and of a run what it starts and its options as words."""

    doing: str = "use"
    command: Sequence[str] = ()
    options: Sequence[str] = ()


def check_mapping(
    context: Context,
    mapping: dict[str, Any],
    *,
    name: str,
    mkdir: bool,
    check: bool,
    attempt: Attempt | None = None,
    variables: Mapping[str, str] | None = None,
) -> list[str]:
    """Check a mapping and return the folders to create: with ``mkdir`` the missing sources.

    Folders inside a source that Docker would create as root are included, for a run also without ``mkdir``. ``name`` is
    the profile, for messages, and ``variables`` are its own; ``attempt`` is by default ``use``.

    Raises InvalidProfileError if ``check`` is set and a run would certainly fail; with ``mkdir`` a missing folder is no
    error.
    """
    locate, attempt = in_profile(mapping), attempt or Attempt()
    host, command = Host(context.environ, context.folder), attempt.command
    findings = list(container.check_mounts(resolve_mounts(mapping, host), locate, host))
    if check:
        envs = mapping.get("Envs", [])
        located = [(Location("Envs", number), entry) for number, entry in enumerate(envs)]
        names = [entry["variable"] for entry in envs]
        findings += container.check_user(mapping.get("DockerOptions"), names, locate, context)
        findings += container.check_variables(located, locate)
        if command:
            from taoprofiles.rules.command_paths import CommandContext, check_command  # not for 'use'

            command_context = CommandContext(
                mounted(mapping), variables or {}, context.environ, is_quoted=True, profile=name
            )
            if runs_in_ci(context.environ) and parse_launcher_argv(unwrapped(command)) is not None:
                findings += container.check_ci_values(resolve_mounts(mapping, host), located, locate)
            in_command = [finding for finding in check_command(command, command_context) if finding.severity == ERROR]
            findings += in_command
            attempt = attempt._replace(command=command if in_command else ())
    starts = attempt.doing != "use"
    errors, folders = _errors_and_folders(findings, mkdir=mkdir, starts=starts)
    if check and errors:
        raise _preflight_error(context, name, errors, mapping["Mounts"], attempt)
    return folders + (container.find_cache_folders(mapping, context) if mkdir or starts else [])


def explain_read_only(renderer: Renderer, mapping: Mapping[str, Any]) -> list[str]:
    """Return the warning about mounts that are read-only in the profile: with a launcher they are not."""
    pairs = zip(mapping["Mounts"], renderer.read_only, strict=True)
    where = ", ".join(mount["destination"] for mount, is_read_only in pairs if is_read_only)
    return [f"warning: the container can write to {where}: the launcher has no read-only mounts"] if where else []


def check_direct_run(
    context: Context,
    renderer: Renderer,
    attempt: Attempt,
    *,
    image: str | None,
    gpus: str | None,
    mkdir: bool,
    check: bool,
    on_cluster: bool,
) -> tuple[list[str], list[str]]:
    """Do what ``check_mapping`` does for a run without the launcher: everything that ``taoprof check`` looks at.

    The second value names what was not checked, one line each. ``image`` and ``gpus`` are those of the command line;
    ``on_cluster``: no engine is asked, and the folders are on a file system that this machine has too.
    """
    from taoprofiles.rules import direct  # not for 'use', nor those below
    from taoprofiles.rules.command_paths import CommandContext
    from taoprofiles.system.engine import find_endpoint

    name, rendered, words = renderer.name, renderer.mapping(), container_words(list(attempt.command))
    host = Host(context.environ, context.folder)
    start = direct.from_mapping(rendered, in_profile(rendered), host, words, renderer, image=image, gpus=gpus)
    prefix = ["taoprof", "run", name, "--image", start.image, "--"]
    command_context = CommandContext({}, renderer.variables(), context.environ, profile=name, prefix=prefix)
    environ = {} if on_cluster else context.environ
    findings = list(direct.check(context, start, command_context, environ))
    errors, folders = _errors_and_folders(findings, mkdir=mkdir, starts=True)
    if check and errors:
        listed = [mount.entry for mount in start.mounts]
        own = {"--image": renderer.image(words), "--gpus": renderer.template["gpus"]}
        given = {"--image": image, "--gpus": gpus}
        options = [word for key, value in given.items() if value and value != own[key] for word in (key, value)]
        raise _preflight_error(context, name, errors, listed, attempt._replace(command=start.words), options)
    warnings = (finding for finding in findings if finding.severity == WARNING)
    unchecked = [f"{finding.what}: {finding.why}" for finding in warnings if finding.id in direct.UNCHECKED]
    is_remote = find_endpoint(environ).is_remote
    return folders + ([] if is_remote else container.find_cache_folders(rendered, context)), unchecked


def _errors_and_folders(findings: Iterable[Finding], *, mkdir: bool, starts: bool) -> tuple[list[Finding], list[str]]:
    """Return the findings that refuse a run, and the folders to create.

    Without ``mkdir`` these are those that the engine would create as root when the work ``starts``, if the user can.
    """
    errors, folders = [], []
    for finding in findings:
        is_folder = finding.fix[:1] == ("mkdir",)
        is_mount_point = is_folder and starts and finding.id == "dst-makes-folder"
        if is_folder and (mkdir or (is_mount_point and not filesystem.creation_problem(finding.fix[1]))):
            folders.append(finding.fix[1])
        elif finding.severity == ERROR:
            errors.append(finding)
    return errors, folders


def require_answer(mapping: Mapping[str, Any] | bytes | None) -> None:
    """Raise TaoprofError for a source on a file server that does not answer in time: a look at it hangs.

    ``mapping`` may be the content of a mounts file; one that is not a mapping is not examined.
    """
    paths = sources(mapping)
    answered = filesystem.answers(os.path.exists, paths, is_patient=True)
    if silent := next((path for path in paths if path not in answered), None):
        raise TaoprofError(filesystem.no_answer(silent), hint="'findmnt -t nfs,nfs4,cifs' lists the file servers")


def to_arguments(command: Sequence[str], options: Sequence[str]) -> str:
    """Return options and a command as arguments to paste; in the place of one with a secret is the word COMMAND."""
    import shlex  # not for 'use', which has no command

    is_shown = command and mask_command(command) == list(command)
    return shlex.join([*options, "--", *(command if is_shown else ["COMMAND"])])


def _preflight_error(
    context: Context,
    name: str,
    findings: Sequence[Finding],
    entries: Sequence[Mapping[str, str]],
    attempt: Attempt,
    options: Sequence[str] = (),
) -> InvalidProfileError:
    """Return the error for the findings of a check of mounts; ``attempt`` has a command if that has some of them.

    ``entries`` are the mounts; ``options`` are those of ``taoprof check`` that give the same findings.
    """
    doing, command = attempt.doing, attempt.command
    if all(finding.fix[:1] == ("mkdir",) for finding in findings):
        single = len(findings) == 1
        what = "1 folder does not exist" if single else f"{len(findings)} folders do not exist"
        destinations = {mount["source"]: mount["destination"] for mount in entries}
        folders = [finding.fix[1] for finding in findings]
        problems = [f"{context.short(path)}   (mounted at {destinations.get(path, '?')})" for path in folders]
        ways = {
            "run": f"run {name} {to_arguments(command, [*attempt.options, '--mkdir'])}",
            "kernel": f"run {name} --mkdir -- true",
        }
        mkdir = f"taoprof {ways.get(doing, f'{doing} {name} --mkdir')}"
        hint = f"nothing was changed. To create {'it' if single else 'the folders'}: {mkdir}"
    else:
        from taoprofiles.profiles.store import Store  # not for 'use' in general

        if any(finding.id == "placeholder" for finding in findings):
            findings = list(container.name_origins(findings, Store(context).renderer(name)))
        what = "1 error" if len(findings) == 1 else f"{len(findings)} errors"
        problems = []
        for finding in findings:
            why = f"; {finding.why}" if finding.why and finding.id != "src-missing" else ""
            if finding.id == "missing-file" and finding.hint.startswith("did you mean"):
                why += f"; {finding.hint}"
            problems.append(f"{finding.where}: {finding.what}{why}")
        words = f"taoprof check {name}"
        if command:
            words += " " + to_arguments(command, options)
        hint = f"nothing was changed. To ignore this, add --force; for the details: {words}"
        if all(finding.id == "src-missing" for finding in findings):
            elsewhere = {mount["source"] for mount in entries if filesystem.creation_problem(mount["source"])}
            command_to_set = Store(context).renderer(name).command_to_set(elsewhere)
            hint = f"nothing was changed. To use a folder of this machine: {command_to_set}" if elsewhere else hint
    return InvalidProfileError(f"cannot {_ATTEMPTS[doing]} '{name}': {what}", problems=problems, hint=hint)


@contextmanager
def make_folders(folders: Sequence[str]) -> Iterator[None]:
    """Create the user's folders, with the mode that the umask gives. Raises TaoprofError.

    An error here or in the block names the folders that were created before: they stay.
    """
    created: list[str] = []
    try:
        for folder in folders:
            is_new = not os.path.isdir(folder)
            with errors_as("create the folder", folder):
                os.makedirs(folder, exist_ok=True)
            created += [folder] if is_new else []
        yield
    except TaoprofError as error:
        if created:
            error.message += f"; created before: {', '.join(created)}"
            error.hint = error.hint.replace("nothing was changed", "nothing else was changed")
        raise
