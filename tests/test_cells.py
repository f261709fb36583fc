"""Debris in cells, defects of translated rows, and what the doctor says of both, of drops and of duplicates."""

import json

import pytest

from sft.checks.data_checks import ROWS_TO_TELL, data_checks, drops
from sft.data.fields.cells import CellNotes, clean_text
from sft.data.fields.defects import defects_of
from sft.data.files.raw import BadRow
from sft.data.files.sources import Source
from sft.data.read import load_data
from sft.data.split import split_rows

ROW = {"instruction": "首都は？", "input": "", "output": "東京です。", "category": "地理"}


def loaded(tmp_path, *rows, leave_out=()):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return load_data([Source(str(path))], leave_out)


def page(data, allowed=0.1):
    lines = data_checks(data, split_rows(data.rows, 0.02, 0.1), allowed)
    return {line.subject: (line.level, line.found, line.remedy) for line in reversed(lines)}


@pytest.mark.parametrize(
    ("text", "repaired", "kinds"),
    [
        ("そのまま。", "そのまま。", []),
        ("一行目_x000D_\n二行目", "一行目\n二行目", ["_x000D_ and its like"]),
        ("一行目_x000d_\r\n二行目_x000A_三_x0009_", "一行目\n二行目\n三\t", ["_x000D_ and its like"]),
        ("　前後　", "前後", ["full-width spaces at the ends"]),
        ("段落\n　次の段落", "段落\n　次の段落", []),
        ("文字が\ufffd", "文字が\ufffd", ["broken characters"]),
        ("縺ゅ＞縺�縺�", "縺ゅ＞縺�縺�", ["broken characters"]),
        ("髪が縺れる", "髪が縺れる", []),
        ("æ±äº¬ã\x81¯ã\x80\x81", "æ±äº¬ã\x81¯ã\x80\x81", ["broken characters"]),
        ("São Paulo", "São Paulo", []),
        ("\x1b$BEl5~\x1b(B", "\x1b$BEl5~\x1b(B", ["broken characters"]),
        ("一\r\n二", "一\r\n二", ["carriage returns"]),
        ("=VLOOKUP(A1,B:C,2)", "=VLOOKUP(A1,B:C,2)", ["a formula"]),
        ("=A1&B1", "=A1&B1", ["a formula"]),
        ('="001"', '="001"', ["a formula"]),
        ("= 5 です", "= 5 です", []),
        ("45383", "45383", ["perhaps a date as Excel counts days"]),
        ("12345", "12345", []),
        ("1.23E+11", "1.23E+11", ["a number that lost its digits"]),
        ("長" * 32_767, "長" * 32_767, ["perhaps cut off at the size of an Excel cell"]),
    ],
)
def test_debris_is_repaired_where_there_is_one_right_repair_and_named_otherwise(text, repaired, kinds):
    notes = CellNotes()
    assert clean_text(text, "output", True, "row 2", notes) == repaired
    assert list(notes.counts) == kinds
    assert all(notes.examples[kind] == [("row 2", text[:30])] for kind in kinds)


@pytest.mark.parametrize("text", ["#REF!", " #VALUE! ", "#NAME?", "#DIV/0!", "######"])
def test_a_cell_that_is_an_error_is_no_text(text):
    with pytest.raises(BadRow, match="an error of the spreadsheet"):
        clean_text(text, "回答", True, "row 2", CellNotes())
    assert clean_text(f"{text.strip()}が出たら", "回答", True, "row 2", CellNotes())


LONG = "東京タワーは1958年に完成した、高さ333メートルの電波塔である。"


@pytest.mark.parametrize(
    ("instruction", "context", "output", "found"),
    [
        ("高さは？", LONG, "333メートルです。", []),
        ("高さは？", LONG, LONG, ["copies"]),
        ("要約して", LONG, f"{LONG.replace('、', '')}　以上。", ["copies"]),
        ("要約して", "短い文です。", "短い文です。", []),  # an answer that is a whole short context
        (f"{LONG}を説明しなさい", "", f"{LONG}を説明しなさい", ["copies"]),
        ("高さは？", "", "333メートルです[3]。", ["citations"]),
        ("高さは？", "", "333メートルです。[12]", ["citations"]),
        ("高さは？", "", "x = a[0] の値です。", []),
        ("高さは？", "", "[1, 2, 3]です。", []),
        ("Who wrote it?", "", "夏目漱石です。", []),
        ("Who wrote the book and when?", "", "夏目漱石です。", ["untranslated"]),
        ("誰ですか", "", "It was written by a man in the city of Tokyo.", ["untranslated"]),
        ("作品は？", "", "The Beatles, Let It Be, Abbey Road, Help!", []),
        ("書いて", "", "SELECT name FROM the_table WHERE id IS NOT NULL AND to = a;", []),
        ("なぜ？", "", "雨が降ったので、", ["truncated"]),
        ("誰？", "", "伝統的に、西インド諸島の人々は", ["truncated"]),
        ("方角は？", "", "東から西へ", []),
        ("色は？", "", "赤", []),
    ],
)
def test_defects_of_translated_rows(instruction, context, output, found):
    assert defects_of(instruction, context, output) == found


