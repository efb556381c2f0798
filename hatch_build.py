"""What a build adds to the package: man pages from the parser, completion files, the commit of a development build."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
COMPLETIONS = {
    "bash": "share/bash-completion/completions/taoprof",
    "zsh": "share/zsh/site-functions/_taoprof",
    "fish": "share/fish/vendor_completions.d/taoprof.fish",
}


class Hook(BuildHookInterface):
    """Adds the generated files to the wheel. The sdist gets only the commit: its wheel has no git to ask."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate the files, in a folder of their own."""
        sys.path.insert(0, str(ROOT))
        self._folder = Path(tempfile.mkdtemp())
        from taoprofiles import find_commit

        commit = find_commit()
        if commit and version != "editable":  # there, git is asked each time
            path = self._folder / "commit"
            path.write_text(f"{commit}\n")
            build_data["force_include"][str(path)] = "taoprofiles/commit"
        if self.target_name == "wheel":
            for target, text in {**man_pages(), **completions()}.items():
                path = self._folder / target
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
                build_data["shared_data"][str(path)] = target

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Delete the generated files."""
        shutil.rmtree(self._folder)
        sys.path.remove(str(ROOT))


def completions() -> dict[str, str]:
    """Return the completion files of the shells, by their path below the installation's prefix."""
    from argcomplete.shell_integration import shellcode

    return {path: shellcode(["taoprof"], shell=shell) for shell, path in COMPLETIONS.items()}


def man_pages() -> dict[str, str]:
    """Return the man pages by their path below the installation's prefix: of taoprof, each command, and taoprofd."""
    from taoprofiles.cli.arguments import EXAMPLES, add_arguments
    from taoprofiles.cli.dispatch import COMMANDS, TAKES_COMMAND
    from taoprofiles.guard.service import make_parser

    pages = {"taoprof": _overview(), "taoprofd": _page("taoprofd", make_parser(), see_also=("taoprof-service",))}
    for command, (_, summary) in COMMANDS.items():
        parser = argparse.ArgumentParser(f"taoprof {command}", usage=TAKES_COMMAND.get(command), description=summary)
        add_arguments(parser, command)
        pages[f"taoprof-{command}"] = _page(f"taoprof-{command}", parser, examples=EXAMPLES[command])
    return {f"share/man/man1/{name}.1": text for name, text in pages.items()}


def _overview() -> str:
    from taoprofiles.cli.arguments import FIRST_STEPS
    from taoprofiles.cli.dispatch import EXIT_STATUS_HELP, GROUPS

    lines = [
        *_head("taoprof", "a mount profile for each NVIDIA TAO project"),
        ".SH SYNOPSIS",
        f"{_bold('taoprof')} [{_italic('COMMAND')} [{_italic('ARGUMENT')} ...]]",
        ".SH DESCRIPTION",
        _text("Without a command, shows the status and suggests the next commands."),
        ".SH COMMANDS",
    ]
    for title, commands in GROUPS.items():
        lines.append(f".SS {_text(title[:1].upper() + title[1:])}")
        for command, (_, summary) in commands.items():
            lines += [".TP", f"{_bold(f'taoprof-{command}')}(1)", _text(summary)]
    statuses = EXIT_STATUS_HELP.removeprefix("exit status: ").replace("\n", " ").split(" · ")
    files = {
        "~/.tao_mounts.json": "the mapping that the launcher reads",
        "~/.config/taoprofiles/profiles/NAME.toml": "the profiles",
        "~/.local/state/taoprofiles": "history, holds and logs ('taoprof status --paths')",
    }
    return _join(
        [
            *lines,
            *_examples(FIRST_STEPS),
            ".SH EXIT STATUS",
            *(line for status in statuses for line in (_text(status), ".br")),
            ".SH FILES",
            *(line for path, what in files.items() for line in (".TP", _italic(path), _text(what))),
            ".SH SEE ALSO",
            f"{_bold('taoprofd')}(1)",
        ]
    )


def _page(
    name: str,
    parser: argparse.ArgumentParser,
    *,
    examples: tuple[Any, ...] = (),
    see_also: tuple[str, ...] = ("taoprof",),
) -> str:
    summary = str(parser.description).rstrip(".")
    positionals = [action for action in parser._actions if not action.option_strings]
    options = [action for action in parser._actions if action.option_strings]
    synopsis = f"{_bold(parser.prog)} [{_italic('option')} ...]"
    for action in positionals:
        word = _italic(_metavar(action))
        synopsis += f" [{word}]" if action.nargs in ("?", "*") else f" {word}"
        synopsis += " ..." if action.nargs in ("*", "+") else ""
    lines = [*_head(name, summary[:1].lower() + summary[1:]), ".SH SYNOPSIS", _text(parser.usage or "") or synopsis]
    lines += [".SH DESCRIPTION", _text(f"{summary[:1].upper()}{summary[1:]}.")]
    for title, actions in (("ARGUMENTS", positionals), ("OPTIONS", options)):
        lines += [f".SH {title}"] * bool(actions)
        for action in actions:
            lines += [".TP", _term(action), _text((action.help or "").replace("%%", "%"))]
    return _join([*lines, *_examples(examples), ".SH SEE ALSO", ", ".join(f"{_bold(page)}(1)" for page in see_also)])


def _term(action: argparse.Action) -> str:
    if not action.option_strings:
        return _italic(_metavar(action))
    names = ", ".join(map(_bold, action.option_strings))
    if action.nargs == 0:
        return names
    return f"{names} [{_italic(_metavar(action))}]" if action.nargs == "?" else f"{names} {_italic(_metavar(action))}"


def _metavar(action: argparse.Action) -> str:
    choices = "|".join(map(str, action.choices or ()))
    return str(action.metavar or choices or action.dest.upper())


def _examples(examples: tuple[Any, ...]) -> list[str]:
    pairs = [line for command, what in examples for line in (".TP", _bold(command), _text(what))]
    return [".SH EXAMPLES", *pairs] if pairs else []


def _head(name: str, summary: str) -> list[str]:
    from taoprofiles import VERSION

    title = f'.TH "{name.upper()}" 1 "" "taoprofiles {VERSION}" "taoprofiles"'
    return [title, ".nh", ".ad l", ".SH NAME", rf"{_text(name)} \- {_text(summary)}"]


def _bold(text: str) -> str:
    return rf"\fB{_text(text)}\fR"


def _italic(text: str) -> str:
    return rf"\fI{_text(text)}\fR"


def _text(text: str) -> str:
    r"""Escape a text for roff: a plain hyphen, quote or tilde would be printed as a typographic one."""
    for character, escaped in (
        ("\\", r"\e"),
        ("-", r"\-"),
        ("'", r"\(aq"),
        ("`", r"\(ga"),
        ("~", r"\(ti"),
        ("^", r"\(ha"),
        ("…", "..."),  # which a terminal without UTF-8 cannot show
    ):
        text = text.replace(character, escaped)
    return rf"\&{text}" if text.startswith(".") else text


def _join(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
