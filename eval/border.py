"""Records on their way into JSON and out of it. No torch here."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

Record = TypeVar("Record")

_adapter: Callable[[Any], TypeAdapter[Any]] = functools.cache(TypeAdapter)

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "an object",
    "dataclass_type": "an object",
    "tuple_type": "a list",
    "list_type": "a list",
}
"""What pydantic's errors miss, in the words of JSON."""


def json_text(fields: Mapping[str, Any], indent: int = 2) -> str:
    """A JSON file's text. Raises ValueError for NaN and infinities."""
    return json.dumps(fields, ensure_ascii=False, indent=indent, allow_nan=False) + "\n"


def from_json(found: Any, kind: type[Record]) -> Record:
    """The dataclass `kind` of the JSON value that its fields are written as.

    Raises ValueError, one line about the first field that is missing, unknown or of the wrong type.
    """
    try:
        return _adapter(kind).validate_python(found)
    except ValidationError as error:
        first = error.errors()[0]
    place, problem = ".".join(map(str, first["loc"])), first["type"]
    if problem == "missing":
        raise ValueError(f"no field {place}")
    if problem == "unexpected_keyword_argument":
        holder: Any = kind
        for name in first["loc"][:-1]:
            holder = get_type_hints(holder)[str(name)]
        known = ", ".join(field.name for field in dataclasses.fields(holder))
        raise ValueError(f"unknown field {place}; known: {known}")
    if problem == "value_error":
        raise ValueError(f"{place}: {first['ctx']['error']}")
    given = json.dumps(first["input"], ensure_ascii=False)
    given = given if len(given) <= 60 else f"{given[:59]}…"
    if problem in _EXPECTED:
        raise ValueError(f"{place or 'the line'} is {given}, not {_EXPECTED[problem]}")
    raise ValueError(f"{place} is {given}: {first['msg'][0].lower()}{first['msg'][1:]}")
