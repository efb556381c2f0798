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
NO_SPEC = f"{NO_FILE}'{INSIDE}/specs/train.yaml'"
DENIED = "PermissionError: [Errno 13] Permission denied: "
DONE = "detectnet_v2 train: done with 0"


class Walk(NamedTuple):
    """One walk; HOME stands for the home in all texts."""

    finding: str  # it must come, and the command of its hint is pasted
    symptom: str  # what the person's command shows
    files: dict[str, str] = {}  # noqa: RUF012 - never changed; what is there, by path below the home
    asks: str = "taoprof check"  # what is typed then; "-- …" repeats the command behind it
    before: tuple[str, ...] = ()  # what was typed earlier
    command: str = TRAIN  # the person's
    types: str = ""  # what is written in the editor: sed's words
    again: str | None = None  # what then shows ``works`` and DONE, by default the same; "": what was pasted
    works: str = "spec project: kitti"
    first: bool = True  # the finding is the first one shown


def mounts(
    *pairs: tuple[str, str], user: str | None = "0:0", envs: dict[str, Any] | None = None, **options: Any
) -> str:
    """A mounts file as NVIDIA's notebooks write it."""
    content: dict[str, Any] = {"Mounts": [{"source": source, "destination": place} for source, place in pairs]}
    if envs:
        content["Envs"] = [{"variable": name, "value": value} for name, value in envs.items()]
    content["DockerOptions"] = {"shm_size": "16G", **({"user": user} if user else {}), **options}
    return json.dumps(content, indent=4)


FILE = ".tao_mounts.json"
SOUND = ("HOME/kitti", INSIDE)
NEW = ("cd kitti && taoprof new kitti --network detectnet_v2 && cd", "taoprof use kitti --mkdir")
CUSTOM = (
    'schema = 1\nlayout = "custom"\n[[mounts]]\nsource = "HOME/kitti"\ndestination = "/workspace/tao-experiments"\n'
)
PROFILE = ".config/taoprofiles/profiles/kitti.toml"

