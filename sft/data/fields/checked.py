"""A row's fields, checked: what every later stage may rely on."""

import json
from typing import Any

from sft.data.fields.cells import NOTHING, TEMPLATE, CellNotes, check_text, clean_text, is_blank, is_empty, whole_number
from sft.data.fields.prompts_inside import holds_prompt
from sft.data.fields.row_fields import fields_of
from sft.data.fields.schemas import Schema
from sft.data.files.raw import BadRow


def checked_row(row: Any, schema: Schema, place: str, notes: CellNotes) -> dict[str, Any]:
    """The raw row: index (None where it has none), the texts, category ("" for none), history and answers.

    Cells that were repaired or look wrong are noted. Raises BadRow for a row that cannot be used.
    """
    fields = fields_of(row, schema)
    answers = _answers(fields["answers"])
    if is_empty(fields["output"]) and answers:
        fields["output"] = answers[0]
    values = {}
    for field in ("instruction", "input", "output", "category", "system"):
        name = schema.spelt(field)
        required = field == "instruction" or (field == "output" and not schema.asks)
        value = whole_number(fields[field]) if field == "category" else fields[field]
        if value is None and required:
            there = any(column in row for column in schema.columns.get(field, ()))
            raise BadRow(f"{name} is null" if there else f"no {'answer' if field == 'output' else field}")
        said = isinstance(value, str) and value and is_empty(value)
        if is_empty(value) and required:
            raise BadRow(f"empty {name} ({value})" if said else f"empty {name}")
        if said:
            notes.add(NOTHING, place, value)
        text = "" if is_empty(value) else value
        check_text(text, name)
        text = "" if is_blank(text) else clean_text(text, name, required, place, notes)
        if required and is_blank(text):
            raise BadRow(f"empty {name}")
        values[field] = "" if is_blank(text) else text
    if holds_prompt(values["instruction"]):
        notes.add(TEMPLATE, place, values["instruction"])
    history = _turns(fields["history"], values.pop("system"), place, notes)
    values["category"] = " ".join(values["category"].split())
    return values | {"index": _index(fields["index"]), "history": history, "answers": answers}


def _turns(history: list[list[str]], system: str, place: str, notes: CellNotes) -> list[list[str]]:
    """Earlier turns, checked and cleaned as the fields are; `system` is what a column of its own holds."""
    turns = [["system", system]] if system else []
    for role, content in history:
        if role == "system" and system:
            if content.strip() == system.strip():
                continue
            raise BadRow("a system message beside a column of them")
        check_text(content, "an earlier message")
        text = clean_text(content, "an earlier message", False, place, notes)
        if not is_blank(text):
            turns.append([role, text])
        elif role != "system":
            raise BadRow("a conversation with an empty message")
    return turns


def _index(value: Any) -> str | None:
    """A row's own index as text; None for what is none: no text and no whole number."""
    text = whole_number(value)
    if not isinstance(text, str) or is_empty(text):
        return None
    check_text(text, "index")
    return text.strip() or None


def _answers(value: Any) -> list[str]:
    """The accepted answers: a list of texts, one text, or SQuAD's mapping; each once."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):  # as tables hold it
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadRow("answers is neither a text nor a list of texts") from None
    if isinstance(value, dict):
        value = value.get("text")
    if is_empty(value):
        return []
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, list):
        texts = [text.get("text") if isinstance(text, dict) else text for text in texts]
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise BadRow("answers is not a list of texts")
    for text in texts:
        check_text(text, "answers")
    return list(dict.fromkeys(texts))
