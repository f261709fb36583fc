"""The commands of the README, run as a user runs them: the whole path on a tiny model, and every wrong start."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from forked import killed_after_step, started
from made_up import signed

from eval.predictions import read_predictions
from sft.data.records import CATEGORIES, GROUPS
from sft.model.adapter import check_adapter
from sft.prompt.template import ALPACA_JA

ROOT = Path(__file__).parents[1]
FOUR_BIT = ["quantization.load_in_4bit=true", "quantization.bnb_4bit_quant_type=nf4"]
QUANTIZATIONS = {"unquantised": [], "8-bit": ["quantization.load_in_8bit=true"], "4-bit": FOUR_BIT}


def overrides(tiny_base, run):
    # The sample is small: with these shares, every category has rows to validate and to test.
    shares = ["data.test_share=0.3", "data.validation_share=0.06", "training.total_batch_size=20"]
    return [f"model.base={tiny_base}", "model.build=null", f"run.directory={run}", *shares]


def launch(command, *words):
    accelerate = "from accelerate.commands.accelerate_cli import main; main()"
    return command("-c", accelerate, "launch", *words)


@pytest.fixture(scope="module")
def finished_run(command, tiny_base, tmp_path_factory):
    """A run trained by `accelerate launch` on the sample; the commands below use it."""
    run = tmp_path_factory.mktemp("実験 one") / "tiny"
    result = launch(command, "train_sft.py", "configs/tiny.yaml", *overrides(tiny_base, run))
    assert result.returncode == 0, result.stderr
    return run, result.stdout


def test_training_leaves_a_whole_run(finished_run):
    run, output = finished_run
    assert {path.name for path in run.iterdir()} >= {
        "adapter", "checkpoints", "config.yaml", "manifest.json", "split.json", "log.jsonl", "loss.png", "run.html",
    }  # fmt: skip
    assert check_adapter(run / "adapter") == 2
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["rows"]["train"] + manifest["rows"]["validation"] + manifest["rows"]["test"] == 256
    assert manifest["environment"]["packages"]["trl"] == "1.16.0"
    steps = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert sum("loss" in record for record in steps) == manifest["steps"] == 9
    assert any("eval_context_loss" in record for record in steps)
    assert "9 optimizer steps of 20 rows, packed in bins of at most 4,096 tokens" in output
    assert "LoRA on 2 modules (query_key_value)" in output


def test_an_existing_run_is_refused_and_a_finished_one_cannot_be_resumed(finished_run, program, tiny_base):
    run, _ = finished_run
    words = ["train_sft", "configs/tiny.yaml", *overrides(tiny_base, run)]
    refused = program(*words)
    assert refused.returncode == 2
    assert "has finished; --force replaces it" in refused.stderr
    assert "has finished" in program(*words, "--resume").stderr


def test_one_question_is_answered_by_the_tuned_and_the_base_model(finished_run, program):
    run, _ = finished_run
    words = [
        "infer",
        run,
        "--instruction",
        "首都は?",
        "--input",
        "日本の首都は東京です。",
        "generation.max_new_tokens=6",
    ]
    beams = program(*words, "generation.num_beams=2")
    assert (beams.returncode, bool(beams.stdout.strip())) == (0, True), beams.stderr
    tuned, base = program(*words), program(*words, "--base")
    for result in (tuned, base):
        assert result.returncode == 0, result.stderr
        assert result.stdout.strip()
        assert "cut off after 6 tokens" in result.stderr
    assert "base model alone" in base.stderr


def test_a_session_answers_until_the_input_ends(finished_run, command):
    run, _ = finished_run
    penalty = ["generation.repetition_penalty=1.5", "generation.repetition_penalty_scope=all"]
    questions = "首都は?\n\n" + "山は?\n富士山です。\n" * 2
    result = command("infer.py", run, "generation.max_new_tokens=4", *penalty, input=questions)
    assert result.returncode == 0, result.stderr
    assert "文脈>" not in result.stdout  # nobody is there to be asked
    assert len(result.stdout.split("\n\n")) >= 3
    assert result.stderr.count("makes answers short") == 1
    assert result.stderr.count("cannot quote their context") == 1


def test_a_file_of_questions_is_answered_in_its_order(finished_run, program, tmp_path):
    run, _ = finished_run
    questions = [{"id": n, "instruction": "首都は?" * n, "input": "文脈" * (n % 2)} for n in range(1, 6)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions))
    words = ["--jsonl", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl", "generation.max_new_tokens=4"]
    result = program("infer", run, *words)
    assert result.returncode == 0, result.stderr
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [answer["id"] for answer in answers] == [1, 2, 3, 4, 5]
    assert all(isinstance(a["answer"], str) and a["finish_reason"] in ("eos", "length") for a in answers)
    turns = [("user", "首都は?"), ("assistant", "東京です。"), ("user", "人口は?")]
    talk = {"messages": [{"role": role, "content": content} for role, content in turns]}
    (tmp_path / "in.jsonl").write_text(json.dumps(talk) + "\n")
    words[3] = tmp_path / "talk.jsonl"
    result = program("infer", run, *words)
    assert result.returncode == 0, result.stderr
    assert "of 1 row 1 loses its earlier turns" in result.stderr
    assert json.loads((tmp_path / "talk.jsonl").read_text())["messages"] == talk["messages"]


def test_a_table_comes_back_with_the_answers_as_one_more_column(finished_run, program, tmp_path):
    run, _ = finished_run
    questions, answers = tmp_path / "faq.csv", tmp_path / "answers.csv"
    rows = [
        ["No.", "質問", "補足情報", "answer"],
        ["1", "首都は?", "日本", 'a,\n"b"'],
        ["2", "", "", ""],
        ["3", "山は?", "", "c"],
    ]
    with questions.open("w", encoding="cp932", newline="") as file:
        csv.writer(file, delimiter=";").writerows(rows)
    result = program("infer", run, "--csv", questions, "--output", answers, "generation.max_new_tokens=4")
    assert result.returncode == 0, result.stderr
    assert "row 3: empty 質問; it gets no answer" in result.stderr
    assert "answers.csv: 2 answers to 3 questions, in the column model_answer" in result.stderr
    with answers.open(encoding="utf-8-sig", newline="") as file:
        found = list(csv.reader(file))
    assert [row[:4] for row in found] == rows
    assert found[0][4:] == ["model_answer", "model_finish_reason"]
    assert [row[5] for row in found[1:]] == ["length", "error", "length"]
    assert found[1][4] != ""
    assert found[2][4] == ""
    again = program(
        "infer", run, "--questions", answers, "--output", tmp_path / "more.csv", "generation.max_new_tokens=4"
    )
    assert (again.returncode, "has columns answer and model_answer already" in again.stderr) == (2, True)


def test_answers_are_written_as_csv_or_json_lines_alone(finished_run, program, tmp_path):
    run, _ = finished_run
    result = program("infer", run, "--questions", "data/sample.jsonl", "--output", tmp_path / "answers.xlsx")
    assert result.returncode == 2
    assert "answers.xlsx: answers are written as .jsonl or .csv" in result.stderr


def test_the_evaluation_answers_scores_and_reports(finished_run, program):
    run, _ = finished_run
    settings = ["eval.rows_per_category=2", "generation.max_new_tokens=6", "eval.resamples=200"]
    result = program("eval.__main__", run, *settings)
    assert result.returncode == 0, result.stderr
    predictions = list(read_predictions(run / "eval" / "predictions.jsonl"))
    assert [p.system for p in predictions] == ["base"] * 16 + ["tuned"] * 16
    held_out = set(json.loads((run / "split.json").read_text())["test"])
    for p in predictions:
        assert p.example.index in held_out
        assert p.prompt == ALPACA_JA.render(p.example.instruction, p.example.input)
        assert p.reference_nll > 0
        assert (p.reference_nll_without_context is None) is (not p.example.input)
        assert 0 <= p.reference_tokens_in_prompt <= 1
    results = json.loads((run / "eval" / "results.json").read_text())
    for system in ("base", "tuned"):
        assert set(results["systems"][system]["categories"]) == set(CATEGORIES)
        assert set(results["systems"][system]["groups"]) == set(GROUPS)
        score = results["systems"][system]["groups"]["context"]["character_f1"]
        assert score["ci_low"] <= score["mean"] <= score["ci_high"]
        assert score["n"] == 6
    assert "Context QA" in (run / "eval" / "report.md").read_text()
    again = program("eval.__main__", "score", run / "eval" / "predictions.jsonl", "--output", run / "again")
    assert again.returncode == 0, again.stderr


def test_the_benchmark_compares_batches_with_sorted_generate_and_one_by_one(finished_run, program):
    run, _ = finished_run
    result = program("benchmarks.answering", run, "model.dtype=float32", "--rows", 4, "--tokens", 4, "--repeats", 1)
    assert result.returncode == 0, result.stderr
    ratios = dict(re.findall(r"^ratio (\w+) (\d+\.\d+)$", result.stdout, re.MULTILINE))
    assert set(ratios) == {"answering_context", "answering_open"}
    assert all(float(ratio) > 0 for ratio in ratios.values())
    found = re.findall(r"^(context|open) +(.*?) +(\d+) tokens, .*, 4 of 4 as one by one$", result.stdout, re.MULTILINE)
    ways = ["ours", "sorted generate", "one by one"]
    assert [(kind, way) for kind, way, _ in found] == [(kind, way) for kind in ("context", "open") for way in ways]
    assert all(len({tokens for kind, _, tokens in found if kind == one}) == 1 for one in ("context", "open"))


def test_another_template_than_the_adapters_is_refused_unless_allowed(finished_run, program):
    run, _ = finished_run
    words = ["infer", run, "--instruction", "首都は?", "prompt.template=alpaca-en", "generation.max_new_tokens=2"]
    refused = program(*words)
    assert refused.returncode == 2
    assert "(alpaca-ja) and the one asked for (alpaca-en) differ" in refused.stderr
    assert program(*words, "--allow-other-template").returncode == 0


@pytest.mark.parametrize("kind", [pytest.param("8-bit", marks=pytest.mark.slow), "4-bit"])
def test_quantised_runs_train_answer_and_score(program, tiny_base, tmp_path, kind):
    run = tmp_path / kind
    words = [*overrides(tiny_base, run), "data.train_rows=64", *QUANTIZATIONS[kind]]
    trained = program("train_sft", "configs/tiny.yaml", *words)
    assert trained.returncode == 0, trained.stderr
    assert "kernels" not in trained.stderr
    assert "MatMul8bitLt" not in trained.stderr
    scored = program(
        "eval.__main__", run, "eval.rows_per_category=1", "generation.max_new_tokens=3", "eval.resamples=50"
    )
    assert scored.returncode == 0, scored.stderr


def test_the_same_run_twice_gives_the_same_adapter(finished_run, program, tiny_base, tmp_path):
    run, _ = finished_run
    again = program("train_sft", "configs/tiny.yaml", *overrides(tiny_base, tmp_path / "again"))
    assert again.returncode == 0, again.stderr
    name = "adapter/adapter_model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (run / name).read_bytes()


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_adapter(finished_run, program, tiny_base, tmp_path):
    run, _ = finished_run
    interrupted = tmp_path / "interrupted"
    words = ["configs/tiny.yaml", *overrides(tiny_base, interrupted), "training.save_steps=3"]
    assert started("train_sft", *words, first=killed_after_step(5)).wait() == 9
    changed = program("train_sft", *words, "training.learning_rate=1e-3", "--resume")
    assert changed.returncode == 2
    assert (
        "cannot resume: training.learning_rate was 0.0003, is 0.001; give its own settings, or --force starts again"
        in changed.stderr
    )
    resumed = program("train_sft", *words, "training.logging_steps=2", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "trainer_state.json" not in resumed.stderr
    name = "adapter/adapter_model.safetensors"
    assert (interrupted / name).read_bytes() == (run / name).read_bytes()
    records = [json.loads(line) for line in (interrupted / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "loss" in record] == [1, 2, 3, 4, 6, 8], "logged as is now said"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lora.lora_alpah=8"], r"command line: lora.lora_alpah: unknown key; did you mean lora_alpha"),
        (["model.build=null", "model.base=models/absent"], r"models/absent: cannot be loaded"),
        (
            ["model.build=null", "model.base=cyberagent/open-calm-small"],
            r"cyberagent/open-calm-small: cannot be loaded",
        ),
        (["data.path=data/absent.jsonl"], r"data/absent.jsonl: no such data file"),
        (["data.path=kunishou/databricks-dolly-15k-ja"], r"cannot be loaded from the hub"),
        (["model.device=cuda"], r"model.device is cuda, but PyTorch sees no GPU"),
        (["training.warmup_steps=5"], r"warmup_steps: 5 of 9 steps are warmup; set at most 4"),
        (["lora.target_modules=[q_proj]"], r"no module 'q_proj'; its linear layers are query_key_value"),
        (["training.max_length=16"], r"no training row fits training.max_length"),
    ],
)
def test_a_wrong_start_is_one_clear_line_and_exit_2(program, tiny_base, tmp_path, words, message):
    result = program("train_sft", "configs/tiny.yaml", *overrides(tiny_base, tmp_path / "run"), *words)
    assert result.returncode == 2, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert re.search(message, errors[0])
    assert "Traceback" not in result.stderr


def test_under_the_launcher_our_line_comes_before_its_traceback(command):
    result = launch(command, "train_sft.py", "configs/tiny.yaml", "lora.rank=8")
    assert result.returncode != 0
    assert result.stderr.index("error: command line: lora.rank") < result.stderr.index("Traceback")


def test_a_dry_run_trains_nothing(program, tiny_base, tmp_path):
    words = [*overrides(tiny_base, tmp_path / "run"), "model.device=cuda", "--dry-run"]
    result = program("train_sft", "configs/tiny.yaml", *words)
    assert result.returncode == 0, result.stderr
    assert re.search(r"look +device +model.device is cuda", result.stdout)
    assert "9 optimizer steps" in result.stdout
    assert not (tmp_path / "run").exists()


def test_help_is_instant(command):
    for program in (["train_sft.py"], ["infer.py"], ["-m", "eval"]):
        result = command("-X", "importtime", *program, "--help")
        assert result.returncode == 0
        assert "torch" not in {line.split("|")[-1].strip() for line in result.stderr.splitlines()}


def test_an_evaluation_that_cannot_start_says_so_before_torch_is_imported(finished_run, command, tmp_path):
    run, _ = finished_run
    for words, message in (
        ([tmp_path / "nowhere"], "not a run directory"),
        ([run, "eval.qqq=1"], "eval.qqq: unknown key"),
        (["sweep", tmp_path / "nowhere"], "not a run directory"),
        (["sweep", run, "generation.top_p=[0.5, 7]"], "generation.top_p: must be at most 1"),
        (["score", tmp_path / "nowhere"], "no such file"),
        (["score", tmp_path], "a directory"),
        (["compare", run], "nothing to compare"),
    ):
        result = command("-X", "importtime", "-m", "eval", *words)
        assert result.returncode == 2
        assert message in result.stderr
        assert "torch" not in {line.split("|")[-1].strip() for line in result.stderr.splitlines()}


def test_infer_without_any_finished_run_says_what_to_do(command, tmp_path):
    for name in ("infer.py", "sft"):
        (tmp_path / name).symlink_to(ROOT / name)
    result = command("infer.py", cwd=tmp_path)
    assert result.returncode == 2
    assert "no finished run here; train one" in result.stderr


def test_force_replaces_a_run_only_when_the_new_one_can_start(program, tiny_base, tmp_path):
    run = tmp_path / "run"
    words = ["train_sft", "configs/tiny.yaml", *overrides(tiny_base, run), "data.train_rows=32"]
    assert program(*words).returncode == 0
    before = (run / "manifest.json").read_text()
    for wrong in ("data.path=data/absent.jsonl", "lora.target_modules=[q_proj]", "training.warmup_steps=9"):
        assert program(*words, "--force", wrong).returncode == 2
        assert (run / "manifest.json").read_text() == before
    assert program(*words, "--force", "training.seed=1").returncode == 0
    assert (run / "manifest.json").read_text() != before
    assert not list(tmp_path.glob(".run.replaced-*"))


def test_a_directory_that_is_no_run_is_never_replaced(program, tiny_base, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "manifest.json").write_text('{"name": "a web page"}')
    result = program("train_sft", "configs/tiny.yaml", *overrides(tiny_base, tmp_path / "thesis"), "--force")
    assert result.returncode == 2
    assert "is not a run" in result.stderr
    assert (tmp_path / "thesis" / "manifest.json").exists()


def test_empty_directories_of_a_failed_start_are_nothing_to_lose(tmp_path):
    from sft.run.directory import check_directory, claim_directory

    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    check_directory(run, resume=False, force=False)
    claim_directory(run)
    assert list(run.iterdir()) == []


def test_a_second_training_into_the_same_directory_is_refused(program, tiny_base, tmp_path):
    from sft.run.directory import lock_directory

    with lock_directory(tmp_path / "run"):
        result = program("train_sft", "configs/tiny.yaml", *overrides(tiny_base, tmp_path / "run"), "--force")
    assert result.returncode == 2
    assert "is being trained by process" in result.stderr


def test_a_split_or_data_changed_after_the_training_is_refused(finished_run, program, tmp_path):
    run, _ = finished_run
    changed = tmp_path / "rows.jsonl"
    changed.write_text((ROOT / "data" / "sample.jsonl").read_text().replace("。", "!", 1))
    result = program("eval.__main__", run, f"data.path={changed}")
    assert result.returncode == 2
    assert "are not those that" in result.stderr
    split = run / "split.json"
    text = split.read_text()
    split.write_text(text.replace('"test": ["', '"test": ["1", "', 1))
    result = program("eval.__main__", run)
    split.write_text(text)
    assert result.returncode == 2
    assert "was changed after the training" in result.stderr


def test_an_adapter_that_does_not_fit_every_weight_is_refused(finished_run, program, tiny_base):
    from safetensors.torch import load_file, save_file

    run, _ = finished_run
    path = run / "adapter" / "adapter_model.safetensors"
    whole = path.read_bytes()
    tensors = load_file(path)
    save_file({name: tensor for name, tensor in tensors.items() if "layers.0" not in name}, path)
    result = program("infer", signed(run), "--instruction", "首都は?")
    path.write_bytes(whole)
    signed(run)
    assert result.returncode == 2
    assert f"does not fit the base model {tiny_base}: 0 of its weights have no place there and 2 are missing" in (
        result.stderr
    )


def test_questions_of_a_file_that_were_answered_before_a_kill_are_not_answered_again(
    finished_run, program, monkeypatch, tmp_path
):
    from sft.generation.answerer import Answerer
    from sft.system.progress import Progress

    run, _ = finished_run
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"instruction": f"{n}番の問い"}) + "\n" for n in range(9)))
    words = ["infer", run, "generation.max_new_tokens=5", "generation.temperature=0", "--jsonl", questions, "--output"]
    assert program(*words, tmp_path / "calm.jsonl").returncode == 0
    busy = Progress(tmp_path / "busy.jsonl", 0)
    assert "busy.jsonl: is being written by another process" in program(*words, tmp_path / "busy.jsonl").stderr
    busy.remove()
    answer_all = Answerer.answer_all
    answered = []

    class Killed(BaseException):
        pass

    def counted(self, prompts, *more):
        for number, found in enumerate(answer_all(self, prompts, *more)):
            if len(answered) == 4:
                answered.append(None)
                raise Killed
            answered.append(number)
            yield found

    monkeypatch.setattr(Answerer, "answer_all", counted)
    with pytest.raises(Killed):
        program(*words, tmp_path / "a[1].jsonl")
    assert not (tmp_path / "a[1].jsonl").exists()
    assert program(*words, tmp_path / "a[1].jsonl").returncode == 0
    assert len(answered) == 4 + 1 + 5
    assert (tmp_path / "a[1].jsonl").read_bytes() == (tmp_path / "calm.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a[1].jsonl", "calm.jsonl", "questions.jsonl"]


def test_an_interrupted_evaluation_goes_on_where_it_stopped(finished_run, program, monkeypatch):
    import eval.answering.answer

    run, _ = finished_run
    words = ["eval.__main__", run, "eval.rows_per_category=3", "generation.max_new_tokens=5", "eval.batch_tokens=64"]
    assert program(*words, "--force").returncode == 0
    whole = (run / "eval" / "predictions.jsonl").read_bytes()
    shutil.rmtree(run / "eval")
    done: list[eval.answering.answer.Job] = []
    do = eval.answering.answer._do

    def interrupted_after_ten(answerer, questions, job, *more):
        if len(done) == 10:
            raise KeyboardInterrupt
        done.append(job)
        return do(answerer, questions, job, *more)

    monkeypatch.setattr("eval.answering.answer._do", interrupted_after_ten)
    assert program(*words).returncode == 130
    (unfinished,) = (run / "eval").glob(".predictions.jsonl.unfinished-*")
    unfinished.write_bytes(unfinished.read_bytes()[:-3])  # the last line was cut by the interruption

    def never_again(answerer, questions, job, *more):
        assert job not in done[:9]
        return do(answerer, questions, job, *more)

    monkeypatch.setattr("eval.answering.answer._do", never_again)
    assert program(*words).returncode == 0
    assert (run / "eval" / "predictions.jsonl").read_bytes() == whole
    assert not list((run / "eval").glob(".predictions*"))


@pytest.mark.slow
def test_two_processes_evaluate_as_one_does(finished_run, command, program):
    run, _ = finished_run
    words = [
        run,
        "eval.rows_per_category=2",
        "generation.max_new_tokens=5",
        "eval.batch_tokens=64",
        "eval.resamples=50",
    ]
    assert program("eval.__main__", *words, "--force").returncode == 0
    names = ("predictions.jsonl", "results.json", "answers.json")
    alone = [(run / "eval" / name).read_bytes() for name in names]
    shutil.rmtree(run / "eval")
    result = command("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "eval", *words)
    assert result.returncode == 0, result.stderr
    assert [(run / "eval" / name).read_bytes() for name in names] == alone


def test_a_sweep_answers_each_setting_once_and_reports(finished_run, program):
    run, _ = finished_run
    words = ["eval.__main__", "sweep", run, "eval.rows_per_category=1", "generation.max_new_tokens=3"]
    result = program(*words)
    assert result.returncode == 0, result.stderr
    sweep = json.loads((run / "eval" / "sweep" / "sweep.json").read_text())
    assert len(sweep["settings"]) == 5  # a penalty of 1 has no scope
    assert result.stderr.count("(8 rows to answer)") == 2  # penalty 5 in both scopes
    assert result.stderr.count("(3 rows with a context)") == 2  # scope all with 1.2 and 5
    assert (run / "eval" / "sweep" / "sweep.html").is_file()
    wrong = program(*words, "generation.top_p=[0.5,7]")
    assert wrong.returncode == 2
    assert "generation.top_p: must be at most 1" in wrong.stderr


def test_an_interrupted_sweep_goes_on_where_it_stopped(finished_run, program, monkeypatch):
    import eval.answering.answer

    run, _ = finished_run
    words = ["eval.__main__", "sweep", run, "eval.rows_per_category=1", "generation.max_new_tokens=[2,3]"]
    words += ["eval.batch_tokens=64", "--force"]
    done: list[eval.answering.answer.Job] = []
    do = eval.answering.answer._do

    def interrupted_after_two(answerer, questions, job, settings, tick):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job)
        assert [generation["max_new_tokens"] for generation in settings] == [2, 3]
        assert all(len(question.prompt.ids) + 3 <= answerer.context_length for question in questions)
        return do(answerer, questions, job, settings, tick)

    monkeypatch.setattr("eval.answering.answer._do", interrupted_after_two)
    assert program(*words).returncode == 130
    again: list[eval.answering.answer.Job] = []
    monkeypatch.setattr("eval.answering.answer._do", lambda *a: again.append(a[2]) or do(*a))
    assert program(*words).returncode == 0
    assert again
    assert not [job for job in again if job in done]
    assert not list((run / "eval" / "sweep").glob(".predictions*"))
    too_long = program(*words[:-3], "--force", "generation.max_new_tokens=[2,100000]")
    assert too_long.returncode == 2
    assert "leave no room for a prompt in 2048; set generation.max_new_tokens to less" in too_long.stderr


def test_rows_of_another_file_are_a_benchmark(finished_run, program, tmp_path):
    run, _ = finished_run
    row = {"index": "q", "instruction": "首都は?", "input": "", "output": "東京", "answers": ["東京", "東京都"]}
    (tmp_path / "quiz.jsonl").write_text(json.dumps(row | {"category": "open_qa"}) + "\n")
    result = program("eval.__main__", run, f"eval.data={tmp_path / 'quiz.jsonl'}", "generation.max_new_tokens=3")
    assert result.returncode == 0, result.stderr
    predictions = list(read_predictions(run / "eval" / "quiz" / "predictions.jsonl"))
    assert [p.example.answers for p in predictions] == [("東京", "東京都")] * 2


def test_rows_of_another_file_may_have_columns_of_their_own_and_few_unusable_ones(finished_run, program, tmp_path):
    run, _ = finished_run
    quiz = tmp_path / "faq.csv"
    quiz.write_text("件名,対応\n首都は?,東京\n人口は?,\n", encoding="utf-8")
    words = [f"eval.data={quiz}", "eval.columns={instruction: 件名, output: 対応}", "generation.max_new_tokens=3"]
    stopped = program("eval.__main__", run, *words)
    assert stopped.returncode == 2
    assert "rows: 1 of 2 cannot be used (50.0%)" in stopped.stderr
    assert "mend the data, or answer the rest with data.allow_dropped=0.5" in stopped.stderr
    result = program("eval.__main__", run, *words, "data.allow_dropped=0.5")
    assert result.returncode == 0, result.stderr
    answers = run / "eval" / "faq" / "predictions.jsonl"
    assert [one.example.output for one in read_predictions(answers)] == ["東京"] * 2
    assert "row 2 · " in (answers.parent / "report.md").read_text(encoding="utf-8")
    scored = ["score", answers, "--output", tmp_path / "again", "--training-data", quiz]
    assert "no column" in program("eval.__main__", *scored, "data.columns={output: 答}").stderr
    assert program("eval.__main__", *scored, "data.columns={instruction: 件名, output: 対応}").returncode == 0
    assert "and there is none" in program("eval.__main__", *scored[:4], "data.columns={output: 答}").stderr
