"""Files of other programs, read whatever they are: never more than a limit, never waiting, never raising."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


def read(path: str, limit: int) -> tuple[bytes, str]:
    """Give the content of a file, or b"" and why there is none: "absent", or words."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return b"", "it is not a file"
            content = b""
            while len(content) <= limit and (chunk := os.read(fd, limit + 1 - len(content))):
                content += chunk
        finally:
            os.close(fd)
    except (FileNotFoundError, NotADirectoryError):
        return b"", "absent"
    except (OSError, ValueError) as error:
        return b"", (getattr(error, "strerror", "") or str(error)).lower()
    return (content, "") if len(content) <= limit else (b"", f"it has more than {limit} bytes")


def parse(content: bytes) -> tuple[Any, str]:
    """Read JSON as ``json.load(open(path))`` does, in UTF-8; None and what is wrong with it where that raises.

    What is wrong names a place and never what stands there.
    """
    try:
        return json.loads(content.decode()), ""
    except json.JSONDecodeError as error:
        return None, f"line {error.lineno}, column {error.colno}: {error.msg.lower()}"
    except UnicodeDecodeError as error:
        return None, f"byte {error.start} is not UTF-8"
    except (ValueError, RecursionError):
        return None, "it is nested too deeply, or has a number too long"
