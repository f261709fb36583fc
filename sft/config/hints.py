"""What was probably meant by a key or section that is not known."""

import difflib
from typing import Any

from sft.config.library_keys import LIBRARY_CLASSES, usable_keys
from sft.config.sections import OWN_KEYS, Config


def section_keys(section: str) -> list[str]:
    """Keys that may be written in a section."""
    if section in LIBRARY_CLASSES:
        own = OWN_KEYS[section].model_fields if section in OWN_KEYS else {}
        return [*own, *usable_keys(section)]
    annotation: Any = Config.model_fields[section].annotation
    return list(annotation.model_fields)


def unknown_key(section: str, key: str) -> str:
    """The nearest known key: the same one in another section, a similar one here, a similar one elsewhere."""
    others = [name for name in Config.model_fields if name != section]
    homes = [name for name in others if key in section_keys(name)]
    if homes:
        return f"unknown key; {key} belongs to {' or '.join(homes)}"
    near = difflib.get_close_matches(key, section_keys(section), n=1)
    near = near or difflib.get_close_matches(key, [f"{name}.{k}" for name in others for k in section_keys(name)], n=1)
    if near:
        return f"unknown key; did you mean {near[0]}?"
    if section in LIBRARY_CLASSES:
        return f"unknown key; {LIBRARY_CLASSES[section]} has the keys of this section"
    return f"unknown key; known: {', '.join(section_keys(section))}"


def unknown_section(name: str) -> str:
    homes = [section for section in Config.model_fields if name in section_keys(section)]
    if homes:
        return f"unknown section; {name} belongs to {' or '.join(homes)}"
    near = difflib.get_close_matches(name, Config.model_fields, n=1)
    return (
        f"unknown section; did you mean {near[0]}?"
        if near
        else f"unknown section; known: {', '.join(Config.model_fields)}"
    )
