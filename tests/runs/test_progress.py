"""The progress of runs by their ``status.json``: the right figures or none, whatever the file has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taoprofiles.cli import output, status
from taoprofiles.holds.hold import Hold
from taoprofiles.runs import progress
from taoprofiles.runs.progress import Progress, ProgressReader
from tests.support.commands import can_be_shown
from tests.support.engine import until
from tests.support.sandbox import Sandbox
from tests.support.stand_ins import NOW, epoch_line, line

SAMPLES = {
    path.stem: path.read_bytes().splitlines(keepends=True) for path in Path(__file__).parent.glob("status_samples/*")
}


def time_of(line: bytes) -> float:
    return progress._time_of(json.loads(line))


def write(path: Path, content: bytes, moment: float) -> Path:
    """Write the file as if its last byte had been written at that moment."""
    path.write_bytes(content)
    os.utime(path, (moment, moment))
    return path


def read_sample(path: Path, name: str, count: int) -> tuple[Progress | None, float]:
    """Read the first lines of a sample at the moment at which the last of them was written."""
    lines = SAMPLES[name][:count]
    now = time_of(lines[-1]) + 0.5
    return progress.read_file(str(write(path, b"".join(lines), now)), time_of(lines[0]) - 20), now


FAMILIES = {
    ("pyt-detector-rtdetr-7.0.1", 1): "starting",
    ("pyt-detector-rtdetr-7.0.1", 8): (
        "epoch 1/3, 6 min 42 s per epoch, 13 min left, train_loss 14.83, val_mAP50 0.3311"
    ),
    ("pyt-detector-rtdetr-7.0.1", 13): (
        "epoch 2/3, 6 min 37 s per epoch, 6 min left, train_loss 11.02 █▁, val_mAP50 0.439 ▁█"
    ),
    ("pyt-detector-rtdetr-7.0.1", 20): "finished, 6 min 38 s per epoch, train_loss 9.76 █▃▁, val_mAP50 0.4877 ▁▆█",
    ("pyt-classifier-classification_pyt-6.0.0", 5): (
        "epoch 1/2, 1 min 3 s per epoch, 1 min left, train_loss 2.332, val_acc_1 0.4417"
    ),
    ("tf1-detectnet_v2-train", 16): "epoch 0/4, loss 0.0911",
    ("tf1-detectnet_v2-train", 19): (
        "epoch 2/4, 3 min 1 s per epoch, 6 min left, loss 0.0064 █▂▁, mean average precision 29.66"
    ),
    ("tf2-efficientdet-train-6.0.0", 2): "epoch 1/2, 8 min 32 s per epoch, 8 min left, loss 2.107",
    ("deploy-dino-gen_trt_engine-7.1.0", 2): "finished",
    ("pyt-dino-export-6.26.3", 2): "finished",
    ("pyt-failed-segformer-7.0.1", 2): (
        "error, File system error: [Errno 2] No such file or directory: '/data/city/images/train'"
    ),
    ("pyt-dino-5.0.0-one-based", 3): "epoch 1/2, 5 min 32 s per epoch, 5 min left, train_loss 29",
    ("pyt-dino-5.5.0-no-epoch-lines", 3): "train_loss 18.8, val_mAP50 0.24",
    ("pyt-segformer-5.0.0-mixed", 5): "loss 0.9914 █▁",
    ("tf1-unet-uppercase-ETA", 3): "epoch 1/3, 3 min 18 s per epoch, 6 min left, loss 0.41 █▁",
    ("days-and-nan", 1): "epoch 1/100, 2 h 2 min per epoch, 8 d 10 h left, train_loss nan",
    ("pyt-resumed-two-runs-6.26.3", 12): "epoch 3/4, 10 min 3 s per epoch, 10 min left, train_loss 10.4",
}
"""By sample, and how many of its lines have been written: what is shown."""


@pytest.mark.parametrize(("sample", "text"), FAMILIES.items())
def test_each_family_is_read_as_it_counts(tmp_path: Path, sample: tuple[str, int], text: str) -> None:
    reported, now = read_sample(tmp_path / "status.json", *sample)
    with mock.patch("taoprofiles.cli.status.time.time", return_value=now):
        assert status.progress_text(Hold(since=now), reported) == text
    json.dumps(reported.as_dict(now), allow_nan=False)


ZONES = [0, 8 * 3600, -5 * 3600, 19_800, 13 * 3600, -12 * 3600]


@pytest.mark.parametrize("zone", ZONES)
def test_lines_of_an_earlier_run_are_not_taken_for_this_one(tmp_path: Path, zone: int) -> None:
    """At each moment of the second run, wherever the clock of the container is."""
    lines = SAMPLES["pyt-resumed-two-runs-6.26.3"]
    since = time_of(lines[6]) - zone - 15
    for count in range(1, len(lines) + 1):
        content, moment = b"".join(lines[:count]), time_of(lines[count - 1]) - zone + 0.2
        reported = progress.read_file(str(write(tmp_path / "status.json", content, moment)), since)
        assert (reported is not None) == (count > 6)
        earlier = progress.read_file(str(write(tmp_path / "status.json", content[:-20], since + 3)), since)
        for figures in (reported, earlier):
            if figures is not None:
                assert figures.epoch in (None, 3, 4)
                assert {value for metric in figures.metrics for value in metric.values} <= {10.4, 9.4}


def test_a_file_that_was_only_touched_says_nothing(tmp_path: Path) -> None:
    lines = SAMPLES["pyt-detector-rtdetr-7.0.1"][:8]
    since = time_of(lines[-1]) + 100
    path = write(tmp_path / "status.json", b"".join(lines), since + 1234.5)
    assert progress.read_file(str(path), since) is None
    path.unlink()
    os.mkfifo(path)
    assert progress.read_file(str(path), 0) is None
    assert progress.read_file(str(tmp_path / "absent\0"), 0) is None


def is_consistent(reported: Progress | None) -> bool:
    if reported is None or reported.epoch is None:
        return True
    losses = [metric.values for metric in reported.metrics if metric.name == "train_loss"]
    return (
        reported.epochs == 50
        and reported.seconds_per_epoch in (None, reported.epoch * 60)
        and all(values == sorted(values) and values[-1] * 4 == int(values[-1] * 4) for values in losses)
    )


COUNTED = {
    "PyTorch since 6.0: the index": ({"epoch": 0, "max_epoch": 79, "time_per_step": "0:00:01"}, (1, 80, 1 / 80)),
    "PointPillars": ({"epoch": 0, "max_epoch": 80, "message": "Train metrics generated."}, (1, 80, 1 / 80)),
    "trainers of Hugging Face": ({"epoch": 1.5, "max_epoch": 3, "step": 50, "max_step": 100}, (1, 3, 0.5)),
    "classification of TensorFlow 2": ({"epoch": 4}, (4, None, None)),
    "bevfusion: an iteration": ({"epoch": 1200, "mode": "train"}, (None, None, None)),
    "more than all": ({"epoch": 81, "max_epoch": 80}, (None, None, None)),
    "no number": ({"epoch": "4", "max_epoch": 80}, (None, None, None)),
    "true": ({"epoch": True, "max_epoch": 80}, (None, None, None)),
}


@pytest.mark.parametrize("case", COUNTED)
def test_how_epochs_are_counted(tmp_path: Path, case: str) -> None:
    fields, expected = COUNTED[case]
    reported = progress.read_file(str(write(tmp_path / "status.json", line(1, **fields), NOW + 1)), NOW)
    assert (reported.epoch, reported.epochs, reported.share) == expected


LEFT = {
    "by the task": ({"eta": "1 day, 2:03:04.5", "time_per_epoch": "0:10:00"}, 93_784.5),
    "PointPillars' own is one epoch too long": (
        {"eta": "0:30:00", "time_per_epoch": "0:10:00", "message": "Train metrics generated."}, 1200,
    ),
    "not known yet": ({"eta": "0:00:00", "time_per_epoch": "0:00:00"}, None),
    "not told": ({"time_per_epoch": "0:10:00"}, 1800),
    "negative": ({"eta": "-1 day, 23:59:59"}, None),
    "no duration": ({"eta": 12}, None),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT)
def test_the_time_that_is_left(tmp_path: Path, case: str) -> None:
    fields, expected = LEFT[case]
    content = line(1, **{"epoch": 1, "max_epoch": 4, **fields})
    reported = progress.read_file(str(write(tmp_path / "status.json", content, NOW + 1)), NOW)
    assert reported.seconds_left(NOW + 1) == expected
    later = reported.seconds_left(NOW + 100)
    assert (later is None) == (expected is None), "it becomes less while nothing is written"
    assert reported.seconds_left(NOW + 10**6) is None, "and is not known when it is over"


HOSTILE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), st.text(max_size=50),
    st.just("9" * 100_000), st.just("\x1b[2J\u202e"), st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.floats(), max_size=4),
)  # fmt: skip
FIELDS = ("epoch", "max_epoch", "time_per_epoch", "eta", "ETA", "step", "max_step", "time_per_step", "kpi", "graphical")
FIELDS += ("loss", "message", "mode", "date", "time", "status")


@example([{"kpi": {"\u00a0": 0.0}}], b"", 0)
@given(
    st.lists(st.dictionaries(st.sampled_from(FIELDS), HOSTILE, max_size=6), max_size=6),
    st.binary(max_size=60),
    st.integers(0, 400),
)
def test_hostile_lines_give_figures_that_can_be_shown_or_none(
    tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, Any]], garbage: bytes, cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile.json"
    written = [line(0, status="STARTED"), *(line(number, **fields) for number, fields in enumerate(lines))]
    written += [json.dumps({**json.loads(line(3)), **fields}).encode() + b"\n" for fields in lines]
    content = b"".join(written)
    for text in (content, content[: len(content) - cut], content + garbage, garbage + b"\n" + content):
        reported = progress.read_file(str(write(path, text, NOW + 5)), NOW - 1)
        if reported is not None:
            json.dumps(reported.as_dict(NOW), allow_nan=False)
            shown = output.table([("id", status.progress_text(Hold(since=NOW), reported))])
            assert all(can_be_shown(row) and len(row) < 600 for row in shown)
            assert reported.epoch is None or 0 <= reported.epoch <= 1e9
            assert reported.share is None or 0 <= reported.share <= 1


@given(st.lists(st.one_of(st.integers(1, 50), st.binary(max_size=40), st.just(0)), max_size=30), st.integers(0, 300))
def test_damaged_files_give_the_figures_of_a_whole_line(
    tmp_path_factory: pytest.TempPathFactory, parts: list[int | bytes], cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    epochs = sorted(part for part in parts if isinstance(part, int))
    lines = [part + b"\n" if isinstance(part, bytes) else epoch_line(epochs[0], epochs.pop(0)) for part in parts]
    content = b"".join(lines)
    reported = progress.read_file(str(write(path, content[: len(content) - cut], NOW + 60)), NOW - 1)
    assert is_consistent(reported)
    if reported is not None and reported.epoch is not None:
        assert reported.epoch in parts


WRITER = """
import itertools, os, sys, time
sys.path.insert(0, sys.argv[2])
from tests.support import stand_ins as lines
lines.NOW = 0
path = sys.argv[1]
def put(flags, data):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o600)
    os.write(fd, data)
    os.close(fd)
