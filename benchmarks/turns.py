"""Variants measured in turns, each in a process of its own that prints what it found as JSON on its last line."""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Found = dict[str, Any]


def count(text: str) -> int:
    """A number of rows, tokens or repeats on the command line."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def in_turns(
    module: str,
    variants: Mapping[str, Sequence[str]],
    repeats: int,
    environment: Callable[[str, int], Mapping[str, str]] = lambda name, repeat: {},
) -> dict[str, Found]:
    """The medians of what `python -m module` with each variant's words finds, by the variant's name.

    `environment` makes what a variant's process has beside this one's, of its name and the number of the repeat. None
    of them asks the hub, unless HF_HUB_OFFLINE says so. One that fails has said why, and ends this process with its own
    exit status.
    """
    results: dict[str, list[Found]] = {name: [] for name in variants}
    for repeat in range(repeats):
        for name, words in variants.items():
            own = {"HF_HUB_OFFLINE": "1"} | os.environ | dict(environment(name, repeat))
            command = [sys.executable, "-m", module, *words]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=own)
            if done.returncode:
                sys.exit(done.returncode)
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
    return {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in results.items()
    }


def print_ratios(values: Mapping[str, float]) -> None:
    """A line `ratio NAME VALUE` for each, which `python -m benchmarks` looks for."""
    for name, value in values.items():
        print(f"ratio {name} {value:.2f}")
