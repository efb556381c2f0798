"""The plan of a container: a profile's mapping, an image and a command, without the value of any secret.

A variable that is a secret has no value in a plan, and a word of the command that contains one has a reference in its
place. So no renderer can write a secret out. Also what renderers share: GPUs, words of a shell and YAML.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from taoprofiles.errors import CannotRenderError
from taoprofiles.launcher.behaviour import explain_hidden_folder
from taoprofiles.launcher.quoting import VARIABLE
from taoprofiles.launcher.simulation import size_in_bytes
from taoprofiles.masking import MASK, MIN_SECRET_LENGTH, is_secret_argument, mask_command
from taoprofiles.profiles.layouts import with_identity
from taoprofiles.profiles.rendering import Renderer
from taoprofiles.storage.paths import to_bytes
from taoprofiles.system.filesystem import answers, no_answer, real_paths

_IMAGE = re.compile(r"[A-Za-z0-9\[/.~][^\s\x00-\x1f\x7f]*\Z")
"""What cannot be taken for an option or for two words; everything else is judged by the engine."""
OF_PROGRAMS = re.compile(
    r"(LD|DYLD|SBATCH|SLURM|TAOPROF)_.*|DOCKER_(HOST|CONTEXT|CONFIG|CERT_PATH)|PYTHON(PATH|HOME|STARTUP)|PERL5(LIB|OPT)|"
    r"PATH|HOME|ENV|BASH_ENV|SHELL|SHELLOPTS|BASHOPTS|IFS|PS4|GCONV_PATH|GLIBC_TUNABLES|SSH_ASKPASS|KUBECONFIG"
)
"""Variables that act on the programs of a run, such as docker or sbatch, whose environment has the secrets."""
_PORT = re.compile(r"([0-9]{1,5})(?:/(tcp|udp|sctp))?\Z")


class Secret(NamedTuple):
    """A reference to the value of the variable ``name``."""

    name: str


Word = tuple["str | Secret", ...]
"""A word of a command line: its parts in their order."""

_Secrets = list[tuple[str, str]]
"""Names and values."""


class PlanMount(NamedTuple):
    """``source`` on the host and ``destination`` in the container, both absolute."""

    source: str
    destination: str
    is_file: bool = False
    read_only: bool = False

    def resolved(self) -> PlanMount:
        """Return the mount with the symlinks of its source resolved on this host."""
        return self._replace(source=next(real_paths([self.source])))


class PlanPort(NamedTuple):
    """``host`` is None if the port is only exposed, 0 if the engine chooses it."""

    container: int
    protocol: str
    host: int | None


class Plan(NamedTuple):
    """A container to start."""

    name: str
    image: str
    command: list[Word]
    mounts: list[PlanMount]
    env: dict[str, str | None]  # a value of None is a secret
    user: str | None
    shm_size: int | None  # bytes
    ulimits: dict[str, int]
    ports: list[PlanPort]
    network: str | None
    privileged: bool
    tty: bool | None  # None if the profile does not say
    gpus: str | int | list[str]  # "all", a number, or a list of devices
    caller: str  # the user who starts it, as UID:GID
    groups: list[int]  # further groups of the container, by which it may use the mounted folders
    labels: dict[str, str]  # for Docker and Kubernetes
    warnings: list[str]  # what was left out, one line each
    slurm: dict[str, Any]
    kubernetes: dict[str, Any]
    job: str  # the name of the cluster's job

    @property
    def secrets(self) -> list[str]:
        """Return the names of the secrets that must be provided: variables of the container, and of the command."""
        of_command = [part.name for word in self.command for part in word if isinstance(part, Secret)]
        return list(dict.fromkeys([*(name for name, value in self.env.items() if value is None), *of_command]))


class Rendered(NamedTuple):
    """A plan written for one target."""

    text: str
    warnings: list[str]  # with what the target cannot express
    store: str = ""  # the command that puts the secrets where the target reads them, "" if it reads the environment


def plan_container(
    renderer: Renderer,
    *,
    image: str,
    mapping: dict[str, Any] | None = None,
    command: Sequence[str] = (),
    gpus: str | int | list[str] = "all",
    labels: Mapping[str, str] | None = None,
) -> Plan:
    """Return the plan of a container of the renderer's profile that runs ``command``, the task's own words.

    ``mapping`` replaces the one that the profile renders. Raises InvalidProfileError, and CannotRenderError with all
    problems.
    """
    name, context = renderer.name, renderer.context
    caller = f"{context.uid}:{context.gid}"
    mapping = with_identity(renderer.mapping() if mapping is None else mapping)
    options = mapping.get("DockerOptions", {})
    secrets = [(key, value) for key, value in renderer.secret_values() if len(value) >= MIN_SECRET_LENGTH]
    pairs = [(mount["source"], mount["destination"]) for mount in mapping["Mounts"]]
    is_file = answers(os.path.isfile, [source for source, _ in pairs])
    mounts = [
        PlanMount(os.path.normpath(source), os.path.normpath(destination), is_file.get(source, False), read_only)
        for (source, destination), read_only in zip(pairs, renderer.read_only, strict=True)
    ]
    user = str(options["user"]) if "user" in options else None
    network, ulimits = options.get("network"), options.get("ulimits") or {}
    shm_size = size_in_bytes(options.get("shm_size", 0))
    ports, problems = _ports(options.get("ports") or {})
    problems = [*_text_problems(mounts, user, secrets), *problems]
    if not _IMAGE.match(image):
        problems.append(f"'{image[:100]}' is not the name of an image")
    if shm_size is None:
        problems.append("docker.shm_size: not a size")
    refuse(f"profile '{name}'", problems)
    warnings = [no_answer(source) for source, _ in pairs if source not in is_file]
    warnings += filter(None, (explain_hidden_folder(mount.destination) for mount in mounts))
    if ports and network == "host":
        ports = []
        warnings.append("docker.ports are left out: Docker ignores them on the host's network")
    words, word_warnings = _words(command, renderer.variables() if command else {}, secrets)
    secret_env = renderer.secrets()[1]
    env: dict[str, str | None] = {item["variable"]: str(item["value"]) for item in mapping.get("Envs", [])}
    for key, value in env.items():
        if key in secret_env or any(secret in str(value) for _, secret in secrets):
            env[key] = None
    refuse_names(name, [key for key, value in env.items() if value is None])
    if isinstance(gpus, list) and "CUDA_VISIBLE_DEVICES" in env:
        del env["CUDA_VISIBLE_DEVICES"]  # it counts the GPUs of the container, from 0 on
        warnings.append("CUDA_VISIBLE_DEVICES is left out: the container has only the GPUs of --gpus")
    return Plan(
        name=name,
        image=image,
        command=words,
        mounts=mounts,
        env=env,
        user=user,
        shm_size=shm_size or None,  # an engine replaces 0 by its default
        ulimits=ulimits,
        ports=ports,
        network=network,
        privileged=bool(options.get("privileged")),
        tty=options.get("tty"),
        gpus=gpus,
        caller=caller,
        groups=context.groups if context.uid and user == caller else [],
        labels=dict(labels or {}),
        warnings=warnings + word_warnings,
        **renderer.template["clusters"],
        job=job_name(name),
    )


def job_name(profile: str, run_id: str = "") -> str:
    """Return a name that Kubernetes accepts: lower case, digits and '-', at most 63 characters, no '-' at the end."""
    ending = f"-{run_id}" if run_id else ""
    start = re.sub(r"[^a-z0-9-]", "-", f"taoprof-{profile}".lower())[: 63 - len(ending)]
    return start.rstrip("-") + ending


def gpu_count(plan: Plan, warnings: list[str], unit: str, system: str) -> int:
    """Return how many GPUs to request where ``system`` gives a number of them to a ``unit``, and add warnings."""
    if plan.gpus == "all":
        warnings.append(f"all GPUs: {unit} requests a number of GPUs, here 1; use --gpus N for more")
        return 1
    if isinstance(plan.gpus, list):
        if plan.gpus:
            warnings.append(f"GPUs {','.join(plan.gpus)}: {system} chooses which {len(plan.gpus)} {unit} gets")
        return len(plan.gpus)
    return int(plan.gpus)


def refuse(what: str, problems: Sequence[str]) -> None:
    """Raise CannotRenderError if there are problems."""
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise CannotRenderError(f"cannot render {what}: {count}", problems=list(problems))


def refuse_names(what: str, names: Sequence[str]) -> None:
    """Raise CannotRenderError for secrets of the container whose names act on the programs that start it."""
    why = "it is a secret, or refers to one, and in the environment of docker or sbatch it would act on that program"
    refuse(f"profile '{what}'", [f"container.env.{name}: {why}" for name in names if OF_PROGRAMS.fullmatch(name)])


def _text_problems(mounts: Sequence[PlanMount], user: str | None, secrets: _Secrets) -> Iterator[str]:
    texts = [("docker.user", user or "")]
    for number, mount in enumerate(mounts):
        texts += [(f"mounts[{number}].source", mount.source), (f"mounts[{number}].destination", mount.destination)]
    for where, text in texts:
        # A path is not a secret, whatever the name of its variable (KEYS_DIR): paths are shown everywhere.
        owner = next((key for key, value in secrets if value in text and not value.startswith("/")), None)
        if owner is not None:
            yield f"{where}: it contains the value of the secret '{owner}', which is not printed"
        elif any(ord(character) < 32 or ord(character) == 127 for character in text):
            yield f"{where}: it contains a control character"


def _ports(ports: Mapping[str, Any]) -> tuple[list[PlanPort], list[str]]:
    result, problems = [], []
    for key, hosts in ports.items():
        match = _PORT.match(key)
        if not match or not 0 < int(match[1]) < 65536:
            problems.append(f"docker.ports: '{key[:40]}' is not a container port; write 8888 or 8888/udp")
            continue
        listed = list(dict.fromkeys(hosts)) if isinstance(hosts, list) else [hosts]
        result += [PlanPort(int(match[1]), match[2] or "tcp", host) for host in listed or [None]]
    return result, problems


def _words(command: Sequence[str], variables: Mapping[str, str], secrets: _Secrets) -> tuple[list[Word], list[str]]:
    """Expand the profile's own variables in the words, and replace secrets by references; also return warnings."""
    words: list[Word] = []
    warnings: list[str] = []
    before = ""
    for number, word in enumerate(command):
        name, equals, value = word.partition("=")
        key = name.rpartition(".")[2]
        parts = list(_expand(word, variables, secrets))
        has_secret = any(isinstance(part, Secret) for part in parts)
        is_value = before.startswith("-") and "=" not in before and is_secret_argument(before)
        if is_value and not has_secret and not word.startswith("-"):
            parts = [_reference(before, word, warnings)]
        elif equals and value and is_secret_argument(name) and not has_secret:
            parts = [f"{name}=", _reference(key, value, warnings)]
        elif _has_literal_secret(parts):
            parts = [_reference(f"argument {number}", word, warnings)]
        words.append(tuple(parts))
        before = word
    return words, warnings


