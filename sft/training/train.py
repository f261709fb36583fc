"""The story of a training: rows, checks, model, steps, and the run's directory with what was learned."""

import pickle
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from trl import SFTConfig

from sft.config.load import load_config
from sft.config.sections import Config
from sft.model.adapter import check_adapter
from sft.model.families import check_checkpointing
from sft.model.load import load_base
from sft.model.lora import add_lora, base_of, describe_trained, train_all
from sft.model.place import resolve_device, resolve_dtype, use_all_cores
from sft.plan import activations
from sft.plan.activations import less_memory
from sft.plan.prepare import Prepared, hazards, prepare, read_rows, read_tokenizer
from sft.prompt.template import FormattingFunction
from sft.run.directory import check_directory, claim_directory, lock_directory
from sft.run.held_out import split_text, write_split
from sft.run.manifest import check_resumable, environment, now, read_manifest, write_manifest
from sft.system.errors import UserError, warn
from sft.system.files import check_inside, file_sha256, text_sha256, write_text
from sft.system.processes import RANK, WORLD_SIZE, check_divided, check_engine, divided_by
from sft.system.whole_directory import whole_directory
from sft.training import checkpoints
from sft.training.log import warn_of_loss
from sft.training.loss_plot import plot_loss
from sft.training.stopping import Stopped, end_by_signal
from sft.training.trainer import RunTrainer, memory_peak_bytes


def train(config: Config, resume: bool, force: bool) -> None:
    """Load, train, save. Whatever the user can have got wrong is found before the run directory is touched."""
    started = time.perf_counter()
    run = config.run_directory
    device = resolve_device(config.model.device)
    dtype = resolve_dtype(config.model.dtype, device)
    check_engine(config.quantization is not None, config.lora is not None, str(dtype))
    if device.type == "cpu":
        use_all_cores()
    lock = None
    if RANK == 0:
        lock = lock_directory(run)
        check_directory(run, resume, force)  # somebody may have begun since
        if resume:
            check_inside(run)
    data, split = read_rows(config)
    prepared = prepare(config, data, split, *read_tokenizer(config))
    if RANK == 0:
        warn(hazards(config, prepared))
    manifest = begin_manifest(config, prepared) | {"resumed": resume}
    checkpoint = None
    if resume:
        checkpoint = go_on(config, manifest)
    else:
        manifest["activation_checkpointing"] = activations.choose(
            config, prepared.packed, prepared.longest, device, dtype
        )
    arguments = training_arguments(
        config, device, dtype, bool(prepared.validation), manifest["activation_checkpointing"]
    )
    model = load_model(config, device, dtype, arguments.activation_checkpointing)
    trainer = build_trainer(config, prepared, model, arguments, manifest["started"])
    check_divided(trainer.accelerator.distributed_type)
    if RANK == 0:
        record_start(config, prepared, model, manifest)
    trainer.accelerator.wait_for_everyone()
    run_steps(config, prepared, trainer, checkpoint)
    weights = trainer.whole_weights()
    if RANK == 0:
        finish(config, prepared, trainer, weights, manifest, started)
        warn_of_loss(run / "log.jsonl")
    if lock:
        lock.close()


def go_on(config: Config, manifest: dict[str, Any]) -> Path:
    """The checkpoint that an interrupted run goes on from; `manifest` is given what the run was begun with.

    Raises UserError where it was begun as another run, naming each difference, and where no checkpoint is whole.
    """
    run = config.run_directory
    begun = read_manifest(run)
    check_resumable(begun, manifest, load_config(run / "config.yaml").changes_training(config))
    # Another machine might choose otherwise about activations, and round otherwise.
    kept = ("started", "activation_checkpointing")
    if not begun.keys() >= set(kept):
        raise UserError(f"{run}: was begun by another version of this program; --force starts again")
    manifest |= {name: begun[name] for name in kept}
    checkpoint = checkpoints.newest_whole(run / "checkpoints", begun["started"])
    if RANK == 0:
        checkpoints.set_aside_newer(checkpoint)
        print(f"going on after step {checkpoint.name.rpartition('-')[2]} of {manifest['steps']}")
    return checkpoint


def run_steps(config: Config, prepared: Prepared, trainer: RunTrainer, checkpoint: Path | None) -> None:
    """All steps, or those after `checkpoint`; ends the process after a signal.

    Raises UserError where the GPU's memory does not suffice, and where a checkpoint holds more than numbers.
    """
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except Stopped as stopped:
        if RANK == 0:
            step = trainer.state.global_step
            how = "--resume goes on from there" if step else "nothing was learned yet, --force starts again"
            print(f"stopped after step {step} of {prepared.steps}; {how}", file=sys.stderr)
        end_by_signal(stopped.number)
    except torch.OutOfMemoryError:
        raise UserError(
            "the GPU's memory does not suffice: "
            + less_memory(config, prepared.packed, prepared.longest, trainer.args.device)
        ) from None
    except pickle.UnpicklingError as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"{checkpoint}: holds more than tensors, and is not read: {first}; delete it") from None


