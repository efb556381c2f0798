"""The picture of the README, light and dark: what a terminal and a notebook show, drawn from real output.

``python -m tests.project.test_picture`` writes it anew; the tests compare.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path
from typing import NamedTuple

import pytest
from pygments.lexers import PythonLexer
from pygments.token import Comment, Keyword, Literal, Operator

from tests.project.test_docs import steady
from tests.support.home import Home, find_command, write_program
from tests.support.kernels import Kernel

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]

FOLDER = Path(__file__).parents[2] / "docs/images"
COLUMNS = 104
COLUMN, LINE, MARGIN = 8.0, 19, 16
WIDTH = round(COLUMNS * COLUMN + 4 * MARGIN)

TRAIN = "tao model detectnet_v2 train -e /workspace/tao-experiments/detectnet_v2/specs/train.txt"
COMMANDS = (
    "taoprof use detectnet_v2",
    f"{TRAIN} &",
    "taoprof use segformer",
    "taoprof run segformer --detach -- tao model segformer train -e /specs/train.yaml",
    "taoprof check segformer -- tao model segformer train -e /specs/trian.yaml | tail -3",
)
CELLS = (
    "# NVIDIA's own cell, unchanged\n"
    "%env LOCAL_PROJECT_DIR=FIXME\n"
    'os.environ["LOCAL_DATA_DIR"] = os.path.join(os.getenv("LOCAL_PROJECT_DIR"), "data")',
    "!ls $LOCAL_DATA_DIR",
)
SHORTER = (
    (re.compile(r"\bp\d{3,7}\b"), "p4121"),
    (re.compile(r"\d+ s, pending"), "2 s, pending"),
    (re.compile(r"; to switch when it ends.*"), "; …"),
)
"""What differs from run to run, beside what the pages have, and the part of a hint for which there is no room."""


Theme = dict[str, str]
"""Colours by their use."""
COLOURS = "page bar border text dim red prompt cell keyword string comment".split()
THEMES: dict[str, Theme] = {
    name: dict(zip(COLOURS, colours.split(), strict=True))
    for name, colours in {
        "light": "#ffffff #f0f2f4 #d0d7de #1f2328 #59636e #cf222e #1a7f37 #f6f8fa #8250df #0a3069 #59636e",
        "dark": "#0d1117 #21262d #3d444d #e6edf3 #9198a1 #ff7b72 #3fb950 #161b22 #d2a8ff #a5d6ff #9198a1",
    }.items()
}

BLANK, FIXED = " ", "\u00a0"
"""SVG drops a blank at the start of a line, and makes one of several."""

Span = tuple[str, str]
"""A text, and the name of its colour in Theme."""


class Output(NamedTuple):
    commands: list[tuple[str, str]]
    cells: list[tuple[str, str]]


def record(home: Home) -> Output:
    """Run the commands and the cells in a home with two projects; return each with its output."""
    tools = home.root.parent / "tools"
    # A launcher that waits: what is shown is what taoprof says of it.
    write_program(tools / "tao", f"#!{sys.executable}\nimport time\ntime.sleep(600)\n")
    home.environ |= {"PATH": f"{tools}:{Path(home.taoprof).parent}:{os.environ['PATH']}", "FORCE_COLOR": "1"}
    for name, network, file in (("kitti", "detectnet_v2", "train.txt"), ("city", "segformer", "train.yaml")):
        folder = home.root / "tao" / name
        (folder / "specs").mkdir(parents=True)
        (folder / "data").mkdir()
        (folder / "specs" / file).touch()
        home.run("new", network, "--project-dir", str(folder), check=True)
        home.run("use", network, "--mkdir", check=True)
    (home.root / "tao/kitti/data/training").mkdir()
    (home.root / "tao/kitti/data/testing").mkdir()
    (home.root / ".docker").mkdir()
    (home.root / ".docker/config.json").write_text('{"auths": {"nvcr.io": {}}}')
    mark = "=mark="
    is_seen = 'until taoprof status --json | grep -q \'"kind": "found"\'; do sleep 0.1; done'
    script = "\n".join(f"echo {mark}\n{line}\n{is_seen if line.endswith('&') else ''}" for line in COMMANDS)
    whole = f"exec 2>&1\ntrap 'taoprof stop - >/dev/null; kill %1' EXIT\nset -m\n{script}\necho {mark}"
    words = [find_command("bash"), "-c", whole]
    done = subprocess.run(
        words, cwd=home.root, env=home.environ, stdin=-3, stdout=subprocess.PIPE, text=True, timeout=100
    )
    outputs = [shorter(text, home) for text in done.stdout.split(f"{mark}\n")[1:-1]]
    home.run("kernel", "install", "detectnet_v2", "--python", sys.executable, check=True)
    with Kernel(home, notebook="lab.ipynb", name="taoprof-detectnet_v2") as kernel:
        kernel.run("import os")
        cells = [(cell, shorter(kernel.run(cell).text, home)) for cell in CELLS]
    return Output(list(zip(COMMANDS, outputs, strict=True)), cells)


def shorter(text: str, home: Home) -> str:
    text = steady(text, home.root).replace("/home/ana", "~")
    for pattern, short in SHORTER:
        text = pattern.sub(short, text)
    return text.rstrip("\n")


def terminal_lines(output: Output) -> list[list[Span]]:
    lines: list[list[Span]] = []
    for command, text in output.commands:
        lines.append([("$ ", "prompt"), (command, "text")])
        for line in text.splitlines():
            parts = re.split(r"\x1b\[31m(.*?)\x1b\[0m", line)
            lines += wrap([(part, "red" if number % 2 else "text") for number, part in enumerate(parts) if part])
    return lines


def wrap(spans: list[Span]) -> list[list[Span]]:
    """Break a line at blanks; what does not fit goes on below, indented."""
    words = [(word, colour) for text, colour in spans for word in re.findall(r"\s*\S+|\s+$", text)]
    lines: list[list[Span]] = [[]]
    width = 0
    for word, colour in words:
        if width + len(word) > COLUMNS:
            lines.append([("    ", "text")])
            word, width = word.lstrip(), 4
        lines[-1].append((word, colour))
        width += len(word)
    return lines


def code_lines(code: str) -> list[list[Span]]:
    lines: list[list[Span]] = [[]]
    kinds = ((Comment, "comment"), (Keyword, "keyword"), (Literal.String, "string"), (Operator, "keyword"))
    for line in code.splitlines():
        if line.startswith(("%", "!")):
            lines[-1].append((line, "text"))
        else:
            for token, text in PythonLexer(stripnl=False).get_tokens(line):
                colour = next((colour for kind, colour in kinds if token in kind), "text")
                lines[-1].append((text.rstrip("\n"), colour))
        lines.append([])
    return lines[:-1]


def draw(output: Output, theme: Theme) -> str:
    """Return the picture as SVG: a terminal, and a notebook below it."""
    terminal = terminal_lines(output)
    parts = []
    top = _window(parts, theme, MARGIN, "Terminal", len(terminal) * LINE + MARGIN)
    for number, line in enumerate(terminal):
        parts.append(_text(line, theme, 2 * MARGIN, top + LINE * (number + 1)))
    y = top + len(terminal) * LINE + 2 * MARGIN
    rows = sum(len(code_lines(code)) + len(text.splitlines()) for code, text in output.cells)
    height = rows * LINE + len(output.cells) * 2 * MARGIN
    y = _window(parts, theme, y, "lab.ipynb  ·  kernel 'TAO: detectnet_v2'", height)
    indent = 2 * MARGIN + round(6 * COLUMN)
    for number, (code, text) in enumerate(output.cells, 1):
        lines = code_lines(code)
        box = (
            f'<rect x="{indent - 8}" y="{y}" width="{WIDTH - indent - MARGIN}" height="{len(lines) * LINE + 10}" rx="4"'
        )
        parts.append(f'{box} fill="{theme["cell"]}" stroke="{theme["border"]}"/>')
        parts.append(_text([(f"[{number}]:", "string")], theme, 2 * MARGIN, y + LINE))
        for at, line in enumerate(lines, 1):
            parts.append(_text(line, theme, indent, y + LINE * at))
        y += len(lines) * LINE + 14
        for line in text.splitlines():
            y += LINE
            parts.append(_text([(line, "text")], theme, indent, y))
        y += MARGIN
    title = "taoprof in a terminal and in a notebook"
    size = f'width="{WIDTH}" height="{y + MARGIN}" viewBox="0 0 {WIDTH} {y + MARGIN}"'
    font = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{title}">\n<title>{title}</title>'
    return "\n".join([head, f'<g font-family="{font}" font-size="13">', *parts, "</g>", "</svg>", ""])


def _window(parts: list[str], theme: Theme, y: int, title: str, height: int) -> int:
    """Draw a window whose content is so high; return the y of its content."""
    size = f'x="{MARGIN}" width="{WIDTH - 2 * MARGIN}"'
    parts.append(
        f'<rect {size} y="{y}" height="{height + 30}" rx="8" fill="{theme["page"]}" stroke="{theme["border"]}"/>'
    )
    parts.append(f'<rect {size} y="{y}" height="26" rx="8" fill="{theme["bar"]}" stroke="{theme["border"]}"/>')
    parts.append(_text([(title, "dim")], theme, 2 * MARGIN, y + 18))
    return y + 34


def _text(spans: list[Span], theme: Theme, x: int, y: int) -> str:
    content = "".join(
        f'<tspan fill="{theme[colour]}">{escape(text).replace(BLANK, FIXED)}</tspan>' for text, colour in spans if text
    )
    length = sum(len(text) for text, _ in spans) * COLUMN
    return f'<text x="{x}" y="{y}" textLength="{length:g}">{content}</text>'


def pictures() -> dict[str, str]:
    """Return the SVGs by the names of their files."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "home"
        root.mkdir()
        output = record(Home(root))
    return {f"readme-{name}.svg": draw(output, theme) for name, theme in THEMES.items()}


def test_the_picture_is_up_to_date() -> None:
    written = {path.name: path.read_text() for path in FOLDER.glob("readme-*.svg")}
    assert pictures() == written, "python -m tests.project.test_picture draws it anew"


def test_nothing_is_cut_off() -> None:
    for name in THEMES:
        for line in (FOLDER / f"readme-{name}.svg").read_text().splitlines():
            if line.startswith("<text"):
                x, length = (float(line.partition(f'{key}="')[2].partition('"')[0]) for key in ("x", "textLength"))
                assert x + length < WIDTH - MARGIN, line


if __name__ == "__main__":
    for name, text in pictures().items():
        (FOLDER / name).write_text(text)
