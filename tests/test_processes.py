"""Several processes train as one does, with whole or divided weights; the launcher's files say what they mean to."""

import json
import os
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from forked import started
from safetensors.torch import load_file

from sft.run.directory import holds_something
from sft.system.errors import UserError
from sft.system.processes import check_divided, check_engine

ROOT = Path(__file__).parents[1]
LAUNCHERS = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))
ADAPTER = "adapter/adapter_model.safetensors"
STOP = {"STOP_AT_STEP": "5"}
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def launcher_environment(name):
    """What `accelerate launch --config_file` with this file tells the processes it starts."""
    words = ["--config_file", str(ROOT / "configs" / "accelerate" / name), "train_sft.py", "configs/calm7b.yaml"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    if arguments.use_deepspeed:
        arguments.deepspeed_fields_from_accelerate_config = ""  # for errors about a file of DeepSpeed's own
        _, environment = prepare_deepspeed_cmd_env(arguments)
    else:
        environment = prepare_multi_gpu_env(arguments)
    told = ("ACCELERATE_", "FSDP_")
    return {key: value for key, value in environment.items() if key.startswith(told) and key not in os.environ}


ENGINES = {
    "ddp": {},
    "fsdp": launcher_environment("fsdp2.yaml"),
    "zero3": launcher_environment("zero3.yaml") | {"DS_ACCELERATOR": "cpu"},
}


@pytest.fixture(scope="module")
def gemma(tiny_base, tokenizer, tmp_path_factory):
    """A random Gemma3: tied embeddings, and windows of attention."""
    import torch
    from transformers import AutoModelForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, head_dim=16, sliding_window=64, layer_types=["sliding_attention", "full_attention"],
        max_position_embeddings=512, bos_token_id=0, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    directory = tmp_path_factory.mktemp("base") / "gemma"
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def train(command, root, launcher, *jobs):
    """Train in `root` in the processes that `launcher` starts; a job is environment, run's name, words."""
    lines = [(environment, [*words, f"run.directory={root / name}"]) for environment, name, words in jobs]
    (root / "jobs.json").write_text(json.dumps(lines))
    # One thread each: on a machine at work, more wait for each other.
    result = command(
        *launcher, "tests/two_processes.py", root / "jobs.json", env=os.environ | {"LOCAL_WORLD_SIZE": "2"}
    )
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def kinds(tiny_base):
    """Trainings by name, as words: six steps, some of them clipped, and two with one row, where a process has none."""
    packed = [
        "configs/tiny.yaml", f"model.base={tiny_base}", "model.build=null", "lora.lora_dropout=0", "data.train_rows=17",
        "training.max_length=256", "training.total_batch_size=8", "training.num_train_epochs=2",
        "training.per_device_train_batch_size=2", "training.learning_rate=1e-2", "training.save_steps=2",
        "training.max_grad_norm=0.25", "training.adam_epsilon=1e-3",
    ]  # fmt: skip
    # Adam would make steps of full size of gradients that are zero but for rounding; above, its epsilon forbids it.
    everything = [*packed, "lora=null", "training.optim=sgd", "training.learning_rate=0.1"]
    return {"packed": packed, "padded": [*packed, "training.pack=false"], "everything": everything}


@pytest.fixture(scope="module")
def runs(command, kinds, tmp_path_factory):
    """Directory of runs: "one-…" by one process, "ddp-…" by two; "…-stopped" has ended at step 5 and was resumed."""
    root = tmp_path_factory.mktemp("runs")
    train_in_one(root, {"packed": kinds["packed"]})
    train(command, root, TORCHRUN, *whole_and_stopped("ddp", kinds))
    return root


@pytest.fixture(scope="module")
def other_runs(command, kinds, runs):
    """The same directory, with runs of the other kinds."""
    others = {kind: words for kind, words in kinds.items() if kind != "packed"}
    train_in_one(runs, others)
    train(command, runs, TORCHRUN, *[({}, f"ddp-{kind}", words) for kind, words in others.items()])
    return runs


def train_in_one(root, kinds):
    for kind, words in kinds.items():
        one = started("train_sft", *words, f"run.directory={root / f'one-{kind}'}")
        assert one.wait() == 0, one.output()


@pytest.fixture(scope="module")
def divided_runs(command, kinds, runs):
    """The same directory, with "fsdp-…" by two processes whose weights are divided."""
    train(command, runs, TORCHRUN, *whole_and_stopped("fsdp", kinds))
    return runs


def whole_and_stopped(engine, kinds):
    environment, words = ENGINES[engine], kinds["packed"]
    yield environment, f"{engine}-packed", words
    yield environment | STOP, f"{engine}-stopped", words
    yield environment, f"{engine}-stopped", [*words, "--resume"]


def records(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def assert_same_training(run, one, rel=1e-5):
    assert sum("grad_norm" in record for record in records(one)) == 6
    for ours, theirs in zip(records(run), records(one), strict=True):
        for name in [name for name in theirs if name.endswith("loss") or name == "grad_norm"]:
            assert ours[name] == pytest.approx(theirs[name], rel=rel), name
    learned = ADAPTER if (one / ADAPTER).exists() else "model/model.safetensors"
    ours, theirs = load_file(run / learned), load_file(one / learned)
    assert ours.keys() == theirs.keys()
    for key in theirs:
        assert ours[key].dtype == theirs[key].dtype
        assert float((ours[key] - theirs[key]).abs().max()) < 10 * rel * float(theirs[key].abs().max())


def test_two_processes_train_as_one_does(runs):
    assert_same_training(runs / "ddp-packed", runs / "one-packed")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["padded", "everything"])
def test_two_processes_train_the_other_kinds_as_one_does(other_runs, kind):
    assert_same_training(other_runs / f"ddp-{kind}", other_runs / f"one-{kind}")


@pytest.mark.slow
def test_two_processes_with_divided_weights_train_as_one_does(divided_runs):
    assert_same_training(divided_runs / "fsdp-packed", divided_runs / "one-packed")
    assert_one_process_wrote(divided_runs, "fsdp")
    assert_resumed_to_the_same(divided_runs, "fsdp")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["fsdp", "zero3"])
