"""Every command that writes, with each of its system calls failing, or being the last one before SIGKILL.

After each: no traceback, the right exit status, all done or nothing, the next commands work, nothing stored is lost,
and nothing is left behind. TAOPROF_TEST_FAULT_STEP=1 tries all (half an hour); CI every 15th, always others.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock  # noqa: F401 - loaded before the forks
import pytest

from taoprofiles.cli import main
from taoprofiles.switching.guard_files import Seal
from tests.support import injection
from tests.support.commands import call
from tests.support.home import Home, write_program
from tests.support.injection import STEP, Ended
from tests.support.notebooks import notebook

pytestmark = [pytest.mark.strace, pytest.mark.timeout(7200)]

FOREIGN = b'{"Mounts": [{"source": "/tmp", "destination": "/data"}]}'
NOTEBOOK = notebook(
    [
        "import json, os\nmounts = {'Mounts': [{'source': '/tmp', 'destination': '/data'}]}\n"
        "with open(os.path.expanduser('~/.tao_mounts.json'), 'w') as file:\n    json.dump(mounts, file)\n"
    ]
)
PROGRAMS = {
    "systemctl": """\
case "$*" in *show*) echo LoadState=loaded; echo ActiveState=inactive; echo SubState=dead; echo UnitFileState=;; esac
""",
    "ed": 'echo "# edited" >>"$1"',
    "sbatch": 'sed -n "s/^#SBATCH --job-name=//p" >>~/jobs; echo 7',
    "squeue": """\