WALKS = {
    "a path of the host in a spec's place": Walk(
        "host-path",
        NO_FILE + "'HOME/kitti/specs/train.yaml'",
        {FILE: mounts(SOUND)},
        asks="taoprof check --",
        command=f"tao model detectnet_v2 train -e ~/kitti/specs/train.yaml -r {INSIDE}/results",
        again="",
    ),
    "a path of the host in a spec": Walk(
        "host-path",
        NO_FILE + "'HOME/kitti/data'",
        {FILE: mounts(SOUND), "kitti/specs/train.yaml": "project: kitti\ndata: HOME/kitti/data\n"},
        asks="taoprof check --",
        types=f"s#HOME/kitti/data#{INSIDE}/data#",
    ),
    "a notebook's placeholder": Walk(
        "placeholder",
        "ValueError: Mount point source path doesn't exist. /path/to/local/tao-experiments",
        {FILE: mounts(("/path/to/local/tao-experiments", INSIDE))},
        types="s#/path/to/local/tao-experiments#HOME/kitti#",
    ),
    "a variable that only the notebook knows": Walk(
        "arg-empty-variable",
        NO_FILE + "'/train.yaml'",
        asks="taoprof check --",
        before=NEW,
        command="tao model detectnet_v2 train -e $SPECS_DIR/train.yaml -r $USER_EXPERIMENT_DIR",
    ),
    "a folder that is not there": Walk(
        "src-missing",
        "ValueError: Mount point source path doesn't exist. HOME/results",
        {FILE: mounts(SOUND, ("HOME/results", "/results"))},
    ),
    "results of root": Walk(
        "results-not-writable-as-user",
        DENIED + f"'{INSIDE}/results/status.json'",
        {PROFILE: CUSTOM + '[container.env]\nHOME = "/tmp"\n[docker]\nuser = "1000:1000"\nshm_size = "16G"\n'},
        asks="taoprof check kitti --",
        command=RUN,
    ),
    "UID:GID as it stands in the warning": Walk(
        "user-literal",
        "unable to find user UID: no matching entries in passwd file",
        {FILE: mounts(SOUND, user="UID:GID")},
    ),
    "another notebook's mounts": Walk(
        "global-file-changed-by-other",
        "spec project: city",
        {"city.json": mounts(("HOME/city", INSIDE)), PROFILE: CUSTOM + '[docker]\nshm_size = "16G"\n'},
        before=("taoprof use kitti", f"cat city.json > {FILE}"),
    ),
    "a size with another unit": Walk("shm-unit", "should specify the units", {FILE: mounts(SOUND, shm_size="16GiB")}),
    "a name without its dot": Walk(
        "file-near-miss-name", NO_SPEC, {"tao_mounts.json": mounts(SOUND)}, asks="taoprof doctor", first=False
    ),
    "a name without its dot, by check": Walk("no-mapping-file", NO_SPEC, {"tao_mounts.json": mounts(SOUND)}),
    "LAUNCHER_MOUNTS that nothing expands": Walk(
        "lm-bad-path",
        NO_SPEC,
        {"kitti.json": mounts(SOUND)},
        asks="taoprof doctor",
        before=("export LAUNCHER_MOUNTS='$HOME/kitti.json'",),
        first=False,
    ),
    "one folder twice": Walk(
        "src-duplicate",
        NO_SPEC,
        {FILE: mounts(SOUND, ("HOME/kitti", "/results"))},
        types="s#HOME/kitti#HOME/results#",
        before=("mkdir results",),
    ),
    "a destination that is a link here": Walk(
        "dst-symlinked-on-host",
        NO_FILE + "'HOME/data/specs/train.yaml'",
        {FILE: mounts(("HOME/kitti", "HOME/data"))},
        before=("ln -s kitti data",),
        command="tao model detectnet_v2 train -e HOME/data/specs/train.yaml -r HOME/data/results",
        types=f"s#HOME/data#{INSIDE}#",
        again=TRAIN,
    ),
    "a user without a home": Walk(
        "user-without-home",
        DENIED + "'/.config'",
        {PROFILE: CUSTOM + '[docker]\nuser = "1000:1000"\nshm_size = "16G"\n'},
        asks="taoprof check kitti",
        before=("mkdir kitti/results && chown 1000:1000 kitti/results",),
        command=RUN,
        first=False,
    ),
    "a comma too many": Walk(
        "json-parse",
        "json.decoder.JSONDecodeError: Expecting property name enclosed in double quotes",
        {FILE: mounts(SOUND).replace('"0:0"', '"0:0",')},
        types="s/,$//",
    ),
    "a variable that was not set": Walk(
        "env-null",
        "CUDA_VISIBLE_DEVICES=None",
        {FILE: mounts(SOUND, envs={"CUDA_VISIBLE_DEVICES": None})},
        works="CUDA_VISIBLE_DEVICES= ",
    ),
    "parentheses": Walk(
        "arg-needs-quoting",
        "syntax error near unexpected token `('",
        {FILE: mounts(SOUND)},
        asks="taoprof check --",
        command=f"{TRAIN} 'model.anchors=(1, 2)'",
        again="",
        works="given=model.anchors=(1, 2)",
    ),
    "a runner's variable": Walk(
        "ci-project-dir-set",
        "training as 0:0",
        {FILE: mounts(SOUND, user="1000:1000", envs={"HOME": "/tmp"})},
        asks="taoprof doctor",
        before=("chown 1000:1000 kitti", "export CI_PROJECT_DIR=/builds/kitti"),
        again=f"{TRAIN}-of-mine",  # those of the first belong to root
        works="training as 1000:1000",
        first=False,
    ),
}


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
            prompt := re.search(r"(?:\[(\d+)\] walk>|\(taoprof:kitti\) [$#]) $", self.output.decode("utf-8", "replace"))
        ):
            assert time.monotonic() < end and self._read(0.2), self.output
        output, self.output = prompt.string[: prompt.start()], b""
        return int(prompt[1] or 0), output

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
    match = re.search(rf"^(?:error|warning|info): .*\[{finding}\]\n(?:  .*\n)*?  hint: (.*)\n", output, re.M)
    assert match, f"no [{finding}] with a hint in:\n{output}"
    if first:
        others = re.findall(r"\[([a-z0-9-]+)\]$", output[: match.end()], re.M)
        assert others == [finding], output
    hint = match[1]
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
