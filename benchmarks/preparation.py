"""How long one waits before training begins: start-up of the commands, and rows made into the bins of optimizer steps.

    python -m benchmarks.preparation [--base DIRECTORY] [--data data/sample.jsonl] [--rows 15015] [--repeats 3]

Rows are tokenised and packed three ways, each in a process of its own, all in turns: `cold` for the first time,
`cached` when they were encoded before, and `more` four times as many for the first time. Where the data has fewer rows
they come again, numbered. Reading, checking and dividing the rows, which comes before, is printed beside it. Without
--base: a random GPT-NeoX with a vocabulary of 52,096.

Prints medians, and `ratio NAME VALUE` lines: seconds (`…_seconds`), and `preparation_growth`, how many times as long
four times as many rows take. Linux only.
"""

import argparse
import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.random_base import random_base
from benchmarks.turns import count, in_turns, print_ratios
from sft.data.read import load_data
from sft.data.rows import examples_of
from sft.data.split import split_rows
from sft.model.load import load_tokenizer
from sft.prompt.encoded_rows import row_lengths
from sft.prompt.row_encoder import RowEncoder
from sft.prompt.template import ALPACA_JA, FormattingFunction
from sft.system.command_line import command_parser
from sft.system.errors import exit_on_user_error
from sft.training.steps import StepSampler, packed

COMMANDS = {
    "help": ["train_sft.py", "--help"],
    "infer_help": ["infer.py", "--help"],
    "eval_help": ["-m", "eval", "--help"],
    "configuration_check": ["train_sft.py", "configs/calm7b.yaml", "training.no_such_key=1"],
}
"""What should answer at once; the last one ends with what is wrong in the configuration."""


def main() -> None:
    """Read the command line; measure one way, or every way in turns in processes of their own."""
    parser = command_parser(__doc__, "python -m benchmarks.preparation")
    parser.add_argument("--base", type=Path)
    parser.add_argument("--data", default="data/sample.jsonl")
    parser.add_argument("--rows", type=count, default=15_015)
    parser.add_argument("--repeats", type=count, default=3)
    parser.add_argument("--only", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.read()
    with exit_on_user_error():
        if arguments.only:
            print(json.dumps(prepare(arguments.base, arguments.data)))
            return
        arguments.base = arguments.base or random_base(arguments.data)
        start_up(arguments.repeats)
        with tempfile.TemporaryDirectory() as scratch:
            compare(arguments, Path(scratch))


def start_up(repeats: int) -> None:
    """Time the commands that need neither model nor data."""
    for name, words in COMMANDS.items():
        seconds = []
        for _ in range(max(5, repeats)):
            clock = time.perf_counter()
            done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
            seconds.append(time.perf_counter() - clock)
            if done.returncode != (2 if name == "configuration_check" else 0):
                sys.exit(f"error: {' '.join(words)} ended with {done.returncode}: {done.stderr}")
        print(f"{' '.join(words):60} {statistics.median(seconds):.2f} s")
        print_ratios({f"{name}_seconds": statistics.median(seconds)})


def compare(arguments: argparse.Namespace, scratch: Path) -> None:
    """Prepare the rows in all ways in turns, and print the medians."""
    fewer, more = (repeated(arguments.data, rows, scratch) for rows in (arguments.rows, 4 * arguments.rows))
    files = {"cold": fewer, "cached": fewer, "more": more}
    variants = {way: ["--only", "--base", str(arguments.base), "--data", str(file)] for way, file in files.items()}

    def cache(way: str, repeat: int) -> dict[str, str]:
        return {"HF_DATASETS_CACHE": str(scratch / f"{repeat}-{'cold' if way == 'cached' else way}")}

    middle = in_turns("benchmarks.preparation", variants, arguments.repeats, cache)
    for way, found in middle.items():
        print(
            f"{way:6} {found['rows']:7,.0f} rows, {found['tokens']:10,.0f} tokens: read and divided in "
            f"{found['reading']:.2f} s, tokenised and packed in {found['clock']:.2f} s ({found['cpu']:.2f} s of CPU)"
        )
    print_ratios({f"preparation_{way}_seconds": middle[way]["clock"] for way in ("cold", "cached")})
    print_ratios({"preparation_growth": middle["more"]["cpu"] / middle["cold"]["cpu"]})


def repeated(data: str, rows: int, scratch: Path) -> Path:
    """A file with so many rows of `data`; those that come again are numbered, so that they are others."""
    examples = list(examples_of(load_data(data).rows))
    path = scratch / f"{rows}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            example, again = examples[number % len(examples)], number // len(examples)
            row = {"index": str(number), "category": example.category, "input": example.input, "output": example.output}
            row["instruction"] = f"{example.instruction}{f'（{again}）' * bool(again)}"
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def prepare(base: Path, data: str) -> dict[str, float]:
    """Seconds it takes to read and divide the rows, and to tokenise them and pack all steps of an epoch."""
    tokenizer = load_tokenizer(str(base))
    clock = time.perf_counter()
    rows = split_rows(load_data(data).rows, 0, 0).train
    reading = time.perf_counter() - clock
    clock, cpu = time.perf_counter(), time.process_time()
    lengths = row_lengths(RowEncoder(tokenizer, FormattingFunction(ALPACA_JA), 2048).encode(rows).rows)
    list(StepSampler(lengths, 128, functools.partial(packed, capacity=2048), 42, lambda: 0))
    found = {"clock": time.perf_counter() - clock, "cpu": time.process_time() - cpu, "reading": reading}
    return found | {"rows": len(rows), "tokens": sum(lengths)}


if __name__ == "__main__":
    main()