for number in itertools.count():
    put(os.O_TRUNC if number % 3 else os.O_APPEND, lines.line(int(time.time()), status="STARTED"))
    for epoch in range(1, 51):
        data = lines.epoch_line(int(time.time()), epoch, message="x" * (number % 7 * 300))
        half = len(data) * (epoch % 5) // 4
        put(os.O_APPEND, data[:half])
        put(os.O_APPEND, data[half:])
        if epoch % 10 == 9:
            put(os.O_APPEND, b"{half a line\\n\\xff\\x00")
            put(os.O_APPEND, b"\\n")
"""


def test_a_file_that_is_a_json_array_says_nothing(tmp_path: Path) -> None:
    """Or an object with records: as NVIDIA's own readers accept them, and no known image writes them."""
    records = [json.loads(epoch_line(number, number)) for number in range(1, 4)]
    for whole in (records, {"records": records}):
        for indent in (None, 1, 4):
            path = write(tmp_path / "status.json", json.dumps(whole, indent=indent).encode(), NOW + 3)
            assert progress.read_file(str(path), NOW) is None


def test_a_writer_that_truncates_and_writes_in_halves_is_read_right_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    since, root = time.time() - 5, str(Path(__file__).parents[2])
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path), root])
    try:
        until(path.exists, "the writer has begun")
        reads: list[Progress | None] = []

        def has_read_enough() -> bool:
            reads.extend(progress.read_file(str(path), since) for _ in range(500))
            return len({reported.epoch for reported in reads if reported is not None}) > 20

        until(has_read_enough, "figures are seen meanwhile")
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.wait()
    assert [reported for reported in reads if not is_consistent(reported)] == []


