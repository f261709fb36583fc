"""Everything that is promised about speed, measured and held against its aim. Half an hour on two cores.

    python -m benchmarks [--data data/sample.jsonl] [--repeats 3] [--only training,answering,preparation]

Runs the other modules of this package, each of which can be run by itself for more detail, and prints a line
`ratio NAME VALUE` for each measure, then a table of them with their aims. Training and answers are compared on the way:
the exit status is 1 when the faster ways train or answer otherwise.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.console import Console
from rich.table import Column, Table

from benchmarks.turns import count
from sft.system.command_line import command_parser
from sft.system.errors import UserError, exit_on_user_error

RUN = Path("runs/bench")
MEASURES, STEPS = yaml.safe_load(Path(__file__).with_name("aims.yaml").read_text(encoding="utf-8")).values()


def main() -> None:
    """Read the command line, run every step, and print the table."""
    parser = command_parser(__doc__, "python -m benchmarks")
    parser.add_argument("--data", default="data/sample.jsonl")
    parser.add_argument("--repeats", type=count, default=3)
    parser.add_argument("--only", help="some of the modules, with commas")
    arguments = parser.read()
    started = time.perf_counter()
    values: dict[str, float] = {}
    failed = False
    with exit_on_user_error():
        modules = list(dict.fromkeys(step["module"] for step in STEPS))
        only = arguments.only.split(",") if arguments.only else modules
        if wrong := [name for name in only if name not in modules]:
            raise UserError(f"--only: {wrong[0]} is none of {', '.join(modules)}")
        for step in STEPS:
            if step["module"] in only:
                failed |= run(step, arguments, values)
        show(values, time.perf_counter() - started)
    sys.exit(failed)


def run(step: dict[str, Any], arguments: argparse.Namespace, values: dict[str, float]) -> bool:
    """Run a step, show what it prints, note its measures in `values`; whether it failed."""
    module, words, ratios = step["module"], step["words"], step.get("ratios", {})
    if module == "answering" and not (RUN / "adapter").is_dir():
        # A short run for answering: the demo's model, trained on a few rows, so that answers end where answers do.
        train = ["configs/demo.yaml", f"run.directory={RUN}", "data.train_rows=32", "training.num_train_epochs=1"]
        subprocess.run([sys.executable, "train_sft.py", *train, "--force"], check=True, stdout=subprocess.DEVNULL)
    command = [f"benchmarks.{module}", *(word.format(run=RUN, **vars(arguments)) for word in words.split())]
    print(f"== python -m {' '.join(command)}", flush=True)
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if not line.startswith("ratio "):
            print(line, flush=True)
            continue
        _, ratio, value = line.split()
        if (name := ratios.get(ratio, ratio)) in MEASURES:
            values[name] = float(value)
            print(f"ratio {name} {value}", flush=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
    return done.returncode != 0


def reached(value: float, aim: str | None) -> str:
    """Whether the aim is reached, for the table."""
    if aim is None:
        return ""
    sign, bound = aim.split()
    return "yes" if (value <= float(bound) if sign == "≤" else value >= float(bound)) else "no"


def show(values: dict[str, float], seconds: float) -> None:
    """Print the measures with their aims."""
    title = f"{platform.machine()}, {os.cpu_count()} CPUs, {seconds / 60:.0f} min"
    right = (Column(heading, justify="right") for heading in ("value", "aim"))
    table = Table("measure", *right, "reached", title=title, box=box.SIMPLE_HEAD)
    for name, (words, aim) in MEASURES.items():
        if name in values:
            table.add_row(words, f"{values[name]:.2f}", aim, reached(values[name], aim))
    Console(width=110).print(table)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
