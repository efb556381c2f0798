"""What the launcher would do with a profile or the mounts file of 'tao', and all problems with it on this machine."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from taoprofiles import current_cache
from taoprofiles.check import fix
from taoprofiles.errors import InvalidProfileError, InvalidStateError, UsageError
from taoprofiles.launcher import argv, probes, simulation
from taoprofiles.launcher.argv import MAIN_PROGRAMS, container_words, launcher_words, simple_commands, unwrapped
from taoprofiles.launcher.behaviour import (
    NEWEST_VERSION,
    Behaviour,
    Host,
    behaviour_of,
    find_mounts_file,
    parse_version,
    resolve_mounts,
    runs_in_ci,
)
from taoprofiles.launcher.simulation import Call, Content, Prediction, Refusal
from taoprofiles.masking import is_copied, is_secret, mask_text
from taoprofiles.mounts import mapping
from taoprofiles.profiles.rendering import Renderer, unset_variables
from taoprofiles.profiles.store import Store
from taoprofiles.rules import container, direct, start
from taoprofiles.rules.command_paths import CommandContext, check_command, find_results
from taoprofiles.rules.direct import DirectStart
from taoprofiles.rules.finding import (
    ERROR,
    INFO,
    WARNING,
    Finding,
    by_severity,
    error,
    find_lines,
    in_file,
    in_profile,
    warning,
)
from taoprofiles.storage import files
from taoprofiles.storage.files import MAPPING_LIMIT
from taoprofiles.storage.paths import Context
from taoprofiles.switching import preflight
from taoprofiles.switching.status import Status, get_status
from taoprofiles.system import docker_run, filesystem

_EXTERNAL_CHANGE_ID = "global-file-changed-by-other"
_PROBLEM_IDS = {"docker.shm_size": "shm-unit", "docker.ulimits": "opts-shape", "docker.ports": "opts-shape"}
"""By profile key: the id of the finding for a value that the profile model rejects, else "profile-invalid"."""


class CheckTarget(NamedTuple):
    """A profile or mounts file, before it is checked against this machine."""

    name: str | None  # the profile, or None for a file without one
    path: str  # its file
    content: bytes | None  # what the launcher would read
    file: start.MountsFile
    variables: dict[str, str]  # those of the profile
    findings: tuple[Finding, ...] = ()  # the problems found while reading
    secret_variables: frozenset[str] = frozenset()  # the names of those that hold secrets
    secret_environment: frozenset[str] = frozenset()  # the names of the container's variables that hold secrets
    renderer: Renderer | None = None  # of a profile; it also knows its image, GPUs and read-only mounts
    secret_values: tuple[str, ...] = ()  # of the profile that a mounts file was made from, of which it may have copies

    def image(self, command: list[str]) -> str | None:
        """Return the image that the profile has for a command."""
        return self.renderer.image(command) if self.renderer else None

    @classmethod
    def from_profile(cls, context: Context, name: str) -> CheckTarget:
        """Return the target for a profile, rendered now. Raises NotFoundError, UsageError."""
        store = Store(context)
        path = store.path(name)
        try:
            renderer = store.renderer(name)
            variables, rendered = renderer.variables(), renderer.mapping(is_checked=False)
        except InvalidProfileError as problem:
            findings = tuple(_invalid(line, name) for line in problem.problems or [problem.message])
            return cls(name, path, None, start.MountsFile(name, "", in_profile({}), None), {}, findings)
        secret, secret_environment = renderer.secrets()
        locate = in_profile(rendered)
        findings = (
            *container.check_profile_variables(variables, name),
            *container.check_shell(variables, context.environ, secret),
            *container.check_plain_secrets(renderer.template["env"], locate, name),
        )
        return cls(
            name, path, mapping.to_bytes(rendered), start.MountsFile(name, "", locate, None), variables, findings,
            frozenset(secret), frozenset(secret_environment), renderer,
        )  # fmt: skip

    @classmethod
    def from_file(cls, context: Context, behaviour: Behaviour) -> CheckTarget:
        """Return the target for the file that a launcher would read now; for an active profile's, the profile."""
        launcher_mounts = context.environ.get("LAUNCHER_MOUNTS")
        overwritten: list[Finding] = []
        made_by = current_cache.own_profile(context)
        if launcher_mounts is None:
            status = get_status(context)
            if status.state == "active" and status.name is not None:
                return cls.from_profile(context, status.name)
            overwritten = _overwritten(context, status)
            made_by = status.name or status.last
        path = find_mounts_file({**context.environ, "HOME": context.home}, context.folder, behaviour)
        name = context.short(path) or "LAUNCHER_MOUNTS"
        try:
            content = files.read(path, MAPPING_LIMIT) if path else None
        except InvalidStateError as problem:
            return cls(None, path, None, _file(name, ""), {}, (error("json-parse", f"{name}:1", problem.message),))
        file = _file(name, (content or b"").decode("utf-8", "replace"))
        if content is None:
            meant = probes.guess_mounts_file(launcher_mounts or "", context.environ)
            missing = start.check_launcher_mounts(launcher_mounts, "a file that does not exist", meant)
            return cls(None, path, None, file, {}, tuple(missing) or (_no_file(context),))
        store = Store(context)
        return cls(
            None, path, content, file, {}, tuple(overwritten),
            secret_environment=frozenset(store.secret_env(content, made_by)),
            secret_values=tuple(store.secret_values(made_by)),
        )  # fmt: skip


