"""Rules for the container that a mapping describes: its mounts, its variables and its user.

Sources: ``formatted_mounts`` in docker_handler.py of nvidia-tao 6.26.3; the volume rules of ``docker run``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from taoprofiles.launcher.behaviour import Host, Location, ResolvedMount, explain_hidden_folder, missing_source
from taoprofiles.masking import is_secret
from taoprofiles.mounts.mapping import mounted
from taoprofiles.profiles.layouts import FOLDER_VARIABLES, NAMED_UID, USER_NAME, missing_identity
from taoprofiles.profiles.rendering import find_placeholder, is_windows_path
from taoprofiles.rules.finding import INFO, Finding, Locator, error, quoted, warning
from taoprofiles.storage.paths import Context
from taoprofiles.system.engine import Engine, EngineError
from taoprofiles.system.filesystem import PathInfo, answers, creation_problem, is_wsl, nearest_existing

if TYPE_CHECKING:
    from taoprofiles.profiles.rendering import Renderer


def check_mounts(mounts: Sequence[ResolvedMount], locate: Locator, host: Host) -> Iterator[Finding]:
    """Check the mounts that the launcher understands, those of ``--volume`` at the end."""
    missing = {mount.location for mount in mounts if not host.exists(mount.source)}
    for mount in mounts:
        if mount.location.section == "Mounts":
            yield from _check_source(mount, locate, host, missing=mount.location in missing)
        elif mount.location in missing:
            yield _missing_volume(mount, host)
        yield from _check_destination(mount, locate)
    yield from _check_same_source(mounts, locate)
    yield from _check_same_destination({mount.source: mount for mount in mounts}.values(), locate)
    yield from _check_nested(mounts, missing, locate)


def check_direct_mounts(
    mounts: Sequence[ResolvedMount], locate: Locator, host: Host, created: Collection[Location]
) -> Iterator[Finding]:
    """Check the mounts of a container that is started without the launcher; its paths are used as they are written.

    ``created`` are the mounts whose source the engine creates if it does not exist: those of ``docker run --volume``.
    """
    missing = {mount.location for mount in mounts if not host.exists(mount.source)}
    for mount in mounts:
        stops = "Docker stops: bind source path does not exist"
        if mount.location in created:
            stops = "Docker creates it, empty and as root: the task finds no data there, and you cannot write to it"
        yield from _check_source(mount, locate, host, missing=mount.location in missing, stops=stops)
        if not mount.destination.startswith("/") or not mount.destination.strip("/"):
            what = f"'{mount.destination}' is not an absolute path below '/'"
            where = locate(mount.location._replace(key="destination"))
            yield error("dst-relative", where, what, "Docker refuses it: invalid mount path", by_hand=True)
    first: dict[str, ResolvedMount] = {}
    for mount in mounts:
        before = first.setdefault(mount.source, mount)
        if before.destination != mount.destination:
            what = f"'{mount.source}' is also mounted at '{before.destination}'"
            why = "Docker mounts both; the launcher and NVIDIA's TAO SDK keep only one mount of a folder, the last"
            hint = "mount a parent folder once, or give one of the two its own folder"
            yield warning("src-duplicate", locate(mount.location._replace(key="source")), what, why, hint)
    yield from _check_same_destination(mounts, locate)
    yield from _check_nested(mounts, missing, locate)


def _check_source(
    mount: ResolvedMount, locate: Locator, host: Host, *, missing: bool, stops: str = ""
) -> Iterator[Finding]:
    """Check the source of a mount; ``stops`` is what happens if it does not exist."""
    written = str(mount.entry["source"])
    stops = stops or f"the launcher stops: ValueError: {missing_source(mount.source)}"
    where = locate(mount.location._replace(key="source"))
    if is_windows_path(written):
        hint = "write the Linux path of the folder, such as /data"
        if is_wsl():
            linux_path = f"/mnt/{written[0].lower()}/" + written[3:].replace("\\", "/")
            hint = f"in WSL that folder is '{linux_path}'"
        yield error("src-missing", where, f"'{written}' is a Windows path", stops, hint, by_hand=True)
        return
    if not written.startswith(("/", "~")):
        why = f"from here it is '{mount.source}'"
        what = f"'{written}' depends on the folder in which the command is started"
        yield warning("src-relative", where, what, why, f"write the whole path: {mount.source}", by_hand=True)
    if ":" in mount.source:
        yield _colon(where, mount.source)
    if missing:
        yield _missing_source(written, where, host, stops)


def _missing_volume(mount: ResolvedMount, host: Host) -> Finding:
    written, what = str(mount.entry["source"]), f"folder '{mount.source}' does not exist"
    hint = f"mkdir -p {quoted(mount.source)}"
    if written.startswith("~"):
        what = f"the launcher does not expand the '~' of '{written}'"
        hint = f"--volume {quoted(host.expanduser(written))}:{quoted(str(mount.entry['destination']))}"
    return warning("volume-argument", "--volume", what, f"Docker creates '{mount.source}' as root", hint)


def _missing_source(written: str, where: str, host: Host, stops: str) -> Finding:
    path = os.path.join(host.folder, host.expanduser(written))
    problem, placeholder = PathInfo(path).problem, find_placeholder(written)
    if problem and problem != "missing":
        # The launcher says that it does not exist, which is misleading.
        return error("src-missing", where, f"'{path}' cannot be read: {problem}", stops)
    missing = path.removeprefix(nearest_existing(path).path)  # a folder that exists may have such a name
    fix: tuple[str, ...] = ()
    if placeholder:
        what, hint = f"'{written}' still contains '{placeholder}'", "write the real path of the folder"
        return error("placeholder", where, what, stops, hint, by_hand=True)
    if unexpanded := re.search(r"\$\w+|\$\{[^}]*\}", missing):
        hint = "write the path itself; in a profile, ${env:NAME} is a variable of your environment"
        what = f"nothing expands '{unexpanded[0]}' in '{written}'"
    elif re.search(r"\s#.*", missing):
        what, hint = f"'{written}' ends with a comment", "remove it: '%env NAME=value # …' makes it part of the value"
    elif reason := creation_problem(path):
        what, hint = f"folder '{path}' does not exist, and {reason}", "use a folder of this machine"
    else:
        what, hint, fix = f"folder '{path}' does not exist", f"mkdir -p {quoted(path)}", ("mkdir", path)
    return error("src-missing", where, what, stops, hint, fix=fix, by_hand=not fix)


def _check_destination(mount: ResolvedMount, locate: Locator) -> Iterator[Finding]:
    written, real = str(mount.entry["destination"]), mount.destination
    where = locate(mount.location._replace(key="destination"))
    if not written.startswith("/"):
        kind = "is a path in the host's home" if written.startswith("~") else "is not absolute"
        yield error(
            "dst-relative", where, f"'{written}' {kind}",
            f"the launcher resolves it on this host, and would mount at '{real}'",
            "write the path in the container, such as /data", by_hand=True,
        )  # fmt: skip
    elif not real.strip("/"):
        what = f"'{written}' is the root folder of the container"
        yield error("dst-relative", where, what, "Docker refuses to mount there", by_hand=True)
    elif os.path.normpath(written).lstrip("/") != real.lstrip("/"):
        yield error(
            "dst-symlinked-on-host", where, f"'{written}' is '{real}' on this host",
            f"the launcher resolves symlinks on the host and would mount at '{real}': nothing would be at '{written}'",
            "choose a destination that is not a symlink on this host, such as /workspace/data", by_hand=True,
        )  # fmt: skip
    else:
        yield from check_hiding(real, where)
    if ":" in real:
        yield _colon(where, real)


def check_hiding(destination: str, where: str) -> Iterator[Finding]:
    """Check whether a mount hides files of NVIDIA's images."""
    if what := explain_hidden_folder(destination):
        hint = f"mount it below, such as at {destination}/specs"
        yield warning("dst-hides-image", where, what, "a task that needs them fails", hint, by_hand=True)


