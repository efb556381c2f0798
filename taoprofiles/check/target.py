"""The target of a check: a profile, or the mounts file that ``tao`` would read now."""

from __future__ import annotations

import shlex
from typing import NamedTuple

from taoprofiles.errors import InvalidProfileError, InvalidStateError
from taoprofiles.launcher import home_probe
from taoprofiles.launcher.host import find_mounts_file
from taoprofiles.launcher.versions import Behaviour
from taoprofiles.mounts import mapping
from taoprofiles.profiles.rendering import Renderer, unset_variables
from taoprofiles.profiles.store import Store
from taoprofiles.rules import container, machine
from taoprofiles.rules.finding import Finding, error, find_lines, in_file, in_profile, warning
from taoprofiles.rules.start import MountsFile
from taoprofiles.storage import files
from taoprofiles.storage.files import MAPPING_LIMIT
from taoprofiles.storage.paths import Context
from taoprofiles.switching.status import Status, get_status

_PROBLEM_IDS = {"docker.shm_size": "shm-unit", "docker.ulimits": "opts-shape", "docker.ports": "opts-shape"}
"""By profile key: the id of the finding for a value that the profile model rejects, else "profile-invalid"."""


class CheckTarget(NamedTuple):
    """A profile or mounts file, before it is checked against this machine.

    - ``name``: the profile, or None for a file without one
    - ``path``: its file
    - ``content``: what the launcher would read, or None
    - ``variables``: those of the profile; ``secret_variables`` names those that hold secrets
    - ``secret_environment``: the names of the container's variables that hold secrets
    - ``renderer``: the profile's, which also knows what the mapping cannot say: the image, GPUs, read-only mounts
    - ``findings``: the problems found while reading
    """

    name: str | None
    path: str
    content: bytes | None
    file: MountsFile
    variables: dict[str, str]
    findings: tuple[Finding, ...] = ()
    secret_variables: frozenset[str] = frozenset()
    secret_environment: frozenset[str] = frozenset()
    renderer: Renderer | None = None

    @classmethod
    def from_profile(cls, context: Context, name: str) -> CheckTarget:
        """Return the target for a profile, rendered now. Raises NotFoundError, UsageError."""
        store = Store(context)
        path = store.path(name)
        try:
            source = store.source(name)
            template, renderer = store.template(name, source), store.renderer(name, source)
            variables, rendered = renderer.variables(), renderer.mapping(is_checked=False)
        except InvalidProfileError as problem:
            findings = tuple(_invalid(line, name) for line in problem.problems or [problem.message])
            return cls(name, path, None, MountsFile(name, "", in_profile({}), None), {}, findings)
        secret, secret_environment = renderer.secrets()
        locate = in_profile(rendered)
        findings = (
            *container.check_profile_variables(variables, name),
            *container.check_shell(variables, context.environ, secret),
            *container.check_plain_secrets(template["env"], locate, name),
        )
        names = frozenset(secret), frozenset(secret_environment)
        file = MountsFile(name, "", locate, None)
        return cls(name, path, mapping.to_bytes(rendered), file, variables, findings, *names, renderer)

    @classmethod
    def from_file(cls, context: Context, behaviour: Behaviour) -> CheckTarget:
        """Return the target for the file that a launcher would read now; for an active profile's, the profile."""
        launcher_mounts = context.environ.get("LAUNCHER_MOUNTS")
        overwritten: list[Finding] = []
        if launcher_mounts is None:
            status = get_status(context)
            if status.state == "active" and status.name is not None:
                return cls.from_profile(context, status.name)
            overwritten = _overwritten(context, status)
        path = find_mounts_file({**context.environ, "HOME": context.home}, context.folder, behaviour)
        name = context.short(path) or "LAUNCHER_MOUNTS"
        try:
            content = files.read(path, MAPPING_LIMIT) if path else None
        except InvalidStateError as problem:
            return cls(None, path, None, _file(name, ""), {}, (error("json-parse", f"{name}:1", problem.message),))
        file = _file(name, (content or b"").decode("utf-8", "replace"))
        if content is None:
            meant = home_probe.guess_mounts_file(launcher_mounts or "", context.environ)
            missing = machine.check_launcher_mounts(launcher_mounts, "a file that does not exist", meant)
            return cls(None, path, None, file, {}, tuple(missing) or (_no_file(context),))
        return cls(None, path, content, file, {}, tuple(overwritten))


def _file(name: str, text: str) -> MountsFile:
    lines = find_lines(text)
    return MountsFile(name, text, in_file(name, lines), lines)


def _invalid(problem: str, name: str) -> Finding:
    """Return the finding for a line of the form ``key: problem``."""
    key, colon, what = problem.partition(": ")
    unset = unset_variables([problem])
    hint = f"export {unset[0]}=…" if unset else f"taoprof edit {name}"
    if not colon:
        return error("profile-invalid", "profile", problem, hint=hint)
    id = next((id for start, id in _PROBLEM_IDS.items() if key.startswith(start)), "profile-invalid")
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
    return [warning("global-file-changed-by-other", where, what, why, f"taoprof use {status.last}")]


def _no_file(context: Context) -> Finding:
    why = "the launcher reports nothing: the container starts without any mounts, and the exit status is 0"
    what, hint = "there is no mounts file", "'taoprof list' shows the profiles, 'taoprof use NAME' creates the file"
    if not Store(context).names():
        hint = "in the project's folder: 'taoprof new NAME', and then 'taoprof use NAME --mkdir'"
    for path in home_probe.find_similar_files(context.mapping_file, context.folder)[:1]:
        what += f"; perhaps '{path}' was meant"
        hint = shlex.join(["mv", path, context.mapping_file])
    return error("no-mapping-file", context.short(context.mapping_file), what, why, hint)
