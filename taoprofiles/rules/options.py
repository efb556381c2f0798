"""What the launcher and Docker will make of the DockerOptions: docker_handler.py of nvidia-tao 6.26.3, docker 4.3.1."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from taoprofiles.launcher.sizes import in_bytes
from taoprofiles.rules.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from typing import Any

    from taoprofiles.rules.locations import Where

MIB = 1 << 20
GIB = 1 << 30
_RECOMMENDED = "16G"
"""What NVIDIA's notebooks and documentation recommend."""

_BINARY = r"([0-9]+) ?([KMGkmg])i[Bb]?"
"""A size as other programs write it, which says what was meant: 16GiB."""

_USER = r"[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?"
_LITERAL = r"(?:YOUR_?)?(?:UID|uid|USER(?:_?(?:ID|NAME))?)(?::.*)?"


def judge(options: dict[str, Any], where: Where, *, memory: int) -> Iterator[Finding]:
    """Find what the options will do to a training; ``memory`` is the host's in bytes, 0 where it is not known."""
    yield from _shared_memory(options, where, memory)
    if options.get("tty") is False:
        yield Finding(
            "opt-tty-false", where("DockerOptions", "tty"), "the container gets no terminal",
            "an image whose command is a shell then ends at once, and Ctrl-C does not reach the task",
            "leave it away where tao is started in a terminal",
        )  # fmt: skip
    if options.get("network") == "host" and options.get("ports"):
        yield Finding(
            "ports-without-network", where("DockerOptions", "ports"), "ports are published, and the network is 'host'",
            "Docker drops them: in the host's network there is nothing to publish",
            "take one of the two out",
        )  # fmt: skip


def ports(options: dict[str, Any], where: Where, *, taken: Collection[int]) -> Iterator[Finding]:
    """Find host ports that are taken now, and those that a second run beside this one could not have."""
    if options.get("network") == "host" or not isinstance(options.get("ports"), dict):
        return
    for inside, given in options["ports"].items():
        at = where("DockerOptions", "ports", inside)
        for port in given if isinstance(given, list) else [given]:
            if not isinstance(port, int) or port == 0:
                continue
            if port in taken:
                yield Finding(
                    "port-in-use", at, f"port {port} of this host is taken",
                    f"Docker refuses: Bind for 0.0.0.0:{port} failed: port is already allocated",
                    "publish on another port, or end what has it: ss -ltnp",
                )  # fmt: skip
            else:
                yield Finding(
                    "port-fixed-shared", at, f"port {port} of this host is published",
                    "two runs with this profile cannot go side by side, and whoever reaches this host reaches the port",
                    "take it out where nothing needs it",
                )  # fmt: skip


def shapes(
    options: object, where: Where, *, known: Collection[str], version: str, null_is_fine: bool
) -> Iterator[Finding]:
    """Find what the launcher ``version`` would stop at; ``known`` are the options that it takes."""
    at = where("DockerOptions")
    if options is None:
        if not null_is_fine:
            why = "the launcher would stop: AttributeError: 'NoneType' object has no attribute 'keys'"
            yield Finding("opts-null", at, "DockerOptions is null", why, "write {}, or leave DockerOptions out")
        return
    if not isinstance(options, dict):
        yield Finding("opts-shape", at, "DockerOptions is no object", "the launcher would stop with a traceback")
        return
    for key in options:
        if key not in known:
            import difflib

            close = difflib.get_close_matches(key, known, n=1)
            yield Finding(
                "opt-unknown-for-version", where("DockerOptions", key), f"launcher {version} does not know '{key}'",
                f'it would stop: The parameter "{key}" mentioned in the config file isn\'t a valid option.',
                f"perhaps '{close[0]}' is meant" if close else f"take it out; it knows {', '.join(sorted(known))}",
                fix=() if close else ("unset", f"docker.{key}"),
            )  # fmt: skip
    if "shm_size" in options and in_bytes(options["shm_size"]) is None:
        why = "Docker's SDK stops with a traceback; it knows b, k, m and g"
        meant = re.fullmatch(_BINARY, str(options["shm_size"]))
        fix = ("set", f"docker.shm_size={meant[1]}{meant[2].upper()}") if meant else ()
        hint = f'such as "{_RECOMMENDED}"'
        at = where("DockerOptions", "shm_size")
        yield Finding("shm-unit", at, f"{options['shm_size']!r} is no size", why, hint, fix=fix)
    yield from _ulimits(options, where)
    if not isinstance(options.get("ports", {}), dict):
        what, why = "ports is no object", "the launcher would stop with a traceback"
        yield Finding("port-shape", where("DockerOptions", "ports"), what, why, 'such as {"8888": 8888}')


