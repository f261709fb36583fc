"""The study of context questions: its file is checked, it goes on where it stopped, and its report adds up."""

import json
from pathlib import Path

import pytest

from sft.errors import UserError
from sft.records import read_predictions
from studies.context_qa.plan import BASE, Cell, cells, load_study

FOLDER = Path(__file__).parents[1] / "studies" / "context_qa"
SMOKE = FOLDER / "smoke.yaml"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_study_loads(path):
    study = load_study(path)
    assert study.recipe in study.arms


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=[1]"], "command line: seed: unknown key; known: config, directory, data"),
        (["seeds=42"], "command line: seeds: input should be a valid list, got 42"),
        (["recipe=other"], "command line: recipe: other is not one of article, answer"),
        (["rows.dolly.row=2"], "command line: rows.dolly.row: unknown key; known: path, categories, rows"),
        (["rows.dolly.categories=[qa]"], "command line: rows.dolly.categories: qa is no category; known: open_qa"),
        (["rows.squad.rows=1"], "command line: rows.squad"),
        (["decodings.greedy.max_new_tokens=9"], "decodings.greedy.max_new_tokens: not set here"),
        (["arms={a b: []}"], "arms"),
    ],
)
def test_a_wrong_study_is_one_line_about_one_key(words, message):
    with pytest.raises(UserError) as error:
        load_study(SMOKE, words)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_most_informative_answers_come_first():
    study = load_study(FOLDER / "gemma3-270m.yaml")
    order = cells(study)
    assert len(order) == len(set(order)) == 5 * 3 + 3 * 3 * 5
    assert {cell.decoding for cell in order[:15]} == {"greedy"}
    assert order[15:17] == [Cell(BASE, "jsquad", "1.2-generated"), Cell(BASE, "jsquad", "5.0-all")]
    assert [cell.rows for cell in order[15:]] == ["jsquad"] * 15 + ["dolly"] * 15 + ["niilc"] * 15
    assert {cell.system for cell in order[15:]} == {BASE, "article-42", "balanced-42"}


@pytest.fixture(scope="module")
def smoke(command, tiny_base, tmp_path_factory):
    """The smoke study, run to its end: (its directory, the words of its command, what it printed)."""
    folder = tmp_path_factory.mktemp("study")
    benchmark = [
        {"instruction": "首都は？", "input": f"首都は東京{n}です。", "output": f"東京{n}", "category": "closed_qa"}
        for n in range(4)
    ]
    (folder / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in benchmark))
    base = [f"model.base={tiny_base}", "model.build=null", "data.train_rows=16", "generation.max_new_tokens=4"]
    words = [
        FOLDER / "study.py",
        SMOKE,
        f"directory={folder / 'runs'}",
        f"overrides={json.dumps(base)}",
        f"rows.jsquad.path={folder / 'qa.jsonl'}",
    ]
    result = command(*words)
    assert result.returncode == 0, result.stderr
    return folder / "runs", words, result.stdout


def test_a_study_trains_answers_and_keeps_what_is_done(smoke):
    directory, _, output = smoke
    study = load_study(SMOKE, [f"directory={directory}"])
    for cell in cells(study):
        predictions = list(read_predictions(cell.path(study)))
        assert {p.system for p in predictions} == {BASE if cell.system == BASE else "tuned"}
        assert all((p.reference_nll is None) is (cell.decoding != "greedy") for p in predictions)
        penalty = {"greedy": None, "1.2-generated": 1.2, "5.0-all": 5.0}[cell.decoding]
        assert {p.generation.get("repetition_penalty") for p in predictions} == {penalty}
    held_out = set(json.loads((study.run("article", 42) / "split.json").read_text())["test"])
    dolly = list(read_predictions(Cell(BASE, "dolly", "greedy").path(study)))
    assert {p.example.index for p in dolly} <= held_out
    assert "answers through" in output
    assert "about 0 min left" in output


def test_only_what_is_missing_is_done_again(smoke, command):
    directory, words, _ = smoke
    study = load_study(SMOKE, [f"directory={directory}"])
    files = [cell.path(study) for cell in cells(study)]
    before = {path: path.stat().st_mtime_ns for path in files}
    lost = Cell("answer-42", "jsquad", "5.0-all").path(study)
    content = lost.read_bytes()
    lost.unlink()
    result = command(*words)
    assert result.returncode == 0, result.stderr
    assert "answers: 17 of 18 files are there" in result.stdout
    assert lost.read_bytes() == content
    assert {path for path in files if path.stat().st_mtime_ns != before[path]} == {lost}


def test_a_run_trained_with_other_settings_is_refused(smoke, command):
    _, words, _ = smoke
    refused = command(*words, "arms.answer=[training.max_length=128]")
    assert refused.returncode == 2
    assert "trained with other settings: training.max_length was 512, is 128" in refused.stderr


def test_an_unknown_system_is_refused(smoke, command):
    _, words, _ = smoke
    refused = command(*words, "--only", "answer-43")
    assert refused.returncode == 2
    assert "--only: answer-43 is no system of this study; known: base, article-42, answer-42" in refused.stderr
