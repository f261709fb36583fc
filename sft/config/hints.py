"""What is said of a key or a value that is wrong: what was probably meant, and what is expected."""

import difflib
import json
import shlex
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from sft.config.library.keys import LIBRARY_CLASSES, REFUSED
from sft.config.sections import SECTIONS

LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
"""pydantic's bounds in words."""


def unknown_key(section: str, key: str) -> str:
    """The nearest known key: the same one in another section, a similar one here, a similar one elsewhere."""
    keys = {name: list(cls.model_fields) for name, cls in SECTIONS.items()}
    here = keys.pop(section)
    elsewhere = [f"{name}.{key}" for name in keys for key in keys[name]]
    if homes := [name for name in keys if key in keys[name]]:
        return f"unknown key; {key} belongs to {' or '.join(homes)}"
    if near := difflib.get_close_matches(key, here, n=1) or difflib.get_close_matches(key, elsewhere, n=1):
        return f"unknown key; did you mean {near[0]}?"
    if section in LIBRARY_CLASSES:
        return f"unknown key; {LIBRARY_CLASSES[section]} has the keys of this section"
    return f"unknown key; known: {', '.join(here)}"


def unknown_section(name: str) -> str:
    """The section that has a key of this name, or a section of a similar name."""
    if homes := [section for section, cls in SECTIONS.items() if name in cls.model_fields]:
        return f"unknown section; {name} belongs to {' or '.join(homes)}"
    if near := difflib.get_close_matches(name, SECTIONS, n=1):
        return f"unknown section; did you mean {near[0]}?"
    return f"unknown section; known: {', '.join(SECTIONS)}"


def as_setting(option: str, value: str) -> str:
    """What somebody is told who gave a key as an option, `--learning_rate 1e-4`; `value` is the word after it."""
    name, given = option.replace("-", "_"), shlex.quote(value) if value and not value.startswith("-") else "…"
    if refused := [
        f"{section}.{name} is not set here: {keys[name]}" for section, keys in REFUSED.items() if name in keys
    ]:
        return refused[0]
    keys = [f"{section}.{key}" for section, cls in SECTIONS.items() for key in cls.model_fields]
    if homes := [key for key in keys if name in (key, key.partition(".")[2])]:
        return f"settings are written {' or '.join(f'{key}={given}' for key in homes)}"
    by_name = {key.partition(".")[2]: key for key in keys}
    if near := difflib.get_close_matches(name.rpartition(".")[2], by_name, n=1):
        return f"did you mean the setting {by_name[near[0]]}={given}?"
    return "settings are written section.key=value, and python -m sft.config lists them"


def mismatch(kind: Any, value: Any) -> str:
    """What was expected, a type, and what was given, in words and on one line."""
    quote = "; put it in quotes" if str in (kind, *get_args(kind)) and isinstance(value, int | float) else ""
    near = difflib.get_close_matches(value, _choices(kind), n=1) if isinstance(value, str) else []
    return f"expected {in_words(kind)}, got {shown(value)}{quote}" + (f"; did you mean {near[0]}?" if near else "")


def shown(value: Any) -> str:
    """The beginning of a value, as YAML has it: true, null, "text"."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _choices(kind: Any) -> list[str]:
    """The texts that a type allows by name."""
    if get_origin(kind) is Literal:
        return [str(choice) for choice in get_args(kind)]
    return [choice for argument in get_args(kind) for choice in _choices(argument)]


_PLAIN = {
    bool: "true or false", int: "an integer", float: "a finite number", str: "text", type(None): "null",
    list: "a list", dict: "a mapping",
}  # fmt: skip


def in_words(kind: Any) -> str:
    """A type in words: `int | None` → "an integer or null"."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return in_words(arguments[0])
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments[:12])) + (", …" if len(arguments) > 12 else "")
    if origin in (Union, types.UnionType):
        return " or ".join(map(in_words, arguments))
    if origin is list:
        inner = in_words(arguments[0])
        known = {"text": "texts", "an integer": "integers"}
        return f"a list of {known[inner]}" if inner in known else f"a list, each {inner}"
    return _PLAIN.get(origin or kind, "a mapping")
