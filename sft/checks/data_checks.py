"""The doctor's lines about the rows themselves: dropped, repaired, said twice, translated badly, or too few."""

import math
from collections import Counter
from collections.abc import Mapping

import pyarrow.compute
from datasets import Dataset

from sft.checks.doctor import Line
from sft.data.fields.cells import REPAIRED
from sft.data.fields.defects import DEFECTS
from sft.data.read import LoadedData
from sft.data.records import GROUPS
from sft.data.rows import kind_counts
from sft.data.split import Split
from sft.data.survey import Survey, survey
from sft.system.visible import counted

NOTED_SHARE = 0.01
"""A reason that costs more of the rows, or of a category, is looked at."""
SPREAD, DIFFERENCE = 0.24, 0.05
"""The standard deviation of paired differences of character F1 between base and tuned model, the largest of a category
in docs/results.md (its interval's half width times √60 / 1.96), and the difference that somebody would want to see."""
ROWS_TO_KEEP_BY = 20
"""Validation rows below which the lowest of several losses says little about the checkpoint; a rule of thumb."""
ROWS_TO_TELL = math.ceil((1.96 * SPREAD / DIFFERENCE) ** 2)
"""Rows of a group at which a 95% interval is that difference to either side."""


def data_checks(data: LoadedData, split: Split, allow_dropped: float) -> list[Line]:
    """All of them; `split` is the rows' sides, `allow_dropped` is `data.allow_dropped`."""
    found = survey(data.rows)
    return [
        drops(data, allow_dropped),
        *cells(data),
        *categories(data.rows, found),
        *systems(data.rows, found),
        duplicates(data.rows, found),
        defects(found.defects, len(data.rows)),
        *sides(split),
    ]


def drops(data: LoadedData, allowed: float, go_on: str = "train on the rest") -> Line:
    """What could not be used: red above the share `allowed`. What the configuration asks for does not count.

    `go_on` says what becomes of the rest where it is allowed.
    """
    unusable, dropped = data.unusable, data.unusable.total()
    total = len(data.rows) + dropped
    if not dropped:
        return Line("green", "rows", f"all {total:,} can be used")
    usable = pyarrow.compute.value_counts(data.rows.data.column("category")).to_pylist()
    of_category = Counter({entry["values"]: entry["counts"] for entry in usable})
    reasons: Counter[str] = Counter()
    for (reason, category), count in unusable.items():
        reasons[reason] += count
        of_category[category] += count
    found = f"{dropped:,} of {total:,} cannot be used ({dropped / total:.1%}): "
    found += ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common(4))
    if places := [drop.place for drop in data.dropped if drop.reason == reasons.most_common(1)[0][0]]:
        found += f"; the first is {places[0]}"
    if data.too_many_unusable(allowed):
        enough = min(1.0, math.ceil(20 * dropped / total) / 20)
        return Line("red", "rows", found, f"mend the data, or {go_on} with data.allow_dropped={enough:g}")
    costly = [
        f"{count / of_category[category]:.0%} of {category}"
        for (_, category), count in unusable.items()
        if category and count > NOTED_SHARE * of_category[category]
    ]
    if costly or any(count > NOTED_SHARE * total for count in reasons.values()):
        found += f" ({', '.join(costly[:3])})" if costly else ""
        return Line("yellow", "rows", found, "mend them in the data; every reason and its first places stand above")
    return Line("green", "rows", found)


def cells(data: LoadedData) -> list[Line]:
    """Cells that were repaired, and those that look wrong, with the first few of each kind."""
    lines = []
    for kind, count in data.cells.counts.most_common():
        places = ", ".join(f"{place} “{' '.join(text.split())}”" for place, text in data.cells.examples[kind])
        found = f"{kind}: {counted(count, 'text')}, such as {places}"
        if kind in REPAIRED:
            lines.append(Line("green", "cells", f"repaired {found}"))
        else:
            lines.append(Line("yellow", "cells", found, "they are trained as they are; mend them where they are wrong"))
    return lines


