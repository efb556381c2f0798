"""A guard's home that goes away in the very moment: nothing is made in its place, and nothing in it is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taoprofiles.errors import TaoprofError
from taoprofiles.storage import atomic, best_effort, files, homes
from tests.support.home import Home

LEFT = [pytest.param(False, id="moved"), pytest.param(True, id="unmounted")]
"""Whether an empty folder is left of it."""


@pytest.fixture
def away(home: Home, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(homes, "KNOWN", {str(home.root): home.root.stat()})
    home.mapping_file.write_text("mine")
    return home.root.with_name("away")


def goes(home: Home, away: Path, *, is_left: bool) -> None:
    home.root.rename(away)
    if is_left:
        home.root.mkdir()


def comes(home: Home, away: Path) -> None:
    if home.root.exists():
        home.root.rmdir()
    away.rename(home.root)


def nothing_made(home: Home, *, is_left: bool) -> None:
    assert home.root.exists() is is_left
    assert not list(home.root.rglob("*"))


def goes_during(
    home: Home, away: Path, monkeypatch: pytest.MonkeyPatch, step: tuple[Any, str], *, is_left: bool, is_back: bool
) -> None:
    """Have it go away right before that step, and be there again right after it if so."""
    real: Callable[..., object] = getattr(*step)

    def stepped(*arguments: object, **options: object) -> object:
        monkeypatch.setattr(*step, real)
        goes(home, away, is_left=is_left)
        try:
            return real(*arguments, **options)
        finally:
            if is_back:
                comes(home, away)

    monkeypatch.setattr(*step, stepped)


@pytest.mark.parametrize("is_left", LEFT)
def test_no_folder_is_made_while_it_is_away(home: Home, away: Path, is_left: bool) -> None:
    goes(home, away, is_left=is_left)
    for folder in (home.state, home.root):
        if not folder.exists():
            with pytest.raises(TaoprofError, match="no such file or directory"):
                files.make_folder(str(folder))
    assert not best_effort.write(str(home.state / "guard/known"), b"")
    nothing_made(home, is_left=is_left)
    comes(home, away)
    files.make_folder(str(home.state))
    assert home.state.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("is_left", LEFT)
def test_a_folder_that_was_about_to_be_made_is_made_in_the_very_home(
    home: Home, away: Path, monkeypatch: pytest.MonkeyPatch, is_left: bool
) -> None:
    goes_during(home, away, monkeypatch, (files, "_make"), is_left=is_left, is_back=False)
    with pytest.raises(TaoprofError, match="no such file or directory"):
        files.make_folder(str(home.state))
    nothing_made(home, is_left=is_left)
    assert [path.name for path in away.iterdir() if path.is_dir()] == [".local"]


@pytest.mark.parametrize("is_left", LEFT)
@pytest.mark.parametrize("link", [None, "elsewhere"])
@pytest.mark.parametrize("is_back", [False, True])
def test_a_file_that_is_not_seen_since_the_home_is_away_is_not_made_anew(
    home: Home, away: Path, monkeypatch: pytest.MonkeyPatch, is_left: bool, link: str | None, is_back: bool
) -> None:
    """Nor is the one that is there again taken away, by the way back from what took it for a new one."""
    goes_during(home, away, monkeypatch, (atomic, "status"), is_left=is_left, is_back=is_back)
    with pytest.raises(TaoprofError, match=r"no such file or directory|file exists"):
        files.replace(str(home.mapping_file), b"ours", link=link)
    if not is_back:
        nothing_made(home, is_left=is_left)
        comes(home, away)
    assert [path.name for path in home.root.iterdir()] == [".tao_mounts.json"]
    assert home.mapping_file.read_text() == "mine"


def test_a_file_is_not_replaced_in_the_place_of_its_home(home: Home, away: Path) -> None:
    goes(home, away, is_left=True)
    with pytest.raises(TaoprofError, match="no such file or directory"):
        files.replace(str(home.mapping_file), b"ours", link=None)
    nothing_made(home, is_left=True)
