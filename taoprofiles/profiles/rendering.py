"""Expressions in a profile, and rendering of a profile to variables and a mapping.

Expressions are ``${NAME}``, ``${env:NAME}``, ``~`` and ``$$``. Variables may refer to each other in any order. The
language is limited on purpose: it only joins texts. A template is a profile after its layout has been applied: plain
data that JSON can store, so that a validated profile is rendered later without importing pydantic.
"""

import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypedDict

from taoprofiles.errors import InvalidProfileError
from taoprofiles.masking import MASK, is_copied, is_secret, mask_command, mask_target
from taoprofiles.storage.paths import Context, expand_user, is_inside


class Template(TypedDict):
    """A profile after its layout has been applied. Its texts are expressions that are not resolved yet."""

    description: str
    extends: str | None
    layout: str
    project_dir: str | None
    variables: dict[str, str]
    mounts: list[tuple[str, str, bool]]  # source, destination, read-only
    env: dict[str, str]
    docker: dict[str, Any]
    project: dict[str, Any] | None  # of a trusted project file: its path, hash, and the folders of the mounts
    gpus: str | None  # as for --gpus; None: the profile does not say
    images: dict[str, str]  # by the first words of a command; "" for any
    notify: list[str]
    on_start: str  # command lines; "" for none
    on_end: str
    clusters: dict[str, dict[str, Any]]  # by "slurm" and "kubernetes", without default values
    job_record: bool | None  # of NVIDIA's skill bank; None: if there is a folder for them


SIZE_LIMIT = 1 << 16
"""Bytes of a profile file. A profile has about a thousand; the worst file of this size takes a tenth of a second."""
VALUE_LIMIT = 1 << 16
"""Characters of one value; a few lines of doubling references could otherwise fill the memory."""
TOTAL_LIMIT = 1 << 20
"""Characters of all values of a profile together."""

# Not compiled here: 'list' needs neither of the two.
_PART = r"\$(?:\$|\{([^{}$]*)\})|[^$]+|\$"

_PLACEHOLDER = (
    r"(?i)(?<![a-z])(?:FIX_?ME|CHANGE_?ME|REPLACE_?ME|(?-i:TODO))(?![a-z])|(?<![a-z])YOUR[_-](?!OWN(?![a-z]))|"
    r"(?:\A|/)path/to(?=/|\Z)|/absolute/path(?=/|\Z)|(?:\A|/)(?:…|\.\.\.)(?=/|\Z)|\A<[^<>]+>\Z|<[a-z_ -]+>"
)
"""Text in the place of a value that only the user knows. FIXME and /path/to are NVIDIA's, "…" is that of hints."""


LONGEST_PLACEHOLDER = 500
"""Characters of a text that may stand for a value: a longer one is a value, such as a prompt or a document."""


def find_placeholder(text: str, path: str = "") -> str:
    """Return the part of a text that is a placeholder (FIXME, /path/to, YOUR_…), or "", also if ``path`` exists."""
    match = re.search(_PLACEHOLDER, text) if len(text) <= LONGEST_PLACEHOLDER else None
    if match and path:
        from taoprofiles.system.filesystem import answers  # not for 'list', which shows no mounts

        if answers(os.path.exists, [path]).get(path):
            return ""
    return match.group() if match else ""


def is_windows_path(text: str) -> bool:
    """Check whether a text is a path with a drive letter, which no program on Linux understands."""
    return text[:1].isalpha() and text[1:3] in (":\\", ":/")


def is_path_variable(name: str) -> bool:
    """Check whether the value of a variable is a path, by its name."""
    return name.upper().endswith(("DIR", "PATH", "FOLDER", "ROOT"))


def is_variable_name(text: str) -> bool:
    """Check whether ``text`` is a name as shells have them."""
    return text.isascii() and text.isidentifier()


_INVALID_TEXT = "the value contains a NUL or invalid text"


class ExpressionError(ValueError):
    """An expression that cannot be resolved. The message does not contain the value."""


def escape_dollars(value: str) -> str:
    """Return the expression whose value is ``value``; a leading ``~`` is not escaped."""
    return value.replace("$", "$$")


