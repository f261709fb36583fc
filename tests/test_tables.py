"""Files of every kind become tables: encodings, places as a spreadsheet shows them, workbooks."""

import datetime
import gzip
import tracemalloc
import zipfile
from pathlib import Path

import openpyxl
import pytest

from sft.data.files.encodings import encoding_of
from sft.data.files.sources import Source
from sft.data.files.tables import tables_of
from sft.data.read import load_data
from sft.data.rows import examples_of
from sft.system.errors import UserError

HEADER = ["No.", "質問", "補足情報", "回答", "分類"]
SENTENCES = ["吾輩は猫である。名前はまだ無い。", "カタカナとABC、数字は123です。", "半角ｶﾅも①や㈱、髙橋も。"]


def workbook(path, sheets, **hidden):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
        sheet.sheet_state = hidden.get(name, "visible")
    book.save(path)
    return book


def read(path):
    data = load_data(str(path))
    return data, [(row.index, row.instruction, row.input, row.output, row.category) for row in examples_of(data.rows)]


@pytest.mark.parametrize("lines", [1, 2, 40])
@pytest.mark.parametrize(
    "encoding",
    [
        "utf-8", "utf-8-sig", "cp932", "euc_jp", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "iso2022_jp_ext",
    ],
)  # fmt: skip
def test_the_encoding_of_few_lines_and_of_many_is_found(tmp_path, encoding, lines):
    texts = SENTENCES[:2] if encoding in ("euc_jp", "iso2022_jp_ext") else SENTENCES  # which have no ① and no ㈱
    path = tmp_path / "rows.csv"
    path.write_bytes("".join(f"{texts[n % len(texts)]}\r\n" for n in range(lines)).encode(encoding))
    expected = "utf-8" if encoding == "utf-8-sig" else encoding
    assert encoding_of(path).codec == expected
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert encoding_of(path).codec == expected


def test_an_encoding_is_told_from_the_first_lines_that_are_not_ascii(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"question,answer\n" + b"a,b\n" * 100_000 + "質問,回答です\n".encode("cp932"))
    assert encoding_of(path).codec == "cp932"
    assert "CSV in cp932" in load_data(str(path)).read_report()[0]


@pytest.mark.parametrize("encoding", ["utf-32", "iso2022_jp"])
def test_rare_encodings_are_read_in_every_kind_of_text_file(tmp_path, encoding):
    for name, content in {
        "rows.csv": '質問,回答\r\n休みは?,"月曜、\n祝日です。"\r\n',
        "rows.jsonl": '{"質問": "休みは?", "回答": "月曜、\\n祝日です。"}\n' * 2,
        "rows.json": '[{"質問": "休みは?", "回答": "月曜、\\n祝日です。"}]',
    }.items():
        (tmp_path / name).write_bytes(content.encode(encoding))
        assert {*load_data(str(tmp_path / name)).rows["output"][:]} == {"月曜、\n祝日です。"}


