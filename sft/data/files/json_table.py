"""JSON in every shape that rows come in: one object a line, an array, an object of columns, SQuAD's own."""

import json
import re
from collections.abc import Collection, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from sft.data.files.encodings import UTF8, Encoding, encoding_of, opened, text_lines
from sft.data.files.raw import BadRow, IsHeader, Table
from sft.data.files.sources import suffix
from sft.system.errors import UserError
from sft.system.files import FIELD_TWICE, parse_json

_FULL = re.compile(r"\S")


def json_table(path: Path, is_header: IsHeader) -> Table:
    """The rows in a file, in whatever of JSON's shapes. Raises UserError for what is none of them."""
    encoding = encoding_of(path)
    head = _head(path, encoding)
    if not head:
        return Table(f"nothing, in {encoding.name}", None, lambda wanted: iter(()))
    if _looks_like_lines(head):
        return Table(f"JSON lines in {encoding.name}", None, partial(_line_rows, path, encoding))
    with opened(path) as file:
        content = file.read()
    try:
        value = _value(content.decode(encoding.codec).lstrip("\ufeff"))
    except (ValueError, RecursionError) as error:
        if suffix(path) == ".jsonl":
            return Table(f"JSON lines in {encoding.name}", None, partial(_line_rows, path, encoding))
        reason = BadRow(FIELD_TWICE) if str(error) == FIELD_TWICE else error
        table = "" if head[0].lstrip()[0] in "[{" else ", or call it .csv or .tsv where it is a table"
        raise UserError(
            f"{path}: not JSON in {encoding.name}: {reason}; write it again with a program{table}"
        ) from None
    shape, rows = _rows_of(path, value, is_header)
    return Table(f"{shape} in {encoding.name}", None, partial(_numbered, rows))


def _value(text: str) -> Any:
    """The value in a text, or the list of several objects that follow one another. Raises what `parse_json` raises."""
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
        objects, end = [], 0
        while found := _FULL.search(text, end):
            end = json.JSONDecoder().raw_decode(text, found.start())[1]
            objects.append(parse_json(text[found.start() : end]))
        if not all(isinstance(value, dict) for value in objects):
            raise
    return objects


def _head(path: Path, encoding: Encoding) -> list[str]:
    """The first two lines that hold anything."""
    if encoding.is_wide:
        with text_lines(path, encoding, newline="\n") as lines:
            return list(islice((line for line in lines if line.strip()), 2))
    with opened(path) as file:  # line by line: a damaged one is not the end of ISO-2022-JP
        decoded = (line.decode(encoding.codec, "replace").removeprefix("\ufeff") for line in file)
        return list(islice((line for line in decoded if line.strip()), 2))


def _looks_like_lines(head: list[str]) -> bool:
    """Whether a file is an object a line, from its first two lines."""
    if len(head) < 2 or head[0].lstrip()[0] == "[":
        return False
    return any(isinstance(_parsed(line), dict) for line in head)