def _ulimits(options: dict[str, Any], where: Where) -> Iterator[Finding]:
    limits = options.get("ulimits", {})
    if not isinstance(limits, dict):
        why = "the launcher would stop: Ulimits should be a dictionary of params"
        hint = 'such as {"memlock": -1, "stack": 67108864}'
        yield Finding("ulimit-type", where("DockerOptions", "ulimits"), "ulimits is no object", why, hint)
        return
    for name, value in limits.items():
        if not isinstance(value, int):
            yield Finding(
                "ulimit-type", where("DockerOptions", "ulimits", name), f"the limit {name} is no whole number",
                "the launcher would stop: ValueError: Ulimit.soft must be an integer", "write it without quotes",
            )  # fmt: skip


def user(options: dict[str, Any], where: Where, *, uid: int, gid: int, has_home: bool) -> Iterator[Finding]:
    """Judge whom the container works as; ``uid``, ``gid`` are the caller's, ``has_home``: HOME is set there."""
    me, is_root = f"{uid}:{gid}", uid == 0
    at, fix = where("DockerOptions", "user"), ("set", "docker.user=auto")
    given = options.get("user")
    if given in (None, ""):
        if not is_root:
            yield Finding(
                "user-missing", at, "no user is set, so the container works as root",
                "results belong to root: you cannot delete them, and later runs as you cannot write them",
                f'set it to "{me}", your own', fix=fix,
            )  # fmt: skip
        return
    text = str(given)
    if not text.replace(":", "", 1).isdigit() and (not re.fullmatch(_USER, text) or re.fullmatch(_LITERAL, text)):
        yield Finding(
            "user-literal", at, f"'{text}' is no user",
            "the launcher takes it, and Docker refuses: unable to find user", f'set it to "{me}", your own', fix=fix,
        )  # fmt: skip
        return
    if text != me and text.partition(":")[0] != me.partition(":")[0]:
        yield Finding(
            "user-not-me", at, f"the container works as '{text}', and you are {me}",
            "what it writes is not yours, and what is yours it may not write", f'set it to "{me}"', fix=fix,
        )  # fmt: skip
    if not has_home and text.partition(":")[0] not in ("0", "root"):
        yield Finding(
            "user-without-home", at, "the container's user has no home",
            "the image does not know the user id, so HOME is '/', and matplotlib, torch and wandb stop: "
            "PermissionError: [Errno 13] Permission denied: '/.config'",
            "set HOME for the container, such as HOME=/tmp", fix=("set", "container.env.HOME=/tmp"),
        )  # fmt: skip


def _shared_memory(options: dict[str, Any], where: Where, memory: int) -> Iterator[Finding]:
    at, fix = where("DockerOptions", "shm_size"), ("set", f"docker.shm_size={_RECOMMENDED}")
    symptom = "training with several workers stops: Unexpected bus error … insufficient shared memory (shm)"
    value = options.get("shm_size")
    if value is None:
        hint = f'set it to "{_RECOMMENDED}", as NVIDIA recommends'
        yield Finding("shm-missing", at, "the shared memory is Docker's 64 MB", symptom, hint, fix=fix)
        return
    given = in_bytes(value)
    if given is None:
        return
    if given < GIB:
        what = f"the shared memory is {given // MIB} MB" if given >= MIB else f"the shared memory is {given} bytes"
        yield Finding("shm-too-small", at, what, symptom, f'set it to "{_RECOMMENDED}"', fix=fix)
    elif memory and given > memory:
        what = f"the shared memory may grow to {given // GIB} GB, and this host has {memory // GIB} GB of memory"
        why = "a training that fills it is killed, or others on this host are"
        yield Finding("shm-over-memory", at, what, why, "set it to half of the host's memory")
