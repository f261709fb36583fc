"""`python -m eval rate`: a blind A/B sheet for people, and back to preferences with intervals. No torch here."""

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from scipy.stats import binomtest

from eval.border import from_json, json_text
from eval.compare import Answered, directory_beside, read_answered
from eval.render.numbers import number, p_value
from eval.render.terminal import CATEGORY_CELLS, Row, print_rows
from eval.scoring.common_rows import common_rows, in_words
from eval.scoring.results import Scope
from eval.scoring.rows import nested, rounded, scopes_of
from sft.data.records import DOLLY, GROUPS, Group, category_label
from sft.page.blocks import NOTHING
from sft.system.errors import UserError, say
from sft.system.files import output_directory, read_bytes, read_json, write_whole
from sft.system.visible import narrow, visible

SHEET, KEY, PREFERENCES = "sheet.csv", "sheet.key.json", "preferences.json"
KEY_VERSION = PREFERENCES_VERSION = 1
CHOICES = {
    written: choice
    for choice, spellings in {
        "1": "1 1.0 a 左",
        "2": "2 2.0 b 右",
        "tie": "tie 引き分け 引分け 引分 同じ 同等 同点 互角 △",
    }.items()
    for written in spellings.split()
} | {"": ""}
"""What raters write, in NFKC and lower case → what it means. 1 is the answer on the left."""
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")  # full-width ones count in a Japanese Excel
CELL_LIMIT = 32_000  # Excel cuts at 32,767, without a word


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """Which side of a sheet is whose: `rows` by id, each with index, category, group, and whose ("first", "second") 1
    and 2 are. Keys of earlier versions, which knew dolly's categories alone, lack the group.
    """

    schema_version: int
    seed: int
    first: str
    second: str
    rows: dict[str, dict[str, str]]


@dataclasses.dataclass(frozen=True, slots=True)
class Preferred:
    """How often each was preferred, the second's share of the decided with its 95% Wilson interval, sign test p.

    Ties are counted and left out of the share and the test; p is two-sided and not corrected for looking at
    several categories. None where nothing was decided.
    """

    first: int
    second: int
    tie: int
    not_rated: int
    share_second: float | None
    ci_low: float | None
    ci_high: float | None
    p: float | None


class Rating(NamedTuple):
    """One rated row: who was preferred ("first", "second", "tie" or "" for not rated)."""

    category: str
    group: Group
    preferred: str


def write_sheet(specs: Sequence[str], output: Path | None, seed: int, with_reference: bool = False) -> None:
    """Write sheet.csv and sheet.key.json for the two systems of `specs`.

    Raises UserError where a sheet is already: somebody may have filled it in.
    """
    if len(specs) != 2:
        raise UserError(f"a blind comparison is between two systems, not {len(specs)}: python -m eval rate RUN RUN")
    first, second = answered = read_answered(specs)
    directory = output or directory_beside(answered, "rate")
    sheet, key = directory / SHEET, directory / KEY
    text, sides = make_sheet(first, second, seed, with_reference)
    answers = json_text(dataclasses.asdict(sides), indent=1)
    # A key without its sheet was left by a kill between the two, or the sheet is with a rater.
    if sheet.exists() or (key.exists() and read_bytes(key) != answers.encode()):
        raise UserError(f"{sheet}: is there already, perhaps with ratings; move it away or give another --output")
    output_directory(directory)
    write_whole(key, answers)
    write_whole(sheet, "\ufeff" + text)  # Excel needs the mark to see UTF-8
    left = {one.name: len(one.predictions) - len(sides.rows) for one in answered}
    if any(left.values()):
        say(in_words(len(sides.rows), left))
    say(f"{sheet}: write 1, 2 or tie under preference, then python -m eval rate --collect {sheet}")
    say(f"{key}: tells which side is whose; keep it from the raters")


def collect(sheet: Path, key: Path | None) -> None:
    """Read a filled-in sheet back, write preferences.json beside it, and print the preferences."""
    known = read_key(key or sheet.with_name(KEY))
    ratings = read_ratings(sheet, known)
    if not any(rating.preferred for rating in ratings):
        raise UserError(f"{sheet}: no row is rated yet; write 1, 2 or tie into its column preference")
    found = preferences(ratings)
    by_name = nested({scope: dataclasses.asdict(one) for scope, one in found.items()})
    summary = {"schema_version": PREFERENCES_VERSION, "first": known.first, "second": known.second, **by_name}
    write_whole(sheet.with_name(PREFERENCES), json_text(summary))
    print_preferences(known, found, Console())
    say(f"{sheet.with_name(PREFERENCES)}: counts, shares and p values")


