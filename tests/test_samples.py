"""Sample answers: the same validation questions at every validation, as infer.py answers them, and training unmoved."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from sft.config.changes import training_changes
from sft.config.load import load_config
from sft.run.held_out import read_side, training_data
from sft.run.manifest import read_manifest
from sft.system.errors import UserError
from sft.training import samples
from sft.training.log import read_lines
from sft.training.samples import Question, SampleAnswers, lines


@pytest.fixture(scope="module")
def runs(tiny_base, tmp_path_factory):
    """The same training with samples and without, two validations each."""
    import train_sft

    made = {}
    for number in (2, 0):
        run = made[number] = tmp_path_factory.mktemp("samples") / "run"
        words = [f"model.base={tiny_base}", "model.build=null", f"run.directory={run}", "data.train_rows=32"]
        words += ["data.validation_share=0.2", "training.total_batch_size=16", f"training.samples={number}"]
        words += ["training.eval_strategy=steps", "training.eval_steps=1", "training.learning_rate=1e-2"]
        words += ["generation.temperature=0.7", "generation.max_new_tokens=8"]  # samples are greedy all the same
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["train_sft", "configs/tiny.yaml", *words])
            train_sft.main()
    return made


def test_training_is_bitwise_the_same_with_samples_and_without(runs):
    with_them, without = (read_manifest(runs[number]) for number in (2, 0))
    assert with_them.learned["adapter_model.safetensors"] == without.learned["adapter_model.safetensors"]
    timed = ("tokens_per_second", "memory_peak_bytes", "train_runtime")
    losses = [
        [{key: value for key, value in line.items() if key not in timed and "per_second" not in key} for line in log]
        for log in (read_lines(runs[number] / "log.jsonl") for number in (2, 0))
    ]
    assert losses[0] == losses[1]
    assert not (runs[0] / "samples.jsonl").exists()


def test_the_same_few_validation_questions_come_at_every_validation_and_no_test_row(runs):
    found = read_lines(runs[2] / "samples.jsonl")
    by_step = {step: [one for one in found if one["step"] == step] for step in (1, 2)}
    assert [one["index"] for one in by_step[1]] == [one["index"] for one in by_step[2]]
    assert [one["group"] for one in by_step[1]] == ["open", "open", "context", "context", "other", "other"]
    config = load_config(runs[2] / "config.yaml", to_train=False)
    validation = {row["index"]: row for row in read_side(runs[2], "validation", training_data(runs[2], config))}
    for one in found:
        row = validation[one["index"]]
        assert (one["question"], one["context"], one["reference"]) == (row["instruction"], row["input"], row["output"])
        assert one["finish_reason"] in ("eos", "heading", "length")
    assert [one["answer"] for one in by_step[1]] != [one["answer"] for one in by_step[2]]


def test_the_last_ones_are_what_infer_answers(runs):
    from sft.generation.answerer import load_answerer, open_run

    answerer = load_answerer(open_run(runs[2], ["generation.temperature=0"]))
    for one in read_lines(runs[2] / "samples.jsonl")[-6:]:
        answer = answerer.answer(answerer.prompt(one["question"], one["context"]).ids)
        assert (one["answer"], one["finish_reason"]) == (answer.text, answer.finish_reason)


def test_validation_losses_say_how_many_rows_they_rest_on(runs):
    split = json.loads((runs[2] / "split.json").read_text())
    record = next(line for line in read_lines(runs[2] / "log.jsonl") if "eval_open_loss" in line)
    assert sum(record[f"eval_{group}_rows"] for group in ("open", "context", "other")) == len(split["validation"])


@pytest.mark.parametrize("rank", [0, 1])
def test_where_the_launcher_divides_the_weights_nobody_is_asked_and_one_process_says_so(monkeypatch, capsys, rank):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setattr(samples, "RANK", rank)
    config = load_config("configs/tiny.yaml", ["training.eval_strategy=epoch"])
    assert samples.sample_answers(config, SimpleNamespace(validation={"open": []}), None, print) is None
    assert ("no sample answers: the weights are divided" in capsys.readouterr().out) is (rank == 0)


def test_their_number_may_change_on_resume():
    two, none = (load_config("configs/tiny.yaml", [f"training.samples={number}"]) for number in (2, 0))
    assert not training_changes(two, none)


class FailingAnswerer:
    model = torch.nn.Dropout()

    def answer_all(self, *_):
        torch.rand(5)
        raise UserError("the model's logits are not finite numbers")


def test_an_answer_that_fails_costs_neither_the_training_nor_its_random_state(tmp_path, capsys):
    example = SimpleNamespace(named="row 1", index="1", group="open", instruction="問い", input="", output="答え")
    told = []
    asking = SampleAnswers(
        FailingAnswerer(), [Question(example, [1])], tmp_path / "samples.jsonl", lambda *found: told.append(found)
    )
    state, before = SimpleNamespace(is_world_process_zero=True, global_step=7), torch.get_rng_state()
    asking.on_evaluate(None, state, None)
    assert torch.equal(torch.get_rng_state(), before)
    assert asking.answerer.model.training
    assert "step 7: no sample answers: the model's logits" in capsys.readouterr().err
    assert not told
    assert not asking.path.exists()


def test_a_resumed_run_drops_the_answers_of_steps_that_it_does_again(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps({"step": step, "answer": "一\u2028二"}) + "\n" for step in (5, 10, 15)) + '{"st')
    state = SimpleNamespace(is_world_process_zero=True, global_step=10)
    SampleAnswers(FailingAnswerer(), [], path, print).on_train_begin(None, state, None)
    assert [line["step"] for line in read_lines(path)] == [5, 10]


def test_the_terminal_shows_two_lines_an_answer_that_obey_no_one(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    one = {
        "step": 3, "row": "12", "group": "open", "question": "富士山の高さを教えてください。" * 5,
        "answer": "\x1b[2J三千\n" * 30, "finish_reason": "length",
    }  # fmt: skip
    asked, answered = lines([one])
    assert asked.startswith("step     3  open, 12: 富士山")
    assert asked.endswith("…")
    assert answered.endswith("…  [length]")
    assert "\x1b" not in answered
    assert "\n" not in answered
