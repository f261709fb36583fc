"""Fine-tune a base model with LoRA on instruction rows.

    accelerate launch train_sft.py configs/calm7b.yaml [section.key=value …] [--resume] [--force]
    python train_sft.py configs/calm7b.yaml --dry-run [--card 24GB] [--compare TOKENIZER,…]

The result is in runs/<config name>/: adapter/, config.yaml, manifest.json, split.json, log.jsonl, loss.png.
"""

import pickle
import sys
import time
from typing import TYPE_CHECKING, Any

from sft.config.load import load_config
from sft.config.sections import Config
from sft.plan.prepare import Prepared, hazards, prepare, read_rows, read_tokenizer
from sft.system.command_line import command_parser
from sft.system.errors import UserError, exit_on_user_error
from sft.system.processes import RANK, WORLD_SIZE, check_divided, check_engine, divided_by

if TYPE_CHECKING:  # these import torch, which takes seconds that --help and a wrong configuration need not wait
    from pathlib import Path

    import torch
    from trl import SFTConfig

    from sft.training.trainer import RunTrainer


def main() -> None:
    """Read the command line, check the configuration, and train."""
    parser = command_parser(__doc__)
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
            from sft.checks.dry_run import dry_run

            dry_run(config, arguments.card, arguments.compare.split(",") if arguments.compare else [])
        else:
            train(config, arguments.resume, arguments.force)


def train(config: Config, resume: bool, force: bool) -> None:
    """Load, train, save. Whatever the user can have got wrong is found before the run directory is touched."""
    from sft.run import directory as runs

    started = time.perf_counter()
    run = config.run_directory
    if RANK == 0:  # before the seconds that imports take; a slower process would meet what this one has begun to write
        runs.check_directory(run, resume, force)

    from sft.model.place import resolve_device, resolve_dtype, use_all_cores
    from sft.plan import activations as checkpointing
    from sft.system.errors import warn
    from sft.system.files import check_inside
    from sft.training.log import warn_of_loss

    device = resolve_device(config.model.device)
    dtype = resolve_dtype(config.model.dtype, device)
    check_engine(config.quantization is not None, config.lora is not None, str(dtype))
    if device.type == "cpu":
        use_all_cores()
    lock = None
    if RANK == 0:
        lock = runs.lock_directory(run)
        runs.check_directory(run, resume, force)  # somebody may have begun since
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
        manifest["activation_checkpointing"] = checkpointing.choose(
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


def go_on(config: Config, manifest: dict[str, Any]) -> "Path":
    """The checkpoint that an interrupted run goes on from; `manifest` is given what the run was begun with.

    Raises UserError where it was begun as another run, naming each difference, and where no checkpoint is whole.
    """
    from sft.run import directory as runs
    from sft.training import checkpoints

    run = config.run_directory
    begun = runs.read_manifest(run)
    runs.check_resumable(begun, manifest, load_config(run / "config.yaml").changes_training(config))
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


def run_steps(config: Config, prepared: Prepared, trainer: "RunTrainer", checkpoint: "Path | None") -> None:
    """All steps, or those after `checkpoint`; ends the process after a signal.

    Raises UserError where the GPU's memory does not suffice, and where a checkpoint holds more than numbers.
    """
    import torch

    from sft.plan.activations import less_memory
    from sft.training.stopping import Stopped, end_by_signal

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


def load_model(config: Config, device: "torch.device", dtype: "torch.dtype", checkpointing: bool) -> Any:
    """The base model with what is trained of it: a fresh adapter, or all of its weights."""
    from transformers import set_seed

    from sft.model.families import check_checkpointing
    from sft.model.load import load_base
    from sft.model.lora import add_lora, train_all

    placed = None if divided_by() else device  # no GPU need hold more than its part
    base = load_base(config.model.base, placed, dtype, config.quantization, **config.model.loading)
    if checkpointing:
        check_checkpointing(base)
    set_seed(config.training["seed"])
    return train_all(base) if config.lora is None else add_lora(base, config.lora)


def training_arguments(
    config: Config, device: "torch.device", dtype: "torch.dtype", validate: bool, activation_checkpointing: bool
) -> "SFTConfig":
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
            activation_checkpointing=activation_checkpointing,
            **settings,
        )
    except ValueError as error:
        raise UserError(f"training: {' '.join(str(error).split())[:300]}") from None


def build_trainer(config: Config, prepared: Prepared, model: Any, arguments: "SFTConfig", run_id: str) -> "RunTrainer":
    """The trainer, its rows encoded already; `run_id` is what tells the run's checkpoints from another's."""
    from sft.prompt.template import FormattingFunction
    from sft.training.trainer import RunTrainer

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
    from sft.run import directory as runs

    sides = {name: len(side) for name, side in prepared.split._asdict().items()}
    fates: dict[str, dict[str, int]] = {}
    for (category, fate), count in sorted(prepared.encoder.fates["train"].items()):
        fates.setdefault(category, {})[fate] = count
    return {
        "status": "running",
        "started": runs.now(),
        "identity": {
            "data": prepared.data.sha256,
            "tokenizer": prepared.encoder.tokenizer_sha256,
            "template": prepared.template.sha256,
            "split": runs.text_sha256(runs.split_text(prepared.split)),
            "processes": WORLD_SIZE,
            "divided_by": divided_by(),
        },
        "rows": {**sides, "dropped": prepared.data.drop_counts.total(), "truncation": fates},
        "steps": prepared.steps,
        "packed": prepared.packed,
        "environment": runs.environment(),
    }


def record_start(config: Config, prepared: Prepared, model: Any, manifest: dict[str, Any]) -> None:
    """Begin the run's directory, or go on in it: what is trained, on what, with which settings."""
    from sft.model.lora import base_of, describe_trained
    from sft.run import directory as runs

    run = config.run_directory
    print(describe_trained(model))
    if not manifest["resumed"]:
        runs.claim_directory(run)
    manifest["base_commit"] = getattr(base_of(model).config, "_commit_hash", None)
    runs.write_manifest(run, manifest)
    runs.write_text(run / "config.yaml", config.to_yaml())
    runs.write_split(run, prepared.split)


def finish(
    config: Config,
    prepared: Prepared,
    trainer: "RunTrainer",
    weights: "dict[str, torch.Tensor]",
    manifest: dict[str, Any],
    started: float,
) -> None:
    """Save what was learned with what belongs to it, draw the loss, and close the manifest."""
    from sft.model.adapter import check_adapter
    from sft.model.place import resolve_dtype
    from sft.run import directory as runs
    from sft.system.files import file_sha256
    from sft.system.whole_directory import whole_directory
    from sft.training.loss_plot import plot_loss
    from sft.training.trainer import memory_peak_bytes

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
        "finished": runs.now(),
        "seconds": seconds,
        "learned": hashes,
        "memory_peak_bytes": memory_peak_bytes(trainer.args.device),
        "device": str(trainer.args.device),
    }
    runs.write_manifest(run, manifest)
    print(f"{learned}: {saved} saved, {seconds:.0f} s {'since it was resumed' if manifest['resumed'] else 'in all'}")
    print(f"next: python infer.py {run}" + f"    python -m eval {run}" * bool(prepared.split.test))


if __name__ == "__main__":
    main()
