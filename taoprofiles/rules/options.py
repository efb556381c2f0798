"""Rules for DockerOptions: docker_handler.py of nvidia-tao 6.26.3 and the Docker SDK 4.3.1, and Docker's own rules."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from taoprofiles.launcher.host import Location
from taoprofiles.launcher.prediction import Refusal
from taoprofiles.launcher.sdk import size_in_bytes
from taoprofiles.rules.finding import Finding, error, warning
from taoprofiles.rules.locations import Locator

if TYPE_CHECKING:
    from taoprofiles.launcher.versions import Behaviour

MIB = 1 << 20
GIB = 1 << 30
_RECOMMENDED = "16G"
"""What NVIDIA's notebooks and documentation recommend."""

_BINARY = r"([0-9]+) ?([KMGkmg])i[Bb]?"
"""A size as other programs write it, whose meaning is clear: 16GiB."""


def explain(refusal: Refusal, options: Any, locate: Locator, behaviour: Behaviour) -> Finding:
    """Return the finding for a refusal of the launcher; ``options`` are as written, of any type."""
    key, where, stops = refusal.location.key, locate(refusal.location), f"the launcher stops: {refusal}"
    if not key:
        what = f"DockerOptions is {'null' if options is None else 'not an object'}"
        return error("opts-shape", where, what, stops, "write {}, or remove DockerOptions", by_hand=True)
    if key.startswith("ulimits"):
        hint = 'such as {"memlock": -1, "stack": 67108864}'
        what = f"{key} is not {'an object' if key == 'ulimits' else 'a whole number'}"
        return error("opts-shape", where, what, stops, hint, by_hand=True)
    if key == "shm_size":
        return _bad_size(options[key], where, stops)
    if key.startswith("ports"):
        return error("opts-shape", where, f"{key} is not valid", stops, 'such as {"8888": 8888}', by_hand=True)
    if key not in behaviour.options:
        import difflib

        close = difflib.get_close_matches(key, behaviour.options, n=1)
        return error(
            "opt-unknown-for-version", where, f"launcher {behaviour.version} does not know '{key}'", stops,
            f"perhaps '{close[0]}' is meant" if close else f"remove it; known: {', '.join(sorted(behaviour.options))}",
            fix=() if close else ("unset", f"docker.{key}"), by_hand=True,
        )  # fmt: skip
    return error("launcher-refuses", where, f"the launcher stops: {refusal}")


def check(options: dict[str, Any], locate: Locator, *, memory: int, used_ports: Collection[int]) -> Iterator[Finding]:
    """Check what the options do to a training.

    ``memory`` is the host's in bytes, 0 if unknown; ``used_ports`` are the host's ports with a listener.
    """
    yield from _check_shared_memory(options, locate, memory)
    ports = options.get("ports")
    if options.get("network") == "host":
        if ports:
            where, what = locate(_key("ports")), "published ports have no effect with network 'host'"
            why = "Docker ignores them: with the host's network, ports need not be published"
            yield warning("ports-without-network", where, what, why, "remove one of the two", by_hand=True)
    elif isinstance(ports, dict):
        yield from _check_ports(ports, locate, used_ports)


def _key(name: str) -> Location:
    return Location("DockerOptions", key=name)


def _check_ports(ports: dict[str, Any], locate: Locator, used_ports: Collection[int]) -> Iterator[Finding]:
    for inside, published in ports.items():
        for port in published if isinstance(published, list) else [published]:
            if isinstance(port, int) and port in used_ports:
                yield error(
                    "port-in-use", locate(_key(f"ports.{inside}")), f"port {port} of this host is in use",
                    f"Docker refuses: Bind for 0.0.0.0:{port} failed: port is already allocated",
                    "publish another port, or stop the program that has it: ss -ltnp", by_hand=True,
                )  # fmt: skip


def _check_shared_memory(options: dict[str, Any], locate: Locator, memory: int) -> Iterator[Finding]:
    where, fix = locate(_key("shm_size")), ("set", f"docker.shm_size={_RECOMMENDED}")
    symptom = "training with several workers stops: Unexpected bus error … insufficient shared memory (shm)"
    value = options.get("shm_size")
    if value is None:
        hint = f'set it to "{_RECOMMENDED}", as NVIDIA recommends'
        yield warning("shm-too-small", where, "the shared memory has Docker's default of 64 MB", symptom, hint, fix=fix)
        return
    size = size_in_bytes(value)
    if size is None:
        if not isinstance(value, str):  # the launcher passes it on
            yield _bad_size(value, where, "Docker refuses it")
    elif size < GIB:
        what = f"the shared memory is {size // MIB} MB" if size >= MIB else f"the shared memory is {size} bytes"
        yield warning("shm-too-small", where, what, symptom, f'set it to "{_RECOMMENDED}"', fix=fix)
    elif memory and size > memory:
        what = f"the shared memory may grow to {size // GIB} GB, and this host has {memory // GIB} GB of memory"
        why = "when it fills up, the kernel may kill the training or other programs"
        yield warning("shm-over-memory", where, what, why, "set it to half of the host's memory", by_hand=True)


def _bad_size(value: object, where: str, why: str) -> Finding:
    size = re.fullmatch(_BINARY, str(value))
    fix = ("set", f"docker.shm_size={size[1]}{size[2].upper()}") if size else ()
    return error("shm-unit", where, f"{value!r} is not a size", why, f'such as "{_RECOMMENDED}"', fix=fix, by_hand=True)
