"""The arguments of every command, and the examples of its help."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from taoprofiles.errors import TaoprofError
from taoprofiles.export import TARGETS
from taoprofiles.profiles import ENV_FORMATS, LAYOUTS

if TYPE_CHECKING:
    from taoprofiles.storage.paths import Context


Example = tuple[str, str]

FIRST_STEPS: tuple[Example, ...] = (
    ("taoprof import lab.ipynb", "create a profile from a notebook"),
    ("taoprof new detectnet_v2", "or from the project in this folder"),
    ("taoprof use detectnet_v2", "switch ~/.tao_mounts.json to it"),
    ("taoprof run detectnet_v2 -- COMMAND", "train in parallel with others"),
)

_TRAIN = "tao model segformer train -e /specs/train.yaml"

EXAMPLES: dict[str, tuple[Example, ...]] = {
    "use": (
        ("taoprof use segformer", "switch to a profile"),
        ("taoprof use -", "switch back to the previous one"),
        ("taoprof use segformer --create --mkdir", "create the profile and its folders too"),
        ("taoprof use segformer --wait 8h", "wait until no training needs the file"),
    ),
    "undo": (
        ("taoprof undo", "undo the last change"),
        ("taoprof undo 12", "undo entry 12 of 'taoprof history'"),
    ),
    "history": (
        ("taoprof history", "the last changes and runs"),
        ("taoprof history results/model.pth", "which run wrote this file, from which data"),
    ),
    "run": (
        (f"taoprof run segformer -- {_TRAIN}", "one task"),
        ("taoprof run segformer --gpus 2 --wait --detach -- sh train.sh", "in the background, on two free GPUs"),
        ("taoprof run segformer --image IMAGE -- segformer train -e /specs/t.yaml", "without the launcher"),
        ("taoprof run segformer --on slurm --gpus 4 -- segformer train -e /specs/t.yaml", "as a job on a cluster"),
    ),
    "shell": (("taoprof shell segformer", "'tao' in it uses this profile"),),
    "logs": (
        ("taoprof logs -f segformer", "follow the newest run of a profile"),
        ("taoprof logs -n 20 -", "the last lines of the newest run"),
    ),
    "wait": (("taoprof wait segformer && sh evaluate.sh", "continue only if the run has succeeded"),),
    "stop": (
        ("taoprof stop 7k2mq", "stop the run with this id"),
        ("taoprof stop -", "stop the newest run that is active"),
    ),
    "hold": (("taoprof hold --reason 'demo until noon' --for 3h", "prevent switches for 3 hours"),),
    "release": (("taoprof release 7k2mq", "release the hold with this id"),),
    "list": (
        ("taoprof list", "all profiles, the active one marked with *"),
        ("taoprof list --json", "the same for a program"),
    ),
    "current": (("taoprof current --short", "one word for a prompt or a status bar"),),
    "status": (
        ("taoprof status --watch", "follow runs, GPUs and the queue"),
        ("taoprof status --check", "in a script: exit with 6 unless a profile is active"),
    ),
    "show": (
        ("taoprof show segformer", "every variable and mount, resolved"),
        ("taoprof show segformer --toml > segformer.toml", "share it without its secrets"),
    ),
    "check": (
        ("taoprof check segformer", "what the launcher will do with the profile"),
        (f"taoprof check segformer -- {_TRAIN}", "its paths and spec file too"),
        ("taoprof check -- docker run --gpus all -v ~/data:/data IMAGE …", "a command without the launcher"),
        ("taoprof check segformer --fix", "fix what needs no decision"),
    ),
    "diff": (
        ("taoprof diff", "the active profile and the mapping file"),
        ("taoprof diff segformer dino", "two profiles"),
    ),
    "path": (
        ("taoprof path ~/tao/city/specs/train.yaml", "its path in the container"),
        ("taoprof path /specs/train.yaml segformer", "its path on this host"),
    ),
    "doctor": (("taoprof doctor", "check engine, launcher, GPUs, logins and disk space"),),
    "new": (
        ("taoprof new segformer", "for the project in this folder"),
        ("taoprof new night --network segformer --project-dir ~/tao/night", "a second one with that network"),
        ("taoprof new night --from segformer", "a copy to change"),
    ),
    "import": (
        ("taoprof import segformer.ipynb --kernel", "a profile and a Jupyter kernel from a notebook"),
        ("taoprof import lab.ipynb --set LOCAL_PROJECT_DIR=~/tao/kitti", "answer its question beforehand"),
        ("taoprof import --name lab", "keep what ~/.tao_mounts.json has now"),
    ),
    "edit": (("taoprof edit segformer", "an invalid text is not saved"),),
    "set": (
        ("taoprof set segformer docker.shm_size=32G", "a key"),
        ("taoprof set segformer NUM_GPUS=2", "a variable"),
        ("taoprof set segformer --unset NUM_GPUS", "back to the layout's value"),
    ),
    "rename": (("taoprof rename segformer city", "its kernels are renamed too"),),
    "remove": (("taoprof remove segformer", "the project's files stay"),),
    "trust": (
        ("taoprof trust", "show the .taoprof.toml of this project, and ask"),
        ("taoprof trust --allow ~/datasets/kitti", "it may also mount that folder"),
        ("taoprof trust --revoke", "forget it again"),
    ),
    "env": (
        ('eval "$(taoprof env segformer)"', "its variables in this shell"),
        ("taoprof env segformer --format dotenv > .env", "for Docker Compose or python-dotenv"),
    ),
    "kernel": (
        ("taoprof kernel install segformer", "'TAO: segformer' in Jupyter's list"),
        ("taoprof kernel list", "the kernels of profiles, and what is wrong with them"),
    ),
    "render": (
        ("taoprof render segformer --to compose > compose.yaml", "a Compose file"),
        ("taoprof render segformer --to slurm -- segformer train -e /specs/t.yaml", "a script for sbatch"),
    ),
    "schema": (("taoprof schema > taoprof.schema.json", "for an editor that completes TOML"),),
    "init": (
        ('eval "$(taoprof init bash)"', "in ~/.bashrc; zsh: the same in ~/.zshrc"),
        ("taoprof init fish | source", "in ~/.config/fish/config.fish"),
    ),
    "service": (
        ("taoprof service install", "install and start the guard"),
        ("taoprof service status", "whether it runs and starts at login"),
    ),
    "skill": (
        ("taoprof skill install", "for the agents of this user"),
        ("taoprof skill install .agents/skills", "in a project"),
    ),
    "uninstall": (
        ("taoprof uninstall --dry-run", "what there is"),
        ("taoprof uninstall", "ask, remove, and say how to remove the program"),
    ),
}
"""By command."""


def example_lines(examples: Sequence[Example]) -> list[str]:
    """Return examples as lines of at most 80 columns: each command, and beside all of them or below what it is for."""
    width = max(len(command) for command, _ in examples)
    if all(width + len(what) + 4 <= 80 for _, what in examples):
        return [f"  {command:<{width}}  {what}".rstrip() for command, what in examples]
    return [line for command, what in examples for line in (f"  {command}", f"      {what}") if line.strip()]


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of a command to its parser."""
    for name, settings, completer in ARGUMENTS.get(command, ()):
        action = parser.add_argument(name, **settings)
        if completer is not None:
            action.completer = completer  # type: ignore[attr-defined] # argcomplete reads this attribute
    if command == "service":
        from taoprofiles.guard.service import add_options

        add_options(parser.add_argument_group("options of the guard, for 'install'"))
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _parse_duration(text: str) -> float:
    """Parse a duration: a number of seconds, or a number with s, m, h or d. Return seconds."""
    factor = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:], 0)
    try:
        seconds = float(text[:-1]) * factor if factor else float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < float("inf"):  # false for nan too
        raise argparse.ArgumentTypeError(f"'{text}' is not a duration: write 90 (seconds), 30m, 8h or 2d")
    return seconds


