"""The pictures of ``status --watch`` in the documentation, drawn by the program itself from made-up runs.

``python -m tests.support.watch_screenshot`` writes them anew.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from unittest import mock

from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, SVG_EXPORT_THEME, TerminalTheme

from taoprofiles.cli import watch
from taoprofiles.cli.status import StatusReport
from taoprofiles.holds.hold import Hold
from taoprofiles.holds.liveness import ActiveHolds
from taoprofiles.holds.queue import Request, WaitingCommand
from taoprofiles.runs.progress import Metric, Progress
from taoprofiles.storage.paths import Context
from taoprofiles.switching.status import Status
from taoprofiles.system.gpus import Gpu

FOLDER = Path(__file__).parents[2] / "docs/images"
THEMES = {"dark": SVG_EXPORT_THEME, "light": DEFAULT_TERMINAL_THEME}
NOW = 1_795_515_127.0
HOME = Context({"HOME": "/home/ana"})
TOP = [
    ("mapping file", "~/.tao_mounts.json"),
    ("state", "'detectnet_v2' is active"),
    ("since", "2026-11-24 10:12:07, ana@lab1 pid 4121, history entry 12"),
    ("guard", "running (pid 812); the file is read-only while it is in use"),
]


def training(hold_id: str, name: str, hours: float, gpus: list[str], command: str) -> Hold:
    return Hold(id=hold_id, profile=name, since=NOW - hours * 3600, gpus=gpus, command=command.split())


def metric(name: str, first: float, last: float, count: int) -> Metric:
    return Metric(name, [last + (first - last) * math.exp(-number / 4) for number in range(count)])


def made_up_report() -> StatusReport:
    active = ActiveHolds()
    active.holds = [
        training("7k2mq", "segformer", 0.7, ["0"], "tao model segformer train -e /specs/train.yaml"),
        training("f3q9d", "dino", 31, ["1", "2"], "tao model dino train -e /specs/dino.yaml"),
        training("x8c2n", "detectnet_v2", 0.1, ["3"], "tao model detectnet_v2 prune -m model.tlt"),
        Hold(id="m4tpe", kind="manual", profile="detectnet_v2", since=NOW - 7200, shared=True, reason="until Friday"),
    ]
    segformer = [metric("train_loss", 1.9, 0.41, 12), metric("val_miou", 0.2, 0.62, 12)]
    dino = [metric("train_loss", 29, 9.4, 40), metric("val_mAP50", 0.1, 0.53, 40)]
    progress = {
        "7k2mq": Progress("", "running", NOW, "", 12, 80, 12 / 80, 190.0, NOW + 12_920, segformer),
        "f3q9d": Progress("", "running", NOW, "", 96, 120, 96 / 120, 1148.0, NOW + 27_552, dino),
    }
    evaluate = Request("dino", ["tao", "model", "dino", "evaluate"], gpus=["1"])
    train = Request("unet", ["tao", "model", "unet", "train"], gpus=2)
    queue = [
        WaitingCommand("wait3", 5120, NOW - 900, ["f3q9d"], evaluate),
        WaitingCommand("wait4", 5177, NOW - 300, ["7k2mq", "f3q9d", "x8c2n"], train),
    ]
    lines = {"x8c2n": "Exploring graph for retainable indices"}
    return StatusReport(Status(None, None), None, None, active, queue, progress, lines)


def draw(theme: TerminalTheme) -> str:
    """Return the screen as SVG."""
    console = Console(record=True, width=130, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    gpus = [
        Gpu("0", "GPU-89", 14_210, 16_384, 97, "Tesla T4"),
        Gpu("1", "GPU-2a", 12_903, 16_384, 91, "Tesla T4"),
        Gpu("2", "GPU-77", 12_911, 16_384, 93, "Tesla T4"),
        Gpu("3", "GPU-c1", 1_204, 16_384, 8, "Tesla T4"),
        Gpu("4", "GPU-d0", 9_870, 16_384, 64, "Tesla T4", (3117,)),
    ]
    screen = watch._Screen(HOME, console)
    with (
        mock.patch("time.time", return_value=NOW),
        mock.patch.object(screen._watcher, "look", made_up_report),
        mock.patch("taoprofiles.cli.watch.status_rows", return_value=TOP),
        mock.patch("taoprofiles.cli.watch.status_warnings", return_value=[]),
        mock.patch("taoprofiles.system.processes.name_and_user", return_value=("python", "ben")),
        mock.patch("sys.stdout", io.TextIOWrapper(io.BytesIO(), "utf-8")),  # the bars depend on its encoding
    ):
        console.print(screen._render(screen._get_content(gpus)))
    return console.export_svg(title="taoprof status --watch", theme=theme)


def main() -> None:
    for name, theme in THEMES.items():
        (FOLDER / f"watch-{name}.svg").write_text(draw(theme))


if __name__ == "__main__":
    main()
