"""What the launcher would do with a profile or a mounts file, and all that is wrong with it on this machine."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.check import fix
from taoprofiles.check.target import Matter, of_file, of_profile
from taoprofiles.errors import UsageError
from taoprofiles.launcher import installed, registry, versions
from taoprofiles.launcher.argv import MAIN_PROGRAMS, launcher_words
from taoprofiles.launcher.host import Host
from taoprofiles.launcher.simulation import predict
from taoprofiles.mounts import mapping, paths
from taoprofiles.rules import folders, home, login, options, variables
from taoprofiles.rules.command import CommandContext, check_command
from taoprofiles.rules.finding import ERROR, Finding, by_severity
from taoprofiles.switching import preflight
from taoprofiles.system.filesystem import Folder, file_system, file_systems, foreign, listening, memory, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taoprofiles.launcher.prediction import Change, Prediction
    from taoprofiles.storage.paths import Context

_RESULTS = ("results", "result", "output", "outputs", "experiments")
"""Names of container folders that are written to, where neither the command nor a variable says so."""

_OVERWRITTEN = "global-file-changed-by-other"
"""Comes before all others: the file is another project's, and nobody is to mend that one."""


class Report(NamedTuple):
    """What a check found, in the order of its weight.

    ``name`` is the profile's, None for a mounts file of none, which is ``path``; ``launcher`` the installed one, None
    where there is none or a version was named, and ``version`` the one that counts; ``prediction`` is what it would do
    plainly, None where there is nothing to predict, and ``lost`` what would not reach Docker under CI_PROJECT_DIR;
    ``secrets`` names the container's variables whose values must not be shown.
    """

    name: str | None
    path: str
    launcher: installed.Launcher | None
    version: str
    prediction: Prediction | None
    lost: list[str]
    findings: list[Finding]
    secrets: frozenset[str]


def check(context: Context, name: str | None, command: list[str], *, launcher: str | None = None) -> Report:
    """Check a profile, or without a name what ``tao`` would read now, for the launcher on PATH or the version named.

    ``command`` are the words behind ``--``, none for any task. Raises NotFoundError, UsageError.
    """
    found, version = _launcher(context, launcher)
    matter = of_file(context, versions.behaviour(version).fallback_file) if name is None else of_profile(context, name)
    findings = list(matter.findings)
    prediction, lost = None, []
    if matter.is_valid:
        if matter.content is not None and matter.mapping:
            findings += _judged(context, matter, version, command, by_name=name is not None)
        words = launcher_words(command)
        arguments = words[1:] if words and words[0] in MAIN_PROGRAMS else None  # the simulation knows no tao-deploy
        config = installed.config(found) if found and found.version == version else None
        prediction = predict(version, _Offered(context, matter, config), arguments)
        findings += _from_prediction(context, prediction, findings, matter)
        if prediction.refusal is not None and prediction.refusal.place.section == "login":
            # What the container will be all the same.
            prediction = predict(version, _Offered(context, matter, config), None)
        in_ci = predict(version, _Offered(context, matter, config, in_ci=True), arguments)
        lost = [change.place.key or str(change.place) for change in in_ci.changes if change.kind == "ci-dropped"]
        if lost and "CI_PROJECT_DIR" in context.environ:
            findings.append(home.in_ci(context.environ["CI_PROJECT_DIR"], ", ".join(lost)))
    fix.with_commands(context, findings, matter, by_name=name is not None)
    findings = sorted(by_severity(findings), key=lambda one: one.id != _OVERWRITTEN)
    return Report(matter.name, matter.path, found, version, prediction, lost, findings, matter.secrets)


class _Offered(Host):
    """Our host, where the launcher would find the mounts file that is checked."""

    def __init__(self, context: Context, matter: Matter, config: bytes | None, *, in_ci: bool = False) -> None:
        environ = {name: value for name, value in context.environ.items() if name != "CI_PROJECT_DIR"}
        super().__init__(environ | ({"CI_PROJECT_DIR": "/builds"} if in_ci else {}), context.folder, config)
        self._content = matter.content if matter.name is not None else None
        if self._content is not None:
            self.environ = {**self.environ, "LAUNCHER_MOUNTS": matter.path}
        self._path = matter.path

    def exists(self, path: str) -> bool:
        return (self._content is not None and path == self._path) or super().exists(path)

    def read(self, path: str) -> bytes:
        return self._content if self._content is not None and path == self._path else super().read(path)