def test_a_damaged_line_of_iso_2022_jp_is_dropped_alone(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [f'{{"question": "{text}", "answer": "{text}"}}\n'.encode("iso2022_jp") for text in "東西南"]
    path.write_bytes(lines[0].replace(b"\x1b(B", b"\x1b(", 1) + lines[1] + lines[2])
    data = load_data(str(path))
    assert data.rows["output"][:] == ["西", "南"]
    assert [(drop.place, drop.reason) for drop in data.dropped] == [("line 1", "not ISO-2022-JP")]


def test_chinese_is_no_japanese_of_other_characters(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes("质问,回答\n什么是人工智能？,这是计算机科学的一个领域。\n".encode("gb18030"))
    with pytest.raises(UserError, match=r"rows\.csv: is Chinese in GB18030, as it seems; save it as UTF-8"):
        load_data(str(path))


def test_one_line_in_another_encoding_is_dropped_alone(tmp_path):
    path = tmp_path / "rows.csv"
    lines = ["質問,回答", "休みは?,月曜です。", "窓口は?,総務です。", "電話は?,1番です。"]
    path.write_bytes(b"\n".join(line.encode("cp932" if n == 2 else "utf-8") for n, line in enumerate(lines)))
    data = load_data(str(path))
    assert data.rows["output"][:] == ["月曜です。", "1番です。"]
    assert [(drop.place, drop.reason) for drop in data.dropped] == [("row 3", "not UTF-8 but cp932")]


def test_places_are_the_rows_of_the_spreadsheet(tmp_path):
    path = tmp_path / "faq.csv"
    path.write_text('社内FAQ,\n\n質問,回答\n"a\n\nb",c\n\nd,\n"e",""\nf,g\n', encoding="utf-8")
    data = load_data(str(path))
    assert data.rows["instruction"][:] == ["a\n\nb", "f"]
    assert [drop.place for drop in data.dropped] == ["row 6", "row 7"]
    other = tmp_path / "more.csv"
    other.write_text("質問,回答\n,c\nd,e\n", encoding="utf-8")
    both = load_data([Source(str(path)), Source(str(other))])
    assert [drop.place for drop in both.dropped if drop.reason == "empty 質問"] == ["more.csv row 2"]


def test_files_that_were_joined_with_their_headers_drop_these_and_say_so(tmp_path):
    path = tmp_path / "rows.csv"
    one = "質問,回答\n休みは?,月曜です。\n"
    path.write_bytes(one.encode("utf-8-sig") + one.replace("休み", "窓口").encode("utf-8-sig"))
    data = load_data(str(path))
    assert data.rows["instruction"][:] == ["休みは?", "窓口は?"]
    assert [(drop.place, drop.reason) for drop in data.dropped] == [("row 3", "the header again")]


def test_a_header_inside_says_what_stands_below_it(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("質問,回答\nq1,a1\n 回答 ,質問\na2,q2\na3,q3\n", encoding="utf-8")
    workbook(tmp_path / "rows.xlsx", {"FAQ": [["質問", "回答"], ["q1", "a1"], ["回答", "質問"], ["a2", "q2"]]})
    for name in ("rows.csv", "rows.xlsx"):
        data, found = read(tmp_path / name)
        assert [row[1:4:2] for row in found][:2] == [("q1", "a1"), ("q2", "a2")]
        assert [drop.reason for drop in data.dropped] == ["the header again"]


def test_a_table_below_another_one_is_read_by_its_own_header(tmp_path):
    rows = [
        ["質問", "回答"],
        ["q1", "a1"],
        [],
        ["返品FAQ"],
        ["No.", "質問", "備考", "回答"],
        ["7", "q2", "", "a2", "社外秘"],
    ]
    workbook(tmp_path / "faq.xlsx", {"FAQ": rows})
    data, found = read(tmp_path / "faq.xlsx")
    assert [row[1:4:2] for row in found] == [("q1", "a1"), ("q2", "a2")]
    assert [drop.reason for drop in data.dropped] == ["empty 回答", "the header again"]


def test_a_table_of_markdown_is_read_without_its_rule(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("| 質問 | 回答 |\n|:---|---:|\n| 休みは？ | 月曜です。 |\n", encoding="utf-8")
    data = load_data(str(path))
    assert (len(data.rows), data.dropped) == (1, [])


def test_a_cell_that_swallowed_rows_is_worth_a_look(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('質問,回答\nq1,"始まり\nq2,a2\nq3,a3\n終わり"\nq4,"一行目, 続き\n二行目"\n', encoding="utf-8")
    data = load_data(str(path))
    assert data.cells.examples["several rows for a text"] == [("row 2", "始まり\nq2,a2\nq3,a3\n終わり")]
    assert data.cells.counts.total() == 1


def test_cells_of_white_space_alone_are_no_row(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("質問,回答\n,\n  ,　\na,b\n,c\n", encoding="utf-8")
    assert [drop.place for drop in load_data(str(path)).dropped] == ["row 5"]


def test_a_comma_in_a_japanese_cell_decides_nothing(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("質問;回答\n一つ目, 二つ目, 三つ目;a, b, c\n次;d, e\n", encoding="utf-8")
    assert load_data(str(path)).rows["output"][:] == ["a, b, c", "d, e"]
    assert "semicolons between cells" in load_data(str(path)).read_report()[0]


def test_a_workbook_is_read_as_excel_shows_it(tmp_path, capsys):
    path = tmp_path / "faq.xlsx"
    rows = [
        ["社内FAQ"], [], HEADER,
        [1, "休みは？", None, "月曜です。_x000D_\n祝日も。", "総務"],
        [2, "割引は？", "会員", 0.125, "総務"],
        [3, "開始は？", None, datetime.date(2024, 4, 1), None],
        [4, "何時？", None, datetime.time(9, 30), None],
        [5, "値段は？", None, 2700.0, None],
        [6, "税率は？", None, "#REF!", "総務"],
        [7, "合計は？", None, "=A1+A2", "総務"],
        [],
        [8, "終わり？", None, "はい。", None],
    ]  # fmt: skip
    book = workbook(
        path, {"表紙": [["目次"], ["一", "二"]], "FAQ": rows, "旧版": [HEADER, [1, "x", "", "y", ""]]}, 旧版="hidden"
    )
    book["FAQ"]["D5"].number_format = "0.0%"
    book["FAQ"].merge_cells("E6:E8")
    book["FAQ"]["E6"] = "営業"
    book.save(path)
    data, found = read(path)
    assert found == [
        ("1", "休みは？", "", "月曜です。\n祝日も。", "総務"),
        ("2", "割引は？", "会員", "12.5%", "総務"),
        ("3", "開始は？", "", "2024-04-01", "営業"),
        ("4", "何時？", "", "09:30", "営業"),
        ("5", "値段は？", "", "2700", "営業"),
        ("8", "終わり？", "", "はい。", ""),
    ]
    assert [(drop.place, drop.reason) for drop in data.dropped] == [
        ('row 9 of sheet "FAQ"', "回答 is #REF!, an error of the spreadsheet"),
        ('row 10 of sheet "FAQ"', "回答 is a formula without a value"),
    ]
    assert data.cells.counts == {
        "_x000D_ and its like": 1, "a percentage for a text": 1, "a date for a text": 1, "a time for a text": 1
    }  # fmt: skip
    (line,) = data.read_report()
    assert line.endswith('(sheet "FAQ"; sheet "表紙" left out), 6 rows')
    hidden, unknown = capsys.readouterr().err.splitlines()
    assert hidden.endswith('sheet "旧版" left out, which Excel hides; unhide what is to be read')
    assert unknown.endswith(
        'sheet "表紙" left out, whose columns are not recognised; name them in its first row, or with data.columns'
    )
    packed = tmp_path / "faq.xlsx.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read(packed)[1] == found


def test_every_sheet_of_questions_is_read(tmp_path):
    path = tmp_path / "faq.xlsx"
    workbook(path, {"総務": [HEADER, [1, "a", "", "b", ""]], "人事": [["質問", "回答"], ["c", "d"]], "空": []})
    assert [row[1] for row in read(path)[1]] == ["a", "c"]
    assert len(tables_of(Source(str(path)))) == 2


TITLED = [["社内FAQ一覧", "2026年4月版", "", ""], ["作成", "総務部", "", ""], ["No.", "質問", "回答", "分類（大）"]]


@pytest.mark.parametrize("kind", ["xlsx", "csv", "short.csv"])
def test_a_header_below_titles_of_several_cells_is_found_and_said(tmp_path, kind, capsys):
    rows = [*TITLED, ["1", "a", "b", "総務"], ["2", "", "d", "総務"]]
    path = tmp_path / f"faq.{kind}"
    if kind == "xlsx":
        workbook(path, {"FAQ": rows})
    else:
        cut = [[cell for cell in row if cell] if place < 2 else row for place, row in enumerate(rows)]
        path.write_text("".join(",".join(row) + "\n" for row in (rows if kind == "csv" else cut)), encoding="utf-8")
    data, found = read(path)
    assert found == [("1", "a", "", "b", "総務")]
    assert ", header in row 3)" in data.read_report()[0]
    assert data.dropped[0].place.startswith("row 5")
    assert capsys.readouterr().err == ""


def test_a_header_below_a_title_is_found_by_the_names_that_are_given(tmp_path):
    path = tmp_path / "faq.csv"
    path.write_text("社内FAQ,2026年版\n件名,対応\na,b\n", encoding="utf-8")
    columns = {"instruction": "件名", "output": "対応"}
    assert load_data([Source(str(path), columns=columns)]).rows["output"][:] == ["b"]
    with pytest.raises(UserError, match=r"no instruction .columns: 社内FAQ, 2026年版.; say which column"):
        load_data(str(path))


def test_cells_that_are_called_like_columns_are_no_header(tmp_path):
    path = tmp_path / "glossary.csv"
    path.write_text("question,answer\n質問,回答\n訳は?,question\n", encoding="utf-8")
    assert load_data(str(path)).rows["instruction"][:] == ["質問", "訳は?"]


def test_a_title_in_merged_cells_is_no_header(tmp_path):
    book = openpyxl.Workbook()
    for cells in (["社内FAQ一覧"], [], ["番号", "質問", "回答"], [1, "a", "b"], [2, "c", "d"]):
        book.active.append(cells)
    book.active.merge_cells("A1:C1")
    book.save(tmp_path / "faq.xlsx")
    assert [row[1] for row in read(tmp_path / "faq.xlsx")[1]] == ["a", "c"]


def test_cells_outside_the_size_that_a_sheet_claims_are_read(tmp_path):
    path, cut = tmp_path / "faq.xlsx", tmp_path / "cut.xlsx"
    workbook(path, {"FAQ": [["質問", "回答"], ["a", "b"], ["c", "d"]]})
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(cut, "w") as copy:
        for name in whole.namelist():
            copy.writestr(name, whole.read(name).replace(b'<dimension ref="A1:B3"', b'<dimension ref="A1:A2"'))
    assert cut.read_bytes().count(b'"A1:A2"') == 1
    assert [row[1] for row in read(cut)[1]] == ["a", "c"]


def test_what_excel_hides_is_left_out_and_named(tmp_path, capsys):
    path = tmp_path / "faq.xlsx"
    book = workbook(path, {"FAQ": [["質問", "補足", "回答"], *([f"q{n}", "下書き", f"a{n}"] for n in range(20))]})
    book["FAQ"].row_dimensions[3].hidden = True
    book["FAQ"].column_dimensions.group("E", "XFD", hidden=True)  # nothing stands there
    book["FAQ"].column_dimensions["B"].hidden = True
    book.save(path)
    data, found = read(path)
    assert [row[1:4] for row in found][:2] == [("q0", "", "a0"), ("q2", "", "a2")]
    assert [(drop.place, drop.reason) for drop in data.dropped] == [('row 3 of sheet "FAQ"', "a row that Excel hides")]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith('column B of sheet "FAQ" left out, which Excel hides; unhide what is to be read')
    workbook(path, {"FAQ": [["質問", "回答"], ["a", "b"]], "空": []}, FAQ="hidden")
    with pytest.raises(UserError, match='only sheet "FAQ" may hold any, which Excel hides'):
        read(path)


@pytest.mark.parametrize(
    ("form", "value", "shown"),
    [
        ('0"%"', 50, "50%"), (r"0\%", 50, "50%"), ("0%", 0.5, "50%"), ('0.0"%以上"', 12.5, "12.5%以上"),
        ('#,##0"円"', 1200, "1200円"), ('"約"0', 3, "約3"), ("0.00", 2.5, "2.5"), ("General", 7, "7"),
        ("0000", 12, "0012"), ("000-0000", 1600001, "160-0001"), (r'"内線"00\-00', 5, "内線00-05"), ("00", 123, "123"),
        ("[$¥-411]#,##0", 1200, "¥1200"), ('_ "¥"* #,##0_ ;_ "¥"* -#,##0_ ', 12, "¥12"), ("¥0;[Red]-¥0", 5, "¥5"),
        ("#,##0;▲#,##0", -5, "-5"), ('#,##0,"千円"', 1200000, "1200000"), ('[<10]0"個";0"箱"', 5, "5"),
        ("[h]:mm", datetime.timedelta(minutes=1505), "25:05"), ("[h]:mm:ss", datetime.timedelta(seconds=90), "0:01:30"),
    ],
)  # fmt: skip
def test_a_number_has_the_signs_that_its_format_writes_beside_it(tmp_path, form, value, shown):
    book = workbook(tmp_path / "faq.xlsx", {"FAQ": [["質問", "回答"], ["率は？", value]]})
    book["FAQ"]["B2"].number_format = form
    book.save(tmp_path / "faq.xlsx")
    assert read(tmp_path / "faq.xlsx")[1][0][3] == shown


def test_a_heading_in_merged_cells_is_no_row_and_a_header_of_two_rows_is_one(tmp_path):
    header = [["No.", "質問", "回答", "分類", "担当", ""], ["", "", "", "", "一次", "二次"]]
    rows = [["配送について"], [1, "a", "b", "x", "佐藤", "鈴木"], [2, "c", "d", "x", "佐藤"], ["■", "返品について"]]
    book = workbook(tmp_path / "faq.xlsx", {"FAQ": [*header, *rows]})
    for cells in ("A1:A2", "B1:B2", "C1:C2", "D1:D2", "E1:F1", "A3:F3", "B6:F6", "E5:F5"):
        book["FAQ"].merge_cells(cells)
    book.save(tmp_path / "faq.xlsx")
    data, found = read(tmp_path / "faq.xlsx")
    assert [row[1:4] for row in found] == [("a", "", "b"), ("c", "", "d")]
    assert [(drop.place.split(" of")[0], drop.reason) for drop in data.dropped] == [
        ("row 2", "the header again"),
        ("row 3", "質問 is the text of a column to the left, merged with it"),
        ("row 6", "回答 is the text of a column to the left, merged with it"),
    ]
    assert {drop.category for drop in data.dropped} == {""}
    assert not data.cells.counts


def test_a_workbook_of_isos_strict_form_is_one_line(tmp_path):
    workbook(tmp_path / "faq.xlsx", {"FAQ": [["質問", "回答"], ["a", "b"]]})
    usual_names = b"http://schemas.openxmlformats.org/%s"
    strict_names = b"http://purl.oclc.org/ooxml/%s"
    names = {b"spreadsheetml/2006/main": b"spreadsheetml/main"}
    names[b"officeDocument/2006/relationships"] = b"officeDocument/relationships"
    with zipfile.ZipFile(tmp_path / "faq.xlsx") as usual, zipfile.ZipFile(tmp_path / "strict.xlsx", "w") as strict:
        for name in usual.namelist():
            content = usual.read(name)
            for old, new in names.items():
                content = content.replace(usual_names % old, strict_names % new)
            strict.writestr(name, content)
    with pytest.raises(
        UserError, match=r"no sheet that can be read; save it in Excel as \.xlsx, not as Strict Open XML"
    ):
        load_data(str(tmp_path / "strict.xlsx"))


def test_a_date_in_isos_spelling_is_a_date(tmp_path):
    workbook(tmp_path / "faq.xlsx", {"FAQ": [["質問", "回答"], ["いつ？", 3]]})
    with zipfile.ZipFile(tmp_path / "faq.xlsx") as usual, zipfile.ZipFile(tmp_path / "iso.xlsx", "w") as iso:
        for name in usual.namelist():
            iso.writestr(name, usual.read(name).replace(b't="n"><v>3<', b't="d"><v>2024-04-01<'))
    assert read(tmp_path / "iso.xlsx")[1][0][3] == "2024-04-01"


def test_merged_cells_cost_no_memory_of_their_own(tmp_path):
    book = workbook(tmp_path / "faq.xlsx", {"FAQ": [["質問", "回答", "分類"], ["a", "b", "総務"], ["c", "d"]]})
    book["FAQ"].merged_cells.add("C2:C1000000")
    book["FAQ"].merged_cells.add("D1:XFD1000000")
    book.save(tmp_path / "faq.xlsx")
    tracemalloc.start()
    found = read(tmp_path / "faq.xlsx")[1]
    assert [row[4] for row in found] == ["総務", "総務"]
    assert tracemalloc.get_traced_memory()[1] < 30_000_000
    tracemalloc.stop()


def test_a_workbook_without_questions_says_what_its_largest_sheet_has(tmp_path):
    path = tmp_path / "faq.xlsx"
    workbook(path, {"表紙": [["題", "日付"]], "一覧": [["件名", "詳細", "対応"], ["a", "b", "c"]]})
    with pytest.raises(
        UserError, match=r'sheet "一覧": no instruction .columns: 件名, 詳細, 対応.; say which'
    ) as error:
        load_data(str(path))
    assert "'data.columns={instruction: 件名, output: 対応}'" in str(error.value)
    columns = {"instruction": "件名", "output": "対応"}
    assert load_data([Source(str(path), columns=columns)]).rows["output"][:] == ["c"]


@pytest.mark.parametrize("damage", [slice(0, 400), slice(200, None)])
def test_a_damaged_workbook_is_one_line(tmp_path, damage):
    path = tmp_path / "faq.xlsx"
    workbook(path, {"FAQ": [HEADER, [1, "a", "", "b", ""]]})
    path.write_bytes(path.read_bytes()[damage])
    with pytest.raises(UserError, match=r"not an Excel workbook that can be read: .*; open it in Excel"):
        load_data(str(path))


def test_the_small_inputs_of_the_issue_are_read():
    cases = Path(__file__).parents[2] / "shared" / "cases"
    if not cases.is_dir():
        pytest.skip("needs the shared folder")
    found = {
        path.name: load_data(str(path)) for path in sorted(cases.iterdir()) if not path.name.startswith("questions")
    }
    assert {name: len(data.rows) for name, data in found.items()} == {
        "alpaca-no-category.json": 60, "capital-header.csv": 60, "company-faq.csv": 297, "cp932.csv": 60,
        "messages.jsonl": 60, "nan-input.jsonl": 60, "null-index.jsonl": 60, "own-categories.jsonl": 60,
        "prompt-completion.jsonl": 60, "two-files-joined.jsonl": 120,
    }  # fmt: skip
    assert sum(data.drop_counts.total() for data in found.values()) == 3


def test_a_sheet_without_a_named_column_is_read_unless_it_is_the_questions(tmp_path):
    path = tmp_path / "faq.xlsx"
    workbook(path, {"A": [["質問", "回答"], ["a", "b"]], "B": [["文脈", "質問", "回答"], ["c", "d", "e"]]}).save(path)
    data = load_data([Source(str(path), columns={"input": "文脈"})])
    assert (data.rows["input"][:], data.rows["instruction"][:]) == (["", "c"], ["a", "d"])
    assert 'no categories (sheet "A"; without 文脈); ' in data.read_report()[0]
    workbook(path, {"A": [["質問", "回答"], ["a", "b"]], "B": [["件名", "対応"], ["c", "d"]]}).save(path)
    data = load_data([Source(str(path), columns={"instruction": "件名", "output": "対応"})])
    assert data.rows["instruction"][:] == ["c"]
    assert 'sheet "A" left out' in data.read_report()[0]
