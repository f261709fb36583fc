"""Bad input of every kind: rows, questions, configurations, predictions. One line that says what, or a counted drop.

What a row that is kept says is compared to the letter: no text may come out different from what the file holds.
"""

import bz2
import csv
import datetime
import decimal
import gzip
import io
import json
import lzma
import math
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
import yaml
from odd_texts import TEXTS

import sft.data.read
from eval.predictions import read_predictions
from sft.ask.questions import read_questions
from sft.config.load import load_config
from sft.data.read import load_data
from sft.data.rows import examples_of
from sft.data.split import split_rows
from sft.prompt.template import ALPACA_JA
from sft.system.errors import UserError

ROW = {"index": "7", "instruction": "首都は?", "input": "", "output": "東京です。", "category": "open_qa"}
OTHER = ROW | {"index": "8"}


def lines(*rows: Any) -> bytes:
    """JSON Lines; bytes are lines as they are."""
    return b"\n".join(r if isinstance(r, bytes) else json.dumps(r, ensure_ascii=False).encode() for r in rows) + b"\n"


def with_text(field: str, text: bytes) -> bytes:
    """The other row with these bytes as the JSON text of a field."""
    return json.dumps(OTHER | {field: "@"}).encode().replace(b'"@"', b'"' + text + b'"')


def talk(*roles: str) -> dict[str, Any]:
    """A row of messages with these roles."""
    return {"messages": [{"role": role, "content": f"{role} {number}"} for number, role in enumerate(roles)]}


def nested(depth: int) -> bytes:
    return b'{"index": "8", "instruction": ' + b"[" * depth + b"]" * depth + b"}"


