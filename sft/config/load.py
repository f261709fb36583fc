"""A YAML file and changes to it become a checked `Config`, without importing torch."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import ValidationError

from sft.config.hints import LIMITS, mismatch, shown, unknown_key, unknown_section
from sft.config.library.keys import LIBRARY_CLASSES, REFUSED
from sft.config.library.packages import check_packages
from sft.config.origin import Origin
from sft.config.second_stage import with_parents_lora
from sft.config.section import Section, section_in
from sft.config.sections import SECTIONS, Config, DataSection
from sft.config.values import check_data, check_values
from sft.system.errors import UserError
from sft.system.visible import holds_token, is_text
from sft.system.yaml_text import parse_yaml, read_yaml

_OTHER_TYPE = ("_type", "literal_error")
"""Ends of pydantic's names for errors about values of another type; those of other errors come after the type."""


def load_config(path: Path | str, overrides: Sequence[str] = (), to_train: bool = True) -> Config:
    """Read and check a YAML file; `overrides` are `section.key=value` with values in YAML, and the last one wins.

    Raises UserError, one line that names file (or command line), section and key, for anything wrong, and for a value
    that needs a package which is not installed; what only training needs may be missing unless `to_train`.
    """
    return config_of(read_yaml(Path(path)), Path(path), overrides, to_train)


def config_of(values: dict[Any, Any], path: Path, overrides: Sequence[str], to_train: bool) -> Config:
    """`load_config` of what was read already; `path` is how errors call the place that `values` came from."""
    values = copy.deepcopy(values)
    origin = Origin(path, frozenset(override(values, text) for text in overrides))
    _check_texts(values, "", origin)
    for name in values:
        if name not in SECTIONS:
            raise origin.error(str(name), unknown_section(str(name)))
    config = Config(**{name: _checked_section(name, values, origin) for name in SECTIONS})
    if to_train and config.model.adapter is not None:
        there = Path(config.model.adapter, "config.yaml")
        if not there.is_file():
            raise origin.error("model.adapter", f"{config.model.adapter}: is not the directory of a run")
        config = with_parents_lora(config, load_config(there, to_train=False), values.get("lora"), origin)
    check_values(config, origin)
    check_packages(config, origin, to_train)
    return config


def data_section(paths: Sequence[str], overrides: Sequence[str]) -> DataSection:
    """Section `data` without a configuration file: these paths, and `data.key=value` as on any command line.

    Raises UserError as `load_config` does, and for keys of other sections.
    """
    values: dict[Any, Any] = {"data": {"path": paths[0] if len(paths) == 1 else list(paths)} if paths else {}}
    keys = frozenset(override(values, text) for text in overrides)
    origin = Origin(Path("command line"), keys)
    if paths and "data.path" in keys:
        raise origin.error("data.path", f"{paths[0]} is named beside it; name the files in one of the two")
    _check_texts(values, "", origin)
    for name in values:
        if name != "data":
            raise origin.error(str(name), "is not asked for here; keys of section data are, such as data.columns")
    section = _validated("data", values["data"], origin)
    assert isinstance(section, DataSection)
    check_data(section, origin)
    return section


def _check_texts(value: Any, key: str, origin: Origin) -> None:
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
            raise origin.error(
                key, "holds a login, a key or a signature; take it out (for the hub: `hf auth login`, or HF_TOKEN)"
            )
        if not is_text(value):
            raise origin.error(key, "is not text: it holds a null character, or bytes that are not UTF-8")


def override(values: dict[Any, Any], text: str) -> str:
    """Apply one `section.key=value` to `values` and return its dotted key. Raises UserError for what is not one."""
    dotted, equals, value_text = text.partition("=")
    *parents, last = dotted.split(".")
    if not equals or not all([*parents, last]):
        raise UserError(f"command line: {text!r} is not section.key=value")
    if not is_text(value_text):
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
    given = given or {}
    if name == "run" and given.get("directory") is None:
        given = given | {"directory": f"runs/{origin.path.stem}"}
    for key in given:
        if key in REFUSED.get(name, {}):
            raise origin.error(f"{name}.{key}", f"not set here; {REFUSED[name][key]}")
    section = _validated(name, given, origin)
    if name not in LIBRARY_CLASSES:
        return section
    filled_in = [key for key, field in SECTIONS[name].model_fields.items() if field.default is not None]
    return {key: getattr(section, key) for key in dict.fromkeys([*filled_in, *given])}


def _validated(name: str, values: dict[Any, Any], origin: Origin) -> Section:
    """`values` as section `name`; pydantic's errors become one line about one key."""
    try:
        return SECTIONS[name].model_validate(values)
    except ValidationError as validation_error:
        # A union reports every branch; the one that got deepest, and whose type is right, is what was meant.
        errors = [(_path(values, error["loc"]), error) for error in validation_error.errors()]
        keys, error = max(errors, key=lambda item: (len(item[0]), not item[1]["type"].endswith(_OTHER_TYPE)))
    dotted, kind, value = ".".join((name, *keys)), error["type"], error["input"]
    if kind == "missing":
        raise origin.error(f"{dotted}.{error['loc'][-1]}", "missing, but required")
    if kind in ("extra_forbidden", "invalid_key"):
        parent: Any = section_in(_expected(SECTIONS[name], keys[:-1])[0])
        known = f"unknown key; known: {', '.join(parent.model_fields)}"
        raise origin.error(dotted, unknown_key(name, keys[0]) if len(keys) == 1 else known)
    if kind == "value_error":
        raise origin.error(dotted, str(error["ctx"]["error"]))
    if kind == "string_too_short":
        raise origin.error(dotted, f"must not be empty, got {shown(value)}")
    expected, note = _expected(SECTIONS[name], keys)
    note = f" ({note})" if note else ""
    if limit := next((key for key in LIMITS if key in error.get("ctx", {})), None):
        raise origin.error(dotted, f"must be {LIMITS[limit]} {error['ctx'][limit]:,.12g}{note}, got {shown(value)}")
    raise origin.error(dotted, mismatch(str if error["loc"][-1] == "[key]" else expected, value) + note)


def _path(values: Any, location: tuple[int | str, ...]) -> list[str]:
    """The part of a pydantic error's location that is keys of the file (the rest names branches of a union)."""
    keys = []
    for part in location:
        if isinstance(values, dict) and part in values:
            keys.append(str(part))
            values = values[part]
    return keys


def _expected(kind: Any, keys: Sequence[str]) -> tuple[Any, str | None]:
    """The type of what stands at `keys` inside of a `kind`, and what its field notes about it."""
    note = None
    for key in keys:
        if section := section_in(kind):
            kind, note = section.model_fields[key].annotation, section.model_fields[key].description
        else:
            choices = (get_args(part)[0] if get_origin(part) is Annotated else part for part in (kind, *get_args(kind)))
            kind = next(get_args(choice)[1] for choice in choices if get_origin(choice) is dict)
    return kind, note
