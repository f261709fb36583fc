"""The words of a sweep are YAML like every other setting: a value, an axis, or one clear line."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from eval.answering.settings import read_grid, split_axes
from sft.config.repetition_penalty import GRID
from sft.system.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a grid needs of a finished run."""
    monkeypatch.setattr("eval.answering.settings.require_usable", lambda run: None)
    shutil.copy(ROOT / "configs" / "tiny.yaml", tmp_path / "config.yaml")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("[3e-1, 0.7]", [0.3, 0.7]),  # YAML 1.1 reads a text
        ("[1E-1]", [0.1]),
        ("[1e-5]", [0.00001]),
        ("[0, 1]", [0, 1]),
        (" [0.1,\n 0.2]  # two", [0.1, 0.2]),
        ("- 0.1\n- 0.2", [0.1, 0.2]),
        ("[&a 0.5, *a]", [0.5, 0.5]),
        ("!!seq [0.1]", [0.1]),
    ],
)
def test_an_axis_is_a_list_in_yaml(run: Path, text: str, values: list[Any]) -> None:
    grid = read_grid(run, [f"generation.temperature={text}"])
    assert [setting["temperature"] for setting in grid.settings] == values
    assert grid.overrides == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[010]", 'expected a finite number, got "010"'),
        ("[0x10]", 'expected a finite number, got "0x10"'),
        ("[1_000]", 'expected a finite number, got "1_000"'),
        ("[2024-01-01]", 'expected a finite number, got "2024-01-01"'),
        ("['0.7']", 'expected a finite number, got "0.7"'),
        ("[yes]", 'expected a finite number, got "yes"'),
        ("[true]", "expected a finite number, got true"),
        ("[null]", "expected a finite number, got null"),
        ("[.nan]", "expected a finite number, got NaN"),
        ("[1e400]", "expected a finite number, got Infinity"),
        ("[{a: 1}]", 'expected a finite number, got {"a": 1}'),
        ("{a: 1}", 'expected a finite number, got {"a": 1}'),
        ("[[1, 2]]", "expected a finite number, got [1, 2]"),
        ("[0.1, [0.2]]", "expected a finite number, got [0.2]"),
        (f"{'[' * 60}{']' * 60}", "expected a finite number, got [[["),
        ("[" * 5000, "not YAML: nested too deeply"),
        ("[]", "the list is empty"),
        ("[", "line 1: expected the node content"),
        ("[1, 2", "line 1: expected ',' or ']'"),
        ("[0.1]]", "line 1: expected '<document start>'"),
        ("[0.1,,0.2]", "line 1: expected the node content"),
        ("[0.1]\nx: 1", "line 2: expected '<document start>'"),
        ("[\t0.1]", "line 1: found character '\\t'"),
        ("[{? [a] : b}]", "line 1: found unhashable key"),
        ("[<<]", "line 1: could not determine a constructor"),
        ("[&a [x, *a]]", "line 1: too many values, with its aliases written out"),
        ("[!!float x]", "line 1: 'x' cannot be read as float"),
        ("[!!binary aGk=]", "line 1: could not determine a constructor"),
        ("[!!python/object/apply:os.system [x]]", "line 1: could not determine a constructor"),
        ("[\x00]", "is not text"),
        ('["\\0"]', "is not text: it holds a null character"),
        ('["\\ud800"]', "is not text: it holds a null character, or bytes that are not UTF-8"),
        ("[\ud800]", "is not text in the terminal's encoding"),
    ],
)
def test_odd_values_are_one_clear_line(run: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        read_grid(run, [f"generation.temperature={text}"])
    assert str(error.value).startswith("command line: generation.temperature: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("generation.temperature", "'generation.temperature' is not section.key=value"),
        ("=[1]", "'=[1]' is not section.key=value"),
        ("generation.=[1]", "'generation.=[1]' is not section.key=value"),
        ("generation=[1]", "generation is not a mapping; set it as a whole"),
        ("generation.a.b=[1]", "generation.a: unknown key"),
        ("generation.qqq=[1]", "generation.qqq: unknown key"),
        ("GENERATION.top_k=[1]", "GENERATION: unknown section"),
        ("eval.seed=[1]", "eval.seed: expected an integer, got [1]"),
        ("generation.top_k=[1, 2.5]", "generation.top_k: expected an integer, got 2.5"),
        ("generation.repetition_penalty_scope=[generate]", "did you mean generated?"),
        ("generation.do_sample=[true]", "generation.do_sample: not set here; use generation.temperature"),
    ],
)
def test_a_wrong_word_is_named(run: Path, word: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        read_grid(run, [word])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_list_of_generation_holds_for_the_whole_grid() -> None:
    words = ["generation.top_p=0.5", "generation.top_k=[10, 20]", "eval.seed=3", "lora.target_modules=[q_proj]"]
    assert split_axes(words) == ({"top_k": [10, 20]}, [words[0], *words[2:]])
    assert split_axes(words[2:3]) == (GRID, words[2:3])
