"""What comes before the base model's weights: rows read, divided and encoded, and what a micro-batch will be."""

import math
from typing import NamedTuple

from datasets import Dataset
from rich.console import Console
from transformers import PreTrainedTokenizerBase

from sft.build_base import ensure_base
from sft.config.data.names import check_names
from sft.config.repetition_penalty import penalty_hazards
from sft.config.sections import Config
from sft.data.read import LoadedData, load_data
from sft.data.records import GROUPS, named_weights
from sft.data.rows import examples_of, kind_counts, of_group, with_context
from sft.data.split import Split, epoch_rows, on_no_side, split_rows, tempered_weights
from sft.model.attention.documents import packing_obstacle
from sft.model.load import load_base_config, load_tokenizer
from sft.plan.hazards import truncation_hazards
from sft.plan.preview import balance_line, show, show_example
from sft.prompt.encode import encode_prompt, eos_id
from sft.prompt.encoded_rows import row_lengths
from sft.prompt.lost_turns import histories, lost_turns
from sft.prompt.row_encoder import EncodedRows, RowEncoder
from sft.prompt.template import FormattingFunction, PromptTemplate, template_from_config
from sft.system.errors import UserError, say
from sft.system.processes import RANK, WORLD_SIZE
from sft.system.texts import Count, Said, said
from sft.system.visible import counted


class Plan(NamedTuple):
    """Everything that is settled before the base model is loaded: rows, their sides, their tokens."""

    data: LoadedData
    split: Split
    template: PromptTemplate
    tokenizer: PreTrainedTokenizerBase
    encoder: RowEncoder
    train: EncodedRows
    validation: dict[str, Dataset]
    steps: int
    packed: bool

    @property
    def longest(self) -> int:
        """Tokens of the longest training row."""
        return max(row_lengths(self.train.rows))


def read_rows(config: Config) -> tuple[LoadedData, Split]:
    """The rows, checked, and their sides, the training side as `data.balance` and `data.train_rows` want it."""
    data = load_data(config.data.sources, config.data.leave_out, config.data.groups)
    if RANK == 0:
        for line in data.read_report():
            say(line)
    check_names(config.data, kind_counts(data.rows))
    sides = split_rows(data.rows, *config.data.shares, [file.side for file in data.files])
    data.drop_counts.update(on_no_side(data.rows, sides))
    weights_of_files = [file.weight for file in data.files]
    natural = train = epoch_rows(sides.train, {}, config.data.train_rows, weights_of_files)
    balance = config.data.balance
    if natural and balance:
        counts = kind_counts(sides.train)
        if balance.temperature is None:
            weights = named_weights(counts, balance.weights or {})
        else:
            weights = tempered_weights(counts, balance.temperature, balance.by)
        train = epoch_rows(sides.train, weights, config.data.train_rows, weights_of_files)
        if RANK == 0:
            print(balance_line(train, natural))
    if not train:
        remedy = "raise data.balance.weights" if natural else "lower data.test_share"
        raise UserError(f"{config.data.named}: no row is left to train on; {remedy}")
    return data, sides._replace(train=train)


def read_tokenizer(config: Config) -> tuple[PreTrainedTokenizerBase, PromptTemplate]:
    """The tokenizer, of a base model that is made where the configuration says how, and the prompt."""
    ensure_base(config.model.build, config.model.base)
    # A revision pins the base's repository, and says nothing about another one's.
    source = (config.model.tokenizer, None) if config.model.tokenizer else (config.model.base, config.model.revision)
    tokenizer = load_tokenizer(*source, config.model.trust_remote_code, config.model.newline)
    template = template_from_config(config.prompt.template, tokenizer)
    if template.end:  # from here on, and in what is saved beside the adapter, an answer ends with it
        tokenizer.eos_token = template.end
    return tokenizer, template