def _parse_count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of lines")
    return int(text)


def split_setting(text: str) -> tuple[str, str, str]:
    """Split ``KEY=VALUE`` into key, "=" and value; with blanks around the "=", they do not count."""
    key, equals, value = text.partition("=")
    return key.strip(), equals, value.strip() if key != key.rstrip() else value


def again(args: argparse.Namespace, *options: str) -> str:
    """Return the command as it was given, with more options, for hints; a secret in it becomes a placeholder."""
    import shlex

    from taoprofiles.masking import MASK, mask_command

    words = [word.replace(MASK, "…") for word in mask_command(args.words)]
    end = words.index("--") if "--" in words else len(words)  # after it, an option would be none
    return " ".join(filter(None, ["taoprof", shlex.join(words[:end]), *options, shlex.join(words[end:])]))


def _parse_path(text: str) -> str:
    """Return a path as it is given. An empty one would be the current folder, and is a variable that is not set."""
    if not text:
        raise argparse.ArgumentTypeError("'' is not a path; is a variable empty or not set?")
    return text


CommandArgument = tuple[str, dict[str, Any], Callable[..., Any] | None]
"""An argument: its name, the settings for argparse, and what completes it in a shell."""


def _argument(name: str, help: str, **settings: Any) -> CommandArgument:
    return name, {"help": help, **settings}, None


