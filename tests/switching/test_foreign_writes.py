"""Another program writes the mapping file before any step of a change: what it wrote is stored, or is in the file."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from taoprofiles.storage import atomic
from taoprofiles.storage.atomic import FileAttributes
from taoprofiles.storage.journal import History
from taoprofiles.storage.locks import Lock
from taoprofiles.switching import switch
from tests.support.guard_process import kept
from tests.support.home import Home

CALLS = "open lstat stat readlink rename replace link unlink listdir".split()
"""Those on a name in the home itself, with the exchange of names, are the steps."""

WAYS = ["rename", "symlink", "write", "rename, then write"]


class Program:
    """Another program: it writes one part before the ``step``-th step of a change, and the other when told to."""

    def __init__(self, home: Home, way: str, step: int) -> None:
        self.home, self.way, self.step = home, way, step
        self.parts = b'{"Mounts": [], "step": %d, ' % step, b'"way": "%s"}' % way.encode()
        self.whole = b"".join(self.parts)
        self.other = home.root / "projects/theirs"  # the steps are not in that folder
        self.fd = -1
        self.steps = 0

    def before(self, really: Callable[..., object], *arguments: object, **options: object) -> object:
        if any(os.path.dirname(str(argument)) == str(self.home.root) for argument in arguments):
            self.steps += 1
            if self.steps == self.step:
                self.begin()
        return really(*arguments, **options)

    def begin(self) -> None:
        path, fresh = self.home.mapping_file, self.home.root / "projects/fresh"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self, "step", 0)
            self.other.unlink(missing_ok=True)
            self.other.write_bytes(self.whole if self.way in ("rename", "symlink") else b"")
            if self.way == "symlink":
                fresh.symlink_to(self.other)
                fresh.rename(path)
            elif self.way == "write":
                self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            else:
                if self.way == "rename, then write":
                    self.fd = os.open(self.other, os.O_WRONLY)
                self.other.rename(path)
            if self.fd >= 0:
                os.write(self.fd, self.parts[0])

    def end(self) -> None:
        if self.fd >= 0:
            os.write(self.fd, self.parts[1])
            os.close(self.fd)


def use(home: Home) -> None:
    switch.switch_profile(home.context, "b")


def undo(home: Home) -> None:
    switch.undo(home.context, "1")  # there was no file before the first entry


def restore(home: Home) -> None:
    """Restore, as the guard does, a mapping file that was a symlink."""
    context, history = home.context, History(home.context)
    wanted = history.load_content(history.last_mapping().after or "")
    like = FileAttributes(0o600, context.uid, context.gid)
    with Lock(context.lock):
        switch.restore(context, wanted + b" ", "a", link="dotfile", attributes=like, writer=None)


@pytest.mark.parametrize(
    ("way", "can_exchange"), [(way, True) for way in WAYS] + [(way, False) for way in ("rename", "write")]
)
@pytest.mark.parametrize("change", [use, undo, restore])
def test_a_write_before_any_step(
    home: Home, monkeypatch: pytest.MonkeyPatch, change: Callable[[Home], None], way: str, can_exchange: bool
) -> None:
    if not can_exchange:
        monkeypatch.setattr(atomic, "exchange", lambda *_: False)
    monkeypatch.setattr(switch, "SWITCH_WRITER_TIMEOUT", 0)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    for name in "ab":
        home.profile(name)
    lost, step, program = [], 0, None
    while program is None or program.steps >= step:
        step += 1
        home.mapping_file.unlink(missing_ok=True)
        switch.switch_profile(home.context, "a")
        program = Program(home, way, step)
        with monkeypatch.context() as patch:
            for module, name in [*((os, name) for name in CALLS), (atomic, "exchange")]:
                really = getattr(module, name)
                patch.setattr(module, name, lambda *a, _r=really, _p=program, **o: _p.before(_r, *a, **o))
            try:
                change(home)
            except switch.TaoprofError as error:
                assert "was overwritten by another program during the switch" in error.message
        program.end()
        with Lock(home.context.lock):
            switch.recover(home.context)
        assert list(home.root.glob(".taoprof-*")) == []
        there = home.content()
        if program.whole != there and program.steps >= step and not kept(home, program.whole):
            lost.append(step)
    assert step > 10
    # Without the exchange there is a moment between the old file's second name and the rename.
    assert len(lost) == (way == "rename" and not can_exchange and change is not undo), lost