def _file(name: str, text: str) -> start.MountsFile:
    lines = find_lines(text)
    return start.MountsFile(name, text, in_file(name, lines), lines)


def _invalid(problem: str, name: str) -> Finding:
    """Return the finding for a line of the form ``key: problem``."""
    key, colon, what = problem.partition(": ")
    unset = unset_variables([problem])
    hint = f"export {unset[0]}=…" if unset else f"taoprof edit {name}"
    if not colon:
        return error("profile-invalid", "profile", problem, hint=hint)
    id = next((id for beginning, id in _PROBLEM_IDS.items() if key.startswith(beginning)), "profile-invalid")
    if key.startswith("docker.") and "unknown key" in what:
        id = "opt-unknown-for-version"
    return error(id, key, what, hint=hint)


def _overwritten(context: Context, status: Status) -> list[Finding]:
    """Return the finding of a mapping that another program overwrote, as each notebook of NVIDIA does."""
    if status.state != "unmanaged" or status.last is None:
        return []
    what = f"another program wrote it; before, it was the mapping of '{status.last}'"
    why = "tao uses what is there now: it may train on another project's data, and write into its results"
    where = context.short(context.mapping_file)
    return [warning(_EXTERNAL_CHANGE_ID, where, what, why, f"taoprof use {status.last}")]


def _no_file(context: Context) -> Finding:
    why = "the launcher reports nothing: the container starts without any mounts, and the exit status is 0"
    what, hint = "there is no mounts file", "'taoprof list' shows the profiles, 'taoprof use NAME' creates the file"
    if not Store(context).names():
        hint = "in the project's folder: 'taoprof new NAME', and then 'taoprof use NAME --mkdir'"
    for path in probes.find_similar_files(context.mapping_file, context.folder)[:1]:
        what += f"; perhaps '{path}' was meant"
        hint = shlex.join(["mv", path, context.mapping_file])
    return error("no-mapping-file", context.short(context.mapping_file), what, why, hint)


MOST_FINDINGS = simulation.MOST_REFUSALS
"""Findings of a report; with so many there may be others."""
_PATH_KEYS = ("project_dir", "notebook_dir", "network", "layout")


class Report(NamedTuple):
    """The result of a check."""

    name: str | None  # the profile, or None for a mounts file without one
    path: str  # its file
    launcher: probes.Launcher | None  # None if there is none or a version was given
    version: str  # the version that is simulated
    prediction: Prediction | None  # the simulated start, ignoring CI_PROJECT_DIR; None if the target has no content
    dropped_in_ci: list[str]  # the settings that the launcher drops because CI_PROJECT_DIR is set
    findings: list[Finding]  # in the order of severity
    secrets: frozenset[str]  # the container's variables whose values must not be shown
    start: DirectStart | None = None  # the container of a command without the launcher

    @property
    def refusal(self) -> Refusal | None:
        """Return the first refusal that depends on the mounts file or the command, not on the login."""
        refusals = self.prediction.refusals if self.prediction else ()
        return next((refusal for refusal in refusals if refusal.location.section != "login"), None)


