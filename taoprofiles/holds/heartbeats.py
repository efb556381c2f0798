"""How long another host's sign of life has been the same, as watched from this host."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

from taoprofiles.errors import InvalidStateError
from taoprofiles.storage import best_effort, files

if TYPE_CHECKING:
    from typing import Any

    from taoprofiles.storage.paths import Context


class HeartbeatObserver:
    """The memory of one host, ``here``: for each hold the sign that was seen, and when it was seen first."""

    def __init__(self, context: Context, here: str) -> None:
        import hashlib

        self._path = os.path.join(context.cache, f"seen-{hashlib.sha256(here.encode()).hexdigest()[:12]}.json")

    def seconds_unchanged(self, hold_id: str, sign: int | None, *, may_write: bool) -> float:
        """Tell for how long the sign has been ``sign``: 0 at the first look. By this host's own clock since boot."""
        known, now = self._known(), time.monotonic()
        before = known.get(hold_id)
        if before is not None and before[0] == sign and before[1] <= now:
            return now - float(before[1])
        if may_write:
            known[hold_id] = [sign, now]
            recent = dict(sorted(known.items(), key=lambda item: -item[1][1])[:100])
            best_effort.write(self._path, json.dumps(recent).encode())
        return 0.0

    def _known(self) -> dict[str, Any]:
        try:
            found = json.loads(files.read(self._path, 1 << 20) or b"{}")
            return {key: value for key, value in found.items() if _is_note(value)}
        except (InvalidStateError, ValueError, AttributeError):
            return {}


def _is_note(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[1], (int, float))
