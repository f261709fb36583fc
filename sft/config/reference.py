"""Every key of the configuration as its section has it: type, default, and what is said of it in the source."""

import ast
import inspect
import sys
import types
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from sft.config.hints import LIMITS, in_words, shown
from sft.config.library.keys import LIBRARY_CLASSES
from sft.config.section import Section, section_in
from sft.config.sections import OWN_KEYS, SECTIONS

NO_LIMIT = 2**16
"""Bounds from here on are there for what no computer could do, and are left out."""


class Key(NamedTuple):
    """One key. `name` is dotted, as on the command line."""

    name: str
    kind: str
    """Its type and bounds, in words."""
    default: str | None
    """As YAML; None: it has to be given."""
    text: str
    """What it means; empty where its library documents it."""


def keys_of(section: str) -> Iterator[Key]:
    """The keys of a section and of the mappings in it: those that are a library's alone come last."""
    yield from _keys(section, SECTIONS[section], LIBRARY_CLASSES.get(section))


def about(section: str) -> str:
    """What a section is, in a sentence or two."""
    if library := LIBRARY_CLASSES.get(section):
        return (
            f"Settings of {library}, some with a default or range of this project. What has no text here, it documents."
        )
    return " ".join(inspect.cleandoc(SECTIONS[section].__doc__ or "").partition("\n\n")[0].split())


def _keys(place: str, cls: type[Section], library: str | None) -> Iterator[Key]:
    own = OWN_KEYS[place].model_fields if place in OWN_KEYS else {}
    for name, field in cls.model_fields.items():
        value = field.get_default(call_default_factory=True)
        left = library is not None and value is None and name not in own
        default = None if field.is_required() else f"left to {library}" if left else shown(value)
        text = " ".join(_texts(cls).get(name, field.description or "").split())
        yield Key(f"{place}.{name}", _kind(field), default, text)
        if inner := section_in(field.annotation):
            yield from _keys(f"{place}.{name}", inner, None)


def _kind(field: FieldInfo) -> str:
    bounds = {
        name: bound
        for entry in _entries(field.annotation, field.metadata)
        for name in LIMITS
        if (bound := getattr(entry, name, None)) is not None and abs(bound) < NO_LIMIT
    }
    return ", ".join([in_words(field.annotation), *(f"{LIMITS[name]} {bound:g}" for name, bound in bounds.items())])


def _entries(kind: Any, metadata: list[Any]) -> list[Any]:
    """What a type is annotated with, beside its field's `metadata`; of a union, any of its types."""
    parts = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    notes = [note for part in parts if get_origin(part) is Annotated for note in get_args(part)[1:]]
    return metadata + [entry for note in notes for entry in getattr(note, "metadata", [])]


@cache
def _texts(cls: type[Section]) -> dict[str, str]:
    """The text below each field, in the source of a section and of those that it is made of."""
    texts = {}
    for part in reversed(cls.__mro__):
        for field, below in pairwise(_source(part.__module__).get(part.__name__, [])):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    texts[name] = text
    return texts


@cache
def _source(module: str) -> dict[str, list[ast.stmt]]:
    """The bodies of a module's classes."""
    if not module.startswith("sft."):
        return {}
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}