def test_a_file_of_a_gigabyte_is_read_at_its_end_alone(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    size = 0

    def counted(fd: int, count: int, offset: int, pread: Any = os.pread) -> bytes:
        nonlocal size
        size += count
        content: bytes = pread(fd, count, offset)
        return content

    logged = b"".join(line(8, message="a log line") for _ in range(20_000))
    for end in (epoch_line(7, 7), epoch_line(7, 7) + logged, b"x" * (8 << 20)):
        with path.open("wb") as file:
            file.truncate(1 << 30)
            file.seek(1 << 30)
            file.write(b"\n" + end)
        os.utime(path, (NOW + 9, NOW + 9))
        size = 0
        with mock.patch("os.pread", counted):
            reported = progress.read_file(str(path), NOW - 1)
        assert size <= 2 * sum(progress.WINDOWS)
        assert (reported and reported.epoch) == (7 if end.startswith(b"{") else None)


def test_a_file_that_does_not_change_is_read_once(tmp_path: Path) -> None:
    path = write(tmp_path / "status.json", epoch_line(1, 3), NOW + 1)
    hold = Hold(id="x", since=NOW - 1.0, results=[str(tmp_path)])
    reader = ProgressReader()
    with mock.patch("taoprofiles.runs.progress.read_file", wraps=progress.read_file) as read:
        assert [reader.read([hold])["x"].epoch for _ in range(3)] == [3, 3, 3]
        assert read.call_count == 1
        write(path, epoch_line(1, 3) + epoch_line(2, 4), NOW + 2)
        until(lambda: reader.read([hold])["x"].epoch == 4, "it is read again")


def test_the_folder_of_the_runs_own_task_is_read(tmp_path: Path) -> None:
    for number, folder in enumerate(("train", "evaluate", "trt_evaluate", "other")):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "status.json", epoch_line(9, number + 1), NOW + 9 + number)

    def epoch_of(*command: str) -> int | None:
        hold = Hold(id="x", since=NOW - 1.0, results=[str(tmp_path)], command=list(command))
        return ProgressReader().read([hold])["x"].epoch

    assert epoch_of("tao", "model", "dino", "train", "-e", "spec.yaml") == 1
    assert epoch_of("tao", "deploy", "dino", "evaluate") == 3
    assert epoch_of("bash", "train.sh") == 3, "the one that was written last"
    holds = [Hold(id=name, since=NOW - 1.0, results=[str(tmp_path)]) for name in ("x", "y")]
    assert ProgressReader().read(holds) == {}, "the lines of two runs in one file cannot be told apart"