def references(expression: str) -> Iterator[tuple[str, str]]:
    """Yield each reference as ("variable" or "env", name).

    Raises ExpressionError for a malformed one, without quoting it: it may be a part of a password.
    """
    for part in re.finditer(_PART, expression):
        inner = part.group(1)
        if inner is not None:
            name = inner.removeprefix("env:")
            if not is_variable_name(name):
                raise ExpressionError(f"no reference at character {part.start() + 1}: write ${{NAME}} or ${{env:NAME}}")
            yield ("variable" if name == inner else "env", name)
        elif part.group() == "$":
            where = f"at character {part.start() + 1}"
            raise ExpressionError(f"a lone '$' {where}: write ${{NAME}} for a variable, $$ for a dollar")


def expressions(template: Template) -> dict[str, str]:
    """Return the expressions of a template by their keys."""
    texts = {f"variables.{name}": text for name, text in template["variables"].items()}
    for number, (source, destination, _) in enumerate(template["mounts"]):
        texts |= {f"mounts[{number}].source": source, f"mounts[{number}].destination": destination}
    texts |= {f"container.env.{name}": text for name, text in template["env"].items()}
    return texts | {"docker.user": template["docker"].get("user", "")}


def environment_names(template: Template) -> list[str]:
    """Return the variables of the environment to which a template refers, sorted."""
    all_references = (reference for text in expressions(template).values() for reference in references(text))
    return sorted({name for kind, name in all_references if kind == "env"})


class Expander:
    """Resolves the expressions of one profile, each text once, in any order of references."""

    def __init__(self, variables: Mapping[str, str], environ: Mapping[str, str] | None, home: str) -> None:
        """``environ`` is None if every variable of the environment counts as set."""
        self._expressions = variables
        self._environ = environ
        self._home = home
        self._values: dict[tuple[str, bool], str] = {}  # by expression and whether it is a path
        self._total = 0

    def variable(self, name: str, chain: tuple[str, ...] = ()) -> str:
        """Return the value of a variable. Raises ExpressionError, which shows the chain of a circular reference.

        ``chain`` are the variables whose values are being computed.
        """
        if name in chain:
            circle = " → ".join((*chain[chain.index(name) :], name))
            raise ExpressionError(f"circular reference: {circle}")
        if len(chain) > 100:
            raise ExpressionError("more than 100 variables refer to each other in a chain")
        if name not in self._expressions:
            by = f" ({' → '.join((*chain, name))})" if chain else ""
            raise ExpressionError(f"there is no variable '{name}'{by}")
        return self.text(self._expressions[name], (*chain, name), path=True)

    def text(self, expression: str, chain: tuple[str, ...] = (), *, path: bool) -> str:
        """Return the value of an expression; in a ``path`` a leading ``~`` is the home. Raises ExpressionError."""
        if (expression, path) in self._values:  # it counts once for the limit, however often the profile is rendered
            return self._values[expression, path]
        for _ in references(expression):
            pass  # malformed references are reported first
        parts: list[str] = []
        length = 0
        rest = expression
        if path and (expression == "~" or expression.startswith("~/")):
            parts.append(self._home)
            length = len(self._home)
            rest = expression[1:]
        for match in re.finditer(_PART, rest):
            part = self._part(match.group(), match.group(1), chain)
            parts.append(part)
            length += len(part)
            if length > VALUE_LIMIT:
                raise ExpressionError(f"the value is longer than {VALUE_LIMIT} characters")
        self._total += length
        if self._total > TOTAL_LIMIT:
            raise ExpressionError(f"all values together are longer than {TOTAL_LIMIT} characters")
        value = "".join(parts)
        if "\0" in value or value.encode(errors="replace").decode() != value:
            raise ExpressionError(_INVALID_TEXT)
        self._values[expression, path] = value
        return value

    def _part(self, text: str, inner: str | None, chain: tuple[str, ...]) -> str:
        if text == "$$":
            return "$"
        if inner is None:
            return text
        if inner.startswith("env:"):
            name = inner[4:]
            value = "/" if self._environ is None else self._environ.get(name)
            if value is None:
                raise ExpressionError(f"the environment variable '{name}' is not set (${{env:{name}}})")
            return value
        return self.variable(inner, chain)


