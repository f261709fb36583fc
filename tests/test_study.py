"""The study of context questions: its file is checked, it goes on where it stopped, and its report adds up."""

import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from made_up import rows as dolly_rows

from eval.predictions import BASE, Prediction, read_predictions, write_predictions
from sft.config.load import load_config
from sft.data.records import Example
from sft.system.errors import UserError
from studies.context_qa.analysis import analyse
from studies.context_qa.answers import load
from studies.context_qa.figures import figures
from studies.context_qa.plan import Cell, RowsName, Study, cells, changed_setting, load_study
from studies.context_qa.report import write_report
from studies.context_qa.study import check_decodings, check_rows
from studies.context_qa.tables import shown, tables

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
        (["rows.dolly.categories=[]"], "command line: rows.dolly.categories: list should have at least 1 item"),
        (["rows.squad.rows=1"], "command line: rows.squad"),
        (["decodings.greedy.max_new_tokens=9"], "decodings.greedy.max_new_tokens: not set here"),
        (["arms={a b: []}"], "arms"),
        (["arms={base: [], answer: []}", "article=base"], "arms: base is the model before tuning; give the arm"),
        (["seeds=[42, 42]"], "seeds: each seed once, got [42, 42]"),
        (["seeds=[-1]"], "seeds.0: input should be greater than or equal to 0, got -1"),
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
    assert len(order) == len(set(order)) == 6 * 3 + 3 * 3 * 5
    assert {cell.decoding for cell in order[:18]} == {"greedy"}
    assert order[18:20] == [Cell("article-42", "jsquad", "1.2-generated"), Cell("article-42", "jsquad", "5.0-all")]
    assert [cell.rows for cell in order[18:]] == ["jsquad"] * 15 + ["dolly"] * 15 + ["niilc"] * 15
    assert {cell.system for cell in order[18:]} == {BASE, "article-42", "balanced-42"}


def test_a_directory_may_be_called_anything():
    study = load_study(SMOKE, ["directory='研究 #1: [a]'", "data='rows #2.jsonl'"])
    config = load_config(study.config, study.training("article", 42))
    assert config.run_directory == study.run("article", 42)
    assert config.data.path == "rows #2.jsonl"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rows.jsquad.path=nowhere.jsonl"], "rows.jsquad.path: nowhere.jsonl: no such data file"),
        (["rows.jsquad.categories=[open_qa]", "rows.jsquad.path={}"], "has no row of open_qa"),
        (
            ["rows.jsquad.categories=[社内]", "rows.jsquad.path={}"],
            "rows.jsquad.categories: 社内 is no category of its rows",
        ),
        (["rows.dolly.categories=[qa]"], "rows.dolly.categories: qa is no category of its rows; known: open_qa, "),
    ],
)
def test_rows_that_are_not_there_are_missed_before_training(tmp_path, words, message):
    path = tmp_path / "qa.jsonl"
    path.write_text('{"instruction": "a", "input": "b", "output": "c", "category": "closed_qa"}\n')
    with pytest.raises(UserError) as error:
        check_rows(load_study(SMOKE, [word.format(path) for word in words]))
    assert message in str(error.value)


def test_what_is_wrong_without_a_decoding_is_not_called_the_decodings():
    with pytest.raises(UserError, match=r"^command line: trainig: unknown section"):
        check_decodings(load_study(SMOKE, ["overrides=[trainig.x=1]"]))
    with pytest.raises(UserError, match=r"^decodings\.greedy: command line: generation.temprature: unknown key"):
        check_decodings(load_study(SMOKE, ["decodings.greedy.temprature=0"]))


@pytest.mark.parametrize(
    ("recorded", "wanted", "change"),
    [
        ({"do_sample": False}, {"temperature": 0.0, "top_k": 40, "repetition_penalty": 1.0}, None),
        ({"repetition_penalty": 1.2}, {"repetition_penalty": 1}, "repetition_penalty was 1.2, is 1"),
        ({}, {"repetition_penalty": 1.2}, "repetition_penalty was 1.0, is 1.2"),
        ({}, {"temperature": 0.7}, "temperature was 0.0, is 0.7"),
        ({"max_new_tokens": 64}, {"max_new_tokens": 128}, "max_new_tokens was 64, is 128"),
    ],
)
def test_settings_that_changed_are_told_from_those_without_effect(recorded, wanted, change):
    assert changed_setting(recorded, wanted) == change


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
    assert json.loads((directory / "report" / "results.json").read_text())["missing"] == []
    assert "whole" in (directory / "report" / "tables.md").read_text()
    assert "about 0 min left" in output


