"""Expressions: what they come to, and the errors of those that come to nothing."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.profiles.rendering import (
    VALUE_LIMIT,
    Expander,
    ExpressionError,
    escape_dollars,
    invalid_profile_error,
    references,
)
from tests.support.generated_profiles import moderate, names, value_text

HOME = "/home/ana"


def expander(environ: dict[str, str] | None = None, **variables: str) -> Expander:
    return Expander(variables, environ or {}, HOME)


def value(expression: str, **variables: str) -> str:
    return expander(**variables).text(expression, path=True)


def why(expression: str, **variables: str) -> str:
    with pytest.raises(ExpressionError) as caught:
        value(expression, **variables)
    return str(caught.value)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("", ""),
        ("plain", "plain"),
        ("$$", "$"),
        ("$$$$", "$$"),
        ("$${A}", "${A}"),
        ("$$${A}", "$a"),
        ("${A}${A}", "aa"),
        ("x${A}y", "xay"),
        ("{A}", "{A}"),
        ("}${A}{", "}a{"),
        ("~", HOME),
        ("~/x", f"{HOME}/x"),
        ("~x", "~x"),
        ("x~", "x~"),
        ("x/~/y", "x/~/y"),
        (" ~", " ~"),
        ("~${A}", "~a"),
        ("${TILDE}", HOME),
        ("${TILDE}/x", f"{HOME}/x"),
        ("a\nb", "a\nb"),
        ("ü→漢", "ü→漢"),
        ("`id` $$(id) %(A)s {A} \\${A}", "`id` $(id) %(A)s {A} \\a"),
    ],
)
def test_text(expression: str, expected: str) -> None:
    assert value(expression, A="a", TILDE="~") == expected


def test_only_what_is_written_in_the_profile_is_an_expression() -> None:
    assert expander().text("~/x", path=False) == "~/x", "not a path"
    for text in ("~/x", "$$ ${A} ${env:X}"):
        assert expander({"X": text}, A="a").text("${env:X}", path=True) == text


def test_environment_and_variables_are_told_apart() -> None:
    text_expander = expander({"X": "outside"}, X="inside")
    assert (text_expander.variable("X"), text_expander.text("${env:X}", path=False)) == ("inside", "outside")


def test_name_that_the_environment_has_not() -> None:
    text = why("${A}", A="${env:NGC_KEY}")
    assert "the environment variable 'NGC_KEY' is not set" in text
    problems = [f"variables.A: {text}", "container.env.B: the environment variable 'OTHER' is not set (${env:OTHER})"]
    assert invalid_profile_error("p", "p.toml", problems).hint.endswith(": export NGC_KEY=… OTHER=…")
    assert invalid_profile_error("p", "p.toml", [*problems, "x: unknown key"]).hint.endswith(": taoprof edit p")


@pytest.mark.parametrize(
    "expression",
    ["$", "$A", "a$", "$ {A}", "${", "${}", "${A", "$}", "${A-b}", "${ A}", "${1}", "${env:}", "${env:1}", "${ENV:A}",
     "${env:A:-x}", "${${A}}", "${A$$}", "$$$", "${ä}", "${A\n}", "$(id)", "`id`$"],
)  # fmt: skip
def test_malformed(expression: str) -> None:
    text = why(expression, A="a")
    assert "${NAME}" in text, "it says how it is written"
    with pytest.raises(ExpressionError):
        list(references(expression))


# Order, circles, unknown names


@moderate(40)
@given(st.data())
def test_references_in_any_order(data: st.DataObject) -> None:
    order = data.draw(st.lists(names, min_size=1, max_size=12, unique=True))
    expressions: dict[str, str] = {}
    expected: dict[str, str] = {}
    for number, name in enumerate(order):
        literal = data.draw(value_text.filter(lambda text: not text.startswith("~")))
        of = data.draw(st.lists(st.sampled_from(order[:number]), max_size=2)) if number else []
        expressions[name] = escape_dollars(literal) + "".join(f"${{{other}}}" for other in of)
        expected[name] = literal + "".join(expected[other] for other in of)
    text_expander = Expander(dict(data.draw(st.permutations(list(expressions.items())))), {}, HOME)
    for name in data.draw(st.permutations(order)):
        assert text_expander.variable(name) == expected[name]


@moderate(40)
@given(value_text)
def test_escape(text: str) -> None:
    assert expander().text(escape_dollars(text), path=False) == text
    assert list(references(escape_dollars(text))) == []


@moderate(50)
@given(st.lists(names, min_size=1, max_size=8, unique=True), st.integers(0, 7))
def test_circle_names_its_chain(ring: list[str], start: int) -> None:
    after = ring[1:] + ring[:1]
    variables = {name: f"x${{{following}}}" for name, following in zip(ring, after, strict=True)}
    first = start % len(ring)
    chain = [*ring[first:], *ring[:first], ring[first]]
    with pytest.raises(ExpressionError) as caught:
        Expander(variables, {}, HOME).variable(ring[first])
    assert str(caught.value).endswith("circular reference: " + " → ".join(chain))


def test_an_error_names_the_chain_that_leads_to_it() -> None:
    assert why("${X}", X="${A}", A="${B}", B="${A}") == "circular reference: A → B → A"
    assert why("${A}", A="${B}", B="${NOSUCH}") == "there is no variable 'NOSUCH' (A → B → NOSUCH)"
    assert why("${a}", A="a") == "there is no variable 'a'", "names are case-sensitive"


def test_error_comes_again() -> None:
    """A failed variable is not remembered as an empty one."""
    text_expander = expander(A="${B}", B="${A}")
    for name in ("A", "B", "A"):
        with pytest.raises(ExpressionError):
            text_expander.variable(name)


# Limits


def test_value_may_grow_to_the_limit() -> None:
    long = "x" * (VALUE_LIMIT // 2)
    assert len(value("${A}${A}", A=long)) == VALUE_LIMIT
    assert str(VALUE_LIMIT) in why("${A}${A}x", A=long)


@pytest.mark.parametrize(("first", "times"), [("ha", 2), ("ha", 50), ("", 50)])
def test_doubling_ends_fast(first: str, times: int) -> None:
    """Each value is worked out once, however often it is referred to."""
    variables = {f"A{n}": f"${{A{n - 1}}}" * times for n in range(1, 90)} | {"A0": first}
    started = time.process_time()
    message = why("${A89}", **variables) if first else value("${A89}", **variables)
    assert time.process_time() - started < 2
    assert message == (f"the value is longer than {VALUE_LIMIT} characters" if first else "")


def test_a_text_counts_once_for_the_limit_of_all_values() -> None:
    """A run renders its profile several times."""
    large = expander(A="a" * 4000, B="${A}" * 15)
    assert {len(large.text("${B}", path=False)) for _ in range(100)} == {60_000}


def test_long_chain_is_an_error_and_no_overflow_of_the_stack() -> None:
    variables = {f"A{n}": f"${{A{n - 1}}}" for n in range(1, 20_000)} | {"A0": "x"}
    assert "100" in why("${A19999}", **variables)


@pytest.mark.parametrize("value", ["a\0b", "\0", "\udcff"])
def test_values_that_no_program_can_be_given(value: str) -> None:
    for text_expander in (expander({"X": value}), expander(X=value)):
        for expression in ("${env:X}", "${X}"):
            with pytest.raises(ExpressionError) as caught:
                text_expander.text(expression, path=False)
            assert value not in str(caught.value)
