"""Blind A/B ratings: a sheet for people, and back to preferences with intervals. No torch here."""

import csv
import hashlib
import io
import json
import random
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from scipy.stats import binomtest

from eval.compare import Answered, check_same_rows, file_name, read_answered
from eval.render.terminal import Row, narrow, print_rows
from eval.report.view import number, p_value
from sft.data.records import CATEGORIES, GROUPS
from sft.system.errors import UserError
from sft.system.files import output_directory, read_bytes, read_json, write_whole
from sft.system.visible import visible

SCHEMA_VERSION = 1
SHEET, KEY, PREFERENCES = "sheet.csv", "sheet.key.json", "preferences.json"
CHOICES = ("1", "2", "tie", "")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")  # full-width ones count in a Japanese Excel
CELL_LIMIT = 32_000  # Excel cuts at 32,767, without a word


class Rating(NamedTuple):
    """One rated row: who was preferred ("first", "second", "tie" or "" for not rated)."""

    category: str
    preferred: str


def make_sheet(first: Answered, second: Answered, seed: int, with_reference: bool) -> tuple[str, dict[str, Any]]:
    """The sheet as CSV text, rows in random order and each with random sides, and the key that tells them apart.

    Order and sides depend on the seed and the row alone. Raises UserError when the rows differ.
    """
    check_same_rows([first, second])
    others = {prediction.example.index: prediction for prediction in second.predictions}
    rows = sorted(first.predictions, key=lambda prediction: _drawn(seed, "order", prediction.example.index))
    reference = ["reference"] if with_reference else []
    columns = ["id", "category", "instruction", "context", *reference, "answer_1", "answer_2", "preference", "comment"]
    out = io.StringIO()
    sheet = csv.DictWriter(out, columns)
    sheet.writeheader()
    sides: dict[str, dict[str, str]] = {}
    for number_, one in enumerate(rows, start=1):
        example, texts = one.example, [one.text, others[one.example.index].text]
        swapped = bool(_drawn(seed, "side", example.index) % 2)
        answers = texts[::-1] if swapped else texts
        cells = {"instruction": example.instruction, "context": example.input, "category": example.category}
        cells |= {"answer_1": answers[0], "answer_2": answers[1]}
        if with_reference:
            cells["reference"] = "\n".join(example.references)
        row_id = f"r{number_:04}"
        sheet.writerow({"id": row_id, **{name: neutral(text) for name, text in cells.items()}})
        sides[row_id] = {
            "index": example.index,
            "category": example.category,
            "1": "second" if swapped else "first",
            "2": "first" if swapped else "second",
        }
    key = {"schema_version": SCHEMA_VERSION, "seed": seed, "first": first.name, "second": second.name, "rows": sides}
    return out.getvalue(), key


def neutral(text: str) -> str:
    """Text that a spreadsheet shows and does not calculate: an apostrophe before = + - @, controls visible."""
    shown = visible(text)
    if len(shown) > CELL_LIMIT:
        shown = f"{shown[:CELL_LIMIT]}… ({len(shown)} characters)"
    return f"'{shown}" if shown.startswith(FORMULA_STARTS) else shown


def read_ratings(sheet: Path, key: Mapping[str, Any]) -> list[Rating]:
    """The ratings of a filled-in sheet; rows that were deleted count as not rated.

    Raises UserError, with the line, for a preference that is none of 1, 2, tie and nothing, for an id that the key
    does not know or has another category for, and for one that comes twice.
    """
    found: dict[str, str] = {}
    reader = csv.DictReader(io.StringIO(_sheet_text(sheet), newline=""), strict=True)
    try:
        missing = [name for name in ("id", "preference") if name not in (reader.fieldnames or ())]
        if missing:
            raise UserError(
                f"{sheet}:1: no column {missing[0]!r}; keep the header, and save it as CSV UTF-8 with commas"
            )
        for row in reader:
            place, row_id = f"{sheet}:{reader.line_num}", (row["id"] or "").strip()
            if row_id not in key["rows"]:
                raise UserError(f"{place}: no row {row_id!r} in this sheet's key; collect with the key made with it")
            if row_id in found:
                raise UserError(f"{place}: row {row_id} comes twice; keep one of them")
            choice = unicodedata.normalize("NFKC", row["preference"] or "").strip().lower()
            if choice not in CHOICES:
                raise UserError(f"{place}: row {row_id}: preference is {choice!r}; write 1, 2, tie or nothing")
            # Rows of another sheet, or a column that was sorted alone, would pass for ratings of these rows.
            if row.get("category") not in (None, key["rows"][row_id]["category"]):
                raise UserError(
                    f"{place}: row {row_id} is of category {row['category']!r} here and "
                    f"{key['rows'][row_id]['category']!r} in the key; collect the whole sheet with the key made with it"
                )
            found[row_id] = choice
    except csv.Error as error:
        raise UserError(f"{sheet}:{reader.line_num}: not a CSV line: {error}") from None
    return [
        Rating(row["category"], row.get(choice := found.get(row_id, ""), choice)) for row_id, row in key["rows"].items()
    ]


