"""Rules for spec files: whether the paths and GPUs in them exist inside the container, and whether they are filled in.

Their text values are read with their lines from YAML, JSON, TOML and protobuf text. No schema is needed, and a broken
YAML gives the values before the fault. YAML is read as events, which keep the line marks and are not nested, so that
depth costs nothing; there is no parser for protobuf text without its schema. The numbers of GPUs that a task names are
the container's, from 0 on, whatever the engine calls its GPUs.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from taoprofiles.errors import TaoprofError
from taoprofiles.masking import is_secret, mask_text
from taoprofiles.mounts.paths import PathResolver, Resolution, explain
from taoprofiles.profiles.rendering import find_placeholder
from taoprofiles.rules.finding import ERROR, WARNING, Finding, error, warning
from taoprofiles.storage import files


class SpecValue(NamedTuple):
    """A text value: its line, the keys above it from the outermost one on, as far as they are known, and the text."""

    line: int
    keys: tuple[str, ...]
    value: str

    @property
    def key(self) -> str:
        """The nearest key."""
        return self.keys[-1] if self.keys else ""


class SyntaxFault(NamedTuple):
    """Why a file cannot be parsed, with the line."""

    line: int
    message: str


def read_values(text: str, form: str) -> tuple[list[SpecValue], SyntaxFault | None]:
    """Return the values of a "yaml", "json", "toml" or "prototxt" text, and why it cannot be parsed, if so."""
    if form == "prototxt":
        return _prototxt_values(text)
    if form == "toml":
        return _toml_values(text)
    if form == "json":
        text = _SURROGATES.sub(lambda pair: json.loads(f'"{pair[0]}"'), text)  # which YAML has no escapes for
    values, fault = _yaml_values(text)
    return values, _json_fault(text) if form == "json" else fault


_SURROGATES = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")


def _json_fault(text: str) -> SyntaxFault | None:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return SyntaxFault(error.lineno, error.msg.lower())
    except (ValueError, RecursionError):  # too many digits, or nested too deeply
        pass
    return None


def _yaml_values(text: str) -> tuple[list[SpecValue], SyntaxFault | None]:
    import yaml  # 30 ms

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    values: list[SpecValue] = []
    collections: list[_Collection] = []
    try:
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.CollectionEndEvent):
                collections.pop()
            elif isinstance(event, yaml.NodeEvent):
                parent = collections[-1] if collections else _Collection((), is_mapping=False)
                is_key = parent.is_mapping and not parent.has_key
                parent.has_key = is_key
                if isinstance(event, yaml.CollectionStartEvent):
                    collections.append(_Collection(parent.keys, isinstance(event, yaml.MappingStartEvent)))
                elif isinstance(event, yaml.ScalarEvent) and is_key:
                    parent.keys = (*parent.above, event.value)
                elif isinstance(event, yaml.ScalarEvent) and event.value:
                    is_block = event.style in ("|", ">")  # whose text begins on the next line
                    value = event.value.strip() if is_block else event.value
                    mark: Any = event.start_mark
                    values.append(SpecValue(mark.line + 1 + is_block, parent.keys, value))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return values, SyntaxFault(mark.line + 1 if mark else 1, error.problem or "it cannot be parsed")
    except yaml.YAMLError:  # a character that YAML does not allow
        match = yaml.reader.Reader.NON_PRINTABLE.search(text)
        line = text.count("\n", 0, match.start()) + 1 if match else 1
        return values, SyntaxFault(line, "it contains a control character")
    return values, None


class _Collection:
    """An open mapping or sequence: the keys ``above`` it, those of the next value, and whether that has its key."""

    def __init__(self, above: tuple[str, ...], is_mapping: bool) -> None:
        self.above = self.keys = above
        self.is_mapping, self.has_key = is_mapping, False


_NEAR = 20_000
"""Characters within which the next value of a TOML text is looked for."""


def _toml_values(text: str) -> tuple[list[SpecValue], SyntaxFault | None]:
    import tomllib

    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, _, position = str(error).partition(" (at ")
        match = re.match(r"line (\d+)", position)
        return [], SyntaxFault(int(match[1]) if match else text.count("\n") + 1, message.lower())
    except RecursionError:
        return [], None
    values: list[SpecValue] = []
    line, counted, at = 1, 0, -1
    nodes: list[tuple[tuple[str, ...], Any]] = [((), data)]
    while nodes:
        keys, value = nodes.pop()
        if isinstance(value, dict):
            nodes += [((*keys, name), inner) for name, inner in reversed(value.items())]
        elif isinstance(value, list):
            nodes += [(keys, inner) for inner in reversed(value)]
        elif isinstance(value, str):
            # tomllib has no positions: a value that is written in another way counts to the line of the one before it.
            written = (json.dumps(value, ensure_ascii=False), f"'{value}'")
            positions = (text.find(form, at + 1, at + _NEAR) for form in written)
            at = min((position for position in positions if position >= 0), default=at)
            line += text.count("\n", counted, max(at, 0))
            counted = max(at, 0)
            values.append(SpecValue(line, keys, value))
    return values, None


_TOKEN = re.compile(r"""#[^\n]*+|(?P<string>"(?:[^"\\\n]|\\.)*+"?|'(?:[^'\\\n]|\\.)*+'?)|\n|(?P<plain>[^#"'\n]++)""")
_LAST_WORD = re.compile(r"([\w.-]+)\s*:?[\s\[{(]*\Z")


