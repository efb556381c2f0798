"""What every command costs at the documented limits: CPU seconds and peak memory, in MB.

    python -m tests.bench.limits [--check] [COMMAND …]

The home has 100,000 history entries, 100,000 runs, 1,000 profiles and a hold, so that nothing is compacted; the mapping
file has 10,000 mounts, or is one of the worst of its greatest size. With --check it exits with status 1 if a command
takes more than 2 s or 200 MB.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from taoprofiles.cli.dispatch import COMMANDS
from taoprofiles.holds import manage
from taoprofiles.storage.files import MAPPING_LIMIT
from tests.support.cases import ANSWERS, CASES
from tests.support.home import Home

SECONDS, MEMORY = 2.0, 200
COUNT = 100_000

LINES: dict[str, list[list[str]]] = {
    "use": [["b"], ["b", "--dry-run"]],
    "history": [[], ["--all"], ["--all", "--json"], ["results"], ["results", "--all"], ["--purge", "--yes"]],
    "status": [[], ["--json"], ["--check"]],
    "list": [[], ["--json"]],
    "check": [["a"], [], ["--json"], ["--", "tao", "model", "unet", "train", "-e", "/data/spec.yaml", "-r", "/data/r"]],
    "diff": [[], ["a", "b"]],
    "path": [["/workspace/tao-experiments/x"], ["projects/a/x"]],
    "import": [["mounts.json", "--name", "x"], ["mapping.json", "--name", "x"]],
    "run": [["a", "--", "true"], ["a", "--shared", "--force", "--", "true"]],
    "logs": [["RUN"], ["nosuch"]],
    "wait": [["RUN"], ["nosuch"]],
    "stop": [["nosuch"]],
    "release": [["nosuch"], ["HOLD", "--yes"]],
    "render": [["a", "--to", target, "--image", "i"] for target in ("docker", "kubernetes", "slurm")],
    "kernel": [["list"], ["install", "a", "--python", sys.executable]],
    "service": [["status"]],
    "init": [["bash"]],
}
"""By command, the command lines to try; those of ``tests/support/cases.py`` for the others."""


def mappings(folder: Path) -> dict[str, bytes]:
    """Return mapping files of the most mounts, and of the most of everything that there is room for."""
    names = [str(folder / f"d{number}") for number in range(10_000)]

    def mounts(pairs: Iterator[tuple[str, str]]) -> bytes:
        return filled("Mounts", ({"source": source, "destination": to} for source, to in pairs))

    def filled(section: str, items: Iterator[dict[str, str]]) -> bytes:
        content = {"Mounts": [], section: []}
        text = json.dumps(content, separators=(",", ":"))
        parts, size = list[str](), len(text)
        for item in items:
            part = json.dumps(item, separators=(",", ":"))
            size += len(part) + 1
            if size > MAPPING_LIMIT:
                break
            parts.append(part)
        return text.replace(f'"{section}":[', f'"{section}":[{",".join(parts)}', 1).encode()

    endless = range(1_000_000)
    deep = ["/a" * number for number in range(1, 1500)]
    files = {
        "10,000 mounts that exist": mounts((name, f"/d{n}") for n, name in enumerate(names)),
        "10,000 mounts that do not": mounts((f"{name}x", f"/d{n}") for n, name in enumerate(names)),
        "1 MB of short mounts": mounts((f"/{n}", f"/{n}") for n in endless),
        "1 MB of mounts of one folder": mounts(("/", "/a") for _ in endless),
        "1 MB of mounts in each other": mounts((folder.as_posix(), path) for path in deep),
        "1 MB of variables": filled("Envs", ({"variable": f"V{n}", "value": "1"} for n in endless)),
        "1 MB of one variable": filled("Envs", ({"variable": "V", "value": "1"} for _ in endless)),
        "1 MB of items that are none": b'{"Mounts":[' + b",".join([b"{}"] * (MAPPING_LIMIT // 3 - 10)) + b"]}",
        "1 MB of lists": b'{"Mounts":[' + b",".join([b"[]"] * (MAPPING_LIMIT // 3 - 10)) + b"]}",
        "1 MB of keys": json.dumps(
            {"Mounts": [], **{str(n): 0 for n in range(90_000)}}, separators=(",", ":")
        ).encode(),
        "1 MB that is no JSON": b"{" * MAPPING_LIMIT,
        "1 MB of lines": b'{"Mounts": [\n' + b"\n" * (MAPPING_LIMIT - 20) + b"]}",
        "1 MB of one text": json.dumps(
            {"Mounts": [{"source": "/" + "x" * (MAPPING_LIMIT - 100), "destination": "/a"}]}
        ).encode(),
    }
    assert all(len(content) <= MAPPING_LIMIT for content in files.values())
    return files


def prepare(home: Home) -> dict[str, str]:
    """Make the home, and return the ids that stand for RUN and HOLD."""
    for number in range(1000):
        home.profile(f"p{number}")
    for name in "ba":
        home.profile(name)
        home.run("use", name, check=True)
    home.run("run", "a", "--detach", "--", "true", stdin=subprocess.DEVNULL, check=True)
    while not ((home.state / "runs.jsonl").exists() and (home.state / "runs.jsonl").read_text().endswith("\n")):
        time.sleep(0.1)
    run = json.loads((home.state / "runs.jsonl").read_text())
    hold = manage.hold(home.context, None, reason="bench")
    chance = random.Random(1)
    with (home.state / "runs.jsonl").open("w") as journal:
        for number in range(COUNT):
            begun = run["since"] - 60 * (COUNT - number)
            letters = "".join(chance.choices("23456789abdefghjkmn", k=4))
            more = {
                "id": f"r{letters}", "profile": f"p{number % 1000}", "since": begun, "ended": begun + 50,
                "command": ["tao", "model", "unet", "train", "-e", "/workspace/tao-experiments/specs/train.yaml",
                            "-r", f"/workspace/tao-experiments/results/{number}"],
                "results": [str(home.root / f"projects/a/results/{number}")],
                "mounts": [[str(home.root / "projects/a"), "/workspace/tao-experiments"]],
            }  # fmt: skip
            journal.write(json.dumps(run | more) + "\n")
        journal.write(json.dumps(run) + "\n")
    history = home.state / "history.jsonl"
    lines = history.read_text().splitlines()
    entry = next(json.loads(line) for line in lines if '"action": "use"' in line)
    with history.open("w") as journal:
        for number in range(COUNT):
            action = ("set", "profile") if number % 2 else ("use", "mapping")
            fields = {"id": number + 1, "action": action[0], "target": action[1], "profile": f"p{number % 1000}"}
            journal.write(json.dumps(entry | fields | {"done": True}) + "\n")
        for line in lines:
            fields = json.loads(line)
            key = "done" if isinstance(fields.get("done"), int) and "id" not in fields else "id"
            journal.write(json.dumps(fields | {key: fields[key] + COUNT}) + "\n")
    return {"RUN": run["id"], "HOLD": hold.id}


def measure(home: Home, words: list[str]) -> tuple[int, float, float, str]:
    """Return the exit status of a command, the CPU seconds of all that it started, its peak MB, and its errors."""
    with tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [home.taoprof, *words], env=home.environ, cwd=home.root, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=err,
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        err.seek(0)
        text = err.read().decode("utf-8", "replace")
    return process.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text


def main() -> int:
    words = sys.argv[1:]
    is_checked = "--check" in words
    commands = [word for word in words if word != "--check"] or list(COMMANDS)
    worst = 0
    with tempfile.TemporaryDirectory() as scratch:
        home = Home(Path(scratch) / "home")
        home.root.mkdir()
        folder = Path(scratch) / "m"
        for number in range(10_000):
            (folder / f"d{number}").mkdir(parents=True)
        ids = prepare(home)
        (home.root / "mounts.json").write_text('{"Mounts": []}')
        (home.root / "projects/a/results").mkdir(parents=True, exist_ok=True)
        (home.root / "results").symlink_to("projects/a/results")
        home.environ |= {"EDITOR": "true", "SHELL": "/bin/true"}
        own, kept = home.mapping_file.read_bytes(), Path(scratch) / "kept"
        shutil.copytree(home.root, kept, symlinks=True)  # not read: a child's peak begins with what this process has
        sys.stdout.write(f"{'CPU s':>6} {'MB':>5}  exit\n")
        for what, content in {"a's mapping": own, **mappings(folder)}.items():
            for path in (kept / home.mapping_file.name, kept / "mapping.json"):
                path.write_bytes(content)
            sys.stdout.write(f"{what}\n")
            for command in commands:
                for arguments in LINES.get(command) or [CASES[command][0]]:
                    line = [command, *(ids.get(word, word) for word in arguments)]
                    shutil.rmtree(home.root)  # each command finds the same, and no cache of another
                    shutil.copytree(kept, home.root, symlinks=True)
                    status, cpu, memory, err = measure(home, line)
                    is_over = cpu > SECONDS or memory > MEMORY
                    worst += is_over or "Traceback" in err
                    mark = "   OVER" if is_over else ""
                    sys.stdout.write(f"{cpu:6.2f} {memory:5.0f}  {status:3}  {' '.join(line)}{mark}\n")
                    if status not in (0, ANSWERS.get(command, 0)) or "Traceback" in err:
                        sys.stdout.write(f"                 {err.strip()[-150:]}\n")
                    sys.stdout.flush()
    return 1 if is_checked and worst else 0


if __name__ == "__main__":
    sys.exit(main())