def _flag(name: str, help: str) -> CommandArgument:
    return _argument(name, help, action="store_true")


def _path(name: str, metavar: str, help: str, **settings: Any) -> CommandArgument:
    return name, {"metavar": metavar, "help": help, "type": _parse_path, **settings}, _complete_path


def _profile(help: str = "name of the profile", *, metavar: str = "NAME", optional: bool = False) -> CommandArgument:
    return _known(metavar.lower(), metavar, help, _profiles, nargs="?" if optional else None)


def _known(
    name: str, metavar: str, help: str, find: Callable[[Context], dict[str, str]], **settings: Any
) -> CommandArgument:
    """Return an argument that a shell completes with the words that ``find`` returns, each with its description."""

    def complete(**_: object) -> dict[str, str]:
        from taoprofiles.storage.paths import Context

        try:
            return find(Context())
        except TaoprofError:
            return {}

    return name, {"metavar": metavar, "help": help, **settings}, complete


def _profiles(context: Context) -> dict[str, str]:
    """Return the profiles, each with its project: of words without a description zsh shows an empty one, '--'."""
    from taoprofiles.profiles.store import Store

    texts = {item.name: item.project_dir or item.extends or item.layout or "" for item in Store(context).summaries()}
    return {name: " ".join(text.split()) or "not valid" for name, text in texts.items()}


def _holds(context: Context) -> dict[str, str]:
    from taoprofiles.holds.manage import active_holds

    return {hold.id: f"{hold.profile}: {hold.line()}" for hold in active_holds(context).holds}


def _runs(context: Context) -> dict[str, str]:
    from itertools import islice

    from taoprofiles.runs.lookup import all_runs

    runs = (run for run in all_runs(context) if run.kind == "run")
    return {run.id: f"{run.profile}: {run.title()}" for run in islice(runs, 20)}


def _entries(context: Context) -> dict[str, str]:
    from itertools import islice

    from taoprofiles.storage.journal import History

    entries = islice(History(context).newest_first(), 20)
    return {str(entry.id): f"{entry.action} {entry.profile or ''}" for entry in entries}


def _complete_path(prefix: str, **_: object) -> list[str]:
    from argcomplete.completers import FilesCompleter

    return list(FilesCompleter()(prefix))


_INDICES = "indices (0,1; a single index needs a comma: 1,)"
_MKDIR = _flag("--mkdir", "create the source folders that do not exist")
_REVEAL = _flag("--reveal", "show secret values (KEY, TOKEN, SECRET, PASS, …)")
_STRICT = _flag("--strict", "exit with status 3 if there are warnings, not only for errors")
_YES = _flag("--yes", "do not ask for confirmation")


