"""The story of a training: rows, checks, model, steps, and the run's directory with what was learned."""

import functools
import pickle
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import get_scheduler, set_seed
from trl import SFTConfig

from sft.checks.checks import checked_plan
from sft.config.changes import training_changes
from sft.config.load import load_config
from sft.config.sections import Config
from sft.data.rows import names_of
from sft.model.adapter import check_adapter
from sft.model.base_identity import base_identity
from sft.model.load import is_part_of_more, load_base
from sft.model.lora import add_lora, base_of, describe_trained, train_all
from sft.model.norms import WORTH, compile_norms
from sft.model.place import memory_peak_bytes, resolve_device, resolve_dtype, use_all_cores
from sft.plan.activations import Chosen, choose, less_memory
from sft.plan.prepare import Plan
from sft.prompt.encoded_rows import row_lengths
from sft.run import checkpoints
from sft.run.directory import claim_directory, forget_replaced, owned, weights_directory
from sft.run.held_out import split_text, write_split
from sft.run.manifest import (
    Environment,
    FinishedManifest,
    Identity,
    Kept,
    Manifest,
    RowCounts,
    file_counts,
    now,
    read_manifest,
    truncation_counts,
    write_manifest,
)
from sft.run.parent import read_parent
from sft.system.command_line import as_typed
from sft.system.errors import UserError, first_line, say
from sft.system.files import file_sha256, text_sha256, write_whole
from sft.system.processes import RANK, WORLD_SIZE, check_divided, check_engine, divided_by
from sft.system.whole_directory import whole_directory
from sft.training.log import warn_of_loss
from sft.training.loss_plot import plot_loss
from sft.training.page import RunPage, write_page
from sft.training.samples import sample_answers
from sft.training.stopping import NotFinite, Stopped, ends_by_signal
from sft.training.trackers import Begun, begin_trackers, log_in, make_places, report_answers
from sft.training.trainer import RunTrainer


def train(config: Config, resume: bool, force: bool) -> None:
    """Load, train, save. Whatever the user can have got wrong is found before the run directory is touched."""
    started = time.perf_counter()
    device = resolve_device(config.model.device)
    dtype = resolve_dtype(config.model.dtype, device)
    check_engine(config.quantization is not None, config.lora is not None, str(dtype), config.training.get("keep_best"))
    if device.type == "cpu":
        use_all_cores()
    with ends_by_signal(), owned(config.run_directory, resume, force):
        plan = checked_plan(config, device)
        manifest = begin_manifest(config, plan, resume)
        checkpoint = go_on(config, manifest) if resume else None
        arguments = training_arguments(config, device, dtype, plan)
        if not resume:
            chosen = choose(config, plan.packed, plan.longest, device, dtype)
            manifest.activation_checkpointing, manifest.micro_batch_rows = chosen
        take(arguments, manifest.activation_checkpointing, manifest.micro_batch_rows)
        begin_trackers(arguments.report_to, config.run_directory)
        log_in(arguments.report_to)
        model = load_model(config, device, dtype)
        decide_norms(config, plan, manifest, model, device)
        trainer = build_trainer(config, plan, model, arguments, manifest)
        check_divided(trainer.accelerator.distributed_type)
        if RANK == 0:
            record_start(config, plan, model, manifest)
            make_places(arguments.report_to, config.run_directory)
        trainer.accelerator.wait_for_everyone()
        run_steps(config, plan, trainer, checkpoint)
        best, last = trainer.take_best(), trainer.state.global_step
        by = config.training.get("keep_best")
        kept = Kept(step=best.step, of=last, by=by, loss=best.loss) if best else Kept(step=last, of=last)
        weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # gathered: all processes call it
        if RANK == 0:
            finish(config, plan, trainer, weights, manifest, kept, started)
            warn_of_loss(config.run_directory / "log.jsonl")


def begin_manifest(config: Config, plan: Plan, resumed: bool) -> Manifest:
    """The manifest of a run that has just begun."""
    base = base_identity(config.model)
    sides = {name: len(side) for name, side in plan.split._asdict().items()}
    truncation = truncation_counts(plan.train.fates)
    return Manifest(
        status="running",
        started=now(),
        identity=Identity(
            data=plan.data.sha256,
            tokenizer=plan.encoder.tokenizer_sha256,
            template=plan.template.sha256,
            split=text_sha256(split_text(plan.split)),
            processes=WORLD_SIZE,
            divided_by=divided_by(),
        ),
        rows=RowCounts(
            **sides,
            dropped=plan.data.drop_counts.total(),
            truncation=truncation,
            files=file_counts(plan.data.files),
        ),
        steps=plan.steps,
        packed=plan.packed,
        environment=Environment.now(),
        resumed=resumed,
        base_commit=base.commit,
        base_sha256=base.sha256,
        part_of_more=is_part_of_more(config.model.base, config.model.revision, config.model.trust_remote_code),
        parent=read_parent(config, base, plan.encoder.tokenizer_sha256, plan.template.sha256),
    )