def _prototxt_values(text: str) -> tuple[list[SpecValue], SyntaxFault | None]:
    """Read protobuf text, in which every text value is quoted.

    Without the schema a fault is the first quote or brace that does not match another one.
    """
    values: list[SpecValue] = []
    faults: list[SyntaxFault] = []
    opened: list[int] = []
    line, key = 1, ""
    for token in _TOKEN.finditer(text):
        string, plain = token["string"], token["plain"] or ""
        if string and (len(string) == 1 or string[-1] != string[0]):
            faults.append(SyntaxFault(line, "a quote is not closed on this line"))
        elif string:
            # The numeric escapes are bytes of UTF-8.
            value = _ESCAPE.sub(lambda match: _SIMPLE.get(match[1], match[1]), _BYTES.sub(_decode, string[1:-1]))
            values.append(SpecValue(line, (key,) if key else (), value))
        elif word := _LAST_WORD.search(plain[-200:]):
            key = word[1].rpartition(".")[2]
        for brace in re.findall("[{}]", plain):
            if brace == "{":
                opened.append(line)
            elif opened:
                opened.pop()
            else:
                faults.append(SyntaxFault(line, "this '}' closes nothing"))
        line += token.group().count("\n")
    faults += [SyntaxFault(number, "this '{' is not closed") for number in opened[-1:]]
    return values, faults[0] if faults else None


_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_ESCAPE = re.compile(r"\\(.)", re.S)
_BYTES = re.compile(r"((?:\\[0-3][0-7]{2}|\\x[0-9a-fA-F]{2})+)")


def _decode(match: re.Match[str]) -> str:
    codes = re.findall(r"\\(?:x(..)|(...))", match[1])
    return bytes(int(x, 16) if x else int(octal, 8) for x, octal in codes).decode("utf-8", "replace")


SPEC_OPTIONS = ("-e", "--experiment_spec", "--experiment_spec_file", "--experiment-spec-file", "--spec", "--config")
"""Options whose value is a spec file, in one or another of TAO's tasks."""

FORMS = {
    "yaml": "yaml", "yml": "yaml", "json": "json", "toml": "toml",
    "txt": "prototxt", "prototxt": "prototxt", "pbtxt": "prototxt", "cfg": "prototxt", "config": "prototxt",
}  # fmt: skip
"""How a spec file is read, by its suffix."""

ACTIONS = frozenset(
    "train evaluate inference export gen_trt_engine prune quantize retrain distill dataset_convert calibration "
    "visualize auto_label".split()
)
"""The sections of a TAO spec that only the action of their name reads."""

MODEL_ACTIONS = frozenset("train retrain prune quantize distill export".split())
"""The actions of a task that make a model, in NVIDIA's images for training."""

_TRAINING = MODEL_ACTIONS - {"export"}
_READERS = {
    "train": _TRAINING, "val": _TRAINING | {"evaluate"}, "validation": _TRAINING | {"evaluate"},
    "test": frozenset(("evaluate", "inference")), "infer": frozenset(("inference",)),
    "dataset": ACTIONS - {"export", "gen_trt_engine"},
}  # fmt: skip
"""By the first word of a key in the section "dataset": the actions that read it."""

