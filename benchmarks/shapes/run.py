"""Every configuration in a process of its own, as many at once as there are cores."""

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.shapes.advice import CASES, advised
from benchmarks.shapes.guard import obstacle
from benchmarks.shapes.step import Found, measure
from benchmarks.shapes.table import problems, show, write
from sft.config.load import load_config
from sft.system.errors import UserError, first_line

CARD, OLDER_CARD = "RTX3090", "T4"
"""What a configuration is meant for, and what one in fp16 is, which cards without bfloat16 need."""


def for_cuda() -> list[str]:
    """The configurations that name CUDA."""
    return [str(path) for path in sorted(Path("configs").glob("*.yaml")) if load_config(path).model.device == "cuda"]


def meant_for(path: str) -> str:
    """The card of a configuration."""
    return OLDER_CARD if load_config(path).model.dtype == "float16" else CARD


def run(configs: list[str], writes: bool) -> bool:
    """Measure `configs`, or all and the advice; show, and perhaps write; whether anything is not as it should be."""
    if reason := obstacle():
        raise UserError(reason)
    started = time.perf_counter()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.shapes.step"])  # each process begins with the libraries imported
    wrong: list[str] = []
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), context, max_tasks_per_child=1) as pool:
        cases = () if configs else CASES
        asked = _submit(pool, advised, ((case,) for case in cases))
        tasks = _submit(pool, measure, ((path, [], meant_for(path)) for path in configs or for_cuda()))
        answers = list(_results(asked, wrong))
        changed = _submit(pool, measure, (case for found in answers for case in found))
        results, changed_results = (list(_results(each, wrong)) for each in (tasks, changed))
    show(results, f"{len(results)} configurations")
    if changed_results:
        show(changed_results, "what is advised for open-calm-7b where settings are too large")
    for found in results + changed_results:
        wrong += [f"{_words(found)}: {one}" for one in problems(found)]
    print(*wrong, f"{time.perf_counter() - started:.0f} s", sep="\n")
    if writes and not wrong:
        write(results)
    return bool(wrong)


Task = tuple[str, Future[Any]]
"""What is done, in words, and its result."""


def _submit(pool: ProcessPoolExecutor, function: Callable[..., Any], calls: Iterable[Any]) -> list[Task]:
    return [(" ".join(map(str, call)), pool.submit(function, *call)) for call in calls]


def _results(tasks: list[Task], wrong: list[str]) -> Iterator[Any]:
    """What came of each task; what failed is added to `wrong`, its traceback shown."""
    for words, task in tasks:
        try:
            yield task.result()
        except Exception as error:  # the libraries raise many types, and the others shall be heard
            traceback.print_exception(error, file=sys.stderr)
            wrong.append(f"{words}: {type(error).__name__}: {first_line(error)}")


def _words(found: Found) -> str:
    return " ".join([found.config, *found.overrides, "on", found.card])
