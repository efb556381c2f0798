"""The structure of the package: layers, which modules write files or print, and the size of functions and modules."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "taoprofiles"
TESTS = Path(__file__).parents[1]

ORDER = (
    ("__init__", "errors", "masking"),
    ("storage",),
    ("current_cache",),
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
    ("api", "cli"),
    ("jupyter",),
    ("__main__",),
)
RANKS = {package: rank for rank, packages in enumerate(ORDER) for package in packages}
"""A package may import those before it in this list, and itself. See docs/explanation/how-it-works.md."""

FILES = {
    path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
TREES = {module: ast.parse(path.read_text()) for module, path in FILES.items()}


def package_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def type_imports(module: str) -> set[str]:
    """Return the modules of ours that a module imports under TYPE_CHECKING and nowhere else."""
    blocks = [node for node in ast.walk(TREES[module]) if isinstance(node, ast.If)]
    blocks = [node for node in blocks if ast.unparse(node.test) == "TYPE_CHECKING"]
    for_types = {inner for block in blocks for inner in ast.walk(block)}
    others = [node for node in ast.walk(TREES[module]) if node not in for_types]
    return set(imported_by(for_types)) - set(imported_by(others))


def imports(module: str) -> Iterator[str]:
    """Yield every module of ours that a module imports, also inside functions and for types alone."""
    return imported_by(ast.walk(TREES[module]))


def imported_by(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("taoprofiles"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in FILES else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("taoprofiles"))


def test_imports_go_one_way() -> None:
    upwards = [
        f"{module} imports {imported}"
        for module in FILES
        for imported in imports(module)
        if package_of(imported) != package_of(module) and RANKS[package_of(imported)] >= RANKS[package_of(module)]
    ]
    assert upwards == []


def test_no_import_is_circular() -> None:
    """Imports for types alone do not count: they are under TYPE_CHECKING because a real import would be circular."""
    graph = {module: (set(imports(module)) - type_imports(module)) & set(FILES) for module in FILES}
    done: set[str] = set()

    def visit(module: str, chain: tuple[str, ...]) -> None:
        assert module not in chain, " → ".join((*chain[chain.index(module) :], module))
        if module not in done:
            for imported in graph[module]:
                visit(imported, (*chain, module))
            done.add(module)

    for module in graph:
        visit(module, ())


WRITE_FLAGS = {"O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND"}
WRITE_CALLS = {
    *("replace", "rename", "unlink", "remove", "mkdir", "makedirs", "link", "symlink", "truncate", "ftruncate"),
    *("chmod", "fchmod", "chown", "fchown", "write", "pwrite", "rmdir", "utime"),
}
WRITERS = {
    "taoprofiles.storage.files": "durable replacement, and everything else that writes a file",
    "taoprofiles.storage.atomic": "the steps of a replacement",
    "taoprofiles.storage.locks": "lock files and their notes, before there is a lock to write under",
    "taoprofiles.switching.preflight": "makedirs: the user's own data folders, with the user's umask",
    "taoprofiles.cli.main": "opens /dev/null when the reader of stdout has gone",
    "taoprofiles.runs.tee": "what a command prints goes on to where it went",
    "taoprofiles.system.commands": "the input of a program goes into a pipe",
}


def test_few_modules_write_files() -> None:
    """Every other module goes through ``storage``, which knows what must be durable and what must stay secret."""
    writes = []
    for module in FILES.keys() - WRITERS.keys():
        for node in ast.walk(TREES[module]):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
                if node.attr in WRITE_CALLS | WRITE_FLAGS:
                    writes.append(f"{module}:{node.lineno}: os.{node.attr}")
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
                mode = node.args[1].value if len(node.args) > 1 and isinstance(node.args[1], ast.Constant) else "r"
                if set(str(mode)) & set("wax+"):
                    writes.append(f"{module}:{node.lineno}: open for writing")
    assert writes == []
    assert [module for module in WRITERS if module not in FILES] == []


PRINTERS = {
    "taoprofiles.cli.output": "everything that a command prints",
    "taoprofiles.cli.main": "the answer to a prompt, which must not wait for the import of output",
    "taoprofiles.guard.daemon": "its log",
    "taoprofiles.runs.notify": "its warnings: it is a process of its own",
}


def test_few_modules_print() -> None:
    prints = [
        f"{module}:{node.lineno}"
        for module in FILES.keys() - PRINTERS.keys()
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "sys.stdout.write", "sys.stderr.write")
    ]
    assert prints == []
    assert [module for module in PRINTERS if module not in FILES] == []


COMPLEX: dict[str, str] = {}
"""Functions that ruff's C901 finds too complex, by "FILE:FUNCTION", each with the reason why it is not divided."""


def test_at_most_five_functions_are_complex() -> None:
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select=C901", "--output-format=json", PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    functions = {
        f"{Path(problem['filename']).relative_to(PACKAGE)}:{problem['message'].split('`')[1]}"
        for problem in json.loads(done.stdout)
    }
    assert functions - COMPLEX.keys() == set()
    assert len(COMPLEX) <= 5


def test_no_function_has_more_than_eight_parameters() -> None:
    many = []
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                if len([name for name in names if name not in ("self", "cls")]) > 8:
                    many.append(f"{module}:{node.name}")
    assert many == []


def test_no_two_classes_have_the_same_name() -> None:
    names = [node.name for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_no_helper_is_imported_from_another_test_folder() -> None:
    """Shared helpers are in ``tests/support``."""
    imported = [
        f"{path.relative_to(TESTS)} imports {module}"
        for path in sorted(TESTS.rglob("*.py"))
        for module in re.findall(r"^ *from (tests\.\w+)", path.read_text(), re.MULTILINE)
        if module not in ("tests.support", f"tests.{path.relative_to(TESTS).parts[0]}")
    ]
    assert imported == []


def test_no_module_is_too_long_to_read() -> None:
    lengths = {module: len(path.read_text().splitlines()) for module, path in FILES.items()}
    assert {module: length for module, length in lengths.items() if length > 620} == {}


def test_the_page_about_the_structure_names_only_modules_that_exist() -> None:
    page = (PACKAGE.parent / "docs/explanation/how-it-works.md").read_text()
    modules = {module.removeprefix("taoprofiles.").replace(".", "/") for module in FILES}
    named = set(re.findall(r"`(\w+/[\w/]+)\.py`", page)) - {"export/__init__"}
    for block in re.findall(r"```text\n(.*?)```", page, re.DOTALL):
        named |= set(re.findall(r"\b([a-z]+/[a-z_/]*[a-z_])", block))
    assert {name for name in named - modules if not (PACKAGE.parent / f"{name}.py").is_file()} == set()


def test_the_page_about_the_structure_names_only_functions_and_constants_that_exist() -> None:
    """A name on the page is one of the package, or a word in its texts, such as a variable of the environment."""
    page = (PACKAGE.parent / "docs/explanation/how-it-works.md").read_text()
    words = [word for word in re.findall(r"`([\w.]+)`", page) if not word.endswith((".py", ".js", ".css", ".md"))]
    named = {part for word in words for part in word.split(".") if part != part.lower() or "_" in part}
    nodes = [node for tree in TREES.values() for node in ast.walk(tree)]
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    known = {
        *(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)),
        *(node.id for node in nodes if isinstance(node, ast.Name)),
        *(node.attr for node in nodes if isinstance(node, ast.Attribute)),
    }
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            known |= set(re.findall(r"\w+", node.value))
    assert named - known - {"check_call"} == set()  # that one is the launcher's
