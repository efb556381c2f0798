"""JSON of files that other programs wrote."""

from __future__ import annotations

import json
from typing import Any


def parse(content: bytes) -> tuple[Any, str]:
    """Parse JSON as ``json.load(open(path))`` does, in UTF-8; None and the problem if that raises.

    The problem names a position and never the content.
    """
    try:
        return json.loads(content.decode()), ""
    except json.JSONDecodeError as error:
        return None, f"line {error.lineno}, column {error.colno}: {error.msg.lower()}"
    except UnicodeDecodeError as error:
        return None, f"byte {error.start} is not UTF-8"
    except (ValueError, RecursionError):
        return None, "it is nested too deeply, or has a number too long"
