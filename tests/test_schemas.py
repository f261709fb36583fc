"""Columns are recognised or asked for; conversations and texts with a template inside become rows."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from sft.config.load import data_section
from sft.data.fields.prompts_inside import taken_apart
from sft.data.fields.schemas import not_recognised
from sft.data.files.raw import BadRow
from sft.data.files.sources import Source
from sft.data.read import load_data, raw_rows
from sft.prompt.template import ALPACA_EN, ALPACA_JA
from sft.system.errors import UserError

Q, C, A = "休館日は？", "図書館は月曜に休みます。", "月曜日です。"
SYSTEM, HISTORY = ["system", "簡潔に。"], [["user", "開館は？"], ["assistant", "9時です。"]]
HISTORY_MESSAGES = [{"role": role, "content": text} for role, text in HISTORY]
TALK = [{"role": role, "content": text} for role, text in (SYSTEM, *HISTORY, ["user", Q], ["assistant", A])]


def raw(tmp_path, *rows, columns=None):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return list(raw_rows([Source(str(path), columns=columns)]))


# A row in a public shape; what is read of it beside question and answer; and what the first line calls it.
SHAPES = {
    "dolly-ja": (
        {"index": "7", "instruction": Q, "input": C, "output": A, "category": "closed_qa"},
        {"input": C},
        "dolly-ja",
    ),
    "dolly": ({"instruction": Q, "context": C, "response": A, "category": "closed_qa"}, {"input": C}, "dolly"),
    "alpaca": ({"instruction": Q, "input": C, "output": A}, {"input": C}, "alpaca, no categories"),
    "alpaca with its text": ({"instruction": Q, "output": A, "text": "…"}, {}, "alpaca, no categories"),
    "alpaca with turns before": (
        {"instruction": Q, "output": A, "system": "簡潔に。", "history": [["開館は？", "9時です。"]]},
        {"history": [SYSTEM, *HISTORY]},
        "instruction, output, history, no categories",
    ),
    "question and answer": ({"question": Q, "answer": A}, {}, "question and answer, no categories"),
    "with a context": (
        {"question": Q, "context": C, "answer": A},
        {"input": C},
        "question, context and answer, no categ",
    ),
    "SQuAD": (
        {
            "id": "1",
            "title": "t",
            "context": C,
            "question": Q,
            "answers": {"text": [A, A, "月曜"], "answer_start": [0, 0, 0]},
        },
        {"input": C, "answers": [A, "月曜"], "index": "1"},
        "SQuAD, no categories",
    ),
    "prompt and completion": ({"prompt": Q, "completion": A}, {}, "prompt and completion, no categories"),
    "prompt and completion as messages": (
        {"prompt": TALK[:-1], "completion": TALK[-1:]},
        {"history": [SYSTEM, *HISTORY]},
        "prompt and completion, no categories",
    ),
    "messages with a context and turns beside them": (
        {"prompt": TALK[-2:-1], "context": C, "history": [["開館は？", "9時です。"]], "completion": TALK[-1:]},
        {"input": C, "history": HISTORY},
        "prompt → instruction, context → input, completion → output, history, no categories",
    ),
    "a completion of messages with a context, turns and a system beside it": (
        {"system": "簡潔に。", "input": C, "history": HISTORY_MESSAGES, "instruction": Q, "output": TALK[-1:]},
        {"input": C, "history": [SYSTEM, *HISTORY]},
        "instruction, input, output, history, no categories",
    ),
    "a prompt with the template in it and a context beside it": (
        {"prompt": ALPACA_JA.render(Q), "context": C, "completion": A},
        {"input": C},
        "prompt → instruction, context → input, completion → output, no categories",
    ),
    "answers beside an answer": (
        {"question": Q, "answer": A, "answers": ["月曜", "月"]},
        {"answers": ["月曜", "月"]},
        "question → instruction, answer → output, answers, no categories",
    ),
    "a completion that is messages": (
        {"prompt": Q, "completion": TALK[-1:]},
        {},
        "prompt and completion, no categories",
    ),
    "a prompt with the template in it": (
        {"prompt": ALPACA_JA.render(Q, C), "completion": A},
        {"input": C},
        "prompt and completion, no categories",
    ),
    "messages": ({"messages": TALK}, {"history": [SYSTEM, *HISTORY]}, "messages, no categories"),
    "messages with tools beside": (
        {"messages": TALK, "tools": [{"type": "function"}]},
        {"history": [SYSTEM, *HISTORY]},
        "messages, no categories",
    ),
    "question and answer with objects beside": (
        {"question": Q, "answer": A, "sources": [{"url": "x"}]},
        {},
        "question and answer, no categories",
    ),
    "messages with a prompt beside": (
        {"prompt": Q, "prompt_id": "3", "messages": TALK[-2:], "category": "Chat"},
        {"category": "Chat"},
        "messages",
    ),
    "messages in parts": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "休館日"}, {"type": "text", "text": "は？"}]},
                {"role": "assistant", "content": A, "tool_calls": None},
            ]
        },
        {},
        "messages, no categories",
    ),
    "messages in a cell": ({"messages": json.dumps(TALK[-2:])}, {}, "messages, no categories"),
    "ShareGPT": (
        {
            "id": "x",
            "conversations": [
                {"from": "system", "value": "簡潔に。"},
                {"from": "human", "value": Q},
                {"from": "gpt", "value": A},
            ],
        },
        {"history": [SYSTEM], "index": "x"},
        "ShareGPT conversations, no categories",
    ),
    "messages of other spellings": (
        {"messages": [{"role": "prompter", "text": Q}, {"role": "AI", "text": A}]},
        {},
        "messages, no categories",
    ),
    "ShareGPT with a column for the system": (
        {"system": "簡潔に。", "conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": A}]},
        {"history": [SYSTEM]},
        "ShareGPT conversations, no categories",
    ),
    "the same system message in a column and among the messages": (
        {"system": "簡潔に。", "messages": TALK},
        {"history": [SYSTEM, *HISTORY]},
        "messages, no categories",
    ),
    "Japanese headers": (
        {"No.": "1", "質問": Q, "補足情報": C, "回答": A, "分類": "社内　手続き"},
        {"input": C, "category": "社内 手続き", "index": "1"},
        "質問 → instruction, 補足情報 → input, 回答 → output, 分類 → category",
    ),
    "other Japanese headers": (
        {"指示": Q, "入力": C, "出力": A, "カテゴリ": "x"},
        {"input": C, "category": "x"},
        "指示 → instruction, 入力 → input",
    ),
    "headers in other widths": ({" ＱＵＥＳＴＩＯＮ ": Q, "本文": C, "Answer:": A}, {"input": C}, ""),
}
SHAPES |= {
    f"a text with {template.name}{' and a context' * bool(context)}{end}": (
        {"text": template.render(Q, context) + A + end}, {"input": context}, "text with a template, no categories"
    )
    for template in (ALPACA_JA, ALPACA_EN) for context in ("", C) for end in ("", "</s>", "<|endoftext|>\n")
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_public_shapes_are_recognised_and_named(tmp_path, name):
    row, more, schema = SHAPES[name]
    (found,) = raw(tmp_path, row)
    expected = {"instruction": Q, "output": A, "input": "", "history": [], "file": 0, "place": found["place"]} | more
    assert {key: found[key] for key in expected} == expected
    assert f"read as {schema}" in load_data(str(tmp_path / "rows.jsonl")).read_report()[0]
    # The same from parquet, where fields that a message does not have are null, and a list has one type.
    if name == "messages in parts":
        return
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "rows.parquet")
    (again,) = raw_rows([Source(str(tmp_path / "rows.parquet"))])
    assert again == found | {"place": "row 1"}


def test_a_text_of_its_own_in_front_of_the_template_is_the_system(tmp_path):
    (found,) = raw(tmp_path, {"text": f"あなたは司書です。\n\n### 指示:\n{Q}\n\n### 応答:\n{A}"})
    assert (found["history"], found["instruction"], found["output"]) == ([["system", "あなたは司書です。"]], Q, A)


def test_a_prompt_is_taken_apart_as_it_was_put_together():
    for instruction, context in (("一\n二", "三\n\n四"), ("見出し\n# 一", "")):
        parts = taken_apart(ALPACA_JA.render(instruction, context) + "答え\n\n次")
        assert parts == ("", instruction, context, "答え\n\n次")
    with pytest.raises(BadRow, match="markers"):
        taken_apart("### 指示:\na\n\n### 入力:\nb\n\n### 入力:\nc\n\n### 応答:\nd")


def test_a_question_about_the_template_is_a_question_and_worth_a_look(tmp_path):
    question = ALPACA_JA.render(Q)
    (found,) = raw(tmp_path, {"question": question, "answer": A})
    assert found["instruction"] == question
    assert load_data(str(tmp_path / "rows.jsonl")).cells.counts == {"a prompt's template inside a question": 1}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_all_of_a_text_but_alpacas_own_words_is_kept(tmp_path, end):
    for template in (ALPACA_JA, ALPACA_EN):
        text = template.render(Q, C).replace("\n\n", "\n\nあなたは司書です。\n\n", 1)
        (found,) = raw(tmp_path, {"text": f"<s>{text}{A}<|im_end|>".replace("\n", end)})
        said = [found[name] for name in ("instruction", "input", "output", "history")]
        assert said == [Q, C, A, [["system", "あなたは司書です。"]]]


def test_columns_that_are_not_read_are_named_but_for_numbers_of_rows(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(",No.,質問,参考資料,回答,担当,日付,備考,状態,優先度,id\n0,1,a,b,c,d,e,f,g,h,i\n", encoding="utf-8")
    (line,) = load_data(str(path)).read_report()
    assert "(CSV in UTF-8; not read: 参考資料, 担当, 日付, 備考 and 2 more), 1 row" in line
    raw(tmp_path, {"question": Q, "answer": A, "text": C}, {"messages": TALK, "context": C, "prompt_id": 3})
    (line,) = load_data(str(tmp_path / "rows.jsonl")).read_report()
    assert "(JSON lines in UTF-8; not read: text, context, prompt_id), 2 rows" in line


def test_a_context_beside_messages_is_read_where_it_is_named(tmp_path):
    (found,) = raw(tmp_path, {"messages": TALK, "context": C}, columns={"input": "context"})
    assert (found["instruction"], found["input"], found["history"]) == (Q, C, [SYSTEM, *HISTORY])
    (line,) = load_data([Source(str(tmp_path / "rows.jsonl"), columns={"input": "context"})]).read_report()
    assert "read as messages, context → input, no categories (a JSON object in UTF-8), 1 row" in line


@pytest.mark.parametrize("columns", [{"messages": "messages", "output": "context"}, {"output": "context"}])
def test_a_named_column_that_messages_leave_no_room_for_is_refused(tmp_path, columns):
    with pytest.raises(UserError, match=r"data\.columns names output beside messages, which has its own; take it out"):
        raw(tmp_path, {"messages": TALK, "context": C}, columns=columns)


def test_earlier_messages_are_repaired_and_looked_at_as_texts_are(tmp_path):
    turns = [("system", "_x000D_\n短く�"), ("user", "前_x000D_"), ("assistant", "後"), ("user", Q), ("assistant", A)]
    (found,) = raw(tmp_path, {"messages": [{"role": role, "content": text} for role, text in turns]})
    assert found["history"] == [["system", "\n短く�"], ["user", "前\n"], ["assistant", "後"]]
    counts = load_data(str(tmp_path / "rows.jsonl")).cells.counts
    assert counts == {"_x000D_ and its like": 2, "broken characters": 1}


def test_a_system_and_a_history_of_nothing_are_none(tmp_path):
    empty = [{"system": "nan", "history": float("nan")}, {"system": None, "history": None}, {"history": [["", ""]]}]
    found = raw(tmp_path, *({"instruction": Q, "output": A} | more for more in empty[:2]))
    assert [row["history"] for row in found] == [[], []]
    with pytest.raises(UserError, match="a history with an empty message"):
        raw(tmp_path, {"instruction": Q, "output": A} | empty[2])


def test_columns_that_the_user_names_win_and_the_others_are_recognised(tmp_path):
    row = {"件名": Q, "質問": "別", "対応": A, "備考": C, "分類": "x"}
    columns = {"instruction": "件名", "output": "対応", "input": "備考"}
    (found,) = raw(tmp_path, row, columns=columns)
    assert [found[key] for key in ("instruction", "input", "output", "category")] == [Q, C, A, "x"]
    (found,) = raw(tmp_path, row, columns=columns | {"category": None})
    assert found["category"] == ""
    (found,) = raw(
        tmp_path, row | {"text": "…"}, columns={"instruction": " ｹﾝﾒｲ", "output": "対応"} | {"instruction": "件名"}
    )
    assert found["instruction"] == Q


@pytest.mark.parametrize(
    "name", ["ジャンル(大)", "分類（大）", "カテゴリ名", "【分類】", "大分類", "Category [optional]"]
)
def test_headers_with_brackets_are_forgiven(tmp_path, name):
    (found,) = raw(tmp_path, {"質問（必須）": Q, "【回答】": A, name: "x"})
    assert [found[key] for key in ("instruction", "output", "category")] == [Q, A, "x"]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("ご質問", "ご回答"), ("想定質問", "想定回答"), ("■質問", "■回答"), ("質問※必須", "回答\n※社外秘"),
        ("お問合せ内容", "対応内容"), ("よくある質問（FAQ）", "模範解答"),
    ],
)  # fmt: skip
def test_headers_with_marks_notes_and_courtesy_are_forgiven(tmp_path, question, answer):
    (found,) = raw(tmp_path, {question: Q, answer: A})
    assert (found["instruction"], found["output"]) == (Q, A)
    (found,) = raw(tmp_path, {"質問": Q, "想定質問": "他", "回答": A})
    assert found["instruction"] == Q


def test_a_header_over_several_lines_is_shown_in_one(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('"質問\n（必須）",回答,"備考\n（任意）"\na,b,c\n', encoding="utf-8")
    (line,) = load_data(str(path)).read_report()
    assert "質問 （必須） → instruction" in line
    assert "not read: 備考 （任意）" in line
    assert "\n" not in line


def test_a_name_without_brackets_wins_and_two_with_them_are_asked_about(tmp_path):
    (found,) = raw(tmp_path, {"質問": Q, "質問（英語）": "Q", "回答": A})
    assert found["instruction"] == Q
    path = tmp_path / "rows.csv"
    path.write_text("質問,回答,分類(大),分類(小)\na,b,c,d\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"which column is the category, 分類\(大\) or 分類\(小\)"):
        load_data(str(path))


def test_a_field_that_is_null_alone_is_in_no_column_and_the_rest_is_recognised(tmp_path):
    (found,) = raw(tmp_path, {"質問": Q, "回答": A, "分類": "x"}, columns={"category": None})
    assert (found["instruction"], found["category"]) == (Q, "")
    section = data_section(["rows.jsonl"], ["data.columns={category: null}"])
    assert section.sources[0].columns == {"category": None}


def test_a_column_that_is_not_there_is_one_line_with_the_nearest(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("件名,対応\na,b\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"data\.columns: no column 対処 among 件名, 対応; did you mean 対応"):
        load_data([Source(str(path), columns={"instruction": "件名", "output": "対処"})])


def test_two_columns_for_a_field_are_a_question_and_the_line_answers_it(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("質問,補足情報,本文,回答\na,b,c,d\n", encoding="utf-8")
    with pytest.raises(UserError, match="which column is the input, 補足情報 or 本文"):
        load_data(str(path))
    for name, text in (("補足情報", "b"), ("本文", "c")):
        (row,) = raw_rows([Source(str(path), columns={"input": name})])
        assert row["input"] == text
    assert [row["input"] for row in raw_rows([Source(str(path), columns={"input": None})])] == [""]


def test_columns_with_names_that_need_quotation_marks_can_be_copied_from_the_line(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('お客様の声: 全文,"対応, 案"\na,b\n', encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_data(str(path))
    line = str(error.value).split("for example '", 1)[1].removesuffix("'")
    from sft.system.yaml_text import parse_yaml

    columns = parse_yaml(line.removeprefix("data.columns="), "line")
    assert load_data([Source(str(path), columns=columns)]).rows["output"][:] == ["b"]


def test_rows_of_several_shapes_in_one_file_are_each_read_as_what_they_are(tmp_path):
    rows = raw(tmp_path, {"instruction": Q, "output": A}, {"messages": TALK[-2:]}, {"question": Q, "answer": A})
    assert [(row["instruction"], row["output"]) for row in rows] == [(Q, A)] * 3
    report = load_data(str(tmp_path / "rows.jsonl")).read_report()[0]
    assert "alpaca, no categories; messages, no categories; question and answer, no categories" in report


def test_the_line_to_copy_takes_the_column_behind_the_question_for_its_answer():
    columns = ["ID", "お問い合わせ内容", "対応結果", "区分（大）", "担当者"]
    line = not_recognised(columns, None, "no answer")
    assert line.endswith('output: 対応結果, category: "区分（大）"}\'')


def test_a_name_that_a_spreadsheet_wraps_is_shown_on_one_line_and_known_without_its_brackets(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('件名,"対応\n（確定版）",対応（英訳）,"担当\n者"\na,b,c,d\ne,,g,h\n', encoding="utf-8")
    (file,) = load_data([Source(str(path), columns={"instruction": "件名", "output": "対応 （確定版）"})]).files
    assert "対応 （確定版） → output" in str(file)
    assert "担当 者" in str(file)
    with pytest.raises(UserError, match="no column 対応 among 件名"):
        load_data([Source(str(path), columns={"instruction": "件名", "output": "対応"})])
    path.write_text('件名,"対応\n（確定版）"\na,b\n', encoding="utf-8")
    (row,) = raw_rows([Source(str(path), columns={"instruction": "件名", "output": "対応"})])
    assert row["output"] == "b"