def test_only_what_is_missing_is_done_again(smoke, program):
    directory, words, _ = smoke
    study = load_study(SMOKE, [f"directory={directory}"])
    files = [cell.path(study) for cell in cells(study)]
    before = {path: path.stat().st_mtime_ns for path in files}
    lost = Cell("answer-42", "jsquad", "5.0-all").path(study)
    content = lost.read_bytes()
    lost.unlink()
    result = program("studies.context_qa.study", *words[1:])
    assert result.returncode == 0, result.stderr
    assert "answers: 17 of 18 files are there" in result.stdout
    assert lost.read_bytes() == content
    assert {path for path in files if path.stat().st_mtime_ns != before[path]} == {lost}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("rows.jsquad.rows=2", "its rows are not those of rows.jsquad"),
        ("decodings.greedy.repetition_penalty=1.5", "repetition_penalty was 1.0, is 1.5"),
    ],
)
def test_answers_to_another_study_are_refused(smoke, program, word, message):
    _, words, _ = smoke
    refused = program("studies.context_qa.study", *words[1:], word, "--only", "base")
    assert refused.returncode == 2
    assert f"was answered otherwise: {message}; move it away" in refused.stderr


def test_examples_are_shown_and_answers_without_them_pass_for_no_others(smoke, program, tmp_path):
    directory, words, _ = smoke
    with_shots = [w.replace("]", ', "eval.shots=1"]') if str(w).startswith("overrides=") else w for w in words]
    refused = program("studies.context_qa.study", *with_shots[1:])
    assert refused.returncode == 2
    assert "was answered otherwise: eval.shots was 0, is 1" in refused.stderr
    shutil.copytree(directory / "train", tmp_path / "runs" / "train")
    where = [f"directory={tmp_path / 'runs'}" if str(w).startswith("directory=") else w for w in with_shots]
    result = program("studies.context_qa.study", *where[1:])
    assert result.returncode == 0, result.stderr
    study = load_study(SMOKE, [f"directory={tmp_path / 'runs'}"])
    assert all(len(p.shots) == 1 for cell in cells(study) for p in read_predictions(cell.path(study)))


def test_a_run_trained_with_other_settings_is_refused(smoke, program):
    _, words, _ = smoke
    refused = program("studies.context_qa.study", *words[1:], "arms.answer=[training.max_length=128]")
    assert refused.returncode == 2
    assert "trained with other settings: training.max_length was 512, is 128" in refused.stderr


def test_an_unknown_system_is_refused(smoke, program):
    _, words, _ = smoke
    refused = program("studies.context_qa.study", *words[1:], "--only", "answer-43")
    assert refused.returncode == 2
    assert "--only: answer-43 is no system of this study; known: base, article-42, answer-42" in refused.stderr


# The report, on made-up answers: a right answer is the reference, a wrong one shares no character with it.

RIGHT_OF_EIGHT = {
    ("article", "5.0-all"): 1,
    ("article", "1.2-generated"): 4,
    ("balanced", "5.0-all"): 2,
    ("balanced", "1.2-generated"): 8,
}
"""JSQuAD's rows that are answered rightly; the other cells answer all."""


def made_up_rows() -> dict[RowsName, list[Example]]:
    wanted = load_study(FOLDER / "gemma3-270m.yaml").rows["dolly"].categories
    jsquad = [
        Example(f"j{n}", "どこ？", f"答えは都市{n}である。", f"都市{n}", "closed_qa", answers=(f"都市{n}",))
        for n in range(8)
    ]
    niilc = [Example(f"n{n}", "だれ？", "", f"人物{n}", "open_qa", answers=(f"人物{n}",)) for n in range(4)]
    return {"jsquad": jsquad, "dolly": [row for row in dolly_rows() if row.category in wanted], "niilc": niilc}