def make_sheet(first: Answered, second: Answered, seed: int, with_reference: bool) -> tuple[str, Key]:
    """The sheet as CSV text, rows in random order and each with random sides, and the key that tells them apart.

    It has the rows that both answered. Order and sides depend on the seed and the row alone. Raises UserError when
    there is no such row.
    """
    common = common_rows({one.name: one.predictions for one in (first, second)})
    both = dict(zip(("first", "second"), common.answers.values(), strict=True))
    answers = {side: {answer.example.index: answer for answer in given} for side, given in both.items()}
    rows = sorted(both["first"], key=lambda answer: _drawn(seed, "order", answer.example.index))
    reference = ["reference"] if with_reference else []
    columns = ["id", "category", "instruction", "context", *reference, "answer_1", "answer_2", "preference", "comment"]
    out = io.StringIO()
    sheet = csv.DictWriter(out, columns, extrasaction="ignore")
    sheet.writeheader()
    sides: dict[str, dict[str, str]] = {}
    for number_, answer in enumerate(rows, start=1):
        example, row_id = answer.example, f"r{number_:04}"
        left, right = ("second", "first") if _drawn(seed, "side", example.index) % 2 else ("first", "second")
        cells = {"instruction": example.instruction, "context": example.input}
        cells["category"] = category_label(example.category)
        cells |= {"answer_1": answers[left][example.index].text, "answer_2": answers[right][example.index].text}
        cells["reference"] = "\n".join(example.references)
        sheet.writerow({"id": row_id, **{name: neutral(text) for name, text in cells.items()}})
        kind = {"category": example.category, "group": example.group}
        sides[row_id] = {"index": example.index, **kind, "1": left, "2": right}
    return out.getvalue(), Key(KEY_VERSION, seed, first.name, second.name, sides)


def neutral(text: str) -> str:
    """Text that a spreadsheet shows and does not calculate: an apostrophe before = + - @, controls visible."""
    shown = visible(text)
    if len(shown) > CELL_LIMIT:
        shown = f"{shown[:CELL_LIMIT]}… ({len(shown)} characters)"
    return f"'{shown}" if shown.startswith(FORMULA_STARTS) else shown


def read_ratings(sheet: Path, key: Key) -> list[Rating]:
    """The ratings of a filled-in sheet; rows that were deleted count as not rated.

    Raises UserError, with the line, for a preference that is none of 1, 2, tie and nothing, for an id that the key
    does not know or has another category for, and for one that comes twice.
    """
    found: dict[str, str] = {}
    categories = {neutral(category_label(row["category"])) for row in key.rows.values()}
    spellings = Counter(map(_as_rewritten, categories))
    reader = csv.DictReader(io.StringIO(_sheet_text(sheet), newline=""), strict=True)
    try:
        missing = [name for name in ("id", "preference") if name not in (reader.fieldnames or ())]
        if missing:
            raise UserError(
                f"{sheet}:1: no column {missing[0]!r}; keep the header, and save it as CSV UTF-8 with commas"
            )
        for row in reader:
            place, row_id = f"{sheet}:{reader.line_num}", (row["id"] or "").strip()
            if row_id not in key.rows:
                raise UserError(f"{place}: no row {row_id!r} in this sheet's key; collect with the key made with it")
            if row_id in found:
                raise UserError(f"{place}: row {row_id} comes twice; keep one of them")
            written = unicodedata.normalize("NFKC", row["preference"] or "").strip().lower()
            if written not in CHOICES:
                raise UserError(f"{place}: row {row_id}: preference is {written!r}; write 1, 2, tie or nothing")
            # Rows of another sheet, or a column that was sorted alone, would pass for ratings of these rows.
            expected = neutral(category_label(key.rows[row_id]["category"]))
            if not _same_category(row.get("category"), expected, spellings):
                raise UserError(
                    f"{place}: row {row_id} is of category {row['category']!r} here and {expected!r} in the key; "
                    "collect the whole sheet with the key made with it, and delete its column category if a "
                    "spreadsheet rewrote that"
                )
            found[row_id] = CHOICES[written]
    except csv.Error as error:
        raise UserError(f"{sheet}:{reader.line_num}: not a CSV line: {error}") from None
    return [
        Rating(row["category"], _group(row), row.get(choice := found.get(row_id, ""), choice))
        for row_id, row in key.rows.items()
    ]