def _colon(where: str, path: str) -> Finding:
    why = "Docker splits source:destination:mode at the ':' in the path"
    return error("src-colon", where, f"'{path}' contains a ':'", why, "rename the folder without ':'", by_hand=True)


def _check_same_source(mounts: Sequence[ResolvedMount], locate: Locator) -> Iterator[Finding]:
    """Check for a mount that the launcher drops: it keeps only one of each source, the last."""
    last: dict[str, ResolvedMount] = {}
    for mount in mounts:
        dropped = last.get(mount.source, mount)
        last[mount.source] = mount
        if dropped.destination != mount.destination:
            yield error(
                "src-duplicate", locate(mount.location._replace(key="source")),
                f"'{mount.entry['source']}' is the same folder as the source of {dropped.location}",
                "the launcher keeps only one mount of a folder, the last: nothing would be mounted at "
                f"'{dropped.destination}'",
                "mount a parent folder once, or give one of the two its own folder", by_hand=True,
            )  # fmt: skip


def _check_same_destination(mounts: Iterable[ResolvedMount], locate: Locator) -> Iterator[Finding]:
    why = "Docker refuses two mounts at one place: Duplicate mount point"
    first: dict[str, ResolvedMount] = {}
    for mount in mounts:
        other = first.setdefault(mount.destination, mount)
        if other is not mount:
            where = locate(mount.location._replace(key="destination"))
            name = other.location if other.location.section == "Mounts" else "another mount"
            what = f"'{mount.entry['destination']}' is already the destination of {name}"
            yield error("dst-duplicate", where, what, why, "give one of the two another destination", by_hand=True)


