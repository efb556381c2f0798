"""What the launcher will make of the container's environment, and what the shell's own variables will do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taoprofiles.masking import is_secret
from taoprofiles.rules.finding import Finding
from taoprofiles.rules.mounts import placeholder

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from typing import Any

    from taoprofiles.rules.locations import Where

KNOWN = (
    "CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
    "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "TAO_TOOLKIT_CACHE", "WANDB_API_KEY", "WANDB_BASE_URL",
    "WANDB_USERNAME", "WANDB_ENTITY", "WANDB_PROJECT", "CLEARML_WEB_HOST", "CLEARML_API_HOST", "CLEARML_FILES_HOST",
    "CLEARML_API_ACCESS_KEY", "CLEARML_API_SECRET_KEY", "MPLCONFIGDIR", "TORCH_HOME", "PYTHONPATH",
)  # fmt: skip
"""What TAO's documentation and notebooks set, and what its libraries read."""


def nulls(envs: list[dict[str, Any]], where: Where) -> Iterator[Finding]:
    """Find variables of the container that are None, as a text or as null."""
    for number, env in enumerate(envs):
        name, value = env["variable"], env["value"]
        at = where("Envs", number)
        if value is None or (isinstance(value, str) and value in ("None", "null")):
            yield Finding(
                "env-null", at, f"{name} is {'null' if value is None else repr(value)}",
                f"the container gets the text '{value}', which os.getenv of an unset variable left there",
                f"give {name} a value, or take it out", fix=("unset", f"container.env.{name}"),
            )  # fmt: skip


def judge(envs: list[dict[str, Any]], where: Where) -> Iterator[Finding]:
    """Find variables of the container that are no text, or that nothing reads."""
    import difflib  # not for 'use', which has no time

    for number, env in enumerate(envs):
        name, value = env["variable"], env["value"]
        at = where("Envs", number)
        if value is not None and not isinstance(value, str):
            what = f"{name} is {'true or false' if isinstance(value, bool) else 'no text'}"
            why = "" if is_secret(str(name)) else f"the container gets {str(value)[:40]!r}"
            yield Finding("env-not-text", at, what, why, "write it in quotes")
        close = difflib.get_close_matches(str(name), KNOWN, n=1, cutoff=0.9)
        if close and name not in KNOWN:
            why = "nothing reads a variable of this name"
            if name == "OMP_NUM_THREADSR":
                why = "NVIDIA's documentation has it with this misprint; nothing reads it"
            hint = f"write {close[0]}"
            yield Finding("env-typo", at, f"'{name}' is nearly '{close[0]}'", why, hint)


def plain_secrets(env: Mapping[str, str], where: Where) -> Iterator[Finding]:
    """Find secrets that stand in a profile as they are; ``env`` is the template's, by name, as expressions."""
    for number, (name, expression) in enumerate(env.items()):
        if is_secret(name) and expression and "${" not in expression:
            yield Finding(
                "env-secret-plain", where("Envs", number), f"the value of {name} stands in the profile",
                "whoever reads the file, or a copy of it, has it",
                f"export {name} in the shell, and: taoprof set NAME 'container.env.{name}=${{env:{name}}}'",
            )  # fmt: skip


def left_open(variables: Mapping[str, str]) -> Iterator[Finding]:
    """Find variables of the profile that somebody was to fill in."""
    for name, value in variables.items():
        left = placeholder(value)
        if left and not is_secret(name):
            what = f"'{value}' still has '{left}' in it"
            yield Finding("variable-placeholder", f"variables.{name}", what, hint=f"taoprof set NAME {name}=…")


def differing(variables: Mapping[str, str], environ: Mapping[str, str], secret: Collection[str]) -> Iterator[Finding]:
    """Find variables that this shell has with another value than the profile."""
    for name, value in variables.items():
        theirs = environ.get(name, value)
        if theirs == value:
            continue
        kept = name in secret or is_secret(name)
        what = f"{name} is another one in this shell" if kept else f"{name} is '{theirs}' in this shell, not '{value}'"
        why = "a plain tao command here expands the shell's"
        if name == "KEY":
            why += "; a wrong key ends in: The zipfile extracted was corrupt. Please check your key"
        yield Finding("variables-differ", f"variables.{name}", what, why, f"'taoprof run' sets it, or unset {name}")
