"""Every check that can stop a training and needs no decoding of every text: of tokenizer, rows, model and card.

The dry run shows their lines; a training refuses what they would stop, before a directory is touched or weights are
loaded.
"""

from collections.abc import Iterable, Iterator

import torch
from transformers import PreTrainedModel

from sft.checks.data_checks import drops, kept_by
from sft.checks.disk import disk
from sft.checks.doctor import Line, end_of_text, export_check, length_line, tokenizer_checks
from sft.checks.model_checks import duration, memory, model_lines, number_format, varlen_kernel
from sft.config.sections import Config
from sft.model.load import load_skeleton
from sft.model.place import DTYPES
from sft.plan.activations import fitting, free_bytes, micro_batch
from sft.plan.cards import Card
from sft.plan.memory import Layout
from sft.plan.prepare import Plan, hazards, prepare, read_rows, read_tokenizer
from sft.prompt.encoded_rows import largest_id, row_lengths
from sft.system.errors import UserError, warn
from sft.system.processes import RANK, WORLD_SIZE


def checked_plan(config: Config, device: torch.device) -> Plan:
    """What a training on `device` will be. Warns of what hurts.

    Raises UserError, in the doctor's words, for what the dry run would call STOP; the estimate of memory only warns.
    """
    data, split = read_rows(config)
    unusable = drops(data, config.data.allow_dropped)
    refuse([unusable])
    tokenizer, template = read_tokenizer(config)
    refuse(tokenizer_checks(tokenizer, template.render("質問", "文脈")))
    model = weightless(config)
    plan = prepare(config, data, split, tokenizer, template)
    card = card_of(device)
    kept = kept_by(config.training.get("keep_best"), plan.validation)
    refuse(
        [
            *kept,
            *fit_checks(config, plan, model),
            disk(config, plan, model),
            *card_checks(config, plan, card, on_cpu=device.type == "cpu"),
        ]
    )
    if not any(labels[-1] == tokenizer.eos_token_id for labels in labels_of(plan)):  # which the first row settles
        refuse([end_of_text(labels_of(plan), tokenizer.eos_token_id)])
    if RANK == 0:
        warn([f"{unusable.found}; {unusable.remedy}"] if unusable.level != "green" else [])
        export = export_check(tokenizer, template, split.train)
        warn([f"{export.found}; {export.remedy}"] if export.level != "green" else [])
        warn(f"{line.found}; {line.remedy}" for line in kept if line.level != "green")
        warn(hazards(config, plan))
        if card:
            asked = micro_batch(config, plan.packed, plan.longest, model.dtype)
            need = memory(model, settled(config, asked, model, card), card, asked)
            warn([f"{need.found}; {need.remedy}"] if need.level != "green" else [])
    return plan


def refuse(lines: Iterable[Line]) -> None:
    """Raise UserError for the first red line; how many others there are is said, too."""
    red = [line for line in lines if line.level == "red"]
    if red:
        others = f" (and {len(red) - 1} more: --dry-run shows all)" if len(red) > 1 else ""
        raise UserError("; ".join(filter(None, (f"{red[0].subject}: {red[0].found}", red[0].remedy))) + others)


def card_of(device: torch.device) -> Card | None:
    """The GPU of this process as the doctor sees one; None on a CPU."""
    if device.type == "cpu":
        return None
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return Card(torch.cuda.get_device_name(device), free_bytes(device), bfloat16=has_bfloat16)


def weightless(config: Config) -> PreTrainedModel:
    """The model without weights. Raises UserError where there is no such model."""
    dtype = DTYPES.get(config.model.dtype, torch.bfloat16)  # auto: 16 bits, of one kind or the other
    return load_skeleton(config.model.base, dtype, **config.model.loading)


def labels_of(plan: Plan) -> Iterator[list[int]]:
    """The labels of the training rows."""
    return (row["labels"] for row in plan.train.rows.select_columns("labels"))


def row_checks(config: Config, plan: Plan) -> list[Line]:
    """The doctor's lines about the encoded training rows, and about what the settings do to rows."""
    rows, fates = plan.train
    learns_turns = plan.encoder.train_on_inputs or plan.encoder.turns == "all"
    return [
        end_of_text(labels_of(plan), plan.tokenizer.eos_token_id, not (plan.template.turn and learns_turns)),
        length_line(row_lengths(rows), plan.encoder.max_length, fates),
        *kept_by(config.training.get("keep_best"), plan.validation),
        *(Line.of("yellow", "warning", hazard) for hazard in hazards(config, plan)),
    ]


def fit_checks(config: Config, plan: Plan, model: PreTrainedModel) -> list[Line]:
    """Whether LoRA, loss and rows fit `model`, which has no weights; it is then ready for an estimate of memory."""
    longest, largest = plan.longest, max(plan.tokenizer.pad_token_id, largest_id(plan.train.rows))
    checkpointing = config.training["activation_checkpointing"] is True
    return model_lines(model, config.lora, config.quantization, checkpointing, longest, largest)


def card_checks(config: Config, plan: Plan, card: Card | None, on_cpu: bool = False) -> list[Line]:
    """What the card, if one is known, cannot compute; nothing where it can all."""
    varlen = plan.packed and config.training["packed_attention"] == "varlen"
    return [*number_format(config.model.dtype, card), *(varlen_kernel(card, on_cpu) if varlen else [])]


def model_checks(config: Config, plan: Plan, model: PreTrainedModel, card: Card | None) -> list[Line]:
    """The doctor's lines about the model, and about memory and time on `card`."""
    lines = fit_checks(config, plan, model)
    if any(line.level == "red" for line in lines):
        return lines
    asked = micro_batch(config, plan.packed, plan.longest, model.dtype)
    layout = settled(config, asked, model, card)
    tokens = sum(row_lengths(plan.train.rows)) * config.training["num_train_epochs"]
    return [
        *lines,
        *card_checks(config, plan, card),
        disk(config, plan, model),
        memory(model, layout, card, asked),
        duration(model, tokens, layout.checkpointing, card, WORLD_SIZE),
    ]


def settled(config: Config, asked: Layout, model: PreTrainedModel, card: Card | None) -> Layout:
    """The micro-batch that training will take in the memory of `card`; the one `asked` for where none is known."""
    if card is None:
        return asked
    return fitting(model, asked, card.memory, config.training["activation_checkpointing"] == "auto")