def load_model(config: Config, device: torch.device, dtype: torch.dtype, checkpointing: bool) -> Any:
    """The base model with what is trained of it: a fresh adapter, or all of its weights."""
    placed = None if divided_by() else device  # no GPU need hold more than its part
    base = load_base(config.model.base, placed, dtype, config.quantization, **config.model.loading)
    if checkpointing:
        check_checkpointing(base)
    set_seed(config.training["seed"])
    return train_all(base) if config.lora is None else add_lora(base, config.lora)


def training_arguments(
    config: Config, device: torch.device, dtype: torch.dtype, validate: bool, activation_checkpointing: bool
) -> SFTConfig:
    """TRL's configuration, with every setting that the pipeline owns. Raises UserError for what TRL refuses."""
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
            activation_checkpointing=activation_checkpointing,
            **settings,
        )
    except ValueError as error:
        raise UserError(f"training: {' '.join(str(error).split())[:300]}") from None


def build_trainer(config: Config, prepared: Prepared, model: Any, arguments: SFTConfig, run_id: str) -> RunTrainer:
    """The trainer, its rows encoded already; `run_id` is what tells the run's checkpoints from another's."""
    return RunTrainer(
        model=model,
        args=arguments,
        train_dataset=prepared.train,
        eval_datasets=prepared.validation,
        tokenizer=prepared.tokenizer,
        formatting_func=FormattingFunction(prepared.template),
        encoder=prepared.encoder,
        log_path=config.run_directory / "log.jsonl",
        run_id=run_id,
        total_batch_size=config.training["total_batch_size"],
        pack=prepared.packed,
        packed_attention=config.training["packed_attention"],
    )


def begin_manifest(config: Config, prepared: Prepared) -> dict[str, Any]:
    """The manifest of a run that has just begun; `identity` is what a resumed run must share."""
    sides = {name: len(side) for name, side in prepared.split._asdict().items()}
    fates: dict[str, dict[str, int]] = {}
    for (category, fate), count in sorted(prepared.encoder.fates["train"].items()):
        fates.setdefault(category, {})[fate] = count
    return {
        "status": "running",
        "started": now(),
        "identity": {
            "data": prepared.data.sha256,
            "tokenizer": prepared.encoder.tokenizer_sha256,
            "template": prepared.template.sha256,
            "split": text_sha256(split_text(prepared.split)),
            "processes": WORLD_SIZE,
            "divided_by": divided_by(),
        },
        "rows": {**sides, "dropped": prepared.data.drop_counts.total(), "truncation": fates},
        "steps": prepared.steps,
        "packed": prepared.packed,
        "environment": environment(),
    }


def record_start(config: Config, prepared: Prepared, model: Any, manifest: dict[str, Any]) -> None:
    """Begin the run's directory, or go on in it: what is trained, on what, with which settings."""
    run = config.run_directory
    print(describe_trained(model))
    if not manifest["resumed"]:
        claim_directory(run)
    manifest["base_commit"] = getattr(base_of(model).config, "_commit_hash", None)
    write_manifest(run, manifest)
    write_text(run / "config.yaml", config.to_yaml())
    write_split(run, prepared.split)


def finish(
    config: Config,
    prepared: Prepared,
    trainer: RunTrainer,
    weights: dict[str, torch.Tensor],
    manifest: dict[str, Any],
    started: float,
) -> None:
    """Save what was learned with what belongs to it, draw the loss, and close the manifest."""
    run = config.run_directory
    learned = run / ("model" if config.lora is None else "adapter")
    model = trainer.accelerator.unwrap_model(trainer.model)
    with whole_directory(learned) as aside:
        if config.lora is None:
            model.config.use_cache = True  # the trainer turned it off
            model.to(resolve_dtype(config.model.dtype, trainer.args.device)).save_pretrained(str(aside))
            saved = f"{model.num_parameters():,} weights"
        else:
            model.save_pretrained(str(aside), state_dict=weights, save_embedding_layers=False)
            saved = f"{check_adapter(aside)} LoRA pairs"
        prepared.tokenizer.save_pretrained(str(aside))
        prepared.template.save(aside)
        hashes = {path.name: file_sha256(path) for path in sorted(aside.glob("*")) if path.is_file()}
    plot_loss(run / "log.jsonl", run / "loss.png")
    seconds = round(time.perf_counter() - started, 1)
    manifest |= {
        "status": "finished",
        "finished": now(),
        "seconds": seconds,
        "learned": hashes,
        "memory_peak_bytes": memory_peak_bytes(trainer.args.device),
        "device": str(trainer.args.device),
    }
    write_manifest(run, manifest)
    print(f"{learned}: {saved} saved, {seconds:.0f} s {'since it was resumed' if manifest['resumed'] else 'in all'}")
    print(f"next: python infer.py {run}" + f"    python -m eval {run}" * bool(prepared.split.test))
