"""Blind ratings: a sheet that gives nothing away and calculates nothing, and the way back."""

import csv
import dataclasses
import json
from pathlib import Path

import pytest
from made_up import answers

from eval.compare import Answered
from eval.predictions import write_predictions
from eval.rate import Rating, collect, make_sheet, neutral, preferences, read_key, read_ratings, write_sheet
from eval.scoring.results import ON_OPEN, Scope
from sft.data.records import Example
from sft.system.errors import UserError

KEY = "sheet.key.json"


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    specs = []
    for name, quality in (("A", 1), ("B", 3)):
        (tmp_path / name / "eval").mkdir(parents=True)
        write_predictions(answers("tuned", quality), tmp_path / name / "eval" / "predictions.jsonl")
        specs.append(str(tmp_path / name))
    write_sheet(specs, None, seed=0)
    return tmp_path / "A" / "eval" / "rate-B" / "sheet.csv"


def read(sheet: Path, encoding: str = "utf-8-sig") -> list[dict[str, str]]:
    with sheet.open(encoding=encoding, newline="") as file:
        return list(csv.DictReader(file))


def write(sheet: Path, rows: list[dict[str, str]], encoding: str = "utf-8-sig") -> None:
    with sheet.open("w", encoding=encoding, newline="", errors="replace") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_the_sheet_opens_in_excel_and_gives_nothing_away(sheet: Path) -> None:
    assert sheet.read_bytes().startswith(b"\xef\xbb\xbf")
    rows = read(sheet)
    assert list(rows[0]) == [
        "id", "category", "instruction", "context", "answer_1", "answer_2", "preference", "comment",
    ]  # fmt: skip
    assert len(rows) == 32
    key = json.loads((sheet.parent / KEY).read_text())
    sides = [row["1"] for row in key["rows"].values()]
    assert 8 < sides.count("first") < 24
    assert "tuned" not in sheet.read_text(encoding="utf-8-sig")
    assert (key["first"], key["second"]) == ("A", "B")


def test_sides_depend_on_seed_and_row_alone() -> None:
    one, two = (Answered(name, Path(name), answers("tuned", quality), []) for name, quality in (("A", 1), ("B", 3)))
    text, key = make_sheet(one, two, 0, with_reference=True)
    assert make_sheet(one, two, 0, with_reference=True) == (text, key)
    assert make_sheet(one, two, 1, with_reference=True)[1].rows != key.rows
    fewer = [a._replace(predictions=a.predictions[:9]) for a in (one, two)]
    sides = {row["index"]: row["1"] for row in key.rows.values()}
    for row in make_sheet(*fewer, 0, with_reference=False)[1].rows.values():
        assert sides[row["index"]] == row["1"]
    assert "reference" in text.splitlines()[0]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "＝"])
def test_no_cell_is_a_formula(start: str) -> None:
    assert neutral(f"{start}1+1") == f"'{start}1+1"


def test_controls_are_visible_and_long_cells_are_cut_with_a_note() -> None:
    assert neutral("東\x00京\x1b") == "東�京�"
    assert neutral("あ" * 40_000).endswith("… (40000 characters)")


