"""`python -m sft.data`: the page in both languages, the cleaned rows, and every wrong word."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import openpyxl
import pytest
from rich.cells import cell_len

from sft.checks.data_checks import categories
from sft.data.files.sources import Source
from sft.data.read import load_data
from sft.data.records import Example
from sft.data.rows import examples_of
from sft.data.split import split_rows
from sft.data.survey import survey

FAQ = [
    ["No.", "質問", "補足情報", "回答", "分類"],
    ["1", "有給休暇はいつ申請しますか。", "", "3日前までに申請します。", "社内手続き"],
    ["2", "有給休暇は、いつ申請しますか？", "", "3日前までに申請します", "社内手続き"],
    ["3", "保証は何年ですか。", "保証は購入日から2年間です。", "", "製品"],
    ["4", "保証は何年ですか。", "保証は購入日から2年間です。", "2年間です。", "製品"],
    ["5", "受付は何時までですか。", "#N/A", "17時までです。_x000D_", ""],
]


@pytest.fixture
def faq(tmp_path) -> Path:
    path = tmp_path / "faq.csv"
    with path.open("w", encoding="cp932", newline="") as file:
        csv.writer(file, delimiter=";").writerows(FAQ)
    return path


@pytest.fixture
def page(program):
    """The page as a terminal of 100 columns shows it."""

    def shown(*words):
        result = program("sft.data.__main__", *words)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return shown


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.delenv("LC_ALL", raising=False)


def cells(page: str, first: str) -> list[str]:
    """The words of the first line that begins with `first`."""
    return next(line.split() for line in page.splitlines() if line.strip().startswith(first))


def test_the_page_says_what_would_be_read(page, faq):
    found = page(faq)
    assert f"{faq}: 4 usable rows, read as 質問 → instruction, 補足情報 → input" in found
    assert "分類 → category (CSV in cp932, semicolons between cells)" in found
    split = [len(side) for side in split_rows(load_data(str(faq)).rows, 0.02, 0.1)]
    assert cells(found, "all") == ["all", "4", *map(str, split)]
    assert cells(found, "社内手続き")[:3] == ["社内手続き", "open", "2"]
    assert cells(found, "no category")[:4] == ["no", "category", "open", "1"]
    assert cells(found, "input") == ["input", "1", *["14"] * 5]
    assert cells(found, "output") == ["output", "4", "6", "6", "9", "11", "12"]
    assert "Rows left out: 1 of 5 (20.0%)" in found
    assert cells(found, "empty 回答") == ["empty", "回答", "製品", "1", "row", "4"]
    assert "refuses more than 10% of unusable rows" in found
    assert "repaired: _x000D_ and its like" in found
    assert "says the same as an earlier row" in found
    assert "### 指示:\n有給休暇はいつ申請しますか。\n\n### 応答:\n3日前までに申請します。" in found
    assert "### 入力:\n保証は購入日から2年間です。" in found


def test_the_same_page_in_japanese_is_aligned(page, faq, monkeypatch):
    found = page(faq, "--lang", "ja")
    assert "使える行は4件です" in found
    assert "cp932のCSV、区切りはセミコロン" in found
    assert cells(found, "回答が空") == ["回答が空", "製品", "1", "4行目"]
    assert cells(found, "カテゴリなし")[:3] == ["カテゴリなし", "open（文脈なし）", "1"]
    begin = found.splitlines().index("カテゴリ別の件数と、学習・検証・テストへの分かれ方")
    table = found.splitlines()[begin + 2 : begin + 9]
    assert len({cell_len(line) for line in table}) == 1
    monkeypatch.setenv("LANG", "ja_JP.UTF-8")
    assert page(faq) == found


def test_columns_and_leave_out_are_the_configurations(page, program, tmp_path):
    path = tmp_path / "mail.jsonl"
    rows = [{"title": f"問{n}", "reply": f"答えは{n}です。[3]" if n == 3 else f"答えは{n}です。"} for n in range(9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused = program("sft.data.__main__", path)
    assert refused.returncode == 2
    assert "'data.columns={instruction: title, output: reply}'" in refused.stderr
    columns = "data.columns={instruction: title, output: reply}"
    assert "9 usable rows, read as title → instruction, reply → output, no categories" in page(path, columns)
    found = page(path, columns, "data.leave_out=[citations]")
    assert "8 usable rows" in found
    assert "the output holds citation marks such as [3]" in found


def test_several_files_and_sheets_are_one_page(page, faq, tmp_path):
    book = openpyxl.Workbook()
    book.active.title = "FAQ"
    for row in FAQ[:3]:
        book.active.append(row)
    book.save(tmp_path / "faq.xlsx")
    found = page(faq, tmp_path / "faq.xlsx", "--lang", "ja")
    assert "（シート「FAQ」）" in found
    assert "faq.csvの4行目" in found
    assert cells(found, "合計")[1] == "6"


def test_a_file_of_its_own_for_the_tests_is_that_side(page, faq, tmp_path):
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"質問": "受付は何時までですか。", "回答": "17時です。"}) + "\n")
    found = page(faq, f"data.test={test}", "data.validation_share=0")
    assert cells(found, "all") == ["all", "5", "3", "0", "1"]
    assert "Rows left out: 2 of 6" in found
    assert "its context or question stands in" in found


def test_earlier_messages_are_kept_and_named(page, tmp_path):
    path = tmp_path / "talk.jsonl"
    turns = [
        ("system", "短く"),
        ("user", "首都は?"),
        ("assistant", "東京"),
        ("user", "人口は?"),
        ("assistant", "1400万人"),
    ]
    path.write_text(json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}) + "\n")
    found = page(path, "--output", tmp_path / "rows.jsonl")
    assert "(after 3 earlier messages, which this template does not show; prompt.template=chat would)" in found
    before, after = (load_data(str(tmp_path / name)).rows for name in ("talk.jsonl", "rows.jsonl"))
    assert [example.history for example in examples_of(before)] == [example.history for example in examples_of(after)]


def test_the_cleaned_rows_are_the_same_rows(page, program, faq, tmp_path):
    output = tmp_path / "rows.jsonl"
    assert "4 rows, cleaned" in " ".join(page(faq, "--output", output).split())  # a long path wraps the line
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert rows[0] == {
        "index": "1", "instruction": "有給休暇はいつ申請しますか。", "input": "", "output": "3日前までに申請します。",
        "category": "社内手続き",
    }  # fmt: skip
    assert rows[-1]["output"] == "17時までです。\n"
    before, after = load_data(str(faq)), load_data(str(output))
    assert list(examples_of(before.rows)) == list(examples_of(after.rows))
    assert before.sha256 == after.sha256
    again = program("sft.data.__main__", faq, "--output", output)
    assert (again.returncode, "exists already" in again.stderr, again.stdout) == (2, True, "")


def test_the_cleaned_rows_are_written_though_nobody_reads_the_page_to_its_end(faq, tmp_path):
    """As with `| head -1`."""
    output = tmp_path / "rows.jsonl"
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "sft.data", faq, "--output", output]
    subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=120)
    os.close(writer)
    assert len(output.read_text(encoding="utf-8").splitlines()) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent.csv"], "absent.csv: no such data file"),
        (["data/sample.jsonl", "--output", "rows.csv"], "rows.csv: rows are written as .jsonl"),
        (["data/sample.jsonl", "--output", "nowhere/rows.jsonl"], "rows cannot be written there"),
        (["data/sample.jsonl", "lora.r=4"], "command line: lora: is not asked for here"),
        (["data/sample.jsonl", "data.colums={}"], "command line: data.colums: unknown key; did you mean columns?"),
        (["data/sample.jsonl", "data.columns={ask: a}"], "ask is no field of a row"),
        (["data/sample.jsonl", "data.train_rows=3"], "data.train_rows: is not shown here"),
        (["data/sample.jsonl", "data/sample.jsonl"], "is named twice"),
        (["data.leave_out=[copies]"], "name at least one file"),
        (["data/sample.jsonl", "data.test_share=0.6", "data.validation_share=0.6"], "leaves nothing to train on"),
        (["data/sample.jsonl", "data.test=data/sample.jsonl"], "is in data.path, too"),
        (
            ["data/sample.jsonl", "data.test=tests/finished_run/rows.jsonl", "--output", "rows.jsonl"],
            "--output writes the rows of data.path",
        ),
        (["data/sample.jsonl", "--lang", "fr"], "invalid choice: 'fr'"),
    ],
)
def test_what_is_wrong_is_one_line(program, words, message):
    result = program("sft.data.__main__", *words)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_texts_that_want_to_be_obeyed_are_shown(page, tmp_path):
    path = tmp_path / "rows.jsonl"
    row = {
        "instruction": "[bold]問い[/bold]\x1b[2J",
        "input": "",
        "output": "[link=http://x]答え",
        "category": "[red]赤",
    }
    path.write_text(json.dumps(row) + "\n")
    found = page(path)
    assert "\x1b" not in found
    assert "[bold]問い[/bold]" in found
    assert "[link=http://x]答え" in found
    assert "[red]赤" in found


def test_neither_torch_nor_a_tokenizer_nor_what_reads_workbooks_is_imported():
    program = (
        "import sys; sys.argv = ['sft.data', 'data/sample.jsonl']; import sft.data.__main__ as page; page.main();"
        "sys.exit(bool({'torch', 'transformers', 'tokenizers', 'openpyxl'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_help_needs_none_of_the_libraries_of_rows():
    program = "import sys, sft.data.__main__; sys.exit(bool({'datasets', 'pandas', 'numpy'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_gaps_of_merged_cells_in_the_category_are_worth_a_look(page, faq, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    rows = ["質問,回答,分類", "a,b,総務", "c,d,", "e,f,", "g,h,人事"]
    path = tmp_path / "merged.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    found = page(path)
    assert cells(found, "has no category, where other rows of its file have one")[-20:][:3] == ["2", "row", "3;"]
    assert "merged cells keep their text in the first row alone: fill in the others in the spreadsheet" in found
    assert "3行目など。結合したセルでは先頭の行にしか文字が残りません" in page(path, "--lang", "ja")
    data = load_data(str(path)).rows
    (line,) = categories(data, survey(data))
    assert line.found == "2 of 4 rows have none, where others of the same file have one; the first is row 3"
    for others in (["a,b,", "c,d,"], ["a,b,x", "c,d,x"]):
        path.write_text("\n".join([rows[0], *others]), encoding="utf-8")
        assert "has no category, where" not in page(path)
        data = load_data([Source(str(path)), Source(str(faq))]).rows
        (line,) = categories(data, survey(data))  # about the other file alone
        assert line.found.startswith("1 of 6 rows has none")


def test_rows_are_named_by_their_place_and_groups_as_they_are_written(page, tmp_path):
    book = openpyxl.Workbook()
    book.active.title = "FAQ"
    for row in (["質問", "回答", "分類"], ["a", "b", "x"], ["ａ", "b", "x"]):
        book.active.append(row)
    book.save(tmp_path / "faq.xlsx")
    found = page(tmp_path / "faq.xlsx")
    assert '── row 2 of sheet "FAQ", x, open' in found
    assert 'row 3 of sheet "FAQ": ａ' in found
    found = page(tmp_path / "faq.xlsx", "--lang", "ja")
    assert "── 例: シート「FAQ」の2行目、x、open（文脈なし）" in found
    assert "シート「FAQ」の3行目: ａ" in found
    (first, *_) = examples_of(load_data(str(tmp_path / "faq.xlsx")).rows)
    assert (first.named, Example("7", "a", "", "b", "").named) == ('row 2 of sheet "FAQ"', "7")


def test_one_of_a_thing_is_no_plural_and_conversations_are_told_what_takes_them(page, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    path = tmp_path / "one.jsonl"
    turns = [{"role": role, "content": role} for role in ("user", "assistant", "user", "assistant")]
    path.write_text(json.dumps({"messages": turns}) + "\n")
    found = page(path)
    assert "1 usable row, read as" in found
    assert "All can be used: 1 row." in found
    assert "has earlier turns, which templates for single questions leave" in found
    assert "prompt.template=chat takes them" in found
    path.write_text(json.dumps({"messages": [{"role": "system", "content": "s"}, *turns[:2]]}) + "\n")
    assert "(after 1 earlier message, which this template does not show; prompt.template=chat would)" in page(path)


def test_a_group_of_no_category_and_files_named_twice_are_one_line(program, faq):
    result = program("sft.data.__main__", faq, "data.groups={経費手続: other}")
    assert (result.returncode, "is no category of the data; " in result.stderr) == (2, True), result.stderr
    result = program("sft.data.__main__", faq, "data.path=[a.csv]")
    assert (result.returncode, "name the files in one of the two" in result.stderr) == (2, True), result.stderr
    result = program("sft.data.__main__", f"data.path=[{{path: {faq}, weight: 2}}]", "--lang", "en")
    assert result.returncode == 0, result.stderr


def test_rows_are_counted_by_sheet(page, tmp_path):
    book = openpyxl.Workbook()
    for sheet, count in ((book.active, 2), (book.create_sheet("経理"), 1)):
        for cells_of_row in [["質問", "回答"], *([f"{sheet.title}{n}", "a"] for n in range(count))]:
            sheet.append(cells_of_row)
    book.save(tmp_path / "faq.xlsx")
    found = page(tmp_path / "faq.xlsx")
    assert "2 usable rows, read as" in found
    assert "1 usable row, read as" in found


def test_files_of_one_name_are_told_apart_and_an_unknown_place_is_no_dots(page, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        rows = [{"question": f"{name}？", "answer": ""}, {"question": f"{name}は？", "answer": "はい。"}]
        (tmp_path / name / "faq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = "".join(page(tmp_path / "a" / "faq.jsonl", tmp_path / "b" / "faq.jsonl", "data.allow_dropped=1").split())
    assert f"{tmp_path}/a/faq.jsonlline1,{tmp_path}/b/faq.jsonlline1" in found
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"question": "aは？", "answer": "いいえ。"}) + "\n")
    found = page(tmp_path / "a" / "faq.jsonl", f"data.test={test}", "data.allow_dropped=1")
    assert "Rows left out: 2 of 3" in found
    assert "…" not in found.split("Three rows")[0]


def test_unread_columns_stand_in_the_first_line(page, tmp_path):
    path = tmp_path / "faq.csv"
    path.write_text("No.,質問,参考資料,回答\n1,a,b,c\n", encoding="utf-8")
    assert "(CSV in UTF-8; not read: 参考資料)" in page(path).splitlines()[0]
    assert "（UTF-8のCSV、読まない列: 参考資料）" in page(path, "--lang", "ja").splitlines()[0]