def test_divided_weights_of_other_kinds(command, kinds, gemma, tmp_path, engine):
    if engine == "zero3":
        pytest.importorskip("deepspeed")
    # Adam would make steps of full size of what bf16 rounds differently.
    bf16 = ["model.dtype=bfloat16", "training.optim=sgd", "training.learning_rate=0.1"]
    more = {
        "packed": kinds["packed"],
        "padded": kinds["padded"],
        "gemma": [*kinds["packed"], f"model.base={gemma}", "lora.target_modules=[q_proj,v_proj]"],
        "bf16": [*kinds["packed"], *bf16],
        "checkpointing": [*kinds["packed"], "training.activation_checkpointing=true"],
    }
    if engine == "zero3":
        del more["bf16"]
    train(command, tmp_path, [], *[({}, f"one-{kind}", words) for kind, words in more.items()])
    train(command, tmp_path, TORCHRUN, *[(ENGINES[engine], f"two-{kind}", words) for kind, words in more.items()])
    for kind in more:
        rel = 1e-3 if kind == "bf16" else 1e-5  # another micro-batch is rounded otherwise in bf16, on one process too
        assert_same_training(tmp_path / f"two-{kind}", tmp_path / f"one-{kind}", rel)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_run_with_dropout_resumes_to_the_same_adapter(command, kinds, tmp_path, engine):
    if engine == "zero3":
        pytest.importorskip("deepspeed")
    words = [*kinds["packed"], "lora.lora_dropout=0.1"]
    environment = ENGINES[engine]
    train(command, tmp_path, TORCHRUN, (environment, "whole", words))
    with pytest.raises(AssertionError, match="exitcode  : 9"):
        train(command, tmp_path, TORCHRUN, (environment | {"DIE_AT_STEP": "5"}, "killed", words))
    train(command, tmp_path, TORCHRUN, (environment, "killed", [*words, "--resume"]))
    assert (tmp_path / "killed" / ADAPTER).read_bytes() == (tmp_path / "whole" / ADAPTER).read_bytes()


def test_one_process_writes_the_run(runs):
    assert_one_process_wrote(runs, "ddp")