def check(
    context: Context,
    name: str | None,
    command: list[str],
    *,
    launcher: str | None = None,
    image: str | None = None,
    gpus: str | None = None,
) -> Report:
    """Check a profile, or without a name what ``tao`` would read now, for the launcher on PATH or the version named.

    ``command`` is the command after ``--``, empty for any task; ``image`` and ``gpus`` are the options of ``run`` for
    one without the launcher. Raises NotFoundError, UsageError.
    """
    line, runner = docker_run.parse(command), argv.parse_runner(command)
    if image is not None or gpus is not None:
        command = _as_task(command, image=image, is_other=line is not None or runner is not None)
    words = launcher_words(unwrapped(command))
    if line is not None:
        return _check_line(context, name, line)
    if runner is not None:
        return _check_runner(context, name, runner)
    installed_launcher, version = _select_launcher(context, launcher)
    behaviour = behaviour_of(version)
    is_profile_given = name is not None
    target = CheckTarget.from_file(context, behaviour) if name is None else CheckTarget.from_profile(context, name)
    command_context = CommandContext(
        {}, target.variables, context.environ, target.secret_variables,
        behaviour=behaviour, profile=target.name or "", is_run=is_profile_given,
    )  # fmt: skip
    image = image or target.image(command)
    if name is not None and command and image is None and words is None:  # what 'run' starts on this machine
        target = target._replace(findings=(*target.findings, *_check_program_exists(context, target, name, command)))
    is_direct = bool(command and words is None and (image or gpus or direct.tasks(command)[0]))
    is_direct |= bool(image and not command and launcher is None and installed_launcher is None)
    if is_direct and target.content is not None:
        return _check_task(context, target, command, command_context, image=image, gpus=gpus)
    findings, dropped_in_ci = list(target.findings), []
    words, others = _launchers(command)
    findings += _check_known(command, others, findings, is_launcher=words is not None)
    if not command or words is not None:
        findings += _ignored_keys(target)
    prediction, secrets = None, target.secret_environment
    preflight.require_answer(target.content)
    if target.content is not None or target.name is None:
        host = _get_host(context, target, installed_launcher, version)
        arguments = words[1:] if words and words[0] in MAIN_PROGRAMS else None  # the simulation knows no tao-deploy
        prediction = simulation.predict(version, host, arguments)
        dropped_in_ci = [location.key or str(location) for location in prediction.dropped_in_ci]
        problems = _check_start(context, target, prediction, host, command_context, command=command)
        findings += islice(problems, MOST_FINDINGS)
        if dropped_in_ci:
            findings.append(start.in_ci(context.environ["CI_PROJECT_DIR"], ", ".join(dropped_in_ci)))
        if prediction.content is not None and target.content is not None:
            pairs = [(str(entry["variable"]), str(entry["value"])) for _, entry in prediction.content.variables]
            copies = [text for text in target.secret_values if is_copied("SECRET", text)]
            secrets |= {
                name for name, value in pairs if is_secret(name, value) or any(text in value for text in copies)
            }
            findings += _check_mode(target, secrets & {name for name, _ in pairs}) if target.name is None else []
            problems = _check_content(context, target, prediction.content, command_context, command)
            findings += islice(problems, MOST_FINDINGS)
    findings = fix.add_commands(context, findings, target.name, target.path, is_profile_given=is_profile_given)
    # If the file is another project's, that comes first: its other problems are not to be fixed.
    findings = sorted(by_severity(findings), key=lambda finding: finding.id != _EXTERNAL_CHANGE_ID)[:MOST_FINDINGS]
    return Report(target.name, target.path, installed_launcher, version, prediction, dropped_in_ci, findings, secrets)


def _launchers(command: list[str]) -> tuple[list[str] | None, list[str]]:
    """Return the words of the first launcher that a command starts, and the programs that are none."""
    commands = simple_commands(command)
    launchers = [launcher_words(words) for words in commands]
    words, ignored = next(filter(None, launchers), None), direct.WITHOUT_WORK if len(commands) > 1 else ()
    pairs = zip(commands, launchers, strict=True)
    others = [name for (name, *_), launcher in pairs if launcher is None and name not in ignored]
    return words, others or ([] if words else command[:1])


