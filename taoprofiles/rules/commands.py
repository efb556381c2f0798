"""A command and its spec files, judged with what is on this host. Nothing is written, and nothing of them is run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taoprofiles.errors import TaoprofError
from taoprofiles.launcher.argv import add_volumes, parse_launcher_argv
from taoprofiles.launcher.quoting import expand_variables
from taoprofiles.masking import is_secret
from taoprofiles.mounts.resolver import Places
from taoprofiles.rules import arguments as words
from taoprofiles.rules import specs
from taoprofiles.rules.finding import Finding
from taoprofiles.storage import files
from taoprofiles.system.filesystem import link

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

SIZE_LIMIT = 2 << 20
"""Bytes of a spec file. NVIDIA's have a few thousand."""
FILES_LIMIT = 50
NAMES_LIMIT = 2000
"""Names of a folder among which one like a missing file's is looked for."""


def arguments(
    command: Sequence[str],
    mounts: Mapping[str, str],
    variables: Mapping[str, str],
    *,
    environ: Mapping[str, str] | None = None,
    secrets: Collection[str] = (),
    plain: bool = True,
    run: Sequence[str] = (),
) -> list[Finding]:
    """Judge the words of a command, as ``checks.arguments.judge``; [] for what is no launcher."""
    launch = parse_launcher_argv(command)
    if launch is None:
        return []
    return words.judge(
        launch.words,
        mounts=mounts,
        variables=variables,
        exists=_exists,
        link=link,
        names=_names,
        matches=_matches,
        environ=environ,
        folder=_folder(),
        secrets=secrets,
        plain=plain,
        run=run,
    )


def findings(command: Sequence[str], mounts: Mapping[str, str], variables: Mapping[str, str]) -> list[Finding]:
    """Judge the spec files that a launcher command names, and those that these name; [] for what is no launcher.

    ``mounts`` is destination by source, as ``mapping.mounts`` gives it; ``variables`` are what ``$NAME`` in
    the command is: the profile's, and the environment's.
    """
    launch = parse_launcher_argv(command)
    if launch is None:
        return []
    places = Places(add_volumes(launch.words, mounts), _exists, link, _names)
    named = list(words.arguments(launch.words))
    given = words.keys(launch.words)
    action = next((word for word in launch.words[1:] if word in specs.ACTIONS), "")
    shown = {name: value for name, value in variables.items() if not is_secret(name)}
    waiting = [expand_variables(a.value, shown) for a in named if _is_spec(a.key, a.value)]
    found: list[Finding] = []
    known: set[str] = set()
    nested: list[str] = []
    for place in waiting:
        found += _judged(place, places, known, action=action, given=given, nested=nested)
    for place in nested:
        found += _judged(place, places, known, action=action, given=given, nested=[])
    return found


def _judged(
    place: str, places: Places, known: set[str], *, action: str, given: list[str], nested: list[str]
) -> list[Finding]:
    """Judge one file by its path in the container, or on this host where that is what was given."""
    if not place.startswith("/"):
        return []
    path = places.about(place).host
    form = specs.FORMS.get(place.rpartition(".")[2].lower())
    if not path or path in known or form is None or len(known) == FILES_LIMIT or not os.path.exists(path):
        return []
    known.add(path)
    try:
        content = files.read(path, SIZE_LIMIT) or b""
        text = content.decode("utf-8-sig")
    except TaoprofError as error:
        return [Finding("spec-unreadable", path, error.message, "the paths in it are not looked at")]
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = "it is not UTF-8 text"
        return [Finding("spec-unreadable", f"{path}:{line}", what, "the paths in it are not looked at")]
    nested += [value for one, value in specs.paths(text, form) if _is_spec(one.key, value)]
    return specs.judge(path, text, form, places=places, action=action, given=given)


def _is_spec(key: str, value: str) -> bool:
    named = any(word in key.lower() for word in ("spec", "config"))
    return (key in words.SPEC_OPTIONS or named) and value.rpartition(".")[2].lower() in specs.FORMS


def _exists(path: str) -> bool:
    """Whether it is there; also where this user may not look: the container's may, as root for one."""
    try:
        os.stat(path)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _names(folder: str) -> list[str]:
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found.append(entry.name)
                if len(found) == NAMES_LIMIT:
                    break
    except OSError:
        pass
    return found


def _matches(pattern: str) -> list[str]:
    """Give what a glob matches here; one that would walk far is not tried: more than two parts with signs in them."""
    import glob

    if sum(glob.has_magic(part) for part in pattern.split("/")) > 2:
        return []
    return sorted(glob.glob(pattern))


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""
