"""What takes time is done once: a figure is drawn once for all documents, an answer is measured once for all tables."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from made_up import answers

from eval.compare import compare_runs
from eval.predictions import Prediction, write_predictions
from eval.score import report
from eval.scoring import measured
from eval.sweep import report_sweep
from sft.page import svg

SETTINGS: list[dict[str, Any]] = [
    {"repetition_penalty": penalty, "repetition_penalty_scope": scope}
    for penalty, scope in ((1.0, "generated"), (1.2, "generated"), (1.2, "all"), (5.0, "generated"), (5.0, "all"))
]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each figure is drawn, by name."""
    counts: Counter[str] = Counter()
    draw = svg.draw
    monkeypatch.setattr("sft.page.svg.draw", lambda name, *rest: counts.update([name]) or draw(name, *rest))
    return counts


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """How often each answer is measured, by system and row."""
    counts: Counter[tuple[str, str]] = Counter()
    row_scores = measured.row_scores

    def counted(prediction: Prediction) -> Any:
        counts.update([(prediction.system, prediction.example.index)])
        return row_scores(prediction)

    monkeypatch.setattr("eval.scoring.measured.row_scores", counted)
    return counts


def sweep_of_five(directory: Path) -> None:
    directory.mkdir()
    files = [f"{number}.jsonl" for number in range(len(SETTINGS))]
    for file, setting in zip(files, SETTINGS, strict=True):
        write_predictions(answers("tuned", 2, setting), directory / file)
    (directory / "sweep.json").write_text(json.dumps({"settings": SETTINGS, "predictions": files}))


def test_a_report_draws_its_figures_once_and_measures_each_answer_once(
    tmp_path: Path, drawn: Counter[str], measurements: Counter[tuple[str, str]]
) -> None:
    predictions = [*answers("base", 1), *answers("tuned", 3)]
    write_predictions(predictions, tmp_path / "predictions.jsonl")
    report(predictions, tmp_path / "predictions.jsonl", tmp_path, resamples=50)
    assert drawn == dict.fromkeys(("forest", "deltas", "copy", "length"), 1)
    assert len(measurements) == len(predictions) == measurements.total()
    for figure in ("report.md", "report.html"):
        assert "The dark line is the best floor" in (tmp_path / figure).read_text(encoding="utf-8")


def test_a_sweep_draws_its_figures_once_and_measures_each_answer_once(
    tmp_path: Path, drawn: Counter[str], measurements: Counter[tuple[str, str]]
) -> None:
    sweep_of_five(tmp_path / "sweep")
    report_sweep(tmp_path / "sweep", resamples=50)
    assert drawn == dict.fromkeys(("sweep0", "dose0"), 1)
    assert len(measurements) == 5 * 32 == measurements.total()
    measurements.clear()
    write_predictions(answers("tuned", 3), tmp_path / "predictions.jsonl")
    # It takes the sweep in, and does not score it again.
    report(answers("tuned", 3), tmp_path / "predictions.jsonl", tmp_path, resamples=50)
    assert drawn == {"sweep0": 2, "dose0": 2, "forest": 1, "copy": 1, "length": 1}
    assert measurements.total() == 32


def test_a_comparison_measures_each_answer_once(
    tmp_path: Path, drawn: Counter[str], measurements: Counter[tuple[str, str]]
) -> None:
    for name, quality in (("A", 0), ("B", 1), ("C", 3)):
        write_predictions(answers("tuned", quality), tmp_path / f"{name}.jsonl")
    compare_runs([str(tmp_path / f"{name}.jsonl") for name in "ABC"], tmp_path / "out", resamples=50)
    assert len(measurements) == 3 * 32 == measurements.total()
    assert not drawn
