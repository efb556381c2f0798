"""``status --watch``: the status as a screen that is redrawn in place, or printed again after each change.

Every second only the times of a few files are compared, and the progress of runs is read where it has changed. The
whole look at processes and containers is taken when one of those files has changed, and every LOOK_INTERVAL.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from taoprofiles.cli.output import Result, emit
from taoprofiles.cli.status import (
    ProgressCells,
    StatusReport,
    get_report,
    gpu_rows,
    hold_rows,
    progress_cells,
    progress_text,
    queue_rows,
    status_rows,
    status_warnings,
)
from taoprofiles.errors import TaoprofError
from taoprofiles.masking import printable
from taoprofiles.runs.progress import ProgressReader
from taoprofiles.runs.resources import gpu_uses
from taoprofiles.storage import files
from taoprofiles.storage.paths import Context
from taoprofiles.system.commands import exit_on_signals
from taoprofiles.system.gpus import Gpu, list_gpus

INTERVAL = 1.0
"""Seconds between two comparisons."""

LOOK_INTERVAL = 5.0
"""Seconds between two looks at processes and containers if no file has changed."""

GPU_INTERVAL, GPU_SHARE = 5.0, 50
"""Seconds between two questions to the driver, at least so many times what one takes."""

WARNINGS = 5
BAR_WIDTH = 16
RUNS, METRICS, WHAT = "RUNS", "METRICS", "WHAT"
WIDE = 160
"""Columns from which on the command of a run is shown too."""


def watch(context: Context, to_result: Callable[[StatusReport], Result]) -> None:
    """Show the status until the user ends it. ``to_result`` is for an output that is no terminal. Raises TaoprofError.

    It ends as ``watch`` and ``top`` do, without an error: by Ctrl-C, or by the key q.
    """
    console = Console(file=sys.stdout, force_terminal=sys.stdout.isatty())  # whatever FORCE_COLOR says
    with suppress(KeyboardInterrupt):
        if console.is_terminal and not console.is_dumb_terminal:
            _Screen(context, console).run()
        else:
            _print_changes(context, to_result)


def _print_changes(context: Context, to_result: Callable[[StatusReport], Result]) -> None:
    """Print the status, and again whenever more than the age of something has changed."""
    watcher, before = _Watcher(context), ""
    while True:
        report = watcher.look()
        result = to_result(report)
        steps = [(key, progress._replace(updated=None, end=None)) for key, progress in report.progress.items()]
        holds = [hold.as_dict() for hold in report.active.holds]
        key = repr((status_rows(context, report), holds, steps, report.queue, result.messages))
        if key != before:
            emit("status", result._replace(lines=["", *result.lines] if before else result.lines), as_json=False)
            sys.stdout.flush()
            before = key
        time.sleep(INTERVAL)


class _Watcher:
    """Keeps a report up to date with little work."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._reader = ProgressReader()
        self._report: StatusReport | None = None
        self._state: object = None
        self._next = 0.0

    def look(self) -> StatusReport:
        """Return the present report."""
        state, now = self._get_state(), time.monotonic()
        if self._report is None or state != self._state or now >= self._next:
            self._report = get_report(self._context, self._reader)
            self._state, self._next = state, now + LOOK_INTERVAL
        elif self._report.active.holds:
            self._report = self._report._replace(progress=self._reader.read(self._report.active.holds))
        return self._report

    def _get_state(self) -> list[tuple[int, int, int] | None]:
        context = self._context
        paths = (context.mapping_file, context.holds, context.queue, context.guard, context.profiles)
        stats = map(files.stat_or_none, paths)
        return [None if status is None else (status.st_ino, status.st_size, status.st_mtime_ns) for status in stats]


def _poll_gpus(environ: dict[str, str]) -> list[Gpu]:
    """Return a list that a thread keeps up to date: the driver may need a second or more for an answer."""
    gpus: list[Gpu] = []

    def poll() -> None:
        while True:
            began = time.monotonic()
            gpus[:] = list_gpus(environ)
            time.sleep(max(GPU_INTERVAL, GPU_SHARE * (time.monotonic() - began)))

    if shutil.which("nvidia-smi", path=environ.get("PATH")):
        threading.Thread(target=poll, daemon=True).start()
    return gpus


class _Bar(NamedTuple):
    """A bar in a cell of a table; ``share`` is 0 to 1, None if it is not known."""

    share: float | None


_Table = tuple[str, list[tuple[Any, ...]]]
"""A title, and rows of texts and bars, the heading first."""