def _check_program_exists(context: Context, target: CheckTarget, name: str, command: list[str]) -> Iterator[Finding]:
    """Yield the finding for a command that ``run`` refuses, because its program does not exist."""
    missing = start.find_missing_program(command, {**context.environ, **target.variables}.get("PATH"), name)
    if missing:
        yield error("command-not-found", "command", missing[0], hint=missing[1])


def _check_known(
    command: list[str], others: list[str], known: list[Finding], *, is_launcher: bool
) -> Iterator[Finding]:
    """Yield the finding for a command with the programs ``others``, of which nothing is known.

    Not if one of the findings ``known`` is that the program does not exist.
    """
    is_missing = any(finding.id == "command-not-found" for finding in known)
    if others and not is_missing and not direct.tasks(command)[0]:
        rest = "this command is not checked" + ("" if is_launcher else ", only the mounts are")
        what = f"'{mask_text(others[0])}' is no launcher, no 'docker run' and no task of TAO: {rest}"
        yield warning("command-not-checked", "command", what, hint="give the command itself after '--'")


def _as_task(command: list[str], *, image: str | None, is_other: bool) -> list[str]:
    """Return the command that runs without the launcher in an image; ``is_other``: it has no need of one.

    Raises UsageError if ``--image`` or ``--gpus`` is not for it.
    """
    words = container_words(command) if image is not None and not is_other else command
    if is_other or not words or launcher_words(unwrapped(words)) is not None:
        option, value = ("--gpus", "1") if image is None else ("--image", "IMAGE")
        hint = f"such as: taoprof check NAME {option} {value} -- dino train"
        raise UsageError(f"{option} is for a task without the launcher", hint=hint)
    return words


def _ignored_keys(target: CheckTarget) -> Iterator[Finding]:
    """Yield a finding for each key of the profile that means nothing to the launcher."""
    what, why = "the launcher has no read-only mounts", "the container can write to this one"
    hint = f"without the launcher it is: taoprof run {target.name} --image IMAGE -- COMMAND"
    for number, is_read_only in enumerate(target.renderer.read_only if target.renderer else ()):
        if is_read_only:
            yield warning("key-ignored", f"mounts[{number}].read_only", what, why, hint)


def _check_task(
    context: Context,
    target: CheckTarget,
    command: list[str],
    command_context: CommandContext,
    *,
    image: str | None,
    gpus: str | None,
) -> Report:
    """Check a task that is started without the launcher, with the mapping of the target."""
    preflight.require_answer(target.content)
    host, rendered = Host(context.environ, context.folder), mapping.parse(target.content or b"", target.path)
    try:
        launch = direct.from_mapping(
            rendered, target.file.locate, host, command, target.renderer, image=image, gpus=gpus
        )
        if target.name:
            options = ["--gpus", gpus] if gpus else []
            options += ["--image", image or "IMAGE"] if not image or image != target.image(command) else []
            command_context = replace(command_context, prefix=["taoprof", "run", target.name, *options, "--"])
        problems = [*target.findings, *direct.check(context, launch, command_context)]
        is_profile_given = command_context.is_run
        findings = fix.add_commands(context, problems, target.name, target.path, is_profile_given=is_profile_given)
        return _direct_report(target.name, target.path, launch, findings, target.secret_environment)
    except _MALFORMED:
        if target.renderer is not None:
            raise
        return _malformed(target.path, target.file.name, target.findings)


def _check_line(context: Context, name: str | None, line: docker_run.DockerRun) -> Report:
    """Check a ``docker run``, with the variables of a profile if one is named."""
    variables, secret_variables, findings = {}, frozenset[str](), []
    if name is not None:
        target = CheckTarget.from_profile(context, name)
        variables, secret_variables = target.variables, target.secret_variables
        findings = [finding for finding in target.findings if finding.id == "profile-invalid"]
    launch = direct.from_line(line, Host(context.environ, context.folder))
    command_context = CommandContext({}, variables, context.environ, secret_variables, profile=name or "")
    problems = direct.check(context, launch, command_context, {**context.environ, **line.engine})
    findings += [fix.for_docker_run(finding) for finding in problems]
    if line.unknown:
        what = f"not checked: {mask_text(', '.join(dict.fromkeys(line.unknown)))}"
        findings.append(Finding("command-not-checked", "docker run", what, severity=INFO))
    secrets = frozenset(name for name, value in line.env if is_secret(name, value or ""))
    return _direct_report(name, "", launch, fix.add_commands(context, findings, None, ""), secrets)


