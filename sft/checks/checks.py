"""Every check that can stop a training and needs no decoding of every text: of tokenizer, rows, model and card.

The dry run shows their lines; a training refuses what they would stop, before a directory is touched or weights are
loaded.
"""

from collections.abc import Iterable

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft.checks.doctor import Line, characters, end_of_text, length_line, special_tokens
from sft.checks.model_checks import duration, memory, model_lines, number_format
from sft.config.sections import Config
from sft.model.load import load_skeleton
from sft.model.place import DTYPES
from sft.plan.activations import micro_batch, settled
from sft.plan.cards import Card
from sft.plan.prepare import Plan, hazards, prepare, read_rows, read_tokenizer
from sft.prompt.encoded_rows import largest_id, row_lengths
from sft.prompt.template import PromptTemplate
from sft.system.errors import UserError, warn
from sft.system.processes import RANK, WORLD_SIZE


def checked_plan(config: Config, device: torch.device) -> Plan:
    """What a training on `device` will be. Warns of what hurts.

    Raises UserError, in the doctor's words, for what the dry run would call STOP; the estimate of memory only warns.
    """
    data, split = read_rows(config)
    tokenizer, template = read_tokenizer(config)
    refuse(tokenizer_checks(tokenizer, template))
    model, lines = weightless(config)
    refuse(lines)
    plan = prepare(config, data, split, tokenizer, template)
    lines = row_checks(config, plan) + (model_checks(config, plan, model, card_of(device)) if model else [])
    refuse(line for line in lines if line.subject != "memory")
    if RANK == 0:
        warn(hazards(config, plan))
        warn(f"{line.found}; {line.remedy}" for line in lines if line.subject == "memory" and line.level != "green")
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
    memory_bytes = torch.cuda.get_device_properties(device).total_memory
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return Card(torch.cuda.get_device_name(device), memory_bytes, bfloat16=has_bfloat16)


def tokenizer_checks(tokenizer: PreTrainedTokenizerBase, template: PromptTemplate) -> list[Line]:
    """Whether rows can begin and end, and whether the prompt and Japanese text survive the tokenizer."""
    return [special_tokens(tokenizer), characters(tokenizer, template.render("質問", "文脈"))]


def weightless(config: Config) -> tuple[PreTrainedModel | None, list[Line]]:
    """The model without weights; None, and the doctor's line that says why, where there is no such model."""
    model = config.model
    dtype = DTYPES.get(model.dtype, torch.bfloat16)  # auto: 16 bits, of one kind or the other
    try:
        return load_skeleton(model.base, dtype, **model.loading), []
    except UserError as error:
        return None, [Line("red", "model", *str(error).removeprefix("model ").split("; ", 1))]


def row_checks(config: Config, plan: Plan) -> list[Line]:
    """The doctor's lines about the encoded training rows, and about what the settings do to rows."""
    rows, fates = plan.train
    return [
        end_of_text((row["labels"] for row in rows.select_columns("labels")), plan.tokenizer.eos_token_id),
        length_line(row_lengths(rows), plan.encoder.max_length, fates),
        *(Line("yellow", "warning", *hazard.rsplit("; ", 1)) for hazard in hazards(config, plan)),
    ]


def model_checks(config: Config, plan: Plan, model: PreTrainedModel, card: Card | None) -> list[Line]:
    """The doctor's lines about the model, which has no weights, and about memory and time on `card`."""
    training, lengths = config.training, row_lengths(plan.train.rows)
    largest = max(plan.tokenizer.pad_token_id, largest_id(plan.train.rows))
    setting = training["activation_checkpointing"]
    lines = model_lines(model, config.lora, config.quantization, setting is True, max(lengths), largest)
    if any(line.level == "red" for line in lines):
        return lines
    layout = micro_batch(config, plan.packed, max(lengths), model.dtype)
    if card:
        layout = layout._replace(checkpointing=settled(setting, model, layout, card.memory))
    return [
        *lines,
        *number_format(config.model.dtype, card),
        memory(model, layout, card),
        duration(model, sum(lengths) * training["num_train_epochs"], layout.checkpointing, card, WORLD_SIZE),
    ]