class Renderer:
    """Renders a template. Each method raises InvalidProfileError with all problems at once.

    ``name`` and ``path`` are those of the profile, for the error.
    """

    def __init__(self, template: Template, context: Context, *, name: str, path: str) -> None:
        self.template, self.context = template, context
        self.name, self._file = name, path
        self._expander = Expander(template["variables"], context.environ, context.home)
        self._problems: list[str] = []

    @property
    def depends_on_environment(self) -> bool:
        """Return True if the mapping may differ in another environment."""
        return any("${env:" in expression for expression in expressions(self.template).values())

    @property
    def project_file(self) -> str | None:
        """Return the project file of which the profile is a trusted copy, or which it extends; else None."""
        project = self.template["project"]
        return project["file"] if project else None

    def image(self, words: Sequence[str]) -> str | None:
        """Return the image for a task's command, by its first words; None if the profile names none."""
        images = self.template["images"]
        names = (" ".join(words[:count]) for count in range(len(words), -1, -1))
        return next((images[name] for name in names if name in images), None)

    @property
    def read_only(self) -> list[bool]:
        """Return for each mount of the mapping whether it is read-only. The mapping itself cannot say it."""
        return [read_only for *_, read_only in self.template["mounts"]]

    def secrets(self) -> tuple[set[str], set[str]]:
        """Return the names of variables, and of container variables, that are secret: one, a copy of one, or with one.

        What ${…} refers to counts as part of the value.
        """
        secret: set[str] = set()
        environ, texts = self.context.environ, (self.template["variables"], self.template["env"])
        copies = {text for values in texts for name, text in values.items() if is_copied(name, text)}

        def secret_names(expressions: dict[str, str]) -> set[str]:
            return {
                name
                for name, text in expressions.items()
                if text in copies
                or is_secret(name, text)
                or any(
                    other in secret if kind == "variable" else is_secret(other, environ.get(other, ""))
                    for kind, other in references(text)
                )
            }

        while more := secret_names(self.template["variables"]) - secret:  # they may refer to each other in any order
            secret |= more
        return secret, secret_names(self.template["env"])

    def secret_values(self) -> list[tuple[str, str]]:
        """Return the name and value of each secret variable of the profile, the container and the environment.

        The targets of notifications are secrets too.
        """
        secret, secret_env = self.secrets()
        environ, envs = self.context.environ, self.mapping().get("Envs", [])
        return [
            *((name, value) for name, value in self.variables().items() if name in secret),
            *((item["variable"], str(item["value"])) for item in envs if item["variable"] in secret_env),
            *((name, environ[name]) for name in environment_names(self.template) if is_secret(name, environ[name])),
            *(("notify", target) for target in self.targets()[0] if "://" in target),
        ]

    def targets(self, requested: Sequence[str] | None = None) -> tuple[list[str], list[str]]:
        """Return the ``requested`` targets of notifications, else the profile's, and the problems of those left out."""
        targets, problems = [], []
        for expression in self.template["notify"] if requested is None else requested:
            try:
                targets.append(self._expander.text(expression, path=False))
            except ExpressionError as error:
                problems.append(f"{mask_target(expression)}: {error}")
        return targets, problems

    def variables(self) -> dict[str, str]:
        """Return the variables with their values, in the order of the layout and then of the profile."""
        values = {name: self._text(f"variables.{name}", f"${{{name}}}") for name in self.template["variables"]}
        self._raise_problems()
        return values

    def mapping(self, *, is_checked: bool = True) -> dict[str, Any]:
        """Return the mapping: Mounts, and Envs and DockerOptions if there are any.

        The launcher refuses any other key ("Invalid field", docker_handler.py of nvidia-tao 6.26.3). Without
        ``is_checked`` wrong paths are kept, for the rules to report.
        """
        mapping: dict[str, Any] = {
            "Mounts": [
                {
                    "source": self._text(f"mounts[{number}].source", source, path=True),
                    "destination": self._text(f"mounts[{number}].destination", destination),
                }
                for number, (source, destination, _) in enumerate(self.template["mounts"])
            ]
        }
        if is_checked:
            failed = {problem.partition(": ")[0] for problem in self._problems}
            problems = _mount_problems(mapping["Mounts"])
            self._problems += [problem for problem in problems if problem.partition(": ")[0] not in failed]
        self._problems += [problem for _, problem in self.outside_project()]
        if self.template["env"]:
            mapping["Envs"] = [
                {"variable": name, "value": self._text(f"container.env.{name}", expression)}
                for name, expression in self.template["env"].items()
            ]
        docker = dict(self.template["docker"])
        if docker.get("user") == "auto":
            docker["user"] = f"{self.context.uid}:{self.context.gid}"
        elif "user" in docker:
            docker["user"] = self._text("docker.user", docker["user"])
        if docker:
            mapping["DockerOptions"] = docker
        self._raise_problems()
        return mapping

    def command_to_set(self, sources: Collection[str]) -> str:
        """Return the command that gives mount sources other folders: it sets the variables from which they derive.

        The rest of the profile need not be valid.
        """
        names: dict[str, None] = {}
        for expression, *_ in self.template["mounts"]:
            try:
                source = self._expander.text(expression, path=True)
            except ExpressionError:  # it refers to what is not set
                source = ""
            name, text = "", expression
            while text.startswith("${") and not text.startswith("${env:"):
                _, name = next(references(text))
                text = self.template["variables"].get(name, "")
            if source in sources:
                names[name] = None
        settings = [f"{name}=DIR" for name in names]
        return f"taoprof edit {self.name}" if "" in names else " ".join(["taoprof set", self.name, *settings])

    def placeholder_origin(self, key: str) -> tuple[str, str]:
        """Return the key where the placeholder in the value of ``key`` is written, and its own value.

        Other values have it because they refer to that key. ``key`` is a variable's (``variables.NAME``) or that of a
        mount's source (``mounts[0].source``).
        """
        mount = re.match(r"mounts\[(\d+)\]", key)
        expressions, project = self.template["variables"], self.template["project_dir"]
        text = self.template["mounts"][int(mount[1])][0] if mount else expressions[key.partition(".")[2]]
        while True:
            others = (other for kind, other in references(text) if kind == "variable")
            name = next((other for other in others if find_placeholder(self._expander.variable(other))), None)
            if name is None:
                break
            key, text = f"variables.{name}", expressions[name]
        if project and find_placeholder(project) and text.startswith(project):
            return "project_dir", project
        return key, self._expander.text(text, path=True)

    def outside_project(self) -> list[tuple[str, str]]:
        """Return the sources, with links resolved, that a project's profile may not mount, each with the problem."""
        project = self.template["project"]
        if project is None:
            return []
        from taoprofiles.system.filesystem import real_paths

        # As they were when they were trusted: a folder of the repository may be a link since.
        folders = [self._text("project.folders", folder, path=True) for folder in project["folders"]]
        folders += real_paths(self._text("project.folders", folder, path=True) for folder in project["own"])
        sources = [
            (where, self._text(where, source, path=True))
            for number, (source, *_) in enumerate(self.template["mounts"])
            for where in [f"mounts[{number}].source"]
        ]
        return [
            (real, f"{where}: '{real}' is outside of the project and of what was allowed by 'taoprof trust'")
            for (where, source), real in zip(sources, real_paths(source for _, source in sources), strict=True)
            if source and not any(is_inside(real, folder) for folder in folders)
        ]

    def summary(self, *, reveal: bool = False) -> dict[str, Any]:
        """Return the values and mounts as plain data, for people; secrets are masked unless ``reveal``.

        Whether a source ``exists`` is None if its file server does not answer.
        """
        secrets, env_secrets = (set(), set()) if reveal else self.secrets()
        mapping, project_dir = self.mapping(), self.template["project_dir"]
        env = {item["variable"]: item["value"] for item in mapping.get("Envs", [])}
        from taoprofiles.system.filesystem import answers  # not for 'list', which shows no mounts

        exists = answers(os.path.exists, [mount["source"] for mount in mapping["Mounts"]])
        hooks = {"on_start": self.template["on_start"], "on_end": self.template["on_end"]}
        return {
            **{key: self.template[key] for key in ("description", "extends", "layout", "project")},
            "project_dir": project_dir and expand_user(project_dir, self.context.home),
            "variables": {key: MASK if key in secrets else value for key, value in self.variables().items()},
            "mounts": [
                {**mount, "read_only": read_only, "exists": exists.get(mount["source"])}
                for mount, read_only in zip(mapping["Mounts"], self.read_only, strict=True)
            ],
            "env": {key: MASK if key in env_secrets else value for key, value in env.items()},
            "docker": mapping.get("DockerOptions", {}),
            "gpus": self.template["gpus"],
            "images": self.template["images"],
            "notify": [target if reveal else mask_target(target) for target in self.template["notify"]],
            **{key: text if reveal else mask_command([text])[0] for key, text in hooks.items()},
            **self.template["clusters"],
        }

    def _text(self, where: str, expression: str, *, path: bool = False) -> str:
        try:
            return self._expander.text(expression, path=path)
        except ExpressionError as error:
            self._problems.append(f"{where}: {error}")
            return ""

    def _raise_problems(self) -> None:
        environ, project = self.context.environ, self.template["project"]
        self._problems += [
            f"${{env:{name}}}: its value is a secret now, which a project file may not have"
            for name in (project["environment"] if project else ())
            if is_secret(name, environ.get(name, ""))
        ]
        if self._problems:
            problems, self._problems = list(dict.fromkeys(self._problems)), []
            copied = self.project_file if self.template["extends"] is None else None
            raise invalid_profile_error(self.name, self._file, problems, copied_from=copied)


