"""Mending what a check found, where that takes no choice."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

from taoprofiles.errors import HeldError
from taoprofiles.mounts import mapping
from taoprofiles.profiles import edit
from taoprofiles.rules.finding import COMMAND_IDS
from taoprofiles.storage import files
from taoprofiles.storage.locks import DEFAULT_TIMEOUT
from taoprofiles.switching import preflight, switch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taoprofiles.check.target import Matter
    from taoprofiles.rules.finding import Finding
    from taoprofiles.storage.paths import Context


BY_HAND = frozenset(
    "src-placeholder src-unexpanded-var src-relative src-windows-path src-colon src-duplicate dst-symlinked-on-host "
    "dst-relative dst-duplicate dst-root json-parse json-dup-key schema-top-key mounts-missing mount-shape env-shape "
    "opts-null opts-shape key-ignored shm-unit shm-over-memory ulimit-type port-in-use port-fixed-shared port-shape "
    "ports-without-network env-not-text env-typo opt-tty-false opt-unknown-for-version spec-placeholder "
    "spec-syntax".split()
)
"""What a person must choose or write: the hint ends with the command that opens the place."""


class Step(NamedTuple):
    """One thing to do: ``kind`` is set, unset, mkdir, chmod or use; ``what`` a setting, key, folder, file or name."""

    kind: str
    what: str

    def line(self, name: str | None) -> str:
        """Write it as the command that does it; a key of a mounts file has none, and is only named."""
        if self.kind in ("set", "unset"):
            if name is None:
                key = self.what.replace("docker.", "DockerOptions.", 1).replace("container.env.", "Envs: ", 1)
                return f"{self.kind} {key} in the mounts file"
            option = ["--unset"] if self.kind == "unset" else []
            return shlex.join(["taoprof", "set", name, *option, self.what])
        if self.kind == "use":
            return shlex.join(["taoprof", "use", self.what])
        return shlex.join({"mkdir": ["mkdir", "-p"], "chmod": ["chmod", "600"]}[self.kind] + [self.what])


def plan(
    context: Context, findings: Sequence[Finding], name: str | None, path: str, *, by_name: bool = True
) -> list[Step]:
    """Give what is to be done, once each, to the profile ``name`` or the mounts file ``path`` of none.

    Keys are set in the mapping file alone, whose history can take it back, and not in another file. ``by_name``: the
    profile was named; else it is the active one, and is to be in force after it.
    """
    has_keys = name is not None or (path == context.mapping_file and not _is_double(findings))
    steps = [Step(*finding.fix) for finding in findings if finding.fix]
    wanted = [step for step in dict.fromkeys(steps) if has_keys or step.kind in ("mkdir", "chmod")]
    if name is not None and not by_name and any(step.kind in ("set", "unset") for step in wanted):
        wanted.append(Step("use", name))
    return wanted


def _is_double(findings: Sequence[Finding]) -> bool:
    """Whether a key of the mounts file is there twice: which one is meant is a choice, and a rewrite would make it."""
    return any(finding.id == "json-dup-key" for finding in findings)


def with_commands(context: Context, findings: Sequence[Finding], matter: Matter, *, by_name: bool) -> None:
    """Give each hint a command to paste: one that mends it, or one that opens the place where a person must choose.

    ``by_name``: the profile was named, so that it need not be the active one, and is what ``taoprof run`` is given.
    """
    name = matter.name
    for finding in findings:
        is_line_of_spec = finding.id in ("host-path", "unmapped-path") and finding.where.startswith("/")
        is_key = finding.fix[:1] in (("set",), ("unset",))
        if is_key and name is not None:
            finding.hint = Step(*finding.fix).line(name) + ("" if by_name else f" && taoprof use {name}")
        elif is_key and matter.path == context.mapping_file and not _is_double(findings):
            finding.hint = "taoprof check --fix"
        elif is_key or finding.id in BY_HAND or is_line_of_spec:
            opens = _opens(context, finding, matter)
            quoted = opens if "'" in opens else f"'{opens}'"
            finding.hint = f"{finding.hint}: {quoted}" if finding.hint else opens
        if name is not None:
            finding.hint = re.sub(r"\b(taoprof [a-z]+) NAME\b", rf"\1 {name}", finding.hint)
        elif finding.id == "arg-empty-variable":  # no profile, so no shell of one
            finding.hint = "write the whole path out, as the container has it"
    without_sudo(findings, context.uid)


def without_sudo(findings: Sequence[Finding], uid: int) -> None:
    """Take sudo out of the hints for root, who needs none, and in a container has none."""
    for finding in findings if uid == 0 else ():
        finding.hint = finding.hint.replace("sudo ", "")


def _opens(context: Context, finding: Finding, matter: Matter) -> str:
    """Give the command that opens what is to be changed, at the line if that is known."""
    if matter.name is not None and not (finding.id in COMMAND_IDS and finding.where.startswith("/")):
        return shlex.join(["taoprof", "edit", matter.name])
    path, _, line = re.sub(r" \(.*", "", finding.where).rpartition(":")
    path = path if path.startswith("/") else matter.path
    short = context.short(path)
    written = short if re.fullmatch(r"[\w~./-]+", short) else shlex.quote(path)
    return f"${{EDITOR:-nano}} {'+' + line + ' ' if line.isdigit() else ''}{written}"


def carry_out(context: Context, steps: Sequence[Step], name: str | None, *, timeout: float = DEFAULT_TIMEOUT) -> None:
    """Do it. The profile is changed in one step, which ``undo`` takes back. Raises TaoprofError."""
    wanted: dict[str, str | None] = {}
    for step in steps:
        if step.kind == "set":
            key, _, value = step.what.partition("=")
            wanted[key] = value
        elif step.kind == "unset":
            wanted.setdefault(step.what, None)
    if wanted and name is not None:
        edit.change(context, name, wanted, timeout=timeout)
    elif wanted:
        _change_file(context, wanted, timeout=timeout)
    preflight.make([step.what for step in steps if step.kind == "mkdir"])
    for step in steps:
        if step.kind == "chmod":
            files.change_mode(step.what, 0o600)
        elif step.kind == "use":  # it was in force, and what is still wrong with it was before
            try:
                switch.use(context, step.what, check=False, timeout=timeout)
            except HeldError as error:
                error.hint = f"profile '{step.what}' was changed, and is not in force yet: {error.hint}"
                raise


def _change_file(context: Context, wanted: dict[str, str | None], *, timeout: float) -> None:
    seen = files.read_mapping_file(context) or b"{}"
    changed: dict[str, Any] = json.loads(seen)
    for key, value in wanted.items():
        section, _, name = key.rpartition(".")
        if section == "docker":
            given = changed.get("DockerOptions") or {}
            given.pop(name, None)
            if value is not None:
                given[name] = f"{context.uid}:{context.gid}" if value == "auto" else value
            changed["DockerOptions"] = given
        else:
            others = [one for one in changed.get("Envs", []) if one.get("variable") != name]
            changed["Envs"] = others + ([] if value is None else [{"variable": name, "value": value}])
    switch.rewrite(context, mapping.to_bytes(changed), seen=seen, timeout=timeout)
