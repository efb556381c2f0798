"""Rules for a container without the launcher: of ``docker run``, ``taoprof run --image`` or a source tree's runner.

Sources: the skill bank of TAO 7 (skills/platform/tao-run-on-docker), the Dockerfiles and entry points of tao-pytorch,
tao-deploy and tao-data-services 7.0.1. What the runners mount, leave out and hide: see ``RunnerCommand``.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from taoprofiles.launcher.argv import PROGRAMS, RunnerCommand, launcher_words, script_of, simple_commands
from taoprofiles.launcher.behaviour import Host, Location, ResolvedMount, is_tao_image, parse_image_tag
from taoprofiles.masking import is_secret, mask_command, mask_text
from taoprofiles.mounts.paths import HostFiles
from taoprofiles.profiles.layouts import is_network, missing_identity
from taoprofiles.profiles.rendering import Renderer
from taoprofiles.rules import container
from taoprofiles.rules.command_paths import CommandContext, check_task, find_results
from taoprofiles.rules.finding import INFO, Finding, Locator, error, quoted, warning
from taoprofiles.rules.specs import ACTIONS, MODEL_ACTIONS, SPEC_OPTIONS, wrong_gpus
from taoprofiles.rules.start import check_folders, check_options
from taoprofiles.storage.paths import Context, is_inside
from taoprofiles.system import filesystem
from taoprofiles.system.commands import find_missing, login_words
from taoprofiles.system.docker_run import DockerRun, parse_variable, parse_volume
from taoprofiles.system.engine import find_endpoint
from taoprofiles.system.gpus import parse_gpus
from taoprofiles.system.processes import WRAPPERS

_PACKAGES = ("nvidia_tao_pytorch", "nvidia_tao_deploy", "nvidia_tao_ds", "nvidia_tao_tf1", "nvidia_tao_tf2")
_DATA_SERVICES = frozenset("analytics annotations augmentation auto_label embedding image tmm".split())
_SHM = "/dev/shm"  # noqa: S108 - the shared memory of this host, which is only measured
UNCHECKED = ("paths-unchecked", "spec-unchecked")
"""Findings that name what could not be looked at."""
WITHOUT_WORK = ("cd", "export", "set", "for", "done", "fi", "}")
"""Words of a script after which there is no task."""
_NO_COMMAND_SINCE = (6, 0, 0)
"""From this release on an image that is started without a command runs the old microservice."""


class DirectStart(NamedTuple):
    """A container that is started without the launcher.

    - ``mounts``: those of folders, with the paths as they are used; ``created``: those whose source Docker creates
    - ``variables``: those of the container, as in ``Content``; a value of None comes from the environment
    - ``options``: as DockerOptions; ``gpus``: "all", a number, a list, or None if none are requested
    - ``image``: "" if it is not known; ``words``: the command in the container
    - ``read_only``: destinations of mounts that the container may not write to
    - ``volumes``: destinations of which the content is not on this host
    - ``line``: the words of ``docker run`` up to the image, () for a profile; ``workdir``: the folder that it names
    """

    mounts: list[ResolvedMount]
    variables: list[tuple[Location, dict[str, Any]]]
    options: dict[str, Any]
    gpus: str | int | Sequence[str] | None
    image: str
    words: Sequence[str]
    locate: Locator
    created: Collection[Location] = ()
    read_only: Collection[str] = ()
    volumes: Sequence[str] = ()
    line: Sequence[str] = ()
    workdir: str = ""

    @property
    def mounted(self) -> dict[str, str]:
        """Return destination by source. A folder that is mounted twice has a second source, which means the same."""
        mounted: dict[str, str] = {}
        number: Counter[str] = Counter()
        for source, destination in dict.fromkeys((mount.source, mount.destination) for mount in self.mounts):
            real = os.path.realpath(source)
            mounted[real + "/." * number[real]] = destination
            number[real] += 1
        return mounted

    @property
    def gpu_count(self) -> int | None:
        """Return the number of the container's GPUs, None if it is not known."""
        if isinstance(self.gpus, int):
            return self.gpus
        return len(self.gpus) if self.gpus and self.gpus != "all" else None


