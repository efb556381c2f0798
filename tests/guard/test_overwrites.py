"""Thousands of foreign writes of every kind, at random moments, with random holds, against one guard."""

from __future__ import annotations

import os
import random
import stat
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from taoprofiles.holds import manage
from taoprofiles.storage.journal import History
from taoprofiles.storage.locks import Lock
from taoprofiles.switching import switch
from tests.support.engine import until
from tests.support.guard_process import GuardProcess, held, replaced
from tests.support.home import ALL
from tests.support.sandbox import Sandbox, rendered

WRITES = int(os.environ.get("TAOPROF_TEST_WRITES", 2000 if ALL else 100))
"""10,000 take three minutes: TAOPROF_TEST_WRITES=10000."""

SEED = int(os.environ.get("TAOPROF_TEST_SEED", random.SystemRandom().randrange(1 << 32) if ALL or WRITES > 100 else 20))

ANSWER = 8
"""Seconds for the guard to answer, well below those of its tick: an event that was missed is not made good by that."""

ALIKE = (0o600, 0o644, 0o640, 0o664)


class Writer:
    """Writes as other programs do, and knows what must come of each write.

    ``last`` is what was written last, ``wanted`` what is held. What the guard may rightly believe the file's own mode
    and symlink to be are ``modes`` and ``shapes``: more than one of each where it may not have looked in between.
    """

    def __init__(self, sandbox: Sandbox, guard: GuardProcess, seed: int) -> None:
        self.sandbox, self.guard, self.seed = sandbox, guard, seed
        self.random = random.Random(seed)
        self.history = History(sandbox.context)
        self.path = sandbox.mapping_file
        self.elsewhere = sandbox.root / "elsewhere"
        self.elsewhere.mkdir()
        self.last: set[bytes | None] = {self.path.read_bytes()}
        self.wanted: bytes | None = None
        self.modes = {stat.S_IMODE(self.path.stat().st_mode)}
        self.shapes: set[str | None] = {None}
        self.holds: list[str] = []
        self.to_keep: list[bytes] = []
        self.hidden: list[bytes] = []
        self.undone: list[tuple[int, str | None]] = []
        self.writes = self.changes = self.made = 0
        self.did: deque[str] = deque(maxlen=40)
        self.kinds: list[tuple[Callable[[], None], int]] = [
            (self.in_place, 4),
            (self.slowly, 2),
            (self.rename_over, 4),
            (self.unlink_and_create, 3),
            (self.unlink, 1),
            (self.swap_symlink, 3),
            (self.turn, 2),
            (self.chmod, 3),
            (self.touch, 2),
        ]

    def write(self) -> None:
        kinds, weights = zip(*self.kinds, strict=True)
        self.random.choices(kinds, weights)[0]()
        self.writes += 1

    # The kinds of foreign writes

    def in_place(self) -> None:
        """Truncate and write, as a shell's redirection does."""
        self._through(self._content(), 0.0)

    def slowly(self) -> None:
        """Truncate, write, and write the rest a moment later."""
        self._through(self._content(), self.random.uniform(0, 0.06))

    def rename_over(self) -> None:
        content, mode = self._content(), self.random.choice(ALIKE)
        fresh = self.sandbox.root / "fresh"
        fresh.write_bytes(content)
        fresh.chmod(mode)
        self._note("rename over", content)
        fresh.rename(self.path)
        self._new_file(content, mode, None)

    def unlink_and_create(self) -> None:
        self.unlink()
        self._pause()
        self._through(self._content(), 0.0)

    def unlink(self) -> None:
        self._note("unlink", None)
        self.path.unlink(missing_ok=True)
        self.changes += 1
        self.last = {None}
        self.modes.add(0o600)  # what was there may be forgotten: the file that comes next is a new one
        self.shapes.add(None)

    def swap_symlink(self) -> None:
        content, mode, other = self._content(), self.random.choice(ALIKE), self._other()
        other.write_bytes(content)
        other.chmod(mode)
        self._note(f"symlink to {other.name}", content)
        self._link(other)
        self._new_file(content, mode, os.path.relpath(other, self.sandbox.root))

    def turn(self) -> None:
        """Make it a symlink to a file of the same content, or such a symlink a file, in one step."""
        with suppress(FileNotFoundError):  # it was removed before
            shape = None
            if self.path.is_symlink():
                self._note("turned into a file", None)
                os.rename(os.path.realpath(self.path), self.path)
            else:
                other = self._other()
                folder = os.open(self.sandbox.root, os.O_PATH)
                os.link(self.path.name, other, src_dir_fd=folder)  # by this the file, should it be a symlink by now
                os.close(folder)
                self._note(f"turned into a symlink to {other.name}", None)
                self._link(other)
                shape = os.path.relpath(other, self.sandbox.root)
            self.changes += 1
            self.shapes.add(shape)

    def chmod(self) -> None:
        """Make it writable again while it is sealed, or give it any mode."""
        mode = self.random.choice(sorted(self.modes) if self.holds else ALIKE)
        self._note(f"chmod {mode:o}", None)
        with suppress(FileNotFoundError):  # it was removed before
            self.path.chmod(mode)
            self.modes.add(mode)

    def touch(self) -> None:
        self._note("touch", None)
        with suppress(FileNotFoundError):  # it was removed before
            os.utime(self.path)

    # What taoprof does meanwhile

    def hold_or_let_go(self) -> None:
        if self.holds:
            self.release(self.random.choice(self.holds))
        elif len(self.last) == 1 and self.last != {None}:
            self.wanted = self.now
            assert self.wanted is not None
            self.holds.append(manage.hold(self.sandbox.context, None, reason="a test").id)
            self.did.append(f"hold {self.holds[-1]}")
            self.modes.add(0o600)  # what is held may be gone before the guard has seen what mode it had
            self.to_keep.append(self.wanted)

    def release(self, hold: str) -> None:
        manage.release(self.sandbox.context, hold)
        self.did.append(f"release {hold}")
        self.holds.remove(hold)
        if not self.holds:  # what the guard had not yet undone stays
            self.last.add(self.wanted)
            self.wanted = None
            self.modes |= {mode for mode, _ in self.undone}
            self.shapes |= {shape for _, shape in self.undone}
            self.undone = []

    def use(self) -> None:
        if not self.holds:
            name = self.random.choice("ab")
            switch.switch_profile(self.sandbox.context, name)
            self.did.append(f"use {name}")
            self.to_keep += [content for content in self.last if content is not None and len(self.last) == 1]
            self.last = {rendered(self.sandbox, name)}
            self.modes.add(self._mode())

    # What must be so

    @property
    def now(self) -> bytes | None:
        assert len(self.last) == 1
        return next(iter(self.last))

    def quiet(self) -> None:
        """Wait until all is as it must be; after one more write, that the guard must see, it is known exactly."""
        self.guard.has_notified("")  # so that the manager's socket does not run full
        is_exact = self.random.random() < 0.6
        mark = 0.0
        if is_exact:
            with Lock(self.sandbox.context.lock):  # no look goes on meanwhile, so one that ends later has seen it
                if self.sandbox.content() is None:
                    self.rename_over()  # most other kinds do nothing to a file that is not there
                else:
                    self.write()
                mark = time.time()
        self.to_keep += [content for content in self.last if content is not None]
        until(lambda: self._looked() >= mark, "the guard has seen the write", seconds=ANSWER, details=self.report)
        until(lambda: not self.wrong(), "all is as it must be", seconds=ANSWER, details=self.report)
        self.to_keep, self.hidden, self.undone = [], [], []
        if len(self.last) > 1 or self.holds:
            self.last = {self.sandbox.content()}
        if is_exact:
            self.shapes, mode = {self._shape()}, self._mode()
            self.modes = {bits for bits in self.modes if (bits & ~0o222 if self.holds else bits) == mode} or self.modes
            target = os.path.realpath(self.path)
            for other in self._others():
                if str(other.resolve()) != target:
                    other.unlink(missing_ok=True)  # the guard may do so just now

    def wrong(self) -> str:
        """Return what is wrong now, or ""."""
        content, mode = self.sandbox.content(), self._mode()
        if self.holds:
            if content != self.wanted:
                return f"held is {self.wanted!r:.60}, but there is {content!r:.60}"
            if mode not in {bits & ~0o222 for bits in self.modes | {mode for mode, _ in self.undone}}:
                return f"its modes may be {[oct(bits) for bits in self.modes]}, sealed; it has {mode:o}"
            if self._shape() not in self.shapes:
                return f"its symlink may be {self.shapes}; it is {self._shape()}"
        elif content not in self.last:
            return f"written last was one of {self.last!r:.200}, but there is {content!r:.60}"
        elif content is not None and (mode not in self.modes or self._shape() not in self.shapes):
            return f"{mode:o} is none of {self.modes}, or {self._shape()} none of {self.shapes}"
        for data in [*self.to_keep, *self.hidden, *([] if content is None else [content])]:
            # A symlink that is swapped in the microseconds of a restore is swapped back unread: its file has it still.
            if not self.history.has_content(data) and data not in [other.read_bytes() for other in self._others()]:
                return f"neither kept nor in the file of a symlink that was swapped back: {data!r:.60}"
        return ""

    def report(self) -> str:
        did = "\n".join(self.did)
        log = "\n".join(self.guard.log_text().splitlines()[-15:])
        return f"{did}\n{log}\nseed {self.seed}, after {self.writes} writes: {self.wrong()}"

    def restores(self) -> int:
        return sum(entry.action == "restore" for entry in self.history.newest_first())

    # Parts of a write

    def _through(self, content: bytes, pause: float) -> None:
        """Write into the file that stands there, or where a symlink leads; make it where there is none."""
        self._note(f"in place, {pause:.3f} s between the parts", content)
        for flags in (os.O_CREAT | os.O_EXCL, os.O_TRUNC, os.O_CREAT | os.O_TRUNC):
            try:
                fd = os.open(self.path, os.O_WRONLY | flags, 0o644)
                break
            except (FileExistsError, FileNotFoundError):
                continue  # it comes and goes
            except PermissionError:  # an ordinary user, and the guard's seal
                return
        with open(fd, "wb") as file:
            is_new = bool(flags & os.O_CREAT)
            if is_new:
                self.modes.add(stat.S_IMODE(os.fstat(fd).st_mode))
                self.shapes.add(self._shape())
            file.write(content[: len(content) // 2])
            if pause:
                file.flush()
                time.sleep(pause)
            file.write(content[len(content) // 2 :])
            file.flush()
            self.changes += 3
            try:
                is_hidden = not os.path.samestat(os.fstat(fd), self.path.stat())
            except FileNotFoundError:
                is_hidden = True
        if is_hidden:
            self.hidden.append(content)  # the guard has replaced the file, or its symlink, under us
            self.last = set() if self.holds else {content, *self.last}
        else:
            self.last = {content}

    def _new_file(self, content: bytes, mode: int, shape: str | None) -> None:
        self.last = {content}
        self.changes += 1
        if self.holds:
            self.undone.append((mode, shape))
        else:
            self.modes.add(mode)
            self.shapes.add(shape)

    def _link(self, other: Path) -> None:
        fresh = self.sandbox.root / "fresh"
        fresh.symlink_to(os.path.relpath(other, self.sandbox.root))
        fresh.rename(self.path)

    def _other(self) -> Path:
        self.made += 1
        return self.random.choice((self.sandbox.root, self.elsewhere)) / f"other-{self.made}"

    def _others(self) -> list[Path]:
        return [*self.sandbox.root.glob("other-*"), *self.elsewhere.iterdir()]

    def _content(self) -> bytes:
        self.made += 1
        mounts = b'{"Mounts": [], "number": %d}' % self.made
        return self.random.choices(
            (mounts, b"no JSON %d" % self.made, b"\xff\0%d" % self.made, mounts + b" " * 70_000), (6, 2, 1, 1)
        )[0]

    def _pause(self) -> None:
        time.sleep(self.random.choice((0, 0, 0.001, 0.005, 0.02)))

    def _note(self, what: str, content: bytes | None) -> None:
        self.did.append(f"{what}{'' if content is None else f': {content!r:.40}'}")

    def _shape(self) -> str | None:
        try:
            return os.readlink(self.path)
        except OSError:
            return None

    def _mode(self) -> int:
        try:
            return stat.S_IMODE(self.path.stat().st_mode)
        except FileNotFoundError:
            return 0

    def _looked(self) -> float:
        return self.guard.known().get("looked", 0.0)


@pytest.mark.timeout(900)
def test_whatever_others_write_the_held_mapping_comes_back_and_nothing_is_lost(sandbox: Sandbox) -> None:
    """At each quiet moment: held, and sealed, is what was held; free, what was written last; all that stood is kept."""
    with GuardProcess(sandbox, options=("--restores", "100000")) as guard:
        writer = Writer(sandbox, guard, SEED)
        chance = writer.random
        descriptors = Path(f"/proc/{guard.process.pid}/fd")
        until(lambda: not writer.wrong(), "it has looked", details=writer.report)
        at_first = len(list(descriptors.iterdir()))
        while writer.writes < WRITES:
            for _ in range(chance.randint(1, 22)):
                writer.write()
                writer._pause()
                if chance.random() < 0.04:
                    writer.hold_or_let_go()
                elif chance.random() < 0.02:
                    writer.use()
            writer.quiet()
            if chance.random() < 0.6:
                writer.hold_or_let_go()
            assert guard.process.poll() is None, writer.report()
        for hold in list(writer.holds):
            writer.release(hold)
        writer.rename_over()
        until(lambda: not writer.wrong(), "all is as it must be at the end", seconds=ANSWER, details=writer.report)
        until(
            lambda: len(list(descriptors.iterdir())) <= at_first,
            "no descriptor is left open",
            details=lambda: f"{at_first} at first; now {[os.readlink(fd) for fd in descriptors.iterdir()]}",
        )
        assert 0 < writer.restores() <= writer.changes, writer.report()


def test_an_overwrite_that_another_command_has_recorded_is_undone(sandbox: Sandbox) -> None:
    wanted = sandbox.mapping_file.read_bytes()
    held(sandbox)
    replaced(sandbox)
    held(sandbox)  # of what has just been written: not both can have what they need, but the first can
    replaced(sandbox, b'{"Mounts": [], "second": true}')
    assert sandbox.run("undo").returncode == 5
    with GuardProcess(sandbox) as guard:
        until(lambda: sandbox.mapping_file.read_bytes() == wanted, "it is restored", details=guard.log_text)
