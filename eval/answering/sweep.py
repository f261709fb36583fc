"""Answer the same rows under a grid of generation settings, to see what the settings do to open and context questions.

    python -m eval sweep runs/A                                     penalty 1.0, 1.2, 5.0 × scope generated, all
    python -m eval sweep runs/A generation.temperature=[0,0.7] generation.top_p=[0.75,1.0]

A setting written as a list is an axis of the grid. The answers are in runs/A/eval/sweep/, one predictions file a
setting, and sweep.json names them.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sft.config.load import load_config
from sft.config.repetition_penalty import GRID
from sft.run.directory import require_finished
from sft.system.errors import UserError
from sft.system.files import output_directory, write_whole
from sft.system.processes import RANK
from sft.system.yaml_text import parse_yaml


def run_sweep(run: Path, words: Sequence[str], system: str = "tuned") -> Path:
    """Answer the run's rows under every setting of the grid; returns the directory with the answers and sweep.json.

    `words` are `section.key=value`; those of `generation` whose value is a list are the axes. Settings that come to
    the same (a penalty of 1 has no scope) are answered once. Raises UserError for a wrong setting, before loading.
    """
    require_finished(run)
    is_main_process = RANK == 0
    axes, overrides = split_axes(words)
    grid = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    for settings in grid:  # a wrong value is an error before anything is loaded
        changes = [f"generation.{key}={json.dumps(value)}" for key, value in settings.items()]
        load_config(run / "config.yaml", [*overrides, *changes], to_train=False)

    from eval.answering.answer import answer_under, rows_to_answer
    from sft.generation.answerer import load_answerer
    from sft.generation.settings import effective_settings

    rows = rows_to_answer(run, load_config(run / "config.yaml", overrides, to_train=False))
    answerer = load_answerer(run, overrides)
    directory = output_directory(run / "eval" / "sweep")
    answered: list[dict[str, Any]] = []
    paths: dict[Path, dict[str, Any]] = {}
    seen: list[dict[str, Any]] = []
    for settings in grid:
        generation = answerer.generation | settings
        effective = effective_settings(generation)
        if effective not in seen:
            seen.append(effective)
            paths[directory / f"predictions-{len(answered):02}.jsonl"] = generation
            answered.append(settings)
    if is_main_process:
        for settings in answered:
            print("  ".join(f"{key}={value}" for key, value in settings.items()), flush=True)
    answer_under(answerer, rows, paths, [system], likelihoods=False)
    if is_main_process:
        names = [path.name for path in paths]
        summary = {"settings": answered, "predictions": names}
        write_whole(directory / "sweep.json", json.dumps(summary, ensure_ascii=False, indent=2) + "\n")
    return directory


def split_axes(words: Sequence[str]) -> tuple[dict[str, list[Any]], list[str]]:
    """The grid's axes by generation key, and the overrides that hold for all of it. Raises UserError for a bad list."""
    axes: dict[str, list[Any]] = {}
    overrides = []
    for word in words:
        key, _, text = word.partition("=")
        if not (key.startswith("generation.") and text.strip().startswith("[")):
            overrides.append(word)
            continue
        values = parse_yaml(text, f"command line: {key}")
        if not values:
            raise UserError(f"command line: {key}: the list is empty")
        axes[key.removeprefix("generation.")] = values
    return axes or GRID, overrides
