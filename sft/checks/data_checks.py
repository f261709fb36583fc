"""The doctor's lines about the rows themselves: dropped, repaired, said twice, translated badly, or too few."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Literal

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
from sft.system.texts import Count, Said, one_after_another, said, sentences, told

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


def drops(
    data: LoadedData, allowed: float, go_on: Literal["train on the rest", "answer the rest"] = "train on the rest"
) -> Line:
    """What could not be used: red above the share `allowed`. What the configuration asks for does not count.

    `go_on` says what becomes of the rest where it is allowed.
    """
    unusable, dropped = data.unusable, data.unusable.total()
    total = len(data.rows) + dropped
    if not dropped:
        return Line("green", "rows", said("doctor.usable", rows=Count(total)))
    usable = pyarrow.compute.value_counts(data.rows.data.column("category")).to_pylist()
    of_category = Counter({entry["values"]: entry["counts"] for entry in usable})
    reasons: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for (reason, category), count in unusable.items():
        reasons[reason] += count
        lost[category] += count
        of_category[category] += count
    most = reasons.most_common(4)
    named = one_after_another(said("doctor.reason", reason=_read(reason), rows=Count(count)) for reason, count in most)
    share = f"{dropped / total:.1%}"
    found = said("doctor.unusable", dropped=Count(dropped), rows=Count(total), share=share, reasons=named)
    if places := [drop.place for drop in data.dropped if drop.reason == most[0][0]]:
        found = said("doctor.first_place", found=found, place=_read(places[0]))
    if data.too_many_unusable(allowed):
        enough = f"{min(1.0, math.ceil(20 * dropped / total) / 20):g}"
        trains = go_on == "train on the rest"
        remedy = said("doctor.allow", share=enough) if trains else said("doctor.allow_answer", share=enough)
        return Line("red", "rows", found, remedy)
    costly = [
        said("doctor.of_category", share=f"{count / of_category[category]:.0%}", category=category)
        for category, count in lost.most_common()
        if category and count > NOTED_SHARE * of_category[category]
    ]
    if costly or any(count > NOTED_SHARE * total for count in reasons.values()):
        if costly:
            found = said("doctor.in_categories", found=found, categories=one_after_another(costly[:3]))
        return Line("yellow", "rows", found, said("doctor.mend_above"))
    return Line("green", "rows", found)


def cells(data: LoadedData) -> list[Line]:
    """Cells that were repaired, and those that look wrong, with the first few of each kind."""
    lines = []
    for kind, count in data.cells.counts.most_common():
        places = one_after_another(_quoted(place, text) for place, text in data.cells.examples[kind])
        found = said("doctor.cell_kind", kind=_read(kind), texts=Count(count), places=places)
        if kind in REPAIRED:
            lines.append(Line("green", "cells", said("doctor.cell_repaired", found=found)))
        else:
            lines.append(Line("yellow", "cells", found, said("doctor.as_they_are")))
    return lines


def categories(rows: Dataset, look: Survey) -> list[Line]:
    """Whether some rows of a file lack the category that others have."""
    if not (bare := len(look.bare)):
        return []
    place = _read(rows[int(look.bare[0])]["place"])
    found = said("doctor.bare", bare=Count(bare), rows=Count(len(rows)), place=place)
    return [Line("yellow", "categories", found, said("doctor.fill_in"))]


def systems(rows: Dataset, look: Survey) -> list[Line]:
    """Whether rows have several system messages, which become one."""
    if not (several := look.several_systems):
        return []
    found = said("doctor.systems", several=Count(several), rows=Count(len(rows)))
    return [Line("yellow", "system", found, said("doctor.systems_remedy"))]


def duplicates(rows: Dataset, look: Survey) -> Line:
    """Rows that say the same as another, and questions with several answers, by hashes of their letters."""
    again, several = len(look.again), look.answered_otherwise
    if not again and not several:
        return Line("green", "duplicates", said("doctor.no_duplicates"))
    found = []
    if again:
        row = rows[int(look.again[0])]
        example = _quoted(row["place"], " ".join(row["instruction"].split())[:40])
        found.append(said("doctor.duplicates", rows=Count(again), example=example))
    if several:
        found.append(said("doctor.answered_otherwise", rows=Count(several)))
    return Line("yellow", "duplicates", sentences(found), said("doctor.keep_one"))


def _read(words: str) -> Said:
    """What the reading of rows said, in both languages."""
    return Said(words, told(words))


def _quoted(place: str, words: str) -> Said:
    """A text and where it stands."""
    shown = " ".join(words.split())
    return Said(f"{place} “{shown}”", f"{told(place)} “{shown}”")


def defects(counts: Counter[str], rows: int) -> Line:
    """Known defects of translated rows."""
    names = [name for name in DEFECTS if counts[name]]
    if not names:
        return Line("green", "translation", said("doctor.no_defects"))
    found = one_after_another(
        said("doctor.defect", name=name, rows=Count(counts[name]), meaning=_read(DEFECTS[name])) for name in names
    )
    remedy = said("doctor.leave_out", names=", ".join(names))
    return Line("yellow", "translation", said("doctor.defects", rows=Count(rows), found=found), remedy)


def kept_by(keep_best: str | None, rows: Mapping[str, Dataset]) -> list[Line]:
    """Whether validation rows, by group, can say which step is the best; nothing where `keep_best` is None."""
    if keep_best is None:
        return []
    count = sum(map(len, rows.values())) if keep_best == "overall" else len(rows.get(keep_best, ()))
    found = said("doctor.kept_by", group=keep_best, rows=Count(count))
    more = said("doctor.more_validation")
    if not count:
        remedy = said("doctor.other_group", groups=one_after_another(rows), more=more) if rows else more
        return [Line("red", "validation", found, remedy)]
    if count < ROWS_TO_KEEP_BY:
        found = said("doctor.kept_by_chance", found=found, enough=ROWS_TO_KEEP_BY)
        return [Line("yellow", "validation", found, more)]
    return [Line("green", "validation", found)]


def sides(split: Split) -> list[Line]:
    """Whether there are rows to measure on, and enough to tell a difference in each group."""
    lines = []
    if not split.validation:
        lines.append(Line("yellow", "validation", said("doctor.no_validation"), said("doctor.more_validation")))
    if not split.test:
        lines.append(Line("yellow", "test", said("doctor.no_test"), said("doctor.more_test")))
    counts: Counter[str] = Counter()
    for kind, count in kind_counts(split.test).items():
        counts[kind.group] += count
    few = [_of_group(group, counts[group]) for group in GROUPS if 0 < counts[group] < ROWS_TO_TELL]
    if few:
        values = {"difference": f"{DIFFERENCE:g}", "enough": ROWS_TO_TELL, "spread": f"{SPREAD:g}"}
        found = said("doctor.few_tests", few=one_after_another(few), **values)
        lines.append(Line("yellow", "test", found, said("doctor.test_longer")))
    return lines


def _of_group(group: str, rows: int) -> Said:
    return said("doctor.reason", reason=group, rows=Count(rows))
