"""How much faster training is than with others' trainers: an optimizer step over the same rows, weights and tokens.

    python -m benchmarks.training [--base models/gemma-3-270m] [--data data/sample.jsonl] [--dtype bfloat16]
        [--rows 16] [--answers-only] [--repeats 3] [--variants packed,rebalanced,trl-packed-plain]

`packed` is this project; `rebalanced` is transformers' Trainer with micro-batches of equal cost, `trl-packed` TRL's
packing, and `trl-packed-plain` that with the model's own head (`benchmarks.trainers` has others, `llama-factory` is
LLaMA-Factory's neat packing, where `make bench-peers` has made its environment). Each runs on one core in a process of
its own, all in turns, and trains the same rows twice; the second step is timed. Without --base: a random GPT-NeoX of
open-calm-small's shape.

Prints seconds, useful tokens a second and memory beyond the loaded model (medians), and `ratio NAME VALUE` lines: how
many times as long another takes, and how many times its memory. Fails when losses or gradient norms of the first step
differ by more than 1e-5 in float32. In bfloat16 they are rounded differently, and a single row can make a tenth of the
norm: what is computed is held in float32. Linux only.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from benchmarks.clock import Clock, Memory, measured
from benchmarks.elsewhere import LLAMA_FACTORY, check_python, measure_elsewhere
from benchmarks.random_base import random_base
from benchmarks.trainers import TRAINERS, Work
from benchmarks.turns import Found, count, in_turns, print_ratios
from sft.data.read import load_data
from sft.data.records import FIELDS
from sft.data.rows import select
from sft.model.load import load_base, load_tokenizer
from sft.model.lora import add_lora
from sft.prompt.row_encoder import RowEncoder
from sft.prompt.template import ALPACA_JA, FormattingFunction
from sft.system.command_line import command_parser
from sft.system.errors import UserError, exit_on_user_error

LORA = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0}
LENGTHS = (128, 256, 512, 1024, 2048)
"""Tokens of a row, of which a step has 4,096 in all, where growth is measured."""
TOLERANCE = {"float32": {"loss": 1e-5, "gradient_norm": 1e-5}, "bfloat16": {"loss": 5e-3, "gradient_norm": 0.1}}


def main() -> None:
    """Read the command line; measure one variant, or every variant in turns in processes of their own."""
    parser = command_parser(__doc__, "python -m benchmarks.training")
    parser.add_argument("--base", type=Path)
    parser.add_argument("--data", default="data/sample.jsonl")
    parser.add_argument("--dtype", choices=TOLERANCE, default="float32")
    parser.add_argument("--rows", type=count, default=16, help="rows of the step")
    parser.add_argument("--max-length", type=count, default=2048)
    parser.add_argument("--answers-only", action="store_true", help="loss on answers only")
    parser.add_argument("--repeats", type=count, default=3)
    parser.add_argument("--variants", default="packed,rebalanced,trl-packed-plain")
    parser.add_argument("--growth", action="store_true", help="more and longer rows in place of the variants")
    parser.add_argument("--row-tokens", type=count, help=argparse.SUPPRESS)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.read()
    with exit_on_user_error():
        if arguments.only:
            print(json.dumps(measure(arguments)))
            return
        check_variants(arguments.variants.split(","))
        words = [*sys.argv[1:], "--base", str(arguments.base or random_base(arguments.data)), "--only"]
        sys.exit(growth(arguments, words) if arguments.growth else compare(arguments, words))


def check_variants(names: list[str]) -> None:
    """Raise UserError where one of them is not known, or LLaMA-Factory's environment is not there."""
    known = [*TRAINERS, LLAMA_FACTORY]
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"--variants: {unknown[0]} is none of {', '.join(known)}")
    if LLAMA_FACTORY in names:
        check_python()


