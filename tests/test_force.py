"""--force over a finished run: whatever ends the new one before its first checkpoint, the old one is there."""

import ast
import errno
import json
import os
import shutil
from functools import partial
from pathlib import Path
from pkgutil import resolve_name

import pytest
from forked import started
from test_doctor import by_character
from tokenizers import Regex, normalizers

from sft.checks import checks, dry_run
from sft.checks.doctor import Line
from sft.prompt.template import ALPACA_JA
from sft.run.checkpoints import RECORD
from sft.run.directory import in_use, lock_directory, newest_finished_run
from sft.system.errors import UserError
from sft.training import train as training
from sft.training.trainer import RunTrainer

ROOT = Path(__file__).parents[1]


@pytest.fixture
def run(trained_run, tmp_path) -> Path:
    """A finished run that may be replaced."""
    copy = tmp_path / "runs" / "a"
    shutil.copytree(trained_run, copy)
    return copy


@pytest.fixture
def force(program, tiny_base, run):
    """Train over the run; its other settings are those of the tiny model."""

    def start(*words: str):
        given = [f"model.base={tiny_base}", "model.build=null", "data.train_rows=16", "training.eval_strategy=no"]
        return program("train_sft", "configs/tiny.yaml", *given, f"run.directory={run}", *words, "--force")

    return start


def contents(directory: Path) -> dict[str, bytes | None]:
    """Every file with its bytes, and every directory."""
    paths = sorted(directory.rglob("*"))
    return {str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None for path in paths}


def base(tiny_base: Path, directory: Path, **changes: object) -> str:
    """The tiny model with another configuration."""
    shutil.copytree(tiny_base, directory)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | changes))
    return str(directory)


def saved(tokenizer, directory: Path) -> str:
    tokenizer.save_pretrained(directory)
    return str(directory)


def more_tokens(tokenizer, directory: Path) -> str:
    """A tokenizer with a token for the rows' first word that the model has no embedding for."""
    tokenizer = type(tokenizer).from_pretrained(saved(tokenizer, directory))
    tokenizer.add_tokens([f"言葉{number}" for number in range(200)] + ["以下は、"])
    return saved(tokenizer, directory)


def few_of_use(directory: Path) -> str:
    """A file of rows, of which every fifth has no answer."""
    directory.mkdir()
    rows = [{"instruction": f"質問{number}", "output": "答え" * bool(number % 5)} for number in range(40)]
    (directory / "rows.json").write_text(json.dumps(rows))
    return str(directory / "rows.json")


STOPS = {
    "rows": lambda b, t, d: [f"data.path={few_of_use(d)}"],
    "special tokens": lambda b, t, d: [f"model.tokenizer={saved(by_character(eos_token=''), d)}"],
    "characters": lambda b, t, d: [f"model.tokenizer={saved(by_character(), d)}"],  # patched to lose the newline
    "model": lambda b, t, d: [f"model.base={base(b, d, model_type='no_such')}", f"model.tokenizer={b}"],
    "LoRA": lambda b, t, d: ["lora.target_modules=[q_proj]"],
    "output layer": lambda b, t, d: ["lora.target_modules=[lm_head,query_key_value]"],
    "output layer, quantised": lambda b, t, d: [
        "quantization.load_in_8bit=true", "quantization.llm_int8_skip_modules=[query_key_value]",
    ],
    "checkpointing": lambda b, t, d: ["training.activation_checkpointing=true"],  # patched not to be supported
    "vocabulary": lambda b, t, d: [f"model.tokenizer={more_tokens(t, d)}"],
    "positions": lambda b, t, d: [f"model.base={base(b, d, max_position_embeddings=16)}"],
    "validation": lambda b, t, d: [
        "training.keep_best=open", "training.eval_strategy=epoch", "data.validation_share=0",
    ],
    "disk": lambda b, t, d: [],  # patched to be full
    "end of text": lambda b, t, d: ["data.truncation=end", "training.max_length=32"],
    "dtype": lambda b, t, d: ["model.dtype=bfloat16"],  # patched to meet a GPU without it
    "packed attention": lambda b, t, d: [  # the same
        "training.packed_attention=varlen", "model.device=auto", "model.dtype=auto",
    ],
}  # fmt: skip
"""The subject of a line that can be red → the settings that make it so, given base model, tokenizer and directory."""


