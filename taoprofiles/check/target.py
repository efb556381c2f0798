"""What is checked: a profile, or the mounts file that ``tao`` would read now, brought to one form."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.errors import InvalidProfileError, InvalidStateError
from taoprofiles.launcher import environment
from taoprofiles.mounts import mapping
from taoprofiles.profiles.store import Store
from taoprofiles.rules import document, home, variables
from taoprofiles.rules.finding import Finding
from taoprofiles.rules.locations import in_file, in_profile
from taoprofiles.storage import files
from taoprofiles.storage.files import MAPPING_LIMIT
from taoprofiles.switching.status import look

if TYPE_CHECKING:
    from taoprofiles.rules.locations import Where
    from taoprofiles.storage.paths import Context
    from taoprofiles.switching.status import Situation


class Matter(NamedTuple):
    """What is checked, before the machine is looked at.

    ``name`` is the profile's, None for a file of none; ``path`` the file's; ``content`` what the launcher would read,
    None for nothing; ``mapping`` what is sound of it, but for DockerOptions as they are written, of any type;
    ``where`` says where a thing of ``mapping`` stands; ``variables`` are the profile's, ``hidden`` names those that
    hold secrets, and ``secrets`` the container's that do; ``findings`` is what has been found on the way.
    ``in_full`` is ``where`` by the numbers of the file itself, which has what is not sound too; None for the same.
    """

    name: str | None
    path: str
    content: bytes | None
    mapping: dict[str, Any]
    where: Where
    variables: dict[str, str]
    secrets: frozenset[str] = frozenset()
    findings: tuple[Finding, ...] = ()
    hidden: frozenset[str] = frozenset()
    in_full: Where | None = None

    @property
    def is_valid(self) -> bool:
        """Whether there is anything that a launcher could be given."""
        return self.content is not None or "Mounts" in self.mapping


def of_profile(context: Context, name: str) -> Matter:
    """Take a profile, rendered here and now. Raises NotFoundError, UsageError."""
    store = Store(context)
    path = store.path(name)
    try:
        template = store.template(name)
        renderer = store.renderer(name)
        values, rendered = renderer.variables(), renderer.mapping(judged=False)
    except InvalidProfileError as error:
        problems = tuple(_invalid(problem, name) for problem in error.problems or [error.message])
        return Matter(name, path, None, {}, in_profile({}), {}, findings=problems)
    secret, secret_env = renderer.secrets()
    where = in_profile(rendered)
    found = [*variables.left_open(values), *variables.differing(values, context.environ, secret)]
    found += variables.plain_secrets(template["env"], where)
    content = mapping.to_bytes(rendered)
    return Matter(name, path, content, rendered, where, values, frozenset(secret_env), tuple(found), frozenset(secret))


def _invalid(problem: str, name: str) -> Finding:
    """Make a finding of a line that says ``key: what``."""
    key, colon, what = problem.partition(": ")
    hint = f"taoprof edit {name}"
    if not colon:
        return Finding("profile-invalid", "profile", problem, hint=hint)
    by_key = {"docker.shm_size": "shm-unit", "docker.ulimits": "ulimit-type", "docker.ports": "port-shape"}
    known = next((found for start, found in by_key.items() if key.startswith(start)), "profile-invalid")
    if key.startswith("docker.") and "unknown key" in what:
        known = "opt-unknown-for-version"
    return Finding(known, key, what, hint=hint)


def of_file(context: Context, fallback: str) -> Matter:
    """Take the mounts file that tao would read now; where it is that of the active profile, take the profile.

    ``fallback`` is what this launcher reads where there is no mapping file (``Behaviour.fallback_file``).
    """
    elsewhere = context.environ.get("LAUNCHER_MOUNTS")
    before: list[Finding] = []
    if elsewhere is None:
        seen = look(context)
        if seen.state == "active" and seen.name is not None:
            return of_profile(context, seen.name)
        before = _overwritten(context, seen)
    path = context.mapping_file if elsewhere is None else context.expand_user(elsewhere)
    if elsewhere is None and not os.path.lexists(path) and os.path.exists(context.expand_user(fallback)):
        path = context.expand_user(fallback)
    short = context.short(path) or "LAUNCHER_MOUNTS"
    nothing = Matter(None, path, None, {"Mounts": []}, in_profile({}), {})
    try:
        content = files.read(path, MAPPING_LIMIT) if path else None
    except InvalidStateError as error:
        return nothing._replace(findings=(Finding("json-parse", short, error.message),))
    if content is None:
        meant = environment.meant(elsewhere or "", context.environ)
        named = [] if elsewhere is None else home.launcher_mounts(elsewhere, "a file that is not there", meant)
        return nothing._replace(findings=tuple(named or [_no_file(context)]))
    text = content.decode("utf-8", "replace")
    data, told = document.read(text, short)
    if data is None:
        return nothing._replace(content=content, mapping={}, findings=(*before, *told))
    listed = {section: document.sound(data, section) for section in ("Mounts", "Envs")}
    sound: dict[str, Any] = {section: list(entries.values()) for section, entries in listed.items()}
    sound["DockerOptions"] = data.get("DockerOptions", {})
    plain, numbers = in_file(short, text), {section: list(entries) for section, entries in listed.items()}

    def where(section: str = "", *rest: str | int) -> str:
        if rest and isinstance(rest[0], int) and section in numbers:
            rest = (numbers[section][rest[0]], *rest[1:])
        return plain(*((section, *rest) if section else rest))

    secret = frozenset(mapping.secrets(sound))
    found = (*before, *told, *_mode(path, short, secret))
    return Matter(None, path, content, sound, where, {}, secret, found, in_full=plain)


def _overwritten(context: Context, seen: Situation) -> list[Finding]:
    """Tell where another program has overwritten a profile's mapping, as each notebook of NVIDIA's does."""
    if seen.state != "unmanaged" or seen.last is None:
        return []
    what = f"another program wrote it, and '{seen.last}' was there before"
    why = "tao takes what is there now: it may train on another project's data, and write into its results"
    where = context.short(context.mapping_file)
    return [Finding("global-file-changed-by-other", where, what, why, f"taoprof use {seen.last}")]


def _no_file(context: Context) -> Finding:
    why = "the launcher says nothing of it: the container starts without any mounts, and exit status 0"
    what, hint = "there is no mounts file", "'taoprof list' shows the profiles, 'taoprof use NAME' makes the file"
    if not Store(context).names():
        hint = "in the project's folder: 'taoprof new NAME', and then 'taoprof use NAME --mkdir'"
    near = environment.near(context.home, os.path.basename(context.mapping_file))
    if near:
        what += f", and '{near[0]}' has nearly its name"
        hint = shlex.join(["mv", near[0], context.mapping_file])
    return Finding("no-mapping-file", context.short(context.mapping_file), what, why, hint)


def _mode(path: str, short: str, secret: frozenset[str]) -> list[Finding]:
    try:
        mode = os.stat(path).st_mode & 0o777
    except OSError:
        return []
    if not (secret and mode & 0o044):
        return []
    names = sorted({name.partition("=")[0] for name in secret})  # a value may have got into a name
    what = f"it holds {', '.join(names)}, and others may read it (mode {mode:o})"
    return [
        Finding(
            "file-mode",
            short,
            what,
            "",
            f"chmod 600 {short if short.startswith('~') else shlex.quote(path)}",
            fix=("chmod", path),
        )
    ]
