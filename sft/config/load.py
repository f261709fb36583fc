"""A YAML file and changes to it become a checked `Config`, without importing torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from sft.config.hints import unknown_key, unknown_section
from sft.config.library_keys import LIBRARY_CLASSES, REFUSED, check_value, key_types, mismatch
from sft.config.origin import Origin
from sft.config.sections import DEFAULTS, OWN_KEYS, Config, Section
from sft.config.values import check_values
from sft.system.errors import UserError
from sft.system.visible import holds_token
from sft.system.yaml_text import parse_yaml, read_yaml


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Read and check a YAML file; `overrides` are `section.key=value` with values in YAML, and the last one wins.

    Raises UserError, one line that names file (or command line), section and key, for anything wrong.
    """
    path = Path(path)
    values = read_yaml(path)
    origin = Origin(path, frozenset(override(values, text) for text in overrides))
    _check_texts(values, "", origin)
    for name in values:
        if name not in Config.model_fields:
            raise origin.error(str(name), unknown_section(str(name)))
    sections = {name: _checked_section(name, values, origin) for name in Config.model_fields}
    config = Config(**sections)
    check_values(config, origin)
    return config


def _check_texts(value: Any, key: str, origin: "Origin") -> None:
    """Refuse texts that no file could hold, and tokens of the hub, which would be kept in the run's config.yaml."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_texts(str(name), key, origin)
            _check_texts(inner, f"{key}.{name}".lstrip("."), origin)
    elif isinstance(value, list):
        for inner in value:
            _check_texts(inner, key, origin)
    elif isinstance(value, str):
        if holds_token(value):
            raise origin.error(key, "holds a login; take it out, and run `hf auth login` or set HF_TOKEN")
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise origin.error(key, "is not text: it holds a null character, or bytes that are not UTF-8")


def override(values: dict[Any, Any], text: str) -> str:
    """Apply one `section.key=value` to `values` and return its dotted key. Raises UserError for what is not one."""
    dotted, equals, value_text = text.partition("=")
    *parents, last = dotted.split(".")
    if not equals or not all([*parents, last]):
        raise UserError(f"command line: {text!r} is not section.key=value")
    if not value_text.isprintable() and any("\ud800" <= character <= "\udfff" for character in value_text):
        raise UserError(f"command line: {dotted}: is not text in the terminal's encoding; set LC_ALL=C.UTF-8")
    value = parse_yaml(value_text, f"command line: {dotted}")
    for parent in parents:
        if values.get(parent) is None:
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise UserError(f"command line: {dotted}: {parent} is not a mapping; set it as a whole")
    values[last] = value
    return dotted


def _checked_section(name: str, sections: dict[Any, Any], origin: Origin) -> Any:
    """One section with its defaults, as `Config` holds it. `lora: null` differs from none at all."""
    given = sections.get(name)
    if given is None and (name == "quantization" or (name == "lora" and name in sections)):
        return None
    if given is not None and not isinstance(given, dict):
        raise origin.error(name, mismatch(dict, given))
    values = DEFAULTS.get(name, {}) | (given or {})
    if name == "run" and values.get("directory") is None:
        values["directory"] = f"runs/{origin.path.stem}"
    if name not in LIBRARY_CLASSES:
        return _validated(Config.model_fields[name].annotation, name, values, origin)
    own = OWN_KEYS[name].model_fields if name in OWN_KEYS else {}
    library = {key: value for key, value in values.items() if key not in own}
    for key, value in library.items():
        if key in REFUSED[name]:
            raise origin.error(f"{name}.{key}", f"not set here; {REFUSED[name][key]}")
        if key not in key_types(name):
            raise origin.error(f"{name}.{key}", unknown_key(name, str(key)))
        try:
            library[key] = check_value(name, key, value)
        except ValueError as error:
            raise origin.error(f"{name}.{key}", str(error)) from None
    if name in OWN_KEYS:
        ours = {key: value for key, value in values.items() if key in own}
        return _validated(OWN_KEYS[name], name, ours, origin).model_dump() | library
    return library


def _validated(cls: Any, name: str, values: dict[Any, Any], origin: Origin) -> Any:
    """`values` as the section class `cls`; pydantic's errors become one line about one key."""
    try:
        return cls.model_validate(values)
    except ValidationError as validation_error:
        # A union reports every branch; the one that got deepest is what was meant.
        errors = [(_path(values, error["loc"]), error) for error in validation_error.errors()]
        keys, error = max(errors, key=lambda item: len(item[0]))
    dotted, value, kind = ".".join((name, *keys)), error["input"], error["type"]
    if kind == "missing":
        raise origin.error(f"{dotted}.{error['loc'][-1]}", "missing, but required")
    if kind in ("extra_forbidden", "invalid_key"):
        key = str(error["loc"][-1])
        if len(keys) == 1:
            raise origin.error(dotted, unknown_key(name, key))
        raise origin.error(dotted, f"unknown key; known: {', '.join(_nested(cls, keys[0]).model_fields)}")
    if kind == "value_error":
        raise origin.error(dotted, str(error["ctx"]["error"]))
    if kind.startswith(("greater_than", "less_than", "string_too_short")):
        raise origin.error(dotted, f"{error['msg'][0].lower()}{error['msg'][1:]}, got {value!r}")
    expected = str if error["loc"][-1] == "[key]" else _annotation(cls, keys)
    raise origin.error(dotted, mismatch(expected, value))


def _annotation(cls: Any, keys: Sequence[str]) -> Any:
    """The type of what stands at `keys` in section class `cls`: a field, a nested section's, or a mapping's value."""
    if len(keys) == 1:
        return cls.model_fields[keys[0]].annotation
    annotation = _nested(cls, keys[0]).model_fields[keys[1]].annotation
    return annotation if len(keys) == 2 else next(get_args(a)[1] for a in get_args(annotation) if get_origin(a) is dict)


def _nested(cls: Any, key: str) -> Any:
    """The section class among the types that field `key` of `cls` may have."""
    types = get_args(cls.model_fields[key].annotation)
    return next(kind for kind in types if isinstance(kind, type) and issubclass(kind, Section))


def _path(values: Any, location: tuple[int | str, ...]) -> list[str]:
    """The part of a pydantic error's location that is keys of the file (the rest names branches of a union)."""
    keys = []
    for part in location:
        if isinstance(values, dict) and part in values:
            keys.append(str(part))
            values = values[part]
    return keys