SIZE_LIMIT = 2 << 20
"""Bytes of a spec file. NVIDIA's have a few thousand."""
FILES_LIMIT = 50
PATHS_LIMIT = 2000
"""Paths of one file that are looked for on this host."""
SHOWN = 20
"""Findings of one kind in one file; the rest are counted."""
_PATH_MAX = 4096

_PATH = re.compile(r"(?:file://)?(/[^/\s].*)\Z")
_READ_KEYS = re.compile(
    r"spec|config|pretrained|resume|checkpoint|weights|model|image|img|json_file|annotation|label|class_?map|root_dir|"
    r"data_sources?|input|(train|val|test)_(dir|path|file)"
)
_WRITE_KEYS = re.compile(r"(^|_)(results?|output|out|save|dump|logs?|cal_cache|cal_data|cal_json)(_|$)")
_MODEL_KEYS = re.compile(r"(^|_)(onnx|trt|engine|export)(_|$)")
"""What one action makes of a model and another one takes."""
_TAKERS = {"onnx": ("gen_trt_engine", "evaluate", "inference"), "": ("evaluate", "inference")}
_PATH_KEYS = re.compile(r"(^|_)(paths?|files?|dirs?|folders?|root|list|location|csv|json|txt|tfrecords?|cache)(_|\Z)")
_PATTERN_KEYS = re.compile(r"regex|pattern|layer|node|tensor")
_USUAL_FOLDERS = frozenset(
    "data dataset datasets home media mnt model models raid results root specs workspace".split()
)
"""Folders at the root that people mount, in TAO's conventions or on their hosts."""


def misspelt_action(words: Sequence[str]) -> str:
    """Return the action from which the first of ``words`` differs by one letter; "" if there is none, or it is one."""

    def with_one_letter_less(word: str) -> set[str]:
        return {word, *(word[:at] + word[at + 1 :] for at in range(len(word)))}

    forms = with_one_letter_less(words[0]) if words and words[0] not in ACTIONS else set()
    return next((action for action in sorted(ACTIONS) if forms & with_one_letter_less(action)), "")


def access(key: str, action: str = "") -> str:
    """Return whether an option or a spec's key names what a task reads or writes; "" if it may be either.

    ``action`` is that of the command; the section of a dotted key replaces it.
    """
    if key in ("-r", "-o"):
        return "write"
    if key in ("-e", "-m", "-i") or (key in ("-d", "-a") and action == "dataset_convert"):
        return "read"
    *sections, last = key.lstrip("-+").replace("-", "_").lower().split(".")
    action = next((section for section in sections if section in ACTIONS), action)
    if _WRITE_KEYS.search(last):
        return "write"
    if _MODEL_KEYS.search(last):
        return "read" if action in _TAKERS["onnx" if "onnx" in last else ""] else "write"
    if last in ("checkpoint_dir", "checkpoints_dir"):  # read by one task, written to by another
        return ""
    return "read" if _READ_KEYS.search(last) else ""


def _is_read(keys: Sequence[str], action: str) -> bool:
    """Check whether an action reads the value of a spec with these keys, so far as that is known."""
    section, *names = keys or ("",)
    if not action or section == action:
        return True
    if section == "dataset":
        words = ["dataset", *(word for name in names for word in name.lower().split("_")[:1])]
        return all(action in _READERS.get(word, (action,)) for word in words)
    return section not in ACTIONS


def is_spec(key: str, value: str) -> bool:
    """Check whether the value of an option or a spec's key is the path of a spec file."""
    is_spec_key = key in (*SPEC_OPTIONS, "-d") or any(word in key.lower() for word in ("spec", "config"))
    return is_spec_key and _form(value) is not None


def _form(path: str) -> str | None:
    return FORMS.get(path.rpartition(".")[2].lower())


def check_specs(
    paths: Sequence[str], resolver: PathResolver, *, action: str, given: Collection[str], gpus: int | None
) -> list[Finding]:
    """Return the findings about spec files, and about the spec files that these name.

    ``paths`` are as the command names them. ``action`` is the command's (``train``): sections that only another action
    reads are ignored, and so are the keys ``given``, which the command itself sets (``train.resume=…``). ``gpus`` is
    the number of the container's GPUs, None if that is not known.
    """
    checker = _SpecChecker(resolver, action, given, gpus)
    findings = [finding for path in paths for finding in checker.check(path)]
    return findings + [finding for path in list(checker.nested) for finding in checker.check(path)]