# A bad line behind a good row: the good row is kept as it is, and the bad one dropped for this reason.
DROPPED: dict[str, tuple[bytes, str]] = {
    "cut off": (lines(OTHER)[:40], "not JSON"),
    "trailing comma": (lines(OTHER)[:-2] + b",}", "not JSON"),
    "single quotes": (repr(OTHER).encode(), "not JSON"),
    "two rows on a line": (lines(OTHER)[:-1] + lines(OTHER)[:-1], "not JSON"),
    "a carriage return between rows": (lines(OTHER)[:-1] + b"\r" + lines(OTHER)[:-1], "not JSON"),
    "a list of rows": (json.dumps([OTHER]).encode(), "not an object with fields"),
    "a number": (b"3", "not an object with fields"),
    "null": (b"null", "not an object with fields"),
    "true": (b"true", "not an object with fields"),
    "NaN": (b"NaN", "not an object with fields"),
    "a text": (b'"row"', "not an object with fields"),
    "UTF-16": (json.dumps(OTHER, ensure_ascii=False).encode("utf-16-be"), "not UTF-8"),
    "Shift-JIS": (json.dumps(OTHER, ensure_ascii=False).encode("shift_jis"), "not UTF-8"),
    "EUC-JP": (json.dumps(OTHER, ensure_ascii=False).encode("euc_jp"), "not UTF-8"),
    "CESU-8": (with_text("output", b"\xed\xa0\xbd\xed\xb8\x80"), "not UTF-8"),
    "overlong UTF-8": (with_text("output", b"\xc0\xaf"), "not UTF-8"),
    "a cut character": (with_text("output", "東".encode()[:2]), "not UTF-8"),
    "a lone surrogate": (with_text("output", rb"\ud800"), "output is not valid Unicode (a lone surrogate)"),
    "a lone low surrogate": (with_text("input", rb"\udc80"), "input is not valid Unicode (a lone surrogate)"),
    "surrogates reversed": (with_text("instruction", rb"\ude00\ud83d"), "instruction is not valid Unicode"),
    "a surrogate in the index": (with_text("index", rb"\ud800"), "index is not valid Unicode (a lone surrogate)"),
    "a null escape": (with_text("output", rb"a\u0000b"), "output holds a null character"),
    "a null byte": (with_text("output", b"a\0b"), "not JSON"),
    "a raw control character": (with_text("output", b"a\x1bb"), "not JSON"),
    "deep nesting": (nested(100_000), "nested too deeply"),
    "shallow nesting": (nested(50), "no output"),
    "a field twice": (lines(OTHER)[:-2] + b', "output": "x"}', "a field is given twice"),
    "a nested field twice": (lines(OTHER)[:-2] + b', "x": {"a": 1, "a": 2}}', "a field is given twice"),
    "a number of 5,000 digits": (lines(OTHER)[:-2] + b', "x": ' + b"9" * 5000 + b"}", "a number is too long"),
    "number for text": (lines(OTHER | {"output": 3}), "output is not text"),
    "infinity for text": (lines(OTHER | {"output": math.inf}), "output is not text"),
    "NaN for text": (lines(OTHER | {"instruction": math.nan}), "empty instruction"),
    "list for text": (lines(OTHER | {"output": ["東京"]}), "output is not text"),
    "object for text": (lines(OTHER | {"instruction": {"text": "首都は?"}}), "instruction is not text"),
    "true for text": (lines(OTHER | {"input": True}), "input is not text"),
    "null for text": (lines(OTHER | {"instruction": None}), "instruction is null"),
    "a fraction for the category": (lines(OTHER | {"category": 1.5}), "category is not text"),
    "list for the category": (lines(OTHER | {"category": ["open_qa"]}), "category is not text"),
    "no output": (lines({k: v for k, v in OTHER.items() if k != "output"}), "no output"),
    "an empty object": (b"{}", "no instruction"),
    "empty": (lines(OTHER | {"instruction": ""}), "empty instruction"),
    "white space only": (lines(OTHER | {"output": " \t\n\u3000\u2028"}), "empty output"),
    "two contexts": (lines(OTHER | {"input": "甲", "context": "乙"}), "input and context are both there and differ"),
    "two outputs": (lines(OTHER | {"response": "京都です。"}), "output and response are both there and differ"),
    "an empty answer": (lines(OTHER | {"answers": ["東京", " "]}), "answers is not a list of texts"),
    "answers that are no JSON": (lines(OTHER | {"answers": "{'text': array(['東京'])}"}), "answers is neither a text"),
    "a list of numbers for the answers": (lines(OTHER | {"answers": [1871]}), "answers is not a list of texts"),
    "SQuAD's answers to a question without one": (
        lines({"question": "a", "context": "b", "answers": {"text": [], "answer_start": []}}),
        "no answer",
    ),
    "NaN for the output": (lines(OTHER | {"output": math.nan}), "empty output"),
    "nan as a word for the output": (lines(OTHER | {"output": "nan"}), "empty output"),
    "#N/A for the output": (lines(OTHER | {"output": "#N/A"}), "empty output"),
    "#REF! for the output": (lines(OTHER | {"output": "#REF!"}), "output is #REF!, an error of the spreadsheet"),
    "#VALUE! for the context": (lines(OTHER | {"input": "#VALUE!"}), "input is #VALUE!, an error of the spreadsheet"),
    "#NAME? for the category": (lines(OTHER | {"category": "#NAME?"}), "category is #NAME?, an error"),
    "a column that was too narrow": (lines(OTHER | {"output": "########"}), "output is ########, an error"),
    "full-width spaces only": (lines(OTHER | {"output": "　　"}), "empty output"),
    "messages beside columns": (
        lines(OTHER | {"messages": [{"role": "user", "content": "a"}]}),
        "both instruction and messages",
    ),
    "no messages": (lines({"messages": []}), "a conversation without messages"),
    "messages that are no list": (lines({"messages": {"role": "user"}}), "messages are not a list"),
    "messages that are text": (lines({"messages": "[{'role': 'user'}]"}), "messages are not JSON"),
    "a message that is text": (lines({"messages": ["a", "b"]}), "a message is not an object"),
    "a message without a role": (lines({"messages": [{"content": "a"}]}), "a message without a role"),
    "a message without content": (
        lines({"messages": [{"role": "user", "parts": ["a"]}, {"role": "model", "parts": ["b"]}]}),
        "a message without content",
    ),
    "a role of another kind": (lines(talk("user", "narrator")), "a message of an unknown role (narrator)"),
    "a question without an answer": (lines(talk("user", "assistant", "user")), "a conversation that does not end with"),
    "an answer first": (lines(talk("assistant", "user", "assistant")), "a conversation that does not begin with"),
    "two questions in a row": (lines(talk("user", "user", "assistant")), "a conversation whose questions and answers"),
    "a system message inside": (lines(talk("user", "assistant", "system")), "a system message inside"),
    "a system message alone": (lines(talk("system")), "a conversation without messages"),
    "a tool's answer": (lines(talk("user", "tool", "assistant")), "a conversation with tool calls"),
    "ShareGPT's tools": (
        lines({"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "b"}]}),
        "a conversation with tool calls",
    ),
    "a call of a tool": (
        lines({"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]}),
        "a conversation with tool calls",
    ),
    "an empty message": (
        lines({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]}),
        "a conversation with an empty message",
    ),
    "a picture": (
        lines({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
        "a message with a part that is no text (image_url)",
    ),
    "a number as a message": (lines({"messages": [{"role": "user", "content": 3}]}), "a message whose content is not"),
    "an answer that is not to be learned": (
        lines({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]}),
        "an answer of weight 0",
    ),
    "a surrogate in an earlier turn": (
        lines(talk("user", "assistant", "user", "assistant")).replace(b"user 0", rb"\ud800"),
        "an earlier message is not",
    ),
    "two systems": (lines(talk("system", "user", "assistant") | {"system": "a"}), "a system message beside a column"),
    "a history of one text": (lines(OTHER | {"history": "前の話"}), "messages are not a list"),
    "a history out of step": (lines(OTHER | {"history": [["a"]]}), "history is not a list of questions and answers"),
    "a history with an empty answer": (
        lines(OTHER | {"history": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]}),
        "a history with an empty message",
    ),
    "a system message inside a history": (
        lines(OTHER | {"history": talk("user", "system", "assistant")["messages"]}),
        "a system message inside a history",
    ),
    "a system message in a history beside a column of them": (
        lines(OTHER | {"system": "a", "history": [{"role": "system", "content": "b"}]}),
        "a system message beside a column of them",
    ),
    "a list for the system": (lines(OTHER | {"system": ["a"]}), "system is not text"),
    "turns in the prompt and in a column": (
        lines({"prompt": talk("user", "assistant", "user")["messages"], "completion": "a", "history": [["b", "c"]]}),
        "earlier messages beside a column of them",
    ),
    "a context in the prompt and another one in a column": (
        lines({"prompt": ALPACA_JA.render("a", "b"), "completion": "c", "context": "d"}),
        "context and the prompt hold two contexts",
    ),
    "an error of the spreadsheet in an earlier message": (
        lines(talk("user", "assistant", "user", "assistant")).replace(b"assistant 1", b"#REF!"),
        "an earlier message is #REF!, an error of the spreadsheet",
    ),
    "an answer without width": (lines(OTHER | {"output": "\u200b\u2060\u3164\ufeff"}), "empty output"),
    "the word for nothing": (lines(OTHER | {"output": "None"}), "empty output (None)"),
    "a text without a template": (lines({"text": "吾輩は猫である。"}), "text holds no prompt of alpaca's templates"),
    "a text of two turns": (
        lines({"text": "### 指示:\na\n\n### 応答:\nb\n\n### 指示:\nc\n\n### 応答:\nd"}),
        "its template's markers are not those of one question and answer",
    ),
    "a text without an answer": (lines({"text": "### Instruction:\na\n\n### Response:\n"}), "empty output"),
    "a preference": (lines({"prompt": "a", "chosen": "b", "rejected": "c"}), "no output"),
    "a surrogate among the answers": (lines(OTHER)[:-2] + rb', "answers": ["\ud800"]}', "answers is not valid Unicode"),
}


@pytest.mark.parametrize("name", DROPPED)
def test_a_bad_line_is_dropped_and_counted_and_its_neighbours_stay(tmp_path: Path, name: str) -> None:
    bad, reason = DROPPED[name]
    path = tmp_path / "rows.jsonl"
    last = ROW | {"index": "9", "output": "末尾。"}
    path.write_bytes(lines(ROW) + bad.rstrip(b"\n") + b"\n" + lines(last))
    data = load_data(str(path))
    assert [(e.index, e.output) for e in examples_of(data.rows)] == [("7", "東京です。"), ("9", "末尾。")]
    assert [(drop.place, drop.reason.startswith(reason)) for drop in data.dropped] == [("line 2", True)], data.dropped
    assert data.drop_counts.total() == 1


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_odd_texts_are_kept_to_the_letter(tmp_path: Path, suffix: str, name: str) -> None:
    row = ROW | {"instruction": TEXTS[name], "input": TEXTS[name], "output": f"答え{TEXTS[name]}"}
    path = tmp_path / f"rows.{suffix}"
    if suffix == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    elif suffix == "csv":
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, row)
        writer.writeheader()
        writer.writerow(row)
        path.write_bytes(text.getvalue().encode())
    else:
        path.write_bytes(lines(row) if suffix == "jsonl" else lines([row]))
    (example,) = examples_of(load_data(str(path)).rows)
    assert (example.instruction, example.input, example.output) == (row["instruction"], row["input"], row["output"])


GOOD = {
    "Windows line ends": lines(ROW, OTHER).replace(b"\n", b"\r\n"),
    "a byte order mark in front": b"\xef\xbb\xbf" + lines(ROW, OTHER),
    "blank lines": b"\n \n" + lines(ROW, b"", b"\t", OTHER) + b"\n\n",
    "no line end at the end": lines(ROW, OTHER)[:-1],
    "spaces around": lines(b"  " + lines(ROW)[:-1] + b"  ", OTHER),
    "NaN in a column that is not read": lines(ROW, OTHER)[:-2] + b', "score": NaN}\n',
    "an infinity in a column that is not read": lines(ROW, OTHER)[:-2] + b', "score": -Infinity}\n',
    "a large number as index": lines(ROW, ROW | {"index": 10**400}),
    "another category": lines(ROW, OTHER | {"category": "Open_QA"}),
    "a category with a space": lines(ROW, OTHER | {"category": "open_qa "}),
    "more columns": lines(ROW, OTHER | {"source": None, "tags": [1, {"a": []}]}),
    "equal contexts": lines(ROW, OTHER | {"input": "文脈", "context": "文脈"}),
    "a byte order mark inside": lines(ROW) + b"\xef\xbb\xbf" + lines(OTHER),
    "NaN for the context": lines(ROW, OTHER | {"input": math.nan}),
    "words of pandas for the context": lines(ROW | {"input": "nan"}, OTHER | {"input": "None"}),
    "#N/A for the context": lines(ROW, OTHER | {"input": "#N/A"}),
    "NaN for the category": lines(ROW, OTHER | {"category": math.nan}),
    "a number for the category": lines(ROW, OTHER | {"category": 1}),
    "null for the category": lines(ROW, OTHER | {"category": None}),
    "a category of the user's own": lines(ROW, OTHER | {"category": "社内手続き"}),
    "two files joined": lines(ROW) + lines(ROW | {"output": "京都です。"}),
    "the same row twice": lines(ROW, ROW),
    "null for the index": lines(ROW | {"index": None}, OTHER | {"index": None}),
    "NaN for the index": lines(ROW | {"index": math.nan}, OTHER | {"index": math.nan}),
    "0.0 for the index": lines(ROW | {"index": 0.0}, OTHER | {"index": 0.0}),
    "a fraction for the index": lines(ROW, OTHER | {"index": 7.5}),
    "true for the index": lines(ROW, OTHER | {"index": True}),
    "one answer as a text": lines(ROW, OTHER | {"answers": "東京"}),
    "answers as SQuAD has them": lines(ROW, OTHER | {"answers": {"text": ["東京"], "answer_start": [0]}}),
    "a surrogate pair as escapes": lines(ROW, with_text("output", rb"\ud83d\ude00")),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_only_unusual_loses_no_row(tmp_path: Path, name: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD[name])
    data = load_data(str(path))
    assert (len(data.rows), data.dropped) == (2, [])


def parquet(*rows: dict[str, Any]) -> bytes:
    return parquet_of(pyarrow.Table.from_pylist(list(rows)))


def parquet_of(table: pyarrow.Table) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file)
    return file.getvalue()


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("rows.json", content)
    return file.getvalue()


def text_column(*values: bytes) -> pyarrow.Array:
    """A column that says that it is text, whatever its bytes."""
    binary = pyarrow.array(values, pyarrow.binary())
    return pyarrow.Array.from_buffers(pyarrow.string(), len(values), binary.buffers())


HEADER = b"index,instruction,input,output,category\n"
PARQUET = parquet(ROW)
TWICE = pyarrow.table(
    [*pyarrow.Table.from_pylist([ROW]).columns, pyarrow.array(["京都です。"])], names=[*ROW, "output"]
)

SEMICOLONS = HEADER.replace(b",", b";") + b"7;a;;b;open_qa\n"
JAPANESE = "No.,質問,補足情報,回答,分類\n1,休みは?,,月曜です。,社内\n2,窓口は?,,総務です。,社内\n"
TWO = [ROW, OTHER]
COLUMNS = {name: [row[name] for row in TWO] for name in ROW}
SQUAD = {"version": "1.1", "data": [{"title": "a", "paragraphs": [{"context": "東京は首都。", "qas": [
    {"id": n, "question": f"首都{n}は?", "answers": [{"text": "東京", "answer_start": 0}]} for n in "12"
]}]}]}  # fmt: skip

# Files as many programs write them; each gives its two rows.
READ: dict[str, tuple[str, bytes]] = {
    "UTF-16": ("rows.jsonl", lines(*TWO).decode().encode("utf-16")),
    "UTF-16 json": ("rows.json", lines(TWO).decode().encode("utf-16")),
    "UTF-16 without a mark": ("rows.jsonl", lines(*TWO).decode().encode("utf-16-le")),
    "UTF-16, the large end first": ("rows.jsonl", lines(*TWO).decode().encode("utf-16-be")),
    "UTF-16 csv, as Excel's Unicode text": ("rows.csv", JAPANESE.replace(",", "\t").encode("utf-16")),
    "Shift-JIS csv": ("rows.csv", JAPANESE.encode("cp932")),
    "Shift-JIS jsonl": ("rows.jsonl", lines(*TWO).decode().encode("cp932")),
    "EUC-JP csv": ("rows.csv", JAPANESE.encode("euc_jp")),
    "EUC-JP json": ("rows.json", lines(TWO).decode().encode("euc_jp")),
    "characters that cp932 alone has": ("rows.csv", JAPANESE.replace("窓口", "①㈱髙橋").encode("cp932")),
    "a byte order mark": ("rows.csv", JAPANESE.encode("utf-8-sig")),
    "byte order marks inside": ("rows.csv", JAPANESE.replace("\n2", "\n\ufeff2").encode("utf-8-sig")),
    "two byte order marks": ("rows.csv", b"\xef\xbb\xbf" + JAPANESE.encode("utf-8-sig")),
    "lines as json": ("rows.json", lines(*TWO)),
    "an object a line in a file of arrays, with blank lines": ("rows.json", lines(ROW, b"", OTHER)),
    "a list over lines as jsonl": ("rows.jsonl", json.dumps(TWO, indent=1).encode()),
    "a list as jsonl": ("rows.jsonl", json.dumps(TWO).encode()),
    "an object of columns": ("rows.json", json.dumps(COLUMNS).encode()),
    "an object of columns over lines": ("rows.jsonl", json.dumps(COLUMNS, indent=2).encode()),
    "columns as pandas writes them": (
        "rows.json", json.dumps({name: dict(enumerate(cells)) for name, cells in COLUMNS.items()}).encode()
    ),
    "rows by name, as pandas writes them": ("rows.json", json.dumps({"0": ROW, "1": OTHER}).encode()),
    "rows by names of their own": ("rows.json", json.dumps({"a": ROW, "b": OTHER}).encode()),
    "rows by names of their own, of which one has more": (
        "rows.json", json.dumps({"a": ROW, "b": OTHER | {"note": "x"}}).encode()
    ),
    "split as pandas writes it": (
        "rows.json", json.dumps({"columns": list(ROW), "data": [[*ROW.values()], [*OTHER.values()]]}).encode()
    ),
    "a single column": ("rows.json", json.dumps({"messages": [talk("user", "assistant")["messages"]] * 2}).encode()),
    "a single column as pandas writes it": (
        "rows.json", json.dumps({"text": dict.fromkeys("01", "### 指示:\na\n\n### 応答:\nb")}).encode()
    ),
    "rows with a role": (
        "rows.json", json.dumps({"data": [{"role": "総務"} | ROW, {"role": "総務"} | OTHER]}).encode()
    ),
    "rows of the hub's viewer": ("rows.jsonl", lines({"row_idx": 0, "row": ROW}, {"row_idx": 1, "row": OTHER})),
    "an answer of the hub's viewer": (
        "rows.json",
        json.dumps({"features": [{"name": "a"}], "rows": [{"row_idx": 0, "row": ROW, "truncated_cells": []}] * 2})
        .encode(),
    ),
    "objects one after another": ("rows.json", "\n".join(json.dumps(row, indent=1) for row in TWO).encode()),
    "objects with carriage returns between": ("rows.jsonl", lines(*TWO).replace(b"\n", b"\r")),
    "rows in an object": ("rows.json", json.dumps({"version": 1, "data": TWO}).encode()),
    "SQuAD": ("rows.json", json.dumps(SQUAD).encode()),
    "gzip as json": ("rows.json", gzip.compress(lines(TWO))),
    "gzip by name": ("rows.jsonl.gz", gzip.compress(lines(*TWO))),
    "gzip of a csv": ("rows.CSV.GZ", gzip.compress(JAPANESE.encode("cp932"))),
    "gzip of parquet": ("rows.parquet.gz", gzip.compress(parquet(*TWO))),
    "a suffix in capitals": ("rows.JSONL", lines(*TWO)),
    "a csv in capitals": ("rows.CSV", JAPANESE.encode()),
    "semicolons": ("rows.csv", SEMICOLONS + b"8;c;;d, e;open_qa\n"),
    "tabs": ("rows.tsv", JAPANESE.replace(",", "\t").encode()),
    "tabs in a csv": ("rows.csv", JAPANESE.replace(",", "\t").encode()),
    "bars": ("rows.csv", JAPANESE.replace(",", "|").encode()),
    "commas in a tsv": ("rows.tsv", JAPANESE.encode()),
    "a line for Excel": ("rows.csv", b"sep=;\r\n" + JAPANESE.replace(",", ";").encode()),
    "capitals and spaces in the header": ("rows.csv", b" Instruction ,INPUT,Output\na,,b\nc,,d\n"),
    "full-width letters in the header": ("rows.csv", "Ｎｏ．,　質問　,回答\n1,a,b\n2,c,d\n".encode()),
    "a title above the header": ("rows.csv", "社内FAQ,,,,\n,,,,\n".encode() + JAPANESE.encode()),
    "empty rows at the end": ("rows.csv", JAPANESE.encode() + b",,,,\n" * 5 + b"\n\n"),
    "empty cells behind the columns": ("rows.csv", JAPANESE.replace("\n", ",,\n").encode()),
    "line ends of old Macs": ("rows.csv", JAPANESE.replace("\n", "\r").encode()),
    "line ends of Windows": ("rows.csv", JAPANESE.replace("\n", "\r\n").encode()),
    "a comma behind the header alone": ("rows.csv", "質問,回答,\na,b\nc,d\n".encode()),
    "newlines in cells": ("rows.csv", JAPANESE.replace("月曜です。", '"月曜です。\n\n祝日も。"').encode()),
    "a question and its answer as Q and A": ("rows.csv", b"Q,A\na,b\nc,d\n"),
    "a header with notes on the columns": ("rows.csv", "質問：,回答＊\na,b\nc,d\n".encode()),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_what_programs_write_is_read_whole(tmp_path: Path, name: str) -> None:
    file, content = READ[name]
    (tmp_path / file).write_bytes(content)
    data = load_data(str(tmp_path / file))
    assert (len(data.rows), data.dropped) == (2, [])
    assert not any("\ufeff" in text or "\ufffd" in text for text in data.rows["output"][:])
    assert len(data.read_report()) == 1


# Files that hold no usable row: the file is named, and these words say why.
REFUSED: dict[str, tuple[str, bytes, str]] = {
    "empty": ("rows.jsonl", b"", "no usable row (it is empty)"),
    "empty json": ("rows.json", b"", "no usable row (it is empty)"),
    "an empty object": ("rows.json", b"{}", "no usable row"),
    "an empty list in an object": ("rows.json", b'{"data": []}', "no usable row (it is empty)"),
    "two lists one after another": ("rows.json", b"[1][2]", "not JSON in UTF-8: Extra data"),
    "split with a short row": (
        "rows.json", b'{"columns": ["question", "answer"], "data": [["a"]]}', "fewer cells than columns"
    ),
    "columns of different lengths": ("rows.json", b'{"question": ["a", "b"], "answer": ["c"]}', "question 2, answer 1"),
    "two lists of rows": (
        "rows.json", json.dumps({"train": [ROW], "test": [ROW]}).encode(), "holds several lists of rows (train, test)"
    ),
    "SQuAD without questions": ("rows.json", b'{"data": [{"paragraphs": [{"context": "a"}]}]}', "a paragraph without"),
    "half a gzip": ("rows.jsonl.gz", gzip.compress(lines(*TWO))[:40], "not a whole gzip file"),
    "gzip by name alone": ("rows.json.gz", b"\x1f\x8bnothing", "not a whole gzip file"),
    "zip as json": ("rows.json", zipped(lines([ROW])), "an archive, or an Excel workbook"),
    "zip as csv": ("rows.csv", zipped(lines([ROW])), "an archive, or an Excel workbook"),
    "parquet as jsonl": ("rows.jsonl", PARQUET, "a parquet file (.parquet)"),
    "parquet as csv": ("rows.csv", PARQUET, "a parquet file (.parquet)"),
    "csv as a workbook": ("rows.xlsx", JAPANESE.encode(), "not an Excel workbook"),
    "zip as a workbook": ("rows.xlsx", zipped(b"a"), "not an Excel workbook"),
    "an empty workbook": ("rows.xlsx", b"", "not an Excel workbook"),
    "a container of Excel": (
        "rows.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
        "an Excel file of the old kind (.xls); open it in Excel and save it as .xlsx",
    ),
    "a workbook with a real password": (
        "rows.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + "EncryptedPackage".encode("utf-16-le"),
        "an Excel workbook with a password; take it off in Excel",
    ),
    "a workbook with a password as csv": (
        "rows.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
        "not a .csv file but an Excel file (.xls, or .xlsx with a password)",
    ),
    "a header and blank rows": ("rows.csv", "質問,回答\n,\n\n".encode(), "it has columns and no rows: 質問, 回答"),
    "a workbook of the old kind": ("rows.xls", b"\xd0\xcf\x11\xe0", "save it as .xlsx"),
    "two columns for the question": (
        "rows.csv", "質問,指示,回答\na,b,c\n".encode(),
        "which column is the instruction, 指示 or 質問? For the first one: 'data.columns={instruction: 指示}'",
    ),
    "two columns for the context in parquet": (
        "rows.parquet", parquet(ROW | {"context": "a"}), "which column is the input, input or context?"
    ),
    "columns of other names": (
        "rows.csv", "番号,件名,内容\n1,a,b\n".encode(),
        "no instruction (columns: 番号, 件名, 内容); say which column is what, for example "
        "'data.columns={instruction: 件名, output: 内容}'",
    ),
    "a name that needs quotation marks": (
        "rows.csv", "お客様の声（全文）,対応: 案\na,b\n".encode(),
        '{instruction: "お客様の声（全文）", output: "対応: 案"}',
    ),
    "one column": ("rows.csv", "質問\na\nb\n".encode(), "(columns: 質問); rows need a question and an answer, in two"),
    "preferences": (
        "rows.jsonl", lines({"prompt": "a", "chosen": "b", "rejected": "c"}), "(columns: prompt, chosen, rejected)"
    ),
    "conversations of which one is preferred": (
        "rows.jsonl", lines({"chosen": talk("user", "assistant")["messages"], "rejected": []}),
        "no instruction (columns: chosen, rejected); where chosen holds conversations, train on those with "
        "'data.columns={messages: chosen}'",
    ),
    "preferences in another order": (
        "rows.csv", b"chosen,rejected,prompt\na,b,c\n", "'data.columns={instruction: prompt, output: chosen}'"
    ),
    "roles of other names": (
        "rows.jsonl", lines(talk("客", "店")), "of an unknown role (客): row 1); roles are system, user and assistant",
    ),
    "contexts and answers": (
        "rows.jsonl", lines({"input": "a", "output": "b"}), " 'data.columns={instruction: input, output: output}'"
    ),
    "questions with answers as their values": (
        "rows.json", '{"休みは？": "月曜です。", "窓口は？": "総務です。"}'.encode(),
        '; each row is an object, such as {"question": "…", "answer": "…"}',
    ),
    "jsonl as csv": ("rows.csv", lines(ROW), "not a CSV file but JSON; call it .jsonl"),
    "json over lines as csv": ("rows.csv", json.dumps(TWO, indent=1).encode(), "not a CSV file but JSON"),
    "csv as json": ("rows.json", JAPANESE.encode(), "or call it .csv or .tsv where it is a table"),
    "csv as jsonl": ("rows.jsonl", JAPANESE.encode(), "or call the file .csv or .tsv where it is a table"),
    "bzip2 as csv": ("rows.csv", bz2.compress(JAPANESE.encode()), "an archive (.bz2)"),
    "xz as jsonl": ("rows.jsonl", lzma.compress(lines(ROW)), "an archive (.xz)"),
    "messages as Python writes them": (
        "rows.csv", f'messages\n"{talk("user", "assistant")["messages"]}"\n'.encode(),
        'write the file with to_json(orient="records", lines=True)',
    ),
    "numbers for answers": ("rows.jsonl", lines({"question": "a", "answer": 1}), "; write it as a text"),
    "a plain text": ("rows.jsonl", lines({"text": "a"}, {"text": "b"}), "text holds no prompt of alpaca's templates"),
    "plain texts in a csv": ("rows.csv", b"text\na\nb\n", "text holds no prompt of alpaca's templates"),
    "a header alone": ("rows.csv", JAPANESE.split("\n")[0].encode(), "no usable row (it has columns and no rows: "),
    "empty csv": ("rows.csv", b"", "no usable row (it is empty)"),
    "empty parquet": ("rows.parquet", b"", "not a parquet file"),
    "blank lines": ("rows.jsonl", b"\n \n\r\n", "no usable row (it is empty)"),
    "an empty list": ("rows.json", b"[]", "no usable row (it is empty)"),
    "cut json": ("rows.json", lines([ROW, OTHER])[:-20], "not JSON in UTF-8"),
    "a trailing comma": ("rows.json", lines([ROW])[:-2] + b",]", "not JSON in UTF-8"),
    "a json number": ("rows.json", b"1e400", "holds float, not a list of rows"),
    "json too deep": ("rows.json", b"[" * 100_000, "not JSON in UTF-8"),
    "a json field twice": ("rows.json", b'[{"a": 1, "a": 2}]', "a field is given twice"),
    "a long number": ("rows.json", b"[" + b"1" * 5000 + b"]", "not JSON in UTF-8"),
    "jsonl as parquet": ("rows.parquet", lines(ROW), "not a parquet file"),
    "cut parquet": ("rows.parquet", PARQUET[: len(PARQUET) // 2], "not a parquet file"),
    "parquet with a damaged page": ("rows.parquet", PARQUET[:4] + bytes(40) + PARQUET[44:], "rows.parquet: "),
    "parquet with a damaged name": (
        "rows.parquet", PARQUET.replace(b"instruction", b"instr\xffction"), "not a parquet file"
    ),
    "parquet of numbers": ("rows.parquet", parquet(dict.fromkeys(ROW, 1)), "instruction is not text"),
    "parquet of bytes": ("rows.parquet", parquet({k: v.encode() for k, v in ROW.items()}), "instruction is not text"),
    "parquet of other columns": ("rows.parquet", parquet({"a": "x"}), "no instruction"),
    "parquet with a column twice": ("rows.parquet", parquet_of(TWICE), "2 columns are called output"),
    "csv with a column twice": ("rows.csv", HEADER[:-1] + b",output\n7,a,,b,open_qa,c\n", "2 columns are"),
    "csv without a header": ("rows.csv", b"7,a,,b,open_qa\n8,a,,b,open_qa\n", "no instruction"),
    "csv of questions without their marks and no header": (
        "rows.csv", "何時からですか,9時です\n返品できますか,できます\n".encode(), "these are no names: write a row"
    ),
    "csv of sentences without a header": (
        "rows.csv", "1,休みは？,月曜です。\n2,窓口は？,総務です。\n".encode(),
        "(columns: 1, 休みは？, 月曜です。); these are no names: write a row of names above, such as 質問,回答",
    ),
    "csv with an open quotation": ("rows.csv", HEADER + b'7,"a,,b,open_qa\n8,a,,b,open_qa\n', "unexpected end of data"),
    "csv in ISO-2022-JP that is cut": (
        "rows.csv", JAPANESE.encode("iso2022_jp").replace(b"\x1b(B\n1", b"\x1b(\n1"), "not ISO-2022-JP to its end; save"
    ),
    "csv with text behind a quotation": ("rows.csv", HEADER + b'7,"a"b,,c,open_qa\n', "',' expected after '\"'"),
    "csv with an unquoted comma": ("rows.csv", HEADER + b"7,a,,b,c,open_qa\n", "more cells than columns"),
    "csv with a short row": ("rows.csv", HEADER + b"7,a,,b\n", "fewer cells than columns"),
    "csv with a null": ("rows.csv", HEADER + b"7,a\0,,b,open_qa\n", "instruction holds a null character"),
    "another suffix": ("rows.txt", lines(ROW), "not a data file"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_of_another_kind_is_one_line(tmp_path: Path, name: str) -> None:
    file, content, words = REFUSED[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError) as error:
        load_data(str(tmp_path / file))
    said = str(error.value)
    assert said.startswith(str(tmp_path / file))
    assert words in said
    assert "\n" not in said


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.xlsx", "rows.parquet"])
def test_a_file_that_changes_while_it_is_read_is_one_line(tmp_path: Path, name: str, monkeypatch) -> None:
    path = tmp_path / name
    if name == "rows.xlsx":
        book = openpyxl.Workbook()
        for cells in (["質問", "回答"], ["a", "b"], ["c", "d"]):
            book.active.append(cells)
        book.save(path)
    else:
        path.write_bytes(
            {".csv": "質問,回答\na,b\nc,d\n".encode(), ".jsonl": lines(ROW, OTHER)}.get(path.suffix, PARQUET)
        )
    read = sft.data.read.checked_row

    def slow(*row: Any) -> Any:
        with path.open("ab") as file:
            file.write(b" ")
        return read(*row)

    monkeypatch.setattr("sft.data.read.checked_row", slow)
    with pytest.raises(UserError, match=f"{name}: was changed while it was read; read it again when nothing writes"):
        load_data(str(path))


def test_a_parquet_row_that_is_no_text_is_dropped_alone(tmp_path: Path) -> None:
    columns = {k: text_column(*[v.encode()] * 3) for k, v in ROW.items()}
    columns |= {"index": text_column(b"1", b"2", b"3"), "output": text_column(b"a", b"\xff\xfe", b"c")}
    # What a timestamp of another age does to a column that is not read is nobody's concern.
    columns["time"] = pyarrow.array([2**62] * 3, pyarrow.timestamp("ms"))
    (tmp_path / "rows.parquet").write_bytes(parquet_of(pyarrow.table(columns)))
    data = load_data(str(tmp_path / "rows.parquet"))
    assert [example.output for example in examples_of(data.rows)] == ["a", "c"]
    assert [(drop.place, drop.reason) for drop in data.dropped] == [("row 2", "not UTF-8")]


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def unreadable(path: Path) -> Path:
    """A file whose first read fails, to the superuser as well."""
    path.symlink_to("/proc/self/mem")
    return path


def directory(path: Path) -> Path:
    path.mkdir()
    return path


def looping(path: Path) -> Path:
    path.symlink_to(path)
    return path


PLACES: dict[str, Callable[[Path], Path]] = {
    "missing": lambda path: path,
    "directory": directory,
    "FIFO": fifo,
    "unreadable": unreadable,
    "link to itself": looping,
}
if sys.platform != "linux":
    del PLACES["unreadable"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_what_is_no_file_of_rows_is_one_line_and_is_not_waited_for(tmp_path: Path, place: str, suffix: str) -> None:
    path = PLACES[place](tmp_path / f"rows.{suffix}")
    with pytest.raises(UserError) as error:
        load_data(str(path))
    assert str(path) in str(error.value)


def test_single_rows_duplicates_and_long_fields(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(ROW))
    data = load_data(str(path))
    assert list(map(len, split_rows(data.rows, 0.02, 0.1))) == [1, 0, 0]
    # Equal texts are one unit of the split, so no side can hold what another was trained on.
    path.write_bytes(lines(*(ROW | {"index": str(n)} for n in range(50))))
    split = split_rows(load_data(str(path)).rows, 0.02, 0.1)
    assert sorted(map(len, split)) == [0, 0, 50]
    path.write_bytes(lines(*[ROW] * 50))
    data = load_data(str(path))
    assert (len(data.rows), len(set(data.rows["index"][:])), data.drop_counts.total()) == (50, 50, 0)
    long = "長" * 3_500_000  # 10 MB
    path.write_bytes(lines(ROW | {"output": long}, OTHER))
    assert [len(example.output) for example in examples_of(load_data(str(path)).rows)] == [3_500_000, 5]


QUESTIONS: dict[str, tuple[str, bytes, str]] = {
    "empty": ("jsonl", b"", "no questions in it"),
    "blank": ("jsonl", b"\n\n", "no questions in it"),
    "cut off": ("jsonl", b'{"instruction": "a', "1: not JSON"),
    "no question": ("jsonl", b'{"title": "a", "text": "b"}', "1: text holds no prompt"),
    "no column of questions": ("jsonl", b'{"title": "a"}', "(columns: title); say which column is the question"),
    "a number": ("jsonl", b'{"instruction": 3}', "1: instruction is not text"),
    "a picture in the question": (
        "jsonl", lines({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, {"role": "assistant"}]}),
        "1: a message with a part that is no text",
    ),
    "an answer alone": ("jsonl", lines(talk("assistant")), "1: a conversation without messages"),
    "two answers": ("jsonl", lines(talk("user", "assistant", "assistant")), "1: a conversation whose questions"),
    "white space": ("jsonl", b'{"instruction": "\\u3000"}', "1: empty instruction"),
    "null": ("jsonl", b'{"instruction": null}', "1: instruction is null"),
    "a null character": ("jsonl", b'{"instruction": "a\\u0000"}', "1: instruction holds a null character"),
    "a lone surrogate": ("jsonl", b'{"instruction": "\\ud800"}', "1: cannot be written again as JSON"),
    "a surrogate in a field that is only passed on": (
        "jsonl", b'{"instruction": "a", "id": "\\ud800"}', "1: cannot be written again as JSON",
    ),
    "a list for the context": ("jsonl", b'{"instruction": "a", "input": ["b"]}', "1: input is not text"),
    "a null in the context": ("jsonl", b'{"instruction": "a", "input": "\\u0000"}', "1: input holds a null"),
    "two contexts": (
        "jsonl", b'{"instruction": "a", "input": "b", "context": "c"}', "input and context are both there and differ",
    ),
    "the second line": ("jsonl", b'{"instruction": "a"}\n{]', "line 2: not JSON"),
    "no object": ("jsonl", b'{"instruction": "a"}\n3', "line 2: not an object with fields"),
    "a field twice": ("jsonl", b'{"instruction": "a", "instruction": "b"}', "1: a field is given twice"),
    "deep": ("jsonl", b'{"instruction": "a", "x": ' + b"[" * 9999 + b"]" * 9999 + b"}", "1: "),
    "a long number": ("jsonl", b'{"instruction": "a", "x": ' + b"1" * 9999 + b"}", "1: a number is too long"),
    "no messages": ("jsonl", b'{"messages": []}', "1: a conversation without messages"),
    "half of gzip": ("jsonl.gz", gzip.compress(b'{"instruction": "a"}')[:-9], "not a whole gzip file"),
    "a header alone": ("csv", "質問,文脈\n".encode(), "no questions in it"),
    "a header without questions": ("csv", "番号,件名\n1,a\n".encode(), "'data.columns={instruction: 番号}'"),
    "two columns of questions": ("csv", "質問,問い\na,b\n".encode(), "which column is the instruction"),
    "a column twice": ("csv", "質問,部署,部署\na,b,c\n".encode(), "2 columns are called 部署"),
    "columns without names": ("csv", "質問,,\na,,\n".encode(), "2 columns have no name"),
    "more cells": ("csv", "質問,文脈\na,b,c\n".encode(), "row 2: more cells than columns"),
    "no table": ("xlsx", b"PK", "not an Excel workbook"),
    "another kind": ("txt", b"a", "not a data file"),
}  # fmt: skip


@pytest.mark.parametrize("name", QUESTIONS)
def test_bad_questions_are_one_line_before_anything_is_loaded(program, tmp_path: Path, name: str) -> None:
    suffix, content, words = QUESTIONS[name]
    path = tmp_path / f"questions.{suffix}"
    path.write_bytes(content)
    result = program("infer", tmp_path / "absent", "--questions", path, "--output", tmp_path / "answers.jsonl")
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {path}")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


@pytest.mark.parametrize("place", PLACES)
def test_questions_that_are_no_file_are_one_line(tmp_path: Path, place: str) -> None:
    path = PLACES[place](tmp_path / "questions.jsonl")
    with pytest.raises(UserError, match=r"questions\.jsonl"):
        read_questions(path)


def test_questions_are_read_to_the_letter(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    questions = [{"instruction": text, "input": text, "id": [text]} for text in TEXTS.values()]
    path.write_bytes(b"\xef\xbb\xbf" + lines(*questions).replace(b"}\n", b"}\r\n"))
    asked = read_questions(path)
    assert [question.columns for question in asked] == questions


def test_rows_that_ask_nothing_among_others_are_named_and_keep_their_place(tmp_path: Path, capsys) -> None:
    path = tmp_path / "questions.csv"
    path.write_text("No.,質問,補足\n1,首都は？,\n2,,東京\n3,山は？,富士山\n", encoding="cp932")
    asked = read_questions(path)
    assert [(question.instruction, question.input) for question in asked] == [
        ("首都は？", ""),
        ("", ""),
        ("山は？", "富士山"),
    ]
    assert asked[1].columns == {"No.": "2", "質問": "", "補足": "東京"}
    said = capsys.readouterr().err
    assert f"warning: {path}: row 3: empty 質問; it gets no answer" in said
    assert "read as 質問 → instruction, 補足 → input (CSV in cp932), 3 questions" in said


def test_a_file_asks_what_it_would_train(tmp_path: Path) -> None:
    """Whatever the schema: the question and its context are the same through both doors."""
    squad = {"data": [{"paragraphs": [{"context": "文", "qas": [{"question": "問", "answers": [{"text": "答"}]}]}]}]}
    files: dict[str, object] = {
        "dolly": ROW,
        "english": {"instruction": "問", "context": "文", "response": "答", "category": "closed_qa"},
        "question and answer": {"question": "問", "answer": "答"},
        "answers": {"question": "問", "context": "文", "answers": {"text": ["答", "他"], "answer_start": [0, 1]}},
        "answers as text": {"question": "問", "context": "文", "answers": "答"},
        "answers as a list": {"question": "問", "context": "文", "answers": ["答"]},
        "prompt": {"prompt": "問", "completion": "答"},
        "messages": {"messages": [{"role": "user", "content": "問"}, {"role": "assistant", "content": "答"}]},
        "ShareGPT": {"conversations": [{"from": "human", "value": "問"}, {"from": "gpt", "value": "答"}]},
        "prompt of messages": {
            "prompt": [{"role": "user", "content": "問"}], "completion": [{"role": "assistant", "content": "答"}],
        },
        "text": {"text": f"{ALPACA_JA.render('問', '文')}答"},
        "a template in a prompt": {"prompt": ALPACA_JA.render("問", "文"), "completion": "答"},
        "Japanese": {"質問": "問", "補足情報": "文", "回答": "答", "分類": "製品"},
        "SQuAD": squad,
    }  # fmt: skip
    for name, row in files.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(row if row is squad else [row, row], ensure_ascii=False), encoding="utf-8")
        learned = [(example.instruction, example.input) for example in examples_of(load_data(str(path)).rows)]
        assert [(question.instruction, question.input) for question in read_questions(path)] == learned, name


def test_a_question_keeps_the_turns_before_it(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    turns = [("system", "短く"), ("user", "首都は?"), ("assistant", "東京"), ("user", "人口は?")]
    path.write_bytes(
        lines({"messages": [{"role": role, "content": text} for role, text in turns]}, {"prompt": "山は?"})
    )
    talk, single = read_questions(path)
    assert (talk.instruction, talk.history) == ("人口は?", tuple(turns[:3]))
    assert (single.instruction, single.history) == ("山は?", ())


def test_what_is_recorded_behind_a_question_does_not_refuse_it(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    ends: list[dict[str, Any]] = [
        {"content": "答", "weight": 0}, {"content": ""}, {"content": None, "tool_calls": [{"id": "1"}]},
    ]  # fmt: skip
    before = [{"role": "user", "content": "首都は?"}, {"role": "assistant", "content": "東京", "weight": 0}]
    question = {"role": "user", "content": "人口は?"}
    path.write_bytes(lines(*({"messages": [*before, question, {"role": "assistant"} | end]} for end in ends)))
    history = (("user", "首都は?"), ("assistant", "東京"))
    assert [(asked.instruction, asked.history, asked.problem) for asked in read_questions(path)] == [
        ("人口は?", history, None)
    ] * 3


def test_what_parquet_has_and_json_has_not_is_passed_on_as_text(tmp_path: Path) -> None:
    path = tmp_path / "questions.parquet"
    more = {"day": datetime.date(2026, 4, 1), "price": [decimal.Decimal("1.50")], "picture": b"\xff"}
    path.write_bytes(parquet({"question": "首都は?"} | more))
    (asked,) = read_questions(path)
    assert asked.columns == {"question": "首都は?", "day": "2026-04-01", "price": ["1.50"], "picture": "/w=="}


def test_a_question_beside_what_is_no_unicode_is_named_and_the_others_are_asked(tmp_path: Path, capsys) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_bytes(lines({"question": "a"}) + b'{"question": "b", "note": "\\ud800"}\n')
    assert [(asked.instruction, asked.columns) for asked in read_questions(path)] == [
        ("a", {"question": "a"}), ("", {"question": "b", "note": "?"}),
    ]  # fmt: skip
    assert "line 2: cannot be written again as JSON: it is not valid Unicode" in capsys.readouterr().err


def test_the_columns_of_a_run_are_those_of_its_questions(tmp_path: Path) -> None:
    path = tmp_path / "questions.csv"
    path.write_text("件名,質問,文脈\nb,a,c\n", encoding="utf-8")
    columns = {"instruction": "件名", "output": "対応", "category": "部署"}
    (question,) = read_questions(path, columns)
    assert (question.instruction, question.input) == ("b", "c")
    with pytest.raises(UserError, match="no column 題 among 件名, 質問, 文脈"):
        read_questions(path, {"instruction": "題"})


def test_a_session_goes_on_after_words_that_are_no_text(program, trained_run, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a\udce3\n\n首都は?\na\0b\n首都は?\n\n"))
    result = program("infer", trained_run, "generation.max_new_tokens=2")
    assert result.returncode == 2
    assert "2 of 3 questions got no answer" in result.stderr
    assert result.stderr.count(": that is not text in the terminal's encoding") == 2
    assert result.stderr.count("note: cut off after 2 tokens") == 1


def laughs(kind: str) -> str:
    """Nine steps, each ten times the one before: a thousand million values."""
    steps = ["a0: &a0 {x: y}" if kind == "map" else "a0: &a0 [ha]"]
    for n in range(1, 10):
        inner = ", ".join(f"{'k' + str(i) + ': ' if kind == 'map' else ''}*a{n - 1}" for i in range(10))
        steps.append(f"a{n}: &a{n} {'{' if kind == 'map' else '['}{inner}{'}' if kind == 'map' else ']'}")
    return "\n".join([*steps, "lora: {target_modules: *a9}\n"])


CONFIGURATIONS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a mapping of sections"),
    "a comment": (b"# nothing\n", "not a mapping of sections"),
    "a list": (b"- model\n", "not a mapping of sections"),
    "a text": (b"model", "not a mapping of sections"),
    "two documents": (b"a: 1\n---\nb: 2\n", "line 2: but found another document"),
    "a tab": (b"model:\n\tbase: x\n", "line 2: found character '\\t' that cannot start any token"),
    "a null byte": (b"model: {base: a\0b}\n", "not YAML: "),
    "a null escape": (b'model: {base: "a\\0b"}\n', "model.base: is not text"),
    "a surrogate escape": (b'model: {base: "\\ud800"}\n', "model.base: is not text"),
    "an escape character": (b"model: {base: \x1b[31m}\n", "not YAML: "),
    "UTF-16": ("model: {base: モデル}\n".encode("utf-16"), "not UTF-8 text (byte 0)"),
    "Shift-JIS": ("model: {base: モデル}\n".encode("shift_jis"), "not UTF-8 text"),
    "gzip": (gzip.compress(b"model: {base: x}\n"), "not UTF-8 text"),
    "a key twice": (b"model: {base: x}\nmodel: {base: y}\n", "line 2: model is given twice"),
    "a key twice below": (b"model: {base: x, base: y}\n", "line 1: base is given twice"),
    "a python object": (b"model: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
    "a python name": (b"model: {base: !!python/name:os.system }\n", "could not determine a constructor"),
    "a python module": (b"model: !!python/module:antigravity\n", "could not determine a constructor"),
    "a python tuple": (b"model: !!python/tuple [1]\n", "could not determine a constructor"),
    "an own tag": (b"model: !run {base: x}\n", "could not determine a constructor"),
    "a wrong bool": (b"model: {trust_remote_code: !!bool maybe}\n", "cannot be read as bool"),
    "a wrong timestamp": (b"model: {base: !!timestamp soon}\n", "could not determine a constructor"),
    "a wrong integer": (b"lora: {r: !!int many}\n", "cannot be read as int"),
    "a wrong mapping": (b"model: !!map [a, b]\n", "not YAML: "),
    "a wrong binary": (b"model: {base: !!binary '=A'}\n", "line 1: "),
    "a set": (b"model: !!set {base}\n", "could not determine a constructor"),
    "a list as key": (b"? [a, b]\n: 1\n", "line 1: found unhashable key"),
    "a mapping as key": (b"? {a: 1}\n: 1\n", "line 1: found unhashable key"),
    "a long integer": (b"lora: {r: " + b"9" * 5000 + b"}\n", "cannot be read as int"),
    "a million laughs": (laughs("list").encode(), "too many values, with its aliases written out"),
    "a million mappings": (laughs("map").encode(), "too many values, with its aliases written out"),
    "an endless list": (b"lora: {target_modules: &a [*a]}\n", "too many values, with its aliases written out"),
    "an endless mapping": (b"lora: &a {r: *a}\n", "too many values, with its aliases written out"),
    "many values": (b"lora: {target_modules: [" + b"a," * 20_000 + b"]}\n", "too many values"),
    "deep": (b"lora: " + b"[" * 20_000, "nested too deeply"),
    "an alias of nothing": (b"lora: *absent\n", "line 1: found undefined alias 'absent'"),
    "an open quotation": (b"model: {base: 'x}\n", "line 2: found unexpected end of stream"),
    "an open bracket": (b"model: [a\n", "line 2: "),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_bad_configuration_is_one_line(tmp_path: Path, name: str) -> None:
    content, words = CONFIGURATIONS[name]
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        load_config(path)
    said = str(error.value)
    assert said.startswith(f"{path}:")
    assert words in said
    assert len(said) < 2500
    assert "\n" not in said


@pytest.mark.parametrize("place", PLACES)
def test_a_configuration_that_is_no_file_is_one_line(tmp_path: Path, place: str) -> None:
    path = PLACES[place](tmp_path / "bad.yaml")
    with pytest.raises(UserError, match=r"bad\.yaml"):
        load_config(path)


def test_aliases_in_reason_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_bytes(
        b"\xef\xbb\xbfmodel: {base: x}\r\ndata: {path: y}\r\ntraining: {total_batch_size: 2}\r\n"
        b"lora: {target_modules: &t [a, b], exclude_modules: *t}\r\n"
    )
    config = load_config(path)
    assert config.lora["target_modules"] == config.lora["exclude_modules"] == ["a", "b"]
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert load_config(path) == config


@pytest.mark.parametrize(
    "override",
    ["lora.r=!!python/object/apply:os.getcwd []", "data.path=\0", "data.path=\udce3", f"data={laughs('list')}"],
)
def test_a_bad_override_is_one_line(tmp_path: Path, override: str) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(
        yaml.safe_dump({"model": {"base": "x"}, "data": {"path": "y"}, "training": {"total_batch_size": 2}})
    )
    with pytest.raises(UserError) as error:
        load_config(path, [override])
    assert str(error.value).startswith("command line: ")


PREDICTION = {
    "system": "base", "example": ROW | {"answers": []}, "prompt": "", "text": "東京", "finish_reason": "eos",
    "prompt_tokens": 1, "output_tokens": 1, "generation": {},
}  # fmt: skip

PREDICTIONS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "holds no prediction"),
    "cut off": (lines(PREDICTION)[:-30], ":1: the last line is cut off"),
    "another kind of row": (lines(ROW), ":1: not a prediction: no field system"),
    "a field twice": (lines(PREDICTION)[:-2] + b', "text": "x"}\n', ":1: not a prediction: a field is given twice"),
    "terminal escapes as a field": (lines(PREDICTION | {"\x1b]0;x\x07\n\u202e": 1}), ":1: not a prediction: unknown"),
    "a key of 10 MB": (lines(PREDICTION | {"k" * 10**7: 1}), ":1: not a prediction: unknown field kkk"),
    "a long number": (lines(PREDICTION)[:-2] + b', "x": ' + b"1" * 5000 + b"}\n", ":1: not a prediction: "),
    "deep": (b'{"system": ' + b"[" * 100_000 + b"\n", ":1: not a prediction: "),
    "UTF-16": (json.dumps(PREDICTION).encode("utf-16"), ":1: not UTF-8"),
    "gzip": (gzip.compress(lines(PREDICTION)), ":1: not UTF-8"),
}


@pytest.mark.parametrize("name", PREDICTIONS)
def test_bad_predictions_are_one_line(program, tmp_path: Path, name: str) -> None:
    content, words = PREDICTIONS[name]
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(content)
    result = program("eval.__main__", "score", path)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith(f"error: {path}")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert len(result.stderr) < 2500
    assert not set(result.stderr) & {"\x1b", "\x07", "\u202e"}


@pytest.mark.parametrize("place", PLACES)
def test_predictions_that_are_no_file_are_one_line(tmp_path: Path, place: str) -> None:
    path = PLACES[place](tmp_path / "predictions.jsonl")
    with pytest.raises(UserError, match=r"predictions\.jsonl"):
        list(read_predictions(path))


MANIFESTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not JSON"),
    "cut off": (b'{"status": "fin', "not JSON"),
    "a list": (b"[]", "is not the manifest of a run"),
    "deep": (b"[" * 100_000, "not JSON"),
    "UTF-16": ('{"status": "finished"}'.encode("utf-16"), "not UTF-8"),
    "an identity that is none": (b'{"status": "running", "started": "1", "identity": []}', "identity: "),
    "another status": (b'{"status": "\\u001b[2J", "identity": {}, "environment": {}}', "status: "),
}


@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize("command", ["infer", "eval.__main__", "sft.export.__main__"])
def test_a_bad_manifest_is_one_line(program, tmp_path: Path, command: str, name: str) -> None:
    content, words = MANIFESTS[name]
    (tmp_path / "manifest.json").write_bytes(content)
    result = program(command, tmp_path)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learned": {"../../../etc/passwd": "0" * 64}}, "learned.../../../etc/passwd"),
        ({"learned": {"adapter_config.json": 1}}, "learned.adapter_config.json"),
        ({"device": "cpu\n# 見出し"}, "device: "),
        ({"finished": None}, "finished: "),
        ({"environment": {"python": "3", "packages": {"](https://example.com)": "1"}}}, "environment.packages"),
    ],
)
def test_what_a_manifest_says_is_checked_before_it_is_shown_or_opened(
    program, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    hashes = dict.fromkeys(("data", "tokenizer", "template", "split"), "0" * 64)
    rows = {"train": 1, "validation": 0, "test": 0, "dropped": 0, "truncation": {}}
    manifest = {
        "status": "finished",
        "identity": {**hashes, "processes": 1},
        "rows": rows,
        "steps": 1,
        "started": "2026-01-01",
    }
    manifest |= {"environment": {"python": "3.11.7", "packages": {}}, "device": "cpu", "seconds": 1.0}
    manifest |= {"finished": "2026-01-01T00:00:00.000000+00:00", "learned": {}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | change))
    result = program("infer", tmp_path)
    assert result.returncode == 2
    assert "is not the manifest of a run" in result.stderr
    assert words in result.stderr