def _has_literal_secret(parts: Sequence[str | Secret]) -> bool:
    """Check whether a word contains a secret, as a URL or a command line for ``sh -c`` may, besides references."""
    text = VARIABLE.sub(MASK, "".join(part if isinstance(part, str) else MASK for part in parts))
    return mask_command([text]) != [text]


def _reference(option: str, value: str, warnings: list[str]) -> Secret:
    """Return a reference for a secret that is in the command itself, or in a variable that is not the profile's."""
    match = VARIABLE.fullmatch(value)
    if match:
        return Secret(match[1] or match[2])
    name = "KEY" if option == "-k" else re.sub(r"\W+", "_", option.strip("-"), flags=re.ASCII).upper()
    name = name if re.match(r"[A-Z_]", name) else f"_{name}"
    warnings.append(f"the value of '{option}' is a secret and is not printed: ${name} replaces it")
    return Secret(name)


def _expand(word: str, variables: Mapping[str, str], secrets: _Secrets) -> Iterator[str | Secret]:
    """Yield the parts of a word: the profile's variables expanded, with references for secret names and values."""
    names = {name for name, _ in secrets}
    owners = {value: name for name, value in reversed(secrets)}
    values = "|".join(map(re.escape, sorted(owners, key=len, reverse=True)))

    def expanded(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return f"\0{name}\0" if name in names else variables.get(name, match[0])

    for number, part in enumerate(VARIABLE.sub(expanded, word).split("\0")):  # no argument has a NUL of its own
        if number % 2:
            yield Secret(part)
        elif part:
            pieces = re.split(f"({values})", part) if owners else [part]
            yield from (Secret(owners[piece]) if piece in owners else piece for piece in pieces if piece)


# Text that a shell, a YAML parser or another program reads back unchanged.

_PLAIN_WORD = re.compile(r"[A-Za-z0-9_./:=@%+,-]+\Z")
_PLAIN_SCALAR = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*\Z")
_YAML_WORDS = frozenset(("y", "n", "yes", "no", "true", "false", "on", "off", "null", "inf", "nan"))


def command_line(program: str, options: Sequence[Sequence[str]], last: Sequence[Word]) -> str:
    """Return a command for bash or zsh: each option on a line of its own, then the words ``last``.

    The value of a secret is a variable of the shell; without it the shell refuses the command.
    """
    words = [
        "".join(shell_word(part) if isinstance(part, str) else f'"${{{part.name}:?}}"' for part in word) or "''"
        for word in last
    ]
    lines = [program, *(" ".join(map(shell_word, option)) for option in options), " ".join(words)]
    return " \\\n    ".join(lines) + "\n"


def double_dollars(text: str) -> str:
    """Return the text without expansion of ``$NAME`` in Compose and ``$(NAME)`` in Kubernetes."""
    return text.replace("$", "$$")


def without_empty(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that are set."""
    return {key: value for key, value in fields.items() if value not in (None, [], {})}


def to_yaml(document: dict[str, Any]) -> str:
    """Return a document as YAML, the keys in their order, with the same meaning in YAML 1.1 and 1.2."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def represent_text(dumper: Dumper, value: str) -> yaml.ScalarNode:
        # The versions differ in which bare words are numbers or booleans (0o7, 1e3, yes): quoted, all are text.
        is_plain = _PLAIN_SCALAR.match(value) and value.lower() not in _YAML_WORDS
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if is_plain else '"')

    Dumper.add_representer(str, represent_text)
    text: str = yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1 << 20)
    return text