def find_results(path: str, resolver: PathResolver, action: str) -> list[str]:
    """Return the results folders, as in the container, that a spec file names for an action.

    That of the action's own section has priority over that of the whole file, as in TAO's tasks.
    """
    form = _form(path)
    host = resolver.resolve(path).host if path.startswith("/") else ""
    if form is None or not host:
        return []
    try:
        values, _ = read_values((files.read(host, SIZE_LIMIT) or b"").decode("utf-8-sig"), form)
    except (TaoprofError, UnicodeDecodeError):
        return []
    for keys in ((action, "results_dir"), ("results_dir",)):
        if folders := [folder for value in values if value.keys == keys and (folder := path_in(value))]:
            return folders
    return []


class _SpecChecker:
    """Checks spec files, each once, and collects the spec files that they name in ``nested``."""

    def __init__(self, resolver: PathResolver, action: str, given: Collection[str], gpus: int | None) -> None:
        self._resolver, self._action, self._gpus = resolver, action, gpus
        self._given = {((key.partition(".")[0],), key.rpartition(".")[2]) for key in given}
        self._checked: set[str] = set()
        self.nested: list[str] = []

    def check(self, path: str) -> list[Finding]:
        """Return the findings about the spec file at a container or host path; [] if there is none."""
        resolution = self._resolver.resolve(path) if path.startswith("/") else None
        host = resolution.host if resolution is not None and resolution.kind not in ("link-out", "image") else ""
        form = _form(path)
        is_new = host and host not in self._checked and len(self._checked) < FILES_LIMIT
        if not is_new or form is None or not os.path.exists(host):
            return []
        self._checked.add(host)
        why = "the paths in it are not checked"
        try:
            content = files.read(host, SIZE_LIMIT) or b""
            text = content.decode("utf-8-sig")
        except TaoprofError as problem:
            return [warning("spec-unreadable", host, problem.message, why)]
        except UnicodeDecodeError as problem:
            line = content.count(b"\n", 0, problem.start) + 1
            return [warning("spec-unreadable", f"{host}:{line}", "it is not UTF-8 text", why)]
        values, fault = read_values(text, form)
        self.nested += [nested for value in values if (nested := path_in(value)) and is_spec(value.key, nested)]
        findings = self._check_values(host, values)
        if fault is not None:
            what = f"it is not valid {'protobuf text' if form == 'prototxt' else form.upper()}: {fault.message}"
            findings.append(error("spec-syntax", f"{host}:{fault.line}", what, "the task cannot read it", by_hand=True))
        return findings

    def _check_values(self, host: str, values: Sequence[SpecValue]) -> list[Finding]:
        findings = _Findings(host)
        self._check_gpus(findings, values)
        paths = 0
        for value in values:
            (line, keys, text), key = value, value.key
            if not _is_read(keys, self._action) or (keys[:1], key) in self._given:
                continue
            if len(text) > _PATH_MAX or (is_secret(key) and text not in ("???", "FIXME")):
                continue  # a secret may begin with '/', and must not be printed
            if text == "???" or find_placeholder(text):
                hint = f"set '{key}' there, or on the command line" if key else "set it"
                findings.add("placeholder", line, f"'{text}' is a placeholder that was never filled in", "", hint)
            elif path := path_in(value):
                paths += 1
                if paths > PATHS_LIMIT:
                    findings.add(
                        "spec-unreadable", line, f"it has more than {PATHS_LIMIT} paths; the rest is not checked"
                    )
                    break
                self._check_path(findings, value, self._resolver.resolve(path))
        return findings.all()

    def _check_gpus(self, findings: _Findings, values: Sequence[SpecValue]) -> None:
        lists: dict[tuple[str, ...], list[SpecValue]] = {}
        for value in values if self._gpus is not None else ():
            if _last(value.key) in _IDS + _COUNTS and _is_read(value.keys, self._action):
                lists.setdefault(value.keys, []).append(value)
        for keys, numbers in lists.items():
            wrong = wrong_gpus(keys[-1], [value.value for value in numbers], self._gpus or 0)
            if wrong is not None and (keys[:1], keys[-1]) not in self._given:
                right = wrong.right[0] if len(numbers) == 1 and "num" in keys[-1] else f"[{', '.join(wrong.right)}]"
                what = f"{'.'.join(keys)}: {wrong.what}"
                findings.add(wrong.id, numbers[0].line, what, wrong.why, f"write {right}", severity=ERROR)

    def _check_path(self, findings: _Findings, value: SpecValue, resolution: Resolution) -> None:
        key_access = access(".".join(value.keys), self._action)
        if resolution.kind in ("host", "covered"):
            id, severity = "host-path", ERROR
        elif resolution.kind in ("host-only", "unmapped"):
            if resolution.kind == "unmapped" and not _is_path_key(value.key, resolution.path):
                return  # the name of a layer, or of anything else that begins with '/'
            id, severity = "unmapped-path", ERROR
        elif resolution.kind in ("link-out", "missing", "entry-out") and key_access != "write":
            id, severity = "missing-file", WARNING  # not every task reads all that a spec names
        else:
            return
        # Looking for similar names reads a folder, so it is done only for what is shown.
        explanation = explain(self._resolver, resolution, key_access) if findings.has_room(id) else ("", "", "")
        findings.add(id, value.line, *explanation, severity=severity)


