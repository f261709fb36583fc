"""Training: the right loss, all of the formatting function, a saved adapter that is the trained model."""

import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM
from trl import SFTConfig

from sft.data.read import load_data
from sft.data.rows import select
from sft.model.adapter import check_adapter
from sft.model.load import load_base
from sft.model.lora import add_lora, check_targets, load_adapter
from sft.prompt.row_encoder import RowEncoder
from sft.prompt.template import ALPACA_JA, FormattingFunction, PromptTemplate
from sft.system.errors import UserError
from sft.training.trainer import RunTrainer

LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0}
CPU = torch.device("cpu")


def sample_rows(count):
    return select(load_data("data/sample.jsonl").rows, slice(count))


def make_trainer(
    base,
    tokenizer,
    tmp_path,
    formatting_func=None,
    quantization=None,
    train_on_inputs=True,
    pack=True,
    packed_attention="auto",
    targets=("query_key_value",),
    **args,
):
    model = load_base(str(base), CPU, torch.float32, quantization)
    torch.manual_seed(0)
    rows = sample_rows(20)
    encoder = RowEncoder(
        tokenizer, formatting_func or FormattingFunction(ALPACA_JA), 512, train_on_inputs=train_on_inputs
    )
    settings = {
        "per_device_train_batch_size": 1, "num_train_epochs": 1,
        "learning_rate": 1e-2, "logging_steps": 1, "save_strategy": "no", "eval_strategy": "epoch",
        "activation_checkpointing": False,
    } | args  # fmt: skip
    return RunTrainer(
        model=add_lora(model, LORA | {"target_modules": list(targets)}),
        args=SFTConfig(
            output_dir=str(tmp_path / "checkpoints"), use_cpu=True, bf16=False, report_to="none",
            completion_only_loss=False, dataloader_pin_memory=False, **settings,
        ),
        train_dataset=select(rows, slice(16)),
        eval_datasets={"open": select(rows, slice(16, 18)), "context": select(rows, slice(18, 20))},
        tokenizer=tokenizer,
        encoder=encoder,
        run_id="", log_path=tmp_path / "log.jsonl",
        total_batch_size=8,
        pack=pack,
        packed_attention=packed_attention,
    )  # fmt: skip


def log_records(tmp_path):
    return [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]


def test_the_formatting_function_makes_every_row_and_nothing_is_ignored(
    tiny_base, tokenizer, tmp_path, caplog, recwarn
):
    seen = []

    class Seeing(FormattingFunction):
        def __call__(self, row):
            seen.append(row["index"])
            return super().__call__(row)

    template = PromptTemplate("custom", "問:{instruction}\n{input}", "問:{instruction}\n")
    trainer = make_trainer(tiny_base, tokenizer, tmp_path, formatting_func=Seeing(template))
    assert seen == [str(n) for n in range(1, 21)]
    first = sample_rows(1)[0]
    assert trainer._formatting_func is trainer._encoder.formatting_func  # what the library was given
    text = tokenizer.decode(trainer.train_dataset[0]["input_ids"])
    assert text == f"問:{first['instruction']}\n{first['input']}{first['output']}<|endoftext|>"
    messages = [record.getMessage() for record in caplog.records] + [str(w.message) for w in recwarn]
    assert not [message for message in messages if "ignored" in message]


def test_another_formatting_function_makes_other_labels_and_what_is_encoded_is_not_encoded_again(
    tiny_base, tokenizer, tmp_path, monkeypatch
):
    class Polite(FormattingFunction):
        def __call__(self, row):
            return super().__call__(row) | {"completion": f"{row['output']}以上です。"}

    def answers(trainer):
        rows = [trainer.train_dataset, *trainer.eval_dataset.values()]
        return [tokenizer.decode([n for n in labels if n >= 0]) for side in rows for labels in side["labels"]]

    usual = make_trainer(tiny_base, tokenizer, tmp_path, train_on_inputs=False)
    polite = make_trainer(tiny_base, tokenizer, tmp_path, Polite(ALPACA_JA), train_on_inputs=False)
    end = "<|endoftext|>"
    assert answers(polite) == [f"{text.removesuffix(end)}以上です。{end}" for text in answers(usual)]
    # As a training has it: encoded before there is a model, and not again.
    encoder = polite._encoder
    encoded = encoder.encode(sample_rows(16)).rows
    monkeypatch.setattr(RowEncoder, "encode_rows", lambda *_: pytest.fail("encoded again"))
    assert polite._prepare_dataset(encoded, tokenizer, polite.args, False, encoder.formatting_func, "train") is encoded
    assert encoded["labels"][:] == polite.train_dataset["labels"][:]