def format_variables(variables: Mapping[str, str], form: str, *, hidden: Sequence[str] = ()) -> str:
    """Return variables in one of ENV_FORMATS; ``hidden`` names are in a comment if the format has comments."""
    if form == "json":
        return json.dumps(variables, indent=2) + "\n"
    styles = {"bash": ("export {}={}", _quoted), "fish": ("set -gx {} {}", fish_word), "dotenv": ("{}={}", _dotenv)}
    line, quote = styles[form]
    lines = [line.format(name, quote(value)) for name, value in variables.items()]
    return "\n".join([*lines, *(f"# {name}=***: a secret, left out" for name in hidden)]) + "\n"


def shell_word(value: str) -> str:
    """Return a word for bash and zsh, quoted unless it needs no quotes."""
    return value if _PLAIN_WORD.match(value) else _quoted(value)


def fish_word(value: str) -> str:
    """Return a quoted word for fish."""
    if value.isprintable():
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    # fish reads \Xhh outside quotes as that byte.
    return "".join(
        chr(byte) if chr(byte).isascii() and chr(byte).isalnum() else f"\\X{byte:02x}" for byte in to_bytes(value)
    )


def _quoted(value: str) -> str:
    if value.isprintable():
        return "'" + value.replace("'", "'\\''") + "'"
    # $'…' for control characters, which a terminal would execute: the escapes are bytes, in any locale.
    escapes = {byte: chr(byte) for byte in range(0x20, 0x7F)} | {ord("'"): "\\'", ord("\\"): "\\\\"}
    return "$'" + "".join(escapes.get(byte, f"\\{byte:03o}") for byte in to_bytes(value)) + "'"


def _dotenv(value: str) -> str:
    # The syntax that python-dotenv and Docker Compose read alike: single quotes take everything but a quote.
    if "'" not in value and "\\" not in value and value.isprintable():
        return f"'{value}'"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'