def answered(
    directory: Path, right: Callable[[Cell, int], bool], seeds: tuple[int, ...] = (42,), without: str = "nothing"
) -> Study:
    """The gemma study with every cell answered but those with `without` in their name."""
    words = [f"directory={directory}", f"seeds={list(seeds)}", "resamples=200"]
    study = load_study(FOLDER / "gemma3-270m.yaml", words)
    examples = made_up_rows()
    for cell in cells(study):
        if without in "/".join(cell):
            continue
        settings = {k: v for k, v in study.decodings[cell.decoding].items() if v != 1.0}
        greedy = cell.decoding == "greedy"
        predictions = [
            Prediction(
                "base" if cell.system == BASE else "tuned", row, row.instruction,
                row.output if right(cell, number) else "＊", "eos", 9, 4, settings,
                reference_nll=9.0 if greedy else None,
                reference_nll_without_context=12.0 if greedy and row.input else None,
                reference_tokens_in_prompt=0.6 + 0.01 * number if row.input else 0.1 + 0.01 * number,
            )
            for number, row in enumerate(examples[cell.rows])
        ]  # fmt: skip
        path = cell.path(study)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_predictions(predictions, path)
    return study


def as_in_the_table(cell: Cell, number: int) -> bool:
    arm = cell.system.rsplit("-", 1)[0]
    return cell.rows != "jsquad" or number < RIGHT_OF_EIGHT.get((arm, cell.decoding), 8)


def test_the_two_by_two_adds_up(tmp_path):
    results = analyse(load(answered(tmp_path, as_in_the_table)), {})
    found = results["factorial"]["jsquad.context.gold_contained"]
    assert found["cells"]["article"]["5.0-all"]["mean"] == 0.125
    assert found["cells"]["balanced"]["1.2-generated"]["mean"] == 1
    assert found["cells"]["base"]["5.0-all"]["n"] == 8
    means = {name: one["mean"] for name, one in found["effects"].items()}
    assert means == {
        "cell": 0.875,
        "training": 0.3125,  # (1 + 2/8 − 4/8 − 1/8) / 2
        "decoding": 0.5625,  # (1 + 4/8 − 2/8 − 1/8) / 2
        "interaction": 0.375,  # (1 − 2/8) − (4/8 − 1/8)
        "decoding in base": 0,
        "decoding in article": 0.375,
        "decoding in balanced": 0.75,
        "training under 5.0-all": 0.125,
        "training under 1.2-generated": 0.5,
    }
    assert found["ratio"]["mean"] == 8
    # 7 rows changed, all for the better: of 2^7 flips two are as far from 0.
    assert found["effects"]["cell"]["p"] == pytest.approx(2 / 128, abs=0.005)
    headline = {(one["comparison"], one["outcome"]): one for one in results["headline"]}
    cell = headline["cell", "jsquad.context.gold_contained"]
    assert cell["mean"] == 0.875
    assert cell["p_holm"] > cell["p"]
    assert len(headline) == 17


def test_what_a_decoding_costs_context_and_open_and_by_share(tmp_path):
    """The penalty on the prompt spoils every row with a context, and a quarter of the open ones."""

    def right(cell: Cell, number: int) -> bool:
        row = made_up_rows()[cell.rows][number]
        return not cell.decoding.startswith("5.0-all") or not (row.input or row.index.endswith("-0"))

    results = analyse(load(answered(tmp_path, right)), {})
    found = results["losses"]["balanced"]["5.0-all"]
    assert found["context"]["mean"] == 1
    assert found["open"]["mean"] == 0.25
    assert found["difference"]["mean"] == 0.75
    assert found["kept_on_context"]["mean"] == 0
    assert found["kept_on_open"]["mean"] == 0.75
    assert results["losses"]["balanced"]["5.0-generated"]["difference"]["mean"] == 0
    dose = results["dose"]["balanced"]["5.0-all"]
    assert dose["categories"]["classification"]["mean"] == 0.25
    assert dose["categories"]["closed_qa"]["mean"] == 1
    assert dose["fifths"][-1]["mean"] == 1
    assert dose["correlation"]["all"]["rho"] > 0.5
    assert dose["correlation"]["context"]["rho"] is None  # all lost the same
    assert results["dose"]["balanced"]["5.0-generated"]["correlation"]["all"]["rho"] is None
    assert results["control"] == "5.0-generated"


