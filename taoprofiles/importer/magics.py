"""Line and cell magics, followed in a notebook's memory: what sets variables, changes the folder or writes the file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from taoprofiles.importer import ipython, shell
from taoprofiles.importer.calls import expand_variables
from taoprofiles.importer.limits import Place, Raised, Unknown
from taoprofiles.importer.provenance import cut, strip
from taoprofiles.importer.state import MOUNTS_FILES
from taoprofiles.importer.values import loads

if TYPE_CHECKING:
    from typing import Any

    from taoprofiles.importer.interpreter import Interpreter


_MAY_SET = ("run", "dotenv", "load", "load_dotenv", "rerun", "recall")


def line(ev: Interpreter, text: str) -> Any:
    """Follow a line magic, or pass over a command; give its value."""
    word, _, rest = text.partition(" ")
    name = word.lstrip("%")
    if re.match(r"%(env|set_env|cd)\t", text):
        raise Raised("UsageError", "a magic's name ends at a blank, and a tab is none")
    if text.startswith(("!", "?")) or name not in ("env", "set_env", "cd"):
        folder = re.match(r"!+\s*mkdir\s+(?:-p\s+)?(\S+)\s*$", text)
        if folder is not None:
            made = ipython.expand(folder[1].strip("\"'"), ev.text)
            ev.memory.make_folder(made if isinstance(made, Unknown) else expand_variables(ev, made))
        elif text.startswith("!") and any(one in text for one in MOUNTS_FILES):
            _on_mounts_file(ev, text.lstrip("!"))
        elif text.startswith("!"):
            ev.memory.commands.append(text)
        if name == "pwd":
            return ev.memory.folder
        if name in _MAY_SET:
            ev.memory.may_set(word)
        return ev.unknown(f"'{word[:40]}' is not run")
    told = ipython.expand(rest, ev.text)
    if name == "cd":
        return _cd(ev, told)
    if isinstance(told, Unknown):
        key = rest.partition("=")[0].strip()
        ev.memory.set_environment(key if key.isidentifier() else told, told)
        return told
    pair = ipython.assignment(told)
    if pair is None:
        asked = told.strip()
        value = ev.memory.environment(asked) if asked else ev.unknown("the environment as a whole")
        if value is None:
            raise Raised("UsageError", f"Environment does not have key: {asked}")
        return value
    ev.memory.set_environment(*pair)
    return None


def _on_mounts_file(ev: Interpreter, text: str) -> None:
    command = ipython.expand(text, ev.text)
    if isinstance(command, str):
        place = ev.memory.place
        ev.memory.place = Place(place.cell, place.line - 1)  # a script's lines are counted from 1
        shell.follow(ev.memory, command, ev.budget, is_script=False)
        ev.memory.place = place
    if isinstance(command, Unknown) or re.search(r"\b(cp|mv|rm|ln|sed\s+-\S*i|python\d?|jq)\b", command):
        ev.memory.noted.append((ev.memory.place, "a command that may change the mounts file is not run"))


def _cd(ev: Interpreter, told: str | Unknown) -> Any:
    if isinstance(told, Unknown):
        ev.memory.change_folder(told)
        return told
    path = strip(told, None)
    path = strip(cut(path, 3, len(path)) if path.startswith("-q ") else path, " \"'")
    options = path.startswith("-")
    where = ev.unknown("'%cd' with an option") if options else ev.memory.expand_home(path or "~")
    try:
        ev.memory.change_folder(where)
    except Raised as error:  # IPython says so, and goes on
        ev.memory.noted.append((ev.memory.place, str(error)))
    return None


def cell(ev: Interpreter, text: str, body: str) -> None:
    """Follow a cell magic."""
    name, _, rest = text.partition(" ")
    if name in ("writefile", "file"):
        path = ipython.expand(rest.removeprefix("-a ").strip(), ev.text)
        if isinstance(path, str):
            path = ev.memory.expand_home(strip(path, "\"'"))
        appends = rest.startswith("-a ")
        try:
            value = ev.unknown("a file that is added to") if appends else loads(body)
        except Raised:
            value = None
        ev.memory.write_file(path, value)
    elif name in ("bash", "sh", "script") and any(one in body for one in ("tao_mounts", "tlt_mounts")):
        shell.follow(ev.memory, body, ev.budget, is_script=False)
    elif name in ("env", "set_env", "cd"):
        ev.memory.noted.append((ev.memory.place, f"'%%{name}' is no magic of a whole cell: nothing of it is done"))
