"""The decisions about holds, as pure functions."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.holds.hold import Hold, blocking_holds, format_age, gpus_overlap, results_conflicts

HOLDS = st.builds(
    lambda **fields: Hold(**fields),
    id=st.text("abc", min_size=1, max_size=5),
    kind=st.sampled_from(["run", "shell", "manual", "found"]),
    phase=st.sampled_from(["pending", "bound"]),
    digest=st.sampled_from(["x", "y", "z", None]),
    shared=st.booleans(),
    released=st.booleans(),
    gpus=st.none() | st.just("all") | st.lists(st.sampled_from("0123"), max_size=3),
)


@given(st.lists(HOLDS), st.sampled_from("xyz"))
def test_blocking_holds(holds: list[Hold], wanted: str) -> None:
    """Nothing that needs the same mapping, has let go, or has a file of its own; and all else."""
    blocking = blocking_holds(holds, wanted)
    for hold in holds:
        needs_another = hold.shared and not hold.released and hold.digest != wanted
        assert any(other is hold for other in blocking) == needs_another
    assert [hold for hold in holds if any(other is hold for other in blocking)] == blocking, "in the same order"


@pytest.mark.parametrize(
    ("mine", "theirs", "same"),
    [
        ("/r", "/r", True),
        ("/r/x", "/r", True),
        ("/r", "/r/x", True),
        ("/r/x", "/r/y", False),
        ("/r/x", "/r/xy", False),
        ("/r/xy", "/r/x", False),
        ("/", "/r", True),
        ("/r", "/", True),
    ],
)
def test_results_conflicts(mine: str, theirs: str, same: bool) -> None:
    hold = Hold(results=["/elsewhere", theirs])
    assert results_conflicts([hold], [mine]) == ([(hold, mine)] if same else [])
    hold.ended = 1.0
    assert results_conflicts([hold], [mine]) == []


def test_runs_without_results_do_not_conflict() -> None:
    assert results_conflicts([Hold()], ["/r"]) == []
    assert results_conflicts([Hold(results=["/r"])], []) == []


GPUS = st.just("all") | st.lists(st.sampled_from("0123"), max_size=3)


@given(GPUS, st.none() | GPUS)
def test_gpus_overlap(mine: list[str] | str, theirs: list[str] | str | None) -> None:
    devices = [set("0123" if gpus == "all" else gpus or ()) for gpus in (mine, theirs)]
    assert gpus_overlap(mine, theirs) == bool(devices[0] & devices[1])


@given(HOLDS)
def test_a_hold_can_be_written_and_read(hold: Hold) -> None:
    again = Hold(**json.loads(json.dumps(hold.as_dict())))
    assert again.as_dict() == hold.as_dict()
    assert again.command is not Hold().command, "holds share no lists"


def test_is_same() -> None:
    hold = Hold(pid=5, start=9, container="c")
    assert hold.is_same(Hold(pid=5, start=9))
    assert hold.is_same(Hold(pid=6, start=9, container="c"))
    assert not hold.is_same(Hold(pid=5, start=8))
    assert not Hold().is_same(Hold())


@pytest.mark.parametrize(
    ("seconds", "text", "exact"),
    [
        *((-5, "0 s", "0 s"), (0, "0 s", "0 s"), (0.25, "0 s", "0.2 s"), (4.75, "4 s", "4.8 s")),
        *((9.99, "9 s", "10 s"), (59.9, "59 s", "59 s"), (194, "3 min", "3 min 14 s"), (3599, "59 min", "59 min 59 s")),
        (2 * 3600 + 14 * 60, "2 h 14 min", "2 h 14 min"),
        (86400 + 3600, "1 d 1 h", "1 d 1 h"),
    ],
)
def test_format_age(seconds: float, text: str, exact: str) -> None:
    assert (format_age(seconds), format_age(seconds, exact=True)) == (text, exact)


def test_the_line_of_a_hold() -> None:
    hold = Hold(id="abcde", command=["tao", "x"], pid=7, user="ana", host="elsewhere", container="c0ffee" * 10)
    assert hold.line(when="1 min") == "tao x   pid 7, ana, 1 min, on elsewhere, container c0ffee, pending, hold abcde"


@given(st.lists(st.text(), max_size=40), st.text())
def test_a_title_is_never_long(command: list[str], reason: str) -> None:
    assert len(Hold(command=command, reason=reason).title()) <= 90
