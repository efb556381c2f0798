"""The command for an interactive shell of a run, with a mark in its prompt."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from taoprofiles.holds.records import HoldRecords

if TYPE_CHECKING:
    from taoprofiles.runs.run import Run
    from taoprofiles.storage.paths import Context

_ZSHENV = """\
_taoprof_mine="$ZDOTDIR"
ZDOTDIR=BEFORE
[ -f "$ZDOTDIR/.zshenv" ] && . "$ZDOTDIR/.zshenv"
_taoprof_theirs="$ZDOTDIR"
ZDOTDIR="$_taoprof_mine"
"""
_ZSHRC = """\
ZDOTDIR="$_taoprof_theirs"
unset _taoprof_mine _taoprof_theirs
[ -f "$ZDOTDIR/.zshrc" ] && . "$ZDOTDIR/.zshrc"
PROMPT="MARK$PROMPT"
"""


def shell_command(context: Context, run: Run, shell: str, name: str) -> list[str]:
    """Give the command for an interactive shell with a mark in its prompt, after the person's own settings."""
    mark, kind = f"(taoprof:{name}) ", os.path.basename(shell)
    holds = HoldRecords(context)
    if kind == "bash":
        path = holds.write_beside(run.hold, ".bashrc", f'[ -f ~/.bashrc ] && . ~/.bashrc\nPS1="{mark}$PS1"\n')
        return [shell, "--rcfile", path, "-i"]
    if kind == "zsh":
        before = run.environ.get("ZDOTDIR", context.home)
        # zsh reads both files in the folder that ZDOTDIR names at that moment; each reads the person's own.
        holds.write_beside(run.hold, ".zsh/.zshenv", _ZSHENV.replace("BEFORE", shlex.quote(before)))
        rc = holds.write_beside(run.hold, ".zsh/.zshrc", _ZSHRC.replace("MARK", mark))
        run.environ["ZDOTDIR"] = os.path.dirname(rc)
        return [shell, "-i"]
    if kind == "fish":
        with_mark = f"function fish_prompt; echo -n '{mark}'; _taoprof_prompt; end"
        return [shell, "-C", f"functions -c fish_prompt _taoprof_prompt; {with_mark}"]
    run.environ["PS1"] = f"{mark}$ "
    return [shell]