def _mount_problems(mounts: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Yield what is wrong with the mounts of a profile, as text; ``rules.container`` judges them as a launcher does."""
    first: dict[tuple[str, str], int] = {}
    for number, mount in enumerate(mounts):
        for key, path in mount.items():
            where, plain = f"mounts[{number}].{key}", os.path.normpath(path)
            if not path.startswith("/"):
                yield f"{where}: '{path}' is not an absolute path"
            elif ":" in path:
                yield f"{where}: '{path}' contains ':', at which Docker would split the path"
            if key == "destination" and plain == "/":
                yield f"{where}: Docker mounts nothing on '/'"
            same = first.setdefault((key, plain), number)
            if path and same != number:
                # The launcher keys its volumes by source (formatted_mounts), so the last one silently wins.
                why = ", and the launcher keeps only one mount of a folder" if key == "source" else ""
                yield f"{where}: '{path}' is already the {key} of mounts[{same}]{why}"


NOT_WRITTEN = "not yet written"
"""In place of a path: the profile has no file yet, which could be edited."""


def unset_variables(problems: Sequence[str]) -> list[str]:
    """Return the environment variables that a profile needs, if nothing else is wrong with it; else []."""
    names = [re.search(r"the environment variable '(\w+)' is not set", problem) for problem in problems]
    return list(dict.fromkeys(name[1] for name in names if name)) if all(names) else []


def invalid_profile_error(
    name: str, path: str, problems: list[str], *, copied_from: str | None = None
) -> InvalidProfileError:
    """Return the error that reports the problems of a profile, the trusted copy of the file ``copied_from`` if any."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    unset = " ".join(f"{variable}=…" for variable in unset_variables(problems))
    correction = f"export {unset}" if unset else f"taoprof edit {name}" if path != NOT_WRITTEN else ""
    if copied_from is not None and not unset:
        from shlex import quote

        correction = f"change the project file, then: taoprof trust {quote(copied_from)}"
    if sys.getfilesystemencoding() != "utf-8" and all(problem.endswith(_INVALID_TEXT) for problem in problems):
        correction = "export PYTHONUTF8=1 LC_ALL=C.UTF-8"  # such as the home, whose name this locale cannot read
    return InvalidProfileError(
        f"profile '{name}' is not valid ({path}), {count}",
        problems=problems,
        hint=f"nothing was changed. To correct it: {correction}" if correction else "",
    )
