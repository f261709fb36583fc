"""What training computes, again in some sixty lines of plain PyTorch, and that `RunTrainer` computes the same.

`plain_training` is the explanation: rows of prompt, answer and end of text; which of their tokens have a loss; what an
optimizer step is the mean of; what is done with its gradient. It pads every row of a step to one length and makes the
logits of all positions. The real training packs, shares beginnings, divides into micro-batches and makes logits a few
at a time, and all that must change nothing.
"""

import dataclasses
import math
from typing import NamedTuple

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase
from trl import SFTConfig

from sft.data.read import load_data
from sft.data.rows import examples_of
from sft.model.load import load_base, load_tokenizer
from sft.model.lora import add_lora
from sft.prompt.row_encoder import RowEncoder
from sft.prompt.template import FormattingFunction, PromptTemplate
from sft.training.trainer import RunTrainer

LEARNING_RATE, WEIGHT_DECAY, LARGEST_NORM, WARMUP_STEPS, SEED = 1e-3, 0.1, 0.1, 1, 7
ROWS, STEP_ROWS = 20, 8  # three optimizer steps, the last one of four rows
TEMPLATE = PromptTemplate("custom", "指示:\n{instruction}\n文脈:\n{input}\n応答:\n", "指示:\n{instruction}\n応答:\n")


# The twin.


class Row(NamedTuple):
    """Ids of a row's tokens, and the same ids as labels: −100 where a token is not learned."""

    ids: list[int]
    labels: list[int]


class Step(NamedTuple):
    """An optimizer step: its loss, and the gradient of each trained weight before it is clipped."""

    loss: float
    gradient: dict[str, torch.Tensor]


def plain_row(tokenizer: PreTrainedTokenizerBase, example, answers_only: bool) -> Row:
    """Prompt and answer with one end-of-text token: the model learns all of it, or only what it will say itself."""
    template = TEMPLATE.with_input if example.input else TEMPLATE.without_input
    prompt = template.format(instruction=example.instruction, input=example.input)
    start = tokenizer(prompt)["input_ids"]  # with a BOS where the tokenizer puts one
    whole = [*tokenizer(prompt + example.output)["input_ids"], tokenizer.eos_token_id]
    assert whole[: len(start)] == start, "the twin takes rows whose tokens do not reach over the prompt's end"
    return Row(whole, [-100] * len(start) + whole[len(start) :] if answers_only else whole)


def plain_loss(model: torch.nn.Module, rows: list[Row], pad_id: int) -> torch.Tensor:
    """Mean −ln p of the rows' learned tokens, in nats: every token counts alike, whichever row it is in."""
    width = max(len(row.ids) for row in rows)

    def padded(lists: list[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([values + [filler] * (width - len(values)) for values in lists])

    input_ids = padded([row.ids for row in rows], pad_id)  # (rows, width)
    labels = padded([row.labels for row in rows], -100)
    seen = padded([[1] * len(row.ids) for row in rows], 0)  # by position: the padding token may be the end of text
    logits = model(input_ids=input_ids, attention_mask=seen).logits  # (rows, width, vocabulary)
    # The logits of a position predict the next token, so the first token of a row has no prediction.
    return cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


def plain_training(model: torch.nn.Module, rows: list[Row], pad_id: int) -> list[Step]:
    """One epoch with AdamW, a learning rate that rises linearly and falls along a cosine, and a clipped gradient."""
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}  # LoRA's
    optimizer = torch.optim.AdamW(trained.values(), weight_decay=WEIGHT_DECAY)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(SEED)).split(STEP_ROWS)
    steps = []
    for number, places in enumerate(order):
        loss = plain_loss(model, [rows[place] for place in places], pad_id)
        loss.backward()
        steps.append(Step(loss.item(), {name: weight.grad.clone() for name, weight in trained.items()}))
        torch.nn.utils.clip_grad_norm_(trained.values(), LARGEST_NORM)
        if number < WARMUP_STEPS:
            factor = number / WARMUP_STEPS
        else:
            factor = 0.5 * (1 + math.cos(math.pi * (number - WARMUP_STEPS) / (len(order) - WARMUP_STEPS)))
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * factor
        optimizer.step()
        optimizer.zero_grad()
    return steps