def prepare(
    config: Config, data: LoadedData, split: Split, tokenizer: PreTrainedTokenizerBase, template: PromptTemplate
) -> Plan:
    """Encode the rows, and print what came of it."""
    training = config.training
    packed, micro_batches = layout(config)
    settings = (training["max_length"], config.data.truncation, training["train_on_inputs"], training["turns"])
    encoder = RowEncoder(tokenizer, FormattingFunction(template), *settings)
    train = encoder.encode(split.train)
    if not train.rows:
        raise UserError("no training row fits training.max_length; raise it")
    members = {group: of_group(split.validation, group) for group in GROUPS}
    groups: dict[str, EncodedRows] = {group: encoder.encode(rows) for group, rows in members.items() if rows}
    # A group none of whose rows fits has no validation loss.
    validation = {group: encoded.rows for group, encoded in groups.items() if encoded.rows}
    steps = optimizer_steps(len(train.rows), training["total_batch_size"], training["num_train_epochs"])
    if RANK == 0:
        console = Console()
        lost = sum(n for encoded in groups.values() for (_, fate), n in encoded.fates.items() if fate == "dropped")
        if lost:
            fit = "does not fit training.max_length and is" if lost == 1 else "do not fit training.max_length and are"
            console.print(f"{counted(lost, 'validation row')} {fit} left out", style="yellow")
        values = {"steps": Count(steps), "rows": Count(training["total_batch_size"]), "batches": micro_batches}
        summary = said("doctor.steps", **values)
        if WORLD_SIZE > 1:
            summary = said("doctor.in_processes", found=summary, processes=WORLD_SIZE)
        show(console, data, split, train, summary.here)
        show_example(console, train.rows, tokenizer)
    check_warmup(config, steps)
    return Plan(data, split, template, tokenizer, encoder, train, validation, steps, packed)


def layout(config: Config) -> tuple[bool, Said]:
    """Whether rows are packed, and what a micro-batch is, in words. Raises UserError where they must be and cannot."""
    pack, rows = config.training["pack"], config.training["per_device_train_batch_size"]
    padded = said("doctor.micro_padded", rows=Count(rows))
    if pack is False:
        return False, padded
    model = config.model
    obstacle = packing_obstacle(load_base_config(model.base, model.revision, model.trust_remote_code))
    if config.training.get("neftune_noise_alpha"):
        obstacle = "the strength of training.neftune_noise_alpha depends on the length of a row"
    if model.attention not in ("auto", "sdpa"):
        obstacle = f"packed rows have an attention of their own, and model.attention is {model.attention}"
    if obstacle and pack is True:
        raise UserError(f"training.pack: true, but {obstacle}; use auto or false")
    if obstacle:
        return False, said("doctor.not_packed", padded=padded, obstacle=obstacle)
    return True, said("doctor.micro_packed", tokens=Count(rows * config.training["max_length"]))


def hazards(config: Config, plan: Plan) -> list[str]:
    """Warnings about what training loses to template and length limit, and about answering the test rows."""
    _, split, template, tokenizer, encoder, train, *_ = plan
    contexts = with_context(split.test).tolist()
    examples = examples_of(split.test)
    prompts = (encode_prompt(tokenizer, template.render(e.instruction, e.input, e.history)) for e in examples)
    return [
        *lost_turns(template, histories(plan.data.rows)),
        *truncation_hazards(train.fates, encoder.truncation, encoder.max_length),
        *penalty_hazards(config.generation, contexts, prompts, eos_id(tokenizer)),
    ]


def check_warmup(config: Config, steps: int) -> None:
    """Raise UserError when the learning rate would still be rising for half of the training."""
    warmup = config.training.get("warmup_steps", 0)
    warmup = warmup * steps if 0 < warmup < 1 else warmup
    if warmup and warmup * 2 >= steps:
        raise UserError(
            f"training.warmup_steps: {warmup:g} of {steps} steps are warmup; set at most {(steps - 1) // 2}, "
            "or a share of the steps such as 0.05"
        )


def optimizer_steps(rows: int, total_batch_size: int, epochs: float) -> int:
    """Optimizer steps of a training run; the last step of an epoch may be smaller."""
    return math.ceil(math.ceil(rows / total_batch_size) * epochs)
