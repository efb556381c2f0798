"""Making a profile of what a notebook or a script was found to set up: as general as that is itself."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any

from taoprofiles.errors import InvalidProfileError, InvalidStateError, UsageError
from taoprofiles.importer import result
from taoprofiles.importer.provenance import Part, concat, join_path, normal_path, parts
from taoprofiles.importer.state import Machine
from taoprofiles.masking import is_secret
from taoprofiles.profiles import layouts
from taoprofiles.profiles.convert import from_data, from_mapping
from taoprofiles.profiles.expressions import NAME, escape
from taoprofiles.profiles.model import Profile, template
from taoprofiles.profiles.rendering import RenderContext, Renderer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from taoprofiles.importer.result import Found
    from taoprofiles.profiles.rendering import Template
    from taoprofiles.storage.paths import expand_user
from taoprofiles.storage.paths import Context

_NOT_OURS = frozenset(
    "HOME PATH PYTHONPATH LD_LIBRARY_PATH LD_PRELOAD USER LOGNAME SHELL PWD TMPDIR DOCKER_HOST LAUNCHER_MOUNTS".split()
)
"""Variables that belong to the machine or the launcher: in a profile they would move the ground under a run."""

_MACHINES = "{} is left out: it belongs to the machine, and a run keeps yours"

_LONGEST = 4096

STDIN = "standard input"
"""How what came through a pipe is called."""


def read(context: Context, content: bytes, *, where: str, path: str | None, given: Mapping[str, str]) -> Found:
    """Read a notebook, or else a shell script, without running anything of it.

    ``path`` is its place on disk (None: it came through a pipe, and stands for one in the current folder); ``given`` is
    what a person says of its variables. Raises InvalidStateError, UsageError for a given name that it does not have.
    """
    folder = context.folder if path is None else os.path.dirname(os.path.join(context.folder, os.path.expanduser(path)))
    known: dict[str, str] = {name: context.environ[name] for name in ("USER", "LOGNAME") if name in context.environ}
    secrets = {name: value for name, value in context.environ.items() if is_secret(name)}
    machine = Machine(
        home=context.home,
        folder=os.path.normpath(folder),
        uid=context.uid,
        gid=context.gid,
        environ={**known, **secrets, "HOME": context.home},
        exists=os.path.exists,
        is_folder=os.path.isdir,
        resolve=_real,
        processor=os.uname().machine,
    )
    expanded = {name: _meant(context, name, value) for name, value in given.items()}
    if is_notebook(content):
        found = result.of_notebook(content, machine, expanded, where=where)
    else:
        found = result.of_script(content, machine, expanded)
    if found.unused:
        name = found.unused[0]
        known_names = ", ".join(found.names[:12]) or "none"
        raise UsageError(f"'{where}' has no variable '{name}' to be set; it has {known_names}")
    return found


def _meant(context: Context, name: str, value: str) -> str:
    """Give what a person means by a value: ``~`` is their home, and a relative folder is one from here."""
    value = context.expand_user(value)
    is_folder = name.startswith("/") or name.upper().endswith(("DIR", "ROOT", "FOLDER", "PATH"))
    if is_folder and not value:
        raise UsageError(f"'' is no folder for {name}", hint=f"such as {needed([name]).removesuffix('…')}~/tao/kitti")
    return os.path.normpath(os.path.join(context.folder, value)) if is_folder else value


def _real(path: str) -> str:
    """Follow the links of a path, of which some can be no path."""
    try:
        return os.path.realpath(path)
    except ValueError:  # a NUL, or what UTF-8 cannot carry
        return os.path.normpath(path)


def is_notebook(content: bytes) -> bool:
    """Whether a file is meant to be a notebook: a JSON object with cells."""
    head = content.lstrip(b"\xef\xbb\xbf \t\r\n")
    return head.startswith(b"{") and (b'"cells"' in head or b'"worksheets"' in head)


def build(context: Context, found: Found, *, name: str, where: str) -> tuple[Profile, list[str]]:
    """Make the profile, and tell what is otherwise in it than in the file.

    It has a layout where that gives the same; its values are kept as references where the file has them so. Raises
    InvalidStateError where no profile can stand for it, UsageError where something has to be said first.
    """
    if found.mapping is None:
        hint = "'taoprof new' makes a profile from a project folder"
        raise InvalidStateError(
            f"'{where}' writes no mounts file (~/.tao_mounts.json)", problems=found.notes, hint=hint
        )
    if found.questions:
        raise unanswered(found, where)
    return _Building(context, found, name=name, where=where).profile()


def unanswered(found: Found, where: str) -> UsageError:
    """Make the error that names what a person has to say."""
    settings = needed(question.name for question in found.questions)
    problems = [
        f"{question.place}: {question.name or 'the mapping'}: {question.reason}"
        + (f", '{question.text[:80]}'" if question.text else "")
        for question in found.questions
    ]
    file = "-" if where == STDIN else shlex.quote(where)
    return UsageError(
        f"'{where}' does not say everything", problems=problems, hint=f"'taoprof import {file} {settings}'"
    )


def needed(names: Iterable[str]) -> str:
    """Write the options that give these values, as a shell takes them."""
    return " ".join(f"--set {shlex.quote(name)}=…" for name in names)


class _Building:
    def __init__(self, context: Context, found: Found, *, name: str, where: str) -> None:
        self._context, self._found, self._name, self._where = context, found, name, where
        self._notes: list[str] = []
        self._variables = self._kept_variables()

    def profile(self) -> tuple[Profile, list[str]]:
        variables = {name: self._expression(value, True) for name, value in self._variables.items()}
        whole = from_mapping(
            self._context,
            self._mapping(),
            name=self._name,
            where=self._where,
            express=self._expression,
            variables=variables,
        )
        custom = whole.model_dump(by_alias=True, exclude_defaults=True)
        candidates = [self._with_layout(custom, layout) for layout in ("local", "host")]
        data = min((one for one in [*candidates, custom] if one is not None), key=_size)
        try:
            profile = from_data(_ordered(data), name=self._name)
            self._renderer(template(profile, name=self._name)).mapping()  # such as a ':' in a path
        except InvalidProfileError as error:
            raise InvalidStateError(f"'{self._where}' cannot become a profile", problems=error.problems) from None
        return profile, self._notes

    def _kept_variables(self) -> dict[str, str]:
        kept: dict[str, str] = {}
        for name, value in self._found.variables.items():
            if _is_the_machines(name):
                self._notes.append(_MACHINES.format(name))
            elif not NAME.match(name) or len(name) > 256:
                self._notes.append(f"'{name[:60]}' is left out: no shell takes it as a variable's name")
            elif len(value) > _LONGEST or "\0" in value or (not value.isascii() and not _is_text(value)):
                self._notes.append(f"{name} is left out: its value is longer than {_LONGEST} characters, or no text")
            else:
                kept[name] = value
                if value.startswith("~"):
                    self._notes.append(
                        f"{name} begins with '~', which neither Python nor a quoting shell expands; the profile does"
                    )
        for name, reason in self._found.left_out:
            self._notes.append(_MACHINES.format(name) if _is_the_machines(name) else f"{name} is left out: {reason}")
        return kept

    def _mapping(self) -> dict[str, Any]:
        """Give what the mounts file says, as the launcher takes it: absolute, and one mount for each folder."""
        mapping = self._found.mapping
        if not isinstance(mapping, dict):
            raise InvalidStateError(f"'{self._where}' writes a mounts file that holds no object")
        if not isinstance(mapping.get("Mounts"), list):
            return mapping
        docker = mapping.get("DockerOptions")
        if isinstance(docker, dict) and isinstance(docker.get("user"), str) and _is_callers(docker["user"]):
            mapping = {**mapping, "DockerOptions": {**docker, "user": "auto"}}
        by_source: dict[str, Any] = {}
        for number, listed in enumerate(mapping["Mounts"]):
            mount = self._absolute(listed)
            if mount is None:
                by_source[f"<{number}>"] = listed
                continue
            source, home = mount["source"], self._context.home
            real = _real(expand_user(str(source), home))
            before = by_source.pop(real, None)
            if before is not None:
                self._notes.append(
                    f"'{source}' is mounted on '{before.get('destination')}' and on '{mount.get('destination')}', and "
                    "the launcher does only the last"
                )
            by_source[real] = mount
        return {**mapping, "Mounts": list(by_source.values())}

    def _absolute(self, mount: Any) -> dict[str, Any] | None:
        """Give a mount with its source absolute, as it leads from the notebook's folder; None for no mount."""
        if not (isinstance(mount, dict) and isinstance(mount.get("source"), str)):
            return None
        source: str = mount["source"]
        if source.startswith("~") and not source.startswith("~/") and source != "~":
            source = mount["source"] = os.path.expanduser(source)  # another user's home
        if source.startswith(("/", "~/")) or source == "~" or not isinstance(self._found.folder, str):
            return mount
        absolute = normal_path(join_path(self._found.folder, source))
        self._notes.append(f"the source '{source}' becomes '{absolute}', which is where it leads from its folder")
        return {**mount, "source": absolute}

    # Expressions

    def _expression(self, value: str, path: bool) -> str:
        pieces = [part for part in parts(value) if part.text]
        return "".join(
            self._piece(part, pieces[number + 1 :], path=path and number == 0) for number, part in enumerate(pieces)
        )

    def _piece(self, part: Part, rest: list[Part], *, path: bool) -> str:
        if part.kind == "variable":
            if self._found.current(part.name, part.version) and part.name in self._variables:
                return f"${{{part.name}}}"
            earlier = self._found.earlier(part.name, part.version)
            if isinstance(earlier, str) and earlier == part.text:
                inner = list(parts(earlier))
                return "".join(
                    self._piece(one, [*inner[number + 1 :], *rest], path=path and number == 0)
                    for number, one in enumerate(inner)
                )
        if part.kind == "env" and is_secret(part.name):
            return f"${{env:{part.name}}}"
        ends = not rest or rest[0].text.startswith("/")
        if path and (ends or len(part.text) > len(self._context.home)):
            return escape(self._context.short(part.text))
        return escape(part.text)

    def _renderer(self, made: Template) -> Renderer:
        return Renderer(made, RenderContext.of(self._context), name=self._name, path=self._where)

    # Layouts

    def _with_layout(self, custom: dict[str, Any], layout: str) -> dict[str, Any] | None:
        """Give the same profile by a layout, None where that has something that the file does not."""
        wanted = layouts.variables(layout, project_dir="", notebook_dir="", network="")
        project = self._variables.get("LOCAL_PROJECT_DIR", "")
        if not wanted.keys() <= self._variables.keys() or not project.strip("/").strip("~"):
            return None
        specs = self._variables["LOCAL_SPECS_DIR" if layout == "local" else "HOST_SPECS_DIR"]
        work = self._variables["LOCAL_EXPERIMENT_DIR" if layout == "local" else "HOST_RESULTS_DIR"]
        network = work.removeprefix(project.rstrip("/") + "/").partition("/")[0] if work != project else ""
        data: dict[str, Any] = {
            **custom,
            "layout": layout,
            "project_dir": self._expression(concat(project), True),
            "network": network or self._name,
        }
        if specs.endswith("/specs") and specs != f"{project}/specs":
            data["notebook_dir"] = self._expression(concat(specs.removesuffix("/specs")), True)
        try:
            real = self._rendered(custom)[1]
            own = {key: value for key, value in data.items() if key not in ("variables", "mounts")}
            own["variables"], mounts = self._overriding(own, custom["variables"])
        except (InvalidProfileError, ValueError):
            return None  # such as a network of a name that no profile takes
        if mounts != real:
            own["mounts"] = custom["mounts"]
        return {key: value for key, value in own.items() if value}

    def _overriding(self, own: dict[str, Any], expressions: dict[str, str]) -> tuple[dict[str, str], Any]:
        """Find the variables that a layout does not give as they are wanted; overriding one may move others."""
        differing: dict[str, str] = {}
        while True:
            values, mounts = self._rendered({**own, "variables": differing})
            more = {name for name in expressions if values.get(name) != self._variables[name]} - differing.keys()
            if not more:
                return {name: text for name, text in expressions.items() if name in differing}, mounts
            differing |= {name: expressions[name] for name in more}

    def _rendered(self, data: dict[str, Any]) -> tuple[dict[str, str], list[dict[str, str]]]:
        made = template(Profile.model_validate({**data, "schema": 1}), name=self._name)
        made["env"], made["docker"] = {}, {}
        renderer = self._renderer(made)
        return renderer.variables(), renderer.mapping()["Mounts"]


def _size(data: dict[str, Any]) -> int:
    """Tell how much a profile says itself, instead of following a layout."""
    return len(data.get("variables", {})) + 2 * len(data.get("mounts", [])) + sum("_dir" in key for key in data)


def _is_callers(user: str) -> bool:
    """Whether a user is "uid:gid" of whoever runs it, and not just of today's numbers."""
    return [part.kind or part.text for part in parts(user) if part.text] == ["uid", ":", "gid"]


def _is_the_machines(name: str) -> bool:
    return name in _NOT_OURS or name.startswith("TAOPROF_")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _ordered(data: dict[str, Any]) -> dict[str, Any]:
    """Give the keys in the order in which people read them: what is plain first, since TOML's tables come last."""
    order = ("schema", "description", "layout", "network", "project_dir", "notebook_dir")
    return {"schema": 1, **{key: data[key] for key in (*order, *data) if key in data and key != "schema"}}
