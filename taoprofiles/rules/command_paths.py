"""Rules for a launcher command: paths that mean something else inside the container, and words that a shell changes."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from taoprofiles.launcher.argv import VOLUME, add_volumes, parse_launcher_argv, script_of, simple_commands
from taoprofiles.launcher.behaviour import Behaviour, behaviour_or_newest, runs_without_docker
from taoprofiles.launcher.quoting import (
    SHELLS_OWN,
    VARIABLE,
    expand_variables,
    has_one_shell,
    quote_word,
    shell_effect,
    split_like_bash,
    taken_volumes,
)
from taoprofiles.masking import MASK, MIN_SECRET_LENGTH, is_secret, is_secret_argument, mask_command, mask_text
from taoprofiles.mounts.paths import HostFiles, PathResolver, Resolution, explain, host_paths
from taoprofiles.profiles.rendering import find_placeholder
from taoprofiles.rules import specs
from taoprofiles.rules.finding import ERROR, WARNING, Finding, error, warning
from taoprofiles.storage.paths import expand_user, is_inside
from taoprofiles.system.engine import find_endpoint
from taoprofiles.system.filesystem import answers

_VALUE_OPTIONS = frozenset(("-e", "-k", "-m", "-r", "-o", "--results_dir", "--key", "--gpus", *specs.SPEC_OPTIONS))
"""Options that always have a value, in whichever task has them."""
_KEY = re.compile(r"((?:--?|\+{1,2}|~)?[A-Za-z_][\w.\[\]@-]*)=(.*)", re.S)
_JOINED = re.compile(r"(-k)=?(.+)|(-[a-z])=?([/~$].*)", re.S)
_TWO_IN_ONE = re.compile(r"(--?[A-Za-z][\w-]*)[ \t]+(\S.*)", re.S)
_ITEM = re.compile(r"\s*[\"']?[\w.]+[\"']?\s*:(?!//)\s*")
_AT_ROOT = re.compile(r"/[^/]+\.(ya?ml|txt|json|toml|cfg|conf|prototxt|pbtxt|hdf5|h5|tlt|etlt|pth?|onnx|engine)\Z")
_ENGINES = (".engine", ".trt", ".plan")
"""What a task makes of a model. ``-e`` of ``tao converter`` names one too, and it need not exist."""
_NESTING_LIMIT = 20
_WORDS_SHOWN = 200


def _current_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it has been removed
        return ""


@dataclass(frozen=True, slots=True)
class CommandContext:
    """The input of the rules for a command.

    ``mounts`` is destination by source; ``variables`` are the profile's, ``environ`` is the launcher's environment, and
    ``secrets`` names variables that are secret besides those with a secret's name. ``is_quoted``: the words go through
    ``quote_argv``, as in ``taoprof run``; ``behaviour`` is the launcher's. Hints name ``profile``, and with ``is_run``
    they begin with ``taoprof run``. A spec file that is named relative to ``folder`` is reported.

    Without the launcher, ``prefix`` are the words in front of the task's command, () if they must not be shown;
    ``volumes`` are destinations whose content is not on this host, and ``gpus`` is the number of the container's GPUs,
    None if that is not known. With ``reads_specs`` false, spec files are not read: they are another machine's. With
    ``is_script``, the command is one of a script, which may set variables itself.
    """

    mounts: Mapping[str, str]
    variables: Mapping[str, str]
    environ: Mapping[str, str] = field(default_factory=dict)
    secrets: Collection[str] = ()
    is_quoted: bool = False
    profile: str = ""
    is_run: bool = False
    behaviour: Behaviour = field(default_factory=lambda: behaviour_or_newest(""))
    folder: str = field(default_factory=_current_folder)
    files: HostFiles = field(default_factory=HostFiles)
    prefix: Sequence[str] = ()
    volumes: Sequence[str] = ()
    gpus: int | None = None
    reads_specs: bool = True
    is_script: bool = False

    @property
    def is_without_docker(self) -> bool:
        """Check whether the task runs on this host instead of in a container."""
        return runs_without_docker(self.environ, self.behaviour)

    def quote(self, word: str) -> str:
        """Return a word as it must be written for the launcher's shell."""
        return quote_word(word, unquoted=has_one_shell(self.behaviour, self.environ))

    def to_pasteable_command(self, words: Sequence[str], *, is_run: bool = False) -> str:
        """Return a corrected command as one to paste."""
        prefix = ["taoprof", "run", self.profile, "--"] if self.is_run or is_run else []
        return shlex.join([*(self.prefix or prefix), *words])

    def to_shown_command(self, words: Sequence[str]) -> str:
        """Return a corrected command as one to paste; of one with a secret, only the words before the first option."""
        if mask_command(words) == list(words):
            return self.to_pasteable_command(words)
        words = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
        return f"{self.to_pasteable_command(words)} …"


