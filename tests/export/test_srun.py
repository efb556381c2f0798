"""What ``render --to slurm`` writes, run by a shell with a real srun, as far as that goes without pyxis.

pyxis is what knows ``--container-…``; Debian has none. So a real srun refuses the line for just that, and without these
options runs the rest: the environment, the secrets, the GPUs asked for, the words, the exit status.
"""

from __future__ import annotations

import subprocess

import pytest

from tests.support.home import Home, find_command
from tests.support.slurm import Cluster

pytestmark = pytest.mark.slurm

HOSTILE = "a, b=c '\"\\ $HOME $(id) `id` ü\n\t*"
WITHOUT = """
srun() {
    kept=()
    for word; do
        case $word in
            --container-*|--no-container-*) [ ${#kept[@]} = "$before" ] || kept+=("$word") ;;
            --*) kept+=("$word"); before=${#kept[@]} ;;
            *) kept+=("$word") ;;
        esac
    done
    "$SRUN" "${kept[@]}"
}
before=0
"""


def run(slurm: Cluster, text: str, before: str = WITHOUT, **environ: str) -> subprocess.CompletedProcess[str]:
    around = {**slurm.environ, "SRUN": find_command("srun"), **environ}
    return subprocess.run(
        ["bash", "-c", before + text], env=around, cwd=slurm.folder, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip


def rendered(home: Home, *words: str) -> str:
    home.profile(
        "p",
        'layout = "custom"\n[variables]\nKEY = "tlt_encode"\n[[mounts]]\nsource = "/data"\ndestination = "/data"\n'
        f'[container.env]\nA = """{HOSTILE.replace(chr(92), chr(92) * 2).replace("$", "$$")}"""\nHOME = "/nowhere"\n'
        'API_KEY = "${KEY}"\nPATH = "/usr/bin:/bin"\n[docker]\nuser = "auto"\n',
    )
    done = home.run("render", "p", "--to", "slurm", "--image", "nvcr.io/nvidia/tao/tao-toolkit:6.26.3-pyt", *words)
    assert done.returncode == 0, done.stderr
    assert "tlt_encode" not in done.stdout + done.stderr
    return done.stdout


def test_srun_takes_all_but_the_containers_options(slurm: Cluster, home: Home) -> None:
    text = rendered(home, "--", "printenv", "SLURM_GPUS_ON_NODE")
    done = run(slurm, text, before='srun() { "$SRUN" "$@"; }\n', API_KEY="x")
    assert done.returncode != 0
    assert "unrecognized option '--container-image=nvcr.io#nvidia/tao/tao-toolkit:6.26.3-pyt'" in done.stderr
    done = run(slurm, text, API_KEY="x")
    assert (done.returncode, done.stdout) == (0, "1\n"), "one GPU is requested where all cannot be"


def test_the_task_gets_its_words_its_environment_and_its_secrets(slurm: Cluster, home: Home) -> None:
    show = 'printf "%s\\0" "$@" "$A" "$HOME" "$API_KEY" "$SLURM_GPUS_ON_NODE"; exit 3'
    text = rendered(home, "--gpus", "2", "--", "sh", "-c", show, "x", HOSTILE, "-k", "$KEY", "")
    done = run(slurm, text, KEY="the key", API_KEY="the token")
    assert done.returncode == 3, done.stderr
    assert done.stdout.split("\0") == [HOSTILE, "-k", "the key", "", HOSTILE, "/nowhere", "the token", "2", ""]
    done = run(slurm, text, API_KEY="the token")
    assert (done.returncode != 0, done.stdout) == (True, "")
    assert "KEY" in done.stderr, "without its secret the line is refused"
