"""`training.keep_best` and `training.patience`: the run ends with its best step, whatever interrupted it."""

import json
import math

import pytest

from sft.checks.data_checks import kept_by
from sft.run.manifest import read_manifest
from sft.training.best import best_of
from sft.training.trainer import RunTrainer

ADAPTER = "adapter_model.safetensors"
LOSSES = {2: 5.0, 4: 4.0, 6: 3.0, 8: 3.5, 10: 3.0, 12: 1.0}
"""By step; patience ends at step 10, before the lowest."""


@pytest.fixture
def train(program, tiny_base, tmp_path, monkeypatch):
    """A training of 12 steps in two epochs, with these validation losses."""
    does = RunTrainer.log

    def log(self, logs, *args, **kwargs):
        if "eval_context_loss" in logs:
            logs["eval_context_loss"] = LOSSES[self.state.global_step]
        does(self, logs, *args, **kwargs)

    monkeypatch.setattr(RunTrainer, "log", log)

    def run(*more):
        return program(
            "train_sft", "configs/tiny.yaml", f"model.base={tiny_base}", "model.build=null", "lora.lora_dropout=0.1",
            "data.train_rows=44", "data.validation_share=0.2", "training.total_batch_size=8",
            "training.num_train_epochs=2", "training.save_steps=4", "training.save_total_limit=1",
            "training.learning_rate=1e-2",
            "training.eval_strategy=steps", "training.eval_steps=2", "training.keep_best=context",
            "training.patience=2", f"run.directory={tmp_path / 'run'}", *more,
        )  # fmt: skip

    return run


def names(run):
    return sorted(path.name for path in (run / "checkpoints").glob("*"))


class Killed(BaseException):
    """Nothing catches it, so that files stay as they are at this moment."""


def kill_in(monkeypatch, name, count, run):
    """Be killed the `count`th time that the trainer's method `name` is called."""
    does, calls = getattr(RunTrainer, name), iter(range(1, 1000))

    def killed(*args, **kwargs):
        if next(calls) == count:
            raise Killed
        return does(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(RunTrainer, name, killed)
        with pytest.raises(Killed):
            run()


def validations(run):
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [record["step"] for record in map(json.loads, lines) if "eval_context_loss" in record]


def check_best(run):
    """What a run holds that kept its sixth step, when it ended."""
    assert names(run) == ["checkpoint-6", "checkpoint-8"]
    best = (run / "adapter" / ADAPTER).read_bytes()
    assert best == (run / "checkpoints/checkpoint-6" / ADAPTER).read_bytes()
    assert best != (run / "checkpoints/checkpoint-8" / ADAPTER).read_bytes()
    assert validations(run) == [2, 4, 6, 8, 10]
    kept = read_manifest(run).kept
    assert (kept.step, kept.of, kept.by, kept.loss) == (6, 10, "context", 3.0)
    return best


def test_the_best_step_is_kept_and_patience_ends_the_run(train, tmp_path):
    run = tmp_path / "run"
    done = train()
    assert done.returncode == 0, done.stderr
    assert "step 10: 2 validations without a better one than that of step 6; stopping" in done.stdout
    assert "adapter: step 6 of 10, whose context validation loss is the lowest (3.0000)" in done.stdout
    check_best(run)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [("evaluate", 4), ("take_best", 1)])
def test_the_best_step_is_kept_by_a_run_that_was_interrupted(train, tmp_path, monkeypatch, moment):
    kill_in(monkeypatch, *moment, train)
    done = train("--resume")
    assert done.returncode == 0, done.stderr
    best = check_best(tmp_path / "run")
    if moment == ("take_best", 1):  # and the same as one that nothing interrupts
        assert train("--force").returncode == 0
        assert check_best(tmp_path / "run") == best


@pytest.mark.slow
def test_a_checkpoint_at_the_end_of_an_epoch_waits_for_its_validation(train, tmp_path, monkeypatch):
    by_epoch = ("training.eval_strategy=epoch", "training.save_steps=6", "training.patience=null")
    kill_in(monkeypatch, "evaluate", 1, lambda: train(*by_epoch))
    assert names(tmp_path / "run") == []  # it would go on after the validation that it never had
    kill_in(monkeypatch, "evaluate", 2, lambda: train(*by_epoch, "--force"))
    assert names(tmp_path / "run") == ["checkpoint-6"]
    assert train(*by_epoch, "--resume").returncode == 0
    assert validations(tmp_path / "run") == [6, 12]


def test_a_best_checkpoint_that_is_damaged_is_not_taken_and_the_last_step_can_be(train, tmp_path, monkeypatch):
    run = tmp_path / "run"
    kill_in(monkeypatch, "take_best", 1, train)
    (run / "checkpoints/checkpoint-6" / ADAPTER).write_bytes(b"")
    done = train("--resume")
    assert done.returncode == 2
    assert f"checkpoint-6: cannot be used: {ADAPTER} is damaged" in done.stderr
    assert "--resume training.keep_best=null training.patience=null ends with the last" in done.stderr
    assert not (run / "adapter").exists()
    done = train("--resume", "training.keep_best=null", "training.patience=null")
    assert done.returncode == 0, done.stderr
    assert read_manifest(run).kept.model_dump() == {"step": 12, "of": 12, "by": None, "loss": None}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["training.patience=2"], "training.patience: waits for a better validation, and nothing says by whose loss"),
        (["training.keep_best=open", "training.eval_strategy=no"], "needs validations, and training.eval_strategy is"),
        (["training.keep_best=closed_qa"], "training.keep_best: "),
        (["training.load_best_model_at_end=true"], "use training.keep_best (overall, or a group"),
        (["training.early_stopping_patience=3"], "use training.patience with training.keep_best"),
        (["training.save_strategy=best"], "for the best: training.keep_best"),
        (["training.keep_best=open", "data.validation_share=0"], "decided by 0 validation rows; raise data.validation"),
    ],
)
def test_what_cannot_be_is_one_line(program, tiny_base, tmp_path, words, said):
    run = tmp_path / "run"
    done = program("train_sft", "configs/tiny.yaml", f"model.base={tiny_base}", f"run.directory={run}", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not run.exists()


def test_few_validation_rows_are_worth_a_look():
    rows = {"open": range(25), "context": range(19)}

    def level(by):
        return [line.level for line in kept_by(by, rows)]

    assert [level(by) for by in (None, "open", "overall")] == [[], ["green"], ["green"]]
    assert (level("context"), level("other")) == (["yellow"], ["red"])
    assert "19 validation rows, fewer than 20: chance decides" in kept_by("context", rows)[0].found
    assert "take a group that has some (overall, open, context)" in kept_by("other", rows)[0].remedy


def test_the_best_is_the_first_of_equal_ones():
    def history(*losses):
        return [{"step": step, "eval_open_loss": loss} for step, loss in enumerate(losses)] + [{"step": 9, "loss": 1}]

    assert best_of(history(), "open") is None
    assert best_of(history(3.0, 2.0, 2.0, 4.0), "open") == (1, 2.0, 2)
    assert best_of(history(3.0, 2.0), "open") == (1, 2.0, 0)
    assert best_of(history(math.nan, 2.0, math.nan), "open") == (1, 2.0, 1), "no number is better than none"
