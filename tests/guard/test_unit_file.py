"""What is written into a unit file comes out of systemd's own reader as it was; what is told goes to the manager."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.system.systemd import Notifier, assigned, quoted

UNIT = Path(__file__).parents[2] / "service/taoprofd.service"
words = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1)


def unquoted(word: str) -> str:
    """Read a word as systemd.service(5) and systemd.syntax(7) say: quotes, escapes, %% and $$."""
    if word.startswith('"') and word.endswith('"') and len(word) > 1:
        word = re.sub(r'\\(["\\])', r"\1", word[1:-1])
    return word.replace("%%", "%").replace("$$", "$")


@given(words)
def test_a_word_comes_out_as_it_was(word: str) -> None:
    written = quoted(word)
    assert unquoted(written) == word
    assert written.startswith('"') or not set(written) & set(" \t'\";\\")


@given(words)
def test_a_variable_comes_out_as_it_was(value: str) -> None:
    line = assigned("NAME", value)
    assert line.startswith('Environment="NAME=') and line.endswith('"')
    inner = line.removeprefix('Environment="NAME=').removesuffix('"')
    assert re.sub(r'\\(["\\])', r"\1", inner).replace("%%", "%") == value


def test_every_line_of_the_unit_is_explained() -> None:
    """A block of settings has a comment above it that says why."""
    explained = True
    for line in UNIT.read_text().splitlines():
        if not line or line.startswith("["):
            explained = False
        elif line.startswith("#"):
            explained = True
        else:
            assert explained or line.startswith(("Description=", "Documentation=", "WantedBy=", "@ENV")), line


def test_the_manager_is_told_without_waiting_for_it(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"})
        assert notifier.watchdog == 2
        notifier.notify(READY="1", STATUS="well")
        assert manager.recv(100) == b"READY=1\nSTATUS=well"
        for _ in range(1000):
            notifier.notify(WATCHDOG="1")  # its queue has ten places, and nobody reads
    Notifier({}).notify(READY="1")
    assert Notifier({"WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}).watchdog is None, "it is another process's"
    assert Notifier({"WATCHDOG_USEC": "nonsense"}).watchdog is None