[ -e ~/cancelled ] && state=CANCELLED || state=RUNNING
[ ! -e ~/jobs ] || sed "s/$/|7|$state|n1|None/" ~/jobs
""",
    "scancel": ": >~/cancelled",
    "sacct": ":",
    "scontrol": ":",
}
"""Stand-ins: an editor, a systemd, and a Slurm whose job runs until it is cancelled."""

WRITTEN = (
    *(".config/taoprofiles/profiles/*.toml", ".config/systemd/**/*.service", ".local/share/jupyter/**/*"),
    *("projects/a/.taoprof.toml", ".claude/**/*", ".bashrc", "*.svg", "*.ipynb", "jobs", "cancelled"),
)
"""What commands write in a home, beside the state."""

PROJECT = """\
schema = 1
layout = "custom"
[[mounts]]
source = "."
destination = "/data"
"""
ON_SLURM = ["run", "b", "--on", "slurm", "--image", "i", "--gpus", "none", "--", "true"]


def foreign(home: Home) -> None:
    home.mapping_file.write_bytes(FOREIGN)


def foreign_root(home: Home) -> None:
    home.mapping_file.write_text(json.dumps({"Mounts": [{"source": "/tmp", "destination": "/d"}], "DockerOptions": {}}))


def edited(home: Home) -> None:
    home.run("set", "b", "description=changed", check=True)


def held(home: Home) -> None:
    home.run("hold", "--reason", "a test", check=True)


def project(home: Home) -> None:
    (home.root / "projects/a/.taoprof.toml").write_text(PROJECT)


def trusted(home: Home) -> None:
    project(home)
    home.run("trust", "projects/a", "--name", "d", "--yes", check=True)


def changed_project(home: Home) -> None:
    trusted(home)
    (home.root / "projects/a/.taoprof.toml").write_text(PROJECT.replace("/data", "/other"))


def with_agent(home: Home) -> None:
    (home.root / ".claude").mkdir()


def with_kernel(home: Home) -> None:
    home.run("kernel", "install", "b", "--python", sys.executable, check=True)


def all_installed(home: Home) -> None:
    with_agent(home)
    with_kernel(home)
    home.run("skill", "install", check=True)
    (home.root / ".bashrc").write_text('alias ll="ls -l"\neval "$(taoprof init bash)"\n')


def with_hook(home: Home) -> None:
    home.profile("b", 'schema = 1\nlayout = "custom"\non_end = "echo ended >>~/hooked"\n')
    home.run("show", "b", check=True)


def with_service(home: Home) -> None:
    ended = injection.run(home, lambda: main.run(["service", "install"]))  # which knows no home but that of the test
    assert ended.status == 0, ended


def linked(home: Home) -> None:
    target = home.root / "shared/mounts.json"
    target.parent.mkdir()
    home.mapping_file.rename(target)
    home.mapping_file.symlink_to("shared/mounts.json")


def sealed(home: Home) -> None:
    """Leave what a guard leaves that was killed."""
    folder = Path(home.context.guard)
    folder.mkdir()
    (folder / "0123.claim").touch()
    Seal(home.context).apply("0123", home.mapping_file.stat().st_size)


def on_slurm(home: Home) -> None:
    home.run(*ON_SLURM, check=True)


CASES: dict[str, tuple[list[str], Callable[[Home], None] | None]] = {
    "use": (["use", "b"], None),
    "use over another program's": (["use", "b"], foreign),
    "use over a link": (["use", "b"], linked),
    "use of a sealed file": (["use", "b"], sealed),
    "undo": (["undo"], None),
    "undo another program's": (["undo"], foreign),
    "undo of a profile": (["undo"], edited),
    "import a mounts file": (["import", "mounts.json", "--name", "d"], None),
    "import a notebook": (["import", "x.ipynb", "--name", "d"], None),
    "import the mapping file": (["import", "--name", "d"], foreign),
    "new": (["new", "d", "--project-dir", "projects/a"], None),
    "new from": (["new", "d", "--from", "b"], None),
    "edit": (["edit", "b"], None),
    "set": (["set", "b", "description=new"], None),
    "rename": (["rename", "a", "d"], None),
    "remove": (["remove", "b"], None),
    "hold": (["hold", "--reason", "x"], None),
    "release": (["release", "HOLD", "--yes"], held),
    "run": (["run", "b", "--", "true"], None),
    "run shared": (["run", "b", "--shared", "--", "true"], None),
    "run detached": (["run", "b", "--detach", "--", "true"], None),
    "run with a hook": (["run", "b", "--notify", "desktop", "--", "true"], with_hook),
    "run on slurm": (ON_SLURM, None),
    "stop": (["stop", "-"], on_slurm),
    "purge": (["history", "--purge", "--yes"], None),
    "service": (["service", "install"], None),
    "service uninstall": (["service", "uninstall"], with_service),
    "fix": (["check", "--fix", "--yes"], foreign_root),
    "kernel": (["kernel", "install", "b", "--python", "PYTHON"], None),
    "kernel remove": (["kernel", "remove", "b"], with_kernel),
    "import with a kernel": (["import", "x.ipynb", "--name", "d", "--kernel", "--in-place"], None),
    "new with a project file": (["new", "d", "--project-dir", "projects/a", "--project"], None),
    "trust": (["trust", "projects/a", "--name", "d", "--yes"], project),
    "trust a change": (["trust", "projects/a", "--yes"], changed_project),
    "trust revoked": (["trust", "--revoke", "d"], trusted),
    "skill": (["skill", "install"], with_agent),
    "show as SVG": (["show", "b", "--svg", "map.svg"], None),
    "uninstall": (["uninstall", "--yes"], all_installed),
    "list": (["list"], None),
    "status": (["status"], None),
}


def prepared(folder: Path, case: str) -> tuple[Home, list[str]]:
    words, prepare = CASES[case]
    home = Home(folder / "home")
    home.root.mkdir()
    for name in "abc":
        home.profile(name)
    (home.root / "mounts.json").write_bytes(FOREIGN)
    (home.root / "x.ipynb").write_bytes(NOTEBOOK)
    programs = folder / "bin"
    for name, script in PROGRAMS.items():
        write_program(programs / name, script)
    home.environ |= {"PATH": f"{programs}:{os.environ['PATH']}", "EDITOR": str(programs / "ed")}
    for name in ("b", "c", "a"):
        home.run("use", name, check=True)
    if prepare is not None:
        prepare(home)
    ids = [hold["id"] for hold in home.holds()] if "HOLD" in words else [""]  # no command after ``prepare`` otherwise
    return home, [{"HOLD": ids[0], "PYTHON": sys.executable}.get(word, word) for word in words]


def copied(home: Home, to: Path) -> Home:
    """Return a copy of a home, in which a trusted project file and a sealed file are those of the copy."""
    copy = injection.copied(home, to)
    for path in [*copy.profiles.glob("d.toml"), *copy.state.glob("guard/seal.json")]:
        path.write_text(path.read_text().replace(str(home.root), str(copy.root)))
    return copy


def effect(home: Home) -> dict[str, object]:
    """What a command is about: the mapping, profiles, holds, jobs, and the files that it writes for other programs."""
    state: dict[str, object] = {"mapping": home.content()}
    state["link"] = os.readlink(home.mapping_file) if home.mapping_file.is_symlink() else None
    for path in sorted(path for pattern in WRITTEN for path in home.root.glob(pattern)):
        is_left = path.name.startswith("logo-") and not path.with_name("kernel.json").exists()
        if path.is_file() and not is_left and not re.search(r"\.taoprof-(new|old)", path.name):
            text = re.sub(re.escape(bytes(home.root.parent)) + rb"/[\w-]+", b"HOME", path.read_bytes())
            state[str(path.relative_to(home.root))] = re.sub(rb"taoprof-b-\w+", b"JOB", text)
    records = [path for path in (home.state / "holds").glob("*.json") if not path.name.endswith(".mounts.json")]
    # The record of a run that was killed counts until the next command has looked.
    state["holds"] = sorted(data["reason"] for data in map(_json, records) if data and data["kind"] == "manual")
    return state


def _json(path: Path) -> dict[str, str] | None:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None  # a detached run has just ended


def entries(home: Home) -> list[dict[str, object]]:
    lines = (home.state / "history.jsonl").read_bytes().splitlines()
    parsed = []
    for line in lines:
        try:
            data = json.loads(line)
        except ValueError:
            continue  # torn by the kill
        if "id" in data:
            parsed.append(data)
    return parsed


@pytest.mark.parametrize("case", CASES)
def test_a_call_fails_or_is_the_last(tmp_path: Path, case: str) -> None:
    home, words = prepared(tmp_path, case)
    warm = copied(home, tmp_path / "warm")
    call(warm, *([*words[:1], "--help"] if words[0] in ("service", "kernel", "edit", "run") else words))
    clean = copied(home, tmp_path / "clean")
    injection.run(clean, lambda: main.run(words))  # what it writes on first use
    clean = copied(home, tmp_path / "clean-2")
    every = [(point, way) for point in injection.points(clean, lambda: main.run(words)) for way in point.injections]
    wanted = effect(clean)
    some = every[random.randrange(STEP) :: STEP] if STEP > 1 else every
    faults, missed = [], 0
    for number, (point, way) in enumerate(some):
        copy = copied(home, tmp_path / f"copy-{number}")
        ended = injection.run(copy, lambda: main.run(words), f"{point.call}:{way}:when={point.number}")
        if not injection.was_hit(ended, point, copy):
            missed += 1
        elif problem := wrong(home, copy, ended, words[0], wanted):
            faults.append(f"{way} {point.line[:200].replace(str(clean.root), '~')}\n    → {problem[:1200]}")
        shutil.rmtree(copy.root)
    print(f"{case}: {len(every)} injections, {len(some)} tried, {missed} missed, {len(faults)} faults")
    assert not faults, f"{len(faults)} of {len(some)}:\n" + "\n".join(faults)
    assert missed <= len(some) // 2 + 1  # what it calls depends a little on the time


def wrong(home: Home, copy: Home, ended: Ended, command: str, wanted: dict[str, object]) -> str:
    """Return what is wrong after a command, "" if nothing is."""
    before, after = effect(home), effect(copy)
    if "Traceback" in ended.err or "Traceback" in ended.out:
        return f"traceback: {ended.err[-1100:]}"
    if ended.status == 0 and after != wanted:
        return f"it said that it was done: {_differ(after, wanted)}; {ended.err}"
    is_told = any(text in ended.err for text in (", but ", "fix applied", " was not removed: "))
    if ended.status == 1 and after != before and command != "service" and not is_told:
        return f"status {ended.status}, but changed: {_differ(after, before)}; {ended.err}"
    if ended.status not in (0, 1, -9):
        return f"status {ended.status}: {ended.err}{ended.out[-300:]}"
    if ended.status == 1 and "error: " not in ended.err and command != "uninstall":
        return f"no error is named: {ended.err!r}"
    for name in {*before, *wanted}:
        is_without_file = command == "new" and b"[project]" not in bytes(after.get(name) or b"")  # which is told
        if after.get(name) not in (before.get(name), wanted.get(name)) and not is_without_file:
            return f"{name} is neither old nor new: {after.get(name)!r}"
    if command == "history" and ended.status == 0 and (left := _unused(copy)):
        return f"it said that it was purged, but there is {left}"
    return _next(home, copy, after, is_purge=command == "history")


def _differ(actual: dict[str, object], reference: dict[str, object]) -> str:
    return "; ".join(
        f"{name}: {actual.get(name)!r:.150} ≠ {reference.get(name)!r:.150}"
        for name in {*actual, *reference}
        if actual.get(name) != reference.get(name)
    )


def _next(home: Home, copy: Home, after: dict[str, object], *, is_purge: bool) -> str:
    """Return what is wrong with the next commands, or with what is stored."""
    if problem := injection.run_next(copy, ["list"], ["history"], ["status"]):
        return problem
    if problem := _work_problem(copy, after):
        return problem
    holds = copy.holds()
    target = "c" if after["mapping"] != _mapping_of(copy, "c") else "b"
    releases = [["release", hold["id"], "--yes"] for hold in holds]
    if problem := injection.run_next(copy, *releases, ["use", target], ["undo"]):
        return problem
    if effect(copy)["mapping"] != after["mapping"]:
        return f"'use' and 'undo' lead to {effect(copy)['mapping']!r}"
    now = entries(copy)
    lost = [] if is_purge else [entry for entry in entries(home) if entry not in now]
    stored = copy.state / "objects"
    sides = [(entry, entry[side]) for entry in now for side in ("before", "after") if entry[side]]
    lost += [entry for entry, content in sides if not (stored / str(content)).exists()]
    if lost:
        return f"the history, or the content of its entries, has lost {lost}"
    # In other folders a file of a fixed name may wait for the next change there, which deletes it.
    left = [path.name for path in copy.root.rglob("*") if re.search(r"\.taoprof-(new|old)-", path.name)]
    left += [path.name for path in copy.root.glob(".taoprof-*")]
    left += [path.name for path in (copy.state / "holds").glob("[!.]*")]
    if not copy.mapping_file.stat().st_mode & 0o200:
        return "it stays sealed"
    return f"left behind: {left}" if left else ""


def _unused(copy: Home) -> list[str]:
    """Return the stored contents that no entry has, and the caches, which may hold secrets."""
    used = {entry[side] for entry in entries(copy) for side in ("before", "after")}
    contents = [path for path in (copy.state / "objects").iterdir() if path.name not in used]
    caches = [path for path in Path(copy.context.cache).rglob("*") if path.is_file()]
    return [path.name for path in [*contents, *caches]]


def _work_problem(copy: Home, after: dict[str, object]) -> str:
    """Wait for what a command has started, and end its job; return what is wrong with them, "" if nothing is."""
    if "jobs" in after and "cancelled" not in after:
        if [hold["state"] for hold in copy.holds()] != ["RUNNING"]:
            return f"the job is not known: {copy.holds()}"
        if problem := injection.run_next(copy, ["stop", "-"]):
            return problem
    end = time.monotonic() + 20
    while (held := [hold for hold in copy.holds() if _is_active(hold, after)]) and time.monotonic() < end:
        time.sleep(0.02)  # a detached run, which nobody waits for
    return f"still held: {held}" if held else _hook_problem(copy, end)


def _is_active(hold: dict[str, Any], after: dict[str, object]) -> bool:
    """Check for a run; a job that may still appear at the cluster is none."""
    return hold["kind"] != "manual" and (hold["cluster"] is None or "jobs" in after)


def _hook_problem(copy: Home, end: float) -> str:
    """Wait until all has been done at the end of runs; return what is wrong with the hook, "" if nothing is."""
    profile = copy.profiles / "b.toml"
    if not profile.exists() or "on_end" not in profile.read_text():
        return ""
    while any((copy.state / "notifications").glob("*.json")) and time.monotonic() < end:
        copy.run("status")
        time.sleep(0.02)
    runs = copy.state / "runs.jsonl"
    ended = len({json.loads(line)["id"] for line in runs.read_bytes().splitlines()} if runs.exists() else ())
    hooked = copy.root / "hooked"
    count = hooked.read_text().count("ended") if hooked.exists() else 0
    return "" if count == ended else f"{ended} runs have ended, the hook has run {count} times"


def _mapping_of(home: Home, name: str) -> bytes:
    from tests.support.sandbox import rendered

    return rendered(home, name)  # type: ignore[arg-type]