def compare(arguments: argparse.Namespace, words: list[str]) -> bool:
    """Run the variants in turns and print what they took; true when they do not train the same."""
    names = arguments.variants.split(",")
    medians = in_turns("benchmarks.training", {name: [*words, name] for name in names}, arguments.repeats)
    wrong = False
    first, ours = names[0], medians[names[0]]
    for name, result in medians.items():
        print(f"{name:24} {_speed(result)}  loss {result['loss']:.6f}  gradient norm {result['gradient_norm']:.6f}")
        for what in ("loss", "gradient_norm"):
            difference = abs(result[what] / ours[what] - 1)
            if difference > TOLERANCE[arguments.dtype][what]:
                print(f"error: {what} of {name} and {first} differ by {difference:.1e}", file=sys.stderr)
                wrong = True
    for name in names[1:]:
        print_ratios({f"{first}-{name}-{what}": medians[name][what] / ours[what] for what in ("wall", "cpu", "memory")})
        print_ratios({f"{name}-{first}-memory": ours["memory"] / medians[name]["memory"]})
    return wrong


def growth(arguments: argparse.Namespace, words: list[str]) -> bool:
    """How memory grows with the rows of a step, and speed with the length of rows; prints the medians' ratios."""
    variants = {f"{rows} rows": [*words, "packed", "--rows", str(rows)] for rows in (32, 128)}
    for tokens in LENGTHS:
        rows = LENGTHS[-1] * 2 // tokens
        more = ["--rows", str(rows), "--row-tokens", str(tokens), "--max-length", str(LENGTHS[-1])]
        variants[f"{rows} rows of {tokens:,} tokens"] = [*words, "packed", *more]
    medians = in_turns("benchmarks.training", variants, arguments.repeats)
    for name, found in medians.items():
        print(f"{name:24} {_speed(found)}")
    few, many, short, *_, long = medians.values()
    print_ratios({"memory-of-rows": many["memory"] / few["memory"]})
    print_ratios({"speed-of-length": long["tokens"] / long["cpu"] / (short["tokens"] / short["cpu"])})
    return False


def _speed(found: Found) -> str:
    return (
        f"{found['wall']:8.1f} s wall {found['cpu']:8.1f} s CPU  {found['tokens'] / found['cpu']:7.0f} tokens/s CPU  "
        f"{found['memory'] / 2**20:7.0f} MiB"
    )


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """The second of two steps of one variant: seconds, useful tokens, bytes beyond the loaded model; of the first one
    loss and gradient norm."""
    torch.set_num_threads(1)  # threads that wait for each other spin, and CPU time would count that
    with tempfile.TemporaryDirectory() as scratch:
        work = prepare(arguments, scratch)
        if arguments.only == LLAMA_FACTORY:
            return measure_elsewhere(work, Path(scratch))
        memory = Memory()
        trainer = TRAINERS[arguments.only](work)
        clock = Clock()
        trainer.add_callback(clock)
        trainer.train()
    return measured(clock, memory, trainer.state.log_history, sum(map(len, work.encoded["input_ids"])))


def prepare(arguments: argparse.Namespace, scratch: str) -> Work:
    """Load the model and encode the rows of the step."""
    tokenizer = load_tokenizer(str(arguments.base))
    tokenizer.padding_side = "right"  # on the left, labels would be predicted from padding
    base = load_base(str(arguments.base), torch.device("cpu"), getattr(torch, arguments.dtype))
    torch.manual_seed(0)
    model = add_lora(base, LORA)
    # Rows of a wanted length are made long enough to be cut there: an answer may be of one token.
    length, repeats = arguments.row_tokens or arguments.max_length, arguments.row_tokens or 1
    truncation: Any = "end" if arguments.row_tokens else "context"
    encoder = RowEncoder(tokenizer, FormattingFunction(ALPACA_JA), length, truncation, not arguments.answers_only)
    rows = select(load_data(arguments.data).rows, slice(arguments.rows)).select_columns(list(FIELDS))
    encoded = encoder.encode(Dataset.from_list([row | {"output": row["output"] * repeats} for row in rows])).rows
    settings = {
        "output_dir": scratch, "use_cpu": True, "bf16": False, "num_train_epochs": 2, "logging_steps": 1,
        "save_strategy": "no", "report_to": "none", "dataloader_pin_memory": False, "disable_tqdm": True,
    }  # fmt: skip
    return Work(arguments, model, tokenizer, encoder, encoded, settings)


if __name__ == "__main__":
    main()
