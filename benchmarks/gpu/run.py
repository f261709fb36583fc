"""Parts are run, each in a process of its own, which is ended when its time is over; results come by measure."""

import importlib
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.parts import Part, deadlines, missing
from benchmarks.gpu.results import Result, Status, append, read
from benchmarks.gpu.work import Work
from sft.system.errors import UserError, first_line, say

SHORTEST = 5.0
"""Seconds that are not worth a start."""


def run_parts(words: Sequence[str], seconds: float, results: Path, log: Path) -> Iterator[Part]:
    """Run all parts, `python -m benchmarks.gpu WORDS --part NAME` each, within so many seconds altogether.

    Hands out each part when every measure of it has a result. What the processes print goes to `log`.
    """
    start = time.perf_counter()
    for part, deadline in deadlines(seconds):
        left = deadline - (time.perf_counter() - start)
        command = [sys.executable, "-m", "benchmarks.gpu", *words, "--part", part.name]
        run_part(part, command, left, results, log)
        yield part


def run_part(part: Part, command: Sequence[str], seconds: float, results: Path, log: Path) -> None:
    """Run one part in at most so many seconds, and note what became of each of its measures."""
    begun = len(read(results))
    status: Status = "skipped"
    reason = missing(part) or ""
    if not reason:
        status, reason = _run(command, seconds, log) if seconds > SHORTEST else ("no time", "earlier parts took it all")
    found = {result.name for result in read(results)[begun:]}
    for name in part.measures:
        if name not in found:
            append(results, Result(part.name, name, status, reason))
    for result in read(results)[begun:]:
        say(f"{result.part}: {result.name}: {result.status}{f' ({result.reason})' * bool(result.reason)}")


def _run(command: Sequence[str], seconds: float, log: Path) -> tuple[Status, str]:
    """What became of measures that the process did not get to."""
    with log.open("a", encoding="utf-8") as output:
        try:
            status = subprocess.run(command, timeout=seconds, stdout=output, stderr=output, check=False).returncode
        except subprocess.TimeoutExpired:
            return "no time", f"ended after {seconds:.0f} s"
    return "failed", f"the process ended with {status}; see {log}"


def record(part: Part, work: Work, results: Path) -> None:
    """Measure all of a part in this process, and append what comes of each measure at once.

    A measure that fails says so in its result and does not keep the others from being measured; what fails before the
    first one, such as the loading of the model, is every measure's result.
    """
    measures = importlib.import_module(f"benchmarks.gpu.measures.{part.module}").measures(work, part.name)
    for number, name in enumerate(part.measures):
        found = outcome(part, name, lambda: next(measures))
        if isinstance(found, Result):
            for other in part.measures[number:]:
                append(results, found._replace(name=other))
            return
        its_name, measure = found
        assert its_name == name, f"{its_name} where {name} was announced"
        values = outcome(part, name, measure)
        if not isinstance(values, Result):
            problem = values.pop("problem", "")
            values = Result(part.name, name, "failed" if problem else "measured", problem, values)
        append(results, values)


def outcome(part: Part, name: str, call: Callable[[], Any]) -> Any:
    """What `call` returns; where it raises, the result of the measure `name`."""
    try:
        return call()
    except torch.OutOfMemoryError as error:
        return Result(part.name, name, "out of memory", first_line(error))
    except UserError as error:
        return Result(part.name, name, "skipped", str(error))
    except Exception as error:  # of the libraries, on a device that nobody has tried
        traceback.print_exc()
        return Result(part.name, name, "failed", f"{type(error).__name__}: {first_line(error)}")
