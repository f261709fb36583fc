"""Fine-tune a base model with LoRA on instruction rows.

    accelerate launch train_sft.py configs/calm7b.yaml [section.key=value …] [--resume] [--force]
    python train_sft.py configs/calm7b.yaml --dry-run [--card 24GB] [--compare TOKENIZER,…]

The result is in runs/<config name>/: adapter/, config.yaml, manifest.json, split.json, log.jsonl, loss.png.
"""

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from sft.config import Config, load_config
from sft.errors import UserError, exit_on_user_error

if TYPE_CHECKING:  # these import torch, which takes seconds that --help and a wrong configuration need not wait
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTConfig

    from sft.data import LoadedData
    from sft.doctor import Line
    from sft.memory import Card
    from sft.prompt import PromptTemplate
    from sft.rows import Rows
    from sft.split import Split
    from sft.tokenization import RowEncoder
    from sft.trainer import RunTrainer

RANK = int(os.environ.get("RANK", 0))
WORLD_SIZE = int(os.environ.get("WORLD_SIZE", 1))


def main() -> None:
    """Read the command line, check the configuration, and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a YAML file, e.g. configs/calm7b.yaml")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes to the configuration")
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would happen and what would go wrong; train nothing"
    )
    parser.add_argument("--card", help="with --dry-run: the GPU to fit into, e.g. 24GB, RTX3090 or A100-80GB")
    parser.add_argument("--compare", help="with --dry-run: other tokenizers (hub ids or directories, with commas)")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run from its last checkpoint")
    parser.add_argument("--force", action="store_true", help="replace an existing run")
    arguments = parser.parse_intermixed_args()
    if (arguments.card or arguments.compare) and not arguments.dry_run:
        parser.error("--card and --compare belong to --dry-run")
    with exit_on_user_error("interrupted; --resume continues from the last checkpoint"):
        config = load_config(arguments.config, arguments.overrides).with_absolute_paths()
        if arguments.dry_run:
            dry_run(config, arguments.card, arguments.compare.split(",") if arguments.compare else [])
        else:
            train(config, arguments.resume, arguments.force)


class Prepared(NamedTuple):
    """Everything that is settled before the base model is loaded: rows, their sides, their tokens."""

    data: "LoadedData"
    split: "Split"
    template: "PromptTemplate"
    tokenizer: "PreTrainedTokenizerBase"
    encoder: "RowEncoder"
    train: "Dataset"
    encoded: "Dataset"
    validation: "dict[str, Dataset]"
    steps: int
    packed: bool


def dry_run(config: Config, card_name: str | None, others: list[str]) -> None:
    """Show what training would do, and the doctor's page. Exits with 1 when a line of it is red.

    `card_name` is the GPU to fit into (None: only what is needed), `others` tokenizers to compare with.
    """
    from rich.console import Console

    from sft import doctor
    from sft.memory import find_card
    from sft.model import load_tokenizer
    from sft.tokenization import encode_texts

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


def skeleton(config: Config) -> "tuple[PreTrainedModel | None, list[Line]]":
    """The model without weights; None, and the doctor's line that says why, where there is no such model."""
    import torch

    from sft.doctor import Line
    from sft.model import DTYPES, load_skeleton

    model = config.model
    dtype = DTYPES.get(model.dtype, torch.bfloat16)  # auto: 16 bits, of one kind or the other
    try:
        return load_skeleton(model.base, dtype, model.revision, model.trust_remote_code, model.attention), []
    except UserError as error:
        return None, [Line("red", "model", *str(error).removeprefix("model ").split("; ", 1))]


def row_checks(config: Config, prepared: Prepared) -> "list[Line]":
    """The doctor's lines about the encoded training rows, and about what the settings do to rows."""
    from sft.doctor import Line, end_of_text, row_lengths

    encoder, rows = prepared.encoder, prepared.encoded
    return [
        end_of_text(rows["labels"], prepared.tokenizer.eos_token_id),
        row_lengths(list(map(len, rows["input_ids"])), encoder.max_length, encoder.fates["train"]),
        *(Line("yellow", "warning", *hazard.rsplit("; ", 1)) for hazard in hazards(config, prepared)),
    ]


