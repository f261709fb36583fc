"""Everything that is promised about speed, measured and held against its aim. Half an hour on two cores.

    python -m benchmarks [--data data/sample.jsonl] [--repeats 3] [--only training,answering,preparation]

Runs the other modules of this package, each of which can be run by itself for more detail, and prints a line
`ratio NAME VALUE` for each measure, then a table of them with their aims. Training and answers are compared on the way:
the exit status is 1 when the faster ways train or answer otherwise.
"""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from sft.system.command_line import command_parser
from sft.system.errors import exit_on_user_error

RUN = Path("runs/bench")
ANSWERING_ROWS, ANSWER_TOKENS = 24, 64


class Measure(NamedTuple):
    """What is measured, and its aim: at least so much, or at most where `at_most` is set; None: it is only shown."""

    name: str
    words: str
    aim: float | None
    at_most: bool = False

    def reached(self, value: float) -> str:
        """Whether the aim is reached, for the table."""
        if self.aim is None:
            return ""
        return "yes" if (value <= self.aim if self.at_most else value >= self.aim) else "no"


class Step(NamedTuple):
    """A module and its arguments, and which of its `ratio` lines is which measure."""

    module: str
    words: list[str]
    measures: dict[str, str]


MEASURES = [
    Measure("help_seconds", "train_sft.py --help, seconds", 0.3, at_most=True),
    Measure("infer_help_seconds", "infer.py --help, seconds", 0.3, at_most=True),
    Measure("eval_help_seconds", "python -m eval --help, seconds", 0.3, at_most=True),
    Measure("configuration_check_seconds", "a wrong configuration, seconds", 0.3, at_most=True),
    Measure("preparation_cold_seconds", "15,015 rows tokenised and packed, seconds", 4, at_most=True),
    Measure("preparation_cached_seconds", "the same again, seconds", 0.2, at_most=True),
    Measure("preparation_growth", "CPU time for four times the rows", 4.4, at_most=True),
    Measure("training_fp32", "training, fp32, against alpaca-lora's loop", 3.3),
    Measure("training_bf16", "training, bf16", 5),
    Measure("training_fp32_answers", "training on answers only, fp32", 5),
    Measure("training_bf16_answers", "training on answers only, bf16", 8),
    Measure("training_trl_bf16", "training, bf16, against stock SFTTrainer", 15),
    Measure("training_memory", "memory beyond the model, share of alpaca-lora's loop (bf16)", 0.10, at_most=True),
    Measure("training_memory_rows", "the same for four times the rows a step", 1.1, at_most=True),
    Measure("training_length", "tokens/s with rows of 2,048 tokens, to rows of 128", None),
    Measure("answering_fixed", "24 answers of 64 tokens, bf16, against one by one", 6),
    Measure("answering_varied", "24 answers of their own lengths, at most 128 tokens", 4),
]


def steps(data: str, repeats: int) -> list[Step]:
    """What is run."""
    common = ["--data", data, "--repeats", str(repeats)]
    bf16, pair = ["--dtype", "bfloat16", *common], ["--variants", "packed,alpaca"]
    answers = [str(RUN), "--rows", str(ANSWERING_ROWS), "--tokens", str(ANSWER_TOKENS), "--repeats", str(repeats)]
    ours = {measure.name: measure.name for measure in MEASURES}  # those that a module calls by the same name
    memory, growth = {"alpaca-packed-memory": "training_memory"}, {"memory-of-rows": "training_memory_rows"}
    return [
        Step("preparation", common, ours),
        Step("training", bf16 + pair, {"packed-alpaca-cpu": "training_bf16"} | memory),
        Step("training", common + pair, {"packed-alpaca-cpu": "training_fp32"}),
        Step("training", [*bf16, *pair, "--answers-only"], {"packed-alpaca-cpu": "training_bf16_answers"}),
        Step("training", [*common, *pair, "--answers-only"], {"packed-alpaca-cpu": "training_fp32_answers"}),
        Step("training", [*bf16, "--rows", "8", "--variants", "packed,trl"], {"packed-trl-cpu": "training_trl_bf16"}),
        Step("training", [*bf16, "--growth"], growth | {"speed-of-length": "training_length"}),
        Step("answering", answers, ours),
    ]


def main() -> None:
    """Read the command line, run every step, and print the table."""
    parser = command_parser(__doc__, "python -m benchmarks")
    parser.add_argument("--data", default="data/sample.jsonl")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", help="some of the modules, with commas")
    arguments = parser.parse_args()
    started = time.perf_counter()
    values: dict[str, float] = {}
    failed = False
    with exit_on_user_error():
        for step in steps(arguments.data, arguments.repeats):
            if not arguments.only or step.module in arguments.only.split(","):
                failed |= run(step, values)
        show(values, time.perf_counter() - started)
    sys.exit(failed)


def train_run() -> None:
    """A short run for answering: the demo's model, trained on a few rows, so that answers end where answers do."""
    words = ["configs/demo.yaml", f"run.directory={RUN}", "data.train_rows=32", "training.num_train_epochs=1"]
    subprocess.run([sys.executable, "train_sft.py", *words, "--force"], check=True, stdout=subprocess.DEVNULL)


def run(step: Step, values: dict[str, float]) -> bool:
    """Run a step, show what it prints, note its measures in `values`; whether it failed."""
    if step.module == "answering" and not (RUN / "adapter").is_dir():
        train_run()
    print(f"== python -m benchmarks.{step.module} {' '.join(step.words)}", flush=True)
    command = [sys.executable, "-m", f"benchmarks.{step.module}", *step.words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if not line.startswith("ratio "):
            print(line, flush=True)
            continue
        _, ratio, value = line.split()
        if name := step.measures.get(ratio):
            values[name] = float(value)
            print(f"ratio {name} {value}", flush=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
    return done.returncode != 0


def show(values: dict[str, float], seconds: float) -> None:
    """Print the measures with their aims."""
    table = Table(title=f"{platform.machine()}, {os.cpu_count()} CPUs, {seconds / 60:.0f} min", box=box.SIMPLE_HEAD)
    for heading in ("measure", "value", "aim", "reached"):
        table.add_column(heading, justify="right" if heading in ("value", "aim") else "left")
    for measure in MEASURES:
        if measure.name in values:
            aim = "" if measure.aim is None else f"{'≤' if measure.at_most else '≥'} {measure.aim:g}"
            value = values[measure.name]
            table.add_row(measure.words, f"{value:.2f}", aim, measure.reached(value))
    Console(width=110).print(table)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