@pytest.mark.parametrize(
    ("pack", "train_on_inputs"),
    [
        pytest.param(pack, on_inputs, marks=[pytest.mark.slow] * (pack == on_inputs), id=f"{name}-{on_inputs}")
        for pack, name in ((True, "packed"), (False, "padded"))
        for on_inputs in (True, False)
    ],
)
def test_the_logged_loss_is_transformers_mean_over_the_steps_supervised_tokens(
    tiny_base, tokenizer, tmp_path, train_on_inputs, pack
):
    trainer = make_trainer(
        tiny_base, tokenizer, tmp_path, train_on_inputs=train_on_inputs, pack=pack, per_device_train_batch_size=2
    )
    micro_batches = next(iter(trainer.get_train_dataloader().batch_sampler))
    first_step = [trainer.train_dataset[row] for micro_batch in micro_batches for row in micro_batch]
    trainer.train()
    untrained = AutoModelForCausalLM.from_pretrained(tiny_base).requires_grad_(False)
    total = tokens = 0.0
    for row in first_step:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        count = int((labels[:, 1:] != -100).sum())
        total += float(untrained(input_ids=ids, labels=labels).loss) * count
        tokens += count
    assert log_records(tmp_path)[0]["loss"] == pytest.approx(total / tokens, rel=1e-5)


def test_training_lowers_the_loss_and_logs_what_is_promised(tiny_base, tokenizer, tmp_path):
    make_trainer(tiny_base, tokenizer, tmp_path, num_train_epochs=3).train()
    records = log_records(tmp_path)
    steps = [record for record in records if "loss" in record]
    assert [record["step"] for record in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert all(record[key] > 0 for record in steps for key in ("grad_norm", "tokens_per_second", "memory_peak_bytes"))
    validation = [record for record in records if "eval_open_loss" in record]
    assert len(validation) == 3
    assert all(math.isfinite(record["eval_context_loss"]) for record in validation)


def test_the_validation_loss_counts_every_token_alike(tiny_base, tokenizer, tmp_path):
    trainer = make_trainer(tiny_base, tokenizer, tmp_path, per_device_eval_batch_size=2)
    metrics = trainer.evaluate()
    model = AutoModelForCausalLM.from_pretrained(tiny_base).eval()
    for group in ("open", "context"):
        total = tokens = 0.0
        for row in trainer.eval_dataset[group]:
            ids = torch.tensor([row["input_ids"]])
            with torch.no_grad():
                total += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
            tokens += ids.shape[1] - 1
        assert metrics[f"eval_{group}_loss"] == pytest.approx(total / tokens, rel=1e-4)


@pytest.mark.parametrize(
    "quantization",
    [None, {"load_in_8bit": True}, {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}],
    ids=["unquantised", "8-bit", "4-bit"],
)
@pytest.mark.parametrize(
    "checkpointing", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "checkpointing"]
)
def test_a_saved_adapter_reproduces_the_trained_model(tiny_base, tokenizer, tmp_path, quantization, checkpointing):
    trainer = make_trainer(
        tiny_base, tokenizer, tmp_path, quantization=quantization, activation_checkpointing=checkpointing
    )
    assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}
    trainer.train()  # with a validation between epochs, after which training must go on
    assert log_records(tmp_path)[0]["grad_norm"] > 0
    ids = torch.tensor([trainer.train_dataset[0]["input_ids"]])
    with torch.no_grad():
        trained = trainer.model.eval()(input_ids=ids).logits
    trainer.model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    assert check_adapter(tmp_path / "adapter") == 2
    base = load_base(str(tiny_base), CPU, torch.float32, quantization)
    with torch.no_grad():
        untrained = base(input_ids=ids).logits
        reloaded = load_adapter(base, tmp_path / "adapter").eval()(input_ids=ids).logits
    torch.testing.assert_close(reloaded, trained, rtol=1e-4, atol=1e-4)
    assert (reloaded - untrained).abs().max() > 1e-3


def test_the_first_non_finite_loss_stops_the_run_with_a_hint(tiny_base, tokenizer, tmp_path):
    trainer = make_trainer(tiny_base, tokenizer, tmp_path)
    trainer.model.get_base_model().gpt_neox.layers[0].mlp.dense_h_to_4h.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match=r"the loss became nan at step 1.*learning_rate"):
        trainer.train()


def test_target_modules_that_match_nothing_are_named_with_what_there_is(tiny_base):
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    with pytest.raises(UserError, match="no module 'q_proj'; its linear layers are query_key_value, dense"):
        check_targets(model, ["query_key_value", "q_proj"])


def test_an_adapter_that_is_missing_empty_or_zero_is_refused(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(UserError, match="no such adapter"):
        check_adapter(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    save_file({"a.lora_A.weight": torch.ones(2)}, path)
    with pytest.raises(UserError, match="no LoRA weights"):
        check_adapter(tmp_path)
    save_file({"a.lora_A.weight": torch.ones(2), "a.lora_B.weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="every lora_B is zero"):
        check_adapter(tmp_path)