def preferences(ratings: Sequence[Rating]) -> dict[str, Any]:
    """Category and group → counts, the second's share of the decided with its 95% Wilson interval, sign test p.

    Ties are counted and left out of the share and the test; p is two-sided and not corrected for looking at
    several categories.
    """
    scopes: dict[str, dict[str, Any]] = {"categories": {}, "groups": {}}
    members: dict[str, dict[str, tuple[str, ...]]] = {"categories": {c: (c,) for c in CATEGORIES}, "groups": GROUPS}
    for kind, named in members.items():
        for name, categories in named.items():
            counts = Counter(rating.preferred for rating in ratings if rating.category in categories)
            if counts:
                scopes[kind][name] = _summary(counts)
    return scopes


def _summary(counts: Mapping[str, int]) -> dict[str, Any]:
    wins, losses = counts["second"], counts["first"]
    summary: dict[str, Any] = {"first": losses, "second": wins, "tie": counts["tie"], "not_rated": counts[""]}
    share = low = high = p = None
    if decided := wins + losses:
        test = binomtest(wins, decided)
        ends = test.proportion_ci(confidence_level=0.95, method="wilson")
        share, low, high, p = (round(float(x), 6) for x in (wins / decided, ends.low, ends.high, test.pvalue))
    return summary | {"share_second": share, "ci_low": low, "ci_high": high, "p": p}


def write_sheet(
    specs: Sequence[str], output: Path | None, seed: int, with_reference: bool = False
) -> tuple[Path, Path]:
    """Write sheet.csv and sheet.key.json for the two systems of `specs`; returns their paths.

    Raises UserError where a sheet is already: somebody may have filled it in.
    """
    if len(specs) != 2:
        raise UserError(f"a blind comparison is between two systems, not {len(specs)}: python -m eval rate RUN RUN")
    first, second = read_answered(specs)
    directory = output or first.source.parent / f"rate-{file_name(second.name)}"
    sheet, key = directory / SHEET, directory / KEY
    text, sides = make_sheet(first, second, seed, with_reference)
    answers = json.dumps(sides, ensure_ascii=False, indent=1) + "\n"
    # A key without its sheet was left by a kill between the two, or the sheet is with a rater.
    if sheet.exists() or (key.exists() and read_bytes(key) != answers.encode()):
        raise UserError(f"{sheet}: is there already, perhaps with ratings; move it away or give another --output")
    output_directory(directory)
    write_whole(key, answers)
    write_whole(sheet, "\ufeff" + text)  # Excel needs the mark to see UTF-8
    return sheet, key


def collect(sheet: Path, key: Path | None, console: Console) -> Path:
    """Read a filled-in sheet back, print the preferences, write preferences.json beside it; returns its path."""
    path = key or sheet.with_name(KEY)
    try:
        known = read_json(path)
        names = {side: str(known[side]) for side in ("first", "second")}
        sides = [(row["category"] in CATEGORIES, {row["1"], row["2"]}) for row in known["rows"].values()]
        if not all(known_category and pair == {"first", "second"} for known_category, pair in sides):
            raise ValueError("a row lacks its category or its sides")
    except (UserError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not the key of a sheet ({error}); give it with --key") from None
    found = {"schema_version": SCHEMA_VERSION, **names, **preferences(read_ratings(sheet, known))}
    out = sheet.with_name(PREFERENCES)
    write_whole(out, json.dumps(found, ensure_ascii=False, indent=2) + "\n")
    _print(found, console)
    return out


def _print(found: Mapping[str, Any], console: Console) -> None:
    rows = []
    for group, categories in GROUPS.items():
        members = [(c, found["categories"][c]) for c in categories if c in found["categories"]]
        if group in found["groups"]:
            members.append((f"{group}, all", found["groups"][group]))
        for label, summary in members:
            counts = [str(summary[name]) for name in ("first", "second", "tie", "not_rated")]
            low, high = (number(summary[end], digits=2) for end in ("ci_low", "ci_high"))
            share = f"{number(summary['share_second'], digits=2)} [{low}, {high}]"
            cells = [*counts, share if summary["p"] is not None else "n/a", p_value(summary["p"])]
            rows.append(Row(label, cells, strong=label == f"{group}, all"))
    title = f"preferred: {narrow(found['second'], 24)} over {narrow(found['first'], 24)}"
    header = [found["first"], found["second"], "tie", "blank", "share", "p"]
    print_rows(title, header, rows, console)


def _sheet_text(sheet: Path) -> str:
    content = read_bytes(sheet)
    for encoding in ("utf-8-sig", "cp932"):  # a Japanese Excel saves "CSV" in the second
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise UserError(f"{sheet}: neither UTF-8 nor Shift-JIS; save it as CSV UTF-8")


def _drawn(seed: int, what: str, index: str) -> int:
    """A number that looks random and depends on its arguments alone, not on the other rows."""
    text = json.dumps([seed, what, index]).encode()
    return random.Random(hashlib.sha256(text).digest()).getrandbits(63)