def test_ratings_are_read_as_people_write_them(sheet: Path) -> None:
    written = {
        "1": ("1", "１", "①", "左", "A", "a ", "Ａ", "1.0"),
        "2": ("2", "２", "②", "右", "B", "2.0"),
        "tie": ("tie", "引き分け", "引分け", "同じ", "△", " 同等 ", "互角", "TIE"),
    }
    rows, expected = read(sheet), []
    key = json.loads((sheet.parent / KEY).read_text())["rows"]
    spellings = ((choice, one) for choice, several in written.items() for one in several)
    for row, (choice, one) in zip(rows, spellings, strict=False):
        row["preference"] = one
        expected.append(key[row["id"]].get(choice, choice))
    write(sheet, rows)
    ratings = read_ratings(sheet, read_key(sheet.with_name(KEY)))
    assert [one.preferred for one in ratings if one.preferred] == expected
    assert len(expected) == 22


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8", "cp932"])
def test_ratings_come_back_as_they_were_given(sheet: Path, encoding: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = read(sheet)
    key = json.loads((sheet.parent / KEY).read_text())["rows"]
    for number, row in enumerate(rows):
        second = next(side for side in ("1", "2") if key[row["id"]][side] == "second")
        row["preference"] = "TIE " if number % 8 == 0 else "" if number % 8 == 1 else second
    rows[2]["preference"] = {"1": "１", "2": "２"}[rows[2]["preference"]]  # as a Japanese keyboard types it
    write(sheet, rows, encoding)
    capsys.readouterr()
    collect(sheet, None)
    found = json.loads((sheet.parent / "preferences.json").read_text())
    groups = found["groups"].values()
    assert [sum(group[name] for group in groups) for name in ("first", "second", "tie", "not_rated")] == [0, 24, 4, 4]
    assert all(group["share_second"] == 1 for group in groups)
    assert "preferred: B over A" in capsys.readouterr().out


def test_deleted_rows_count_as_not_rated(sheet: Path) -> None:
    rows = read(sheet)[:10]
    rows[0]["preference"] = "tie"
    write(sheet, rows)
    collect(sheet, None)
    found = json.loads((sheet.parent / "preferences.json").read_text())
    assert sum(group["not_rated"] for group in found["groups"].values()) == 31
    assert found["groups"]["open"]["share_second"] is None


@pytest.mark.parametrize(
    ("categories", "rewritten", "refused"),
    [
        (("001", "002"), {"001": "1", "002": "2"}, False),
        (("true", "社内"), {"true": "TRUE"}, False),
        (("001", "1"), {"001": "1"}, True),
        (("1-2", "社内"), {"1-2": "1月2日"}, True),
    ],
)
def test_a_category_that_a_spreadsheet_rewrote_is_known_where_it_can_be_no_other(
    tmp_path: Path, categories: tuple[str, ...], rewritten: dict[str, str], refused: bool
) -> None:
    for name in "AB":
        rows = [Example(category, f"問{category}", "", "答", category) for category in categories]
        (tmp_path / name / "eval").mkdir(parents=True)
        found = [dataclasses.replace(answers("tuned")[0], example=row) for row in rows]
        write_predictions(found, tmp_path / name / "eval" / "predictions.jsonl")
    write_sheet([str(tmp_path / "A"), str(tmp_path / "B")], tmp_path / "out", seed=0)
    sheet = tmp_path / "out" / "sheet.csv"
    filled = [
        row | {"preference": "1", "category": rewritten.get(row["category"], row["category"])} for row in read(sheet)
    ]
    write(sheet, filled)
    if refused:
        with pytest.raises(UserError, match="delete its column category if a spreadsheet rewrote that"):
            collect(sheet, None)
        write(sheet, [{name: cell for name, cell in row.items() if name != "category"} for row in filled])
    collect(sheet, None)
    assert json.loads((tmp_path / "out" / "preferences.json").read_text())["categories"].keys() == {*categories}


def test_a_sheet_that_nobody_filled_in_is_one_clear_line(sheet: Path) -> None:
    with pytest.raises(UserError, match="no row is rated yet; write 1, 2 or tie into its column preference"):
        collect(sheet, None)
    assert not (sheet.parent / "preferences.json").exists()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("preference", "3", r"sheet.csv:\d+: row r0002: preference is '3'; write 1, 2, tie or nothing"),
        ("preference", "どちらも", r"sheet.csv:\d+: row r0002: preference is 'どちらも'"),
        ("preference", "○", r"sheet.csv:\d+: row r0002: preference is '○'"),
        ("category", "general_qb", r"sheet.csv:\d+: row r0002 is of category 'general_qb' here and '\w+' in the key"),
        ("id", "r9999", r"sheet.csv:\d+: no row 'r9999' in this sheet's key"),
        ("id", "r0001", r"sheet.csv:\d+: row r0001 comes twice"),
    ],
)
def test_a_wrong_cell_is_named_by_its_line(sheet: Path, column: str, value: str, message: str) -> None:
    rows = read(sheet)
    rows[1][column] = value
    write(sheet, rows)
    with pytest.raises(UserError, match=message):
        collect(sheet, None)


