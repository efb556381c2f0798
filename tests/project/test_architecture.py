"""The rooms of the house: imports go one way, one module writes files, one prints."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "taoprofiles"

ORDER = (
    ("errors", "version", "masking"),
    ("storage",),
    ("prompt",),
    ("system",),
    ("launcher",),
    ("mounts",),
    ("profiles",),
    ("rules", "export", "importer"),
    ("holds",),
    ("switching",),
    ("check", "runs"),
    ("guard",),
    ("doctor",),
    ("api", "cli", "jupyter"),
    ("__init__", "__main__"),
)
RANKS = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
"""A room may use the rooms below it, and itself. See docs/explanation/how-it-works.md."""

FILES = {path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", "."): path for path in
         sorted(PACKAGE.rglob("*.py"))}  # fmt: skip


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(path: Path) -> Iterator[str]:
    """Every module of ours that a file imports, also inside functions and for types alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("taoprofiles"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in FILES or f"{inner}.__init__" in FILES else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("taoprofiles"))


@pytest.mark.parametrize("module", FILES)
def test_imports_go_one_way(module: str) -> None:
    mine = RANKS[room(module.removesuffix(".__init__"))]
    for used in imports(FILES[module]):
        same_room = room(used) == room(module)
        assert same_room or RANKS[room(used)] < mine, f"{module} imports {used}"


def test_no_import_goes_round() -> None:
    graph = {module: set(imports(path)) & set(FILES) for module, path in FILES.items()}
    done: set[str] = set()

    def visit(module: str, chain: tuple[str, ...]) -> None:
        assert module not in chain, " → ".join((*chain[chain.index(module) :], module))
        if module not in done:
            for used in graph[module]:
                visit(used, (*chain, module))
            done.add(module)

    for module in graph:
        visit(module, ())


WRITERS = {
    "open_flags": {"O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND"},
    "calls": {"replace", "rename", "unlink", "remove", "mkdir", "makedirs", "link", "symlink", "truncate", "ftruncate",
              "chmod", "fchmod", "chown", "fchown", "write", "pwrite", "rmdir", "utime"},
}  # fmt: skip
ALLOWED = {
    "taoprofiles.storage.files": "appends, renames and folders",
    "taoprofiles.storage.atomic": "replacement of whole files",
    "taoprofiles.storage.best_effort": "caches",
    "taoprofiles.storage.locks": "lock files",
    "taoprofiles.switching.preflight": "makedirs: the person's own data folders, with their umask",
    "taoprofiles.cli.main": "opens /dev/null when the reader of stdout has gone",
}


@pytest.mark.parametrize("module", sorted(FILES.keys() - ALLOWED.keys()))
def test_one_module_writes_files(module: str) -> None:
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            assert node.attr not in WRITERS["calls"] | WRITERS["open_flags"], f"line {node.lineno}: os.{node.attr}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            mode = node.args[1].value if len(node.args) > 1 and isinstance(node.args[1], ast.Constant) else "r"
            assert not set(str(mode)) & set("wax+"), f"line {node.lineno}: open for writing"


@pytest.mark.parametrize("module", sorted(FILES.keys() - {"taoprofiles.cli.output", "taoprofiles.cli.main"}))
def test_one_module_prints(module: str) -> None:
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called != "print" and not called.startswith(("sys.stdout.write", "sys.stderr.write")), node.lineno
