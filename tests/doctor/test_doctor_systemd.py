"""The doctor beside a real service: told as it is, and well again after the command that is given."""

from __future__ import annotations

import json

import pytest

from tests.support.systemd import UNIT, Owner

pytestmark = pytest.mark.systemd


def findings(owner: Owner) -> dict[str, dict]:
    result = owner.taoprof("doctor", "--json", check=False)
    assert result.returncode == 3, result.stderr  # there is no launcher
    data = json.loads(result.stdout)["data"]
    return {
        finding["id"]: finding
        for finding in data["findings"]
        if finding["id"].startswith(("guard-", "seal-", "state-"))
    }


def test_the_service_as_it_is(owner: Owner) -> None:
    assert findings(owner) == {}
    owner.taoprof("service", "install")
    assert findings(owner) == {}
    output = owner.taoprof("doctor", check=False).stdout
    assert f"running, pid {owner.pid}, version" in output
    assert "service active (running)" in output

    owner.systemctl("stop", UNIT)
    by_id = findings(owner)
    assert list(by_id) == ["guard-inactive"]
    assert "inactive (dead)" in by_id["guard-inactive"]["what"]
    assert by_id["guard-inactive"]["hint"].endswith("taoprof service start")
    owner.taoprof("service", "start")
    assert findings(owner) == {}

    owner.write(owner.unit, owner.unit.read_text().replace("WatchdogSec=60", "WatchdogSec=50"))
    by_id = findings(owner)
    assert list(by_id) == ["guard-outdated"]
    assert by_id["guard-outdated"]["hint"] == "taoprof service install"
    owner.taoprof("service", "install")
    assert findings(owner) == {}