# The real one beside it.


class WatchedTrainer(RunTrainer):
    """RunTrainer that notes the loss and the gradient of each step."""

    def training_step(self, model, inputs, *args, **kwargs):
        loss = super().training_step(model, inputs, *args, **kwargs)
        gradient = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.requires_grad}
        self.steps = [*getattr(self, "steps", []), Step(loss.item(), gradient)]
        return loss


def loaded(base: str):
    """The base model in fp32 with LoRA that is not zero: both of its matrices have a gradient from the start."""
    model = load_base(base, torch.device("cpu"), torch.float32)
    torch.manual_seed(0)
    return add_lora(model, {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "init_lora_weights": False})


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).detach().norm() / theirs.detach().norm())


def cases():
    """Every family, packed and padded, on all tokens and on answers; in `make test` one of each."""
    for family in ("open-calm", "llama-2", "gemma-3"):
        for pack in (True, False):
            for answers_only in (False, True):
                quick = (
                    pack and not answers_only
                    if family == "open-calm"
                    else pack == answers_only == (family == "gemma-3")
                )
                name = f"{family}-{'packed' if pack else 'padded'}-{'answers' if answers_only else 'all'}"
                yield pytest.param(family, pack, answers_only, marks=[pytest.mark.slow] * (not quick), id=name)


@pytest.mark.parametrize(("family", "pack", "answers_only"), cases())
def test_the_training_is_its_plain_twin(small_base, tmp_path, family, pack, answers_only):
    section = small_base(family)
    tokenizer = load_tokenizer(section["base"])
    sample = examples_of(load_data("data/sample.jsonl").rows)
    by_length = sorted(sample, key=lambda example: len(example.input + example.output))
    examples = [example for example in by_length if example.input][: ROWS // 2] + by_length[: ROWS // 2]
    model = loaded(section["base"])
    trainer = WatchedTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", save_strategy="no",
            completion_only_loss=False, dataloader_pin_memory=False, activation_checkpointing=False,
            num_train_epochs=1, per_device_train_batch_size=3, learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY,
            lr_scheduler_type="cosine", warmup_steps=WARMUP_STEPS, max_grad_norm=LARGEST_NORM, seed=SEED,
        ),
        train_dataset=Dataset.from_list([dataclasses.asdict(example) for example in examples]),
        eval_datasets={},
        tokenizer=tokenizer,
        encoder=RowEncoder(tokenizer, FormattingFunction(TEMPLATE), 1024, train_on_inputs=not answers_only),
        log_path=tmp_path / "log.jsonl",
        run_id="",
        total_batch_size=STEP_ROWS,
        pack=pack,
    )  # fmt: skip
    trainer.train()
    twin = loaded(section["base"])
    rows = [plain_row(tokenizer, example, answers_only) for example in examples]
    steps = plain_training(twin, rows, tokenizer.pad_token_id)

    assert len(trainer.steps) == len(steps) == 3
    for ours, theirs in zip(trainer.steps, steps, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-6)
        assert ours.gradient.keys() == theirs.gradient.keys()
        for name, gradient in theirs.gradient.items():
            assert difference(ours.gradient[name], gradient) < 1e-5, name
        norm = torch.stack([gradient.norm() for gradient in theirs.gradient.values()]).norm()
        assert norm > LARGEST_NORM  # so that clipping is part of what is compared
    before = dict(loaded(section["base"]).named_parameters())
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        if ours.requires_grad:
            assert difference(ours, theirs) < 1e-5, name
            assert difference(theirs, before[name]) > 1e-3, name
        else:
            assert torch.equal(ours, theirs), name


def test_the_twin_would_notice_another_mean(small_base):
    section = small_base("open-calm")
    tokenizer, model = load_tokenizer(section["base"]), loaded(section["base"])
    examples = list(examples_of(load_data("data/sample.jsonl").rows))[:STEP_ROWS]
    rows = [plain_row(tokenizer, example, answers_only=True) for example in examples]
    over_tokens = plain_loss(model, rows, tokenizer.pad_token_id)
    over_rows = torch.stack([plain_loss(model, [row], tokenizer.pad_token_id) for row in rows]).mean()
    assert over_rows.item() != pytest.approx(over_tokens.item(), rel=1e-4)