def test_a_penalty_that_only_the_configuration_has_is_drawn_where_it_took_effect(tmp_path):
    study = answered(tmp_path, as_in_the_table)
    results = analyse(load(study), {})
    before = {figure.name: figure.svg for figure in figures(results)}["sweep"]
    del results["study"]["decodings"]["1.2-all"]["repetition_penalty"]
    assert {figure.name: figure.svg for figure in figures(results)}["sweep"] == before


def test_missing_cells_are_said_not_guessed(tmp_path):
    results = analyse(load(answered(tmp_path, as_in_the_table, without="balanced-42/jsquad/1.2-generated")), {})
    found = results["factorial"]["jsquad.context.gold_contained"]
    assert results["missing"] == ["balanced-42/jsquad/1.2-generated"]
    assert found["cells"]["balanced"]["1.2-generated"] is None
    assert found["effects"]["cell"] is None
    assert found["effects"]["decoding in article"]["mean"] == 0.375
    text = tables(results, figures(results))
    assert "JSQuAD, gold contained: not run." in text
    assert "1 of the planned files: balanced-42/jsquad/1.2-generated." in text
    assert "| balanced (the recipe) | 0.250" in text


def test_seeds_are_averaged_by_row_and_their_spread_is_shown(tmp_path):
    """Seed 2 of the recipe answers every other row wrongly."""
    study = answered(tmp_path, lambda cell, n: cell.system != "balanced-2" or n % 2 == 0, seeds=(1, 2))
    results = analyse(load(study), {})
    cell = results["factorial"]["jsquad.context.gold_contained"]["cells"]["balanced"]["1.2-generated"]
    assert cell["mean"] == 0.75
    assert cell["n"] == 8
    assert cell["by_seed"] == [1, 0.5]
    assert "seeds 0.500 to 1.000" in shown(cell)
    assert results["factorial"]["jsquad.context.gold_contained"]["effects"]["cell"]["by_seed"] == [0, -0.5]
    Cell("balanced-2", "jsquad", "1.2-generated").path(study).unlink()  # half of the seeds is not the arm
    results = analyse(load(study), {})
    assert results["factorial"]["jsquad.context.gold_contained"]["cells"]["balanced"]["1.2-generated"] is None


def test_the_report_is_written_without_texts_and_twice_the_same(tmp_path):
    study = answered(tmp_path, as_in_the_table)
    directory = write_report(study)
    names = {path.name for path in directory.iterdir()}
    drawn = ("factorial", "sweep", "dose", "behaviour", "arms")
    assert names == {"results.json", "tables.md", *(f"{name}.{kind}" for name in drawn for kind in ("svg", "png"))}
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert "都市" not in before["results.json"].decode()
    for name in drawn:
        ET.fromstring(before[f"{name}.svg"])
        assert before[f"{name}.png"].startswith(b"\x89PNG")
    write_report(study)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generation": {"repetition_penalty": 9.0}}, "generation settings are not those of"),
        ({"prompt": "another"}, "its prompts are not those of"),
        ({"system": "other"}, "holds the answers of other and tuned"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(tmp_path, change, message):
    study = answered(tmp_path, as_in_the_table)
    path = Cell("balanced-42", "niilc", "5.0-all").path(study)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[-1] |= change
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match=message):
        load(study)


def test_answers_made_under_another_decoding_are_not_reported_as_the_studys(tmp_path):
    answered(tmp_path, as_in_the_table)
    changed = load_study(FOLDER / "gemma3-270m.yaml", [f"directory={tmp_path}", "decodings.article-sampling.top_k=50"])
    with pytest.raises(UserError, match="otherwise than the study says: top_k was 40, is 50"):
        load(changed)


def test_a_study_without_answers_says_so(tmp_path):
    with pytest.raises(UserError, match="nothing has been answered yet"):
        load(load_study(SMOKE, [f"directory={tmp_path}"]))
