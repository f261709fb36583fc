"""Keys and types of the library classes behind the YAML sections, checked without importing the libraries.

`keys.json` holds the type of every key as a Python expression. `python -m sft.config.library.keys` writes it
anew from the installed libraries; a test compares the two.
"""

import dataclasses
import enum
import functools
import inspect
import json
import re
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import Field

from sft.system.yaml_text import read_yaml

TABLE = Path(__file__).with_suffix(".json")

LIBRARY_CLASSES = {
    "quantization": "transformers.BitsAndBytesConfig",
    "lora": "peft.LoraConfig",
    "training": "trl.SFTConfig",
    "generation": "transformers.GenerationConfig",
}
"""Sections whose keys are a library class's, and that class."""

REFUSED: dict[str, dict[str, str]] = {
    section: {key: reason for reason, keys in reasons.items() for key in keys.split()}
    for section, reasons in read_yaml(TABLE.with_name("refused_keys.yaml")).items()
}
"""Keys that the pipeline owns or the pinned libraries dropped, with what to use instead."""

MODULE_NAME = r"^[\w.]+$"
"""What keys of a saved adapter have to be that PEFT would read as regular expressions."""

_CHOICES = {
    # The signature has no types; a wrong name would surface only after the weights have been read.
    "bnb_4bit_quant_type": "Literal['fp4', 'nf4']",
    "bnb_4bit_compute_dtype": "Literal['float16', 'bfloat16', 'float32'] | None",
    "bnb_4bit_quant_storage": "Literal['float16', 'float32', 'int8', 'uint8', 'float64', 'bfloat16'] | None",
}


_TYPES = {
    "Any": Any, "Literal": Literal, "bool": bool, "str": str, "list": list, "dict": dict,
    # What no key's own range is narrower than.
    "int": Annotated[int, Field(ge=0, lt=2**31)], "float": Annotated[float, Field(ge=0, le=1e9)],
}  # fmt: skip


@functools.cache
def key_types(section: str) -> dict[str, Any]:
    """Key → type of the library class behind `section`, without refused keys; {} for its own sections."""
    table = json.loads(TABLE.read_text(encoding="utf-8")).get(section, {})
    return {key: eval(expression, {"__builtins__": {}}, _TYPES) for key, expression in table.items()}


def library_table() -> dict[str, dict[str, str]]:
    """The table as the installed libraries give it, without refused keys. Imports them, which takes seconds."""
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig, GenerationConfig
    from trl import SFTConfig

    documented = _documented_types(BitsAndBytesConfig)
    named = [p for p in inspect.signature(BitsAndBytesConfig).parameters.values() if p.kind is not p.VAR_KEYWORD]
    optional = {p.name: " | None" if p.default is None else "" for p in named}
    generation = _documented_types(GenerationConfig)
    table = {
        "quantization": {n: _CHOICES.get(n, documented.get(n, "Any") + optional[n]) for n in optional},
        "lora": _field_types(LoraConfig),
        "training": _field_types(SFTConfig),
        "generation": {n: f"{generation[n]} | None" if n in generation else "Any" for n in vars(GenerationConfig())},
    }
    return {name: {key: kinds[key] for key in kinds if key not in REFUSED[name]} for name, kinds in table.items()}


def _field_types(cls: Any) -> dict[str, str]:
    hints = typing.get_type_hints(cls)
    return {field.name: _expression(hints[field.name]) for field in dataclasses.fields(cls) if field.init}


def _expression(kind: Any) -> str:
    """A dataclass annotation as the expression of a type that YAML can hold; "Any" where none is known."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is type(None):
        return "None"
    if origin in (Union, types.UnionType):
        # Next to an enumeration, `str` only means that its values may be written as text.
        is_enum = any(isinstance(a, type) and issubclass(a, enum.Enum) for a in arguments)
        parts = [_expression(a) for a in arguments if not (is_enum and a is str)]
        # Python hands a union back in the order of its first use anywhere, so the order here is our own.
        ordered = sorted(set(parts), key=lambda part: (part == "None", "[" in part, part))
        return "Any" if "Any" in parts else " | ".join(ordered)
    if origin is Literal:
        # peft spells a family of names as 'pissa_niter_[number of iters]'.
        return "str" if any("[" in str(a) for a in arguments) else f"Literal{list(arguments)!r}"
    if origin in (list, dict):
        return f"{origin.__name__}[{', '.join(map(_expression, arguments))}]"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return f"Literal{[member.value for member in kind]!r}"
    return kind.__name__ if kind in (bool, int, float, str, list, dict) else "Any"


def _documented_types(cls: Any) -> dict[str, str]:
    """Types from the lines "name (`type`, *optional*):" of a docstring, where they are plain ones."""
    lines = re.findall(r"^ +(\w+):? *\((.+)\):$", inspect.getdoc(cls) or "", flags=re.MULTILINE)
    kinds = {name: kind.split(", *optional*")[0].replace("`", "").replace(" or ", " | ") for name, kind in lines}
    return {name: kind for name, kind in kinds.items() if re.fullmatch(r"(bool|int|float|str|list\[|[\]| ])+", kind)}


if __name__ == "__main__":
    TABLE.write_text(json.dumps(library_table(), indent=1) + "\n", encoding="utf-8")