def _check_runner(context: Context, name: str | None, runner: argv.RunnerCommand) -> Report:
    """Check a runner of a source tree, with the mapping of a profile or the one of the mapping file."""
    target = CheckTarget.from_profile(context, name) if name is not None else None
    content = target.content if target else files.read_mapping_file(context)
    rendered = mapping.parse(content or b"{}", context.mapping_file)
    variables = target.variables if target else {}
    command_context = CommandContext({}, variables, context.environ, profile=name or "", prefix=runner.prefix)
    findings = [*(target.findings if target else ()), *direct.check_runner(context, runner, name or "")]
    try:
        launch = direct.from_runner(context, runner, rendered)
        findings += [fix.for_runner(finding) for finding in direct.check(context, launch, command_context)]
    except _MALFORMED:
        if target is not None:
            raise
        return _malformed("", context.short(context.mapping_file), findings)
    secrets = frozenset(entry["variable"] for _, entry in launch.variables if is_secret(entry["variable"]))
    return _direct_report(name, "", launch, fix.add_commands(context, findings, None, ""), secrets)


_MALFORMED = (AttributeError, KeyError, TypeError, ValueError)
"""What the rules for a container raise for a mounts file that is not well formed."""


def _malformed(path: str, where: str, findings: Iterable[Finding]) -> Report:
    """Return the report about such a file; the launcher's own rules name the place."""
    problem = error("file-shape", where, "it is not a mapping", hint="taoprof check")
    return Report(None, path, None, "", None, [], by_severity([*findings, problem]), frozenset())


def _direct_report(
    name: str | None, path: str, launch: DirectStart, findings: list[Finding], secrets: frozenset[str]
) -> Report:
    options = launch.options
    size = options.get("shm_size")
    call = Call(
        launch.image,
        launch.mounted,
        [f"{entry['variable']}={'' if entry['value'] is None else entry['value']}" for _, entry in launch.variables],
        options.get("user"),
        simulation.size_in_bytes(size) if size else None,
        options.get("ulimits") or {},
        {port: [{"HostPort": number}] for port, number in (options.get("ports") or {}).items()},
        options.get("network"),
        bool(options.get("privileged")),
        options.get("tty") is not False,
        {},
    )
    prediction = Prediction("")
    prediction.call = call
    return Report(name, path, None, "", prediction, [], by_severity(findings), secrets, launch)


def _check_start(
    context: Context,
    target: CheckTarget,
    prediction: Prediction,
    host: Host,
    command_context: CommandContext,
    *,
    command: list[str],
) -> Iterator[Finding]:
    """Check whether the launcher starts at all: what it refuses, the task, and the login."""
    known = {(finding.id, finding.where) for finding in target.findings}
    problems = start.check_start(prediction, target.file, command_context.behaviour, host)
    yield from (finding for finding in problems if (finding.id, finding.where) not in known)
    words = _launchers(command)[0] or []
    if refusal := next((r for r in prediction.refusals if r.location.section == "command"), None):
        if refusal.message.startswith("invalid choice"):
            images = simulation.known_images(command_context.behaviour, host)
            yield start.explain_task(refusal, words, images, command_context)
        else:
            yield start.other_refusal(refusal)
    else:
        yield from start.check_program(words, command_context)
    if command_context.is_without_docker:
        yield start.without_docker()
        # The launcher does not read it; it says which paths are the container's.
        unread = simulation.read_mounts_file(target.path, host, simulation.StartLog())
        volumes = simulation.get_volumes(unread.mounts) if unread is not None else {}
        yield from check_command(command, replace(command_context, mounts=volumes))
    yield from _check_login(context, prediction)