@pytest.mark.parametrize("subject", STOPS)
def test_what_the_doctor_stops_is_refused_in_its_words_and_leaves_the_run(
    subject, force, run, tiny_base, tokenizer, tmp_path, monkeypatch
):
    words = STOPS[subject](tiny_base, tokenizer, tmp_path / "other")
    if subject == "characters":
        lost = by_character(normalizers.Replace(Regex("\n"), " "))
        for module in (checks, dry_run):
            monkeypatch.setattr(module, "read_tokenizer", lambda config: (lost, ALPACA_JA))
    if subject == "checkpointing":
        monkeypatch.setattr("transformers.GPTNeoXForCausalLM.supports_gradient_checkpointing", False)
    if subject == "disk":
        monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**3))
    if subject in ("dtype", "packed attention"):
        monkeypatch.setattr(checks, "card_of", lambda device: checks.Card("T4", 16e9, bfloat16=False))
    monkeypatch.setattr(training, "load_model", lambda *_: pytest.fail("weights were loaded"))
    before = contents(run.parent)
    done = force(*words)
    assert done.returncode == 2, done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"error: {subject.partition(',')[0]}: ") or subject == "model"
    assert "; " in line  # with the remedy
    assert contents(run.parent) == before | {".a.lock": contents(run.parent)[".a.lock"]}
    shown = force(*words, "--dry-run", *(["--card", "T4"] if subject in ("dtype", "packed attention") else []))
    assert shown.returncode == 1
    assert f"STOP{subject.partition(',')[0]}".replace(" ", "") in "".join(shown.stdout.split())


def test_every_line_that_can_be_red_is_among_them():
    subjects = set()
    for file in (ROOT / "sft" / "checks").glob("*.py"):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == Line.__name__):
                continue
            levels = {node.value for node in ast.walk(call.args[0]) if isinstance(node, ast.Constant)}
            subject = call.args[1]
            if "red" in levels and isinstance(subject, ast.Constant):
                subjects.add(subject.value)
    assert subjects - {"memory"} <= STOPS.keys()  # memory is an estimate, and warns
    assert {"special tokens", "vocabulary", "positions", "end of text"} <= subjects


def test_a_failure_before_the_first_checkpoint_puts_the_run_back(force, run, monkeypatch):
    before = contents(run)
    monkeypatch.setattr("sft.training.trainer.RunTrainer._get_grad_norm", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        force()
    assert contents(run) == before
    assert sorted(path.name for path in run.parent.iterdir()) == [".a.lock", "a"]


MOMENTS = {
    "when the old run was moved": "sft.run.directory.Path.mkdir",
    "at the first step": "sft.training.trainer.RunTrainer._get_grad_norm",
    "while the first checkpoint is written": "sft.run.checkpoints.complete",
}


def kill_at(moment: str) -> None:
    """Make a training end, as under kill -9, where the function of this name is called after the run was claimed."""
    owner, _, name = MOMENTS[moment].rpartition(".")
    claim = training.claim_directory

    def armed(run: Path) -> None:
        setattr(resolve_name(owner), name, lambda *_, **__: os._exit(9))
        claim(run)

    training.claim_directory = armed


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_is_put_back_by_the_next_command_after_a_kill(moment, run, tiny_base, program):
    before = contents(run)
    words = ["configs/tiny.yaml", f"model.base={tiny_base}", "model.build=null", "data.train_rows=32"]
    words += ["training.eval_strategy=no", "training.save_steps=1", f"run.directory={run}", "--force"]
    killed = started("train_sft", *words, first=partial(kill_at, moment))
    assert killed.wait() == 9, killed.output()
    assert contents(run) != before
    answered = program("infer", run, "--instruction", "図書館は？", "generation.max_new_tokens=2")
    assert answered.returncode == 0, answered.stderr
    assert "the run that was there before is back" in answered.stderr
    assert contents(run) == before
    assert sorted(path.name for path in run.parent.iterdir()) == [".a.lock", "a"]


def test_after_the_first_whole_checkpoint_the_new_run_stays(force, run, program, tiny_base, monkeypatch):
    calls = iter(range(100))

    def interrupted(self, *given, **named):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return original(self, *given, **named)

    original = RunTrainer._get_grad_norm
    with monkeypatch.context() as patch:
        patch.setattr(RunTrainer, "_get_grad_norm", interrupted)
        stopped = force("training.total_batch_size=4", "training.save_steps=1")
    assert stopped.returncode == 130
    assert (run / "checkpoints" / "checkpoint-1" / RECORD).is_file()
    assert sorted(path.name for path in run.parent.iterdir()) == [".a.lock", "a"]
    given = [f"model.base={tiny_base}", "model.build=null", "data.train_rows=16", "training.eval_strategy=no"]
    given += ["training.total_batch_size=4", "training.save_steps=1", f"run.directory={run}", "--resume"]
    assert program("train_sft", "configs/tiny.yaml", *given).returncode == 0


def test_a_hidden_directory_is_never_the_newest_run(run):
    run.rename(run.with_name(".a.replaced-run"))
    assert newest_finished_run(run.parent) == run  # back in its place


def test_a_run_that_is_read_is_not_trained_again(force, run, program):
    before = contents(run)
    with in_use(run):
        refused = force()
        assert refused.returncode == 2
        assert "a: is in use (asked, evaluated or exported); wait for that or stop it" in refused.stderr
        answered = program("infer", run, "--instruction", "図書館は？", "generation.max_new_tokens=2")
        assert answered.returncode == 0, answered.stderr  # readers share it
    with lock_directory(run):
        refused = program("infer", run, "--instruction", "図書館は？")
        assert (refused.returncode, "is being trained" in refused.stderr) == (2, True)
    assert contents(run) == before


@pytest.mark.parametrize(
    ("module", "name", "words"),
    [
        ("eval.evaluate", "answer_under", ["eval.__main__", "RUN"]),
        ("eval.answering.sweep", "answer_under", ["eval.__main__", "sweep", "RUN"]),
        ("sft.export.export", "export", ["sft.export.__main__", "RUN"]),
        ("sft.ask.question", "load", ["infer", "RUN", "--instruction", "図書館は？"]),
    ],
)
def test_every_command_that_reads_a_run_keeps_trainings_out(run, program, monkeypatch, module, name, words):
    met = []

    def reading(*_, **__):
        with pytest.raises(UserError, match="is in use"):
            lock_directory(run)
        met.append(name)
        raise UserError("enough")

    monkeypatch.setattr(f"{module}.{name}", reading)
    program(*(run if word == "RUN" else word for word in words))
    assert met == [name]


@pytest.mark.parametrize("command", ["infer", "eval.__main__", "sft.export.__main__"])
@pytest.mark.parametrize("name", ["/", "loop", "absent", "absent/below", "あ" * 83, "file/below"])
def test_what_is_no_run_is_a_line_and_nothing_is_left_beside_it(program, tmp_path, name, command):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").touch()
    before = contents(tmp_path)
    result = program(command, tmp_path / name)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.startswith("error: ")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["あ" * 83, "あ" * 81])  # by itself, and with what stands beside it