class Argument(NamedTuple):
    """A value of a command: the number of its word, the option or key before it, and its text."""

    number: int
    key: str
    value: str


def check_command(command: Sequence[str], context: CommandContext) -> list[Finding]:
    """Return the findings about launcher commands and the spec files that they name; [] for any other command.

    A launcher that a script starts gets its words from that, unchanged.
    """
    if script_of(command) is not None:
        context = replace(context, is_script=True, is_quoted=False, is_run=False)
    findings = []
    for words in simple_commands(command):
        launch = parse_launcher_argv(words)
        if launch is not None:
            wrappers = () if context.is_script else command[: len(command) - len(words)]
            findings += [*_check_wrappers(wrappers, words, context), *check_task(launch.words, context)]
    return findings


def _check_wrappers(wrappers: Sequence[str], words: Sequence[str], context: CommandContext) -> Iterator[Finding]:
    """Check what stands in front of a launcher: sudo and doas start it without the caller's variables (sudo(8))."""
    names = [os.path.basename(word) for word in wrappers]
    program = next((name for name in names if name in ("sudo", "doas")), None)
    options = names[names.index(program) :] if program else []
    keeps = any(re.match(r"-[A-Za-z]*E|--preserve-env(?:\Z|=.*LAUNCHER_MOUNTS)", option) for option in options)
    if program and not (program == "sudo" and keeps):
        what = f"{program} does not pass LAUNCHER_MOUNTS on, and the launcher has the home of root"
        why = "tao reads root's ~/.tao_mounts.json and root's login; members of the group 'docker' do not need root"
        why += ", and 'sudo -E' passes the variables on" if program == "sudo" else ""
        hint = context.to_shown_command(words) if len(wrappers) == 1 else ""
        yield error("home-under-sudo", "command", what, why, hint)


def check_task(words: Sequence[str], context: CommandContext) -> list[Finding]:
    """Return the findings about a task's command and the spec files that it names: ``words`` begin with a program."""
    checker = _CommandChecker(words, context)
    result, paths = checker.check(), checker.spec_paths
    if context.is_without_docker:
        return result
    for path in paths:
        if not context.reads_specs or any(is_inside(path, volume) for volume in context.volumes):
            what, why = f"the spec file '{path}' is not a file of this machine", "what is wrong in it is not found"
            result.append(warning("spec-unchecked", "-e", what, why))
    if context.reads_specs:
        given = _spec_keys(checker.words)
        result += specs.check_specs(paths, checker.resolver, action=checker.action, given=given, gpus=context.gpus)
    return result


