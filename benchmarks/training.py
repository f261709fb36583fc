"""How much faster training is than others' loops: one optimizer step over the same rows, weights and supervised tokens.

    python -m benchmarks.training [--base models/gemma-3-270m] [--data data/sample.jsonl] [--dtype bfloat16]
        [--rows 32] [--answers-only] [--repeats 3] [--variants packed,padded,alpaca,trl]

`packed` and `padded` are this project's two layouts. `alpaca` does what alpaca-lora's training does, stated again with
the same libraries: transformers' Trainer, micro-batches of 4 rows in random order, padded, with the logits of every
position. `trl` is SFTTrainer as it comes, but for the weights' type and dropout. Each runs in a process of its own, all
in turns. Without --base: a random GPT-NeoX of 6 layers, 768 wide, with a vocabulary of 52,096.

Prints seconds, useful tokens a second and memory beyond the loaded model (medians), and `ratio NAME VALUE` lines: how
many times as long another takes, and how many times its memory. Fails when loss or gradient norm differ by more than
1e-5 (float32). Linux only.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.random_base import random_base
from benchmarks.turns import in_turns
from sft.data.read import load_data
from sft.data.rows import select
from sft.system.command_line import command_parser
from sft.system.errors import exit_on_user_error

MICRO_BATCH = 4
LORA = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0}
TOLERANCE = {"float32": 1e-5, "bfloat16": 3e-2}


def main() -> None:
    """Read the command line; measure one variant, or every variant in turns in processes of their own."""
    parser = command_parser(__doc__, "python -m benchmarks.training")
    parser.add_argument("--base", type=Path)
    parser.add_argument("--data", default="data/sample.jsonl")
    parser.add_argument("--dtype", choices=TOLERANCE, default="float32")
    parser.add_argument("--rows", type=int, default=32, help="rows of the step")
    parser.add_argument("--max-length", type=int, default=2048)
    parser.add_argument("--answers-only", action="store_true", help="loss on answers only")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--variants", default="packed,padded,alpaca,trl")
    parser.add_argument("--growth", action="store_true", help="more and longer rows in place of the variants")
    parser.add_argument("--row-tokens", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--profile", action="store_true", help="with one of --variants: where its time goes")
    arguments = parser.parse_args()
    with exit_on_user_error():
        if arguments.only:
            print(json.dumps(measure(arguments)))
            return
        arguments.base = arguments.base or random_base(arguments.data)
        sys.exit(growth(arguments) if arguments.growth else compare(arguments))


def compare(arguments: argparse.Namespace) -> int:
    """Run the variants in turns and print what they took; 1 when they do not train the same."""
    names = arguments.variants.split(",")
    base = ["--base", str(arguments.base)]
    medians = in_turns(
        "benchmarks.training", {n: [*sys.argv[1:], *base, "--only", n] for n in names}, arguments.repeats
    )
    for name, result in medians.items():
        print(
            f"{name:8} {result['wall']:8.1f} s wall {result['cpu']:8.1f} s CPU  "
            f"{result['tokens'] / result['cpu']:7.0f} tokens/s CPU  {result['memory'] / 2**20:7.0f} MiB  "
            f"loss {result['loss']:.6f}  gradient norm {result['gradient_norm']:.6f}"
        )
    ours = medians[names[0]]
    wrong = 0
    for name in names[1:]:
        for what in ("wall", "cpu", "memory"):
            print(f"ratio {names[0]}-{name}-{what} {medians[name][what] / ours[what]:.2f}")
        print(f"ratio {name}-{names[0]}-memory {ours['memory'] / medians[name]['memory']:.2f}")
        for what in ("loss", "gradient_norm"):
            difference = abs(medians[name][what] / ours[what] - 1)
            if difference > TOLERANCE[arguments.dtype]:
                print(f"error: {what} of {name} and {names[0]} differ by {difference:.1e}", file=sys.stderr)
                wrong = 1
    return wrong


def growth(arguments: argparse.Namespace) -> int:
    """How memory grows with the rows of a step, and speed with the length of rows; prints the medians' ratios."""
    common = ["--base", str(arguments.base), "--data", arguments.data, "--dtype", arguments.dtype, "--only", "packed"]
    variants = {
        "32 rows": [*common, "--rows", "32"],
        "128 rows": [*common, "--rows", "128"],
        "32 rows of 128 tokens": [*common, "--rows", "32", "--row-tokens", "128"],
        "2 rows of 2,048 tokens": [*common, "--rows", "2", "--row-tokens", "2048"],
    }
    medians = in_turns("benchmarks.training", variants, arguments.repeats)
    memory = [found["memory"] for found in medians.values()]
    speed = [found["tokens"] / found["cpu"] for found in medians.values()]
    for name, tokens, size in zip(medians, speed, memory, strict=True):
        print(f"{name:24} {tokens:7.0f} tokens/s CPU  {size / 2**20:7.0f} MiB")
    print(f"ratio memory-of-rows {memory[1] / memory[0]:.2f}")
    print(f"ratio speed-of-length {speed[3] / speed[2]:.2f}")
    return 0


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """One optimizer step of one variant: seconds, useful tokens, bytes beyond the loaded model, loss, gradient norm."""
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback

    from sft.model.load import load_base, load_tokenizer
    from sft.model.lora import add_lora
    from sft.model.place import use_all_cores
    from sft.prompt.row_encoder import RowEncoder
    from sft.prompt.template import ALPACA_JA, FormattingFunction

    class Clock(TrainerCallback):
        """Times the step, from its rows at hand to its weights changed."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.wall, self.cpu = time.perf_counter(), time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.wall, self.cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu

    use_all_cores()
    tokenizer = load_tokenizer(str(arguments.base))
    base = load_base(str(arguments.base), torch.device("cpu"), getattr(torch, arguments.dtype))
    torch.manual_seed(0)
    model = add_lora(base, LORA)
    encoder = RowEncoder(
        tokenizer,
        FormattingFunction(ALPACA_JA),
        arguments.row_tokens or arguments.max_length,
        "end" if arguments.row_tokens else "context",
        train_on_inputs=not arguments.answers_only,
    )
    rows = select(load_data(arguments.data).rows, slice(arguments.rows))
    repeats = 100 if arguments.row_tokens else 1  # long enough to be cut at the length that is wanted
    encoded = encoder.encode(Dataset.from_list([row | {"output": row["output"] * repeats} for row in rows])).rows
    ids = torch.arange(2, 66)[None]
    model(input_ids=ids, labels=ids).loss.backward()  # what a first pass sets up is nobody's time
    model.zero_grad()
    with tempfile.TemporaryDirectory() as scratch:
        settings = {
            "output_dir": scratch, "use_cpu": True, "bf16": False, "num_train_epochs": 1, "logging_steps": 1,
            "save_strategy": "no", "report_to": "none", "dataloader_pin_memory": False, "disable_tqdm": True,
        }  # fmt: skip
        trainer = TRAINERS[arguments.only](model, tokenizer, encoder, encoded, settings, arguments)
        clock = Clock()
        trainer.add_callback(clock)
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is counted anew from here
        if arguments.profile:
            with torch.profiler.profile(record_shapes=True) as profile:
                trainer.train()
            times = profile.key_averages(group_by_input_shape=True)
            table = times.table(sort_by="self_cpu_time_total", row_limit=40, max_shapes_column_width=60)
            print(table, file=sys.stderr)
        else:
            trainer.train()
    log = next(record for record in trainer.state.log_history if "grad_norm" in record)
    return {
        "wall": clock.wall, "cpu": clock.cpu, "tokens": sum(map(len, encoded["input_ids"])),
        "memory": _status("VmHWM") - before, "loss": log["loss"], "gradient_norm": log["grad_norm"],
    }  # fmt: skip


def ours(model: Any, tokenizer: Any, encoder: Any, encoded: Any, settings: dict, arguments: Any) -> Any:
    """This project's trainer."""
    from trl import SFTConfig

    from sft.training.trainer import RunTrainer

    packed = arguments.only == "packed"
    micro_batch = arguments.max_length // encoder.max_length if packed else MICRO_BATCH
    config = SFTConfig(
        per_device_train_batch_size=micro_batch, activation_checkpointing=False,
        completion_only_loss=False, logging_nan_inf_filter=False, **settings,
    )  # fmt: skip
    return RunTrainer(
        model=model, args=config, train_dataset=encoded, eval_datasets={}, tokenizer=tokenizer,
        encoder=encoder, pack=packed, total_batch_size=len(encoded),
        log_path=Path(settings["output_dir"]) / "log.jsonl", run_id="",
    )  # fmt: skip


