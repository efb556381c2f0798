"""A profile ready to be rendered, and the rendering.

A template is what a profile says once its layout has been applied: plain data that JSON can hold, so that a validated
profile is rendered later without loading the validation (pydantic alone takes 45 ms to import).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taoprofiles.errors import InvalidProfileError
from taoprofiles.masking import is_secret
from taoprofiles.profiles.expressions import Expander, ExpressionError, references

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypedDict

    from taoprofiles.storage.paths import Context

    class Template(TypedDict):
        """See the module."""

        description: str
        layout: str
        project_dir: str | None
        variables: dict[str, str]
        mounts: list[tuple[str, str]]
        env: dict[str, str]
        docker: dict[str, Any]


LIMIT = 1 << 16
"""Bytes. A profile has about a thousand; the parser takes a tenth of a second for this many of the worst kind."""


class RenderContext:
    """What a rendering depends on beside the profile: the environment, the home, and the caller's user and group."""

    __slots__ = ("environ", "gid", "home", "uid")

    def __init__(self, *, environ: Mapping[str, str], home: str, uid: int, gid: int) -> None:
        self.environ, self.home, self.uid, self.gid = environ, home, uid, gid

    @classmethod
    def of(cls, context: Context) -> RenderContext:
        """Return the render context of a user."""
        return cls(environ=context.environ, home=context.home, uid=context.uid, gid=context.gid)


class Renderer:
    """Gives what a template comes to in somebody's surroundings. All problems are reported at once.

    Raises InvalidProfileError from each method; ``name`` and ``path`` say in it whose problems they are.
    """

    def __init__(self, template: Template, around: RenderContext, *, name: str, path: str) -> None:
        self._template = template
        self._around = around
        self._name, self._path = name, path
        self._expander = Expander(template["variables"], around.environ, around.home)
        self._problems: list[str] = []

    @property
    def asks_environment(self) -> bool:
        """Whether the mapping may be another one in another environment."""
        template = self._template
        mounts = (side for mount in template["mounts"] for side in mount)
        expressions = (*template["variables"].values(), *mounts, *template["env"].values())
        return any("${env:" in text for text in (*expressions, template["docker"].get("user", "")))

    def secrets(self) -> tuple[set[str], set[str]]:
        """Name the variables, and those of the container, that are secrets: by name, or for what they refer to."""
        refers = {name: list(references(text)) for name, text in self._template["variables"].items()}
        secret: set[str] = set()

        def is_one(name: str, to: list[tuple[str, str]]) -> bool:
            return is_secret(name) or any(of in secret if kind == "variable" else is_secret(of) for kind, of in to)

        known = -1
        while len(secret) > known:  # in whatever order they refer to each other
            known = len(secret)
            secret.update(name for name, to in refers.items() if is_one(name, to))
        env = self._template["env"].items()
        return secret, {name for name, text in env if is_one(name, list(references(text)))}

    def secret_values(self) -> list[tuple[str, str]]:
        """Give the name and value of each secret: of variables, of the container's, and of the environment's."""
        named, named_env = self.secrets()
        variables = self.variables()
        env = {one["variable"]: str(one["value"]) for one in self.mapping().get("Envs", [])}
        template = self._template
        sides = (side for mount in template["mounts"] for side in mount)
        texts = (*template["variables"].values(), *sides, *template["env"].values(), template["docker"].get("user", ""))
        asked = {of for text in texts for kind, of in references(text) if kind == "env" and is_secret(of)}
        return [
            *((name, variables[name]) for name in variables if name in named),
            *((name, env[name]) for name in env if name in named_env),
            *((name, self._around.environ[name]) for name in sorted(asked) if name in self._around.environ),
        ]

    def variables(self) -> dict[str, str]:
        """Give every variable, by name, in the order of the layout and then of the profile."""
        values = {name: self._value(f"variables.{name}", self._variable(name)) for name in self._template["variables"]}
        self._raise_problems()
        return values

    def mapping(self, *, judged: bool = True) -> dict[str, Any]:
        """Give the mapping in the launcher's form: Mounts, and Envs and DockerOptions where there are any.

        The launcher refuses any further key ("Invalid field", docker_handler.py of nvidia-tao 6.26.3). Without
        ``judged`` its paths are given as they come out; the checks then say what is wrong with them.
        """
        mapping: dict[str, Any] = {"Mounts": self._mounts(judged=judged)}
        if self._template["env"]:
            mapping["Envs"] = [
                {"variable": name, "value": self._value(f"container.env.{name}", self._text(expression))}
                for name, expression in self._template["env"].items()
            ]
        docker = dict(self._template["docker"])
        if "user" in docker:
            docker["user"] = self._user(docker["user"])
        if docker:
            mapping["DockerOptions"] = docker
        self._raise_problems()
        return mapping

    def _mounts(self, *, judged: bool) -> list[dict[str, str]]:
        mounts: list[dict[str, str]] = []
        sources: dict[str, int] = {}
        destinations: dict[str, int] = {}
        for number, (source, destination) in enumerate(self._template["mounts"]):
            where = f"mounts[{number}]"
            mount = {
                "source": self._path_value(f"{where}.source", self._text(source, path=True), judged=judged),
                "destination": self._path_value(f"{where}.destination", self._text(destination), judged=judged),
            }
            mounts.append(mount)
            if not judged:
                continue
            same = sources.setdefault(os.path.normpath(mount["source"]), number)
            if mount["source"] and same != number:
                # The launcher keys its volumes by source (formatted_mounts), so the last one silently wins.
                self._problems.append(
                    f"{where}.source: '{mount['source']}' is already the source of mounts[{same}], and the launcher "
                    "keeps only one mount of a folder"
                )
            if os.path.normpath(mount["destination"]) == "/":
                self._problems.append(f"{where}.destination: Docker mounts nothing on '/'")
            same = destinations.setdefault(os.path.normpath(mount["destination"]), number)
            if mount["destination"] and same != number:
                self._problems.append(
                    f"{where}.destination: '{mount['destination']}' is already the destination of mounts[{same}]"
                )
        return mounts

    def _user(self, user: str) -> str:
        if user == "auto":
            return f"{self._around.uid}:{self._around.gid}"
        return self._value("docker.user", self._text(user))

    def _variable(self, name: str) -> Callable[[], str]:
        return lambda: self._expander.variable(name)

    def _text(self, expression: str, *, path: bool = False) -> Callable[[], str]:
        return lambda: self._expander.text(expression, path=path)

    def _value(self, where: str, get: Callable[[], str]) -> str:
        try:
            return get()
        except ExpressionError as error:
            self._problems.append(f"{where}: {error}")
            return ""

    def _path_value(self, where: str, get: Callable[[], str], *, judged: bool) -> str:
        known = len(self._problems)
        value = self._value(where, get)
        if judged and len(self._problems) == known:
            if not value.startswith("/"):
                self._problems.append(f"{where}: '{value}' is not an absolute path")
            elif ":" in value:
                self._problems.append(f"{where}: '{value}' has a ':', which Docker takes for the end of the path")
        return value

    def _raise_problems(self) -> None:
        if self._problems:
            problems, self._problems = list(dict.fromkeys(self._problems)), []
            raise not_valid(self._name, self._path, problems)


def not_valid(name: str, path: str, problems: list[str]) -> InvalidProfileError:
    """Make the one error that reports what is wrong with a profile."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return InvalidProfileError(
        f"profile '{name}' is not valid ({path}), {count}",
        problems=problems,
        hint=f"nothing was changed; 'taoprof edit {name}' mends it",
    )
