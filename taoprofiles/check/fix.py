"""Automatic fixes for findings that need no decision."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from taoprofiles.holds.hold import HeldError
from taoprofiles.mounts import mapping
from taoprofiles.profiles import manage
from taoprofiles.profiles.store import Store
from taoprofiles.rules import container
from taoprofiles.rules.finding import Finding, quoted_short, without_sudo
from taoprofiles.storage import files
from taoprofiles.storage.paths import Context
from taoprofiles.switching import preflight, switch


class Fix(NamedTuple):
    """One fix: ``kind`` is set, unset, mkdir, chmod or use; ``subject`` a setting, key, folder, file or profile."""

    kind: str
    subject: str

    def command(self, name: str | None) -> str:
        """Return the command that does it for profile ``name``; for a key of a mounts file, its description."""
        if self.kind in ("set", "unset"):
            if name is None:
                key = self.subject.replace("docker.", "DockerOptions.", 1).replace("container.env.", "Envs: ", 1)
                return f"{self.kind} {key} in the mounts file"
            return _set_command(name, [self])
        words = {"mkdir": ["mkdir", "-p"], "chmod": ["chmod", "600"], "use": ["taoprof", "use"]}[self.kind]
        return shlex.join([*words, self.subject])


def plan(
    context: Context, findings: Sequence[Finding], name: str | None, path: str, *, is_profile_given: bool = True
) -> list[Fix]:
    """Return the fixes, once each, for the profile ``name`` or for the mounts file ``path`` without a profile.

    ``is_profile_given``: the profile was given; otherwise it is the active one, and must be used again afterwards.
    """
    may_set = name is not None or _may_rewrite(context, findings, path)
    fixes = dict.fromkeys(fix for finding in findings for fix in _fixes_of(finding))
    planned = [fix for fix in fixes if may_set or fix.kind in ("mkdir", "chmod")]
    if name is not None and not is_profile_given and any(fix.kind in ("set", "unset") for fix in planned):
        planned.append(Fix("use", name))
    return planned


def _fixes_of(finding: Finding) -> list[Fix]:
    return [Fix(finding.fix[0], subject) for subject in finding.fix[1:]]


def _set_command(name: str, fixes: Sequence[Fix]) -> str:
    words = [word for fix in fixes for word in (["--unset"] if fix.kind == "unset" else []) + [fix.subject]]
    return shlex.join(["taoprof", "set", name, *words])


def _may_rewrite(context: Context, findings: Sequence[Finding], path: str) -> bool:
    """Check whether a mounts file may be rewritten: the history can restore it, and no key comes twice in it."""
    return path == context.mapping_file and all(finding.id != "json-dup-key" for finding in findings)


def add_commands(
    context: Context, findings: Sequence[Finding], name: str | None, path: str, *, is_profile_given: bool = False
) -> list[Finding]:
    """Return the findings with a command in each hint: one that fixes it, or one that opens the place to edit.

    The arguments are those of ``plan``.
    """
    result = []
    if name is not None and any(finding.id == "placeholder" for finding in findings):
        findings = list(container.name_origins(findings, Store(context).renderer(name)))
    for finding in findings:
        hint = finding.hint
        is_key = finding.fix[:1] in (("set",), ("unset",))
        if is_key and name is not None:
            hint = _set_command(name, _fixes_of(finding)) + ("" if is_profile_given else f" && taoprof use {name}")
        elif is_key and _may_rewrite(context, findings, path):
            hint = "taoprof check --fix"
        elif is_key or finding.by_hand:
            command = _edit_command(context, finding, name, path)
            hint = f"{hint}: {command}" if hint else command
        result.append(finding._replace(hint=hint))
    return without_sudo(result, context.uid)


def for_docker_run(finding: Finding) -> Finding:
    """Return a finding about a ``docker run`` with the option to add as its hint; only folders can be made by a fix."""
    if finding.fix[:1] not in (("set",), ("unset",)):
        return finding._replace(by_hand=finding.by_hand and finding.where.startswith("/"))
    is_set, options = finding.fix[0] == "set", list[str]()
    for setting in finding.fix[1:]:
        key, _, value = setting.partition("=")
        section, _, name = key.rpartition(".")
        if section == "docker":
            options += [f"--{name.replace('_', '-')}", '"$(id -u):$(id -g)"' if value == "auto" else value]
        else:
            names = [name, "LOGNAME"] if is_set and name == "USER" else [name]
            options += [word for name in names for word in ("--env", f"{name}={value}" if is_set else name)]
    hint = f"{'add' if is_set else 'remove'} {' '.join(options)}"
    return finding._replace(hint=hint, fix=(), by_hand=False)


def for_runner(finding: Finding) -> Finding:
    """Return a finding about a runner of a source tree with its own option as the hint (see ``for_docker_run``)."""
    finding = for_docker_run(finding)
    hint = re.sub(r"--user \S.*", "--run_as_user", finding.hint).replace("--shm-size", "--shm_size")
    return finding._replace(hint=hint)


def _edit_command(context: Context, finding: Finding, name: str | None, path: str) -> str:
    """Return the command that opens what must be changed, at the line if that is known."""
    if name is not None and not finding.where.startswith("/"):
        mount = re.fullmatch(r"mounts\[(\d+)\]\.source", finding.where)
        if finding.id == "src-missing" and mount:
            renderer = Store(context).renderer(name)
            return renderer.command_to_set([renderer.mapping()["Mounts"][int(mount[1])]["source"]])
        return shlex.join(["taoprof", "edit", name])
    file, _, line = re.sub(r" \(.*", "", finding.where).rpartition(":")
    quoted = quoted_short(context, file if file.startswith("/") else path)
    return f"${{EDITOR:-vi}} {'+' + line + ' ' if line.isdigit() else ''}{quoted}"


def apply(context: Context, fixes: Sequence[Fix], name: str | None) -> None:
    """Apply the fixes; the profile is changed in one step, which ``undo`` reverts. Raises TaoprofError."""
    settings = {fix.subject.partition("=")[0]: fix.subject.partition("=")[2] for fix in fixes if fix.kind == "set"}
    removed: dict[str, str | None] = {fix.subject: None for fix in fixes if fix.kind == "unset"}
    wanted = removed | settings
    if wanted and name is not None:
        manage.set_keys(context, name, wanted)
    elif wanted:
        _change_file(context, wanted)
    with preflight.make_folders([fix.subject for fix in fixes if fix.kind == "mkdir"]):
        for fix in fixes:
            if fix.kind == "chmod":
                files.change_mode(fix.subject, 0o600)
            elif fix.kind == "use":  # unchecked: it was active, with its other problems
                try:
                    switch.switch_profile(context, fix.subject, check=False)
                except HeldError as error:
                    error.hint = f"profile '{fix.subject}' was changed, but is not active yet: {error.hint}"
                    raise


def _change_file(context: Context, wanted: dict[str, str | None]) -> None:
    content = files.read_mapping_file(context) or b"{}"
    changed: dict[str, Any] = json.loads(content)
    for key, value in wanted.items():
        section, _, name = key.rpartition(".")
        if section == "docker":
            options = changed["DockerOptions"] = changed.get("DockerOptions") or {}
            options.pop(name, None)
            if value is not None:
                options[name] = f"{context.uid}:{context.gid}" if value == "auto" else value
        else:
            others = [entry for entry in changed.get("Envs", []) if entry.get("variable") != name]
            changed["Envs"] = others + ([] if value is None else [{"variable": name, "value": value}])
    switch.replace_content(context, mapping.to_bytes(changed), expected=content)