def test_other_bad_input_is_one_clear_line(sheet: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there already, perhaps with ratings"):
        write_sheet([str(tmp_path / "A"), str(tmp_path / "B")], None, seed=0)
    with pytest.raises(UserError, match="between two systems, not 1"):
        write_sheet([str(tmp_path / "A")], None, seed=0)
    (tmp_path / "other.csv").write_text("id;preference\n1;2\n")
    with pytest.raises(UserError, match="no such file; the key"):
        collect(tmp_path / "other.csv", None)
    with pytest.raises(UserError, match=r"other.csv:1: no column 'id'"):
        collect(tmp_path / "other.csv", sheet.parent / KEY)
    (tmp_path / "other.csv").write_bytes(b"id,preference\n\x81\x20")
    with pytest.raises(UserError, match="neither UTF-8 nor Shift-JIS"):
        collect(tmp_path / "other.csv", sheet.parent / KEY)
    with pytest.raises(UserError, match="cannot be read"):
        collect(tmp_path / "absent.csv", sheet.parent / KEY)


@pytest.mark.parametrize(("name", "value"), [("1", "b"), ("group", "quiz"), ("group", None), ("2", None)])
def test_a_damaged_key_is_one_clear_line(sheet: Path, name: str, value: str | None) -> None:
    path = sheet.parent / KEY
    key = json.loads(path.read_text())
    key["rows"]["r0001"][name] = value
    path.write_text(json.dumps(key))
    with pytest.raises(UserError, match="not the key of a sheet"):
        collect(sheet, None)


def test_shares_intervals_and_p_by_hand() -> None:
    found = preferences([Rating("open_qa", "open", side) for side in ["second"] * 9 + ["first"] + ["tie"] * 5])
    summary = found[Scope("categories", "open_qa", "open")]
    assert summary.share_second == 0.9
    assert (summary.ci_low, summary.ci_high) == pytest.approx((0.59585, 0.98212), abs=1e-4)  # Wilson
    assert summary.p == pytest.approx(2 * 11 / 1024, abs=1e-6)
    assert list(found) == [Scope("categories", "open_qa", "open"), ON_OPEN]
    assert found[ON_OPEN] == summary


def test_a_key_of_an_earlier_version_knows_dollys_categories_alone(sheet: Path) -> None:
    path = sheet.parent / KEY
    key = json.loads(path.read_text())
    for row in key["rows"].values():
        del row["group"]
    path.write_text(json.dumps(key))
    write(sheet, [row | {"preference": "tie"} for row in read(sheet)])
    collect(sheet, None)
    groups = json.loads((sheet.parent / "preferences.json").read_text())["groups"]
    assert [group["tie"] for group in groups.values()] == [8, 12, 12]
    key["rows"]["r0001"]["category"] = "quiz"
    path.write_text(json.dumps(key))
    with pytest.raises(UserError, match="not the key of a sheet"):
        collect(sheet, None)


def test_a_sheet_holds_the_rows_that_both_answered_and_their_own_categories(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, (start, end) in {"A": (0, 3), "B": (1, 4)}.items():
        rows = [Example(f"{at}", f"問{at}", "文脈" * (at % 2), "答", ("社内", "")[at % 2]) for at in range(start, end)]
        (tmp_path / name / "eval").mkdir(parents=True)
        found = [dataclasses.replace(answers("tuned")[0], example=row) for row in rows]
        write_predictions(found, tmp_path / name / "eval" / "predictions.jsonl")
    write_sheet([str(tmp_path / "A"), str(tmp_path / "B")], tmp_path / "out", seed=0)
    assert (
        "2 rows answered by both; left out, because not both answered them: 1 of A, 1 of B" in capsys.readouterr().out
    )
    sheet = tmp_path / "out" / "sheet.csv"
    assert sorted(row["category"] for row in read(sheet)) == ["no category", "社内"]
    write(sheet, [row | {"preference": "tie"} for row in read(sheet)])
    collect(sheet, None)
    found = json.loads((tmp_path / "out" / "preferences.json").read_text())
    assert {kind: list(found[kind]) for kind in ("categories", "groups")} == {
        "categories": ["社内"], "groups": ["open", "context"],
    }  # fmt: skip