def categories(rows: Dataset, look: Survey) -> list[Line]:
    """Whether some rows of a file lack the category that others have."""
    if not (bare := len(look.bare)):
        return []
    found = f"{bare:,} of {counted(len(rows), 'row')} {'has' if bare == 1 else 'have'} none, where others of the same "
    found += f"file have one; the first is {rows[int(look.bare[0])]['place']}"
    remedy = "fill them in the spreadsheet, where merged cells keep their text in the first row alone"
    return [Line("yellow", "categories", found, remedy)]


def systems(rows: Dataset, look: Survey) -> list[Line]:
    """Whether rows have several system messages, which become one."""
    if not (several := look.several_systems):
        return []
    found = f"{several:,} of {counted(len(rows), 'row')} {'has' if several == 1 else 'have'} several, which become one "
    remedy = "nothing to do, unless one of them alone is meant: then leave the others out of the data"
    return [Line("yellow", "system", f"{found}with an empty line between", remedy)]


def duplicates(rows: Dataset, look: Survey) -> Line:
    """Rows that say the same as another, and questions with several answers, by hashes of their letters."""
    again, several = len(look.again), look.answered_otherwise
    if not again and not several:
        return Line("green", "duplicates", "no two rows say the same")
    found = []
    if again:
        says = f"{counted(again, 'row')} {'says' if again == 1 else 'say'} the same as another, but for case, width, "
        found.append(f"{says}spaces and punctuation, such as {_short(rows, int(look.again[0]))}")
    if several:
        asks = f"{counted(several, 'row')} {'asks' if several == 1 else 'ask'} what another asks"
        found.append(f"{asks}, and {'is' if several == 1 else 'are'} answered otherwise")
    return Line("yellow", "duplicates", "; ".join(found), "keep one of each: what comes twice is learned twice")


def _short(rows: Dataset, place: int) -> str:
    return f"{rows[place]['place']} “{' '.join(rows[place]['instruction'].split())[:40]}”"


def defects(counts: Counter[str], rows: int) -> Line:
    """Known defects of translated rows."""
    found = ", ".join(f"{name} {counts[name]:,} ({DEFECTS[name]})" for name in DEFECTS if counts[name])
    if not found:
        return Line("green", "translation", "no defect of translated rows that is known")
    names = ", ".join(name for name in DEFECTS if counts[name])
    return Line(
        "yellow", "translation", f"of {counted(rows, 'row')}: {found}", f"data.leave_out=[{names}] leaves them out"
    )


def kept_by(keep_best: str | None, rows: Mapping[str, Dataset]) -> list[Line]:
    """Whether validation rows, by group, can say which step is the best; nothing where `keep_best` is None."""
    if keep_best is None:
        return []
    count = sum(map(len, rows.values())) if keep_best == "overall" else len(rows.get(keep_best, ()))
    found = f"training.keep_best: {keep_best} is decided by {counted(count, 'validation row')}"
    more = "raise data.validation_share, or set data.validation to a file"
    if not count:
        there = ", ".join(rows)
        remedy = f"take a group that has some (overall, {there}), or {more}" if rows else more
        return [Line("red", "validation", found, remedy)]
    if count < ROWS_TO_KEEP_BY:
        return [Line("yellow", "validation", f"{found}, fewer than {ROWS_TO_KEEP_BY}: chance decides", more)]
    return [Line("green", "validation", found)]


def sides(split: Split) -> list[Line]:
    """Whether there are rows to measure on, and enough to tell a difference in each group."""
    lines = []
    if not split.validation:
        remedy = "raise data.validation_share, or set data.validation to a file"
        lines.append(Line("yellow", "validation", "no row: no validation loss will be measured", remedy))
    if not split.test:
        remedy = "raise data.test_share, or set data.test to a file"
        lines.append(Line("yellow", "test", "no row: python -m eval would have nothing to answer", remedy))
    counts: Counter[str] = Counter()
    for kind, count in kind_counts(split.test).items():
        counts[kind.group] += count
    few = ", ".join(f"{group} {counts[group]}" for group in GROUPS if 0 < counts[group] < ROWS_TO_TELL)
    if few:
        found = f"rows in {few}: too few to tell a difference of {DIFFERENCE:g} in character F1, which takes about "
        found += f"{ROWS_TO_TELL} a group (paired differences with a standard deviation of {SPREAD:g}, as measured in "
        found += "docs/results.md)"
        lines.append(Line("yellow", "test", found, "more rows, a larger data.test_share, or a file in data.test"))
    return lines