_HERE = "name of the profile; default: the profile of this project (.taoprof.toml)"
_RUN = "id of the run, or the beginning of it; '-': the newest"


def _wait(condition: str) -> CommandArgument:
    return _argument(
        "--wait",
        f"wait until {condition}, for at most TIME (90 = seconds, 30m, 8h); without TIME, indefinitely",
        nargs="?", const=float("inf"), type=_parse_duration, metavar="TIME",
    )  # fmt: skip


ARGUMENTS: dict[str, tuple[CommandArgument, ...]] = {
    "use": (
        _profile(
            "name of the profile; '-': the previous one; default: the profile of this project, or choose from a list "
            "(with fzf if it is installed)",
            optional=True,
        ),
        _flag("--create", "create the profile from the current folder if needed"),
        _MKDIR,
        _flag("--dry-run", "show what would change, and change nothing"),
        _wait("no hold prevents the switch"),
        _known("--release", "ID", "release hold ID before switching, even if its work is still running", _holds),
        _YES,
        _flag("--force", "switch even if 'taoprof check' reports errors"),
        _REVEAL,
    ),
    "undo": (_known("id", "ID", "number of a history entry; default: the last change", _entries, nargs="?"),),
    "history": (
        _path("path", "PATH", "show only the runs that wrote to this path on the host", nargs="?"),
        _flag("--all", "show every entry, not only the last 20"),
        _flag(
            "--purge",
            "delete the history, all stored file contents and the logs of runs (they may contain old secrets); nothing "
            "can be undone afterwards",
        ),
        _YES,
    ),
    "run": (
        _profile(_HERE, optional=True),
        _MKDIR,
        _argument(
            "--gpus",
            f"which GPUs: 'all', a count (2 = any two free ones), {_INDICES}, or 'none' (only with --image or --on); "
            "default: the profile's",
            metavar="WHICH",
        ),
        _argument(
            "--image",
            "run this image with 'docker run', without the launcher; default: the profile's, unless the command is "
            "'tao'; 'none': run the command on this machine",
        ),
        _argument("--on", "submit as a job to this cluster, and print its id", choices=("slurm", "kubernetes")),
        _flag("--shared", "switch the mapping file and hold it during the run"),
        _wait("the GPUs and the results folder (with --shared, the mapping file too) are free"),
        _argument(
            "--notify",
            "notify TARGET at the end, instead of the profile's: 'desktop' or a URL of Apprise (repeatable), or 'none'",
            metavar="TARGET",
            action="append",
        ),
        _flag("--detach", "start in the background, survive a logout, and print the id"),
        _flag(
            "--force",
            "start even if 'taoprof check' reports errors or another run is writing to the same results folder",
        ),
    ),
    "shell": (_profile(_HERE, optional=True), _MKDIR, _flag("--force", "start even if 'taoprof check' reports errors")),
    "logs": (
        _known("run", "RUN", f"{_RUN}; a profile's name: its newest run", _runs),
        _argument("-f", "show new output until the run ends", dest="follow", action="store_true"),
        _argument("-n", "show only the last N lines", dest="lines", type=_parse_count, metavar="N"),
    ),
    "wait": (
        _known("run", "RUN", f"{_RUN}; a profile's name: its newest run", _runs, nargs="+"),
        _argument(
            "--timeout",
            "give up after TIME (90 = seconds, 30m, 8h), with exit status 124",
            type=_parse_duration,
            metavar="TIME",
            default=float("inf"),
        ),
    ),
    "stop": (
        _known(
            "id", "ID", "id of the run, shell or notebook, or the beginning of it; '-': the newest active run", _holds
        ),
        _YES,
    ),
    "hold": (
        _profile("fail unless this profile is active; without NAME, hold whatever the file contains", optional=True),
        _argument("--reason", "shown when a switch is refused", required=True, metavar="TEXT"),
        _argument(
            "--for",
            "release after TIME: 90 (seconds), 30m, 8h, 2d (default: until 'taoprof release')",
            dest="seconds",
            type=_parse_duration,
            metavar="TIME",
        ),
        _argument("--pid", "release when process PID ends", type=int, metavar="PID"),
    ),
    "release": (_known("id", "ID", "id of the hold, as 'taoprof status' shows it", _holds), _YES),
    "current": (
        _flag(
            "--short",
            "print one word for a prompt: NAME; NAME~ if the profile and the file differ; ? if another program wrote "
            "the file; empty without a file",
        ),
    ),
    "status": (
        _flag(
            "--watch", "keep showing the status until q or Ctrl-C; without a terminal, print it again after each change"
        ),
        _flag("--check", "exit with 6 unless a profile is active and unchanged"),
        _flag("--paths", "show only the paths of taoprof's files"),
        _REVEAL,
    ),
    "show": (
        _profile("name of the profile; default: the profile of this project, or the active one", optional=True),
        _flag("--toml", "print the profile file without its secrets, to share it"),
        _path("--svg", "FILE", "write a drawing of the mounts as an SVG file"),
        _REVEAL,
    ),
    "check": (
        _profile(
            "name of the profile; default: the profile of this project, or the mounts file that tao would read now",
            optional=True,
        ),
        _argument("--launcher", "check for this version of the launcher; default: the tao on PATH", metavar="VERSION"),
        _argument("--image", "check a task without the launcher in this image, as 'run --image' starts it"),
        _argument("--gpus", f"check it with these GPUs: 'all', a count, {_INDICES} or 'none'", metavar="WHICH"),
        _STRICT,
        _flag("--fix", "fix what needs no decision, after showing the changes"),
        _YES,
        _REVEAL,
    ),
    "diff": (
        _profile("a profile; default: the active one", metavar="A", optional=True),
        _profile("another profile; default: the mapping file", metavar="B", optional=True),
        _REVEAL,
    ),
    "path": (
        _path("path", "PATH", "a path on this host or in the container"),
        _profile(
            "use the mounts of this profile (default: of the file that 'tao' started here would read)", optional=True
        ),
    ),
    "doctor": (_STRICT,),
    "new": (
        _argument(
            "name", "name of the new profile; unless --network is given, also the name of the network", metavar="NAME"
        ),
        _path("--project-dir", "DIR", "the project folder (default: the current folder)"),
        _path("--notebook-dir", "DIR", "folder of the notebook and its specs/ (default: the project folder)"),
        _argument("--network", "network name, if it differs from the profile name", metavar="NAME"),
        _argument(
            "--layout",
            "which variables and mounts to derive: local (TensorFlow networks), host (PyTorch networks), tao7 (without "
            "the launcher) or custom (none); default: by network; tao7 for an image of TAO 7, or without a launcher",
            choices=LAYOUTS,
        ),
        _argument("--image", "image in which 'run' and 'render' start the tasks without the launcher"),
        _argument("--description", "one line about the profile", metavar="TEXT"),
        _known("--from", "OTHER", "copy this profile instead of creating one from a folder", _profiles, dest="source"),
        _known("--extends", "OTHER", "create a profile that extends OTHER, to set your own values on top", _profiles),
        _flag("--project", "also write it to .taoprof.toml in the project folder, for the project's repository"),
    ),
    "import": (
        _path(
            "file",
            "FILE",
            "a notebook, a Python or shell script, a Compose file, a folder of them, a mounts file or a profile; '-' "
            "is stdin; default: the mapping file",
            nargs="?",
        ),
        _argument("--name", "name of the new profile (default: the file's name)", metavar="NAME"),
        _argument(
            "--set",
            "set a variable of the notebook, such as LOCAL_PROJECT_DIR=~/tao/kitti, or a mount source by its "
            "destination: /data=DIR (repeatable)",
            metavar="NAME=VALUE",
            action="append",
            default=[],
            dest="user_values",
        ),
        _flag("--force", "replace an existing profile of that name ('taoprof undo' restores it)"),
        _flag("--yes", "keep the commands (on_start, on_end) and notifications of a profile without asking"),
        _flag("--kernel", "also install the Jupyter kernel of the profile, as 'taoprof kernel install' does"),
        _flag("--in-place", "with --kernel: select it in the notebook; the original is kept as FILE.bak"),
    ),
    "edit": (_profile(),),
    "set": (
        _profile(),
        _argument(
            "settings",
            "a key or variable and its new value, such as NUM_GPUS=2 or docker.shm_size=32G",
            metavar="KEY=VALUE",
            nargs="*",
        ),
        _argument("--unset", "remove a key or variable (repeatable)", metavar="KEY", action="append", default=[]),
    ),
    "rename": (_profile(), _argument("to", "the new name", metavar="NEW")),
    "remove": (_profile(), _flag("--force", "remove it even if it is active or others extend it")),
    "trust": (
        _path(
            "file",
            "FILE",
            "the project file, its folder, or with --revoke the profile; default: here or above",
            nargs="?",
        ),
        _argument("--name", "name of the profile (default: that of the project's folder)", metavar="NAME"),
        _path(
            "--allow",
            "FOLDER",
            "a folder outside of the project that it may mount (repeatable)",
            action="append",
            default=[],
        ),
        _flag("--list", "list the trusted project files"),
        _flag("--revoke", "stop trusting the file, and remove its profile"),
        _YES,
    ),
    "env": (
        _profile(_HERE, optional=True),
        _argument("--format", "default: bash, which also works for zsh", choices=ENV_FORMATS, default="bash"),
        _REVEAL,
    ),
    "init": (_argument("shell", "your shell: bash, zsh or fish", choices=("bash", "zsh", "fish"), metavar="SHELL"),),
    "kernel": (
        _argument("action", "install, list or remove", choices=("install", "list", "remove"), metavar="ACTION"),
        _profile("name of the profile; default of 'install': the profile of this project", optional=True),
        _path(
            "--python",
            "PATH",
            "install: the Python with ipykernel; default: of VIRTUAL_ENV, taoprof's own, or the python3 on PATH",
        ),
        _flag("--user", "in the user's folder of kernels (default of 'install')"),
        _path("--prefix", "DIR", "in the environment DIR, such as /usr/local or that of a JupyterLab"),
        _flag("--sys-prefix", "in the environment of taoprof itself"),
        _flag("--all", "remove: the kernels of all profiles"),
    ),
    "render": (
        _profile(_HERE, optional=True),
        _argument("--to", "output format", required=True, choices=TARGETS),
        _argument(
            "--image",
            "container image; default: the profile's, or the one in which the installed launcher runs the task",
        ),
        _argument("--gpus", f"'all', a count, {_INDICES} or 'none'; default: the profile's, or all", metavar="WHICH"),
    ),
    "skill": (
        _argument("action", "install (or upgrade)", choices=("install",), metavar="ACTION"),
        _path(
            "folder",
            "DIR",
            "the folder of skills; default: each of ~/.claude/skills, ~/.codex/skills and "
            "~/.agents/skills whose agent is there",
            nargs="?",
        ),
    ),
    "uninstall": (
        _flag("--dry-run", "show what would be removed, and remove nothing"),
        _flag("--state", "also delete the profiles, the history and the logs"),
        _YES,
    ),
    "service": (
        _argument(
            "action",
            "install (or upgrade, and start), uninstall, start, stop, status, or logs (the last 50 lines)",
            choices=("install", "uninstall", "start", "stop", "status", "logs"),
            metavar="ACTION",
        ),
    ),
}
"""By command; ``list`` and ``schema`` have none. All commands have ``--json``."""
