"""Which launcher a version is, and what is refused as none."""

from __future__ import annotations

import pytest

from taoprofiles.launcher.behaviour import KNOWN_VERSIONS, NEWEST_VERSION, Behaviour, behaviour_of, parse_version


def test_the_known_ones_are_in_order_and_themselves() -> None:
    assert sorted(KNOWN_VERSIONS, key=parse_version) == list(KNOWN_VERSIONS)
    assert [behaviour_of(version).version for version in KNOWN_VERSIONS] == list(KNOWN_VERSIONS)


@pytest.mark.parametrize(
    ("version", "known"),
    [("0.1.22", "0.1.21"), ("0.1.20", "0.1.21"), ("4.0.2", "4.0.1"), ("5.5.0", "5.3.0"), ("6", "6.0.0"),
     ("6.99", NEWEST_VERSION)],
)  # fmt: skip
def test_one_in_between_is_as_the_one_before_it(version: str, known: str) -> None:
    assert behaviour_of(version).version == known


@pytest.mark.parametrize(
    "version", ["", "x", "5.x", "5..1", "-5", "5.5.1rc1", "7.0.0", "0.0.9", "5 ", "\u0665", "1.2.3.4.5"]
)
def test_nonsense_is_refused(version: str) -> None:
    with pytest.raises(ValueError, match="launcher"):
        behaviour_of(version)


def test_what_came_when() -> None:
    first = {
        feature: next(version for version in KNOWN_VERSIONS if getattr(behaviour_of(version), feature))
        for feature, since in vars(Behaviour).items()
        if hasattr(since, "first")
    }
    assert first == {
        "has_no_docker_mode": "4.0.0",
        "task_groups": "5.0.0",
        "ci": "5.0.0",
        "tty_option": "5.0.0",
        "needs_options": "5.0.0",
        "override_skips_login": "5.0.0",
        "volume_argument": "6.0.0",
        "sets_client_type": "6.25.11",
    }