def go_on(config: Config, manifest: Manifest) -> Path:
    """The checkpoint that an interrupted run goes on from; `manifest` is given what the run was begun with.

    Raises UserError where it was begun as another run, naming each difference, and where no checkpoint is whole.
    """
    run = config.run_directory
    begun = read_manifest(run)
    manifest.check_goes_on(begun, training_changes(load_config(run / "config.yaml", to_train=False), config))
    if begun.activation_checkpointing is None or begun.micro_batch_rows is None:
        raise UserError(f"{run}: was begun by another version of this program; --force starts again")
    # Another machine, or this one with other programs on it, might choose otherwise, and round otherwise.
    manifest.started, manifest.activation_checkpointing = begun.started, begun.activation_checkpointing
    manifest.micro_batch_rows, manifest.compiled_norms = begun.micro_batch_rows, bool(begun.compiled_norms)
    checkpoint = checkpoints.newest_whole(run / "checkpoints", begun.started)
    if RANK == 0:
        checkpoints.go_on_from(checkpoint)
        print(f"going on after step {checkpoint.name.rpartition('-')[2]} of {manifest.steps}")
    return checkpoint


def load_model(config: Config, device: torch.device, dtype: torch.dtype) -> Any:
    """The base model with what is trained of it: an adapter, fresh or another run's, or all of its weights."""
    placed = None if divided_by() else device  # no GPU need hold more than its part
    base = load_base(config.model.base, placed, dtype, config.quantization, **config.model.loading)
    set_seed(config.training["seed"])
    if config.lora is None:
        return train_all(base)
    parent = config.model.adapter
    return add_lora(base, config.lora, weights_directory(Path(parent)) if parent else None)


def decide_norms(config: Config, plan: Plan, manifest: Manifest, model: Any, device: torch.device) -> None:
    """Compile the model's norms where the run was begun so; in one that begins now, on a CPU, if it has tokens enough.

    Raises UserError where the run was begun so, and this machine cannot.
    """
    begun_so = manifest.compiled_norms
    alone = device.type == "cpu" and WORLD_SIZE == 1  # of several processes, one might not be able to
    if begun_so is None:
        enough = alone and sum(row_lengths(plan.train.rows)) * config.training["num_train_epochs"] >= WORTH
        manifest.compiled_norms = enough and compile_norms(base_of(model))
    elif begun_so and not (alone and compile_norms(base_of(model))):
        problem = "was begun with compiled norms, which round otherwise"
        remedy = "go on where they can be compiled, on a CPU, or --force starts again"
        raise UserError(f"{config.run_directory}: {problem}; {remedy}")


def training_arguments(config: Config, device: torch.device, dtype: torch.dtype, plan: Plan) -> SFTConfig:
    """TRL's configuration, with every setting that the pipeline owns. Raises UserError for what TRL refuses."""
    if WORLD_SIZE == 1 and device.type == "cuda" and torch.cuda.device_count() > 1:
        remedy = "use accelerate launch --num_processes with their number, or let it see one (CUDA_VISIBLE_DEVICES=0)"
        raise UserError(f"{torch.cuda.device_count()} GPUs are visible and one process runs: {remedy}")
    settings = {"run_name": config.name} | config.library("training")
    if not plan.validation:
        settings["eval_strategy"] = "no"
    try:
        arguments = SFTConfig(
            output_dir=str(config.run_directory / "checkpoints"),
            use_cpu=device.type == "cpu",
            dataloader_pin_memory=device.type != "cpu",
            # bf16 weights compute in bf16 by themselves, but weights that are all trained are fp32.
            bf16=config.lora is None and dtype == torch.bfloat16,
            fp16=dtype == torch.float16,  # fp16 gradients need the loss scaler that comes with it
            completion_only_loss=False,  # labels are ours
            logging_nan_inf_filter=False,
            activation_checkpointing=False,  # decided when all processes are there
            **settings,
        )
        # What only the library's functions know to be wrong is found before the model is loaded.
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
        extra = arguments.lr_scheduler_kwargs
        get_scheduler(arguments.lr_scheduler_type, optimizer, 1, plan.steps, scheduler_specific_kwargs=extra)
        if arguments.lr_scheduler_type == "reduce_lr_on_plateau":
            problem = "reduce_lr_on_plateau needs one validation loss, and each group has its own"
            raise ValueError(f"lr_scheduler_type {problem}; choose another, such as cosine")
        return arguments
    except (ValueError, TypeError) as error:
        raise UserError(f"training: {' '.join(str(error).split())[:300]}") from None