def from_mapping(
    mapping: Mapping[str, Any],
    locate: Locator,
    host: Host,
    words: Sequence[str],
    renderer: Renderer | None = None,
    *,
    image: str | None = None,
    gpus: str | None = None,
) -> DirectStart:
    """Return the start of a profile's mapping, as ``run --image`` makes it.

    ``image`` and ``gpus`` (as ``--gpus`` takes them) replace those of the profile's ``renderer``.
    """
    entries = mapping["Mounts"]
    read_only = zip(entries, renderer.read_only if renderer else [], strict=False)
    gpus = gpus or (renderer.template["gpus"] if renderer else None) or "all"
    image = image or (renderer.image(words) if renderer else None) or ""
    variables = [(Location("Envs", number), entry) for number, entry in enumerate(mapping.get("Envs", []))]
    return DirectStart(
        [_mount(number, entry["source"], entry["destination"], host) for number, entry in enumerate(entries)],
        variables, mapping.get("DockerOptions") or {}, parse_gpus(gpus), image, words, locate,
        read_only=[entry["destination"] for entry, is_read_only in read_only if is_read_only],
    )  # fmt: skip


def _shm_size(run: DockerRun) -> str | None:
    """Return the size of the shared memory: with ``--ipc host``, which NVIDIA's images advise, that of this host."""
    if run.ipc != "host" or not os.path.isdir(_SHM):
        return run.shm_size
    shm = os.statvfs(_SHM)
    size = shm.f_blocks * shm.f_frsize
    return f"{size >> 30}g" if size >> 30 else f"{size >> 20}m"


def from_line(run: DockerRun, host: Host) -> DirectStart:
    """Return the start of a ``docker run``."""
    binds = [mount for mount in run.mounts if mount.kind == "bind"]
    given = {key: getattr(run, key) for key in ("user", "ulimits", "ports", "network")} | {"shm_size": _shm_size(run)}

    def locate(location: Location) -> str:
        if location.section == "Mounts" and location.number is not None:
            return f"mount at {binds[location.number].destination}"
        if location.section == "Envs" and location.number is not None:
            return f"--env {run.env[location.number][0]}"
        return f"--{location.key.replace('_', '-')}" if location.key else str(location)

    return DirectStart(
        [_mount(number, mount.source, mount.destination, host) for number, mount in enumerate(binds)],
        [(Location("Envs", number), {"variable": n, "value": v}) for number, (n, v) in enumerate(run.env)],
        {key: value for key, value in given.items() if value},
        run.gpus, run.image, [*([run.entrypoint] if run.entrypoint else []), *run.command], locate,
        created=[Location("Mounts", number) for number, mount in enumerate(binds) if mount.is_created],
        read_only=[mount.destination for mount in run.mounts if mount.is_read_only],
        volumes=[mount.destination for mount in run.mounts if mount.kind != "bind"],
        line=run.words, workdir=run.workdir or "",
    )  # fmt: skip


def _mount(number: int, source: str, destination: str, host: Host) -> ResolvedMount:
    path, entry = os.path.join(host.folder, str(source)), {"source": source, "destination": destination}
    return ResolvedMount(Location("Mounts", number), os.path.normpath(path), os.path.normpath(str(destination)), entry)


