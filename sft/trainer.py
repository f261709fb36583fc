"""TRL's SFTTrainer with our preparation, our loss, validation by group, and a log that hides nothing."""

import json
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch.utils.data import Sampler
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import SFTConfig, SFTTrainer

from sft.errors import UserError
from sft.loss import add_token_nll
from sft.model import base_of, recast_trainable
from sft.prompt import FormattingFunction
from sft.records import write_text
from sft.tokenization import RowEncoder

LOGGED = {"loss": "loss", "learning_rate": "lr", "grad_norm": "gradient norm", "tokens_per_second": "tokens/s"}


def memory_peak_bytes(device: torch.device) -> int:
    """The most memory used so far: reserved on a GPU, or this process's resident set on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class StepSortedSampler(Sampler[int]):
    """A seeded shuffle of each epoch, with the rows of every optimizer step put in order of their length.

    Which rows share a step, and so the gradient, is what the shuffle says; but micro-batches then hold rows of
    similar length, and less of the work goes into padding. The order depends on seed and epoch alone, and the epoch
    on the optimizer steps done: accelerate does not tell a sampler the epoch when several processes resume.
    """

    def __init__(self, lengths: list[int], step_rows: int, seed: int, steps_done: Callable[[], int]) -> None:
        self.lengths = lengths
        self.step_rows = step_rows
        self.seed = seed
        self.steps_done = steps_done

    def __iter__(self) -> Iterator[int]:
        epoch = self.steps_done() // math.ceil(len(self) / self.step_rows)
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(self.seed + epoch)).tolist()
        for start in range(0, len(order), self.step_rows):
            yield from sorted(order[start : start + self.step_rows], key=lambda row: -self.lengths[row])

    def __len__(self) -> int:
        return len(self.lengths)


class RunTrainer(SFTTrainer):
    """SFTTrainer for prompt–answer rows whose labels are known by position.

    Differences to TRL 1.16: rows are prepared by `encoder` from what `formatting_func` returns (TRL's own
    preparation refuses a formatting function with answer-only loss, and encodes special-token text inside the
    data as special tokens); the loss sees supervised positions only; adapter weights stay fp32 on quantised
    bases; each validation set gets its own loss per token; the first non-finite loss stops the run.

    Args:
        model: a PEFT model with its base frozen, or a model whose weights are all trained.
        args: TRL's configuration. Packing and completion-only loss must be off.
        train_dataset: rows with instruction, input, output, category.
        eval_datasets: such rows by group name; may be empty.
        tokenizer: the base model's tokenizer.
        formatting_func: row → prompt and completion.
        encoder: makes token ids and labels of them.
        log_path: where each logged step is appended as one JSON object a line.
    """

    def __init__(
        self,
        *,
        model: PeftModel | PreTrainedModel,
        args: SFTConfig,
        train_dataset: Dataset,
        eval_datasets: dict[str, Dataset],
        tokenizer: PreTrainedTokenizerBase,
        formatting_func: FormattingFunction,
        encoder: RowEncoder,
        log_path: Path,
    ) -> None:
        self._encoder = encoder
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_datasets or None,
            processing_class=tokenizer,
            formatting_func=formatting_func,
        )
        recast_trainable(model)  # TRL casts the adapter of a quantised base to bf16
        add_token_nll(base_of(model))
        # The number of supervised tokens of the whole step divides the loss, whatever the model's signature says.
        self.model_accepts_loss_kwargs = True
        self._tokens_since_log = torch.zeros((), dtype=torch.long)
        self._last_log_time = time.perf_counter()
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        self.add_callback(RunLog(log_path))

    def _prepare_dataset(
        self, dataset: Any, processing_class: Any, args: Any, packing: bool, formatting_func: Any, dataset_name: str
    ) -> Dataset:
        return self._encoder.encode(dataset, formatting_func, dataset_name)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> StepSortedSampler:
        dataset = train_dataset or self.train_dataset
        arguments = self.args
        step_rows = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
        lengths = list(map(len, dataset["input_ids"]))
        return StepSortedSampler(lengths, step_rows, arguments.seed, lambda: self.state.global_step)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Mean −ln p over the step's supervised tokens, in nats (this micro-batch's share of that mean)."""
        labels = inputs.pop("labels")
        nll = model(**inputs, nll_labels=labels, use_cache=False)
        tokens = len(nll) if num_items_in_batch is None else num_items_in_batch
        loss = nll.sum() / tokens
        # DistributedDataParallel averages gradients over processes, while the tokens counted are those of all.
        return loss * self.accelerator.num_processes if self.model.training else loss

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """One micro-batch forward and backward. Raises UserError at the first non-finite loss."""
        if self._tokens_since_log == 0:  # the clock stands still between steps: validation and saving do not count
            self._last_log_time = time.perf_counter()
        self._tokens_since_log += int(inputs["attention_mask"].sum())
        loss = super().training_step(model, inputs, *args, **kwargs)
        if not torch.isfinite(loss):
            raise UserError(
                f"the loss became {loss.item()} at step {self.state.global_step + 1}; the last checkpoint is kept. "
                "Try a lower training.learning_rate, or model.dtype=bfloat16 (float32 on a CPU) in place of float16"
            )
        return loss

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Mean −ln p per supervised token of each validation group, over all its tokens alike."""
        model = self._wrap_model(self.model, training=False)
        was_training = model.training
        model.eval()
        metrics = {}
        for group, dataset in (eval_dataset or self.eval_dataset or {}).items():
            totals = torch.zeros(2, dtype=torch.float64, device=self.args.device)
            for batch in self._eval_batches(dataset):
                with torch.no_grad(), self.compute_loss_context_manager():
                    labels = batch.pop("labels")
                    nll = model(**batch, nll_labels=labels, use_cache=False)
                totals += torch.tensor([nll.sum().item(), len(nll)], dtype=torch.float64, device=totals.device)
            nll_sum, tokens = self.accelerator.reduce(totals).tolist()
            metrics[f"{metric_key_prefix}_{group}_loss"] = nll_sum / tokens
        model.train(was_training)
        self.log(metrics)
        self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)  # sets flags on control
        return metrics

    def _eval_batches(self, dataset: Dataset) -> Iterator[dict[str, Any]]:
        # Rows are dealt out by hand: a prepared dataloader repeats rows to make ranks even, and would count them twice.
        rank, size = self.args.process_index, self.args.per_device_eval_batch_size
        mine = dataset.select(range(rank, len(dataset), self.args.world_size)).select_columns(["input_ids", "labels"])
        for start in range(0, len(mine), size):
            rows = [mine[position] for position in range(start, min(start + size, len(mine)))]
            yield self._prepare_inputs(self.data_collator(rows))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add useful tokens a second (padding left out, all processes) and peak memory to a step's log."""
        if "loss" in logs:
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
        # The library reads the files' names as the model's, which they need not be (GPT-NeoX's head), and goes on
        # without the weights that it does not find.
        saved = type(self.model).from_pretrained(resume_from_checkpoint, dtype=torch.float32)
        self.model.load_state_dict(saved.state_dict())

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """No card in checkpoints: TRL's would describe a base directory as a hub model."""


