"""`data.groups`: the group that reports count a category's rows in, as somebody writes it."""

import json
from typing import Any

from sft.data.records import GROUPS, Group, category_name


def group_by_category(groups: Any) -> Any:
    """What is no mapping, or one from groups to categories, is answered with the line that was probably meant."""
    if not isinstance(groups, dict):
        name, _, group = str(groups).replace("：", ":").partition(":")
        name = name if isinstance(groups, str) and name not in ("", *GROUPS) else "社内手続き"
        line = f"data.groups={{{name}: {group.strip() if group.strip() in GROUPS else 'open'}}}"
        given = json.dumps(groups, ensure_ascii=False, default=str)
        raise ValueError(f"expected a mapping, got {given:.60}; it gives categories their groups, for example {line}")
    for group, name in groups.items():
        if group in GROUPS and isinstance(name, str) and name not in GROUPS:
            raise ValueError(f"the category comes first, then its group: data.groups={{{name}: {group}}}")
    return groups


def category_names(groups: dict[str, Group]) -> dict[str, Group]:
    """The groups by category as rows hold it; one category in two groups is refused."""
    found: dict[str, Group] = {}
    for name, group in groups.items():
        if found.setdefault(category_name(name), group) != group:
            raise ValueError(f"{name} is in two groups; give it one")
    return found
