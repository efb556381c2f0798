"""The documentation is run: every ``console`` block of a page, in order, in one scratch home, gives what it shows.

``<!-- before: COMMAND -->`` runs unseen; ``<!-- typed: ANSWER | ANSWER -->`` gives the first command of the next block
a terminal, and types these answers to its questions. ``$EXAMPLES`` is the folder of the notebooks in docs/examples.

``python -m tests.project.test_docs [PAGE…]`` writes what the program says now into the pages; the tests only compare.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from taoprofiles import VERSION
from taoprofiles.cli.dispatch import COMMANDS
from taoprofiles.importer import functions, ipython, state
from tests.support.home import Home, find_command

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```console\n(.*?)^```$|^<!-- (before|typed): (.*?) -->$", re.M | re.S)
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)|(?:src|srcset)=\"([^\"]+)\"")
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
PROBLEMS = re.compile(r"^taoprof: \d (?:problems?|profiles have problems \(.*\)): taoprof check .*\n", re.M)
TYPED = Path(__file__).with_name("typed.py")
MARK = "=taoprof-docs="

STEADY = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "2026-11-24 10:12:07"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(?!:)"), "2026-11-24 10:12"),
    (re.compile(r"\b1[789]\d{8}\.\d+"), "1795515127.205"),
    (re.compile(r"\bpid \d+"), "pid 4121"),
    (re.compile(r"\b\d s(?=  |, hold)"), "0 s"),
    (re.compile(rf"\b{os.getuid()}:{os.getgid()}\b"), "1000:1000"),
    (re.compile(r"(\bhold|--release) (?!p\d{4}\b)[2-9a-z]{5}\b"), r"\1 7k2mq"),  # p4121 is a process
    (re.compile(r"(?m)^(  )[2-9a-z]{5}(  \S+ +manual )"), r"\g<1>7k2mq\2"),
    (re.compile(r"(?m)^[2-9a-z]{5}($|: exit status)"), r"7k2mq\1"),
    (re.compile(r"\b\d s(?=, hold|  -  )"), "0 s"),  # the age of a hold
    (re.compile(r"\S+/bin/python\S*(?= -m pip uninstall)"), "/home/ana/tao/bin/python"),
    (re.compile(rf"@{re.escape(os.uname().nodename)}\b"), "@lab1"),
)
"""What differs from run to run, and what the pages show for it."""


def run_page(text: str, home: Path) -> list[str]:
    """Run a page's commands in one bash; return the text of each console block anew."""
    blocks: list[list[str]] = []
    script = []
    answers: list[str] = []
    for block in BLOCK.finditer(text):
        if block[2] == "typed":
            answers = block[3].split(" | ")
            blocks.append([])
            continue
        lines = [block[3]] if block[2] else [line[2:] for line in block[1].splitlines() if line.startswith("$ ")]
        blocks.append(lines)
        for line in lines:
            typed = not block[2] and answers
            words = shlex.join([sys.executable, str(TYPED), line, *answers]) if typed else line
            script.append(f"echo '{MARK}'\n{words}")
            answers = [] if typed else answers
    environ = {
        "HOME": str(home),
        "USER": "ana",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "DOCKER_HOST": "unix:///nowhere/docker.sock",
        "EXAMPLES": str(ROOT / "docs/examples"),
        "PATH": f"{Path(find_command('taoprof')).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash"], input="\n".join(["cd", "exec 2>&1", *script]), env=environ, cwd=home,
        stdout=subprocess.PIPE, text=True, timeout=100, check=False,
    )  # fmt: skip
    outputs = iter(done.stdout.split(f"{MARK}\n")[1:])
    fresh = []
    for commands in blocks:
        shown = "".join(f"$ {line}\n{steady(next(outputs), home)}" for line in commands)
        fresh.append(f"```console\n{shown}```")
    return fresh


def steady(answer: str, home: Path) -> str:
    answer = answer.replace(str(home), "/home/ana")
    for pattern, fixed in STEADY:
        answer = pattern.sub(fixed, answer)
    return answer


def updated(path: Path, home: Path) -> str:
    text = path.read_text()
    fresh = iter(run_page(text, home))
    return BLOCK.sub(lambda block: (next(fresh), block[0])[1 if block[2] else 0], text)


def as_parameter(page: Path) -> Any:
    """Return a page as a test's parameter: how-to guides and translations only in CI, a third of the fast suite."""
    name = str(page.relative_to(ROOT))
    is_slow = "zh-CN" in name or name.startswith("docs/how-to/")
    return pytest.param(page, id=name, marks=[pytest.mark.slow] if is_slow else [])


@pytest.mark.parametrize("page", [as_parameter(page) for page in PAGES])
def test_page_shows_what_the_program_says(page: Path, tmp_path: Path) -> None:
    fresh, shown = updated(page, tmp_path), page.read_text()
    if os.getuid() not in (0, 1000):  # NVIDIA's images know no other user, which is two problems more of most profiles
        fresh, shown = (PROBLEMS.sub("", text) for text in (fresh, shown))
    assert fresh == shown, "python -m tests.project.test_docs writes the pages anew"


