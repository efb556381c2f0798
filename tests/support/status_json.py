"""Lines of a ``status.json``, as TAO's tasks write them."""

from __future__ import annotations

import json
import time
from typing import Any

NOW = 1_800_000_000


def line(second: int, **fields: Any) -> bytes:
    """Return a line of the file; ``second`` is counted from NOW."""
    moment = time.gmtime(NOW + second)
    stamp = {
        "date": f"{moment.tm_mon}/{moment.tm_mday}/{moment.tm_year}",
        "time": f"{moment.tm_hour}:{moment.tm_min}:{moment.tm_sec}",
    }
    return json.dumps({**fields, **stamp, "status": fields.get("status", "RUNNING")}).encode() + b"\n"


def epoch_line(second: int, epoch: int, **fields: Any) -> bytes:
    """Return an epoch's line, in which every figure tells the epoch."""
    values = {"epoch": epoch, "max_epoch": 50, "time_per_epoch": f"0:{epoch:02}:00", "kpi": {"train_loss": epoch / 4}}
    return line(second, **{**values, **fields})