def take(arguments: SFTConfig, checkpointing: bool | None, rows: int | None) -> None:
    """Train so. TRL reads the setting's old name, which follows the new one only when arguments are made."""
    arguments.activation_checkpointing = arguments.gradient_checkpointing = checkpointing
    arguments.per_device_train_batch_size = rows


def build_trainer(config: Config, plan: Plan, model: Any, arguments: SFTConfig, manifest: Manifest) -> RunTrainer:
    """The trainer, its rows encoded already, with the validation questions that it is asked."""
    trainer = RunTrainer(
        model=model,
        args=arguments,
        train_dataset=plan.train.rows,
        eval_datasets=plan.validation,
        tokenizer=plan.tokenizer,
        encoder=plan.encoder,
        log_path=config.run_directory / "log.jsonl",
        run_id=manifest.started,
        total_batch_size=config.training["total_batch_size"],
        pack=plan.packed,
        packed_attention=config.training["packed_attention"],
        keep_best=config.training.get("keep_best"),
        patience=config.training.get("patience"),
    )
    report = functools.partial(report_answers, arguments.report_to, trainer.callback_handler.callbacks)
    if samples := sample_answers(config, plan, model, report):
        trainer.add_callback(samples)
    trainer.add_callback(Begun(arguments.report_to, config.run_directory))
    trainer.add_callback(RunPage(config, plan))  # after the answers that it shows
    return trainer


def record_start(config: Config, plan: Plan, model: Any, manifest: Manifest) -> None:
    """Begin the run's directory, or go on in it: what is trained, on what, with which settings."""
    run = config.run_directory
    print(describe_trained(model))
    if not manifest.resumed:
        claim_directory(run)
    write_manifest(run, manifest)
    write_whole(run / "config.yaml", config.to_yaml())
    write_split(run, plan.split)


def run_steps(config: Config, plan: Plan, trainer: RunTrainer, checkpoint: Path | None) -> None:
    """All steps, or those after `checkpoint`. Raises Stopped after a signal.

    Raises UserError where the GPU's memory does not suffice, and where a checkpoint holds more than numbers.
    """
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except Stopped:
        if RANK == 0:
            step = trainer.state.global_step
            how = "--resume goes on from there" if step else "nothing was learned yet, --force starts again"
            print(f"stopped after step {step} of {plan.steps}; {how}", file=sys.stderr)
        raise
    except NotFinite as error:
        raise error.naming(names_of(plan.data.rows, error.rows)) from None
    except torch.OutOfMemoryError:
        chosen = Chosen(trainer.args.activation_checkpointing, trainer.args.per_device_train_batch_size)
        remedy = less_memory(config, plan.packed, plan.longest, trainer.args.device, chosen)
        raise UserError(f"the GPU's memory does not suffice: {remedy}") from None
    except pickle.UnpicklingError as error:
        reason = first_line(error)
        raise UserError(f"{checkpoint}: holds more than tensors, and is not read: {reason}; delete it") from None


def finish(
    config: Config, plan: Plan, trainer: RunTrainer, weights: Any, manifest: Manifest, kept: Kept, started: float
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
            (aside / "README.md").unlink()  # PEFT's empty card, with the base's path; sft.export writes a true one
            saved = f"{check_adapter(aside)} LoRA pairs"
        plan.tokenizer.save_pretrained(str(aside))
        plan.template.save(aside)
        hashes = {path.name: file_sha256(path) for path in sorted(aside.glob("*")) if path.is_file()}
    plot_loss(run / "log.jsonl", run / "loss.png", config.name, config.training.get("keep_best"))
    write_page(config, plan, trainer.state.global_step, ended=True)
    closed = FinishedManifest(
        **manifest.model_dump() | {"status": "finished"},
        finished=now(),
        seconds=round(time.perf_counter() - started, 1),
        learned=hashes,
        kept=kept,
        memory_peak_bytes=memory_peak_bytes(trainer.args.device),
        device=str(trainer.args.device),
    )
    write_manifest(run, closed)
    forget_replaced(run)
    if kept.by:
        say(
            f"{learned}: step {kept.step} of {kept.of}, whose {kept.by} validation loss is the lowest ({kept.loss:.4f})"
        )
    say(f"{learned}: {saved} saved, {closed.seconds:.0f} s {'since it was resumed' if closed.resumed else 'in all'}")
    quoted = shlex.quote(str(run))
    say(as_typed(f"next: python infer.py {quoted}"))
    if plan.split.test:
        say(as_typed(f"      python -m eval {quoted}"))
