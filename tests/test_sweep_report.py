"""The report of a sweep: the table, the interaction's sign, the figures, and wrong directories."""

import dataclasses
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from made_up import answers

from eval.predictions import Prediction, write_predictions
from eval.report.document import document
from eval.report.first_screen import Subject
from eval.report.names import setting_name
from eval.report.sweep import sweep_blocks
from eval.report.sweep_figures import _lines
from eval.scoring.score import score
from eval.scoring.sweep import Sweep, load_sweep, score_sweep, varying
from eval.sweep import read_sweep_results, report_sweep
from sft.page.blocks import Figure
from sft.page.html import render_html
from sft.system.errors import UserError

SETTINGS: list[dict[str, Any]] = [
    {"repetition_penalty": 1.0, "repetition_penalty_scope": "generated"},
    {"repetition_penalty": 5.0, "repetition_penalty_scope": "generated"},
    {"repetition_penalty": 5.0, "repetition_penalty_scope": "all"},
]


def answered() -> list[list[Prediction]]:
    """Right everywhere with the first two settings; with the third, context rows are wrong."""
    good = answers("tuned", 3, SETTINGS[0])
    harmed = [p if not p.example.input else q for p, q in zip(good, answers("tuned", 0), strict=True)]
    return [good, answers("tuned", 3, SETTINGS[1]), harmed]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    files = [f"predictions-{number:02}.jsonl" for number in range(3)]
    for name, setting, predictions in zip(files, SETTINGS, answered(), strict=True):
        same = [Prediction(**{f: getattr(p, f) for f in p.__slots__} | {"generation": setting}) for p in predictions]
        write_predictions(same, tmp_path / name)
    (tmp_path / "sweep.json").write_text(json.dumps({"settings": SETTINGS, "predictions": files}))
    return tmp_path


def test_a_sweep_is_scored_reported_and_found_again(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = directory / "sweep.html"
    report_sweep(directory, 200)
    found = read_sweep_results(directory)
    assert found is not None
    first, same, harmed = found.systems["tuned"].interaction
    assert first is None
    assert same.character_f1.mean == 0
    assert harmed.character_f1.mean > 0.2  # context lost more than open
    assert harmed.groups["open"].mean == 0
    assert harmed.groups["context"].mean == pytest.approx(harmed.character_f1.mean, abs=1e-5)
    assert "5.0, all" in capsys.readouterr().out
    assert "5.0, all" in (directory / "sweep.md").read_text()
    assert page.read_text().count("<svg") == 2
    before = page.read_bytes()
    report_sweep(directory, 200)
    assert page.read_bytes() == before


def test_the_dose_is_taken_where_context_is_worst(directory: Path) -> None:
    sweep = load_sweep(directory)
    found = score_sweep(sweep, 100)
    dose = found.systems["tuned"].dose
    assert (dose.first, dose.second) == (0, 2)
    assert len(dose.points) == 32
    assert [point[0] for point in dose.points] == sorted(point[0] for point in dose.points)
    assert sum(part.n for part in dose.bins) == 32
    assert {group for _, _, group in dose.points} == {"open", "context", "other"}
    assert all(lost == 0 for _, lost, group in dose.points if group == "open")


def test_a_sweep_of_an_earlier_version_is_read(directory: Path) -> None:
    report_sweep(directory, 50)
    now = read_sweep_results(directory)
    found = json.loads((directory / "sweep_results.json").read_text())
    del found["rows"]["under"]
    named = {"open": "open_qa", "context": "closed_qa", "other": "brainstorming"}
    for point in found["systems"]["tuned"]["dose"]["points"]:
        point[2] = named[point[2]]
    (directory / "sweep_results.json").write_text(json.dumps(found))
    then = read_sweep_results(directory)
    assert then.systems == now.systems
    assert then.rows.scopes() == now.rows.scopes()


def test_figures_of_the_sweep_are_xml(directory: Path) -> None:
    sweep = load_sweep(directory)
    figures = [block for block in sweep_blocks(score_sweep(sweep, 50)) if isinstance(block, Figure)]
    assert len(figures) == 2
    for figure in figures:
        ET.fromstring(figure.svg)
    assert "repetition penalty scope: all" in figures[0].svg


def test_the_runs_report_takes_the_sweep_in(directory: Path) -> None:
    report_sweep(directory, 50)
    predictions = [*answers("base", 1), *answers("tuned", 3)]
    results, sweep = score(predictions, resamples=50), read_sweep_results(directory)
    page = render_html(document(results, predictions, Subject("faq"), sweep))
    assert page.count("<svg") == 6
    assert "Not swept yet" not in page


def test_a_penalty_of_one_stands_on_every_line() -> None:
    key, ticks, lines = _lines(SETTINGS)
    assert key == "repetition_penalty"
    assert ticks == ["1", "5"]
    assert lines == {
        "repetition penalty scope: generated": [(0, 0), (1, 1)],
        "repetition penalty scope: all": [(0, 0), (1, 2)],
    }


def test_other_grids_have_an_axis_too() -> None:
    temperatures = [{"temperature": 0.7, "top_k": 40}, {"temperature": 0.2, "top_k": 40}]
    assert _lines(temperatures) == ("temperature", ["0.2", "0.7"], {"every setting": [(0, 1), (1, 0)]})
    words = [{"do_sample": "いいえ"}, {"do_sample": "はい"}]
    assert _lines(words) == ("", ["いいえ", "はい"], {"every setting": [(0, 0), (1, 1)]})
    assert varying(temperatures) == ["temperature"]
    assert setting_name(SETTINGS[0], varying(SETTINGS)) == "1.0"
    assert setting_name({}, []) == "as configured"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a sweep"),
        ("[]", "not a sweep"),
        ('{"settings": [{}], "predictions": []}', "as many predictions as settings"),
        ('{"settings": [{"a": NaN}], "predictions": ["a"]}', "not JSON compliant"),
        ('{"settings": [1], "predictions": ["a"]}', "settings.0 is 1, not an object"),
        ('{"settings": [{}], "predictions": ["absent.jsonl"]}', "no such file, though"),
    ],
)
def test_a_wrong_directory_is_one_clear_line(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UserError, match="not a sweep"):
        load_sweep(tmp_path)
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(UserError, match=message):
        load_sweep(tmp_path)


