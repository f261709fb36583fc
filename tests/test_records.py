"""Reading predictions.jsonl: every way in which a file can be wrong gives one line that names file and line."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from eval.predictions import Prediction, read_predictions, write_predictions
from sft.data.records import Example, category_name
from sft.system.errors import UserError

GOOD = Prediction(
    "base",
    Example("1", "首都は？", "", "東京", "open_qa", answers=("東京", "東京都")),
    "首都は？\n",
    "東京\u2028です",
    "eos",
    5,
    3,
    {"repetition_penalty": 1.2, "stop": ["。"], "seed": None},
    reference_nll=2,
)


def line(**changes: Any) -> bytes:
    """GOOD as a line, with fields changed (`example` by field), or left out where the value is ...."""
    row = dataclasses.asdict(GOOD)
    row["example"] |= changes.pop("example", {}) if isinstance(changes.get("example", {}), dict) else {}
    row |= changes
    for part in (row, row["example"]):
        for name in [name for name, value in part.items() if value is ...] if isinstance(part, dict) else []:
            del part[name]
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    other = dataclasses.replace(GOOD, system="tuned", reference_nll=float("nan"), training_overlap=3)
    write_predictions([GOOD, other], path)
    first, second = read_predictions(path)
    assert first == GOOD
    assert second.system == "tuned"
    assert second.example.references == ("東京", "東京都")


def test_blank_lines_a_byte_order_mark_and_no_final_line_break_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + line() + b"\n \n" + line(system="tuned").rstrip(b"\n"))
    assert [prediction.system for prediction in read_predictions(path)] == ["base", "tuned"]


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        (line() + line(system="b")[:-20], 2, "the last line is cut off; delete it"),
        (line() + line(system="b")[: line(system="b").index("東".encode()) + 1], 2, "the last line is cut off"),
        (line()[:-20] + b"\n" + line(), 1, "not JSON: "),
        (line() + "東京\n".encode("shift_jis"), 2, "not UTF-8; "),
        (line() + "東京".encode("shift_jis") + b"x", 2, "not UTF-8; "),
        (b"[" * 100_000 + b"\n", 1, "not a prediction: "),
        (b"[]\n", 1, "the line is [], not an object"),
        (b"\n1\n", 2, "the line is 1, not an object"),
        (line(text=...), 1, "no field text"),
        (line(example={"category": ...}), 1, "no field example.category"),
        (line(example={"category": None}), 1, "example.category is null, not text"),
        (line(example={"group": "quiz"}), 1, "example.group is \"quiz\": input should be 'open', 'context' or 'other'"),
        (line(example={"group": None}), 1, "example.group is null: input should be 'open', 'context' or 'other'"),
        (line(example={"history": "user"}), 1, 'example.history is "user", not a list'),
        (line(example={"history": [["user"]]}), 1, "no field example.history.0.1"),
        (line(txt="a"), 1, "unknown field txt; known: "),
        (line(example=None), 1, "example is null, not an object"),
        (line(text=None), 1, "text is null, not text"),
        (line(example={"index": 1}), 1, "example.index is 1, not text"),
        (line(example={"answers": "東京"}), 1, 'example.answers is "東京", not a list'),
        (line(example={"answers": ["東京", 1]}), 1, "example.answers.1 is 1, not text"),
        (line(prompt_tokens=1.5), 1, "prompt_tokens is 1.5, not a whole number"),
        (line(prompt_tokens=True), 1, "prompt_tokens is true, not a whole number"),
        (line(context_shortened=1), 1, "context_shortened is 1, not true or false"),
        (line(reference_nll="1"), 1, 'reference_nll is "1", not a number'),
        (line(training_overlap=1.5), 1, "training_overlap is 1.5, not a whole number"),
        (line(training_overlap=-1), 1, "training_overlap is -1: input should be greater than or equal to 0"),
        (line(reference_nll=-0.5), 1, "reference_nll: -0.5 is not between 0 and 1,000,000,000"),
        (line(reference_nll=10**400), 1, "reference_nll is 10000000000000000000"),
        (
            line(reference_tokens_in_prompt=1.5),
            1,
            "reference_tokens_in_prompt is 1.5: input should be less than or equal to 1",
        ),
        (line(reference_tokens_in_prompt=float("nan")), 1, "reference_tokens_in_prompt is NaN: input should be"),
        (line(finish_reason="halt"), 1, "finish_reason is \"halt\": input should be 'eos', 'heading', 'stop'"),
        (line(finish_reason=[]), 1, "finish_reason is []: input should be"),
        (line(generation=[]), 1, "generation is [], not an object"),
        (line(generation={"a": float("nan")}), 1, "not JSON compliant"),
        (line() + line(system="b") + line(), 3, "row '1' of system 'base' appears twice, first in line 1"),
    ],
)
def test_a_wrong_file_is_one_line_with_its_place(tmp_path: Path, content: bytes, place: int, message: str) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        list(read_predictions(path))
    assert str(error.value).startswith(f"{path}:{place}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_a_file_without_predictions(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match="holds no prediction"):
        list(read_predictions(path))
    with pytest.raises(UserError, match="is not a file"):
        list(read_predictions(tmp_path))


def test_the_output_is_always_a_reference() -> None:
    assert Example("1", "a", "", "b", "", answers=("c", "b")).references == ("b", "c")
    assert Example("1", "a", "", "b", "").references == ("b",)


def test_words_for_no_category_are_none() -> None:
    assert [category_name(name) for name in ("no category", "No Category", "カテゴリなし", "なし")] == [
        "",
        "",
        "",
        "なし",
    ]