def _line_rows(path: Path, encoding: Encoding, wanted: Collection[str] | None) -> Iterator[tuple[str, Any]]:
    if encoding.is_wide:
        with text_lines(path, encoding, newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"line {number}", _unwrapped(_parsed(line))
        return
    with opened(path) as file:
        for number, raw in enumerate(file, start=1):
            if raw.strip():
                yield f"line {number}", _unwrapped(_parse_line(raw, encoding))


def _parse_line(line: bytes, encoding: Encoding = UTF8) -> Any:
    try:
        text = line.decode(encoding.codec)
    except UnicodeDecodeError:
        return BadRow(encoding.not_text(line))
    return _parsed(text.removeprefix("\ufeff"))  # at the head of each file that was joined


def _parsed(text: str) -> Any:
    try:
        return parse_json(text)
    except json.JSONDecodeError:
        return BadRow("not JSON")
    except RecursionError:
        return BadRow("nested too deeply")
    except ValueError as error:
        return BadRow(FIELD_TWICE if str(error) == FIELD_TWICE else "a number is too long")


def _numbered(rows: Iterator[Any] | list[Any], wanted: Collection[str] | None) -> Iterator[tuple[str, Any]]:
    for number, row in enumerate(rows, start=1):
        yield f"row {number}", _unwrapped(row)


def _unwrapped(row: Any) -> Any:
    """A row without what the hub's viewer wraps around it."""
    return row["row"] if isinstance(row, dict) and {"row_idx", "row"} <= row.keys() else row


def _rows_of(path: Path, value: Any, is_header: IsHeader) -> tuple[str, list[Any]]:
    """The shape of a JSON value, and its rows."""
    if isinstance(value, list):
        return "JSON array", value
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds {type(value).__name__}, not a list of rows")
    if value.keys() >= {"columns", "data"} and all(map(_is_list_of_lists, (value["data"], [value["columns"]]))):
        return "JSON columns", [_of_cells(value["columns"], cells) for cells in value["data"]]
    if rows := _rows_by_name(value, is_header):
        return "JSON rows by name", rows
    if columns := _columns(value):
        count = {len(cells) for cells in columns.values()}
        if len(count) > 1:
            lengths = ", ".join(f"{name} {len(cells)}" for name, cells in columns.items())
            raise UserError(f"{path}: its columns have different numbers of cells ({lengths}); write it again")
        names = list(columns)
        return "JSON columns", [dict(zip(names, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    if is_header(list(value)) or any(isinstance(inner, list) and _are_messages(inner) for inner in value.values()):
        return "a JSON object", [value]
    lists = {name: inner for name, inner in value.items() if _holds_rows(inner)}
    if "rows" in lists:
        lists.pop("features", None)  # of the hub's viewer, which says there what its columns are
    if len(lists) > 1:
        raise UserError(f"{path}: holds several lists of rows ({', '.join(lists)}); keep one of them in a file")
    for name, rows in lists.items():
        if all("paragraphs" in row for row in rows):
            return "SQuAD's JSON", list(_squad_rows(rows))
        return f"JSON array {name}", rows
    if list(value.values()) == [[]] and suffix(path) == ".json":  # one line of .jsonl is a row
        return "JSON array", []
    return "a JSON object", [value]


def _is_list_of_lists(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(cells, list) for cells in value)


def _of_cells(names: list[Any], cells: list[Any]) -> Any:
    """A row of pandas' `orient="split"`."""
    if len(cells) != len(names):
        return BadRow("more cells than columns" if len(cells) > len(names) else "fewer cells than columns")
    return dict(zip(map(str, names), cells, strict=True))


def _rows_by_name(value: dict[str, Any], is_header: IsHeader) -> list[Any] | None:
    """The rows of an object that has one a name, as pandas' `orient="index"` writes; None where it is none."""
    rows = list(value.values())
    if all(isinstance(row, dict) for row in rows) and any(is_header(list(row)) for row in rows):
        return rows
    inner = _same_keys(value)
    counted = all(map(str.isdigit, value)) and not all(map(str.isdigit, inner or ()))
    return rows if inner and counted else None


def _same_keys(value: dict[str, Any]) -> list[str] | None:
    """The keys that all of several mappings have; None where these are no such mappings."""
    inner = list(value.values())
    if not inner or not all(isinstance(cells, dict) and cells.keys() == inner[0].keys() for cells in inner):
        return None
    keys = list(inner[0])
    return keys if len(inner) > 1 or all(map(str.isdigit, keys)) else None


def _columns(value: dict[str, Any]) -> dict[str, list[Any]] | None:
    """The columns that an object is made of, as lists or, from pandas, as mappings; None where it is none."""
    columns = list(value.values())
    if _same_keys(value):
        return {name: list(cells.values()) for name, cells in value.items()}
    if any(columns) and all(isinstance(cells, list) and not _are_messages(cells) for cells in columns):
        return None if all(map(_holds_rows, columns)) else value
    return None


def _holds_rows(value: Any) -> bool:
    """Whether a value is a list of rows, and not the messages of one row."""
    objects = isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)
    return objects and not _are_messages(value)


def _are_messages(cells: list[Any]) -> bool:
    keys = cells[0].keys() if cells and isinstance(cells[0], dict) else ()
    return bool({"role", "from"} & {*keys}) and bool({"content", "value", "text", "tool_calls"} & {*keys})


def _squad_rows(articles: list[Any]) -> Iterator[Any]:
    """The questions of SQuAD 1.1 and 2.0, as flat rows."""
    for article in articles:
        for paragraph in article["paragraphs"] if isinstance(article["paragraphs"], list) else [None]:
            if not isinstance(paragraph, dict) or not isinstance(questions := paragraph.get("qas"), list):
                yield BadRow("a paragraph without questions")
                continue
            for question in questions:
                if not isinstance(question, dict):
                    yield BadRow("not an object with fields")
                    continue
                named = {"id": question.get("id"), "context": paragraph.get("context")}
                yield named | {"question": question.get("question"), "answers": question.get("answers")}
