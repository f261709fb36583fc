"""fp16: its loss scaler leaves steps out, is kept in checkpoints and ends; what cannot compute in it is refused."""

import json
import math

import pytest
import torch
from test_trainer import CPU, log_records, make_trainer
from transformers import TrainerCallback

from sft.checks.model_checks import varlen_kernel
from sft.config.load import load_config
from sft.model.load import load_base
from sft.model.place import wider_format
from sft.plan.cards import find_card
from sft.system.errors import UserError

ONE_STEP = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "no"}


@pytest.fixture
def scaled(tiny_base, tokenizer, tmp_path, monkeypatch):
    """Makes trainers in fp16: accelerate gives a CPU neither its autocast nor its scaler, so both are put in."""

    def make(name, scale, **settings):
        (tmp_path / name).mkdir(exist_ok=True)
        trainer = make_trainer(tiny_base, tokenizer, tmp_path / name, num_train_epochs=2, **settings)
        accelerator = trainer.accelerator
        monkeypatch.setitem(accelerator.state._shared_state, "_mixed_precision", "fp16")
        accelerator.native_amp = True
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=2)
        return trainer

    return make


def learned(trainer):
    return [parameter.detach().clone() for parameter in trainer.model.parameters() if parameter.requires_grad]


class StopAfter(TrainerCallback):
    """Ends a training after so many steps."""

    def __init__(self, steps):
        self.steps = steps

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.steps


def test_steps_whose_scaled_gradients_overflow_are_left_out_and_logged(scaled, tmp_path):
    trainer = scaled("run", 2.0**40, max_steps=1)
    before = learned(trainer)
    trainer.train()
    assert all(map(torch.equal, learned(trainer), before))
    assert trainer.accelerator.scaler.get_scale() == 2.0**39
    record = json.loads(
        (tmp_path / "run" / "log.jsonl").read_text().splitlines()[0],
        parse_constant=lambda name: pytest.fail(f"{name} is not JSON"),
    )
    assert (record["skipped_steps"], "grad_norm" in record) == (1, False)


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_the_scale_it_had_and_ends_with_the_same_adapter(scaled, tmp_path):
    whole, computed = scaled("whole", 2.0**22, **ONE_STEP), set()
    layer = whole.model.get_base_model().gpt_neox.layers[0].mlp.dense_h_to_4h
    layer.register_forward_hook(lambda _, given, output: computed.add(output.dtype))
    whole.train()
    assert computed == {torch.float16}
    steps = [record for record in log_records(tmp_path / "whole") if "loss" in record]
    skipped = sum(record.get("skipped_steps", 0) for record in steps)
    assert 0 < skipped < len(steps), "the scale is to be found by leaving some steps out"
    assert steps[-1]["loss"] < steps[0]["loss"]
    half = scaled("half", 2.0**22, **ONE_STEP)
    half.add_callback(StopAfter(2))
    half.train()
    checkpoint = tmp_path / "half" / "checkpoints" / "checkpoint-2"
    scale = torch.load(checkpoint / "scaler.pt", weights_only=True)["scale"]
    assert scale == half.accelerator.scaler.get_scale()
    # The scale that this one begins with would leave nothing out.
    resumed = scaled("half", 1.0, **ONE_STEP)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.accelerator.scaler.state_dict() == whole.accelerator.scaler.state_dict()
    assert all(map(torch.equal, learned(resumed), learned(whole)))


def test_gradients_that_no_scale_makes_finite_stop_the_run(scaled):
    trainer = scaled("run", 4.0)
    first = next(parameter for parameter in trainer.model.parameters() if parameter.requires_grad)
    first.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(UserError, match=r"the gradient became nan at step 3, in row.*, or model.dtype=bfloat16"):
        trainer.train()


@pytest.mark.parametrize(
    ("quantization", "dtype", "words"),
    [
        (None, torch.float32, None),
        (None, torch.bfloat16, "model.dtype=float32"),
        (None, torch.float16, "model.dtype=bfloat16 (float32 where the card has no bfloat16)"),
        ({"load_in_4bit": True}, torch.float16, "model.dtype=bfloat16 (float32"),
        (
            {"load_in_4bit": True, "bnb_4bit_compute_dtype": "float16"}, torch.bfloat16,
            "model.dtype=bfloat16 quantization.bnb_4bit_compute_dtype=bfloat16",
        ),
        ({"load_in_8bit": True}, torch.float16, "quantization.load_in_8bit=false quantization.load_in_4bit=true"),
        ({"load_in_8bit": True}, torch.bfloat16, "quantization.load_in_8bit=false quantization.load_in_4bit=true"),
    ],
)  # fmt: skip
def test_the_remedy_for_numbers_out_of_range_is_a_format_that_is_wider(tiny_base, quantization, dtype, words):
    model = load_base(str(tiny_base), CPU, torch.float32 if quantization is None else dtype, quantization)
    found = wider_format(model, dtype)
    assert found == words if words is None else found.startswith(words)


@pytest.mark.parametrize("threshold", [0.0, 6.0])
def test_8_bit_products_without_outliers_lose_what_bfloat16_can_hold(tiny_base, threshold):
    """bitsandbytes casts activations to fp16 before it quantises them, outliers (from a threshold on) excepted."""
    quantization = {"load_in_8bit": True, "llm_int8_threshold": threshold}
    model = load_base(str(tiny_base), CPU, torch.bfloat16, quantization).eval()
    states = torch.ones(1, 4, 512, dtype=torch.bfloat16)
    for size in (2.0**15, 2.0**17):
        finite = model.gpt_neox.layers[0].mlp.dense_4h_to_h(states * size).isfinite().all()
        assert finite == (threshold > 0 or size < 65_504)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["model.dtype=float16"], "model.dtype float16"),
        (["model.dtype=float32"], "model.dtype float32"),
        (["model.device=cpu"], "varlen needs a GPU"),
        (["lora=null"], "all that are trained are fp32"),
    ],
)
def test_varlen_is_refused_where_the_configuration_leaves_it_no_bfloat16(words, found):
    varlen = ["training.packed_attention=varlen", "model.device=auto", "model.dtype=auto"]
    assert load_config("configs/tiny.yaml", varlen).training["packed_attention"] == "varlen"
    with pytest.raises(UserError, match=r"training.packed_attention.*use documents or dense") as error:
        load_config("configs/tiny.yaml", [*varlen, *words])
    assert found in str(error.value)
    load_config("configs/tiny.yaml", [*varlen, *words, "training.pack=false"])  # it is not used


def test_varlen_is_refused_on_cards_without_its_kernels():
    (line,) = varlen_kernel(find_card("T4"), on_cpu=False)
    assert line.level == "red"
    assert "T4 is older than compute capability 8.0" in line.found
    assert [varlen_kernel(card, on_cpu=False) for card in (find_card("RTX3090"), find_card("24GB"), None)] == [[]] * 3
    (line,) = varlen_kernel(None, on_cpu=True)
    assert "a CPU has none" in line.found
