"""A beginner's walk: a set-up that is broken as users break it, its real symptom, and the way out that check or doctor
alone give: the command that they hint at is pasted as it stands there, and then the person's own command works.

All is typed into bash on a terminal of 80 columns: the real launcher, engine and containers. What a hint leaves to the
person (a folder, a name) is typed by the person in an editor, which opens where the hint says; here the editor is sed.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.commands import Terminal
from tests.support.engine import TrainingHome
from tests.support.home import find_command

pytestmark = pytest.mark.engine

INSIDE = "/workspace/tao-experiments"
TRAIN = f"tao model detectnet_v2 train -e {INSIDE}/specs/train.yaml -r {INSIDE}/results"
RUN = f"taoprof run kitti -- {TRAIN}"
NO_FILE = "FileNotFoundError: [Errno 2] No such file or directory: "
DENIED = "PermissionError: [Errno 13] Permission denied: "
DONE = "detectnet_v2 train: done with 0"


class Walk(NamedTuple):
    """One walk; HOME stands for the home in all texts.

    ``files`` are what is there, by path below the home (text, or a mounts file as data); ``before`` is what was typed
    earlier; ``command`` is the person's, and ``symptom`` what it shows them; ``asks`` is what they type then, "-- …"
    repeats the command behind it; ``finding`` must come, and the command of its hint is pasted. ``types`` is what
    they write in the editor (sed's words); ``again`` is the command that then shows ``works`` and DONE, by default the
    same, "" where what was pasted is it; ``first``: the finding is the first one shown.
    """

    symptom: str
    asks: str
    finding: str
    files: dict[str, Any] = {}  # noqa: RUF012 - never changed
    before: tuple[str, ...] = ()
    command: str = TRAIN
    types: str = ""
    again: str | None = None
    works: str = "spec project: kitti"
    first: bool = True


def mounts(
    *pairs: tuple[str, str], user: str | None = "0:0", envs: dict[str, Any] | None = None, **options: Any
) -> str:
    """A mounts file as NVIDIA's notebooks write it."""
    made: dict[str, Any] = {"Mounts": [{"source": source, "destination": place} for source, place in pairs]}
    if envs:
        made["Envs"] = [{"variable": name, "value": value} for name, value in envs.items()]
    made["DockerOptions"] = {"shm_size": "16G", **({"user": user} if user else {}), **options}
    return json.dumps(made, indent=4)


FILE = ".tao_mounts.json"
SOUND = ("HOME/kitti", INSIDE)
NEW = ("cd kitti && taoprof new kitti --network detectnet_v2 && cd", "taoprof use kitti --mkdir")
CUSTOM = (
    'schema = 1\nlayout = "custom"\n[[mounts]]\nsource = "HOME/kitti"\ndestination = "/workspace/tao-experiments"\n'
)
PROFILE = ".config/taoprofiles/profiles/kitti.toml"

WALKS = {
    "a path of the host in a spec's place": Walk(
        NO_FILE + "'HOME/kitti/specs/train.yaml'",
        "taoprof check --",
        "host-path",
        {FILE: mounts(SOUND)},
        command=f"tao model detectnet_v2 train -e ~/kitti/specs/train.yaml -r {INSIDE}/results",
        again="",
    ),
    "a path of the host in a spec": Walk(
        NO_FILE + "'HOME/kitti/data'",
        "taoprof check --",
        "host-path",
        {FILE: mounts(SOUND), "kitti/specs/train.yaml": "project: kitti\ndata: HOME/kitti/data\n"},
        types=f"s#HOME/kitti/data#{INSIDE}/data#",
    ),
    "a notebook's placeholder": Walk(
        "ValueError: Mount point source path doesn't exist. /path/to/local/tao-experiments",
        "taoprof check",
        "placeholder",
        {FILE: mounts(("/path/to/local/tao-experiments", INSIDE))},
        types="s#/path/to/local/tao-experiments#HOME/kitti#",
    ),
    "a variable that only the notebook knows": Walk(
        NO_FILE + "'/train.yaml'",
        "taoprof check --",
        "arg-empty-variable",
        before=NEW,
        command="tao model detectnet_v2 train -e $SPECS_DIR/train.yaml -r $USER_EXPERIMENT_DIR",
    ),
    "a folder that is not there": Walk(
        "ValueError: Mount point source path doesn't exist. HOME/results",
        "taoprof check",
        "src-missing",
        {FILE: mounts(SOUND, ("HOME/results", "/results"))},
    ),
    "results of root": Walk(
        DENIED + f"'{INSIDE}/results/status.json'",
        "taoprof check kitti --",
        "results-not-writable-as-user",
        {PROFILE: CUSTOM + '[container.env]\nHOME = "/tmp"\n[docker]\nuser = "1000:1000"\nshm_size = "16G"\n'},
        command=RUN,
    ),
    "UID:GID as it stands in the warning": Walk(
        "unable to find user UID: no matching entries in passwd file",
        "taoprof check",
        "user-literal",
        {FILE: mounts(SOUND, user="UID:GID")},
    ),
    "another notebook's mounts": Walk(
        "spec project: city",
        "taoprof check",
        "global-file-changed-by-other",
        {"city.json": mounts(("HOME/city", INSIDE)), PROFILE: CUSTOM + '[docker]\nshm_size = "16G"\n'},
        before=("taoprof use kitti", f"cat city.json > {FILE}"),
    ),
    "a size with another unit": Walk(
        "should specify the units",
        "taoprof check",
        "shm-unit",
        {FILE: mounts(SOUND, shm_size="16GiB")},
    ),
    "a name without its dot": Walk(
        NO_FILE + f"'{INSIDE}/specs/train.yaml'",
        "taoprof doctor",
        "file-near-miss-name",
        {"tao_mounts.json": mounts(SOUND)},
        first=False,
    ),
    "a name without its dot, by check": Walk(
        NO_FILE + f"'{INSIDE}/specs/train.yaml'",
        "taoprof check",
        "no-mapping-file",
        {"tao_mounts.json": mounts(SOUND)},
    ),
    "LAUNCHER_MOUNTS that nothing expands": Walk(
        NO_FILE + f"'{INSIDE}/specs/train.yaml'",
        "taoprof doctor",
        "lm-bad-path",
        {"kitti.json": mounts(SOUND)},
        before=("export LAUNCHER_MOUNTS='$HOME/kitti.json'",),
        first=False,
    ),
    "one folder twice": Walk(
        NO_FILE + f"'{INSIDE}/specs/train.yaml'",
        "taoprof check",
        "src-duplicate",
        {FILE: mounts(SOUND, ("HOME/kitti", "/results"))},
        types="s#HOME/kitti#HOME/results#",
        before=("mkdir results",),
    ),
    "a destination that is a link here": Walk(
        NO_FILE + "'HOME/data/specs/train.yaml'",
        "taoprof check",
        "dst-symlinked-on-host",
        {FILE: mounts(("HOME/kitti", "HOME/data"))},
        before=("ln -s kitti data",),
        command="tao model detectnet_v2 train -e HOME/data/specs/train.yaml -r HOME/data/results",
        types=f"s#HOME/data#{INSIDE}#",
        again=TRAIN,
    ),
    "a user without a home": Walk(
        DENIED + "'/.config'",
        "taoprof check kitti",
        "user-without-home",
        {PROFILE: CUSTOM + '[docker]\nuser = "1000:1000"\nshm_size = "16G"\n'},
        before=("mkdir kitti/results && chown 1000:1000 kitti/results",),
        command=RUN,
        first=False,
    ),
    "a comma too many": Walk(
        "json.decoder.JSONDecodeError: Expecting property name enclosed in double quotes",
        "taoprof check",
        "json-parse",
        {FILE: mounts(SOUND).replace('"0:0"', '"0:0",')},
        types="s/,$//",
    ),
    "a variable that was not set": Walk(
        "CUDA_VISIBLE_DEVICES=None",
        "taoprof check",
        "env-null",
        {FILE: mounts(SOUND, envs={"CUDA_VISIBLE_DEVICES": None})},
        works="CUDA_VISIBLE_DEVICES= ",
    ),
    "parentheses": Walk(
        "syntax error near unexpected token `('",
        "taoprof check --",
        "arg-needs-quoting",
        {FILE: mounts(SOUND)},
        command=f"{TRAIN} 'model.anchors=(1, 2)'",
        again="",
        works="given=model.anchors=(1, 2)",
    ),
    "a runner's variable": Walk(
        "training as 0:0",
        "taoprof doctor",
        "ci-project-dir-set",
        {FILE: mounts(SOUND, user="1000:1000", envs={"HOME": "/tmp"})},
        before=("chown 1000:1000 kitti", "export CI_PROJECT_DIR=/builds/kitti"),
        again=f"{TRAIN}-of-mine",  # those of the first belong to root
        works="training as 1000:1000",
        first=False,
    ),
}  # fmt: skip


class Bash(Terminal):
    """A person's shell."""

    def __init__(self, home: TrainingHome) -> None:
        environ = {**home.environ, "PATH": f"{Path(home.tao).parent}:{home.environ['PATH']}", "PS1": "[$?] walk> "}
        super().__init__([find_command("bash"), "--noprofile", "--norc", "-i"], environ=environ, cwd=home.root)
        self.prompted()
        self.types("bind 'set enable-bracketed-paste off'; stty cols 80")

    def prompted(self) -> tuple[int, str]:
        """Wait for the next prompt; return the last status (0 where it does not tell) and what came before it."""
        end = time.monotonic() + 40
        while not (
            found := re.search(r"(?:\[(\d+)\] walk>|\(taoprof:kitti\) [$#]) $", self.output.decode("utf-8", "replace"))
        ):
            assert time.monotonic() < end and self._read(0.2), self.output
        output, self.output = found.string[: found.start()], b""
        return int(found[1] or 0), output

    def types(self, line: str, *, answer: str = "") -> tuple[int, str]:
        """Type a line, and ``answer`` to its question; return the status and all that it shows."""
        self.send(line + "\n")
        if answer:
            self.wait_for("[y/N] ")
            self.send(answer + "\n")
        status, output = self.prompted()
        return status, output.partition("\r\n")[2].replace("\r\n", "\n")


def pasted(output: str, finding: str, *, first: bool) -> str:
    """Return the command that a finding hints at, out of what the person sees."""
    found = re.search(rf"^(?:error|warning|info): .*\[{finding}\]\n(?:  .*\n)*?  hint: (.*)\n", output, re.M)
    assert found, f"no [{finding}] with a hint in:\n{output}"
    if first:
        others = re.findall(r"\[([a-z0-9-]+)\]$", output[: found.end()], re.M)
        assert others == [finding], output
    hint = found[1]
    if ": ${EDITOR" in hint:
        return hint[hint.index("${EDITOR") :]
    return hint[:-1].rpartition(" '")[2] if hint.endswith("'") and ": '" in hint else hint


@pytest.mark.parametrize("name", WALKS)
def test_walk(training_home: TrainingHome, name: str) -> None:
    home, walk = training_home, WALKS[name]

    def here(text: str) -> str:
        return text.replace("HOME", str(home.root)) if "HOME" in text else text

    there = {"kitti/specs/train.yaml": "project: kitti\n", "city/specs/train.yaml": "project: city\n", **walk.files}
    for path, text in there.items():
        (home.root / path).parent.mkdir(parents=True, exist_ok=True)
        (home.root / path).write_text(text.replace("HOME/", f"{home.root}/"))
    (home.root / "kitti/data").mkdir()
    with Bash(home) as bash:
        for line in walk.before:
            status, output = bash.types(line)
            assert status == 0, output
        typed = walk.command.replace("HOME/", f"{home.root}/")
        _, output = bash.types(typed)
        assert walk.symptom.replace("HOME/", f"{home.root}/") in output, output
        asks = f"{walk.asks} {typed.removeprefix('taoprof run kitti -- ')}" if walk.asks.endswith("--") else walk.asks
        _, output = bash.types(asks)
        mends = pasted(output, walk.finding, first=walk.first)
        if walk.types:
            editor = 'ed() { sed -i "${1#+}$CHANGE" "$2"; }; EDITOR=ed'
            bash.types(f"{editor} CHANGE='{walk.types.replace('HOME/', f'{home.root}/')}'")
        status, output = bash.types(mends, answer="y" if mends.endswith("--fix") else "")
        assert status == 0, (mends, output)
        if walk.again != "":
            status, output = bash.types(walk.again or typed)
            assert status == 0, output
        assert walk.works in output, output
        assert DONE in output, output
        bash.send("exit\n")
