"""What import reads in notebooks and scripts of the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from taoprofiles.importer import build
from taoprofiles.importer.build import ImportResult
from taoprofiles.profiles.model import template
from taoprofiles.profiles.rendering import Renderer
from taoprofiles.storage.paths import Context

WRITE = """import json, os
with open(os.path.expanduser("~/.tao_mounts.json"), "w") as f:
    json.dump({}, f, indent=4)
"""
"""What nearly every notebook ends its set-up with; the name of the dictionary goes in."""


def write(name: str = "tao_configs") -> str:
    return WRITE.replace("{}", name)


def context(home: Path) -> Context:
    return Context({"HOME": str(home), "USER": "ana", "PATH": "/usr/bin:/bin"})


def read(home: Path, content: bytes, *, folder: Path | None = None, **values: str) -> ImportResult:
    """Read a notebook or a script that stands in ``folder``."""
    path = str((folder or home) / "file")
    result = build.SourceFile(context(home), content, where="file", path=path).evaluate(values)
    build.reject_unused_values(result, "file")
    return result


def rendered(home: Path, result: ImportResult) -> tuple[dict[str, str], dict[str, Any]]:
    """Make a profile of it, and give what that sets: its variables and its mapping."""
    profile, _ = build.build(result, name="net", where="file")
    renderer = Renderer(template(profile, name="net"), context(home), name="net", path="net.toml")
    return renderer.variables(), renderer.mapping()
