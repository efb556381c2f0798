"""Power loss: records what a command does to its home, and builds the homes that a power cut at any moment may leave.

Two models of a disk. With a *journal*, changes of names reach it in their order, and a flush of anything writes all of
them before it. Under *POSIX* alone a name is durable only when its folder has been flushed, and those that are not may
be there in any combination. In both a file's content is durable only when that file has been flushed.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.home import Home, require

CALLS = "openat,close,write,pwrite64,ftruncate,truncate,fsync,rename,renameat2,link,linkat,unlink,mkdir,rmdir,symlink"
MOST = 6
"""Changes that are not durable, of which every combination is tried; of more, a sample."""
COMMAND = "import sys\nfrom taoprofiles.cli import main\nsys.exit(main.run(sys.argv[1:]))"

_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')

Tree = dict[str, "bytes | str | Tree"]
"""A folder: a file is bytes, a symlink its target as text."""


class Change(NamedTuple):
    """A change of the content of ``node``, or of names: ``removed`` and ``added`` are (folder's node, name)."""

    node: int
    removed: tuple[int, str] | None = None
    added: tuple[int, str] | None = None
    offset: int = 0
    data: bytes | None = None
    size: int | None = None


class Disk:
    """The files of a home by number, and what a command has changed in them, call by call."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.nodes: list[bytes | str | dict[str, int]] = []
        self._read(root)
        self.first = [dict(node) if isinstance(node, dict) else node for node in self.nodes]
        self.changes: list[Change] = []
        self.flushed: list[tuple[int, int]] = []
        """Of each moment: how many changes were made, and the node that was flushed then, or -1."""
        self._open: dict[int, int] = {}

    def _read(self, path: Path) -> int:
        number = len(self.nodes)
        self.nodes.append(b"")
        if path.is_symlink():
            self.nodes[number] = os.readlink(path)
        elif path.is_dir():
            self.nodes[number] = {entry.name: self._read(entry) for entry in sorted(path.iterdir())}
        else:
            self.nodes[number] = path.read_bytes()
        return number

    def run(self, home: Home, *words: str, script: str = COMMAND) -> None:
        """Run a command, or a script, and follow its system calls."""
        require(shutil.which("strace"), "strace is not installed")
        log = home.root.with_name(home.root.name + ".power")
        strace = ["strace", "-qq", "-xx", "-s", "1000000", "-o", str(log), "-e", f"trace={CALLS}"]
        done = subprocess.run(
            [*strace, sys.executable, "-c", script, *words],
            env={**home.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            cwd=home.root,
        )
        assert done.returncode == 0, done.stderr
        for line in log.read_text().splitlines():
            call = _CALL.match(line)
            if call is not None and int(call[3]) >= 0:
                texts = [bytes.fromhex(text.replace("\\x", "")) for text in _STRING.findall(call[2])]
                self._follow(call[1], call[2], texts, int(call[3]))

    def _follow(self, call: str, arguments: str, texts: list[bytes], result: int) -> None:
        first = arguments.partition(",")[0]
        if call not in ("close", "write", "pwrite64", "ftruncate", "fsync"):
            self._follow_path(call, arguments, [self._locate(text) for text in texts], texts, result)
            return
        node = self._open.get(int(first))
        if call == "close":
            self._open.pop(int(first), None)
        elif node is None:
            pass
        elif call == "fsync":
            self.flushed.append((len(self.changes), node))
        elif call == "ftruncate":
            self._change(Change(node, size=int(arguments.rpartition(",")[2])))
        else:
            content = self.nodes[node]
            offset = int(arguments.rpartition(",")[2]) if call == "pwrite64" else len(content)
            self._change(Change(node, offset=offset, data=texts[0][:result]))

    def _follow_path(  # noqa: C901 - one case for each system call
        self, call: str, arguments: str, places: list[tuple[int, str] | None], texts: list[bytes], result: int
    ) -> None:
        place = places[-1]
        if place is None:
            return
        node = self._node(place)
        if call == "openat":
            if node is None and "O_CREAT" in arguments:
                node = self._new(b"", place)
            if node is not None:
                self._open[result] = node
                if "O_TRUNC" in arguments:
                    self._change(Change(node, size=0))
        elif call == "mkdir":
            self._new({}, place)
        elif call == "symlink":
            self._new(os.fsdecode(texts[0]), place)
        elif call == "truncate" and node is not None:
            self._change(Change(node, size=int(arguments.rpartition(",")[2])))
        elif call in ("unlink", "rmdir") and node is not None:
            self._change(Change(node, removed=place))
        elif call == "renameat2" and places[0] is not None:  # each name alone may reach the disk
            other = self._node(places[0])
            assert other is not None and node is not None
            self._change(Change(other, added=place))
            self._change(Change(node, added=places[0]))
        elif call in ("rename", "link", "linkat") and places[0] is not None:
            source = self._node(places[0])
            assert source is not None
            self._change(Change(source, removed=places[0] if call == "rename" else None, added=place))

    def _locate(self, path: bytes) -> tuple[int, str] | None:
        """Return the folder's node and the name in it, None for a path outside of the home."""
        whole = self.root / os.fsdecode(path)
        if whole == self.root:
            return (-1, "")
        if not whole.is_relative_to(self.root):
            return None
        node = 0
        *folders, name = whole.relative_to(self.root).parts
        for folder in folders:
            names = self.nodes[node]
            if not isinstance(names, dict) or folder not in names:
                return None
            node = names[folder]
        return node, name

    def _node(self, place: tuple[int, str]) -> int | None:
        if place[0] < 0:
            return 0
        names = self.nodes[place[0]]
        return names.get(place[1]) if isinstance(names, dict) else None

    def _new(self, content: bytes | str | dict[str, int], place: tuple[int, str]) -> int:
        self.nodes.append(content)
        self.first.append(dict(content) if isinstance(content, dict) else content)
        self._change(Change(len(self.nodes) - 1, added=place))
        return len(self.nodes) - 1

    def _change(self, change: Change) -> None:
        self.changes.append(change)
        self.flushed.append((len(self.changes), -1))
        _apply(self.nodes, change)

    def crashes(self, model: str) -> Iterator[Tree]:
        """Yield the different homes that a power cut may leave."""
        choose = random.Random(1)
        durable: set[int] = set()
        trees: set[str] = set()
        for count, node in self.flushed:
            durable |= {number for number in range(count) if self._is_flushed(number, node, model)}
            pending = [number for number in range(count) if number not in durable]
            for chosen in _subsets(pending, self.changes, model, choose):
                nodes = [dict(first) if isinstance(first, dict) else first for first in self.first]
                for number in sorted(durable.union(chosen)):
                    _apply(nodes, self.changes[number])
                tree = _tree(nodes, 0)
                if repr(tree) not in trees:
                    trees.add(repr(tree))
                    assert isinstance(tree, dict)
                    yield tree

    def _is_flushed(self, number: int, node: int, model: str) -> bool:
        change = self.changes[number]
        if node < 0:
            return False
        if change.added is None and change.removed is None:
            return change.node == node
        folder = (change.added or change.removed or (-1, ""))[0]
        return model == "journal" or folder == node


def _subsets(pending: list[int], changes: list[Change], model: str, choose: random.Random) -> Iterator[list[int]]:
    if model == "journal":
        names = [number for number in pending if changes[number].added or changes[number].removed]
        contents = [number for number in pending if number not in names]
        for length in range(len(names) + 1):
            yield names[:length]
            yield names[:length] + contents
    elif len(pending) <= MOST:
        for length in range(len(pending) + 1):
            yield from map(list, itertools.combinations(pending, length))
    else:
        yield from ([], pending)
        for number in pending:
            yield [number]
            yield [other for other in pending if other != number]
        for _ in range(20):
            yield [number for number in pending if choose.random() < 0.5]


def _apply(nodes: list[bytes | str | dict[str, int]], change: Change) -> None:
    content = nodes[change.node]
    if change.size is not None and isinstance(content, bytes):
        nodes[change.node] = content[: change.size].ljust(change.size, b"\0")
    elif change.data is not None and isinstance(content, bytes):
        padded = content.ljust(change.offset, b"\0")
        nodes[change.node] = padded[: change.offset] + change.data + padded[change.offset + len(change.data) :]
    for place in (change.removed,):
        names = nodes[place[0]] if place else None
        if place and isinstance(names, dict) and names.get(place[1]) == change.node:
            del names[place[1]]
    names = nodes[change.added[0]] if change.added else None
    if change.added and isinstance(names, dict):
        names[change.added[1]] = change.node


def _tree(nodes: list[bytes | str | dict[str, int]], number: int) -> bytes | str | Tree:
    node = nodes[number]
    return {name: _tree(nodes, inner) for name, inner in node.items()} if isinstance(node, dict) else node


def build(tree: Tree, folder: Path) -> None:
    """Make the files of a home."""
    folder.mkdir(mode=0o700)
    for name, content in tree.items():
        path = folder / name
        if isinstance(content, dict):
            build(content, path)
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
            path.chmod(0o600)
