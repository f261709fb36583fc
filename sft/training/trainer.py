"""TRL's SFTTrainer with our preparation, our loss, validation by group, and a log that hides nothing."""

import contextlib
import functools
import math
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from sft.model.attention.documents import PackedAttention, packed_mask, use_packed_attention
from sft.model.lora import base_of, recast_trainable
from sft.model.loss import add_token_nll
from sft.model.place import memory_peak_bytes, wider_format
from sft.prompt.encoded_rows import row_lengths
from sft.prompt.row_encoder import RowEncoder
from sft.run import checkpoints
from sft.run.directory import forget_replaced
from sft.system.errors import UserError, disk_problem
from sft.system.memory import relieve
from sft.training.best import Best, KeepBest
from sft.training.log import RunLog
from sft.training.steps import Divide, MicroBatches, StepCollator, StepSampler, packed, padded
from sft.training.stopping import NotFinite, Signals, Stopped, random_states, restore_random

SIZE = 64
"""A bin's tokens are a multiple of it."""


class RunTrainer(SFTTrainer):
    """SFTTrainer for prompt–answer rows whose labels are known by position.

    Differences to TRL 1.16: rows are prepared by `encoder` from what the formatting function returns (TRL's own
    preparation refuses a formatting function with answer-only loss, and encodes special-token text inside the
    data as special tokens); a batch is a process's whole share of an optimizer step, packed without padding or
    padded in micro-batches; the loss sees supervised positions only; adapter weights stay fp32 on quantised bases;
    each validation set gets its own loss per token; checkpoints appear whole or not at all; a signal, and the first
    loss or gradient that is not finite, stop the run with its last whole step saved.

    Args:
        model: a PEFT model with its base frozen, or a model whose weights are all trained.
        args: TRL's configuration. Its packing, accumulation and completion-only loss must be off. The batch sizes per
            device bound a micro-batch: so many padded rows, or so many times the encoder's `max_length` packed tokens.
        train_dataset: rows as `encoder` made them, or with the fields that it makes them of.
        eval_datasets: such rows by group name; may be empty.
        tokenizer: the base model's tokenizer.
        encoder: makes token ids and labels, through its formatting function.
        log_path: where each logged step is appended as one JSON object a line.
        run_id: tells the run's checkpoints from another's.
        total_batch_size: rows an optimizer step, over all processes.
        pack: whether rows are packed, which the model's attention must keep apart (`sft.model.attention`).
        packed_attention: how it does.
        keep_best, patience: see `KeepBest`.
    """

    def __init__(
        self,
        *,
        model: PeftModel | PreTrainedModel,
        args: SFTConfig,
        train_dataset: Dataset,
        eval_datasets: dict[str, Dataset],
        tokenizer: PreTrainedTokenizerBase,
        encoder: RowEncoder,
        log_path: Path,
        run_id: str,
        total_batch_size: int,
        pack: bool,
        packed_attention: PackedAttention = "auto",
        keep_best: str | None = None,
        patience: int | None = None,
    ) -> None:
        self._encoder = encoder
        self._run_id = run_id
        self._total_batch_size = total_batch_size
        self._pack = pack
        self._signals = Signals()
        self._before_step: list[Any] | None = None
        self._checkpoints = Path(args.output_dir)
        self._keep_best = KeepBest(keep_best, patience, self._checkpoints)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_datasets or None,
            processing_class=tokenizer,
            formatting_func=encoder.formatting_func,
        )
        recast_trainable(model)  # TRL casts the adapter of a quantised base to bf16
        add_token_nll(base_of(model))
        share = pack and use_packed_attention(base_of(model), packed_attention, args.device)
        if pack:
            self.data_collator = DataCollatorForLanguageModeling(tokenizer.pad_token_id, padding_free=True)
        self._collator = StepCollator(
            self.data_collator, tokenizer.pad_token_id, multiple=SIZE if pack else 1, share_prefixes=share
        )
        # The number of supervised tokens of the whole step divides the loss, whatever the model's signature says.
        self.model_accepts_loss_kwargs = True
        self._tokens_since_log = torch.zeros((), dtype=torch.long)
        self._skipped_steps = 0
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        self.add_callback(RunLog(log_path, lambda steps: self._sampler().tokens_by_step(steps)))
        self.add_callback(self._keep_best)

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Dataset:
        # Like TRL's own, it leaves rows alone that are token ids already: their number and lengths must be known before
        # there is a model.
        return dataset if "input_ids" in dataset.column_names else self._encoder.encode(dataset).rows

    def get_train_dataloader(self) -> DataLoader:
        """Batches that are this process's share of an optimizer step each; not for accelerate to divide again."""
        arguments = self.args
        return DataLoader(
            MicroBatches(self.train_dataset),
            batch_sampler=self._sampler(),
            collate_fn=self._collator,
            num_workers=arguments.dataloader_num_workers,
            pin_memory=arguments.dataloader_pin_memory,
            prefetch_factor=arguments.dataloader_prefetch_factor,
            persistent_workers=arguments.dataloader_persistent_workers,
            # Of its own, so that the beginning of an epoch draws nothing from the one that a checkpoint holds.
            generator=torch.Generator().manual_seed(arguments.seed),
        )

    def _sampler(self) -> StepSampler:
        arguments = self.args
        return StepSampler(
            row_lengths(self.train_dataset),
            self._total_batch_size,
            self._divide(arguments.per_device_train_batch_size),
            arguments.seed,
            lambda: self.state.global_step,
            arguments.process_index,
            arguments.world_size,
        )

    def _divide(self, rows: int) -> Divide:
        if self._pack:
            return functools.partial(packed, capacity=rows * self._encoder.max_length)
        return functools.partial(padded, rows=rows)

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> torch.Tensor:
        self._before_step = None  # the step before is whole
        supervised = sum(batch["label_copies"].sum() for step in batch_samples for batch in step["micro_batches"])
        # Processes stop together, before a step, or those that go on would wait for the others forever.
        found = self.accelerator.reduce(torch.tensor([int(supervised), self._signals.received], device=device))
        if found[1]:
            raise Stopped(self._signals.received or signal.SIGTERM)
        return found[0]

    def compute_loss(self, model: Any, inputs: dict[str, Any], num_items_in_batch: torch.Tensor) -> torch.Tensor:
        """Mean −ln p over the step's supervised tokens, in nats (this micro-batch's share of that mean)."""
        # DistributedDataParallel averages gradients over processes, while the tokens counted are those of all.
        return self._nll(model, inputs)[0] / num_items_in_batch * self.accelerator.num_processes

    def _nll(self, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum of −ln p over the supervised tokens of all rows, and their number."""
        inputs = dict(batch)
        labels, copies = inputs.pop("labels"), inputs.pop("label_copies")
        if len(batch.get("document_lengths", ())) > 1:  # one alone is left to PyTorch's causal kernel
            inputs["attention_mask"] = packed_mask(base_of(self.model).config, batch["seq_idx"])
        return (model(**inputs, nll_labels=labels, use_cache=False) * copies).sum(), copies.sum()

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any) -> torch.Tensor:
        """Forward and backward of every micro-batch of a step.

        Raises UserError at the first loss that is not finite, and Stopped after a signal.
        """
        self._before_step = random_states()
        if self._tokens_since_log == 0:  # the clock stands still between steps: validation and saving do not count
            self._last_log_time = time.perf_counter()
        self._tokens_since_log += inputs["tokens"]
        *others, last = inputs["micro_batches"]
        losses = []
        # Processes exchange gradients once a step, after the last micro-batch.
        self.accelerator.gradient_state._set_sync_gradients(False)
        with self.accelerator.no_sync(model) if others else contextlib.nullcontext():
            for batch in others:
                losses.append(self._micro_batch(model, batch, *args))
                if self._signals.received and self.accelerator.num_processes == 1:
                    raise Stopped(self._signals.received)
        self.accelerator.gradient_state._set_sync_gradients(True)
        losses.append(self._micro_batch(model, last, *args))
        loss = torch.stack(losses)
        # With several processes, the gradient they share tells all of them.
        if self.accelerator.num_processes == 1 and not loss.isfinite().all():
            worst = int(loss.isfinite().int().argmin())
            raise self._not_finite("loss", float(loss[worst]), inputs["rows"][worst])
        self._rows = [row for rows in inputs["rows"] for row in rows]
        return loss.sum()

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        if not math.isfinite(norm):
            # The scaler of fp16 looks for its scale with gradients that are not finite, and leaves those steps out. At
            # 1 nothing is scaled any more, and no lower scale would help.
            if self.accelerator.scaler is None or self.accelerator.scaler.get_scale() <= 1:
                raise self._not_finite("gradient", float(norm), self._rows)
            self._skipped_steps += 1
        return norm

    def _not_finite(self, what: str, value: float, rows: Sequence[str]) -> NotFinite:
        base = base_of(self.accelerator.unwrap_model(self.model))
        arithmetic = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(self.accelerator.mixed_precision, base.dtype)
        return NotFinite(what, value, self.state.global_step + 1, rows, wider_format(base, arithmetic))

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as the library does. Raises Stopped after a signal, and NotFinite, with the last whole step saved."""
        try:
            with self._signals:
                done = super().train(*args, **kwargs)
                self._before_step = None
                if self._signals.received:  # in the last validation or while the last step was saved
                    raise Stopped(self._signals.received)
                return done
        except (Stopped, NotFinite):
            if self._before_step is not None:
                restore_random(self._before_step)  # the step that is dropped has drawn from it
            if not (self._checkpoints / f"checkpoint-{self.state.global_step}").exists() and self.state.global_step:
                self._save_checkpoint(self.model, None)
            raise

    def _micro_batch(self, *args: Any) -> torch.Tensor:
        loss = super().training_step(*args)
        if self.args.device.type == "cpu":
            relieve(self.state.global_step)  # or every new size of a micro-batch adds to the resident set
        return loss

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if not self.control.should_training_stop:  # the library looks after a step only
            super()._run_epoch(*args, **kwargs)

    def take_best(self) -> Best | None:
        """The best validation, whose weights the model then has; None, with those of the last step, if none is kept.

        Raises UserError when its checkpoint is not whole.
        """
        best = self._keep_best.best(self.state)
        if best and best.step != self.state.global_step:
            path = checkpoints.path_of(self._checkpoints, best.step)
            try:
                checkpoints.require_whole(path, self._run_id)
            except UserError as error:
                remedy = "--resume training.keep_best=null training.patience=null ends with the last"
                raise UserError(f"{error} ({remedy})") from None
            self._load_from_checkpoint(str(path))
        return best

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._checkpoints / checkpoints.ASIDE)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        name, main = f"checkpoint-{self.state.global_step}", self.accelerator.is_main_process
        aside = self._checkpoints / checkpoints.ASIDE
        if main:
            shutil.rmtree(aside, ignore_errors=True)  # what a killed process left
        self.accelerator.wait_for_everyone()
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # every process has added its part
            if main:
                checkpoints.complete(aside / name, self._run_id)
                best = self._keep_best.best(self.state)
                checkpoints.remove_old(self._checkpoints, self.args.save_total_limit, best.step if best else None)
        except Exception as error:  # the libraries raise many types
            reason = disk_problem(error)
            shutil.rmtree(aside, ignore_errors=True)
            if reason is None:
                raise
            raise UserError(
                f"{self._checkpoints / name}: cannot be written: {reason}; the checkpoints before it are kept: make "
                "room, and go on with --resume"
            ) from error
        self.accelerator.wait_for_everyone()
        if main:
            forget_replaced(self._checkpoints.parent)  # with a whole checkpoint, the run needs it no more

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """The arithmetic of a step, by transformers' estimate."""
        return sum(super(RunTrainer, self).floating_point_ops(batch) for batch in inputs["micro_batches"])

    def evaluate(self, ignore_keys: Any = None) -> dict[str, float]:
        """Mean −ln p per supervised token of each validation group, and of all ("overall"), over all tokens alike.

        Beside each loss stands how many rows it rests on.
        """
        model = self._wrap_model(self.model, training=False)
        was_training = model.training
        model.eval()
        metrics = {}
        overall = torch.zeros(2, dtype=torch.float64)
        for group, dataset in (self.eval_dataset or {}).items():
            totals = torch.zeros(2, dtype=torch.float64, device=self.args.device)
            rows, processes = MicroBatches(dataset), self.args.world_size
            divided = self._divide(self.args.per_device_eval_batch_size)(row_lengths(dataset), processes)
            for numbers in divided[self.args.process_index :: processes]:
                batch = self._prepare_inputs(self._collator([rows[numbers]])["micro_batches"][0])
                with torch.no_grad(), self.compute_loss_context_manager():
                    totals += torch.stack(self._nll(model, batch)).to(totals.dtype)
            totals = self.accelerator.reduce(totals).cpu()
            overall += totals
            metrics[f"eval_{group}_loss"] = float(totals[0] / totals[1])
            metrics[f"eval_{group}_rows"] = len(dataset)
        if metrics:
            total = sum(metrics[f"eval_{group}_rows"] for group in self.eval_dataset)
            metrics = {"eval_overall_loss": float(overall[0] / overall[1]), "eval_overall_rows": total, **metrics}
        model.train(was_training)
        self.log(metrics)
        self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)  # sets flags on control
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add useful tokens a second (padding left out, all processes) and peak memory to a step's log.

        In fp16, also how many steps the scaler has left out since the last log; their gradient norm is no number.
        """
        if "loss" in logs:
            if self._skipped_steps:
                logs["skipped_steps"], self._skipped_steps = self._skipped_steps, 0
            if not math.isfinite(logs.get("grad_norm", 0)):
                del logs["grad_norm"]
            now = time.perf_counter()
            tokens = self.accelerator.reduce(self._tokens_since_log.to(self.args.device)).item()
            logs["tokens_per_second"] = round(tokens / (now - self._last_log_time), 1)
            logs["memory_peak_bytes"] = memory_peak_bytes(self.args.device)
            self._tokens_since_log.zero_()
        super().log(logs, start_time)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if isinstance(self.model, PeftModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        # The library takes the files' names for the model's, which they need not be (GPT-NeoX's head); it drops others.
        saved = type(self.model).from_pretrained(resume_from_checkpoint, dtype=torch.float32)
        self.model.load_state_dict(saved.state_dict())

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """No card in checkpoints: TRL's would describe a base directory as a hub model."""