def check_settings(context: Context, name: str, settings: Mapping[str, str | None] | None = None) -> list[Finding]:
    """Return the findings about settings of a profile, by key, or about all, without starting the launcher's Python.

    Nothing is said of a profile that cannot be rendered yet.
    """
    target = CheckTarget.from_profile(context, name)
    if target.content is None:
        return []
    rendered, locate = mapping.parse(target.content, name), target.file.locate
    host, docker = Host(context.environ, context.folder), rendered.get("DockerOptions") or {}
    names = [entry["variable"] for entry in rendered.get("Envs", [])]
    findings = [
        *(finding for finding in target.findings if finding.id != "variables-differ"),
        *start.check_options(docker, locate, memory=0, used_ports=()),
        *container.check_user(docker, names, locate, context),
    ]
    decides_about_mounts = settings is None
    if settings is not None:
        places = (*settings, *(f"variables.{key}" for key in settings))
        findings = [finding for finding in findings if finding.where.startswith(places)]
        paths_only = {key: value for key, value in settings.items() if not key.startswith("image")}
        decides_about_mounts = any(key in _PATH_KEYS or "/" in (value or "") for key, value in paths_only.items())
    if decides_about_mounts:
        preflight.require_answer(target.content)
        findings += container.check_mounts(resolve_mounts(rendered, host), locate, host)
    if target.renderer is not None:
        findings = list(container.name_origins(findings, target.renderer))
    return [finding for finding in findings if finding.severity in (ERROR, WARNING)]


def _select_launcher(context: Context, wanted: str | None) -> tuple[probes.Launcher | None, str]:
    if wanted is not None:
        try:
            parse_version(wanted)
        except ValueError as error:
            raise UsageError(str(error), hint=f"such as --launcher {NEWEST_VERSION}") from None
        return None, wanted
    launcher = probes.first_launcher(context.environ)
    version = launcher.version if launcher else ""
    try:
        parse_version(version)
    except ValueError:
        version = NEWEST_VERSION
    return launcher, version


def _get_host(context: Context, target: CheckTarget, launcher: probes.Launcher | None, version: str) -> Host:
    """Return the host on which the launcher finds the mounts file that is checked."""
    config = probes.launcher_config(launcher) if launcher and launcher.version == version else None
    if target.content is None:
        return Host(context.environ, context.folder, config)
    environ = {**context.environ, "LAUNCHER_MOUNTS": target.path}
    return Host(environ, context.folder, config, {target.path: target.content})


def _check_login(context: Context, prediction: Prediction) -> Iterator[Finding]:
    refusal = next((refusal for refusal in prediction.refusals if refusal.location.section == "login"), None)
    if refusal is None:
        return
    login = probes.probe_login(context.environ)
    findings = start.check_login(login, prediction.version, context.environ, context.uid)
    explained = [finding._replace(why=f"the launcher stops: {refusal}; {finding.why}") for finding in findings]
    yield from explained or [start.other_refusal(refusal)]


def _check_mode(target: CheckTarget, secrets: Collection[str]) -> list[Finding]:
    mode = files.readable_by_others(target.path)
    if not (secrets and mode):
        return []
    names = sorted({name.partition("=")[0] for name in secrets})  # a name may contain a value
    what = f"it contains {', '.join(names)}, and other users may read it (mode {mode:o})"
    name = target.file.name
    hint = f"chmod 600 {name if name.startswith('~') else shlex.quote(target.path)}"
    return [warning("file-mode", name, what, "", hint, fix=("chmod", target.path))]


def _check_content(
    context: Context,
    target: CheckTarget,
    content: Content,
    command_context: CommandContext,
    command: list[str],
) -> Iterator[Finding]:
    """Check the container that is started: its user, options, variables, command and folders."""
    docker, locate = content.options if isinstance(content.options, dict) else {}, target.file.locate
    names = [entry["variable"] for _, entry in content.variables]
    rootless = container.is_rootless(context.environ, context)
    yield from container.check_user(docker, names, locate, context, rootless=rootless)
    yield from start.check_options(
        docker, locate, memory=filesystem.total_memory(), used_ports=filesystem.listening_ports()
    )
    if runs_in_ci(context.environ, command_context.behaviour):
        yield from container.check_ci_values(content.mounts, content.variables, locate)
    mounts = simulation.get_volumes(content.mounts)
    command_context = replace(command_context, mounts=mounts)
    yield from check_command(command, command_context)
    results = find_results(command or ["train"], command_context)
    yield from start.check_folders(
        context, content.mounts, locate, mounted=mounts, results=results, profile=target.name,
        user=container.host_user(docker, context, rootless=rootless),
    )  # fmt: skip
