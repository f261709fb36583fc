"""Who trains in the benchmarks: this project, and others as a careful user would set them, on the same model and rows.

All of them are given the same rows as token ids, the same supervised tokens and the same adapter, whose products have
the same precision, and padding on the right. None but `trl` computes activations again.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer, pack_dataset

from sft.model.attention.documents import PackedAttention
from sft.model.lora import base_of
from sft.model.norms import compile_norms
from sft.prompt.row_encoder import RowEncoder
from sft.training.trainer import RunTrainer

MICRO_BATCH = 4


class Work(NamedTuple):
    """What every trainer is given: a model, and the encoded rows of one step."""

    arguments: argparse.Namespace
    model: Any
    tokenizer: Any
    encoder: RowEncoder
    encoded: Dataset
    settings: dict[str, Any]
    """Arguments of TrainingArguments and its kind that all of them share; they go before what a trainer sets."""
    micro_batch: int = MICRO_BATCH
    """Rows of a padded micro-batch."""
    attention: PackedAttention = "auto"
    """How this project's trainer keeps packed rows apart."""


def ours(work: Work) -> Trainer:
    """This project's trainer."""
    packed = work.arguments.only == "packed"
    rows = work.arguments.max_length // work.encoder.max_length if packed else work.micro_batch
    own = {"activation_checkpointing": False, "completion_only_loss": False, "logging_nan_inf_filter": False}
    config = SFTConfig(per_device_train_batch_size=rows, **own | work.settings)
    if config.use_cpu:
        compile_norms(base_of(work.model))  # as every training does that is not a short one
    return RunTrainer(
        model=work.model, args=config, train_dataset=work.encoded, eval_datasets={}, tokenizer=work.tokenizer,
        encoder=work.encoder, pack=packed, total_batch_size=len(work.encoded),
        log_path=Path(work.settings["output_dir"]) / "log.jsonl", run_id="", packed_attention=work.attention,
    )  # fmt: skip


def alpaca(work: Work) -> Trainer:
    """What alpaca-lora's finetune.py does: micro-batches in random order, padded, the logits of every position."""
    collator = DataCollatorForSeq2Seq(work.tokenizer, pad_to_multiple_of=8, return_tensors="pt", padding=True)
    work.model.config.use_cache = False
    config = TrainingArguments(**in_micro_batches(work))
    return Trainer(work.model, config, collator, work.encoded.remove_columns(["index", "category"]))


def rebalanced(work: Work) -> Trainer:
    """The same, with transformers' sampler that makes micro-batches of rows of similar length and of equal cost."""
    return alpaca(work._replace(settings=work.settings | {"train_sampling_strategy": "batch_rebalance"}))


def trl(work: Work) -> Trainer:
    """SFTTrainer as it comes: checkpointed activations, its fused head."""
    return _trl(work, **in_micro_batches(work))


def trl_padding_free(work: Work) -> Trainer:
    """SFTTrainer without padding: the rows of a micro-batch one after another."""
    settings = {"padding_free": True, "max_length": None, "activation_checkpointing": False}
    return _trl(work, **settings | in_micro_batches(work))


def trl_packed(work: Work, make: type[SFTTrainer] = SFTTrainer) -> Trainer:
    """SFTTrainer's packing (best fit decreasing), all bins in one step, with its fused head."""
    columns = work.encoded.select_columns(["input_ids", "labels"])
    bins = len(pack_dataset(columns, work.arguments.max_length, "bfd"))
    settings = {
        "packing": True, "per_device_train_batch_size": 1, "gradient_accumulation_steps": bins,
        "activation_checkpointing": False,
    }  # fmt: skip
    return _trl(work, make, **settings | work.settings)


class PlainHead(SFTTrainer):
    """SFTTrainer with the model's own head and loss."""

    compute_loss = Trainer.compute_loss


def trl_packed_plain(work: Work) -> Trainer:
    """The same with the model's own head and loss, which are faster where logits are no trouble."""
    return trl_packed(work, PlainHead)


def _trl(work: Work, make: type[SFTTrainer] = SFTTrainer, **settings: Any) -> Trainer:
    config = SFTConfig(**{"max_length": work.arguments.max_length} | settings)
    encoded = work.encoded.remove_columns(["index", "category"])
    return make(model=work.model, args=config, train_dataset=encoded, processing_class=work.tokenizer)


def in_micro_batches(work: Work) -> dict[str, Any]:
    """The settings of a step in padded micro-batches, whose gradients are accumulated."""
    count = -(-len(work.encoded) // work.micro_batch)
    return {"per_device_train_batch_size": work.micro_batch, "gradient_accumulation_steps": count} | work.settings


TRAINERS = {
    "packed": ours, "padded": ours, "rebalanced": rebalanced, "trl-packed": trl_packed,
    "trl-packed-plain": trl_packed_plain, "trl-padding-free": trl_padding_free, "trl": trl, "alpaca": alpaca,
}  # fmt: skip
