"""Rules for the runners of NVIDIA's source trees: what they mount, leave out and hide (see ``launcher.runners``)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from taoprofiles.launcher.host import Host, Location, ResolvedMount
from taoprofiles.launcher.runners import RunnerCommand
from taoprofiles.masking import is_secret
from taoprofiles.rules.direct import DirectStart
from taoprofiles.rules.finding import Finding, error, warning
from taoprofiles.storage.paths import Context
from taoprofiles.system.docker_run import parse_variable, parse_volume

_UNCHANGED = re.compile(r"[A-Za-z0-9_@%+=:,./\[\]-]*\Z")
"""What /bin/sh passes on as it is."""


def to_start(context: Context, runner: RunnerCommand, mapping: Mapping[str, Any]) -> DirectStart:
    """Return the container that a runner starts; ``mapping`` is what it reads from ``~/.tao_mounts.json``."""
    host = Host(context.environ, context.folder)
    source, destination = runner.checkout(context.environ, context.folder)
    listed = [("the checkout", source, destination)]
    listed += [("~/.tao_mounts.json", m["source"], m["destination"]) for m in mapping.get("Mounts", [])]
    for entry in _read_mounts(host, runner.last("--mounts_file")):
        listed.append(("--mounts_file", entry["source"], entry["destination"]))
    for text in runner.values("--volume"):
        mount = parse_volume(text)
        listed.append(("--volume", mount.source, mount.destination))
    mounts = []
    for number, (_, path, place) in enumerate(listed):
        entry = {"source": path, "destination": place}
        mounts.append(ResolvedMount(Location("Mounts", number), host.realpath(path), place.rstrip("/") or "/", entry))

    def locate(location: Location) -> str:
        if location.section == "Mounts" and location.number is not None:
            return f"{listed[location.number][0]}: mount at {listed[location.number][2]}"
        return f"--{location.key}" if location.key else "--env"

    pairs = [parse_variable(text) for text in runner.values("--env")]
    gpus = runner.last("--gpus", "all")
    options = {"shm_size": runner.last("--shm_size", "16G"), "network": "host"}
    options |= {"user": f"{context.uid}:{context.gid}"} if ("--run_as_user", "") in runner.options else {}
    return DirectStart(
        mounts, frozenset(), frozenset(), [],
        [(Location("Envs", n), {"variable": name, "value": value}) for n, (name, value) in enumerate(pairs)],
        options, "all" if gpus in ("all", "none") else gpus.split(","), "", runner.task, locate,
    )  # fmt: skip


def _read_mounts(host: Host, path: str) -> list[dict[str, str]]:
    try:
        entries = json.loads(host.read(path))["Mounts"] if path else []
        return [entry for entry in entries if {"source", "destination"} <= entry.keys()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def check(context: Context, runner: RunnerCommand, profile: str) -> Iterator[Finding]:
    """Check what is special about a runner; ``profile`` is "" without one."""
    run = f"taoprof run {profile or 'NAME'} --shared -- {runner.name} …"
    what = f"{runner.name} exits with 0, also if the task or Docker fails"
    yield warning("runner-exit-status", runner.name, what, "a script goes on after a failed training", run)
    if profile:
        what = f"{runner.name} takes only the mounts of the mapping file, not its variables, user and options"
        yield warning("runner-ignores-options", runner.name, what, "", f"'{run}' passes them on by its options")
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
        name, equals, value = text.partition("=")
        if not equals:
            what = f"{runner.name} leaves out '{name}', since it has no '='"
            yield warning("key-ignored", "--env", what, "", f"--env '{name}=${name}'")
        elif is_secret(name, value) and not value.strip("\"'").startswith("$"):
            what = f"{runner.name} prints the value of {name}, and it is in the command line"
            yield warning(
                "env-secret-plain", "--env", what, "", f"export {name} in the shell, and: --env '{name}=${name}'"
            )
    words = [*runner.task, *runner.values("--env"), *runner.values("--volume")]
    for word in words:
        if not _UNCHANGED.match(word) and not is_secret(word.partition("=")[0]):
            what = f"/bin/sh splits or expands '{word[:60]}'"
            why = f"{runner.name} gives its words to a shell without quotes"
            yield warning("arg-needs-quoting", "command", what, why, f"'{run}' quotes them")
            break
