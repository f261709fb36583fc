"""Answers are made once and known by what they are of: finished ones are kept, others asked about, scores not mixed."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from made_up import signed

from eval.answering.place import evaluation_directory
from eval.predictions import read_predictions
from sft.ask.questions import claimed
from sft.generation.answerer import Answerer
from sft.run.provenance import RECORD, provenance_of
from sft.system.errors import UserError
from sft.system.files import write_whole

FEW = ["eval.rows_per_category=1", "generation.max_new_tokens=3", "eval.resamples=20", "generation.temperature=0"]


@pytest.fixture
def run(trained_run, tmp_path) -> Path:
    return shutil.copytree(trained_run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))


@pytest.fixture
def work(monkeypatch) -> list[int]:
    """The number of prompts of every call to a model."""
    calls: list[int] = []
    answer_all = Answerer.answer_all

    def counted(self, prompts, *rest):
        calls.append(len(prompts))
        return answer_all(self, prompts, *rest)

    monkeypatch.setattr(Answerer, "answer_all", counted)
    return calls


def held(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("command", "scoring"), [([], "eval.evaluate.report"), (["sweep"], "eval.sweep.score_sweep")])
def test_answers_are_not_made_again_when_scoring_was_interrupted(run, program, work, monkeypatch, command, scoring):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    words = [*command, run, *FEW]
    with monkeypatch.context() as patch:
        patch.setattr(scoring, interrupted)
        assert program("eval.__main__", *words).returncode == 130
    assert sum(work) > 0
    work.clear()
    assert program("eval.__main__", *words).returncode == 0
    assert program("eval.__main__", *words).returncode == 0
    assert not work


@pytest.mark.parametrize(("command", "batches"), [([], 4), (["sweep"], 1)])
def test_an_interruption_costs_no_more_work_where_there_are_more_settings(run, program, monkeypatch, command, batches):
    jobs: list[list[int]] = []
    answer_all = Answerer.answer_all

    def counted(self, prompts, *rest):
        jobs.append([len(prompt) + 3 for prompt in prompts])
        return answer_all(self, prompts, *rest)

    monkeypatch.setattr(Answerer, "answer_all", counted)
    words = [*command, run, *FEW, "eval.rows_per_category=3", "eval.batch_tokens=300"]
    assert program("eval.__main__", *words).returncode == 0
    assert sum(map(len, jobs)) > 10
    assert max(len(job) * max(job) for job in jobs if len(job) > 1) <= batches * 300
    assert any(len(job) * max(job) > 300 for job in jobs) is (batches > 1)


def test_what_was_kept_while_answering_is_forgotten_with_the_answers_even_after_a_kill(run, program, work, monkeypatch):
    def killed(self):
        raise KeyboardInterrupt

    others = run / "eval" / ".predictions.jsonl.unfinished-0"
    others.parent.mkdir()
    others.write_text('["another work", 0, []]\n')
    with monkeypatch.context() as patch:
        patch.setattr("sft.system.progress.Progress.remove", killed)
        assert program("eval.__main__", run, *FEW).returncode == 130
    assert len(others.read_text().splitlines()) > 2
    work.clear()
    assert program("eval.__main__", run, *FEW).returncode == 0
    assert not work
    assert others.read_text() == '["another work", 0, []]\n'


@pytest.mark.parametrize("number", [1, 2, 3])
def test_answers_are_not_made_again_after_a_kill_among_their_files(run, program, work, monkeypatch, number):
    words = ["sweep", run, *FEW, "generation.repetition_penalty=[1.0,5.0]"]

    def killed(*_):
        if next(calls) == number:
            raise KeyboardInterrupt  # as a kill, nothing after it happens

    calls = iter(range(1, 100))
    with monkeypatch.context() as patch:
        patch.setattr("eval.answering.answer.write_record", lambda *a: killed() or write_record(*a))
        patch.setattr("eval.answering.answer.write_predictions", lambda *a: killed() or write_predictions(*a))
        from eval.predictions import write_predictions
        from sft.run.provenance import write_record

        assert program("eval.__main__", *words).returncode == 130
    work.clear()
    assert program("eval.__main__", *words).returncode == 0
    assert not work
    assert len(list((run / "eval" / "sweep").glob("predictions-*.jsonl"))) == 2


def test_other_answers_are_kept_until_somebody_says_otherwise(run, program, work):
    assert program("eval.__main__", run, *FEW).returncode == 0
    before = held(run / "eval")
    for words, what in (
        (["generation.max_new_tokens=4"], "generation"),
        (["eval.seed=1"], "seed"),
        (["eval.rows_per_category=2"], "rows"),
        (["model.dtype=bfloat16"], "loading"),
    ):
        result = program("eval.__main__", run, *FEW, *words)
        assert result.returncode == 2
        assert f"holds other answers (other {what}" in result.stderr
        assert "--output DIR keeps both, --force replaces them" in result.stderr
    assert held(run / "eval") == before
    other = ["generation.max_new_tokens=4", "--output", run / "eval" / "longer"]
    assert program("eval.__main__", run, *FEW, *other).returncode == 0
    assert {name: content for name, content in held(run / "eval").items() if "longer" not in name} == before
    assert program("eval.__main__", run, *FEW, *other[:1], "--force").returncode == 0
    answers = run / "eval" / "predictions.jsonl"
    assert {answer.generation["max_new_tokens"] for answer in read_predictions(answers)} == {4}
    answers.write_bytes(answers.read_bytes().replace("。".encode(), "．".encode()) + b"\n")
    assert provenance_of(answers) is None
    result = program("eval.__main__", run, *FEW, *other[:1])
    assert (result.returncode, "changed since they were written" in result.stderr) == (2, True)


def test_answers_of_a_version_that_went_on_behind_headings_are_others(run, program, work):
    assert program("eval.__main__", run, *FEW).returncode == 0
    record = json.loads((run / "eval" / RECORD).read_text(encoding="utf-8"))
    assert record["provenance"].pop("headings") == ["### 指示:", "### 入力:", "### 応答:"]
    (run / "eval" / RECORD).write_text(json.dumps(record), encoding="utf-8")
    result = program("eval.__main__", run, *FEW)
    assert (result.returncode, "holds other answers (other headings)" in result.stderr) == (2, True)


def test_a_card_shows_the_scores_of_the_run_alone(run, program, tiny_base, tmp_path):
    def card() -> tuple[str, str]:
        result = program("sft.export.__main__", run, "--base-id", "none")
        assert result.returncode == 0, result.stderr
        return (run / "export" / "adapter" / "README.md").read_text(encoding="utf-8"), result.stderr

    from safetensors.torch import load_file, save_file

    other = shutil.copytree(tiny_base, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    save_file({name: tensor * 0.5 for name, tensor in weights.items()}, other / "model.safetensors", {"format": "pt"})
    copy = shutil.copytree(tiny_base, tmp_path / "copy")
    for words, why in (
        ([f"model.base={other}"], f"another base model ({other})"),
        (["prompt.template=alpaca-en", "--allow-other-template"], "the template alpaca-en in place of alpaca-ja"),
        (["model.dtype=bfloat16"], "model.dtype bfloat16 in place of"),
        ([f"eval.data={run / 'rows.jsonl'}", "--output", run / "eval"], f"the rows of {run / 'rows.jsonl'}"),
    ):
        shutil.copyfile("data/sample.jsonl", run / "rows.jsonl")
        assert program("eval.__main__", run, *FEW, *words, "--force").returncode == 0
        text, said = card()
        assert "Not evaluated." in text
        assert why in said
        report = (run / "eval" / "report.md").read_text(encoding="utf-8")
        assert ("Not the model as it was trained" in report) == ("eval.data" not in words[0])
    assert program("eval.__main__", run, *FEW, f"model.base={copy}", "--force").returncode == 0
    text, said = card()
    assert "character F1" in text  # the same model in another place
    answers = run / "eval" / "predictions.jsonl"
    answers.write_bytes(answers.read_bytes().replace(b'"length"', b'"eos"', 1))
    text, said = card()
    assert "Not evaluated." in text
    assert "other answers than those beside it" in said


@pytest.mark.slow
def test_a_sweep_of_another_model_stays_out_of_the_report(run, program, tiny_base):
    words = [run, *FEW]
    for command in (["sweep"], []):
        assert program("eval.__main__", *command, *words).returncode == 0
    report = run / "eval" / "report.md"
    assert "Not swept yet" not in report.read_text(encoding="utf-8")
    result = program("eval.__main__", *words, "model.dtype=bfloat16", "--force")
    assert "its sweep is of another model or other rows" in result.stderr
    assert "Not swept yet" in report.read_text(encoding="utf-8")
    result = program("eval.__main__", *words, "eval.rows_per_category=2", "--force")
    assert "its sweep is of another model or other rows" in result.stderr


COMMANDS = {
    "infer": lambda run: ("infer", run, "--instruction", "首都は?", "generation.max_new_tokens=2"),
    "eval": lambda run: ("eval.__main__", run, *FEW),
    "sweep": lambda run: ("eval.__main__", "sweep", run, *FEW),
    "export": lambda run: ("sft.export.__main__", run, "--base-id", "none"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_was_learned_is_checked_by_whatever_loads_it(run, program, name):
    files = sorted(path for path in (run / "adapter").iterdir() if path.is_file())
    for path in files:
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        path.write_bytes(flipped)
        result = program(*COMMANDS[name](run))
        assert (result.returncode, result.stderr.count("\n")) == (2, 1)
        assert f"{path}: is not what the training wrote" in result.stderr
        path.write_bytes(whole)
    (run / "adapter" / "added_tokens.json").write_text('{"東京": 5}')
    result = program(*COMMANDS[name](run))
    assert (result.returncode, "was not there when the training ended" in result.stderr) == (2, True)


@pytest.mark.parametrize("name", ["infer", "eval", "sweep"])
def test_a_base_model_that_changed_is_noticed(trained_run, tiny_base, tmp_path, program, name):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    run = shutil.copytree(trained_run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    for path in (run / "config.yaml", run / "adapter" / "adapter_config.json"):
        path.write_text(path.read_text(encoding="utf-8").replace(str(tiny_base), str(base)), encoding="utf-8")
    signed(run)
    weights = base / "model.safetensors"
    flipped = bytearray(weights.read_bytes())
    flipped[-1] ^= 1
    weights.write_bytes(flipped)
    result = program(*COMMANDS[name](run))
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert f"model {base}: is not what {run} was trained on" in result.stderr
    assert program(*COMMANDS[name](run), f"model.base={tiny_base}").returncode == 0


def test_a_file_of_answers_replaces_none_that_somebody_else_wrote(tmp_path):
    output = tmp_path / "answers.jsonl"
    with claimed(output):
        with pytest.raises(UserError, match="is being written by another process"), claimed(output):
            pass
        output.write_text("theirs")
        with pytest.raises(UserError, match="exists already"):
            write_whole(output, "ours", new=True)
    assert output.read_text() == "theirs"
    with pytest.raises(UserError, match="exists already"), claimed(output):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]
    link = tmp_path / "link.jsonl"
    link.symlink_to(tmp_path / "nowhere" / "x")
    with pytest.raises(UserError, match="exists already"), claimed(link):
        pass


def test_a_name_of_any_length_is_written_or_refused_at_once(tmp_path):
    for length in (60, 72, 80, 85):
        output = tmp_path / ("答" * length)
        with claimed(output):
            write_whole(output, "x", new=True)
    assert len(list(tmp_path.iterdir())) == 4
    with pytest.raises(UserError, match="cannot be written: File name too long"), claimed(tmp_path / ("答" * 86)):
        pass


@pytest.mark.parametrize(
    "name",
    ["sweep", "compare-B", "rate-B", ".", "..", ".hidden", "Sweep", "predictions.jsonl", "results.json", "export"],
)
def test_rows_whose_name_is_taken_are_refused_in_one_line(tmp_path, name):
    with pytest.raises(UserError, match="keeps the name"):
        evaluation_directory(tmp_path, f"x/{name}.jsonl", None)
    assert not list(tmp_path.iterdir())
    assert evaluation_directory(tmp_path, f"x/{name}.jsonl", tmp_path / "mine") == tmp_path / "mine"


def test_rows_of_one_name_in_two_places_do_not_replace_each_other(run, program, tmp_path):
    rows = [json.loads(line) for line in Path("data/sample.jsonl").read_text(encoding="utf-8").splitlines()[:4]]
    for place in "xy":
        (tmp_path / place).mkdir()
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[:-1])
        (tmp_path / place / "test.jsonl").write_text(text, encoding="utf-8")
        rows.pop()
    assert program("eval.__main__", run, *FEW, f"eval.data={tmp_path / 'x' / 'test.jsonl'}").returncode == 0
    assert (run / "eval" / "test" / RECORD).is_file()
    before = held(run / "eval" / "test")
    result = program("eval.__main__", run, *FEW, f"eval.data={tmp_path / 'y' / 'test.jsonl'}")
    assert (result.returncode, "holds other answers (other data, rows)" in result.stderr) == (2, True)
    assert held(run / "eval" / "test") == before


def test_the_next_command_puts_back_an_export_that_was_being_replaced(run, program):
    assert program("sft.export.__main__", run, "--base-id", "none").returncode == 0
    export = run / "export" / "adapter"
    before = held(export)
    export.rename(export.with_name(".adapter.replaced"))  # where a kill between two renamings leaves it
    assert program("infer", run, "--instruction", "首都は?", "generation.max_new_tokens=2").returncode == 0
    assert held(export) == before
    assert [path.name for path in export.parent.iterdir()] == ["adapter"]


def test_scoring_again_says_what_the_evaluation_said(run, program):
    assert program("eval.__main__", run, *FEW).returncode == 0
    results = run / "eval" / "results.json"
    before = json.loads(results.read_text(encoding="utf-8"))
    assert before["overlap"]
    assert program("eval.__main__", "score", run / "eval" / "predictions.jsonl").returncode == 0
    assert json.loads(results.read_text(encoding="utf-8"))["overlap"] == before["overlap"]


def test_one_evaluation_at_a_time_works_in_a_directory(run, program, monkeypatch):
    from eval.answering.answer import answer_under

    said = []

    def while_another_starts(*words, **named):
        said.append(program("eval.__main__", run, *FEW, "generation.max_new_tokens=4", "--force"))
        return answer_under(*words, **named)

    monkeypatch.setattr("eval.evaluate.answer_under", while_another_starts)
    assert program("eval.__main__", run, *FEW).returncode == 0
    assert said[0].returncode == 2
    assert f"{run / 'eval'}: is being written by another process" in said[0].stderr


def test_a_sweep_whose_files_are_of_two_sweeps_is_not_reported(run, program):
    words = ["sweep", run, *FEW, "generation.repetition_penalty=[1.0,5.0]"]
    assert program("eval.__main__", *words).returncode == 0
    sweep = run / "eval" / "sweep"
    record = json.loads((sweep / RECORD).read_text(encoding="utf-8"))
    record["files"]["predictions-01.jsonl"] = "0" * 64
    (sweep / RECORD).write_text(json.dumps(record), encoding="utf-8")
    result = program("eval.__main__", "sweep", sweep)
    assert (result.returncode, "predictions-01.jsonl: is not of the sweep" in result.stderr) == (2, True)


def test_answers_of_two_commands_do_not_share_a_directory(run, program, tmp_path):
    output = ["--output", tmp_path / "out"]
    assert program("eval.__main__", run, *FEW, *output).returncode == 0
    before = held(tmp_path / "out")
    for words in (output, [*output, "--force"]):
        result = program("eval.__main__", "sweep", run, *FEW, *words)
        assert (result.returncode, "holds other answers (predictions.jsonl)" in result.stderr) == (2, True)
    assert held(tmp_path / "out") == before


@pytest.mark.parametrize("place", ["adapter", "adapter/x", "checkpoints"])
def test_nothing_is_written_into_what_a_run_learned(run, program, place):
    (run / "checkpoints").mkdir()
    before = held(run)
    (run / "q.jsonl").write_text('{"instruction": "首都は?"}')
    for words in (
        ["eval.__main__", run, *FEW, "--output", run / place],
        ["infer", run, "--jsonl", run / "q.jsonl", "--output", run / place / "answers.jsonl"],
    ):
        result = program(*words)
        assert result.returncode == 2
    (run / "q.jsonl").unlink()
    assert held(run) == before


def test_nothing_is_written_into_an_export_which_the_next_one_would_replace(run, program):
    assert program("sft.export.__main__", run, "--base-id", "none").returncode == 0
    before = held(run)
    (run.parent / "q.jsonl").write_text('{"instruction": "首都は?"}')
    export = run / "export" / "adapter"
    for words in (
        ["eval.__main__", run, *FEW, "--output", export / "mine"],
        ["infer", run, "--jsonl", run.parent / "q.jsonl", "--output", export / "answers.jsonl"],
    ):
        result = program(*words)
        assert (result.returncode, "which the next one replaces" in result.stderr) == (2, True)
    assert held(run) == before


def test_a_report_names_no_place_of_this_machine(run, program, tmp_path):
    rows = tmp_path / "rows.jsonl"
    shutil.copyfile("data/sample.jsonl", rows)
    assert program("eval.__main__", run, *FEW, f"eval.data={rows}", "--output", run / "eval").returncode == 0
    for name in ("report.md", "report.html"):
        text = (run / "eval" / name).read_text(encoding="utf-8")
        assert "rows.jsonl" in text
        assert str(tmp_path) not in text
        assert str(Path(yaml.safe_load((run / "config.yaml").read_text())["model"]["base"]).parent) not in text


def test_what_could_not_be_replaced_is_found_before_the_answers(run, program, work, tmp_path):
    for name in ("predictions.jsonl", RECORD):
        (tmp_path / name / name).mkdir(parents=True)
        result = program("eval.__main__", run, *FEW, "--output", tmp_path / name)
        assert (result.returncode, "is a directory" in result.stderr) == (2, True)
    assert not work


def test_a_comparison_says_what_is_not_the_run(run, program, tmp_path):
    assert program("eval.__main__", run, *FEW, "model.dtype=bfloat16").returncode == 0
    other = shutil.copytree(run, tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text(encoding="utf-8"))
    (other / "manifest.json").write_text(json.dumps(manifest | {"started": "2020-01-01T00:00:00"}), encoding="utf-8")
    result = program("eval.__main__", "compare", run, other)
    assert result.returncode == 0
    assert "warning: run: model.dtype bfloat16 in place of" in result.stderr
    assert "answers of another run" in result.stderr
    page = (run / "eval" / "compare-other" / "comparison.md").read_text(encoding="utf-8")
    assert page.count("not the run as it was trained") == 2


def test_results_of_one_file_are_not_replaced_by_anothers(tmp_path, program):
    from made_up import answers

    from eval.predictions import write_predictions

    for number, name in enumerate("ab"):
        write_predictions(answers("tuned", number + 1), tmp_path / f"{name}.jsonl")
    assert program("eval.__main__", "score", tmp_path / "a.jsonl").returncode == 0
    before = held(tmp_path)
    result = program("eval.__main__", "score", tmp_path / "b.jsonl")
    assert (result.returncode, "holds the results of a.jsonl" in result.stderr) == (2, True)
    assert held(tmp_path) == before
    assert program("eval.__main__", "score", tmp_path / "a.jsonl").returncode == 0