class RunLog(TrainerCallback):
    """Progress with the time that is left, a line a logged step, and the same as JSON lines in the run's log."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bar: tqdm | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        if self.path.exists():  # a resumed run does the steps since its checkpoint again
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            write_text(self.path, "".join(x for x in lines if json.loads(x)["step"] <= state.global_step))
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", desc="training")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        record = {"step": state.global_step, "epoch": state.epoch, **logs}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        line = log_line(state.global_step, logs)
        if line and self.bar is not None:
            self.bar.write(line)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.close()


def log_line(step: int, logs: dict[str, float]) -> str:
    """What the terminal shows of one log record; empty for records that are only kept."""
    validation = [
        f"{key.removeprefix('eval_').removesuffix('_loss')} {value:.4f}"
        for key, value in logs.items()
        if key.startswith("eval_") and key.endswith("_loss")
    ]
    if validation:
        return f"step {step:>5}  validation loss: {', '.join(validation)}"
    if "loss" not in logs:
        return ""
    parts = [f"{name} {logs[key]:.4g}" for key, name in LOGGED.items() if key in logs]
    memory = logs["memory_peak_bytes"] / 2**30
    return f"step {step:>5}  {'  '.join(parts)}  peak memory {memory:.2f} GiB"


def optimizer_steps(rows: int, total_batch_size: int, epochs: float) -> int:
    """Optimizer steps of a training run; the last step of an epoch may be smaller."""
    return math.ceil(math.ceil(rows / total_batch_size) * epochs)