def test_every_command_is_in_the_reference() -> None:
    page = (ROOT / "docs/reference/commands.md").read_text()
    assert [command for command in COMMANDS if f"$ taoprof {command} --help\n" not in page] == []


def test_help_fits_a_terminal_of_80_columns() -> None:
    blocks = re.findall(
        r"^```console\n\$ taoprof[^\n]*\n(.*?)^```$", (ROOT / "docs/reference/commands.md").read_text(), re.M | re.S
    )
    assert len(blocks) > len(COMMANDS)
    assert [line for block in blocks for line in block.splitlines() if len(line) > 80] == []


def test_python_examples_run(home: Home) -> None:
    """In a home with the projects that the pages speak of."""
    codes = [code for page in PAGES for code in PYTHON.findall(page.read_text())]
    examples = [code for code in codes if "import taoprofiles" in code]
    assert examples
    for name, network in (("detectnet_v2", "detectnet_v2"), ("segformer", "segformer"), ("lab", "detectnet_v2")):
        folder = home.root / "tao" / name / "specs"
        folder.mkdir(parents=True)
        home.run("new", name, "--network", network, cwd=folder.parent, check=True)
    for code in examples:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=home.environ, cwd=home.root, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


def test_links_lead_somewhere() -> None:
    targets = [(page, link or image) for page in PAGES for link, image in LINK.findall(page.read_text())]
    assert [t for t in targets if not t[1].startswith("https://") and not (t[0].parent / t[1]).exists()] == []
    assert [page for page in PAGES if re.search(r"^(<<<<<<<|>>>>>>>) ", page.read_text(), re.M)] == []


def test_no_command_in_a_table_has_an_escaped_pipe() -> None:
    """GitHub shows ``|``, the site ``\\|``, which nobody could paste: <code>… &#124; …</code> is the same on both."""
    assert [page.name for page in PAGES if re.search(r"`[^`\n]*\\\|[^`\n]*`", page.read_text())] == []


def test_the_readme_is_short_and_leads_to_the_chinese_one() -> None:
    for name, other in (("README.md", "README.zh-CN.md"), ("README.zh-CN.md", "README.md")):
        text = (ROOT / name).read_text()
        assert len(text.splitlines()) < 120
        assert f"]({other})" in text


def test_the_changelog_has_this_version() -> None:
    assert f"\n## {VERSION}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_limits_of_import_are_those_in_the_reference() -> None:
    page = (ROOT / "docs/reference/notebook.md").read_text()
    limits = (
        f"{ipython.NOTEBOOK_LIMIT >> 20} MB, {ipython.CELLS_LIMIT:,} cells, {ipython.CODE_LIMIT >> 10} KB of code",
        f"{ipython.CELL_LIMIT >> 10} K characters, brackets {ipython._NESTING} deep",
        f"{state.STEPS_LIMIT:,} steps, and {state.SIZE_LIMIT >> 20} million characters",
        f"{state.TEXT_LIMIT:,} characters, {state.SEGMENTS_LIMIT:,} segments",
        f"nesting of lists and dictionaries | {state.DEPTH_LIMIT} levels",
    )
    followed = [name for name in (*functions._FUNCTIONS, *functions._PATH_FUNCTIONS) if "." in name]
    others = ("pathlib.", "os.environ.")  # by their methods
    missing = [name for name in followed if f"`{name}`" not in page and not name.startswith(others)]
    assert [text for text in limits if text not in page] + missing == []


def test_the_readme_gives_the_commands_that_ci_runs() -> None:
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci/run").read_text()
    tests = next(line for line in readme.splitlines() if line.endswith("python -m pytest"))
    assert tests in ci


if __name__ == "__main__":
    for page in [Path(name).resolve() for name in sys.argv[1:]] or PAGES:
        with tempfile.TemporaryDirectory() as folder:
            fresh = updated(page, Path(folder))
        if fresh != page.read_text():
            page.write_text(fresh)
            sys.stdout.write(f"{page.relative_to(ROOT)} written\n")


REWRITTEN = [
    "goes on in", "all the same", "anew", "lets go of", r"mends?\b", "stands? behind", "is called as", "takes? away",
    "taken away", "otherwise than", "has one watch", "is nothing that", "needs a word", "cannot be meant", "no verb",
    "goes wrong although", "although it goes on", "move the ground", "fought with", "whoever is killed",
    "要人来定", "推出来", "只问必须", "不想被问", "指哪一边", "由什么推出", "显卡", "占住", "换错了也能", "接着看什么",
]  # fmt: skip
"""Phrases that readers took for a translation."""


def test_no_page_and_no_message_has_a_phrase_that_was_rewritten() -> None:
    messages = (
        (path, node.value)
        for path in (ROOT / "taoprofiles").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.col_offset and " " in node.value
    )
    pages = ((path, path.read_text()) for path in PAGES)
    wrong = rf"(?<![A-Za-z])({'|'.join(REWRITTEN)})"
    phrases = [(str(path), match[0]) for path, text in (*messages, *pages) for match in re.finditer(wrong, text)]
    assert phrases == []
