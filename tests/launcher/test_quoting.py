"""What the launcher's shell makes of words, against the shells themselves."""

from __future__ import annotations

import glob
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from taoprofiles.errors import UsageError
from taoprofiles.launcher.quoting import expand_variables, quote_argv, quote_word, split_like_bash
from tests.support.generated_profiles import moderate

ENVIRON = {"HOME": "/home/ana", "A": "one", "B": "two words", "EMPTY": "", "PATH": os.environ["PATH"]}
PRINT = r"printf %s\\0 --"


def launched(words: list[str], folder: Path, *, bare: bool = False) -> list[str] | None:
    """Return what a task would be given, by way of the shells that the launcher starts; None where they fail."""
    # As in run_container and run_container_on_ci of docker_handler.py, with printf for 'docker exec -it ID'.
    joined = f"{PRINT} {' '.join(words)}"
    whole = joined if bare else f"bash -c '{joined}'"
    done = subprocess.run(whole, shell=True, cwd=folder, env=ENVIRON, capture_output=True, timeout=20)
    if done.returncode or not done.stdout.endswith(b"\0"):
        return None
    return os.fsdecode(done.stdout).split("\0")[1:-1]


anything = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
nasty = st.text(st.sampled_from(list("ab /~=:.,-'\"\\$`!#;&|<>(){}[]*?^%A\n\t")), max_size=10)

pieces = st.lists(
    st.sampled_from(["$A", "${B}", "$EMPTY", "$NO", "x", '"', " ", "/", "~", "=", ":", "\\", "*", "'\\''"]), max_size=8
).map("".join)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("launched")
    for name in ("a", "b", "ab", "a b", "[a]"):
        (root / name).touch()
    return root


@moderate(150)
@given(words=st.lists(st.one_of(anything, nasty), min_size=1, max_size=6))
@pytest.mark.parametrize("bare", [False, True])
def test_spelt_words_arrive_as_given(words: list[str], bare: bool, folder: Path) -> None:
    assert launched([quote_word(word, unquoted=bare) for word in words], folder, bare=bare) == words


@moderate(400)
@given(word=st.one_of(nasty, pieces))
@example(word="[^b]")
@example(word="[[=a=]]")
def test_what_a_word_becomes(word: str, folder: Path) -> None:
    def matches(pattern: str) -> list[str]:
        assume(not pattern.startswith("/"))  # /proc is another one at each look
        return sorted(glob.glob(pattern, root_dir=folder))

    expected = split_like_bash(word, ENVIRON, matches)
    if expected is not None:
        assert launched(["x", word, "y"], folder) == ["x", *expected, "y"]


@pytest.mark.parametrize(
    ("word", "words"),
    [
        *((word, [word]) for word in ("/specs/train.yaml", "a.[0].image_dir=/data", "[/a,/b]", "é/ü", "{a:1}", "a#b")),
        *((word, [word]) for word in ("train.x=~/x", "/x/*.txt")),
        *((word, None) for word in ("a;b", "{a,b}", "it's", "#b", "$(id)", "$B")),
        ("\\ ~", [" ~"]), ("/my data/x", ["/my", "data/x"]), ('"a b"', ["a b"]), ("a\\b", ["ab"]), ("", []),
        ("$A/x", ["one/x"]), ("$NO/train.yaml", ["/train.yaml"]), ("${results_dir}/x", ["/x"]), ("$NO", []),
        ("~/x", ["/home/ana/x"]), ("x=~/x", ["x=/home/ana/x"]),
    ],
)  # fmt: skip
def test_known_words(word: str, words: list[str] | None, folder: Path) -> None:
    assert split_like_bash(word, ENVIRON) == words
    if words is not None:
        assert launched([word], folder) == words


def test_a_glob_that_matches(folder: Path) -> None:
    assert split_like_bash("a*", ENVIRON, lambda _: ["a", "ab"]) == ["a", "ab"]
    assert split_like_bash('"a*"', ENVIRON, lambda _: ["a", "ab"]) == ["a*"]


def version_not_needed() -> str:
    raise AssertionError


@pytest.mark.parametrize(
    ("words", "environ", "version", "quoted"),
    [
        (["-e", "$S/a b", "${results_dir}/x", ""], {}, None, ["-e", '"/specs/a b"', '"\\${results_dir}/x"', '""']),
        (["--volume", "$S:/a", "x;y"], {}, None, ["--volume", "/specs:/a", '"x;y"']),
        (["--volume", "$S:/a b"], {}, "6.0.0", ["--volume", "/specs:/a b"]),
        (["--volume", "$S:/a b"], {}, "5.5.1", ["--volume", '"/specs:/a b"']),
        (["--volume", "a b"], {"TAO_DOCKER_DISABLE": "1"}, "6.26.3", ["--volume", '"a b"']),
        (["it's"], {"TAO_DOCKER_DISABLE": "1"}, "6.26.3", ['"it\'s"']),
        (["it's"], {"TAO_DOCKER_DISABLE": "1"}, "0.1.24", ["\"it'\\''s\""]),
        (["it's"], {"CI_PROJECT_DIR": ""}, "4.0.1", ["\"it'\\''s\""]),
        (["--volume", "--volume", "a b", "c d"], {}, "6.0.0", ["--volume", "--volume", '"a b"', '"c d"']),
    ],
)
def test_quote_argv(words: list[str], environ: dict[str, str], version: str | None, quoted: list[str]) -> None:
    find_version = version_not_needed if version is None else lambda: version
    argv = quote_argv(["/bin/tao", "model", "dino", *words], {"S": "/specs", **environ}, find_version)
    assert argv == ["/bin/tao", "model", "dino", *quoted]


def test_the_launcher_behind_another_program_is_quoted_too() -> None:
    argv = ["timeout", "-k", "5", "8h", "python3", "/x/tao", "model", "dino", "a;b"]
    assert quote_argv(argv, {}, version_not_needed) == [*argv[:-1], '"a;b"']
    assert quote_argv(["echo", "tao", "model", "dino", "a;b"], {}, version_not_needed)[-1] == "a;b"


def test_words_that_an_unknown_launcher_could_run_are_refused() -> None:
    for words, environ in ((["--volume", "$(id)"], {}), (["a b"], {"CI_PROJECT_DIR": "/x"})):
        with pytest.raises(UsageError, match="unknown"):
            quote_argv(["tao", "model", "dino", *words], environ, lambda: "")


def test_expand_variables() -> None:
    assert expand_variables("$A/${B}/$NO/${NO}/$1/${}", {"A": "a", "B": "$A"}) == "a/$A/$NO/${NO}/$1/${}"
    assert expand_variables("$A/$NO/x", {"A": "a"}, unset="") == "a//x"
