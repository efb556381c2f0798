"""Files in TOML whose form pydantic checks: reading one, and every fault of it said for people."""

from __future__ import annotations

import difflib
import re
import tomllib
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from taoprofiles.profiles.rendering import LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEPTH_LIMIT = 32
"""Parts of a dotted key. The forms have three; tomllib keeps each beginning of a key, which grows with its square."""

_TOKEN = re.compile(
    r'''#[^\n]*+|"""(?:[^"\\]++|\\.?|"(?!""))*+(?:"{3,5}|\Z)|"(?:[^"\\\n]++|\\.?)*+"?'''
    r"""|'''(?:[^']++|'(?!''))*+(?:'{3,5}|\Z)|'[^'\n]*+'?|[^\w \t-]""",
    re.DOTALL,
)
"""What is not part of a bare key: comments, texts, and each other character. It never goes back, so time is linear."""

FormT = TypeVar("FormT", bound="Form")


class Form(BaseModel):
    """A table of such a file: no key that it does not know, no value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class FormError(Exception):
    """What is wrong with a file, in ``problems``: one line for each fault. Values are not repeated in them."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def parse(
    form: type[FormT],
    content: bytes,
    *,
    tables: Mapping[str, type[Form]] | None = None,
    places: Mapping[str, str] | None = None,
) -> FormT:
    """Read a file of that form. Raises FormError.

    ``tables`` are the forms of its tables by name, for the keys that are known there; ``places`` says what a key must
    be where a general text would not do.
    """
    if len(content) > LIMIT:
        raise FormError([f"the file has {len(content)} bytes; at most {LIMIT} are read"])
    try:
        text = content.decode("utf-8")
        if _too_deep(text):
            raise RecursionError
        return form.model_validate(tomllib.loads(text))
    except ValidationError as error:
        raise FormError(list(_problems(error, {"": form, **(tables or {})}, places or {}))) from None
    except UnicodeDecodeError as error:
        raise FormError([f"not UTF-8 text, at byte {error.start}"]) from None
    except RecursionError:
        raise FormError(["nested too deeply"]) from None
    except tomllib.TOMLDecodeError as error:
        raise FormError([str(error)]) from None
    except ValueError:  # Python reads at most 4300 digits
        raise FormError(["it has a number of too many digits"]) from None


def _too_deep(text: str) -> bool:
    """Whether a dotted key or table header has more than DEPTH_LIMIT parts; the parser must not see it then."""
    dots = 0
    for token in _TOKEN.finditer(text):
        first = token.group()[0]
        if first == ".":
            dots += 1
            if dots >= DEPTH_LIMIT:
                return True
        elif first not in "\"'":  # a quoted part
            dots = 0
    return False


def _problems(error: ValidationError, tables: Mapping[str, type[Form]], places: Mapping[str, str]) -> Iterator[str]:
    for fault in error.errors(include_url=False, include_input=False):
        where = ""
        for step in fault["loc"]:
            if step in ("<text>", "<number>", "<list>", "[key]"):
                continue  # which form of a value was meant is of no use to the reader
            key = str(step) if len(str(step)) <= 80 else f"{str(step)[:80]}…"
            key = key or '""'
            where += f"[{step}]" if isinstance(step, int) else f".{key}" if where else key
        told = _explain(fault, where, tables, places)
        yield f"{where}: {told}" if where else str(fault["msg"]).removeprefix("Value error, ")


def _explain(fault: Mapping[str, Any], where: str, tables: Mapping[str, type[Form]], places: Mapping[str, str]) -> str:
    kind = fault["type"]
    if kind == "extra_forbidden":
        known = _keys_beside(where, tables)
        close = difflib.get_close_matches(where.rpartition(".")[2], known, n=1)
        return f"unknown key; did you mean '{close[0]}'?" if close else f"unknown key; known are {', '.join(known)}"
    bounds = fault.get("ctx", {})
    told = {
        "missing": "missing",
        "string_type": "must be text; put it in quotes",
        "int_type": "must be a whole number, without quotes",
        "bool_type": "must be true or false, without quotes",
        "dict_type": "must be a table",
        "model_type": "must be a table",
        "list_type": "must be a list",
        "literal_error": f"must be {bounds.get('expected')}",
        "less_than_equal": f"must be at most {bounds.get('le')}",
        "greater_than_equal": f"must be at least {bounds.get('ge')}",
        "string_pattern_mismatch": "may hold only letters, digits and '_' (in a network also '.' and '-'), at most 256 "
        "of them, and not start with a sign",
    }
    if kind == "string_pattern_mismatch" and where.endswith("_dir"):
        return "must name a folder, and not '/'"
    return places.get(where) or told.get(kind) or str(fault["msg"])[:1].lower() + str(fault["msg"])[1:]


def _keys_beside(where: str, tables: Mapping[str, type[Form]]) -> list[str]:
    table = where.partition(".")[0].partition("[")[0] if "." in where else ""
    model = tables.get(table, tables[""])
    return [field.alias or name for name, field in model.model_fields.items()]
