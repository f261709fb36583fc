"""Names of categories in section `data`, held against the rows."""

import difflib
from collections.abc import Mapping

from sft.config.sections import DataSection
from sft.data.records import CATEGORIES, GROUPS, Kind, report_order
from sft.system.errors import UserError

NAMED = 20
"""At most so many categories are listed in an error."""


def check_names(section: DataSection, counts: Mapping[Kind, int]) -> None:
    """Raise UserError for a category that `data.groups` or `data.balance` names and no row has; dolly's may be absent.

    `counts` are the rows by kind.
    """
    own = list(report_order(counts))
    categories = list(dict.fromkeys([*own, *CATEGORIES]))
    weights = (section.balance and section.balance.weights) or {}
    listed = ", ".join(filter(None, own[:NAMED])) + ", …" * (len(own) > NAMED)
    there = f"the data has {listed or 'no categories'}"
    for key, names, known, what in (
        ("data.groups", section.groups, categories, "no category of the data"),
        ("data.balance.weights", weights, [*GROUPS, *categories], "neither a group nor a category of the data"),
    ):
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise UserError(f"{key}: {name} is {what}; {f'did you mean {near[0]}? ' if near else ''}{there}")
