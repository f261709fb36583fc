"""What training would do, without doing it: the rows, and the doctor's page about this configuration."""

import sys

import torch
from rich.console import Console
from transformers import PreTrainedModel

from sft.checks import doctor
from sft.checks.doctor import Line, end_of_text, length_line
from sft.checks.model_checks import duration, memory, model_lines, number_format, sources
from sft.config.sections import Config
from sft.model.load import load_skeleton, load_tokenizer
from sft.model.place import DTYPES, resolve_device, resolve_dtype
from sft.plan.activations import micro_batch, settled
from sft.plan.cards import Card, find_card
from sft.plan.prepare import Prepared, hazards, prepare, read_rows, read_tokenizer
from sft.prompt.encode import encode_texts
from sft.prompt.encoded_rows import largest_id, row_lengths
from sft.system.errors import UserError
from sft.system.processes import RANK, WORLD_SIZE


def dry_run(config: Config, card_name: str | None, others: list[str]) -> None:
    """Show what training would do, and the doctor's page. Exits with 1 when a line of it is red.

    `card_name` is the GPU to fit into (None: only what is needed), `others` tokenizers to compare with.
    """
    card = find_card(card_name) if card_name else None
    compared = {name: load_tokenizer(name, None, config.model.trust_remote_code) for name in others}
    data, split = read_rows(config)
    tokenizer, template = read_tokenizer(config)
    lines, shares = doctor.tokenizer_lines(tokenizer, template.render("質問", "文脈"), split.train)
    columns = {config.model.tokenizer or config.model.base: shares}
    categories, texts = doctor.texts_of(split.train)
    for name, other in compared.items():
        columns[name] = doctor.tokens_per_character(categories, texts, encode_texts(other, texts))
    model, model_line = skeleton(config)
    lines += model_line
    if model and tokenizer.eos_token_id is not None:  # without them no row can be made, or laid out
        prepared = prepare(config, data, split, tokenizer, template)
        lines += [*row_checks(config, prepared), *model_checks(config, prepared, model, card)]
    lines += setting_checks(config)
    if RANK == 0:
        doctor.show(Console(), lines, columns)
        print("dry run: nothing was trained")
        if any(line.level == "red" for line in lines):
            sys.exit(1)


def skeleton(config: Config) -> tuple[PreTrainedModel | None, list[Line]]:
    """The model without weights; None, and the doctor's line that says why, where there is no such model."""
    model = config.model
    dtype = DTYPES.get(model.dtype, torch.bfloat16)  # auto: 16 bits, of one kind or the other
    try:
        return load_skeleton(model.base, dtype, **model.loading), []
    except UserError as error:
        return None, [Line("red", "model", *str(error).removeprefix("model ").split("; ", 1))]


def row_checks(config: Config, prepared: Prepared) -> list[Line]:
    """The doctor's lines about the encoded training rows, and about what the settings do to rows."""
    encoder, rows = prepared.encoder, prepared.encoded
    return [
        end_of_text((row["labels"] for row in rows.select_columns("labels")), prepared.tokenizer.eos_token_id),
        length_line(row_lengths(rows), encoder.max_length, encoder.fates["train"]),
        *(Line("yellow", "warning", *hazard.rsplit("; ", 1)) for hazard in hazards(config, prepared)),
    ]


def model_checks(config: Config, prepared: Prepared, model: PreTrainedModel, card: Card | None) -> list[Line]:
    """The doctor's lines about the model, which has no weights, and about memory and time on `card`."""
    training, lengths = config.training, row_lengths(prepared.encoded)
    largest = max(prepared.tokenizer.pad_token_id, largest_id(prepared.encoded))
    setting = training["activation_checkpointing"]
    lines = model_lines(model, config.lora, config.quantization, setting is True, max(lengths), largest)
    if any(line.level == "red" for line in lines):
        return lines
    layout = micro_batch(config, prepared.packed, max(lengths), model.dtype)
    if card:
        layout = layout._replace(checkpointing=settled(setting, model, layout, card.memory))
    return [
        *lines,
        *number_format(config.model.dtype, card),
        memory(model, layout, card),
        duration(model, sum(lengths) * training["num_train_epochs"], layout.checkpointing, card, WORLD_SIZE),
    ]


def setting_checks(config: Config) -> list[Line]:
    """The doctor's lines about where things come from and where training would run."""
    model, data = config.model, config.data
    lines = sources(
        {"model": (model.base, model.revision), "data": (data.path, data.revision)}, model.trust_remote_code
    )
    try:
        device = resolve_device(model.device)
        return [
            *lines,
            Line("green", "device", f"{device}, {str(resolve_dtype(model.dtype, device)).removeprefix('torch.')}"),
        ]
    except UserError as error:
        return [*lines, Line("yellow", "device", *str(error).rsplit("; ", 1))]