def by_destination(mounts: Sequence[ResolvedMount]) -> dict[str, ResolvedMount]:
    """Return the mounts by their place in the container; the first of several at one place."""
    return {mount.destination: mount for mount in reversed(mounts)}


def find_outer(inner: ResolvedMount, mounts: Mapping[str, ResolvedMount]) -> ResolvedMount | None:
    """Return the innermost of ``mounts``, whose sources exist, that has the mount point of ``inner``, or None.

    ``mounts`` are those of ``by_destination``.
    """
    folder, above = inner.destination, os.path.dirname(inner.destination)
    while above != folder:
        if above in mounts:
            return mounts[above]
        folder, above = above, os.path.dirname(above)
    return None if inner.destination == "/" else mounts.get("/")


def _check_nested(mounts: Sequence[ResolvedMount], missing: Collection[Location], locate: Locator) -> Iterator[Finding]:
    """Check each mount inside another: what it hides, or which folder Docker would create on the host for it.

    ``missing`` are the mounts whose source does not exist.
    """
    existing = by_destination([mount for mount in mounts if mount.location not in missing])
    for inner in mounts:
        at, outer = inner.destination, find_outer(inner, existing)
        if outer is None:
            continue
        point = os.path.join(outer.source, os.path.relpath(at, outer.destination))
        where = locate(inner.location._replace(key="destination"))
        if os.path.realpath(point) == os.path.realpath(inner.source):
            continue
        if not os.path.lexists(point):
            what = f"'{at}' is inside the mount at '{outer.destination}', and '{point}' does not exist"
            why = "Docker creates it on this host as root: then you cannot write there"
            yield warning("dst-makes-folder", where, what, why, f"mkdir -p {quoted(point)}", fix=("mkdir", point))
        elif _has_entries(point):
            yield Finding("dst-shadow", where, f"'{at}' hides the content of '{point}' in the container", severity=INFO)