def test_defects_are_left_out_when_asked_and_counted_then(tmp_path):
    rows = [ROW, ROW | {"output": "東京です[1]。"}, ROW | {"output": "東京は"}]
    assert len(loaded(tmp_path, *rows).rows) == 3
    data = loaded(tmp_path, *rows, leave_out=["citations", "copies"])
    assert data.rows["output"][:] == ["東京です。", "東京は"]
    assert data.drop_report() == ["dropped 1 row (地理): the output holds citation marks such as [3]: line 2"]
    assert drops(data, 0.0).level == "green"  # what was asked for is no loss
    level, found, remedy = page(loaded(tmp_path, *rows))["translation"]
    assert (level, remedy) == ("yellow", "data.leave_out=[citations, truncated] leaves them out")
    assert "of 3 rows: citations 1 (" in found


def test_what_is_dropped_is_looked_at_from_a_hundredth_on_and_stops_from_a_tenth_on(tmp_path):
    good = [ROW | {"instruction": f"質問{n}"} for n in range(1000)]
    bad = [ROW | {"output": ""}] * 400
    assert page(loaded(tmp_path, *good))["rows"] == ("green", "all 1,000 can be used", "")
    assert drops(loaded(tmp_path, *good, *bad[:10]), 0.1).level == "green"
    line = drops(loaded(tmp_path, *good, *bad[:20]), 0.1)
    assert line.level == "yellow"
    assert line.found.startswith("20 of 1,020 cannot be used (2.0%): empty output 20; the first is line 1001")
    data = loaded(tmp_path, *good, *bad)
    line = drops(data, 0.1)
    assert (line.level, line.remedy) == ("red", "mend the data, or train on the rest with data.allow_dropped=0.3")
    assert drops(data, 0.1, "answer the rest").remedy == "mend the data, or answer the rest with data.allow_dropped=0.3"
    assert drops(data, 0.3).level == "yellow"
    few = [ROW | {"category": "少"}] * 8 + [ROW | {"category": "少", field: ""} for field in ("instruction", "output")]
    line = drops(loaded(tmp_path, *good, *few), 0.1)
    assert line.level == "yellow"
    assert "(20% of 少)" in line.found, "for all reasons together"


def test_duplicates_differ_in_width_spaces_and_punctuation_only(tmp_path):
    rows = [ROW, ROW | {"instruction": "首都 は?"}, ROW | {"output": "京都です。"}, ROW | {"instruction": "ＡＢＣ"}]
    level, found, _ = page(loaded(tmp_path, *rows, ROW | {"instruction": "abc。"}))["duplicates"]
    assert level == "yellow"
    assert found.startswith("2 rows say the same as another")
    assert found.endswith("1 row asks what another asks, and is answered otherwise")
    assert page(loaded(tmp_path, ROW, ROW | {"instruction": "x"}))["duplicates"][0] == "green"


def test_sides_without_rows_and_groups_with_few_are_looked_at(tmp_path):
    lines = page(loaded(tmp_path, ROW))
    assert lines["validation"][0] == "yellow"
    assert lines["test"][1].startswith("no row")
    many = page(loaded(tmp_path, *(ROW | {"instruction": f"質問{n}"} for n in range(300))))
    assert f"takes about {ROWS_TO_TELL} a group" in many["test"][1]
    assert ROWS_TO_TELL == 89


def test_defects_of_the_real_rows(real_rows):
    data = load_data(str(real_rows))
    _, found, _ = page(data)["translation"]
    assert "copies 63 " in found
    assert "citations 164 " in found
    assert "untranslated 5 " in found
    assert "truncated 22 " in found


def test_the_page_and_the_doctor_call_the_same_too_many(tmp_path):
    copy = {
        "instruction": "二十文字をこえる十分に長い写しの文章です。",
        "output": "二十文字をこえる十分に長い写しの文章です。",
    }
    rows = [ROW | {"instruction": f"首都{n}は？"} for n in range(9)] + [ROW | {"output": ""}]
    data = loaded(tmp_path, *rows, *[copy] * 90, leave_out=["copies"])
    assert data.drop_counts.total() == 91
    assert data.unusable == {("empty output", "地理"): 1}
    assert [data.too_many_unusable(share) for share in (0.09, 0.1)] == [True, False]
    assert [drops(data, share).level for share in (0.09, 0.1)] == ["red", "yellow"]


def test_dropped_rows_have_the_categories_that_others_have(tmp_path):
    rows = [ROW | {"category": "Open QA"}, ROW | {"category": "open_qa", "output": ""}]
    rows += [ROW | {"category": 3}, ROW | {"category": 3.0, "output": ""}, ROW | {"category": "nan", "output": ""}]
    data = loaded(tmp_path, *rows)
    assert [drop.category for drop in data.dropped] == ["open_qa", "3", ""]
    assert "50% of open_qa, 50% of 3" in drops(data, 1).found