def find_results(words: Sequence[str], context: CommandContext) -> list[str]:
    """Return the folders in the container into which a task writes: by its command, its spec files or the layout.

    A spec file on a file server that does not answer is left out. Of a script, each command is such a task.
    """
    script = script_of(words)
    if script is not None:
        arguments = words[words.index(script) + 1 :]  # of which the script's "$@" may be
        of_each = (find_results(command, context) for command in [*simple_commands(words), arguments])
        return list(dict.fromkeys(itertools.chain.from_iterable(of_each)))
    if named := _results_folders(words):
        return [expand_variables(folder, context.variables) for folder in named]
    if context.reads_specs:
        checker = _CommandChecker(words, context)
        paths = checker.spec_paths
        folders = answers(lambda path: specs.find_results(path, checker.resolver, checker.action), paths)
        if in_specs := [folder for path in paths for folder in folders.get(path, [])]:
            return in_specs
    # Where evaluate and inference write is not known.
    names = ("RESULTS_DIR", "USER_EXPERIMENT_DIR") if specs.MODEL_ACTIONS & set(words) else ()
    return [context.variables[name] for name in names if name in context.variables][:1]


def find_host_results(words: Sequence[str], context: CommandContext) -> list[str]:
    """Return the folders behind ``find_results``, which no other run may write meanwhile; none for what is not mounted.

    The spec files of an engine on another machine are not read.
    """
    if find_endpoint(context.environ).is_remote:
        context = replace(context, reads_specs=False)
    return host_paths(find_results(words, context), add_volumes(words, context.mounts))


def _is_results_option(key: str) -> bool:
    """Check whether an option names a folder for results, such as ``-r``, ``--results_dir``, ``train.results_dir``."""
    return key == "-r" or key.lstrip("-").rpartition(".")[2].replace("-", "_") == "results_dir"


def _results_folders(words: Sequence[str]) -> list[str]:
    """Return the values of results options among the words of a command."""
    folders = []
    for number, word in enumerate(words):
        key, equals, value = word.partition("=")
        if equals and _is_results_option(key):
            folders.append(value)
        elif word.startswith("-") and _is_results_option(word) and number + 1 < len(words):
            folders.append(words[number + 1])
    return folders


def path_arguments(words: Sequence[str]) -> Iterator[Argument]:
    """Yield the paths among the words of a launcher command: ``-e /x``, ``--opt=/x``, ``key=[/a,/b]``, ``~/x``.

    Values of secrets and of ``--volume`` are left out.
    """
    for argument in _valued(words):
        if argument.key != VOLUME and not is_secret_argument(argument.key):
            yield from (argument._replace(value=path) for path in _values(argument.value, 0))


def _spec_keys(words: Sequence[str]) -> list[str]:
    """Return the keys of a spec that a command sets: ``train.num_gpus`` of ``train.num_gpus=2``, and by options."""
    keys = [match[1].lstrip("+~-") for match in map(_KEY.fullmatch, words[1:]) if match]
    keys += [word.lstrip("-") for word in words if word.startswith("--")]
    return keys + [key for word, key in (("-r", "results_dir"), ("-k", "encryption_key")) if word in words]