class _Findings:
    """The findings about one file: the first of each kind, and the number of the others."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._findings: list[Finding] = []
        self._more: Counter[str] = Counter()

    def has_room(self, id: str) -> bool:
        return sum(finding.id == id for finding in self._findings) < SHOWN

    def add(self, id: str, line: int, what: str, why: str = "", hint: str = "", *, severity: str = WARNING) -> None:
        if not self.has_room(id):
            self._more[id] += 1
            return
        by_hand = id not in ("missing-file", "spec-unreadable")
        what, why, hint = mask_text(what), mask_text(why), mask_text(hint)
        self._findings.append(Finding(id, f"{self._path}:{line}", what, why, hint, severity, by_hand=by_hand))

    def all(self) -> list[Finding]:
        severities = {finding.id: finding.severity for finding in self._findings}
        return self._findings + [
            Finding(id, self._path, f"{count} more of the same kind in this file", severity=severities[id])
            for id, count in self._more.items()
        ]


def path_in(value: SpecValue) -> str:
    """Return the absolute path that a value is, without ``file://``; "" for anything else."""
    text, key = value.value, value.key.replace("-", "_").lower()
    if len(text) > _PATH_MAX or "\0" in text or _PATTERN_KEYS.search(key) or is_secret(key):
        return ""
    match = _PATH.match(text)
    try:
        return os.fsdecode(os.fsencode(match[1])) if match else ""
    except UnicodeEncodeError:  # no file can have such a name
        return ""


def _is_path_key(key: str, value: str) -> bool:
    """Check whether the value of a key is certainly a path, whatever exists on this host."""
    is_named = access(key) or _PATH_KEYS.search(key.replace("-", "_").lower())
    return bool(is_named) or value.split("/")[1] in _USUAL_FOLDERS


_IDS = ("gpu_ids", "gpu_id", "gpu_indices", "gpu_index")
_COUNTS = ("num_gpus", "num_gpu", "gpus")


class WrongGpus(NamedTuple):
    """GPUs that a container does not have; ``right`` are the numbers to write instead."""

    id: str
    what: str
    why: str
    right: list[str]


def wrong_gpus(key: str, values: Sequence[str], gpus: int) -> WrongGpus | None:
    """Return what is wrong with GPUs that a command or spec names for a container with so many ``gpus``."""
    name, numbers = _last(key), [int(value) for value in values if value.isdecimal() and len(value) < 4]
    if not numbers or len(numbers) < len(values):
        return None
    has = f"the container gets {gpus or 'no'} GPU{'s' if gpus > 1 else ''}"
    if name in _IDS and max(numbers) >= gpus > 0:
        listed = "0" if gpus == 1 else f"0 to {gpus - 1}"
        why = "inside the container GPUs are numbered from 0 on, whatever numbers the host has for them"
        what = f"GPU {','.join(map(str, numbers))}, but {has}: {listed}"
        return WrongGpus("gpu-ids-outside", what, why, [str(number) for number in range(min(gpus, len(numbers)))])
    if name in _COUNTS and len(numbers) == 1 and numbers[0] > max(gpus, 0) and gpus:
        what = f"{numbers[0]} GPUs, but {has}"
        return WrongGpus("gpu-count", what, "the task fails: invalid device ordinal", [str(gpus)])
    return None


def _last(key: str) -> str:
    return key.lstrip("-+~").rpartition(".")[2].replace("-", "_").lower()
