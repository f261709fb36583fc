"""Rows: both schemas, four formats, and every unusable row counted by reason and named."""

import csv
import json

import pyarrow
import pyarrow.parquet
import pytest

from sft.data.read import load_data
from sft.data.records import CATEGORIES, Example
from sft.data.rows import examples_of
from sft.system.errors import UserError
from sft.system.texts import speak

ROW = {"index": "7", "instruction": "首都は?", "input": "", "output": "東京です。", "category": "open_qa"}
EXAMPLE = Example("7", "首都は?", "", "東京です。", "open_qa")


def jsonl(path, *rows):
    path.write_bytes(b"".join(r if isinstance(r, bytes) else json.dumps(r).encode() + b"\n" for r in rows))
    return str(path)


def test_the_four_formats_give_the_same_examples(tmp_path):
    paths = {suffix: tmp_path / f"rows.{suffix}" for suffix in ("json", "jsonl", "csv", "parquet")}
    paths["json"].write_text(json.dumps([ROW]))
    jsonl(paths["jsonl"], ROW)
    with paths["csv"].open("w", newline="") as file:
        writer = csv.DictWriter(file, ROW)
        writer.writeheader()
        writer.writerow(ROW)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW]), paths["parquet"])
    loaded = [load_data(str(path)) for path in paths.values()]
    assert [list(examples_of(data.rows)) for data in loaded] == [[EXAMPLE]] * 4
    assert len({data.sha256 for data in loaded}) == 1


def test_the_english_dolly_schema_is_read(tmp_path):
    row = {"instruction": "When?", "context": "In 1990.", "response": "1990", "category": "closed_qa"}
    rows = load_data(jsonl(tmp_path / "rows.jsonl", row)).rows
    (example,) = examples_of(rows)
    assert example == Example(example.index, "When?", "In 1990.", "1990", "closed_qa")


def test_every_row_of_the_sample_is_usable():
    data = load_data("data/sample.jsonl")
    assert not data.dropped
    assert len(data.rows) >= 240
    for category in CATEGORIES:
        rows = [example for example in examples_of(data.rows) if example.category == category]
        assert len(rows) >= 20
        with_context = category in ("closed_qa", "information_extraction", "summarization")
        assert all(bool(example.input) is with_context for example in rows), category


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"instruction": "a"\n', "not JSON"),
        (b'{"instruction": "\x82"}\n', "not UTF-8"),
        ([1, 2], "not an object with fields"),
        (ROW | {"index": "8", "instruction": 3}, "instruction is not text"),
        (ROW | {"index": "8", "output": {"a": 1}}, "output is not text"),
        (ROW | {"index": "8", "output": None}, "output is null"),
        ({k: v for k, v in ROW.items() if k != "output"}, "no output"),
        (ROW | {"index": "8", "output": " \n"}, "empty output"),
        (ROW | {"index": "8", "instruction": ""}, "empty instruction"),
        (ROW | {"index": "8", "instruction": "a\0b"}, "instruction holds a null character"),
        (ROW | {"index": "8", "output": "\ud83d"}, "output is not valid Unicode"),
        (ROW | {"index": "8", "answers": {"1": "東京"}, "output": None}, "output is null"),
        (ROW | {"index": "8", "answers": [3]}, "answers is not a list of texts"),
    ],
)
def test_an_unusable_row_is_counted_by_reason_and_named_by_line(tmp_path, bad, reason):
    data = load_data(jsonl(tmp_path / "rows.jsonl", ROW, bad))
    assert list(examples_of(data.rows)) == [EXAMPLE]
    assert [(drop.place, drop.reason.startswith(reason)) for drop in data.dropped] == [("line 2", True)]
    (line,) = data.drop_report()
    assert "dropped 1 row" in line
    assert "line 2" in line


def test_the_first_few_of_many_unusable_rows_are_named(tmp_path):
    bad = [ROW | {"index": str(n), "output": ""} for n in range(10, 20)]
    (line,) = load_data(jsonl(tmp_path / "rows.jsonl", ROW, *bad)).drop_report()
    assert line == "dropped 10 rows (open_qa): empty output: line 2, line 3, line 4, …"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.jsonl", b"", "no usable row"),
        ("broken.jsonl", b"{\n{\n", "no usable row"),
        ("broken.json", b"{", "not JSON"),
        ("lines.json", b'{"a": 1}\n{"a": 2}\n', r"no instruction \(columns: a\)"),
        ("object.json", b"{}", "no usable row"),
        ("fake.parquet", b"nothing", "not a parquet file"),
        ("rows.txt", b"a", "not a data file"),
        ("utf16.csv", "instruction".encode("utf-16"), r"no output \(columns: instruction\)"),
    ],
)
def test_a_file_without_usable_rows_is_one_clear_line(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        load_data(str(tmp_path / name))
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_what_was_read_is_said_in_the_readers_language(tmp_path):
    (tmp_path / "faq.csv").write_text("質問,回答\n首都は?,東京\n", encoding="utf-8")
    data = load_data(str(tmp_path / "faq.csv"))
    said = {}
    for language in ("en", "ja"):
        speak(language)
        (said[language],) = data.read_report()
    assert said["en"].endswith(
        "faq.csv: read as 質問 → instruction, 回答 → output, no categories (CSV in UTF-8), 1 row"
    )
    assert said["ja"].endswith(
        "faq.csv: 質問 → instruction、回答 → output、カテゴリなし（形式: UTF-8のCSV）として1行を読みました。"
    )


def test_a_missing_file_and_an_unreachable_hub_are_one_clear_line():
    with pytest.raises(UserError, match="no such data file"):
        load_data("data/absent.jsonl")
    with pytest.raises(UserError, match="cannot be loaded from the hub") as error:
        load_data("kunishou/databricks-dolly-15k-ja")
    assert "\n" not in str(error.value)
    assert (
        "(not in the cache, and HF_HUB_OFFLINE is set); unset it to download, or set data.path to a local file"
        in str(error.value)
    )


def test_all_real_rows_are_usable(real_rows):
    data = load_data(str(real_rows))
    assert len(data.rows) == 15_015
    assert not data.dropped


def test_a_row_may_have_any_category_or_none(tmp_path):
    rows = [ROW | {"index": str(n), "category": name} for n, name in enumerate(["社内 手続き", "Open QA", "", None])]
    rows.append({key: value for key, value in ROW.items() if key != "category"})
    data = load_data(jsonl(tmp_path / "rows.jsonl", *rows), groups={"社内 手続き": "other"})
    assert not data.dropped
    assert [(example.category, example.group) for example in examples_of(data.rows)] == [
        ("社内 手続き", "other"), ("open_qa", "open"), ("", "open"), ("", "open"), ("", "open"),
    ]  # fmt: skip
