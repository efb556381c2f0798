"""The examples in the help: of each command, command lines and what they are for."""

from __future__ import annotations

from collections.abc import Sequence

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
        ("taoprof stop -", "stop the newest run"),
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
    "edit": (("taoprof edit segformer", "the editor's text is checked before it is used"),),
    "set": (
        ("taoprof set segformer docker.shm_size=32G", "a key"),
        ("taoprof set segformer NUM_GPUS=2", "a variable"),
        ("taoprof set segformer --unset NUM_GPUS", "back to the layout's value"),
    ),
    "rename": (("taoprof rename segformer city", "its kernels follow"),),
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