def assert_one_process_wrote(runs, engine):
    checkpoint = sorted(path.name for path in (runs / f"{engine}-packed" / "checkpoints" / "checkpoint-6").iterdir())
    assert [name for name in checkpoint if name.startswith("rng_state")] == ["rng_state_0.pth", "rng_state_1.pth"]
    assert ("pytorch_model_fsdp.bin" in checkpoint) is (engine == "fsdp")  # else nothing was divided
    adapter = {path.name for path in (runs / f"{engine}-packed" / "adapter").iterdir()}
    assert adapter == {path.name for path in (runs / "one-packed" / "adapter").iterdir()}


def test_a_stopped_run_resumes_to_the_same_adapter(runs):
    assert_resumed_to_the_same(runs, "ddp")


def assert_resumed_to_the_same(runs, engine):
    stopped, whole = runs / f"{engine}-stopped", runs / f"{engine}-packed"
    assert [record["step"] for record in records(stopped)] == [record["step"] for record in records(whole)]
    assert (stopped / ADAPTER).read_bytes() == (whole / ADAPTER).read_bytes()


@pytest.mark.parametrize("file", LAUNCHERS, ids=lambda path: path.stem)
def test_the_launcher_reads_each_file_and_knows_every_key(file):
    config = load_config_from_file(str(file))
    # The launcher takes a misspelt key of a section as it is and goes by its default.
    known = {action.dest for action in launch_command_parser()._actions}
    assert {key for section in (config.fsdp_config, config.deepspeed_config) for key in section or {}} <= known
    told = launcher_environment(file.name)
    assert told["ACCELERATE_MIXED_PRECISION"] == "no"
    assert ("FSDP_VERSION" in told) is (file.stem == "fsdp2")
    assert ("ACCELERATE_DEEPSPEED_ZERO_STAGE" in told) is (file.stem == "zero3")


@pytest.fixture
def asked_for(monkeypatch):
    def ask(file, **changes):
        for name, value in (launcher_environment(file) | changes).items():
            monkeypatch.setenv(name, value)

    return ask


def test_the_file_for_fsdp_is_what_the_program_wants(asked_for):
    asked_for("fsdp2.yaml")
    check_engine(quantised=False, adapter=True, dtype="torch.bfloat16")
    check_divided("FSDP")


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("fsdp2.yaml", {"FSDP_VERSION": "1"}, "FSDP is to be used with FSDP_VERSION=2"),
        ("fsdp2.yaml", {"FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"}, "with FSDP_STATE_DICT_TYPE=FULL_STATE_DICT"),
        ("zero3.yaml", {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}, "with ACCELERATE_DEEPSPEED_ZERO_STAGE=3"),
        ("zero3.yaml", {}, "DeepSpeed is not installed; pip install deepspeed"),
    ],
)
def test_a_launcher_that_asks_for_what_is_not_there_is_refused(asked_for, monkeypatch, file, changes, message):
    asked_for(file, **changes)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=message):
        check_engine(quantised=False, adapter=True, dtype="torch.float32")


@pytest.mark.parametrize(
    ("file", "model", "message"),
    [
        ("fsdp2.yaml", (True, True, "torch.bfloat16"), "only unquantised weights are divided"),
        ("zero3.yaml", (True, True, "torch.float32"), "only unquantised weights are divided"),
        ("fsdp2.yaml", (False, False, "torch.bfloat16"), r"all trained \(lora: null\) are not divided"),
        ("zero3.yaml", (False, True, "torch.bfloat16"), "would turn the weights into fp32 and say nothing"),
    ],
)
def test_weights_that_an_engine_does_not_divide_are_refused(asked_for, monkeypatch, file, model, message):
    asked_for(file)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    with pytest.raises(UserError, match=message):
        check_engine(*model)


def test_fsdp_that_accelerate_would_leave_out_is_refused_before_the_run_begins(asked_for, program, tiny_base, tmp_path):
    asked_for("fsdp2.yaml")
    run = tmp_path / "run"
    words = [f"model.base={tiny_base}", "model.build=null", f"run.directory={run}", "data.train_rows=8"]
    result = program("train_sft", "configs/tiny.yaml", *words, "training.total_batch_size=8")
    assert result.returncode == 2
    assert "divides weights only among several processes on GPUs, and would train without that here" in result.stderr
    assert not holds_something(run)