class _CommandChecker:
    """Checks the words of one command and corrects them for the hints."""

    def __init__(self, words: Sequence[str], context: CommandContext) -> None:
        self._joined = [word for word in words if _TWO_IN_ONE.fullmatch(word)]
        self.words = [part for word in words for part in _split_option(word)]
        self._context = context
        self._known = known = {**context.environ, **context.variables}
        secrets = {name for name in known if name in context.secrets or is_secret(name)}
        # A value with a '/' in the environment is the path of a socket or key file: no secret, and part of other paths.
        values = {known[name] for name in secrets if name in context.variables or "/" not in known[name]}
        self._secret_values = sorted((v for v in values if len(v) >= MIN_SECRET_LENGTH), key=len, reverse=True)
        self.public = {name: value for name, value in known.items() if name not in secrets}
        mounts = context.mounts if context.prefix else add_volumes(self.words, context.mounts)
        self.resolver = PathResolver(mounts, context.files, context.volumes)
        self.action = next((word for word in self.words[1:] if word in specs.ACTIONS), "")
        files = [a.value for a in path_arguments(self.words) if specs.is_spec(a.key, a.value)]
        self.spec_paths = [expand_variables(file, self.public) for file in files]
        self._words_after_shell = list(self.words)  # as the launcher's shell passes them on
        self._quoted: dict[int, str] = {}
        self._unset_words: set[int] = set()
        self._corrected: dict[int, str] = {}
        self._findings: list[Finding] = []
        self._with_command: dict[int, bool] = {}  # by number of a finding whose hint is the corrected command: is_run

    def check(self) -> list[Finding]:
        """Return the findings about the words."""
        if not self._context.is_quoted:
            self._check_quoting()
        if self._context.is_quoted or self._context.is_run:
            for word in self._joined:  # without 'taoprof run', the launcher's shell makes two words of it
                option, value = _split_option(word)
                value = value if VARIABLE.fullmatch(value) else mask_command([option, value])[1]
                what = f"'{option} {value}' is one argument; the task needs '{option}' and '{value}' as two"
                self._add("arg-needs-quoting", Argument(0, option, word), what, corrects=True)
        self._check_action()
        self._check_values()
        self._check_gpus()
        if self._context.is_without_docker:
            self._check_container_paths()
        else:
            self._check_paths()
        for number, is_run in self._with_command.items():  # with all corrections
            if hint := self._masked(self._corrected_command(is_run=is_run)):
                self._findings[number] = self._findings[number]._replace(hint=hint)
        return self._findings

    def _check_action(self) -> None:
        """Report a misspelt action. The launcher passes any word on, and only the image knows all actions of a task."""
        launch = parse_launcher_argv(self.words)
        words = self.words[1:] if launch is None else launch.options
        if action := specs.misspelt_action(words):
            argument = Argument(len(self.words) - len(words), "", words[0])
            self._correct(argument, action)
            what, why = f"'{words[0]}' is probably a misspelt '{action}'", "the task would fail in the container"
            self._add("action-misspelt", argument, what, why, severity=WARNING, corrects=True)

    def _check_values(self) -> None:
        """Report options without a value, and variables that nobody sets."""
        for number, word in enumerate(self.words):
            following = self.words[number + 1 : number + 2]
            is_empty = following in ([], [""]) or re.match(r"--?[A-Za-z]", following[0])
            key, equals, value = word.partition("=")
            if (word in _VALUE_OPTIONS and is_empty and number > 1) or (equals and not value and specs.access(key)):
                hint = self._shell_hint() if self._context.profile else f"give {word} a value"
                why = "a variable was probably empty"
                severity = WARNING if equals else ERROR  # an empty text may be meant
                argument = Argument(number, key, "")
                self._add("arg-empty-variable", argument, "it has no value", why, hint, severity=severity)
        for argument in _valued(self.words):
            unset, placeholder = self._unset(argument.value), find_placeholder(argument.value)
            if unset or placeholder:
                self._unset_words.add(argument.number)
            is_hidden = is_secret_argument(argument.key)
            if unset and not self._context.is_script:
                why = "taoprof does not know the variables of a notebook or another shell"
                give = is_hidden and not self._context.profile
                hint = f"give {argument.key} a value" if give else self._shell_hint()
                self._add("arg-empty-variable", argument, f"{unset} is not set", why, hint)
            elif placeholder and not unset:
                hint = f"replace it by the real {'value' if is_hidden else 'path in the container, or value'}"
                self._add("placeholder", argument, f"it still contains '{placeholder}'", hint=hint, severity=WARNING)

    def _check_gpus(self) -> None:
        """Report GPUs that the container does not get; in it they are numbered from 0 on."""
        for argument in _valued(self.words) if self._context.gpus is not None else ():
            wrong = specs.wrong_gpus(argument.key, re.findall(r"\d+", argument.value), self._context.gpus or 0)
            if wrong is not None:
                self._correct(argument, _like(argument.value, wrong.right))
                self._add(wrong.id, argument, wrong.what, wrong.why, corrects=True)

    def _check_container_paths(self) -> None:
        """Report paths that exist only in the container, where the task runs on this host."""
        for argument in path_arguments(self._words_after_shell):
            path = expand_variables(argument.value, self.public)
            resolution = self.resolver.resolve(path)
            if resolution.kind == "found" and not self._context.files.exists(path):
                what = f"'{path}' is a path of the container, but TAO_DOCKER_DISABLE makes the task run on this host"
                self._correct(argument, resolution.host)
                self._add("missing-file", argument, what, f"here it is '{resolution.host}'", corrects=True)
            elif argument.key in specs.SPEC_OPTIONS and path.startswith("/") and not self._context.files.exists(path):
                self._add("missing-file", argument, f"no such file: '{path}'", "the task runs on this host")

    def _check_quoting(self) -> None:
        """Report the words that the launcher's shell changes, and keep what arrives of the others."""
        taken = taken_volumes(self.words, self._context.behaviour, self._context.environ)
        for number, key, _ in _valued(self.words):
            word = self.words[number]
            if number in taken or (word and find_placeholder(word) == word):
                continue
            split = split_like_bash(word, self._known, self._context.files.matches)
            secret = is_secret_argument(key)
            if split is not None and len(split) == 1 and not secret:
                self._words_after_shell[number] = split[0]
            is_home = split == [self._known.get("HOME", "") + word[1:]] and word.startswith("~/")
            is_quoted = split is not None and len(split) == 1 and word == self._context.quote(split[0])
            if split == [expand_variables(word, self._known)] or is_home or is_quoted or self._unset(word):
                continue
            effect = "changes the value" if secret else shell_effect(word, split)
            what, why = f"the launcher's shell {effect}", "the launcher pastes its words into 'bash -c' without quotes"
            hint = f"'taoprof run {self._context.profile or 'PROFILE'} -- COMMAND' passes words on unchanged"
            if not secret:
                hint = f"write {shlex.quote(self._context.quote(word))}; or {hint}"
                if not self._context.is_run:  # taoprof run quotes the words itself
                    self._quoted[number] = self._context.quote(word)
            argument = Argument(number, key, word)
            self._add("arg-needs-quoting", argument, what, why, hint, severity=WARNING, corrects=not secret)

    def _check_paths(self) -> None:
        wrong: list[tuple[Argument, Resolution]] = []
        home = self._context.environ.get("HOME", "")
        for argument in path_arguments(self._words_after_shell):
            path = expand_variables(argument.value, self.public)
            if home:
                path = expand_user(path, home)
            if argument.number in self._unset_words or not path.startswith("/"):
                continue
            resolution = self.resolver.resolve(path)
            if resolution.kind in ("unmapped", "host-only") and _AT_ROOT.match(path):
                self._add_empty_variable(argument, path)
            elif resolution.kind in ("host", "covered"):
                wrong.append((argument, resolution))
                self._correct(argument, resolution.container)
            else:
                self._check_path(argument, resolution)
        wrong += self._relative_paths()
        for argument, resolution in wrong:
            what, why, hint = explain(self.resolver, resolution._replace(path=argument.value))
            if resolution.container:
                hint = _with_key(argument.key, resolution.container)
            self._add("host-path", argument, what, why, hint, corrects=bool(resolution.container))

    def _relative_paths(self) -> Iterator[tuple[Argument, Resolution]]:
        """Yield spec files and results relative to the current folder, which in the container is another one.

        Spec files that do not exist are reported here.
        """
        folder = self._context.folder
        for argument in _valued(self._words_after_shell):
            number, key, value = argument
            is_results = _is_results_option(key)
            is_relative = number not in self._unset_words and value[:1] not in ("", "/", "~", "$", "-")
            if (key in specs.SPEC_OPTIONS or is_results) and folder and is_relative:
                path = os.path.join(folder, value)
                resolution = self.resolver.resolve(path)
                if not is_results and not self._context.files.exists(path) and not path.endswith(_ENGINES):
                    missing = Resolution("missing", value, "", os.path.normpath(path))
                    what, why, hint = explain(self.resolver, missing)
                    self._add("missing-file", argument, what, why, hint)
                elif resolution.kind == "host":
                    self._correct(argument, resolution.container)
                    yield argument, resolution
                elif not is_results and resolution.kind in ("unmapped", "host-only"):
                    explanation = explain(self.resolver, resolution)
                    self._add("unmapped-path", argument, *explanation, severity=WARNING)

    def _check_path(self, argument: Argument, resolution: Resolution) -> None:
        path, action = resolution.path, self.action
        is_created_by_task = path.endswith(_ENGINES) and action not in ("evaluate", "inference")
        key_access = "write" if is_created_by_task else specs.access(argument.key, action)
        is_temporary = path.startswith(("/tmp/", "/dev/", "/proc/")) or path == "/tmp"  # noqa: S108 - in the container
        if resolution.kind == "image" and key_access == "write" and not is_temporary:
            resolution = resolution._replace(kind="unmapped")
        kind = resolution.kind
        if kind in ("unmapped", "host-only"):
            explanation = explain(self.resolver, resolution, key_access)
            self._add("unmapped-path", argument, *explanation, severity=WARNING)
        elif kind == "entry-out" and key_access == "read":
            self._add("missing-file", argument, *explain(self.resolver, resolution), severity=WARNING)
        elif (kind == "link-out" and key_access != "write") or (kind == "missing" and key_access == "read"):
            self._add("missing-file", argument, *explain(self.resolver, resolution), severity=ERROR)

    def _add_empty_variable(self, argument: Argument, path: str) -> None:
        """Report a path in the root folder: the variable in front of it was probably empty."""
        names = {name: value for name, value in self._context.variables.items() if name in self.public}
        usual = "SPECS_DIR" if argument.key in specs.SPEC_OPTIONS and "SPECS_DIR" in names else ""
        name = next(
            (name for name, value in names.items() if self.resolver.resolve(value + path).kind == "found"), usual
        )
        what = f"'{path}': your shell expanded an unset variable to nothing"
        why, hint = "a terminal does not have a notebook's variables", self._shell_hint()
        is_corrected = bool(name and self._context.profile)
        if is_corrected:
            word = _with_key(argument.key, f"'${name}{path}'")
            why = f"use single quotes, so that 'taoprof run' expands it: {word}"
            self._correct(argument, f"${name}{path}")
        self._add("arg-empty-variable", argument, what, why, hint, corrects=is_corrected, is_run=is_corrected)

    def _shell_hint(self) -> str:
        profile = self._context.profile  # without one, no shell has its variables
        return f"taoprof shell {profile}" if profile else "write the whole path, as it is in the container"

    def _unset(self, text: str) -> str:
        """Return a variable in ``text`` that nobody sets.

        A name in lower case is Hydra's own in ``${name}``, and may be a script's own in a text with blanks.
        """
        for match in VARIABLE.finditer(text):
            name = match[1] or match[2]
            is_own = name.upper() != name and (match[1] is not None or len(text.split()) > 1)
            if not is_own and name.strip("_") and name not in self._known and name not in SHELLS_OWN:
                return f"${name}"
        return ""

    def _correct(self, argument: Argument, path: str) -> None:
        """Put the container's path into the corrected command."""
        if path:
            number = argument.number
            word = self._corrected.get(number, self.words[number])
            word = word if argument.value in word else self._words_after_shell[number]
            self._corrected[number] = word.replace(argument.value, path, 1)

    def _corrected_command(self, *, is_run: bool) -> str:
        """Return the whole corrected command; "" if it would show a secret or fill the screen.

        ``is_run``: the correction works only with ``taoprof run``.
        """
        if len(self.words) > _WORDS_SHOWN:
            return ""
        is_run = is_run or self._context.is_run
        words = [self._corrected_word(number, word, is_run=is_run) for number, word in enumerate(self.words)]
        masked = mask_command(words, self._secret_values)
        pairs = zip(words, masked, strict=True)
        if all(word == shown or VARIABLE.fullmatch(word.rpartition("=")[2]) for word, shown in pairs):
            return self._context.to_pasteable_command(words, is_run=is_run)
        return ""

    def _corrected_word(self, number: int, word: str, *, is_run: bool) -> str:
        if number not in self._corrected:
            return word if is_run else self._quoted.get(number, word)
        corrected = self._corrected[number]
        if self._context.is_quoted or is_run or split_like_bash(corrected, self._known) == [corrected]:
            return corrected
        return self._context.quote(corrected)

    def _masked(self, text: str) -> str:
        for value in self._secret_values:
            text = text.replace(value, MASK)
        return mask_text(text)

    def _add(
        self, id: str, argument: Argument, what: str, why: str = "", hint: str = "", *, severity: str = ERROR,
        corrects: bool = False, is_run: bool = False,
    ) -> None:  # fmt: skip
        """Add a finding; with ``corrects`` its hint is the corrected command (see ``_corrected_command``), if shown."""
        if corrects:
            self._with_command[len(self._findings)] = is_run
        where = argument.key or f"argument {argument.number}"
        what, why, hint = self._masked(what), self._masked(why), self._masked(hint)
        self._findings.append(Finding(id, where, what, why, hint, severity))