def test_settings_over_different_rows_or_systems_are_refused() -> None:
    first, second, _ = answered()
    with pytest.raises(UserError, match="rows"):
        score_sweep(Sweep(SETTINGS[:2], [first, second[1:]]), 50)
    with pytest.raises(UserError, match="setting 2 was answered by base, the first by tuned"):
        score_sweep(Sweep(SETTINGS[:2], [first, answers("base")]), 50)


@pytest.mark.parametrize(
    ("key", "value", "generation"),
    [
        ("repetition_penalty", 5.0, {}),  # a penalty of 1 has no effect and is not recorded
        ("repetition_penalty", 1.0, {"repetition_penalty": 5.0, "repetition_penalty_scope": "all"}),
        ("temperature", 0.7, {"do_sample": False}),
    ],
)
def test_answers_of_another_setting_are_refused(
    tmp_path: Path, key: str, value: float, generation: dict[str, Any]
) -> None:
    found = answers("tuned")
    write_predictions([dataclasses.replace(p, generation=generation) for p in found], tmp_path / "a.jsonl")
    (tmp_path / "sweep.json").write_text(json.dumps({"settings": [{key: value}], "predictions": ["a.jsonl"]}))
    with pytest.raises(UserError, match=f"a.jsonl: row 'open_qa-0' was not answered with {key} {value}"):
        load_sweep(tmp_path)


def test_settings_without_effect_are_not_another_setting(tmp_path: Path) -> None:
    settings = {"repetition_penalty": 1.0, "repetition_penalty_scope": "all", "temperature": 0, "top_p": 0.5}
    found = answers("tuned")
    write_predictions([dataclasses.replace(p, generation={"do_sample": False}) for p in found], tmp_path / "a.jsonl")
    (tmp_path / "sweep.json").write_text(json.dumps({"settings": [settings], "predictions": ["a.jsonl"]}))
    assert load_sweep(tmp_path).settings == [settings]