def model_checks(config: Config, prepared: Prepared, model: "PreTrainedModel", card: "Card | None") -> "list[Line]":
    """The doctor's lines about the model, which has no weights, and about memory and time on `card`."""
    from sft.memory import Form, Layout
    from sft.model_checks import duration, memory, model_lines, number_format

    training, rows = config.training, prepared.encoded["input_ids"]
    lengths = list(map(len, rows))
    checkpointing, micro = training["activation_checkpointing"], training["per_device_train_batch_size"]
    largest = max(prepared.tokenizer.pad_token_id, *map(max, rows))
    autocast = config.lora is None and model.dtype.itemsize == 2  # weights that are all trained are fp32
    lines = model_lines(model, config.lora, config.quantization, checkpointing, max(lengths), largest)
    if any(line.level == "red" for line in lines):
        return lines
    form: Form = "padded"
    if prepared.packed:
        form = "dense" if training["packed_attention"] in ("auto", "dense") else "documents"
    length = training["max_length"] if prepared.packed else max(lengths)
    micro_batch = Layout(micro, length, checkpointing, config.quantization, form, autocast)
    return [
        *lines,
        *number_format(config.model.dtype, card),
        memory(model, micro_batch, card),
        duration(model, sum(lengths) * training["num_train_epochs"], checkpointing, card, WORLD_SIZE),
    ]


def setting_checks(config: Config) -> "list[Line]":
    """The doctor's lines about where things come from and where training would run."""
    from sft.doctor import Line
    from sft.model import resolve_device, resolve_dtype
    from sft.model_checks import sources

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


def train(config: Config, resume: bool, force: bool) -> None:
    """Load, train, save. Whatever the user can have got wrong is found before the run directory is touched."""
    from transformers import set_seed

    from sft import run as runs
    from sft.families import check_checkpointing
    from sft.hazards import warn
    from sft.model import (
        add_lora,
        describe_trained,
        load_base,
        resolve_device,
        resolve_dtype,
        train_all,
        use_all_cores,
    )  # fmt: skip

    started = time.perf_counter()
    device = resolve_device(config.model.device)
    dtype = resolve_dtype(config.model.dtype, device)
    if device.type == "cpu":
        use_all_cores()
    run = config.run_directory
    lock = None
    if RANK == 0:  # a slower process would meet what this one has begun to write
        lock = runs.lock_directory(run)
        runs.check_directory(run, resume, force)
    data, split = read_rows(config)
    prepared = prepare(config, data, split, *read_tokenizer(config))
    if RANK == 0:
        warn(hazards(config, prepared))
    manifest = begin_manifest(config, prepared) | {"resumed": resume}
    if resume:
        changes = load_config(run / "config.yaml").changes_training(config)
        runs.check_resumable(runs.read_manifest(run), manifest, changes)
    checkpoint = runs.newest_whole_checkpoint(run / "checkpoints") if resume else None
    arguments = training_arguments(config, device, dtype, bool(prepared.validation))
    base = load_base(
        config.model.base,
        device,
        dtype,
        config.quantization,
        config.model.revision,
        config.model.trust_remote_code,
        config.model.attention,
    )
    if arguments.activation_checkpointing:
        check_checkpointing(base)
    set_seed(config.training["seed"])
    model = train_all(base) if config.lora is None else add_lora(base, config.lora)
    trainer = build_trainer(config, prepared, model, arguments)
    if RANK == 0:
        print(describe_trained(model))
        if not resume:
            runs.claim_directory(run)
        manifest["base_commit"] = getattr(base.config, "_commit_hash", None)
        runs.write_manifest(run, manifest)
        runs.write_text(run / "config.yaml", config.to_yaml())
        runs.write_split(run, prepared.split)
    trainer.accelerator.wait_for_everyone()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if RANK == 0:
        finish(config, prepared, trainer, manifest, started)
    if lock:
        lock.close()


def read_rows(config: Config) -> "tuple[LoadedData, Split]":
    """The rows, checked, and their sides."""
    from sft.data import load_data

    data = load_data(config.data.path, config.data.revision)
    return data, divide(config, data.examples)


def read_tokenizer(config: Config) -> "tuple[PreTrainedTokenizerBase, PromptTemplate]":
    """The tokenizer, of a base model that is made where the configuration says how, and the prompt."""
    from sft.build_base import ensure_base
    from sft.model import load_tokenizer
    from sft.prompt import template_from_config

    ensure_base(config.model.build, config.model.base)
    # A revision pins the base's repository, and says nothing about another one's.
    tokenizer_source = config.model.tokenizer or config.model.base
    revision = None if config.model.tokenizer else config.model.revision
    tokenizer = load_tokenizer(tokenizer_source, revision, config.model.trust_remote_code, config.model.newline)
    template = template_from_config(config.prompt.template, tokenizer)
    if template.end:  # from here on, and in what is saved beside the adapter, an answer ends with it
        tokenizer.eos_token = template.end
    return tokenizer, template