def tasks(words: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """Return the tasks of TAO among the words of a container's command, and the first words of what is none.

    ``bash -c 'A && B'`` has two commands; a task that is started as a Python module becomes its own name.
    """
    known, others = [], []
    for command in simple_commands(words):
        starts = range(len(command) if os.path.basename(command[0]) in WRAPPERS else 1)
        task = next(filter(None, (_task(command[start:]) for start in starts)), None)
        if task is not None:
            known.append(task)
        elif command[0] not in WITHOUT_WORK or script_of(words) is None:
            others.append(os.path.basename(command[0]))
    return known, others


def _task(words: Sequence[str]) -> list[str] | None:
    name = os.path.basename(words[0])
    if name.startswith("python") and list(words[1:2]) == ["-m"] and len(words) > 2:
        package, *_, module = words[2].split(".")
        return [module, *words[3:]] if package in _PACKAGES else None
    is_task = is_network(name) or name in _DATA_SERVICES or (len(words) > 1 and words[1] in ACTIONS)
    return [name, *words[1:]] if is_task and launcher_words(words) is None else None


def check(
    context: Context, start: DirectStart, command_context: CommandContext, environ: Mapping[str, str] | None = None
) -> Iterator[Finding]:
    """Check a container and its command. ``environ`` names the engine, by default the context's.

    For an engine on another machine the folders are that machine's: they are looked for there, if ssh leads to it.
    """
    docker, locate = start.options, start.locate
    host = Host(context.environ, context.folder)
    engine = context.environ if environ is None else environ  # {} for a cluster
    endpoint = find_endpoint(engine)
    is_remote = endpoint.is_remote
    if endpoint.address.startswith("context://"):
        what = f"the Docker context '{endpoint.context}' does not exist"
        yield error("docker-down", "engine", what, "docker stops", "to see which exist: docker context ls")
    if is_remote:
        yield from _check_remote(start, endpoint.address, context.environ)
    else:
        yield from container.check_direct_mounts(start.mounts, locate, host, start.created)
    yield from _check_sources(start)
    names = [entry["variable"] for _, entry in start.variables]
    if not start.line:
        names += missing_identity(docker, names)  # which a run of a profile gets
    given = [(location, entry) for location, entry in start.variables if entry["value"] is not None]
    rootless = bool(engine) and not is_remote and container.is_rootless(engine, context)
    yield from container.check_user(docker, names, locate, context, rootless=rootless)
    yield from container.check_variables(given, locate)
    yield from _check_variables(start)
    memory, ports = (0, ()) if is_remote else (filesystem.total_memory(), filesystem.listening_ports())
    yield from check_options(docker, locate, memory=memory, used_ports=ports)
    yield from _check_gpus(start)
    yield from _check_image(start)
    prefix = list(start.line)
    if prefix and mask_command(prefix) == prefix and not any(is_secret(name) for name in names):
        command_context = replace(command_context, prefix=prefix)
    command_context = replace(
        command_context, mounts=start.mounted, volumes=start.volumes, gpus=start.gpu_count, is_quoted=True,
        files=_RemoteFiles(start) if is_remote else command_context.files, reads_specs=not is_remote,
        is_script=script_of(start.words) is not None,
        environ={k: v for k, v in context.environ.items() if k != "TAO_DOCKER_DISABLE"},
    )  # fmt: skip
    known, others = tasks(start.words)
    known = [_in_workdir(task, start.workdir) for task in known]
    results = [] if start.words else find_results(["train"], command_context)  # of any task
    for task in known:
        yield from check_task(task, command_context)
        results += find_results(task, command_context)
    yield from _check_read_only(start, results)
    for name in others:
        yield _unknown_command(name)
    if not is_remote:
        yield from check_folders(
            context, start.mounts, locate, mounted=start.mounted, results=results,
            user=container.host_user(docker, context, rootless=rootless), profile=command_context.profile or None,
        )  # fmt: skip


def _in_workdir(task: Sequence[str], folder: str) -> list[str]:
    """Return a task with its spec files as they are found from the container's working folder, if that is known."""
    options = ["", *task]
    is_named = folder.startswith("/")
    return [
        os.path.join(folder, word) if is_named and option in SPEC_OPTIONS and word[:1] not in ("$", "~") else word
        for option, word in zip(options, task, strict=False)
    ]


class _RemoteFiles(HostFiles):
    """What is assumed of another machine's files: everything below a source exists, and nothing is a link."""

    def __init__(self, start: DirectStart) -> None:
        self._sources = [mount.source for mount in start.mounts]

    def exists(self, path: str) -> bool:
        return any(is_inside(path, source) for source in self._sources)

    def link(self, path: str) -> str | None:
        return None

    def names(self, folder: str) -> list[str]:
        return []

    def matches(self, pattern: str) -> list[str]:
        return []


def _check_remote(start: DirectStart, address: str, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Check which sources exist on the engine's machine, and say what was not looked at."""
    shown, sources = mask_text(address), [mount.source for mount in start.mounts]
    missing, problem = find_missing(address, sources, environ)
    for mount in start.mounts:
        if mount.source in missing:
            where = start.locate(mount.location._replace(key="source"))
            stops = "Docker creates it, empty and as root" if mount.location in start.created else "Docker refuses it"
            hint = shlex.join(["ssh", *login_words(address), "mkdir", "-p", shlex.quote(mount.source)])
            yield error("src-missing", where, f"'{mount.source}' does not exist on the engine's machine", stops, hint)
    if problem:
        what = f"the engine is on another machine, {shown}: its folders are not checked"
        yield warning("paths-unchecked", "engine", what, problem, "check there: taoprof check NAME -- COMMAND")
    else:
        what = f"the engine is on another machine, {shown}: the rights of its folders are not checked"
        yield Finding("paths-unchecked", "engine", what, severity=INFO)


def _unknown_command(name: str) -> Finding:
    if name in PROGRAMS:
        hint = "write the task itself, without 'tao model'"
        return error("command-not-checked", "command", f"the image has no '{name}': that is the launcher", "", hint)
    what = f"'{mask_text(name)}' is not a task of TAO: what it does is not checked, only the container is"
    return warning("command-not-checked", "command", what)


def _check_sources(start: DirectStart) -> Iterator[Finding]:
    for mount in start.mounts:
        at, where = mount.destination, start.locate(mount.location._replace(key="destination"))
        if is_tao_image(start.image) or not start.image:
            yield from container.check_hiding(at, where)
        if str(mount.entry["source"]).startswith("~") and start.line:
            what = f"Docker does not expand the '~' of '{mount.entry['source']}'"
            yield error("src-missing", where, what, "", "write $HOME, or the whole path")


def _check_read_only(start: DirectStart, results: Sequence[str]) -> Iterator[Finding]:
    for path in results:
        around = [mount for mount in start.mounts if is_inside(os.path.normpath(path), mount.destination)]
        deepest = max(around, key=lambda mount: len(mount.destination), default=None)
        if deepest is not None and deepest.destination in start.read_only:
            where = start.locate(deepest.location._replace(key="destination"))
            what, why = f"results go to '{path}', which is mounted read-only", "the task stops: Read-only file system"
            yield error("results-read-only", where, what, why, "mount it writable, or choose another results_dir")


def _check_variables(start: DirectStart) -> Iterator[Finding]:
    for location, entry in start.variables:
        name, value, where = entry["variable"], entry["value"], start.locate(location)
        if name == "JOB_ID":
            what = "JOB_ID makes the task write its log to /results/$JOB_ID/microservices_log.txt"
            why = "it fails if that folder does not exist: FileNotFoundError"
            yield error("env-job-id", where, what, why, "remove it; TAO_JOB_ID is another variable")
        elif start.line and value and is_secret(name, value):
            what = f"the value of {name} is in the command line"
            why = "every user of this machine can read it while the command runs, and the shell keeps it in its history"
            yield warning("env-secret-plain", where, what, why, f"export {name} in the shell, and write: --env {name}")


def _check_gpus(start: DirectStart) -> Iterator[Finding]:
    gpus = start.gpus
    if gpus is None and is_tao_image(start.image):
        what, why = "no GPU is requested", "TAO's tasks stop without one, also those that do not compute on it"
        yield error("gpus-missing", "--gpus", what, why, "add --gpus all, or only some: --gpus 'device=0'")
    elif isinstance(gpus, int) and start.line:
        what = f"--gpus {gpus} is a number: Docker always gives {'GPU 0' if gpus == 1 else f'the first {gpus}'}"
        why = "two containers that are started so share a GPU, and run out of its memory"
        hint = "name them, such as --gpus 'device=1'; 'taoprof run NAME --gpus 1 --image …' takes a free one"
        yield warning("gpus-by-count", "--gpus", what, why, hint)
    for location, entry in start.variables if start.gpu_count else ():
        if entry["variable"] == "CUDA_VISIBLE_DEVICES" and entry["value"]:
            wrong = wrong_gpus("gpu_ids", str(entry["value"]).split(","), start.gpu_count or 0)
            if wrong is not None:
                hint = f"remove it, or set it to {','.join(wrong.right)}"
                yield error(wrong.id, start.locate(location), wrong.what, wrong.why, hint)


def _check_image(start: DirectStart) -> Iterator[Finding]:
    tag = parse_image_tag(start.image)
    if tag is None:
        if start.line and not start.image:
            yield error("image-without-command", "command", "it names no image", "", "add the image and the task")
        return
    release, kind = tag
    variables = {entry["variable"]: entry["value"] for _, entry in start.variables}
    if start.line and not start.words and release >= _NO_COMMAND_SINCE and variables.get("RUN_CLI") != "1":
        what, why = "the image is started without a command", "it then runs a service of NVIDIA's, and no task or shell"
        yield error("image-without-command", "command", what, why, "add the task, or bash, after the image")
    for name, *rest in tasks(start.words)[0]:
        action = rest[0] if rest else ""
        wanted, why = _needed_image(name, action, kind, release)
        if wanted:
            image = f"{start.image.rpartition(':')[0]}:{wanted}"
            what = f"'{name} {action}' does not run in the image {start.image}"
            yield error("image-not-for-task", "image", what, why, f"use the image {quoted(image)}")


def _needed_image(name: str, action: str, kind: str, release: tuple[int, int, int]) -> tuple[str, str]:
    """Return the tag of the image that a task needs instead, and why; "" if this one is right or it is not known."""
    version = ".".join(map(str, release))
    if name == "bevfusion" and release >= (6, 0, 0):
        return "5.5.0-pyt", "later images lack mmdet3d, which it needs"
    if name.startswith("cosmos_reason") and (release, kind) == ((7, 1, 0), "pyt"):
        return "7.0.1-cosmos-rl", "an import of Cosmos Reason fails in 7.1.0-pyt (NVIDIA bug 6587006)"
    if action == "gen_trt_engine" and kind == "pyt":
        return f"{version}-deploy", "only the deploy images make TensorRT engines"
    if action in MODEL_ACTIONS and kind == "deploy":
        return f"{version}-pyt", "the deploy images only make and run TensorRT engines"
    if name in _DATA_SERVICES and kind in ("pyt", "deploy") and release >= (7, 0, 0):
        return f"{version}-data-services", "it is a task of the data services"
    return "", ""


_UNCHANGED = re.compile(r"[A-Za-z0-9_@%+=:,./\[\]-]*\Z")
"""What /bin/sh passes on as it is."""


def from_runner(context: Context, runner: RunnerCommand, mapping: Mapping[str, Any]) -> DirectStart:
    """Return the container that a runner starts; ``mapping`` is what it reads from ``~/.tao_mounts.json``."""
    host = Host(context.environ, context.folder)
    source, destination = runner.checkout(context.environ, context.folder)
    listed = [("the checkout", source, destination)]
    in_file = _read_mounts(host, runner.last("--mounts_file"))
    for name, entries in (("~/.tao_mounts.json", mapping.get("Mounts", [])), ("--mounts_file", in_file)):
        listed += [(name, entry["source"], entry["destination"]) for entry in entries]
    volumes = map(parse_volume, runner.values("--volume"))
    listed += [("--volume", volume.source, volume.destination) for volume in volumes]
    mounts = []
    for number, (_, path, target) in enumerate(listed):
        entry = {"source": path, "destination": target}
        mounts.append(ResolvedMount(Location("Mounts", number), host.realpath(path), target.rstrip("/") or "/", entry))

    def locate(location: Location) -> str:
        if location.section == "Mounts" and location.number is not None:
            return f"{listed[location.number][0]}: mount at {listed[location.number][2]}"
        return f"--{location.key}" if location.key else "--env"

    pairs = [parse_variable(text) for text in runner.values("--env")]
    gpus = runner.last("--gpus", "all")
    options = {"shm_size": runner.last("--shm_size", "16G"), "network": "host"}
    options |= {"user": f"{context.uid}:{context.gid}"} if ("--run_as_user", "") in runner.options else {}
    return DirectStart(
        mounts, [(Location("Envs", n), {"variable": name, "value": value}) for n, (name, value) in enumerate(pairs)],
        options, "all" if gpus in ("all", "none") else gpus.split(","), "", runner.task, locate,
    )  # fmt: skip


def _read_mounts(host: Host, path: str) -> list[dict[str, str]]:
    try:
        entries = json.loads(host.read(path))["Mounts"] if path else []
        return [entry for entry in entries if {"source", "destination"} <= entry.keys()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def check_runner(context: Context, runner: RunnerCommand, profile: str) -> Iterator[Finding]:
    """Check what is special about a runner; ``profile`` is "" without one."""
    run = f"taoprof run {profile or 'NAME'} --shared -- {shlex.join(mask_command(runner.words))}"
    what = f"{runner.name} exits with 0, also if the task or Docker fails"
    yield warning("runner-exit-status", runner.name, what, "a script continues after a failed training", run)
    if runner.lacks_separator:
        what = "the command of the container does not follow '--'"
        why = f"{runner.name} takes its words for options, and refuses them"
        yield error("runner-separator", runner.name, what, why, f"{runner.name} OPTIONS -- COMMAND")
    if profile:
        what = f"{runner.name} takes only the mounts of the mapping file, not its variables, user and options"
        yield warning("runner-ignores-options", runner.name, what, "this passes them on by its options", run)
    if "LAUNCHER_MOUNTS" in context.environ:
        what, why = f"{runner.name} ignores LAUNCHER_MOUNTS", "it reads ~/.tao_mounts.json, another project's perhaps"
        yield warning("runner-mounts-file", "LAUNCHER_MOUNTS", what, why, f"taoprof use {profile or 'NAME'}")
    path = runner.last("--mounts_file")
    if path and not Host(context.environ, context.folder).exists(path):
        what = f"'{path}' does not exist, and {runner.name} does not say so"
        yield error("runner-mounts-file", "--mounts_file", what, "nothing of it is mounted", "correct the path")
    if runner.last("--gpus") == "none":
        what, why = f"{runner.name} makes '--gpus device=none' of it", "Docker stops: could not select device driver"
        yield error("gpus-missing", "--gpus", what, why, "leave it out: all GPUs are the default")
    for text in runner.values("--env"):
        variable, equals, value = text.partition("=")
        hint = f"--env '{variable}=${variable}'"
        if not equals:
            what = f"{runner.name} leaves out '{variable}', since it has no '='"
            yield warning("key-ignored", "--env", what, "", hint)
        elif is_secret(variable, value) and not value.strip("\"'").startswith("$"):
            what = f"{runner.name} prints the value of {variable}, and it is in the command line"
            yield warning("env-secret-plain", "--env", what, "", f"export {variable} in the shell, and: {hint}")
    words = (*runner.task, *runner.values("--env"), *runner.values("--volume"))
    changed = (word for word in words if not _UNCHANGED.match(word) and not is_secret(word.partition("=")[0]))
    if word := next(changed, None):
        what = f"/bin/sh splits or expands '{word[:60]}'"
        why = f"{runner.name} gives its words to a shell without quotes"
        yield warning("arg-needs-quoting", "command", what, why, f"'{run}' quotes them")