def test_a_run_that_could_not_be_replaced_is_refused_at_once(program, tiny_base, tmp_path, name, monkeypatch):
    monkeypatch.setattr(training, "checked_plan", lambda *_: pytest.fail("rows were read"))
    words = ["configs/tiny.yaml", f"model.base={tiny_base}", "model.build=null", f"run.directory={tmp_path / name}"]
    result = program("train_sft", *words)
    assert (result.returncode, "cannot be made: File name too long" in result.stderr) == (2, True)


def test_a_run_is_read_where_there_are_no_locks_and_trained_where_there_are(force, run, program, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", none)
    answered = program("infer", run, "--instruction", "図書館は？", "generation.max_new_tokens=2")
    assert answered.returncode == 0, answered.stderr
    refused = force()
    assert (refused.returncode, "cannot be locked: No locks available" in refused.stderr) == (2, True)


def test_what_was_learned_without_any_checkpoint_is_never_thrown_away(force, run, monkeypatch):
    def unlucky(*_):
        raise UserError("no picture today")

    old = (run / "adapter" / "adapter_model.safetensors").read_bytes()
    monkeypatch.setattr(training, "plot_loss", unlucky)
    failed = force("training.save_strategy=no")
    assert (failed.returncode, "no picture today" in failed.stderr) == (2, True)
    new = (run / "adapter" / "adapter_model.safetensors").read_bytes()
    assert new != old
    assert "is back" not in failed.stderr


def test_a_training_on_a_cpu_makes_no_estimate_for_gpus_and_looks_at_no_more_ends_than_it_must(force, monkeypatch):
    for name in ("memory", "duration", "end_of_text"):
        monkeypatch.setattr(checks, name, lambda *_: pytest.fail("for the page of the doctor"))
    assert force().returncode == 0


def test_a_link_to_a_run_shares_its_lock_and_stays_a_link(force, run, program, tiny_base):
    link = run.with_name("link")
    link.symlink_to(run)
    with lock_directory(link):
        assert "is being trained by process" in force().stderr
    given = [f"model.base={tiny_base}", "model.build=null", "data.train_rows=16", "training.eval_strategy=no"]
    done = program("train_sft", "configs/tiny.yaml", *given, f"run.directory={link}", "--force")
    assert done.returncode == 0, done.stderr
    assert link.is_symlink()
    assert json.loads((run / "manifest.json").read_text())["rows"]["train"] == 16
    assert sorted(path.name for path in run.parent.iterdir()) == [".a.lock", "a", "link"]


@pytest.mark.parametrize("words", [["--force"], ["--resume"], []])
def test_a_start_that_was_killed_before_its_manifest_does_not_stand_in_the_way(trained_run, tmp_path, program, words):
    run = tmp_path / "run"
    shutil.copytree(trained_run, tmp_path / ".run.replaced-run")  # as a kill after the first renaming leaves it
    run.mkdir()
    (run / ".manifest.json.writing-a6566e4f").write_text("{")
    shutil.copyfile(trained_run / "config.yaml", tmp_path / "config.yaml")
    result = program("train_sft", tmp_path / "config.yaml", f"run.directory={run}", *words)
    assert "the run that was there before is back" in result.stderr
    if words == ["--force"]:
        assert result.returncode == 0
    else:
        assert (result.returncode, "has finished" in result.stderr) == (2, True)
    assert not list(tmp_path.glob(".run.*run"))
    assert (run / "adapter" / "adapter_model.safetensors").is_file()