def prepare(
    config: Config,
    data: "LoadedData",
    split: "Split",
    tokenizer: "PreTrainedTokenizerBase",
    template: "PromptTemplate",
) -> Prepared:
    """Encode the rows, and print what came of it."""
    from rich.console import Console

    from sft.preview import show, show_example
    from sft.prompt import formatting_function
    from sft.records import GROUPS
    from sft.rows import as_dataset
    from sft.steps import optimizer_steps
    from sft.tokenization import RowEncoder

    packed, micro_batches = layout(config)
    encoder = RowEncoder(
        tokenizer, config.training["max_length"], config.data.truncation, config.training["train_on_inputs"]
    )
    format_row = formatting_function(template)
    rows = as_dataset(split.train, data.sha256)
    encoded = encoder.encode(rows, format_row, "train")
    if not len(encoded):
        raise UserError("no training row fits training.max_length; raise it")
    members = {group: split.validation.of_categories(categories) for group, categories in GROUPS.items()}
    groups = {group: as_dataset(rows, data.sha256) for group, rows in members.items() if rows}
    # A group none of whose rows fits has no validation loss.
    validation = {group: rows for group, rows in groups.items() if len(encoder.encode(rows, format_row, group))}
    steps = optimizer_steps(len(encoded), config.training["total_batch_size"], config.training["num_train_epochs"])
    if RANK == 0:
        console = Console()
        lost = sum(n for group in groups for (_, fate), n in encoder.fates[group].items() if fate == "dropped")
        if lost:
            console.print(f"{lost} validation rows do not fit training.max_length and are left out", style="yellow")
        share = f" over {WORLD_SIZE} processes" if WORLD_SIZE > 1 else ""
        summary = f"{steps} optimizer steps of {config.training['total_batch_size']} rows{share}, {micro_batches}"
        show(console, data, split, encoded, encoder.fates["train"], summary)
        show_example(console, encoded, tokenizer)
    check_warmup(config, steps)
    return Prepared(data, split, template, tokenizer, encoder, rows, encoded, validation, steps, packed)


def layout(config: Config) -> tuple[bool, str]:
    """Whether rows are packed, and what a micro-batch is, in words. Raises UserError where they must be and cannot."""
    from sft.attention import packing_obstacle
    from sft.model import load_base_config

    pack, rows = config.training["pack"], config.training["per_device_train_batch_size"]
    padded = f"padded in micro-batches of at most {rows}"
    if pack is False:
        return False, padded
    obstacle = packing_obstacle(
        load_base_config(config.model.base, config.model.revision, config.model.trust_remote_code)
    )
    if config.training.get("neftune_noise_alpha"):
        obstacle = "the strength of training.neftune_noise_alpha depends on the length of a row"
    if config.model.attention not in ("auto", "sdpa"):
        obstacle = f"packed rows have an attention of their own, and model.attention is {config.model.attention}"
    if obstacle and pack is True:
        raise UserError(f"training.pack: true, but {obstacle}; use auto or false")
    if obstacle:
        return False, f"{padded} (not packed: {obstacle})"
    return True, f"packed in bins of at most {rows * config.training['max_length']:,} tokens"


def divide(config: Config, examples: "Rows") -> "Split":
    """The sides of the data, the training side as `data.balance` and `data.train_rows` want it."""
    from sft.preview import balance_line
    from sft.split import Split, epoch_rows, named_weights, split_examples, tempered_weights

    sides = split_examples(examples, config.data.validation_share, config.data.test_share)
    natural = train = epoch_rows(sides.train, {}, config.data.train_rows)
    balance = config.data.balance
    if natural and balance:
        if balance.temperature is None:
            weights = named_weights(balance.weights or {})
        else:
            weights = tempered_weights(sides.train.counts(), balance.temperature, balance.by)
        train = epoch_rows(sides.train, weights, config.data.train_rows)
        if RANK == 0:
            print(balance_line(train, natural))
    if not train:
        remedy = "raise data.balance.weights" if natural else "lower data.test_share"
        raise UserError(f"{config.data.path}: no row is left to train on; {remedy}")
    return Split(train, sides.validation, sides.test)


