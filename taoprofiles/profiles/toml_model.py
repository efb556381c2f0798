"""Strict pydantic models for TOML files, and their validation errors in words for the person who wrote the file."""

from __future__ import annotations

import difflib
import tomllib
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from taoprofiles.profiles.rendering import SIZE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DOTS_LIMIT = 200
"""Dots on one line. tomllib stores each prefix of a dotted key, so the memory grows with the square of its parts."""

ModelT = TypeVar("ModelT", bound="StrictModel")


class StrictModel(BaseModel):
    """A table without unknown keys and without conversion of types.

    ``tables`` are the models of its tables by key; ``wording`` replaces the message about a key that has a wrong value.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)
    tables: ClassVar[Mapping[str, type[StrictModel]]] = {}
    wording: ClassVar[Mapping[str, str]] = {}


class InvalidFileError(Exception):
    """``problems`` has one line for each fault of a file. Values are not repeated: they may be secret."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def parse(model: type[ModelT], content: bytes) -> ModelT:
    """Parse and validate a TOML file. Raises InvalidFileError."""
    if len(content) > SIZE_LIMIT:
        raise InvalidFileError([f"the file has {len(content)} bytes; at most {SIZE_LIMIT} are read"])
    try:
        text = content.decode("utf-8")
        if any(line.count(".") > DOTS_LIMIT for line in text.splitlines() if not line.startswith("#")):
            raise RecursionError
        return validate(model, tomllib.loads(text))
    except UnicodeDecodeError as error:
        raise InvalidFileError([f"not UTF-8 text, at byte {error.start}"]) from None
    except RecursionError:
        raise InvalidFileError(["nested too deeply"]) from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidFileError([str(error)]) from None
    except ValueError:  # Python reads at most 4300 digits
        raise InvalidFileError(["it has a number of too many digits"]) from None


def validate(model: type[ModelT], data: Mapping[str, Any]) -> ModelT:
    """Validate data. Raises InvalidFileError with all faults."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InvalidFileError(list(_problems(model, error))) from None


def _problems(model: type[StrictModel], error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False, include_input=False):
        where = ""
        for step in fault["loc"]:
            if step in ("<text>", "<number>", "<list>", "[key]"):
                continue  # a tag of a union
            key = (str(step) if len(str(step)) <= 80 else f"{str(step)[:80]}…") or '""'
            where += f"[{step}]" if isinstance(step, int) else f".{key}" if where else key
        message = str(fault["msg"])
        yield f"{where}: {_explain(model, fault, where)}" if where else message.removeprefix("Value error, ")


def _explain(model: type[StrictModel], fault: Mapping[str, Any], where: str) -> str:
    kind, limits = fault["type"], fault.get("ctx", {})
    if kind == "extra_forbidden":
        known = _keys_of_table(model, where)
        close = difflib.get_close_matches(where.rpartition(".")[2], known, n=1)
        return f"unknown key; did you mean '{close[0]}'?" if close else f"unknown key; known are {', '.join(known)}"
    if kind == "string_pattern_mismatch" and where.endswith("_dir"):
        return "must name a folder, and not '/'"
    messages = {
        "missing": "missing",
        "string_type": "must be text; put it in quotes",
        "int_type": "must be a whole number, without quotes",
        "bool_type": "must be true or false, without quotes",
        "dict_type": "must be a table",
        "model_type": "must be a table",
        "list_type": "must be a list",
        "literal_error": f"must be {limits.get('expected')}",
        "less_than_equal": f"must be at most {limits.get('le')}",
        "greater_than_equal": f"must be at least {limits.get('ge')}",
        "string_pattern_mismatch": "may contain only letters, digits and '_' (in a network also '.' and '-'), at most "
        "256 of them, and must not start with a sign",
    }
    message = str(fault["msg"])
    return model.wording.get(where) or messages.get(kind) or message[:1].lower() + message[1:]


def _keys_of_table(model: type[StrictModel], where: str) -> list[str]:
    table = where.partition(".")[0].partition("[")[0] if "." in where else ""
    fields = model.tables.get(table, model).model_fields
    return [field.alias or name for name, field in fields.items()]