def test_a_sparkline_shows_any_values() -> None:
    assert status.sparkline([1, 2, 3, 8]) == "▁▂▃█"
    assert status.sparkline([5, 5]) == "▁▁"
    assert status.sparkline([-1.7e308, float("nan"), 1.7e308, float("inf")]) == "▁?█?"
    assert status.sparkline([1]) == status.sparkline([float("nan")] * 2) == ""


def test_status_shows_how_far_a_training_is_that_was_started_without_taoprof(sandbox: Sandbox) -> None:
    tao = sandbox.new_tao()
    words = ("model", "unet", "train", "-r", "/workspace/tao-experiments/x")
    process = sandbox.start(sandbox.tao, *words, environ=tao.environ, stdout=-3, stderr=-3)
    tao.pid()
    folder = sandbox.root / "projects/a/x/train"
    folder.mkdir(parents=True)
    (folder / "status.json").write_bytes(epoch_line(int(time.time()) + 1 - NOW, 9))
    assert f"  p{process.pid}  a  epoch 9/50, " in sandbox.run("status", check=True).stdout
    assert sandbox.run("run", "a", "--", "true", *words[2:]).returncode == 0, "it reserves nothing"
    tao.end()
    process.wait(20)


def test_status_shows_how_far_each_run_is(sandbox: Sandbox) -> None:
    words = ("tao", "model", "unet", "train", "results_dir=/workspace/tao-experiments/x")
    tao, run = sandbox.in_run("a", command=words)
    assert "running for 0 s" in sandbox.run("status", check=True).stdout
    folder = sandbox.root / "projects/a/x/train"
    folder.mkdir(parents=True)
    second = int(time.time()) + 1 - NOW
    values = {"time_per_step": "0:00:01", "eta": "3:35:20", "time_per_epoch": "0:03:10", "max_epoch": 79}
    (folder / "status.json").write_bytes(b"".join(epoch_line(second, epoch, **values) for epoch in (9, 10, 11)))
    data = sandbox.json("status")["data"]
    assert [reported["progress"]["epoch"] for reported in data["runs"]] == [12]
    reported = data["runs"][0]["progress"]
    fields = [reported[name] for name in ("epochs", "share", "seconds_per_epoch", "state")]
    assert fields == [80, 0.15, 190, "running"]
    assert 12_800 < reported["seconds_left"] <= 12_921
    assert reported["metrics"] == [{"name": "train_loss", "value": 2.75, "history": [2.25, 2.5, 2.75]}]
    shown = "epoch 12/80, 3 min 10 s per epoch, 3 h 35 min left, train_loss 2.75"
    assert f"{shown} ▁▄█\n" in sandbox.run("status", check=True).stdout
    ascii_only = {**sandbox.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sandbox.taoprof, "status"], env=ascii_only, capture_output=True, timeout=60)
    assert f"{shown} _-#\n".encode() in done.stdout
    tao.end()
    run.wait(20)