def hazards(config: Config, prepared: Prepared) -> list[str]:
    """Warnings about what training loses to the length limit, and about answering the test rows as configured."""
    from sft.hazards import generation_hazards, truncation_hazards
    from sft.tokenization import encode_prompt, eos_id

    _, split, template, tokenizer, encoder, *_ = prepared
    contexts = [bool(example.input) for example in split.test]
    prompts = (encode_prompt(tokenizer, template.render(e.instruction, e.input)) for e in split.test)
    return [
        *truncation_hazards(encoder.fates["train"], encoder.truncation, encoder.max_length),
        *generation_hazards(config.generation, contexts, prompts, eos_id(tokenizer)),
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


def training_arguments(config: Config, device: "torch.device", dtype: "torch.dtype", validate: bool) -> "SFTConfig":
    """TRL's configuration, with every setting that the pipeline owns. Raises UserError for what TRL refuses."""
    import torch
    from trl import SFTConfig

    if WORLD_SIZE == 1 and device.type == "cuda" and torch.cuda.device_count() > 1:
        raise UserError(
            f"{torch.cuda.device_count()} GPUs are visible and one process runs: use accelerate launch "
            "--num_processes with their number, or let it see one (CUDA_VISIBLE_DEVICES=0)"
        )
    settings = config.library("training")
    if not validate:
        settings["eval_strategy"] = "no"
    try:
        return SFTConfig(
            output_dir=str(config.run_directory / "checkpoints"),
            use_cpu=device.type == "cpu",
            dataloader_pin_memory=device.type != "cpu",
            # bf16 weights compute in bf16 by themselves, but weights that are all trained are fp32.
            bf16=config.lora is None and dtype == torch.bfloat16,
            fp16=dtype == torch.float16,  # fp16 gradients need the loss scaler that comes with it
            completion_only_loss=False,  # labels are ours
            logging_nan_inf_filter=False,
            **settings,
        )
    except ValueError as error:
        raise UserError(f"training: {' '.join(str(error).split())[:300]}") from None


def build_trainer(config: Config, prepared: Prepared, model: Any, arguments: "SFTConfig") -> "RunTrainer":
    """The trainer, its rows encoded already."""
    from sft.prompt import formatting_function
    from sft.trainer import RunTrainer

    return RunTrainer(
        model=model,
        args=arguments,
        train_dataset=prepared.train,
        eval_datasets=prepared.validation,
        tokenizer=prepared.tokenizer,
        formatting_func=formatting_function(prepared.template),
        encoder=prepared.encoder,
        log_path=config.run_directory / "log.jsonl",
        total_batch_size=config.training["total_batch_size"],
        pack=prepared.packed,
        packed_attention=config.training["packed_attention"],
    )


def begin_manifest(config: Config, prepared: Prepared) -> dict[str, Any]:
    """The manifest of a run that has just begun; `identity` is what a resumed run must share."""
    from sft import run as runs

    sides = {name: len(side) for name, side in prepared.split._asdict().items()}
    fates: dict[str, dict[str, int]] = {}
    for (category, fate), count in sorted(prepared.encoder.fates["train"].items()):
        fates.setdefault(category, {})[fate] = count
    return {
        "status": "running",
        "started": runs.now(),
        "identity": {
            "data": prepared.data.sha256,
            "tokenizer": runs.tokenizer_sha256(prepared.tokenizer),
            "template": prepared.template.sha256,
            "split": runs.text_sha256(runs.split_text(prepared.split)),
            "processes": WORLD_SIZE,
        },
        "rows": {**sides, "dropped": prepared.data.drop_counts.total(), "truncation": fates},
        "steps": prepared.steps,
        "packed": prepared.packed,
        "environment": runs.environment(),
    }


def finish(config: Config, prepared: Prepared, trainer: "RunTrainer", manifest: dict[str, Any], started: float) -> None:
    """Save what was learned with what belongs to it, draw the loss, and close the manifest."""
    from sft import run as runs
    from sft.loss_plot import plot_loss
    from sft.model import check_adapter, resolve_dtype
    from sft.trainer import memory_peak_bytes

    run = config.run_directory
    model = trainer.accelerator.unwrap_model(trainer.model)
    if config.lora is None:
        learned = run / "model"
        model.config.use_cache = True  # the trainer turned it off
        model.to(resolve_dtype(config.model.dtype, trainer.args.device)).save_pretrained(str(learned))
        saved = f"{model.num_parameters():,} weights"
    else:
        learned = run / "adapter"
        model.save_pretrained(str(learned), save_embedding_layers=False)
        saved = f"{check_adapter(learned)} LoRA pairs"
    prepared.tokenizer.save_pretrained(str(learned))
    prepared.template.save(learned)
    hashes = {path.name: runs.file_sha256(path) for path in sorted(learned.glob("*")) if path.is_file()}
    plot_loss(run / "log.jsonl", run / "loss.png")
    seconds = round(time.perf_counter() - started, 1)
    manifest |= {
        "status": "finished",
        "finished": runs.now(),
        "seconds": seconds,
        "learned": hashes,
        "memory_peak_bytes": memory_peak_bytes(trainer.args.device),
        "device": str(trainer.args.device),
    }
    runs.write_manifest(run, manifest)
    print(f"{learned}: {saved} saved, {seconds:.0f} s in all")
    print(f"next: python infer.py {run}    python -m eval {run}")


if __name__ == "__main__":
    main()