def _launcher(context: Context, wanted: str | None) -> tuple[installed.Launcher | None, str]:
    if wanted is not None:
        try:
            versions.parse(wanted)
        except ValueError as error:
            raise UsageError(str(error), hint=f"such as --launcher {versions.NEWEST}") from None
        return None, wanted
    found = installed.first(context.environ)
    try:
        versions.parse(found.version if found else "")
    except ValueError:
        return found, versions.NEWEST
    return found, found.version if found else versions.NEWEST


def _judged(context: Context, matter: Matter, version: str, command: list[str], *, by_name: bool) -> Iterator[Finding]:
    where, made = matter.where, matter.mapping
    yield from preflight.mount_findings(context, made["Mounts"], where, expanded=matter.name is not None)
    behaviour = versions.behaviour(version)
    given = made.get("DockerOptions", {})
    yield from options.shapes(
        given, where, known=behaviour.options, version=version, null_is_fine=not behaviour.needs_options
    )
    given = given if isinstance(given, dict) else {}
    yield from preflight.container_findings(context, {**made, "DockerOptions": given}, where)
    yield from variables.judge(made.get("Envs", []), where)
    yield from options.judge(given, where, memory=memory())
    yield from options.ports(given, where, taken=listening())
    yield from _folders(context, matter, given, command)
    if not command:
        return
    mounts = mapping.mounted(matter.mapping)
    run = ["taoprof", "run", matter.name, "--"] if by_name and matter.name is not None else []
    about = CommandContext(mounts, matter.variables, context.environ, matter.hidden, run=run)
    yield from check_command(command, about)


def _folders(context: Context, matter: Matter, given: dict[str, Any], command: list[str]) -> Iterator[Finding]:
    ids = folders.user_ids(given.get("user"), context.uid, context.gid)
    table, listed = file_systems(), []
    for number, mount in enumerate(matter.mapping["Mounts"]):
        source = Folder(context.absolute(mount["source"]))
        if not source.problem:
            listed.append((matter.where("Mounts", number, "source"), source, file_system(source.real, table)))
    docker = os.path.realpath(shutil.which("docker", path=context.environ.get("PATH")) or "")
    yield from folders.sources(listed, ids, home=context.home, snap=docker.startswith("/snap/"))
    results = [(path, nearest(path)) for path in _results(matter, command)]
    yield from folders.results([("results", path, folder) for path, folder in results], ids)
    for _, folder in results:
        if ids is not None and ids[0] != 0 and folder.may(*ids, 3):
            yield from folders.owned("results", folder.path, foreign(folder.path, ids[0]), ids)


def _results(matter: Matter, command: list[str]) -> list[str]:
    """Give the host folders into which results go: as the command says, or else by their usual names."""
    mounts = mapping.mounted(matter.mapping)
    named = paths.results_folders(command or ["train"], matter.variables)
    if not named and not command:
        named = [place for place in mounts.values() if os.path.basename(place) in _RESULTS]
    return list(dict.fromkeys(paths.host_paths(named, mounts)))


def _from_prediction(
    context: Context, prediction: Prediction, known: list[Finding], matter: Matter
) -> Iterator[Finding]:
    """Tell what only the launcher's own behaviour shows."""
    for change in prediction.changes:
        yield from _of_change(change, matter)
    refusal = prediction.refusal
    if refusal is None:
        return
    said = f"{refusal.kind}: {refusal.message}".replace("\n", " ")[:300]
    told = []
    if refusal.place.section == "login":
        logged_in = registry.survey(context.environ, Host(context.environ, context.folder).expanduser("~"))
        told = login.judge(logged_in, prediction.version, context.environ, context.uid)
        for finding in told:
            finding.why = f"the launcher would stop: {said}; {finding.why}"
        yield from told
    if not told and not any(finding.severity == ERROR for finding in known):
        yield Finding("launcher-refuses", str(refusal.place), f"the launcher would stop: {said}")


def _of_change(change: Change, matter: Matter) -> Iterator[Finding]:
    place = change.place
    where = matter.in_full or matter.where
    at = str(place) if place.number is None else where(place.section, place.number)
    if change.kind == "env-twice":
        yield Finding("env-twice", at, f"the variable {change.was} is there twice", "the last one counts")
    elif change.kind == "volume-not-seen":
        why = "this launcher takes '--volume SOURCE:DESTINATION' only, from 6.0.0 on; here the task gets it"
        yield Finding("volume-not-seen", "--volume", f"'{change.was}' is no mount", why, "put it into the profile")
    elif change.kind == "volume-source-missing":
        why = "Docker makes a folder there, as root"
        yield Finding("volume-source-missing", "--volume", f"folder '{change.was}' does not exist", why)