def _has_entries(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


# Its variables and its user


_USER = r"[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?"
_LITERAL = r"(?:YOUR_?)?(?:UID|uid|USER(?:_?(?:ID|NAME))?)(?::.*)?"
_ENGINE_TIMEOUT = 1.0


def check_variables(variables: Iterable[tuple[Location, Mapping[str, Any]]], locate: Locator) -> Iterator[Finding]:
    """Check the variables of the container: nulls, values that are not text, and names that come twice."""
    first: dict[str, str] = {}
    for location, entry in variables:
        name, value, where = str(entry["variable"]), entry["value"], locate(location)
        if value in (None, "None", "null"):
            yield error(
                "env-null", where, f"{name} is {'null' if value is None else repr(value)}",
                f"the container gets the text '{value}': a notebook wrote os.getenv() of a variable that was not set",
                f"set {name}, or remove it", fix=("unset", f"container.env.{name}"),
            )  # fmt: skip
        elif not isinstance(value, str) or not isinstance(entry["variable"], str):
            what = f"{name} is {'true or false' if isinstance(value, bool) else 'not text'}"
            why = "" if is_secret(name) else f"the container gets {str(value)[:40]!r}"
            yield warning("env-not-text", where, what, why, "write it in quotes", by_hand=True)
        if name in first:
            what, why = f"the variable {name} is set twice", f"the last value is used ({location})"
            yield warning("env-twice", first[name], what, why)
        first[name] = where


def check_ci_values(
    mounts: Iterable[ResolvedMount], variables: Iterable[tuple[Location, Mapping[str, Any]]], locate: Locator
) -> Iterator[Finding]:
    """Check what the launcher pastes unquoted into a shell command of this host if CI_PROJECT_DIR is set."""
    located = [(mount.location, mount.source + mount.destination) for mount in mounts]
    located += [(location, f"{entry['variable']}={entry['value']}") for location, entry in variables]
    for location, text in located:
        if re.search(r"[`$;&|<>()'\"\\\n*?#]", text):
            what = "it has characters that a shell acts on"
            why = "with CI_PROJECT_DIR the launcher pastes it without quotes into a command of this host"
            yield error("ci-project-dir-set", locate(location), what, why, "unset CI_PROJECT_DIR")


def is_rootless(environ: Mapping[str, str], context: Context) -> bool:
    """Check whether root in a container is the user, for whom the engine runs; False if it does not answer at once."""
    try:
        return context.uid != 0 and bool(Engine(environ, _ENGINE_TIMEOUT).info()["is_rootless"])
    except EngineError:
        return False


def host_user(options: Mapping[str, Any], context: Context, *, rootless: bool) -> Any:
    """Return the container's user as this host has it, as the option ``user`` says it."""
    user = options.get("user")
    is_me = rootless and user_ids(user, context.uid, context.gid) in (None, (0, 0))
    return f"{context.uid}:{context.gid}" if is_me else user


def _check_rootless(options: Mapping[str, Any], locate: Locator) -> Iterator[Finding]:
    """Check the user and the limits of a container for an engine without rights of root."""
    import resource  # not at the start of 'use'

    user = str(options.get("user") or "0")
    if user.partition(":")[0] not in ("0", "root"):
        what = f"the container runs as '{user}', and the engine is rootless: root in the container is you"
        why, fix = "results belong to an id such as 100999", ("set", "docker.user=0:0")
        yield warning("docker-rootless", locate(Location("DockerOptions", key="user")), what, why, fix=fix)
    limits = options.get("ulimits")
    for name, wanted in limits.items() if isinstance(limits, dict) else ():
        kind = getattr(resource, f"RLIMIT_{name.upper()}", None)
        own = -1 if kind is None else resource.getrlimit(kind)[1]
        if own != -1 and not 0 <= wanted <= own:
            where = locate(Location("DockerOptions", key=f"ulimits.{name}"))
            what = f"the engine is rootless, and cannot raise {name} above your own limit, {own}"
            why = "Docker stops: error setting rlimit: operation not permitted"
            yield warning("docker-rootless", where, what, why, fix=("set", f"docker.ulimits.{name}={own}"))


def check_user(
    options: object, names: Collection[object], locate: Locator, context: Context, *, rootless: bool = False
) -> Iterator[Finding]:
    """Check the container's user against the one of ``context``; ``names`` are the container's variables.

    ``rootless``: the engine has no rights of root, so that root in the container is the user.
    """
    docker = options if isinstance(options, dict) else {}
    if rootless:
        yield from _check_rootless(docker, locate)
        return
    me = f"{context.uid}:{context.gid}"
    where, needed = locate(Location("DockerOptions", key="user")), missing_identity({"user": me}, names)
    variables = [f"container.env.{name}={value}" for name, value in needed.items() if name != "LOGNAME"]
    fix = ("set", "docker.user=auto", *variables)
    value = docker.get("user")
    if value in (None, ""):
        if context.uid != 0:
            yield warning(
                "user-not-me", where, "no user is set, so the container runs as root",
                "results belong to root: you cannot delete them, and your later runs cannot write to them",
                f'set it to "{me}", your own', fix=fix,
            )  # fmt: skip
        return
    user = str(value)
    name = user.partition(":")[0]
    if not user.replace(":", "", 1).isdigit() and (not re.fullmatch(_USER, user) or re.fullmatch(_LITERAL, user)):
        why = "the launcher accepts it, but Docker refuses: unable to find user"
        yield error("user-literal", where, f"'{user}' is not a user", why, f'set it to "{me}", your own', fix=fix)
        return
    if name != str(context.uid):
        yield warning(
            "user-not-me", where, f"the container runs as '{user}', and you are {me}",
            "you do not own what it writes, and it may not write to what you own", f'set it to "{me}"', fix=fix,
        )  # fmt: skip
    if "USER" in missing_identity(docker, names) and name != NAMED_UID:
        yield warning(
            "user-without-name", where, f"the container's user {name} has no name",
            "NVIDIA's images know only 0 and 1000; torch 2 stops at its import, and so do wandb and clearml: "
            f"KeyError: 'getpwuid(): uid not found: {name}'. 'taoprof run' sets USER, a plain tao does not",
            f"set USER for the container, such as USER={USER_NAME}", fix=("set", f"container.env.USER={USER_NAME}"),
        )  # fmt: skip
    if "HOME" not in names and name not in ("0", "root"):
        yield warning(
            "user-without-home", where, "the container's user has no home folder",
            "the image does not know the user id, so HOME is '/', and matplotlib, torch and wandb stop: "
            "PermissionError: [Errno 13] Permission denied: '/.config'",
            "set HOME for the container, such as HOME=/tmp", fix=("set", "container.env.HOME=/tmp"),
        )  # fmt: skip


def find_cache_folders(mapping: Mapping[str, Any], context: Context) -> list[str]:
    """Return the folders of this host behind the container's HOME and caches that do not exist, if the user makes them.

    They must be there before the container starts: programs make the folder that a variable names, but not its parents.
    """
    user = user_ids((mapping.get("DockerOptions") or {}).get("user"), context.uid, context.gid)
    if user is None or user[0] != context.uid:
        return []  # what the user creates would not be the container's
    from taoprofiles.mounts.paths import host_paths  # not for 'use', which creates none

    values = [entry["value"] for entry in mapping.get("Envs", []) if entry["variable"] in FOLDER_VARIABLES]
    folders = host_paths([value for value in values if value.startswith("/")], mounted(mapping))
    return [folder for folder, exists in answers(os.path.isdir, dict.fromkeys(folders)).items() if not exists]


def check_plain_secrets(env: Mapping[str, str], locate: Locator, profile: str) -> Iterator[Finding]:
    """Check for secrets that are written in a profile; ``env`` is the template's, by name, as expressions."""
    for number, (name, expression) in enumerate(env.items()):
        if is_secret(name, expression) and expression and "${" not in expression:
            yield warning(
                "env-secret-plain", locate(Location("Envs", number)),
                f"the value of {name} is stored in plain text in the profile",
                "anyone who can read the file, or a copy of it, can read it",
                f"export {name} in the shell, and: taoprof set {profile} 'container.env.{name}=${{env:{name}}}'",
            )  # fmt: skip


def check_profile_variables(variables: Mapping[str, str], profile: str) -> Iterator[Finding]:
    """Check for variables of the profile that are placeholders, empty, or no number where the task needs one."""
    for name, value in variables.items():
        hint = f"taoprof set {profile} {name}=…"
        if find_placeholder(value, value):
            yield _placeholder(f"variables.{name}", value, profile)
        if not value:
            why = f"an option with '${name}' has no value, and '${name}/x' is '/x'"
            yield warning("variable-value", f"variables.{name}", "it is empty", why, hint)
        elif name == "NUM_GPUS" and not value.isdecimal():
            why = "the task refuses it, such as in --gpus $NUM_GPUS"
            yield warning("variable-value", f"variables.{name}", f"'{value}' is not a number", why, hint)


def _placeholder(key: str, value: str, profile: str) -> Finding:
    placeholder, hint = find_placeholder(value), f"taoprof set {profile} {key.removeprefix('variables.')}=…"
    if is_secret(key):  # a key may be such a word
        return warning("placeholder", key, f"it still contains '{placeholder}'", hint=hint)
    return error("placeholder", key, f"'{value}' still contains '{placeholder}'", hint=hint)


def name_origins(findings: Iterable[Finding], renderer: Renderer) -> Iterator[Finding]:
    """Yield the findings of a profile; a placeholder is reported once, at the key in which it is written."""
    reported = set()
    for finding in findings:
        if finding.id != "placeholder" or not finding.where.startswith(("variables.", "mounts[")):
            yield finding
            continue
        key, value = renderer.placeholder_origin(finding.where)
        if key not in reported:
            yield finding if key == finding.where else _placeholder(key, value, renderer.name)
        reported.add(key)


def check_shell(variables: Mapping[str, str], environ: Mapping[str, str], secret: Collection[str]) -> Iterator[Finding]:
    """Check for variables that have another value in this shell than in the profile."""
    for name, value in variables.items():
        in_shell = environ.get(name, value)
        if in_shell == value:
            continue
        what = f"{name} is '{in_shell}' in this shell, not '{value}'"
        if name in secret or is_secret(name):
            what = f"{name} has another value in this shell"
        why = "a plain tao command here uses the shell's value"
        if name == "KEY":
            why += "; a wrong key ends in: The zipfile extracted was corrupt. Please check your key"
        yield warning("variables-differ", f"variables.{name}", what, why, f"'taoprof run' sets it, or unset {name}")


def user_ids(user: object, uid: int, gid: int) -> tuple[int, int] | None:
    """Return the container's user and group for the option ``user``; None for a name that only the image knows."""
    if user in (None, "", "root", "0", 0):
        return 0, 0
    first, _, second = str(user).partition(":")
    if not first.isdigit():
        return None
    return int(first), int(second) if second.isdigit() else (gid if int(first) == uid else 0)