def alpaca(model: Any, tokenizer: Any, encoder: Any, encoded: Any, settings: dict, arguments: Any) -> Any:
    """What alpaca-lora's finetune.py does."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    config = TrainingArguments(
        per_device_train_batch_size=MICRO_BATCH, gradient_accumulation_steps=-(-len(encoded) // MICRO_BATCH), **settings
    )
    collator = DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=8, return_tensors="pt", padding=True)
    encoded = encoded.remove_columns(["index", "category"])
    model.config.use_cache = False
    return Trainer(model=model, args=config, train_dataset=encoded, data_collator=collator)


def trl(model: Any, tokenizer: Any, encoder: Any, encoded: Any, settings: dict, arguments: Any) -> Any:
    """SFTTrainer with its own defaults: checkpointed activations, its fused head."""
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(
        per_device_train_batch_size=MICRO_BATCH, gradient_accumulation_steps=-(-len(encoded) // MICRO_BATCH),
        max_length=arguments.max_length, **settings,
    )  # fmt: skip
    encoded = encoded.remove_columns(["index", "category"])
    return SFTTrainer(model=model, args=config, train_dataset=encoded, processing_class=tokenizer)


TRAINERS = {"packed": ours, "padded": ours, "alpaca": alpaca, "trl": trl}


def _status(key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found, "a kernel that does not tell its memory"
    return int(found[1]) * 1024


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