class _Screen:
    """The screen on a terminal."""

    def __init__(self, context: Context, console: Console) -> None:
        self._context = context
        self._console = console
        self._watcher = _Watcher(context)

    def run(self) -> None:
        """Redraw the screen until q is typed. Raises KeyboardInterrupt for Ctrl-C."""
        gpus = _poll_gpus(self._context.environ)
        with exit_on_signals():
            while self._show(gpus) != "q":  # the terminal is as it was before, until the shell continues this process
                os.kill(os.getpid(), signal.SIGSTOP)

    def _show(self, gpus: Sequence[Gpu]) -> str:
        """Redraw the screen until an event of ``_wait``, and return it."""
        drawn, next_look, event = None, 0.0, ""
        # Without redirection: the encoding of stdout decides what a sparkline consists of.
        live = Live(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        with _signals() as wakeups, _keys() as keyboard, live:
            while not event:
                if (now := time.monotonic()) >= next_look:  # not for each key and each step of a resize
                    content, next_look = self._get_content([*gpus]), now + INTERVAL
                if (content, self._console.size) != drawn:
                    drawn = (content, self._console.size)
                    live.update(self._render(content), refresh=True)
                event = _wait(wakeups, keyboard, max(0.0, next_look - time.monotonic()))
        return event

    def _get_content(self, gpus: Sequence[Gpu]) -> tuple[list[tuple[str, str]], list[str], list[_Table]]:
        """Return what the screen shows, as data that is equal if nothing has changed."""
        try:
            report = self._watcher.look()
        except TaoprofError as error:  # such as a damaged file, which may be repaired
            return [("error", error.message)], [], []
        holds = [hold for hold in report.active.holds if not report.shows_progress(hold)]
        tables = [
            (RUNS, _run_rows(report)),
            ("WAITING, IN THIS ORDER", queue_rows(self._context, report.queue)),
            ("GPUS", _gpu_rows(report, gpus)),
            ("HOLDS", hold_rows(holds)),
        ]
        shown: list[_Table] = [(title, list(rows)) for title, rows in tables if len(rows) > 1]
        return status_rows(self._context, report), status_warnings(self._context, report), shown

    def _render(self, content: tuple[list[tuple[str, str]], list[str], list[_Table]]) -> RenderableType:
        rows, warnings, tables = content
        overflow: Any = "ellipsis" if self._console.encoding.startswith("utf") else "crop"
        top = Table.grid(padding=(0, 2))
        for label, text in rows:
            top.add_row(Text(label, "bold"), Text(printable(text), overflow=overflow))
        parts: list[RenderableType] = [top]
        parts += [Text(printable(text), "yellow", overflow=overflow, no_wrap=True) for text in warnings[:WARNINGS]]
        for title, rows_of_table in tables:
            is_cut = title == RUNS and self._console.width < WIDE  # the metrics need the room
            heading, *body = [cells[:-1] for cells in rows_of_table] if is_cut else rows_of_table
            table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
            for name in heading:  # a column that may wrap is the first to be made narrower; no cell wraps
                table.add_column(name, no_wrap=name not in (METRICS, WHAT))
            for cells in body:
                table.add_row(*(_render_cell(cell, overflow) for cell in cells))
            parts += [Text(""), Text(title, "bold"), Padding(table, (0, 0, 0, 2))]
        parts += [Text(""), Text("q or Ctrl-C: end", "dim")]
        return Group(*parts)


def _render_cell(cell: object, overflow: Any) -> RenderableType:
    if isinstance(cell, _Bar):
        if cell.share is None:
            return ""
        return ProgressBar(1.0, cell.share, width=BAR_WIDTH, complete_style="green", finished_style="green")
    return Text(printable(str(cell)), no_wrap=True, overflow=overflow)


def _run_rows(report: StatusReport) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = [("HOLD", "PROFILE", "", "EPOCH", "PER EPOCH", "LEFT", METRICS, WHAT)]
    for hold in filter(report.shows_progress, report.active.holds):
        progress = report.progress.get(hold.id)
        cells = ProgressCells() if progress is None else progress_cells(progress)
        text = ", ".join(filter(None, (cells.state, cells.metrics, cells.message)))
        if not any(cells):
            text = progress_text(hold, None, report.last_lines.get(hold.id, ""))
        bar = _Bar(None if progress is None else progress.share)
        figures = (cells.epoch, cells.seconds_per_epoch, cells.left, text)
        rows.append((hold.id, hold.profile or "-", bar, *figures, hold.title()))
    return rows


def _gpu_rows(report: StatusReport, gpus: Sequence[Gpu]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = [("GPU", "NAME", "MEMORY", "", "USE", "USED BY")]
    for gpu, (number, name, *cells) in zip(gpus, gpu_rows(gpu_uses(gpus, report.active.holds))[1:], strict=True):
        share = None if gpu.memory_used is None or not gpu.memory_total else gpu.memory_used / gpu.memory_total
        rows.append((number, name, _Bar(share), *cells))
    return rows


# The terminal


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """Yield a socket with a byte for each signal: SIGWINCH and SIGTSTP."""
    reader, writer = socket.socketpair()
    for side in (reader, writer):
        side.setblocking(False)
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGWINCH, signal.SIGTSTP)}
    wakeup_before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        reader.close()
        writer.close()


@contextmanager
def _keys() -> Iterator[int | None]:
    """Read keys at once and without echo; yield the descriptor to read, None if stdin is no terminal."""
    if not os.isatty(0):
        yield None
        return
    before = termios.tcgetattr(0)
    try:
        tty.setcbreak(0)
        yield 0
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _wait(wakeups: socket.socket, keyboard: int | None, seconds: float) -> str:
    """Wait for that long, a key or a signal; return "q" for the key, "stop" for Ctrl-Z, else ""."""
    sources: list[Any] = [wakeups] if keyboard is None else [wakeups, keyboard]
    ready, _, _ = select.select(sources, [], [], seconds)
    if wakeups in ready and signal.SIGTSTP in wakeups.recv(1 << 10):
        return "stop"
    if keyboard in ready:
        keys = os.read(0, 1 << 10)
        return "q" if b"q" in keys.lower() or not keys else ""  # nothing: the terminal has gone
    return ""