def _same_category(found: str | None, expected: str, spellings: Mapping[str, int]) -> bool:
    """Whether a sheet's category is the key's, or can only be that one as a spreadsheet rewrote it; None: it was
    deleted. `spellings` says how many of the key's categories would be rewritten alike.
    """
    if found in (None, expected):
        return True
    rewritten = _as_rewritten(expected)
    return _as_rewritten(found or "") == rewritten and spellings[rewritten] == 1


def _as_rewritten(category: str) -> str:
    """A category as a spreadsheet may write it back: 001 is 1 there, and true TRUE."""
    text = " ".join(unicodedata.normalize("NFKC", category).split())
    return f"{float(text):.15g}" if re.fullmatch(r"\d+(\.\d+)?", text) else text.casefold()


def _group(row: Mapping[str, str]) -> Group:
    """The group of a key's row. Raises KeyError or ValueError where there is none."""
    group = row.get("group") or DOLLY[row["category"]]
    return GROUPS[GROUPS.index(group)]  # which raises ValueError


def preferences(ratings: Sequence[Rating]) -> dict[Scope, Preferred]:
    """Every category and group that has rows, in report order → who was preferred there."""
    return {
        scope: _preferred(Counter(ratings[at].preferred for at in members))
        for scope, members in scopes_of(ratings).items()
    }


def _preferred(counts: Mapping[str, int]) -> Preferred:
    wins, losses = counts["second"], counts["first"]
    share = low = high = p = None
    if decided := wins + losses:
        test = binomtest(wins, decided)
        ends = test.proportion_ci(confidence_level=0.95, method="wilson")
        share, low, high, p = (float(x) for x in (wins / decided, ends.low, ends.high, test.pvalue))
    return rounded(Preferred(losses, wins, counts["tie"], counts[""], share, low, high, p))


def read_key(path: Path) -> Key:
    """The key of a sheet. Raises UserError when the file is none."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; the key of the sheet was written beside it: say where it is with --key")
    try:
        key = from_json(read_json(path), Key)
        for row in key.rows.values():
            _group(row)
            if {row["1"], row["2"]} != {"first", "second"}:
                raise ValueError("a row lacks its sides")
    except (UserError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not the key of a sheet ({error}); give it with --key") from None
    return key


def print_preferences(key: Key, found: Mapping[Scope, Preferred], console: Console) -> None:
    """Counts, shares and p values by category and group."""
    rows = []
    for scope, one in found.items():
        counts = [str(count) for count in (one.first, one.second, one.tie, one.not_rated)]
        share, low, high = (number(value, digits=2) for value in (one.share_second, one.ci_low, one.ci_high))
        cells = [*counts, f"{share} [{low}, {high}]" if one.p is not None else NOTHING, p_value(one.p)]
        rows.append(Row(narrow(scope.label, CATEGORY_CELLS), cells, strong=scope.is_group))
    title = f"preferred: {narrow(key.second, 24)} over {narrow(key.first, 24)}"
    print_rows(title, [key.first, key.second, "tie", "blank", "share", "p"], rows, console)


def _sheet_text(sheet: Path) -> str:
    content = read_bytes(sheet)
    for encoding in ("utf-8-sig", "cp932"):  # a Japanese Excel saves "CSV" in the second
        with contextlib.suppress(UnicodeDecodeError):
            return content.decode(encoding)
    raise UserError(f"{sheet}: neither UTF-8 nor Shift-JIS; save it as CSV UTF-8")


def _drawn(seed: int, what: str, index: str) -> int:
    """A number that looks random and depends on its arguments alone, not on the other rows."""
    text = json.dumps([seed, what, index]).encode()
    return random.Random(hashlib.sha256(text).digest()).getrandbits(63)