def _valued(words: Sequence[str]) -> Iterator[Argument]:
    """Yield each word after the program name, with the option or key of which it is the value."""
    before = ""
    for number, word in enumerate(words[1:], 1):
        match = _JOINED.fullmatch(word) or _KEY.fullmatch(word)
        key, value = [group for group in match.groups() if group is not None] if match else (before, word)
        yield Argument(number, key, value)
        before = word if word.startswith("-") and match is None else ""


def _with_key(key: str, value: str) -> str:
    """Return a value behind its option or key, as in a command."""
    return f"{key}{' ' if key.startswith('-') else '='}{value}" if key else value


def _like(value: str, numbers: Sequence[str]) -> str:
    """Return numbers in the form of a value: ``[0,1]``, ``"[0,1]"``, ``0,1`` or ``0``."""
    match = re.fullmatch(r"(\D*)\d.*\d(\D*)|(\D*)\d(\D*)", value.strip(), re.S)
    before, after = (match[1] or match[3] or "", match[2] or match[4] or "") if match else ("", "")
    return f"{before}{','.join(numbers)}{after}"


def _split_option(word: str) -> list[str]:
    """Return an option and its value that are one word, such as ``"-e /specs/x"``, as two."""
    match = _TWO_IN_ONE.fullmatch(word)
    return [word] if match is None else [match[1], match[2]]


def _values(text: str, depth: int) -> Iterator[str]:
    """Yield the paths in a value, also in Hydra's lists and dictionaries."""
    text = text.strip()
    if depth > _NESTING_LIMIT:
        return
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        yield from _values(text[1:-1], depth + 1)
    elif text[:1] in ("[", "{") and text[-1:] in ("]", "}"):
        for part in _parts(text[1:-1]):
            item = _ITEM.match(part)
            if item is None or not is_secret(item.group()):
                yield from _values(part[item.end() :] if item else part, depth + 1)
    elif text.startswith("file:///"):
        yield text[7:]
    elif text.startswith(("/", "~/", "$")):
        yield text


def _parts(text: str) -> Iterator[str]:
    depth, start = 0, 0
    for position, character in enumerate(text):
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth <= 0:
            yield text[start:position]
            start = position + 1
    yield text[start:]
