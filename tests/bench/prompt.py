"""What the prompt segment of 'taoprof init' costs: the CPU time of an update, less that of an empty function.

    python -m tests.bench.prompt [ROUNDS]

2000 updates and 2000 calls of an empty function in turn, round by round: the median of the differences, in ms.
The folder is six levels below the home: in no project, in that of the active profile, and in that of another one.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.home import Home, find_command

COUNT = 2000
LOOPS = {
    "bash": ("--norc", "--noprofile", "for ((i = 0; i < {}; i++)); do {}; done", "empty() { :; }"),
    "zsh": ("-f", "+x", "for ((i = 0; i < {}; i++)); do {}; done", "empty() { :; }; compdef() { :; }"),
    "fish": ("--no-config", "--private", "for i in (seq {}); {}; end", "function empty; end"),
}


def cpu_time(home: Home, folder: Path, shell: str, function: str) -> float:
    """Return the CPU time of a shell that calls a function ``COUNT`` times, in seconds."""
    *options, loop, before = LOOPS[shell]
    words = [find_command(shell), *options, "-c", f"{before}; source {home.root}/init; {loop.format(COUNT, function)}"]
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, env=home.environ, cwd=folder, check=True)
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    return end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime


def main() -> None:
    """Print a line for each shell."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as root:
        home = Home(Path(root))
        folders = {name: home.root / name / "a/b/c/d/e" for name in ("none", "own", "other")}
        for name, folder in folders.items():
            folder.mkdir(parents=True)
            if name != "none":
                (home.root / name / ".taoprof.toml").write_text('layout = "custom"\n')
                home.run("trust", "--yes", check=True, cwd=folder)
        home.run("use", "own", check=True)
        print("ms for each prompt", *folders, sep="\t")
        for shell in LOOPS:
            (home.root / "init").write_text(home.run("init", shell, check=True).stdout)
            medians = [
                statistics.median(
                    cpu_time(home, folder, shell, "_taoprof_update_prompt") - cpu_time(home, folder, shell, "empty")
                    for _ in range(rounds)
                )
                for folder in folders.values()
            ]
            print(shell, *(f"{median / COUNT * 1e3:.3f}" for median in medians), sep="\t")


if __name__ == "__main__":
    main()
